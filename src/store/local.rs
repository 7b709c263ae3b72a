//! A local folder as a destination. Everything here blocks; [`Folder::run`] keeps it off the async threads.
//!
//! `object_store`'s own local store is not used: it hides and strands `name#1` staging files, and makes a staged file
//! visible at once.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use cap_std::ambient_authority;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, File, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncReadExt;

use super::direct::AlignedBuffer;
use super::error::{StoreError, StoreFault};
use super::facts::{CreateOutcome, NameKind, ObjectFacts, ReplaceOutcome, Small, Version};
use super::local_removal::remove_folder;
use super::temporary::{Temporary, is_temporary, new_file, sync, unswept};
use crate::base::cpu::TaskLost;
use crate::base::failpoint;
use crate::base::spare::Spares;
use crate::base::words::counted;
use crate::model::StagedObject;

/// Bytes read at once from a local file.
const STORE_READ_BYTES: usize = 256 * 1024;

/// Folders and files are their owner's: rows are nobody else's business until somebody says so.
const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// A folder; paths given to its methods are relative, checked by the caller, and use `/`.
///
/// Its own path may lead through symbolic links, which are the operator's. Nothing in it does: a link that leads out of
/// the folder is an error (`openat2(2)`, `RESOLVE_BENEATH`, or the same by hand where that is missing), so that whoever
/// may write there cannot make us read, replace or delete anything elsewhere.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// The folders that were made through this handle, a parent before what is in it.
    made: Mutex<BTreeSet<PathBuf>>,
    /// Blocks that parts have done with.
    pub(super) blocks: Spares<AlignedBuffer>,
}

