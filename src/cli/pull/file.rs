//! Where the rows go. A file has its name once it is known to be whole; until then it is its `.partial`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::super::screen::Screen;
use crate::base::voice;
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};

/// Tries to open a `.partial` that others take away or publish meanwhile.
const OPENS_MAX: u32 = 5;

#[expect(clippy::cast_possible_wrap, reason = "it is one bit, and not the highest")]
const NO_LINK: i32 = OFlags::NOFOLLOW.bits() as i32;

/// A place for rows.
#[derive(Debug)]
pub(crate) enum PullOutput {
    Stdout,
    File(PartialFile),
}

/// A file that is not whole yet. Its lock keeps another pull away from it.
#[derive(Debug)]
pub(crate) struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
    replace: bool,
    file: File,
}

/// Where the file is to be: behind a link, where the link leads. Refuses one that is there, before anything is asked for.
///
/// # Errors
/// It is there and not to be replaced, or it can be no file.
pub(crate) fn place(path: &Path, replace: bool) -> Result<PathBuf, ExportError> {
    let shown = path.display();
    let looking = |error| failed(format!("looking at {shown}"), error);
    let is_link = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        facts => facts.map_err(looking)?.is_symlink(),
    };
    let facts = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        facts => Some(facts.map_err(looking)?),
    };
    if facts.as_ref().is_some_and(std::fs::Metadata::is_dir) {
        let what = format!("-o {shown} is a folder");
        return Err(ExportError::new(ExportErrorKind::Usage, what).with_hint("name a file in it"));
    }
    if !facts.is_some_and(|facts| facts.is_file()) {
        let what = if is_link { "is a link that leads to no file" } else { "is no file" };
        let error = ExportError::new(ExportErrorKind::Usage, format!("-o {shown} {what}"));
        return Err(error.with_hint("-o - writes to standard output"));
    }
    let target = if is_link { path.canonicalize().map_err(looking)? } else { path.to_owned() };
    if replace { Ok(target) } else { Err(taken(&target)) }
}

fn taken(path: &Path) -> ExportError {
    let what = format!("{} is there already", path.display());
    ExportError::new(ExportErrorKind::DestinationTaken, what)
        .with_code(ErrorCode::DestinationOccupied)
        .with_hint("--on-existing replace replaces it once the new one is whole")
}

fn failed(what: String, error: io::Error) -> ExportError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ExportErrorKind::DestinationAuthentication
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ExportErrorKind::DestinationFull
        }
        io::ErrorKind::BrokenPipe => ExportErrorKind::ReaderGone,
        _ => ExportErrorKind::DestinationUnavailable,
    };
    ExportError::new(kind, what).with_source(error)
}

/// `orders.csv.partial`.
pub(crate) fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Opens a `.partial` and locks it. One that is another file by now, or has another name beside its own, is what an earlier
/// pull has published: that one keeps its rows, and a new file is made.
fn locked(partial: &Path) -> Result<File, ExportError> {
    let shown = partial.display();
    let mut tries = OPENS_MAX;
    loop {
        let mut options = OpenOptions::new();
        // Who may write in the folder could lead the rows elsewhere by a link.
        let options = options.read(true).write(true).create(true).truncate(false).custom_flags(NO_LINK);
        let file = options.open(partial).map_err(|error| {
            if error.raw_os_error() != Some(Errno::LOOP.raw_os_error()) {
                return failed(format!("making {shown}"), error);
            }
            let what = format!("{shown} is a link, and rows are not written through one");
            ExportError::new(ExportErrorKind::DestinationTaken, what).with_hint("remove it, or name another file")
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let what = format!("another pull is writing {shown}");
                return Err(ExportError::new(ExportErrorKind::DestinationTaken, what));
            }
            Err(error) => return Err(failed(format!("locking {shown}"), error.into())),
        }
        let held = file.metadata().map_err(|error| failed(format!("looking at {shown}"), error))?;
        let named = std::fs::symlink_metadata(partial).ok();
        let is_ours = named.is_some_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
        if is_ours && held.nlink() == 1 {
            return Ok(file);
        }
        tries -= 1;
        if tries == 0 {
            let what = format!("{shown} changes while it is opened");
            return Err(ExportError::new(ExportErrorKind::DestinationTaken, what));
        }
        if is_ours {
            std::fs::remove_file(partial).map_err(|error| failed(format!("removing {shown}"), error))?;
        }
    }
}

