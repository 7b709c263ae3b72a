//! An object store as a destination: S3, GCS, Azure, and memory for tests.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::Method;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, UpdateVersion,
};

use super::buckets::Buckets;
use super::connect::{Crc64Header, UploadStarts, request_timeout, retry_budget};
use super::error::{StoreError, StoreFault};
use super::facts::{CreateOutcome, NameKind, ObjectFacts, ReplaceOutcome, Small, Version};
use super::object_options::PartAttributes;
use super::open_uploads::OpenUploads;
use crate::base::failpoint;
use crate::model::{ErrorCode, StagedObject};

/// Tries of an upload's request that a store refuses because another one is under way.
const CONFLICT_TRIES: u32 = 5;

/// After the first such try; after the nth, n times as long.
const CONFLICT_PAUSE: Duration = Duration::from_millis(200);

/// A prefix of a bucket.
pub(super) struct Remote {
    /// For everything but the two below.
    store: Arc<dyn ObjectStore>,
    /// The same store, upload by upload.
    uploads: Arc<dyn MultipartStore>,
    /// The same store, asking for checksums in its HEADs.
    facts: Arc<dyn ObjectStore>,
    /// Lists uploads, where the store can.
    open_uploads: Option<OpenUploads>,
    /// Makes URLs that need no credentials, where the store can.
    signer: Option<Arc<dyn Signer>>,
    /// Where a bucket is misspelt.
    buckets: Option<Buckets>,
    /// How often the store was asked to begin an upload.
    asked: UploadStarts,
    /// How many uploads it said it had begun.
    begun: AtomicU64,
    /// The prefix.
    root: Path,
    url: String,
    /// Whether uploads can carry a Content-Type; Azure's take it from the name's end instead.
    upload_attributes: bool,
    /// What else they carry.
    parts: PartAttributes,
}