/// What guards the replacement of files. It may be removed by whoever holds its lock: whoever has waited for that of a
/// removed file sees that another one, or none, stands at the path.
const LOCK: &str = "_outhaul/lock";

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, made: Mutex::default(), blocks: Spares::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    fn open_root(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&self.root, ambient_authority())
    }

    /// The folder that a file stands in, made where it is missing, and the file's name there.
    fn make_parent<'a>(&self, path: &'a str) -> io::Result<(Dir, &'a str)> {
        self.make_root()?;
        let root = self.open_root()?;
        match path.rsplit_once('/') {
            None => Ok((root, path)),
            Some((folder, name)) => Ok((self.make_folder(&root, folder)?, name)),
        }
    }

    fn make_root(&self) -> io::Result<()> {
        let missing: Vec<&Path> =
            self.root.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        for path in missing.into_iter().rev() {
            match std::fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
                Ok(()) => self.note(path.to_owned()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn make_folder(&self, root: &Dir, path: &str) -> io::Result<Dir> {
        match root.open_dir(path) {
            Ok(folder) => return Ok(folder),
            // A file in the way is told by the attempt to make a folder there.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for folder in ends.map(|end| &path[..end]) {
            match root.create_dir_with(folder, DirBuilder::new().mode(FOLDER_MODE)) {
                Ok(()) => self.note(self.root.join(folder)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        root.open_dir(path)
    }

    fn note(&self, made: PathBuf) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(made);
    }

    /// Removes the lock file where nobody holds it, and the folder of our own records and those that were made through
    /// this handle where they are empty. Whoever is just about to write there makes them again ([`unswept`]).
    pub(super) fn remove_empty(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let Ok(root) = self.open_root() else { return };
        if let Some((records, name)) = LOCK.rsplit_once('/')
            && let Ok(folder) = root.open_dir(records)
        {
            if let Ok(lock) = folder.open(name).map(File::into_std)
                && lock.try_lock().is_ok()
                && is_at(&lock, &folder, name)
            {
                let _ = folder.remove_file(name);
            }
            let _ = root.remove_dir(records);
        }
        // What is not empty stays; nothing depends on what is.
        for folder in made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
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
            Err(error) => Err(StoreError::new(operation, object, StoreFault::Unavailable, TaskLost::from(error))),
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

    /// The bytes of a file, piece by piece.
    pub(super) fn read_stream(
        self: Arc<Self>,
        path: String,
        object: String,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        stream::try_unfold(None, move |file| {
            let (folder, path, object) = (Arc::clone(&self), path.clone(), object.clone());
            async move {
                let mut file = if let Some(file) = file {
                    file
                } else {
                    let opened = folder.run("reading", object.clone(), move |folder| folder.open(&path)).await?;
                    tokio::fs::File::from_std(opened)
                };
                let read = async {
                    let mut bytes = BytesMut::with_capacity(STORE_READ_BYTES);
                    file.read_buf(&mut bytes).await?;
                    Ok((!bytes.is_empty()).then(|| (bytes.freeze(), Some(file))))
                };
                read.await.map_err(|error| StoreError::from_io("reading", object, error))
            }
        })
        .boxed()
    }

    pub(super) fn create(&self, path: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        unswept(|| self.try_create(path, bytes))
    }

    fn try_create(&self, path: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        let (folder, name) = self.make_parent(path)?;
        let temporary = Temporary::write(&folder, name, bytes)?;
        let linked = if failpoint::off("hard-links") {
            Err(ErrorKind::Unsupported.into())
        } else {
            folder.hard_link(&temporary.name, &folder, name)
        };
        let created = match linked {
            Ok(()) => {
                drop(temporary);
                CreateOutcome::Created
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => CreateOutcome::Exists,
            Err(error) if cannot_link(&error) => temporary.rename_new(name, bytes)?,
            Err(error) => return Err(error),
        };
        if created == CreateOutcome::Created {
            sync(&folder)?;
        }
        Ok(created)
    }

    pub(super) fn replace(&self, path: &str, bytes: &Bytes, expected: &Version) -> io::Result<ReplaceOutcome> {
        unswept(|| self.try_replace(path, bytes, expected))
    }

    fn try_replace(&self, path: &str, bytes: &Bytes, expected: &Version) -> io::Result<ReplaceOutcome> {
        let (folder, name) = self.make_parent(path)?;
        let temporary = Temporary::write(&folder, name, bytes)?;
        let lock = self.lock()?;
        let current = absent_as_none(folder.metadata(name))?.map(|metadata| version(&metadata));
        if current.as_ref() != Some(expected) {
            return Ok(ReplaceOutcome::Changed);
        }
        temporary.rename(name)?;
        sync(&folder)?;
        drop(lock);
        Ok(ReplaceOutcome::Replaced)
    }

    /// Waits for the lock; it is held for as long as the file is open.
    fn lock(&self) -> io::Result<std::fs::File> {
        loop {
            let (folder, name) = self.make_parent(LOCK)?;
            let lock = folder.open_with(name, OpenOptions::new().create(true).write(true).mode(FILE_MODE))?.into_std();
            lock.lock()?;
            if is_at(&lock, &folder, name) {
                return Ok(lock);
            }
        }
    }

    pub(super) fn put(&self, path: &str, bytes: &Bytes) -> io::Result<()> {
        unswept(|| {
            let (folder, name) = self.make_parent(path)?;
            Temporary::write(&folder, name, bytes)?.rename(name)?;
            sync(&folder)
        })
    }

    /// As [`Self::put`], and nothing waits until it is on the disk.
    pub(super) fn note_file(&self, path: &str, bytes: &Bytes) -> io::Result<()> {
        unswept(|| {
            let (folder, name) = self.make_parent(path)?;
            Temporary::write_only(&folder, name, bytes)?.rename(name)
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

    /// Removes a folder with all that is in it, its file `last` after everything else: a removal that is cut short leaves
    /// that file.
    pub(super) fn delete_folder(&self, path: &str, last: &str) -> io::Result<()> {
        let Some(root) = absent_as_none(self.open_root())? else { return Ok(()) };
        remove_folder(&root, path, last)
    }

    pub(super) fn head(&self, path: &str) -> io::Result<Option<ObjectFacts>> {
        let metadata = absent_as_none(self.open_root().and_then(|root| root.metadata(path)))?;
        let facts = |metadata: Metadata| ObjectFacts {
            bytes: metadata.len(),
            version: version(&metadata),
            crc64nvme: None,
            // Without the inode: FAT numbers a file anew each time that it is looked up.
            stamp: format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()),
        };
        Ok(metadata.filter(Metadata::is_file).map(facts))
    }

    /// Every file below `prefix`, staged, temporary and hidden ones too, in order of their paths.
    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let Some(root) = below(self.open_root())? else { return Ok(found) };
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = if folder.is_empty() { root.entries() } else { root.read_dir(&folder) };
            let Some(entries) = below(entries)? else {
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

    /// Moves a staged file to its name. A repeated call after success is fine; a file of somebody else's at that name
    /// is kept and is [`ErrorKind::AlreadyExists`], unless the name is shared, where it is replaced.
    pub(super) fn publish(&self, staged: &str, object: &StagedObject, kind: &NameKind) -> io::Result<()> {
        let (path, bytes) = (object.path.as_str(), object.bytes);
        let (folder, name) = self.make_parent(path).map_err(|error| match error.kind() {
            ErrorKind::NotADirectory => {
                io::Error::new(ErrorKind::AlreadyExists, "a file stands where the folder of a part should be")
            }
            _ => error,
        })?;
        let root = self.open_root()?;
        let Some(metadata) = absent_as_none(root.symlink_metadata(staged))? else {
            return match self.head(path)? {
                Some(there) if kind.has_published(object, &there) => Ok(()),
                _ => Err(io::Error::new(ErrorKind::NotFound, "the staged file is gone and was not published")),
            };
        };
        if metadata.len() != bytes {
            let text = format!("the staged file has {} of {}", metadata.len(), counted(bytes, "byte"));
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        if matches!(kind, NameKind::Shared { .. }) {
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

/// Whether an open file is still the one of this name.
fn is_at(file: &std::fs::File, folder: &Dir, name: &str) -> bool {
    match (file.metadata(), folder.symlink_metadata(name)) {
        (Ok(ours), Ok(there)) => {
            use std::os::unix::fs::MetadataExt as _;
            (ours.dev(), ours.ino()) == (there.dev(), there.ino())
        }
        _ => false,
    }
}

pub(super) fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing is below what is not there, and nothing below a file.
fn below<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        result => absent_as_none(result),
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "file";

    /// Adds a byte to the file, and takes away what it has made.
    fn append(folder: &Folder) {
        loop {
            let Some(Small { bytes, version }) = folder.read(FILE).unwrap() else {
                folder.create(FILE, &Bytes::new()).unwrap();
                continue;
            };
            let longer = [&bytes[..], b"x"].concat().into();
            if folder.replace(FILE, &longer, &version).unwrap() == ReplaceOutcome::Replaced {
                return folder.remove_empty();
            }
        }
    }

    #[test]
    fn the_lock_excludes_while_its_file_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let folder = Folder::new(root.path().join("a/b"));
                    (0..50).for_each(|_| append(&folder));
                });
            }
        });
        let folder = Folder::new(root.path().join("a/b"));
        assert_eq!(folder.read(FILE).unwrap().unwrap().bytes.len(), 200);
        assert_eq!(folder.list("").unwrap(), [(FILE.to_owned(), 200)]);
    }

    #[test]
    fn only_what_was_made_and_is_empty_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("a/b"));
        folder.put("data/x", &Bytes::new()).unwrap();
        folder.put("kept/x", &Bytes::new()).unwrap();
        folder.delete("data/x").unwrap();
        folder.remove_empty();
        assert_eq!(folder.list("").unwrap(), [("kept/x".to_owned(), 0)]);
        assert!(!root.path().join("a/b/data").exists());

        std::fs::remove_dir_all(root.path().join("a")).unwrap();
        folder.put("data/x", &Bytes::new()).unwrap();
        folder.delete("data/x").unwrap();
        // Another handle has not made it.
        Folder::new(root.path().join("a/b")).remove_empty();
        assert!(root.path().join("a/b/data").exists());
        folder.remove_empty();
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_and_nothing_behind_its_links() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().to_owned());
        for path in ["run/a", "run/last", "run/z", "run/deep/x", "other/x"] {
            folder.put(path, &Bytes::new()).unwrap();
        }
        std::os::unix::fs::symlink(root.path().join("other"), root.path().join("run/link")).unwrap();
        std::os::unix::fs::symlink(root.path().join("other"), root.path().join("linked")).unwrap();
        folder.delete_folder("run", "last").unwrap();
        folder.delete_folder("run", "last").unwrap();
        let _ = folder.delete_folder("linked", "last");
        assert_eq!(folder.list("other").unwrap(), [("other/x".to_owned(), 0)]);
        assert!(!root.path().join("run").exists());
    }
}
