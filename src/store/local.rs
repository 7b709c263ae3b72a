//! A local folder as a destination. Everything here blocks; [`Folder::run`] keeps it off the async threads.
//!
//! `object_store`'s own local store is not used: it hides and strands `name#1` staging files, and makes a staged file
//! visible at once.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, File, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _,
};

use super::direct::Block;
use super::error::{StoreError, StoreFault};
use super::facts::{CreateOutcome, ObjectFacts, ReplaceOutcome, Small, Version};
use crate::spare::Spares;

/// Folders and files are their owner's: rows are nobody else's business until somebody says so.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A folder; paths given to its methods are relative, checked by the caller, and use `/`.
///
/// Its own path may lead through symbolic links, which are the operator's. Nothing in it does: a link that leads out of
/// the folder is an error (`openat2(2)`, `RESOLVE_BENEATH`, or the same by hand where that is missing), so that whoever
/// may write there cannot make us read, replace or delete anything elsewhere.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Blocks that parts have done with.
    pub(super) blocks: Spares<Block>,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, blocks: Spares::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    fn open_root(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&self.root, ambient_authority())
    }

    /// The folder that a file stands in, made where it is missing, and the file's name there.
    fn make_parent<'a>(&self, path: &'a str) -> io::Result<(Dir, &'a str)> {
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.root)?;
        let root = self.open_root()?;
        match path.rsplit_once('/') {
            None => Ok((root, path)),
            Some((folder, name)) => Ok((make_folder(&root, folder)?, name)),
        }
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
            // Refusals of the system have a number, those of the confinement have none.
            Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none() => {
                let why = "a symbolic link leads out of the destination: remove it, or name another destination";
                Err(StoreError::new(operation, object, StoreFault::Configuration, why))
            }
            Ok(result) => result.map_err(|error| StoreError::from_io(operation, object, error)),
            Err(error) => Err(StoreError::new(operation, object, StoreFault::Unavailable, error)),
        }
    }

    /// An open file.
    pub(super) fn open(&self, path: &str) -> io::Result<std::fs::File> {
        Ok(self.open_root()?.open(path)?.into_std())
    }

    pub(super) fn read(&self, path: &str) -> io::Result<Option<Small>> {
        let Some(mut file) = absent_as_none(self.open_root().and_then(|root| root.open(path)))? else {
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
        self.open(path)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    pub(super) fn create(&self, path: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        unswept(|| self.try_create(path, bytes))
    }

    fn try_create(&self, path: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        let (folder, name) = self.make_parent(path)?;
        let temporary = Temporary::write(&folder, name, bytes)?;
        match folder.hard_link(&temporary.name, &folder, name) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok(CreateOutcome::Exists);
            }
            Err(error) if cannot_link(&error) => match new_file(&folder, name) {
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
        sync(&folder)?;
        Ok(CreateOutcome::Created)
    }

    pub(super) fn replace(&self, path: &str, bytes: &Bytes, expected: &Version) -> io::Result<ReplaceOutcome> {
        unswept(|| self.try_replace(path, bytes, expected))
    }

    fn try_replace(&self, path: &str, bytes: &Bytes, expected: &Version) -> io::Result<ReplaceOutcome> {
        let (folder, name) = self.make_parent(path)?;
        let temporary = Temporary::write(&folder, name, bytes)?;
        let (locks, lock) = self.make_parent("_outhaul/lock")?;
        // Never deleted: whoever waits for a deleted lock file's lock would not exclude whoever makes a new one.
        let lock = locks.open_with(lock, OpenOptions::new().create(true).write(true).mode(FILE_MODE))?.into_std();
        lock.lock()?;
        let current = absent_as_none(folder.metadata(name))?.map(|metadata| version(&metadata));
        if current.as_ref() != Some(expected) {
            return Ok(ReplaceOutcome::Changed);
        }
        temporary.rename(name)?;
        sync(&folder)?;
        Ok(ReplaceOutcome::Replaced)
    }

    pub(super) fn put(&self, path: &str, bytes: &Bytes) -> io::Result<()> {
        unswept(|| {
            let (folder, name) = self.make_parent(path)?;
            Temporary::write(&folder, name, bytes)?.rename(name)?;
            sync(&folder)
        })
    }

    pub(super) fn delete(&self, path: &str) -> io::Result<()> {
        match self.open_root().and_then(|root| root.remove_file(path)) {
            // Below a file there is nothing.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
            result => result,
        }
    }

    /// Removes what writers of the files at `paths` left when they were killed.
    pub(super) fn sweep(&self, paths: &[String]) -> io::Result<()> {
        let Some(root) = absent_as_none(self.open_root())? else { return Ok(()) };
        for path in paths {
            let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
            // What is no folder of ours has nothing of ours in it.
            let Ok(folder) = root.open_dir(folder) else { continue };
            for entry in folder.entries()? {
                let found = entry?.file_name();
                if found.to_str().is_some_and(|found| is_temporary(found, name)) {
                    absent_as_none(folder.remove_file(&found))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn delete_folder(&self, path: &str) -> io::Result<()> {
        absent_as_none(self.open_root().and_then(|root| root.remove_dir_all(path))).map(|_| ())
    }

    pub(super) fn head(&self, path: &str) -> io::Result<Option<ObjectFacts>> {
        let metadata = absent_as_none(self.open_root().and_then(|root| root.metadata(path)))?;
        let facts =
            |metadata: Metadata| ObjectFacts { bytes: metadata.len(), version: version(&metadata), crc64nvme: None };
        Ok(metadata.filter(Metadata::is_file).map(facts))
    }

    /// Every file below `prefix`, staged, temporary and hidden ones too, in order of their paths.
    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let Some(root) = absent_as_none(self.open_root())? else { return Ok(found) };
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = if folder.is_empty() { root.entries() } else { root.read_dir(&folder) };
            let Some(entries) = absent_as_none(entries)? else {
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
    pub(super) fn stage(&self, file: &str) -> io::Result<std::fs::File> {
        let (folder, name) = self.make_parent(file)?;
        Ok(new_file(&folder, name)?.into_std())
    }

    /// A new name is durable once its folder is.
    pub(super) fn sync_folder_of(&self, path: &str) -> io::Result<()> {
        let root = self.open_root()?;
        match path.rsplit_once('/') {
            None => sync(&root),
            Some((folder, _)) => sync(&root.open_dir(folder)?),
        }
    }

    /// Moves a staged file to its name. A repeated call after success is fine; a file of somebody else's at that name
    /// is kept and is [`ErrorKind::AlreadyExists`], unless `over` says to replace it.
    pub(super) fn publish(&self, staged: &str, path: &str, bytes: u64, over: bool) -> io::Result<()> {
        let (folder, name) = self.make_parent(path).map_err(|error| match error.kind() {
            ErrorKind::NotADirectory => {
                io::Error::new(ErrorKind::AlreadyExists, "a file stands where the folder of a part should be")
            }
            _ => error,
        })?;
        let root = self.open_root()?;
        let Some(metadata) = absent_as_none(root.symlink_metadata(staged))? else {
            return match absent_as_none(folder.symlink_metadata(name))? {
                Some(metadata) if metadata.len() == bytes => Ok(()),
                _ => Err(io::Error::new(ErrorKind::NotFound, "the staged file is gone and was not published")),
            };
        };
        if metadata.len() != bytes {
            let text = format!("the staged file has {} bytes, {bytes} were written", metadata.len());
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        if over {
            root.rename(staged, &folder, name)?;
            return sync(&folder);
        }
        match root.hard_link(staged, &folder, name) {
            Ok(()) => root.remove_file(staged)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = folder.symlink_metadata(name)?;
                if (there.dev(), there.ino()) != (metadata.dev(), metadata.ino()) {
                    let text = "a file that this run did not write is there";
                    return Err(io::Error::new(ErrorKind::AlreadyExists, text));
                }
                root.remove_file(staged)?;
            }
            // Without hard links the check and the rename are two steps; names are unique to the attempt.
            Err(error) if cannot_link(&error) && absent_as_none(folder.symlink_metadata(name))?.is_none() => {
                root.rename(staged, &folder, name)?;
            }
            Err(error) => return Err(error),
        }
        sync(&folder)
    }
}

fn make_folder(root: &Dir, path: &str) -> io::Result<Dir> {
    match root.open_dir(path) {
        Ok(folder) => return Ok(folder),
        // A file in the way is told by the attempt to make a folder there.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    root.create_dir_with(path, DirBuilder::new().recursive(true).mode(FOLDER_MODE))?;
    root.open_dir(path)
}

fn new_file(folder: &Dir, name: &str) -> io::Result<File> {
    folder.open_with(name, OpenOptions::new().write(true).create_new(true).mode(FILE_MODE))
}

fn sync(folder: &Dir) -> io::Result<()> {
    // The handle itself only stands for the place (`O_PATH`).
    folder.open(".")?.sync_all()
}

/// A whole file under a hidden name beside its target, removed on drop unless it was renamed.
struct Temporary<'a> {
    folder: &'a Dir,
    name: String,
}

impl<'a> Temporary<'a> {
    fn write(folder: &'a Dir, target: &str, bytes: &Bytes) -> io::Result<Self> {
        let name = format!(".{target}.{:016x}.tmp", rand::random::<u64>());
        let mut file = new_file(folder, &name)?;
        let temporary = Self { folder, name };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn rename(self, target: &str) -> io::Result<()> {
        self.folder.rename(&self.name, self.folder, target)
    }
}

/// Whether a file is one that [`Temporary::write`] made for `target`.
fn is_temporary(name: &str, target: &str) -> bool {
    let random =
        name.strip_prefix('.').and_then(|name| name.strip_prefix(target)).and_then(|name| name.strip_prefix('.'));
    let random = random.and_then(|name| name.strip_suffix(".tmp"));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; otherwise a leftover is hidden, and swept away by the next owner.
        let _ = self.folder.remove_file(&self.name);
    }
}

/// Writes again where the temporary file was taken for a dead writer's ([`Folder::sweep`]) and swept away: whoever does
/// that has just taken the destination, and does it once.
fn unswept<T>(write: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match write() {
        Err(error) if error.kind() == ErrorKind::NotFound => write(),
        result => result,
    }
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
fn version(metadata: &Metadata) -> Version {
    let token = format!("{}.{:09}-{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino());
    Version { e_tag: Some(token), generation: None }
}
