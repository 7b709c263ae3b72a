//! A local folder as a destination. Everything here blocks; [`Folder::run`] keeps it off the async threads.
//!
//! `object_store`'s own local store is not used: it hides and strands `name#1` staging files, and makes a staged file
//! visible at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::destination::{CreateOutcome, ObjectFacts, ReplaceOutcome, Small, Version};
use super::error::{StoreError, StoreFault};

/// A folder; paths given to its methods are relative, checked by the caller, and use `/`.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn join(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs `work` on a thread that may block.
    ///
    /// Cancel safety: the work goes on when the future is dropped; each is atomic in what it makes visible.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        object: String,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(result) => result.map_err(|error| StoreError::from_io(operation, object, error)),
            Err(error) => Err(StoreError::new(operation, object, StoreFault::Unavailable, error)),
        }
    }

    pub(super) fn read(&self, path: &str) -> io::Result<Option<Small>> {
        let Some(mut file) = absent_as_none(File::open(self.join(path)))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Of the open file: a rename in between cannot pair the bytes with another file's version.
        let version = version(&file.metadata()?);
        Ok(Some(Small { bytes: bytes.into(), version }))
    }

    pub(super) fn read_range(&self, path: &str, range: &Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        File::open(self.join(path))?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    pub(super) fn create(&self, path: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        let target = self.join(path);
        let temporary = Temporary::write(&target, bytes)?;
        match fs::hard_link(&temporary.path, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok(CreateOutcome::Exists);
            }
            Err(error) if cannot_link(&error) => match OpenOptions::new().write(true).create_new(true).open(&target) {
                // Exclusive, but not atomic in its content: a crash leaves half a file, which the caller's read back
                // and every later reader refuse.
                Ok(mut file) => {
                    file.write_all(bytes)?;
                    file.sync_all()?;
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Ok(CreateOutcome::Exists);
                }
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
        drop(temporary);
        sync_folder_of(&target)?;
        Ok(CreateOutcome::Created)
    }

    pub(super) fn replace(&self, path: &str, bytes: &Bytes, expected: &Version) -> io::Result<ReplaceOutcome> {
        let target = self.join(path);
        let temporary = Temporary::write(&target, bytes)?;
        let lock_folder = self.join("_outhaul");
        fs::create_dir_all(&lock_folder)?;
        // Never deleted: whoever waits for a deleted lock file's lock would not exclude whoever makes a new one.
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock_folder.join("lock"))?;
        lock.lock()?;
        let current = absent_as_none(fs::metadata(&target))?.map(|metadata| version(&metadata));
        if current.as_ref() != Some(expected) {
            return Ok(ReplaceOutcome::Changed);
        }
        temporary.rename(&target)?;
        Ok(ReplaceOutcome::Replaced)
    }

    pub(super) fn put(&self, path: &str, bytes: &Bytes) -> io::Result<()> {
        let target = self.join(path);
        Temporary::write(&target, bytes)?.rename(&target)
    }

    pub(super) fn delete(&self, path: &str) -> io::Result<()> {
        absent_as_none(fs::remove_file(self.join(path))).map(|_| ())
    }

    pub(super) fn delete_folder(&self, path: &str) -> io::Result<()> {
        absent_as_none(fs::remove_dir_all(self.join(path))).map(|_| ())
    }

    pub(super) fn head(&self, path: &str) -> io::Result<Option<ObjectFacts>> {
        let metadata = absent_as_none(fs::metadata(self.join(path)))?.filter(fs::Metadata::is_file);
        Ok(metadata.map(|metadata| ObjectFacts { bytes: metadata.len(), version: version(&metadata), crc64nvme: None }))
    }

    /// Every file below `prefix`, staged, temporary and hidden ones too, in order of their paths.
    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let Some(entries) = absent_as_none(fs::read_dir(self.join(&folder)))? else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let slash = if folder.is_empty() { "" } else { "/" };
                let path = format!("{folder}{slash}{}", name.to_string_lossy());
                // Of the entry, not of what a symlink points to.
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                } else if let Some(metadata) = absent_as_none(entry.metadata())? {
                    found.push((path, metadata.len()));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes a new, empty staged file.
    pub(super) fn stage(&self, file: &str) -> io::Result<File> {
        let path = self.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Moves a staged file to its name. A repeated call after success is fine; a file of somebody else's at that name
    /// is kept and is [`ErrorKind::AlreadyExists`], unless `over` says to replace it.
    pub(super) fn publish(&self, staged: &str, path: &str, bytes: u64, over: bool) -> io::Result<()> {
        let (staged, target) = (self.join(staged), self.join(path));
        let Some(metadata) = absent_as_none(fs::metadata(&staged))? else {
            return match absent_as_none(fs::metadata(&target))? {
                Some(metadata) if metadata.len() == bytes => Ok(()),
                _ => Err(io::Error::new(ErrorKind::NotFound, "the staged file is gone and was not published")),
            };
        };
        if metadata.len() != bytes {
            let text = format!("the staged file has {} bytes, {bytes} were written", metadata.len());
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if over {
            fs::rename(&staged, &target)?;
            return sync_folder_of(&target);
        }
        match fs::hard_link(&staged, &target) {
            Ok(()) => fs::remove_file(&staged)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = fs::metadata(&target)?;
                if (there.dev(), there.ino()) != (metadata.dev(), metadata.ino()) {
                    let text = "a file that this run did not write is there";
                    return Err(io::Error::new(ErrorKind::AlreadyExists, text));
                }
                fs::remove_file(&staged)?;
            }
            // Without hard links the check and the rename are two steps; names are unique to the attempt.
            Err(error) if cannot_link(&error) && !fs::exists(&target)? => fs::rename(&staged, &target)?,
            Err(error) => return Err(error),
        }
        sync_folder_of(&target)
    }
}

/// A whole file under a hidden name beside its target, removed on drop unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(target: &Path, bytes: &Bytes) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let temporary = Self { path };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        sync_folder_of(target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; otherwise a leftover is hidden and `clean` finds it.
        let _ = fs::remove_file(&self.path);
    }
}

/// A new name is durable once its folder is.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// FAT, some FUSE and SMB mounts have no hard links.
fn cannot_link(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks)
}

/// Every write makes a new file, so a change shows in the inode, or in the time where an inode is used again.
fn version(metadata: &fs::Metadata) -> Version {
    let token = format!("{}.{:09}-{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino());
    Version { e_tag: Some(token), generation: None }
}
