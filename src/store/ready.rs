//! Whether a destination can take what a run will write there, seen before the run reads anything.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::destination::Destination;
use super::error::StoreError;
use super::local::{Folder, absent_as_none};

impl Destination {
    /// Whether files could be made at `paths`, as far as that can be seen without making any: an object store tells that of
    /// none, a folder of links that lead away, of what stands in the way, and of rights.
    ///
    /// # Errors
    /// [`StoreError`] of the first path that could not be written.
    ///
    /// # Cancel safety
    /// It only looks.
    pub(crate) async fn ready(&self, paths: Vec<String>) -> Result<(), StoreError> {
        let Some(root) = self.local_folder() else { return Ok(()) };
        let folder = Arc::new(Folder::new(root));
        for path in paths {
            let object = self.object_url(&path);
            folder.run("looking at", object, move |folder| could_be_made(folder.path(), &path)).await?;
        }
        Ok(())
    }
}

/// Whether a file could be made at `path` below `root`.
fn could_be_made(root: &Path, path: &str) -> io::Result<()> {
    if absent_as_none(root.symlink_metadata())?.is_some_and(|it| it.is_symlink()) {
        // One that leads nowhere is no place.
        root.metadata()?;
    }
    let Some(root) = absent_as_none(Dir::open_ambient_dir(root, ambient_authority()))? else { return Ok(()) };
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let parent = match root.open_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match absent_as_none(root.symlink_metadata(folder))? {
                Some(_) => Err(error),
                None => Ok(()),
            };
        }
        parent => parent?,
    };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(&parent, ".", access, rustix::fs::AtFlags::EACCESS)?;
    match absent_as_none(parent.symlink_metadata(name))? {
        Some(there) if there.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => Ok(()),
    }
}
