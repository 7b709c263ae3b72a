//! Where PostgreSQL's server programs are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::export::ExportError;
use crate::model::ExportErrorKind;

/// What the demo runs; all three come from one folder, so that their versions agree.
const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

/// Where Debian and Ubuntu put each major version; they keep it out of `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder of the server programs: `PG_BIN` alone where it is set, else `PATH`, else Debian's newest.
pub(super) fn find(pg_bin: Option<&OsStr>, path: Option<&OsStr>) -> Result<PathBuf, ExportError> {
    find_below(pg_bin, path, Path::new(DEBIAN))
}

fn find_below(pg_bin: Option<&OsStr>, path: Option<&OsStr>, debian: &Path) -> Result<PathBuf, ExportError> {
    if let Some(folder) = pg_bin {
        let folder = PathBuf::from(folder);
        if has_all(&folder) {
            return Ok(folder);
        }
        let message = format!("PG_BIN names {}, which lacks initdb, postgres or pg_ctl", folder.display());
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    let in_path = path.into_iter().flat_map(std::env::split_paths).find(|folder| has_all(folder)).map(resolved);
    in_path.or_else(|| newest(debian)).ok_or_else(|| {
        ExportError::new(ExportErrorKind::Usage, "no PostgreSQL server is installed here (initdb, postgres, pg_ctl)")
            .with_hint(
                "on Debian and Ubuntu: sudo apt-get install --yes postgresql; \
                 elsewhere set PG_BIN to the folder of its programs",
            )
    })
}

/// Where `initdb` really is, if the others are there too: links in `PATH` may point to different versions.
fn resolved(folder: PathBuf) -> PathBuf {
    let real = folder.join("initdb").canonicalize().ok();
    real.as_deref().and_then(Path::parent).filter(|real| has_all(real)).map_or(folder, Path::to_path_buf)
}

fn newest(debian: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(debian).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let major: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        has_all(&folder).then_some((major, folder))
    });
    versions.max().map(|(_, folder)| folder)
}

fn has_all(folder: &Path) -> bool {
    // An empty entry of PATH is the current folder, from which nothing is run.
    folder.is_absolute() && NEEDED.iter().all(|program| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for program in NEEDED {
            std::fs::write(folder.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_newest_of_debian_is_taken_by_number() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "18", "common"] {
            install(&root.path().join(version).join("bin"));
        }
        std::fs::create_dir_all(root.path().join("19/bin")).unwrap();
        assert_eq!(find_below(None, None, root.path()).unwrap(), root.path().join("18/bin"));
    }

    #[test]
    fn path_comes_before_debian_and_pg_bin_before_both() {
        let root = tempfile::tempdir().unwrap();
        let (own, path, debian) = (root.path().join("own"), root.path().join("path"), root.path().join("debian"));
        install(&own);
        install(&path);
        install(&debian.join("18/bin"));
        let path_text = std::env::join_paths([Path::new("/nowhere"), &path]).unwrap();
        assert_eq!(find_below(None, Some(&path_text), &debian).unwrap(), path);
        assert_eq!(find_below(Some(own.as_os_str()), Some(&path_text), &debian).unwrap(), own);
    }

    #[test]
    fn links_in_path_lead_to_one_version() {
        let root = tempfile::tempdir().unwrap();
        let (links, old, new) = (root.path().join("links"), root.path().join("15"), root.path().join("18"));
        for folder in [&links, &old, &new] {
            install(folder);
        }
        std::fs::remove_file(links.join("initdb")).unwrap();
        std::os::unix::fs::symlink(new.join("initdb"), links.join("initdb")).unwrap();
        assert_eq!(find_below(None, Some(links.as_os_str()), root.path()).unwrap(), new.canonicalize().unwrap());
    }

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let nowhere = Path::new("/nowhere");
        let error = find_below(None, None, nowhere).unwrap_err();
        assert_eq!(error.kind, ExportErrorKind::Usage);
        assert!(error.hint.unwrap().contains("apt-get install --yes postgresql"));
        let error = find_below(Some(OsStr::new("/nowhere")), None, nowhere).unwrap_err();
        assert!(error.message.contains("PG_BIN names /nowhere"));
    }
}
