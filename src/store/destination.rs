//! A destination: a folder, or a prefix of a bucket, and the few things that are done there.

mod encryption;
#[cfg(any(test, feature = "failpoints"))]
mod for_tests;
mod removal;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::address::{Address, Provider, percent_encode};
use super::aws_profile::CREDENTIAL_COMMAND;
use super::aws_region;
use super::connect;
use super::credential_words::variables;
use super::error::{StoreError, StoreFault};
use super::facts::{CreateOutcome, NameKind, ObjectFacts, ReplaceOutcome, Small, StoreOptions, Version};
use super::journal::Journal;
use super::local::Folder;
use super::object_options::{PartAttributes, check_objects, encrypt};
use super::remote::Remote;
use super::writer::PartWriter;
use crate::model::{CredentialCommand, ObjectOptions, StagedObject, Staging};
use encryption::OpenedBy;

/// A folder, or a prefix of a bucket. Cheap to clone; clones share connections.
///
/// Paths are relative to it, use `/`, and have no empty, `.` or `..` segments. Requests time out after
/// `REQUEST_TIMEOUT_MIN` or more and are retried by the client (10 times, 180 s);
/// an error here is final. Errors carry the class ([`StoreFault`]) and never credentials.
///
/// Cancel safety: dropping a future may leave its request done or not done, never half visible.
#[derive(Debug, Clone)]
pub struct Destination {
    inner: Arc<DestinationInner>,
}

#[derive(Debug)]
struct DestinationInner {
    url: String,
    encoded: bool,
    options: StoreOptions,
    backend: Backend,
    /// `None` for the stores of tests.
    opened: Option<OpenedBy>,
}

#[derive(Debug)]
pub(super) enum Backend {
    Local(Arc<Folder>),
    Remote(Arc<Remote>),
}

