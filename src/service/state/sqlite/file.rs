//! The file of the state, which only its owner can read, and the lock that keeps other processes away from it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::super::StateError;

/// It holds the signing key.
const OWNER_ONLY: u32 = 0o600;

/// Held as long as it lives; the system lets go of it for a process that dies.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Makes the file where it is missing, and locks it by a file beside it: one on the file itself could meet `SQLite`'s
    /// own. Gives the file's one true path, which a symbolic link does not hide.
    ///
    /// # Errors
    /// Another process has it, or a file cannot be made.
    pub(super) fn take(path: &Path) -> Result<(PathBuf, Self), StateError> {
        open(path)?;
        let path = path.canonicalize().map_err(StateError::file(path))?;
        let beside = beside(&path);
        let mut file = open(&beside)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::InUse { path, holder: holder(&mut file) }),
            Err(error) => return Err(StateError::file(&beside)(error.into())),
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(StateError::file(&beside))?;
        Ok((path, Self { _file: file }))
    }
}

/// Opens a file for its owner alone, even where it had been open to others.
fn open(path: &Path) -> Result<File, StateError> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path);
    let file = opened.map_err(StateError::file(path))?;
    file.set_permissions(Permissions::from_mode(OWNER_ONLY)).map_err(StateError::file(path))?;
    Ok(file)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// The process that has the lock, as it wrote itself.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