/// The clients hold credentials; no `{:?}` of ours prints them.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    pub(super) fn new<S: ObjectStore + MultipartStore>(store: Arc<S>, root: Path, url: String) -> Self {
        Self {
            uploads: Arc::clone(&store) as _,
            facts: Arc::clone(&store) as _,
            store,
            open_uploads: None,
            signer: None,
            buckets: None,
            asked: UploadStarts::default(),
            begun: AtomicU64::new(0),
            root,
            url,
            upload_attributes: true,
            parts: PartAttributes::default(),
        }
    }

    /// The same, whose uploads carry these.
    pub(super) fn with_parts(self, parts: PartAttributes) -> Self {
        Self { parts, ..self }
    }

    pub(super) fn with_signer(self, signer: Arc<dyn Signer>) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// A URL that gives an object to whoever has it; `None` where the store makes none.
    pub(super) async fn presigned(
        &self,
        path: &str,
        name: &str,
        head: bool,
        time: Duration,
    ) -> Result<Option<String>, StoreError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let (key, object) = self.key("signing", path)?;
        let method = if head { Method::HEAD } else { Method::GET };
        let saved_as = [("response-content-disposition", format!("attachment; filename=\"{name}\""))];
        let options = SignedUrlOptions::default().with_query(saved_as);
        let url = match signer.signed_url_opts(method.clone(), &key, time, &options).await {
            // Azure has no such option here; the object is then saved under its own name.
            Err(object_store::Error::NotSupported { .. }) => signer.signed_url(method, &key, time).await,
            url => url,
        };
        url.map(|url| Some(url.to_string())).map_err(|error| StoreError::from_store("signing", &object, &error))
    }

    pub(super) fn with_facts(self, facts: Arc<dyn ObjectStore>) -> Self {
        Self { facts, ..self }
    }

    pub(super) fn with_open_uploads(self, open_uploads: OpenUploads, asked: UploadStarts) -> Self {
        Self { open_uploads: Some(open_uploads), asked, ..self }
    }

    pub(super) fn with_buckets(self, buckets: Buckets) -> Self {
        Self { buckets: Some(buckets), ..self }
    }

    pub(super) fn without_upload_attributes(self) -> Self {
        Self { upload_attributes: false, ..self }
    }

    pub(super) fn object_url(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    /// The key. The caller has checked the path.
    fn key(&self, operation: &'static str, path: &str) -> Result<(Path, String), StoreError> {
        let object = self.object_url(path);
        match Path::parse(format!("{}/{path}", self.root)) {
            Ok(key) => Ok((key, object)),
            Err(error) => Err(StoreError::new(operation, object, StoreFault::Configuration, error)),
        }
    }

    pub(super) async fn read(&self, path: &str) -> Result<Option<Small>, StoreError> {
        let (key, object) = self.key("reading", path)?;
        let get = async {
            let result = self.store.get(&key).await?;
            let version = Version { e_tag: result.meta.e_tag.clone(), generation: result.meta.version.clone() };
            Ok(Small { bytes: result.bytes().await?, version })
        };
        match absent_as_none(patient("reading", &object, 0, get).await) {
            Err(error) => Err(self.with_guess(error).await),
            found => found,
        }
    }

    /// Offers the bucket that may have been meant, where there is none of the name.
    async fn with_guess(&self, error: StoreError) -> StoreError {
        let (Some(ErrorCode::BucketMissing), Some(buckets), Some(missing)) =
            (error.code, &self.buckets, error.bucket())
        else {
            return error;
        };
        match buckets.near(missing).await {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        }
    }

    pub(super) async fn create(
        &self,
        path: &str,
        bytes: Bytes,
        content_type: &str,
    ) -> Result<CreateOutcome, StoreError> {
        match self.put_as("creating", path, bytes, content_type, PutMode::Create).await {
            Ok(()) => Ok(CreateOutcome::Created),
            Err(error) if error.fault == StoreFault::Taken => Ok(CreateOutcome::Exists),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn replace(
        &self,
        path: &str,
        bytes: Bytes,
        content_type: &str,
        expected: &Version,
    ) -> Result<ReplaceOutcome, StoreError> {
        let version = UpdateVersion { e_tag: expected.e_tag.clone(), version: expected.generation.clone() };
        match self.put_as("replacing", path, bytes, content_type, PutMode::Update(version)).await {
            Ok(()) => Ok(ReplaceOutcome::Replaced),
            Err(error) if matches!(error.fault, StoreFault::Taken | StoreFault::Missing) => Ok(ReplaceOutcome::Changed),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put(&self, path: &str, bytes: Bytes, content_type: &str) -> Result<(), StoreError> {
        self.put_as("writing", path, bytes, content_type, PutMode::Overwrite).await
    }

    async fn put_as(
        &self,
        operation: &'static str,
        path: &str,
        bytes: Bytes,
        content_type: &str,
        mode: PutMode,
    ) -> Result<(), StoreError> {
        let (key, object) = self.key(operation, path)?;
        let size = bytes.len();
        let options = PutOptions { mode, attributes: with_content_type(content_type), ..PutOptions::default() };
        let put = self.store.put_opts(&key, bytes.into(), options);
        patient(operation, &object, size, put).await.map(|_| ())
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let (key, object) = self.key("deleting", path)?;
        absent_as_none(patient("deleting", &object, 0, self.store.delete(&key)).await).map(|_| ())
    }

    /// Deletes many objects, on S3 a thousand at once; those that are not there are fine.
    pub(super) async fn delete_all(&self, paths: &[String]) -> Result<(), StoreError> {
        let keys: Vec<Path> =
            paths.iter().map(|path| Ok(self.key("deleting", path)?.0)).collect::<Result<_, StoreError>>()?;
        let mut deletions = self.store.delete_stream(stream::iter(keys).map(Ok).boxed());
        loop {
            let next = patient("deleting", &self.url, 0, async { deletions.next().await.transpose() }).await;
            match next {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if error.fault == StoreFault::Missing => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn head(&self, path: &str) -> Result<Option<ObjectFacts>, StoreError> {
        let (key, object) = self.key("looking at", path)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let result = absent_as_none(patient("looking at", &object, 0, self.facts.get_opts(&key, options)).await)?;
        Ok(result.map(|GetResult { meta, extensions, .. }| ObjectFacts {
            bytes: meta.size,
            crc64nvme: extensions.get::<Crc64Header>().map(|header| header.0),
            // The same bytes may have the same `ETag`.
            stamp: format!("{:?} {:?} {}", meta.e_tag, meta.version, meta.last_modified.to_rfc3339()),
            version: Version { e_tag: meta.e_tag, generation: meta.version },
        }))
    }

    pub(super) async fn list(&self, prefix: &str, object: String) -> Result<Vec<(String, u64)>, StoreError> {
        let key = match prefix {
            "" => self.root.clone(),
            _ => self.key("listing", prefix)?.0,
        };
        let root = self.root.as_ref();
        let mut entries = self.store.list((!key.is_root()).then_some(&key));
        let mut found = Vec::new();
        while let Some(entry) = patient("listing", &object, 0, async { entries.next().await.transpose() }).await? {
            let path = entry.location.as_ref();
            // Below the root by the store's own promise.
            let path = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
            found.push((path.to_owned(), entry.size));
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (key, object) = self.key("reading", path)?;
        let wanted = range.end - range.start;
        let bytes = patient("reading", &object, 0, self.store.get_range(&key, range)).await?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length == wanted => Ok(bytes),
            _ => Err(StoreError::new(
                "reading",
                object,
                StoreFault::Unavailable,
                "the object ends before the range does",
            )),
        }
    }

    pub(super) fn read_stream(self: Arc<Self>, path: String) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let start = async move {
            let (key, object) = self.key("reading", &path)?;
            let result = patient("reading", &object, 0, self.store.get(&key)).await?;
            Ok::<_, StoreError>(stream::try_unfold((result.into_stream(), object), |(mut bytes, object)| async {
                let next = patient("reading", &object, 0, async { bytes.next().await.transpose() }).await?;
                Ok(next.map(|next| (next, (bytes, object))))
            }))
        };
        stream::once(start)
            .map(|started| match started {
                Ok(bytes) => bytes.boxed(),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .flatten()
            .boxed()
    }

    /// Starts an upload: its id.
    pub(super) async fn start(&self, path: &str, content_type: &str) -> Result<String, StoreError> {
        let (key, object) = self.key("starting", path)?;
        let mut attributes = if self.upload_attributes { with_content_type(content_type) } else { Attributes::new() };
        self.parts.add_to(&mut attributes);
        let tags = self.parts.tags.clone();
        let options = PutMultipartOptions { attributes, tags, ..PutMultipartOptions::default() };
        let start = || self.uploads.create_multipart_opts(&key, options.clone());
        let upload_id = despite_conflicts("starting", &object, 0, start).await?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(upload_id)
    }

    /// Whether an upload may have begun whose id nobody was told.
    pub(super) fn may_have_unheard_uploads(&self) -> bool {
        self.asked.times() > self.begun.load(Ordering::Relaxed) && !failpoint::off("unheard-uploads")
    }

    /// Uploads chunk `index`: what [`Remote::complete`] needs of it.
    pub(super) async fn put_chunk(
        &self,
        path: &str,
        upload_id: &String,
        index: usize,
        chunk: PutPayload,
    ) -> Result<String, StoreError> {
        let (key, object) = self.key("writing", path)?;
        let size = chunk.content_length();
        let put = || self.uploads.put_part(&key, upload_id, index, chunk.clone());
        Ok(despite_conflicts("writing", &object, size, put).await?.content_id)
    }

    pub(super) async fn complete(
        &self,
        staged: &StagedObject,
        upload_id: &String,
        chunks: &[String],
        kind: &NameKind,
    ) -> Result<(), StoreError> {
        let (key, object) = self.key("publishing", &staged.path)?;
        let ids: Vec<PartId> = chunks.iter().map(|id| PartId { content_id: id.clone() }).collect();
        let complete = || self.uploads.complete_multipart(&key, upload_id, ids.clone());
        let Err(error) = despite_conflicts("publishing", &object, 0, complete).await else {
            return Ok(());
        };
        if failpoint::off("look-after-complete") {
            return Err(error);
        }
        // Its answer may be lost, and a second completion is refused by some stores: what counts is what is there.
        match self.head(&staged.path).await {
            Ok(Some(there)) if kind.has_published(staged, &there) => Ok(()),
            _ => Err(error),
        }
    }

    /// The uploads below the destination that are neither complete nor aborted, as paths and ids; `None` where the store
    /// cannot list them.
    pub(super) async fn open_uploads(&self, object: String) -> Result<Option<Vec<(String, String)>>, StoreError> {
        let Some(lister) = &self.open_uploads else { return Ok(None) };
        let root = self.root.as_ref();
        let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
        let uploads = lister
            .list(&prefix)
            .await
            .map_err(|error| StoreError::new("listing uploads", object, StoreFault::Unavailable, error))?;
        let relative = |key: &str| key.strip_prefix(&prefix).map(str::to_owned);
        Ok(Some(uploads.into_iter().filter_map(|it| Some((relative(&it.key)?, it.upload_id))).collect()))
    }

    pub(super) async fn abort(&self, path: &str, upload_id: &String) -> Result<(), StoreError> {
        let (key, object) = self.key("discarding", path)?;
        let abort = self.uploads.abort_multipart(&key, upload_id);
        absent_as_none(patient("discarding", &object, 0, abort).await).map(|_| ())
    }
}

/// Waits for a request and its retries, as long as they can take: a body that stalls after its headers came is bounded
/// by nothing below us.
async fn patient<T>(
    operation: &'static str,
    object: &str,
    bytes: usize,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    let patience = retry_budget() + 2 * request_timeout(bytes);
    let Ok(result) = tokio::time::timeout(patience, request).await else {
        let why = format!("no answer for {} s", patience.as_secs());
        return Err(StoreError::new(operation, object, StoreFault::Unavailable, why));
    };
    result.map_err(|error| StoreError::from_store(operation, object, &error))
}

/// The requests of an upload have nothing in their way: a 409 (S3's `OperationAborted`) says that another request was
/// under way, and passes. The client takes it for an object that is there, and does not try again.
async fn despite_conflicts<T, F>(
    operation: &'static str,
    object: &str,
    bytes: usize,
    request: impl Fn() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut tries = 1;
    loop {
        match patient(operation, object, bytes, request()).await {
            Err(error) if error.fault == StoreFault::Taken => {
                if tries == CONFLICT_TRIES {
                    return Err(StoreError { fault: StoreFault::Unavailable, ..error });
                }
            }
            result => return result,
        }
        tokio::time::sleep(CONFLICT_PAUSE * tries).await;
        tries += 1;
    }
}

fn absent_as_none<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.fault == StoreFault::Missing => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_content_type(content_type: &str) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, content_type.to_owned())])
}