impl Destination {
    /// Opens `file:///abs`, a bare path, `s3://`, `gs://`, `az://` or `abfss://`, with or without a slash at its end.
    /// Nothing is sent or created yet. Credentials, region and endpoint come from the environment, under `object_store`'s
    /// names; plain HTTP is allowed to loopback endpoints or by `AWS_ALLOW_HTTP`.
    ///
    /// # Errors
    /// [`StoreFault::Configuration`] where the URL or an environment variable makes no sense.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(url, options, &variables())
    }

    /// Like [`Destination::open`], and asks AWS for the region of a bucket where nothing says it. `credential_command`
    /// is a shell command that prints credentials for AWS as a `credential_process` does.
    ///
    /// # Errors
    /// As [`Destination::open`], and [`StoreFault::Unavailable`] where nobody tells the region.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn connect(
        url: &str,
        options: &StoreOptions,
        credential_command: Option<&CredentialCommand>,
    ) -> Result<Self, StoreError> {
        Self::connect_for(url, options, credential_command, &ObjectOptions::default()).await
    }

    /// Like [`Destination::connect`], for an export whose objects are kept so.
    ///
    /// # Errors
    /// As [`Destination::connect`], and [`StoreFault::Configuration`] where the store has no such thing.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn connect_for(
        url: &str,
        options: &StoreOptions,
        credential_command: Option<&CredentialCommand>,
        objects: &ObjectOptions,
    ) -> Result<Self, StoreError> {
        check_objects(url, objects)?;
        let mut variables = variables();
        encrypt(&mut variables, objects);
        let open = |variables: &BTreeMap<String, String>| Self::opened(url, options, variables, objects);
        if let Some(command) = credential_command {
            variables.insert(CREDENTIAL_COMMAND.to_owned(), command.expose().to_owned());
        }
        let address = Address::parse(url)?;
        if let Address::Cloud { provider: Provider::S3, authority: bucket, .. } = &address {
            let found = connect::profile(&address.url(), &variables)?;
            if aws_region::is_unknown(bucket, &found.variables) {
                // What is refused is refused before anybody is asked.
                let mut elsewhere = variables.clone();
                elsewhere.insert("AWS_REGION".to_owned(), "none".to_owned());
                open(&elsewhere)?;
                let region = aws_region::discover(bucket, &address.url(), &found.variables).await?;
                variables.insert("AWS_REGION".to_owned(), region);
            }
        }
        open(&variables)
    }

    /// Like [`Destination::open`], with `variables` in place of the environment.
    ///
    /// # Errors
    /// As [`Destination::open`].
    pub fn open_with(
        url: &str,
        options: &StoreOptions,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, StoreError> {
        Self::opened(url, options, variables, &ObjectOptions::default())
    }

    fn opened(
        url: &str,
        options: &StoreOptions,
        variables: &BTreeMap<String, String>,
        objects: &ObjectOptions,
    ) -> Result<Self, StoreError> {
        let opened = Some(OpenedBy { url: url.to_owned(), variables: variables.clone() });
        let address = Address::parse(url)?;
        let url = address.url();
        let encoded = matches!(address, Address::Local(_));
        let backend = match address {
            Address::Local(folder) => Backend::Local(Arc::new(Folder::new(folder))),
            Address::Cloud { provider, authority, prefix } => {
                let remote = connect::cloud(provider, &authority, &prefix, &url, variables)?;
                Backend::Remote(Arc::new(remote.with_parts(PartAttributes::of(objects))))
            }
        };
        Ok(Self { inner: Arc::new(DestinationInner { url, encoded, options: *options, backend, opened }) })
    }

    /// The canonical URL: no credentials, no slash at its end.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The folder, where the destination is local.
    pub fn local_folder(&self) -> Option<PathBuf> {
        match &self.inner.backend {
            Backend::Local(folder) => Some(folder.path().to_owned()),
            Backend::Remote(_) => None,
        }
    }

    /// The absolute URL of an object: `s3://bucket/prefix/x`, `file:///folder/x`.
    pub fn object_url(&self, path: &str) -> String {
        if self.inner.encoded {
            format!("{}/{}", self.inner.url, percent_encode(path))
        } else {
            format!("{}/{path}", self.inner.url)
        }
    }

    /// Reads a small object whole; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`]; a missing bucket is [`StoreFault::Configuration`], not `None`.
    pub async fn read(&self, path: &str) -> Result<Option<Small>, StoreError> {
        let object = self.check("reading", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("reading", object, move |folder| folder.read(&path)).await
            }
            Backend::Remote(remote) => remote.read(path).await,
        }
    }

    /// Writes an object if none is there.
    ///
    /// # Errors
    /// [`StoreError`]. The outcome of a create that failed is not known: read back and compare.
    pub async fn create(&self, path: &str, bytes: Bytes, content_type: &str) -> Result<CreateOutcome, StoreError> {
        let object = self.check("creating", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("creating", object, move |folder| folder.create(&path, &bytes)).await
            }
            Backend::Remote(remote) => remote.create(path, bytes, content_type).await,
        }
    }

    /// Writes an object if the one that is there has the expected version. Locally the check and the rename stand
    /// under an exclusive lock on `_outhaul/lock`.
    ///
    /// # Errors
    /// [`StoreError`]. The outcome of a replacement that failed is not known: read back and compare.
    pub async fn replace(
        &self,
        path: &str,
        bytes: Bytes,
        content_type: &str,
        expected: &Version,
    ) -> Result<ReplaceOutcome, StoreError> {
        let object = self.check("replacing", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let (path, expected) = (path.to_owned(), expected.clone());
                folder.run("replacing", object, move |folder| folder.replace(&path, &bytes, &expected)).await
            }
            Backend::Remote(remote) => remote.replace(path, bytes, content_type, expected).await,
        }
    }

    /// Writes an object, whatever is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, path: &str, bytes: Bytes, content_type: &str) -> Result<(), StoreError> {
        let object = self.check("writing", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("writing", object, move |folder| folder.put(&path, &bytes)).await
            }
            Backend::Remote(remote) => remote.put(path, bytes, content_type).await,
        }
    }

    /// Writes an object that need not outlive the machine: whole or not at all for whoever reads it while the machine runs,
    /// this process dead or alive. After a loss of power it may be gone, or empty. A store elsewhere keeps it as any other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn note(&self, path: &str, bytes: Bytes, content_type: &str) -> Result<(), StoreError> {
        let object = self.check("writing", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("writing", object, move |folder| folder.note_file(&path, &bytes)).await
            }
            Backend::Remote(remote) => remote.put(path, bytes, content_type).await,
        }
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let object = self.check("deleting", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("deleting", object, move |folder| folder.delete(&path)).await
            }
            Backend::Remote(remote) => remote.delete(path).await,
        }
    }

    /// Deletes objects, as many at once as the store takes; one that is not there is fine. Whoever may not delete the
    /// first stops there.
    ///
    /// # Errors
    /// [`StoreError`] of the first that failed; others may be gone.
    pub async fn delete_all(&self, paths: Vec<String>) -> Result<(), StoreError> {
        for path in &paths {
            self.check("deleting", path)?;
        }
        match &self.inner.backend {
            Backend::Local(folder) => {
                let work = move |folder: &Folder| paths.iter().try_for_each(|path| folder.delete(path));
                folder.run("deleting", self.url().to_owned(), work).await
            }
            Backend::Remote(remote) => remote.delete_all(&paths).await,
        }
    }

    /// What the store tells of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn head(&self, path: &str) -> Result<Option<ObjectFacts>, StoreError> {
        let object = self.check("looking at", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("looking at", object, move |folder| folder.head(&path)).await
            }
            Backend::Remote(remote) => remote.head(path).await,
        }
    }

    /// Every object below `prefix` (a folder; empty for all), with its size, in order of the paths, which are relative
    /// to the destination. Locally hidden and staged files are seen too. Open uploads are not objects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let object = if prefix.is_empty() { self.url().to_owned() } else { self.check("listing", prefix)? };
        match &self.inner.backend {
            Backend::Local(folder) => {
                let prefix = prefix.to_owned();
                folder.run("listing", object, move |folder| folder.list(&prefix)).await
            }
            Backend::Remote(remote) => remote.list(prefix, object).await,
        }
    }

    /// The bytes of an object, from the first to the last. Nothing is read ahead of the consumer but the socket's own
    /// buffer; an object that is not there is [`StoreFault::Missing`].
    pub fn read_stream(&self, path: &str) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let object = match self.check("reading", path) {
            Ok(object) => object,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        match &self.inner.backend {
            Backend::Local(folder) => Arc::clone(folder).read_stream(path.to_owned(), object),
            Backend::Remote(remote) => Arc::clone(remote).read_stream(path.to_owned()),
        }
    }

    /// Bytes `range` of an object, all of them; an object that is not there is [`StoreFault::Missing`].
    ///
    /// # Errors
    /// [`StoreError`], also where the object ends before the range does.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let object = self.check("reading", path)?;
        match &self.inner.backend {
            Backend::Local(folder) => {
                let path = path.to_owned();
                folder.run("reading", object, move |folder| folder.read_range(&path, &range)).await
            }
            Backend::Remote(remote) => remote.read_range(path, range).await,
        }
    }

    /// A URL that gives an object, or with `head` what is told of it, to whoever has the URL, for so long; `None` where no
    /// store is that makes one. Nobody looks whether the object is there. The answer says under which `name` a browser saves
    /// it, where the store lets a URL ask for that (S3 and GCS); the name is plain ASCII without quotes.
    ///
    /// # Errors
    /// The store has no credentials to sign with.
    pub async fn presigned(
        &self,
        path: &str,
        name: &str,
        head: bool,
        time: Duration,
    ) -> Result<Option<String>, StoreError> {
        self.check("signing", path)?;
        match &self.inner.backend {
            Backend::Local(_) => Ok(None),
            Backend::Remote(remote) => remote.presigned(path, name, head, time).await,
        }
    }

    /// Begins an object that stays invisible until [`Destination::publish`].
    ///
    /// # Errors
    /// [`StoreError`]; an upload that could not be journalled is aborted.
    pub async fn writer(&self, path: &str, content_type: &str, journal: &Journal) -> Result<PartWriter, StoreError> {
        let object = self.check("starting", path)?;
        self.check("starting", &journal.staged_file(path))?;
        PartWriter::start(&self.inner.backend, self.inner.options, path, object, content_type, journal).await
    }

    /// Makes a staged object visible. A repeated call after success is fine: where the store no longer knows the
    /// upload, an object of the same size (and CRC, where it tells one) at the path is taken for it. Locally a foreign
    /// file at the path is kept ([`StoreFault::Taken`]); object stores cannot refuse it, so the path must be unique to
    /// the attempt, or looked at before.
    ///
    /// # Errors
    /// [`StoreError`]; the object may be visible all the same, and the call may be repeated.
    pub async fn publish(&self, staged: &StagedObject) -> Result<(), StoreError> {
        self.publish_as(staged, NameKind::Unique).await
    }

    /// Like [`Destination::publish`], and what stands at the path is replaced, locally atomically too. `before` is the
    /// stamp of that ([`ObjectFacts::stamp`]), `None` where nothing is there. It is not taken for the staged object, unless
    /// the store's own checksum says that it has the same bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish_over(&self, staged: &StagedObject, before: Option<&str>) -> Result<(), StoreError> {
        self.publish_as(staged, NameKind::Shared { before: before.map(str::to_owned) }).await
    }

    async fn publish_as(&self, staged: &StagedObject, kind: NameKind) -> Result<(), StoreError> {
        let object = self.check("publishing", &staged.path)?;
        match (&self.inner.backend, &staged.staging) {
            (_, Staging::Published) => Ok(()),
            (Backend::Local(folder), Staging::Local { file }) => {
                self.check("publishing", file)?;
                let (file, staged) = (file.clone(), staged.clone());
                folder.run("publishing", object, move |folder| folder.publish(&file, &staged, &kind)).await
            }
            (Backend::Remote(remote), Staging::Multipart { upload_id, chunks }) => {
                remote.complete(staged, upload_id, chunks, &kind).await
            }
            _ => Err(elsewhere("publishing", object)),
        }
    }

    /// The object's URL, once its path is known to stay inside the destination.
    fn check(&self, operation: &'static str, path: &str) -> Result<String, StoreError> {
        let object = self.object_url(path);
        let strange =
            |segment: &str| matches!(segment, "" | "." | "..") || segment.chars().any(|c| c.is_control() || c == '\\');
        if path.split('/').any(strange) {
            let why = "a path inside a destination has no empty, `.` or `..` segment and no control character";
            return Err(StoreError::new(operation, object, StoreFault::Configuration, why));
        }
        Ok(object)
    }
}

fn elsewhere(operation: &'static str, object: String) -> StoreError {
    StoreError::new(
        operation,
        object,
        StoreFault::Configuration,
        "the object was staged at another kind of destination",
    )
}
