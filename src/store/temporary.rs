//! Small files written whole under a hidden name first, so that nobody sees half of one.

use std::io::{self, ErrorKind, Write};

use bytes::Bytes;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};

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
