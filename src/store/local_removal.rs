//! Takes a folder of the local file system away, also where somebody else takes it away at the same time.

use std::io::{self, ErrorKind};

use cap_std::fs::Dir;

use super::local::absent_as_none;

/// Each try comes further than the one before it, unless nothing is left.
const TRIES: u32 = 16;

/// Removes a folder with all that is in it, its file `last` after everything else. A link is removed as it is, with nothing
/// behind it.
///
/// # Errors
/// Whatever the file system says, but for what somebody else has removed meanwhile.
pub(super) fn remove_folder(root: &Dir, path: &str, last: &str) -> io::Result<()> {
    let mut tries = TRIES;
    while let Some(metadata) = absent_as_none(root.symlink_metadata(path))? {
        tries -= 1;
        match if metadata.is_dir() { emptied(root, path, last) } else { root.remove_dir_all(path) } {
            Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => {}
            done => return done,
        }
    }
    Ok(())
}

/// [`ErrorKind::NotFound`] where something vanishes before it is reached.
fn emptied(root: &Dir, path: &str, last: &str) -> io::Result<()> {
    for entry in root.read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == last {
            continue;
        }
        if entry.file_type()?.is_dir() {
            entry.open_dir()?.remove_open_dir_all()?;
        } else {
            entry.remove_file()?;
        }
    }
    root.remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn several_take_a_folder_away_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..50 {
            for file in 0..20 {
                let place = folder.path().join(format!("run-{round}/{}", file % 5));
                std::fs::create_dir_all(&place).unwrap();
                std::fs::write(place.join(file.to_string()), "").unwrap();
                std::fs::write(folder.path().join(format!("run-{round}/last")), "").unwrap();
            }
            let path = format!("run-{round}");
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
                    let path = &path;
                    threads.spawn(move || remove_folder(&root, path, "last").unwrap());
                }
            });
            assert!(!folder.path().join(path).exists());
        }
    }
}
