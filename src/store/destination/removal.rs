//! What is taken away from a destination again: staged objects, uploads, and what the killed left.

use super::{Backend, Destination, elsewhere};
use crate::model::{StagedObject, Staging};
use crate::store::error::StoreError;
use crate::store::local::Folder;

impl Destination {
    /// Drops a staged object that will not be published; one that is already gone is fine. A published object is left
    /// as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn discard(&self, staged: &StagedObject) -> Result<(), StoreError> {
        let object = self.check("discarding", &staged.path)?;
        match (&self.inner.backend, &staged.staging) {
            (_, Staging::Published) => Ok(()),
            (Backend::Local(folder), Staging::Local { file }) => {
                self.check("discarding", file)?;
                let file = file.clone();
                folder.run("discarding", object, move |folder| folder.delete(&file)).await
            }
            (Backend::Remote(remote), Staging::Multipart { upload_id, .. }) => {
                remote.abort(&staged.path, upload_id).await
            }
            _ => Err(elsewhere("discarding", object)),
        }
    }

    /// The uploads below the destination that are neither complete nor aborted, as paths and ids; `None` where there are
    /// no uploads or the store cannot list them (only S3 can).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_uploads(&self) -> Result<Option<Vec<(String, String)>>, StoreError> {
        match &self.inner.backend {
            Backend::Local(_) => Ok(None),
            Backend::Remote(remote) => remote.open_uploads(self.url().to_owned()).await,
        }
    }

    /// Whether this handle, or a clone of it, may have begun an upload whose id nobody was told: the answer to a request
    /// was lost, or the request repeated. Only [`Destination::open_uploads`] shows such an upload, so `false` where that
    /// cannot.
    pub fn may_have_unheard_uploads(&self) -> bool {
        matches!(&self.inner.backend, Backend::Remote(remote) if remote.may_have_unheard_uploads())
    }

    /// Aborts an upload; one that is gone is fine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abort_upload(&self, path: &str, upload_id: &str) -> Result<(), StoreError> {
        let object = self.check("discarding", path)?;
        match &self.inner.backend {
            Backend::Local(_) => Err(elsewhere("discarding", object)),
            Backend::Remote(remote) => remote.abort(path, &upload_id.to_owned()).await,
        }
    }

    /// Removes what writers of small local files left when they were killed; object stores write whole objects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self, paths: Vec<String>) -> Result<(), StoreError> {
        match &self.inner.backend {
            Backend::Local(folder) => {
                folder.run("sweeping", self.url().to_owned(), move |folder| folder.sweep(&paths)).await
            }
            Backend::Remote(_) => Ok(()),
        }
    }

    /// Removes from a local destination the lock file, the folder of our records where nothing else is in it, and the
    /// folders that this handle or a clone of it has made, where they are empty. Object stores have neither.
    pub async fn remove_empty(&self) {
        if let Backend::Local(folder) = &self.inner.backend {
            let work = |folder: &Folder| {
                folder.remove_empty();
                Ok(())
            };
            // Nobody minds an empty folder.
            let _ = folder.run("deleting", self.url().to_owned(), work).await;
        }
    }

    /// Removes a folder of a local destination with all that is in it, its file `last` after everything else; object stores
    /// have none.
    pub(crate) async fn delete_local_folder(&self, path: &str, last: &'static str) -> Result<(), StoreError> {
        let object = self.check("deleting", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("deleting", object, move |folder| folder.delete_folder(&path, last)).await
            }
            Backend::Remote(_) => Ok(()),
        }
    }
}