impl PullOutput {
    /// Opens the place; what a pull before this one left unfinished goes, and that is told.
    ///
    /// # Errors
    /// Another pull writes it, or it cannot be made, or as [`place`].
    pub(crate) fn open(path: &str, replace: bool, screen: &Screen) -> Result<Self, ExportError> {
        if path == "-" {
            return Ok(Self::Stdout);
        }
        let path = place(Path::new(path), replace)?;
        let partial = partial_of(&path);
        let shown = partial.display();
        let file = locked(&partial)?;
        let left = file.metadata().map(|facts| facts.len()).unwrap_or_default();
        if left > 0 {
            screen.line(&format!("replacing {shown}, which an earlier pull left unfinished"));
        }
        file.set_len(0).map_err(|error| failed(format!("emptying {shown}"), error))?;
        Ok(Self::File(PartialFile { path, partial, replace, file }))
    }

    /// Writes rows. A reader of standard output that does not read holds up this alone, and no signal.
    ///
    /// # Errors
    /// The disk is full, the reader has gone, …
    pub(crate) async fn write(&mut self, data: Vec<u8>) -> Result<(), ExportError> {
        match self {
            Self::Stdout if data.is_empty() => Ok(()),
            Self::Stdout => {
                let written = tokio::task::spawn_blocking(move || {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&data).and_then(|()| stdout.flush())
                });
                let written = written.await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
                written.map_err(|error| failed("writing to standard output".to_owned(), error))
            }
            Self::File(PartialFile { file, partial, .. }) => {
                file.write_all(&data).map_err(|error| failed(format!("writing {}", partial.display()), error))
            }
        }
    }

    /// Gives a whole file its name. A file that came meanwhile is not replaced unless that was asked for.
    ///
    /// # Errors
    /// There is one, or the disk fails.
    pub(crate) fn publish(self) -> Result<(), ExportError> {
        let Self::File(PartialFile { path, partial, replace, file }) = self else { return Ok(()) };
        let publishing = |error| failed(format!("naming {} {}", partial.display(), path.display()), error);
        file.sync_all().map_err(publishing)?;
        if replace {
            return std::fs::rename(&partial, &path).map_err(publishing);
        }
        match std::fs::hard_link(&partial, &path) {
            Ok(()) => std::fs::remove_file(&partial).map_err(publishing),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(&path)),
            // A file system without links: the moment between look and name is all that is left open.
            Err(_) => match path.symlink_metadata() {
                Ok(_) => Err(taken(&path)),
                Err(_) => std::fs::rename(&partial, &path).map_err(publishing),
            },
        }
    }

    /// Keeps what came of a stream that is not whole, and says where; nothing is kept of nothing.
    pub(crate) fn keep(self) -> Option<String> {
        let Self::File(PartialFile { partial, file, .. }) = self else { return None };
        if file.metadata().is_ok_and(|facts| facts.len() == 0) {
            // An empty file is of no use, and not worth another error.
            let _ = std::fs::remove_file(&partial);
            return None;
        }
        Some(voice::one_line(&partial.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::Kept;

    #[tokio::test]
    async fn a_file_has_its_name_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let name = path.to_str().unwrap();
        let kept = Kept::default();
        let mut output = PullOutput::open(name, false, &kept.screen()).unwrap();
        output.write(b"rows".to_vec()).await.unwrap();
        let another = PullOutput::open(name, false, &kept.screen()).unwrap_err();
        assert_eq!(another.kind, ExportErrorKind::DestinationTaken);
        assert!(!path.exists());
        output.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"rows");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(kept.text(), "");
    }

    #[tokio::test]
    async fn what_is_there_stays_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let name = path.to_str().unwrap();
        let screen = Kept::default().screen();
        assert_eq!(place(&path, false).unwrap(), path);
        let mut output = PullOutput::open(name, false, &screen).unwrap();
        output.write(b"new".to_vec()).await.unwrap();
        // It comes while the rows do.
        std::fs::write(&path, b"mine").unwrap();
        assert_eq!(output.publish().unwrap_err().kind, ExportErrorKind::DestinationTaken);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(std::fs::read(partial_of(&path)).unwrap(), b"new");
        assert_eq!(place(&path, false).unwrap_err().kind, ExportErrorKind::DestinationTaken);
        place(&path, true).unwrap();
        assert_eq!(place(folder.path(), true).unwrap_err().kind, ExportErrorKind::Usage);

        let kept = Kept::default();
        let mut output = PullOutput::open(name, true, &kept.screen()).unwrap();
        assert!(kept.text().contains("which an earlier pull left unfinished"), "{}", kept.text());
        output.write(b"newer".to_vec()).await.unwrap();
        output.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"newer");
    }

    #[tokio::test]
    async fn a_published_file_that_is_still_a_partial_too_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let partial = partial_of(&path);
        std::fs::write(&path, b"whole").unwrap();
        // As a pull leaves it that is killed between the two names.
        std::fs::hard_link(&path, &partial).unwrap();
        let kept = Kept::default();
        let mut output = PullOutput::open(path.to_str().unwrap(), true, &kept.screen()).unwrap();
        output.write(b"cut".to_vec()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert!(output.keep().is_some());
        assert_eq!((std::fs::read(&path).unwrap(), std::fs::read(&partial).unwrap()), (b"whole".into(), b"cut".into()));
        assert_eq!(kept.text(), "");
    }

    #[tokio::test]
    async fn no_link_leads_the_rows_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let screen = Kept::default().screen();
        std::fs::write(at("mine"), b"mine").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        for target in ["mine", "nothing"] {
            link(&at(target), "rows.partial");
            let error = PullOutput::open(at("rows").to_str().unwrap(), true, &screen).unwrap_err();
            assert_eq!(error.kind, ExportErrorKind::DestinationTaken, "{error}");
            assert!(error.message.contains("is a link"), "{error}");
            std::fs::remove_file(at("rows.partial")).unwrap();
        }
        assert!(std::fs::read(at("mine")).unwrap() == b"mine" && !at("nothing").exists());

        // A link to a file stays one, and the file is the one that is written.
        link(Path::new("mine"), "newest");
        assert_eq!(place(&at("newest"), false).unwrap_err().kind, ExportErrorKind::DestinationTaken);
        let mut output = PullOutput::open(at("newest").to_str().unwrap(), true, &screen).unwrap();
        output.write(b"new".to_vec()).await.unwrap();
        output.publish().unwrap();
        assert_eq!(std::fs::read_link(at("newest")).unwrap(), Path::new("mine"));
        assert_eq!(std::fs::read(at("mine")).unwrap(), b"new");

        link(Path::new("/dev/null"), "device");
        link(Path::new("/proc/self/fd/nothing"), "dangling");
        link(folder.path(), "folder");
        for (name, hint) in [("device", "-o - writes"), ("dangling", "-o - writes"), ("folder", "name a file in it")] {
            let error = place(&at(name), true).unwrap_err();
            assert_eq!(error.kind, ExportErrorKind::Usage, "{name}: {error}");
            assert!(error.hint.unwrap().contains(hint), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_partial_that_another_pull_publishes_meanwhile_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let partial = partial_of(&path);
        // Whoever opened it before it was renamed must not empty it.
        let emptied = std::thread::scope(|scope| {
            let pull = || {
                let mut emptied = 0;
                for _ in 0..500 {
                    let Ok(mut file) = locked(&partial) else { continue };
                    file.set_len(0).unwrap();
                    file.write_all(b"whole").unwrap();
                    std::fs::rename(&partial, &path).unwrap();
                    emptied += i32::from(std::fs::read(&path).unwrap() != b"whole");
                }
                emptied
            };
            let pulls = [(); 4].map(|()| scope.spawn(pull));
            pulls.map(|pull| pull.join().unwrap()).iter().sum::<i32>()
        });
        assert_eq!(emptied, 0);
    }

    #[tokio::test]
    async fn what_came_of_a_broken_stream_is_kept_and_nothing_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let screen = Kept::default().screen();
        let open = || PullOutput::open(path.to_str().unwrap(), false, &screen).unwrap();
        assert_eq!(open().keep(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut output = open();
        output.write(b"half".to_vec()).await.unwrap();
        assert!(output.keep().unwrap().ends_with("x.partial"));
        assert_eq!(std::fs::read(partial_of(&path)).unwrap(), b"half");
    }
}
