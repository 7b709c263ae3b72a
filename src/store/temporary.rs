//! Small files written whole under a hidden name first, so that nobody sees half of one.

use std::io::{self, ErrorKind, Write};

use bytes::Bytes;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use super::facts::CreateOutcome;
use super::local::FILE_MODE;
use super::owner::OWNER_TRIES;
use crate::base::failpoint;

/// A whole file under a hidden name beside its target, removed on drop unless it was renamed.
pub(super) struct Temporary<'a> {
    folder: &'a Dir,
    pub(super) name: String,
}

impl<'a> Temporary<'a> {
    pub(super) fn write(folder: &'a Dir, target: &str, bytes: &Bytes) -> io::Result<Self> {
        let (temporary, file) = Self::begin(folder, target, bytes)?;
        failpoint::count("fsync");
        file.sync_all()?;
        Ok(temporary)
    }

    /// The same, which is not yet on the disk.
    pub(super) fn write_only(folder: &'a Dir, target: &str, bytes: &Bytes) -> io::Result<Self> {
        Ok(Self::begin(folder, target, bytes)?.0)
    }

    fn begin(folder: &'a Dir, target: &str, bytes: &Bytes) -> io::Result<(Self, File)> {
        let name = format!(".{target}.{:016x}.tmp", rand::random::<u64>());
        let mut file = new_file(folder, &name)?;
        let temporary = Self { folder, name };
        file.write_all(bytes)?;
        Ok((temporary, file))
    }

    pub(super) fn rename(self, target: &str) -> io::Result<()> {
        self.folder.rename(&self.name, self.folder, target)
    }

    /// Gives the file, which has these bytes, its name where nobody has that and the file system has no hard links. FAT, SMB
    /// and most FUSE mounts rename without replacing.
    pub(super) fn rename_new(self, target: &str, bytes: &Bytes) -> io::Result<CreateOutcome> {
        let renamed = if failpoint::off("rename-new") {
            Err(Errno::INVAL)
        } else {
            renameat_with(self.folder, &self.name, self.folder, target, RenameFlags::NOREPLACE)
        };
        match renamed {
            Ok(()) => Ok(CreateOutcome::Created),
            Err(Errno::EXIST) => Ok(CreateOutcome::Exists),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                let folder = self.folder;
                // A disk that is nearly full has no room for both.
                drop(self);
                write_new(folder, target, |file| {
                    file.write_all(bytes)?;
                    file.sync_all()
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a file where none is. That is exclusive, but not atomic in its content: a crash leaves half a file, which the
/// caller's read back and every later reader refuse.
fn write_new(folder: &Dir, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<CreateOutcome> {
    let mut file = match new_file(folder, name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(CreateOutcome::Exists),
        file => file?,
    };
    if let Err(error) = write(&mut file) {
        // Half a file would be in the way of every later try.
        let _ = folder.remove_file(name);
        return Err(error);
    }
    Ok(CreateOutcome::Created)
}

/// Whether a file is one that [`Temporary::write`] made for `target`.
pub(super) fn is_temporary(name: &str, target: &str) -> bool {
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

/// Writes again where the temporary file was taken for a dead writer's ([`Folder::sweep`](super::local::Folder::sweep)) and swept away by whoever has
/// just taken the destination, or where whoever has just left it took an empty folder along.
pub(super) fn unswept<T>(write: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..OWNER_TRIES {
        match write() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    write()
}

pub(super) fn new_file(folder: &Dir, name: &str) -> io::Result<File> {
    folder.open_with(name, OpenOptions::new().write(true).create_new(true).mode(FILE_MODE))
}

pub(super) fn sync(folder: &Dir) -> io::Result<()> {
    failpoint::count("fsync");
    // The handle itself only stands for the place (`O_PATH`).
    folder.open(".")?.sync_all()
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use cap_std::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn without_hard_links_a_file_is_written_once_and_in_nobodys_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(root.path(), ambient_authority()).unwrap();
        let bytes = Bytes::from("whole");
        let temporary = Temporary::write(&folder, "file", &bytes).unwrap();
        let written = folder.metadata(&temporary.name).unwrap().ino();
        assert_eq!(temporary.rename_new("file", &bytes).unwrap(), CreateOutcome::Created);
        assert_eq!(folder.metadata("file").unwrap().ino(), written);

        let other = Temporary::write(&folder, "file", &"other".into()).unwrap();
        assert_eq!(other.rename_new("file", &"other".into()).unwrap(), CreateOutcome::Exists);
        assert_eq!(folder.read("file").unwrap(), bytes);
        assert_eq!(folder.entries().unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_whole_does_not_stay() {
        let root = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(root.path(), ambient_authority()).unwrap();
        let full = |file: &mut File| {
            file.write_all(b"ha")?;
            Err(ErrorKind::StorageFull.into())
        };
        assert_eq!(write_new(&folder, "file", full).unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(!folder.exists("file"));
        assert_eq!(write_new(&folder, "file", |file| file.write_all(b"whole")).unwrap(), CreateOutcome::Created);
        assert_eq!(write_new(&folder, "file", full).unwrap(), CreateOutcome::Exists);
        assert_eq!(folder.read("file").unwrap(), b"whole");
    }
}
