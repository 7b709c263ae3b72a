//! The files of an export that is ready: `…/download`, `…/parts/{n}` and `…/manifest`, for whoever has a link, and for its
//! tenant.
//!
//! A link points at the service, which looks at the export first: whatever ends it (its time, its expiry, a DELETE) ends
//! the link at once. Where the store can, the client is then sent to the object itself, for a minute.

mod answer;
mod file;
mod listing;
mod selection;
mod signer;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::Utc;

use super::jobs::{entry, found, note, state};
use super::paced::ClientPace;
use super::problem::{ProblemBody, Refusal};
use super::state::{AuditRecord, JobRecord, JobStatus};
use super::{RequestId, ServiceState};
use crate::base::failpoint;
use crate::commit::{Manifest, Placement, look};
use crate::store::{Destination, StoreOptions};
use answer::{CHUNK_BYTES, DownloadHold, answer, guarded, redirect};
use file::ServedFile;
use listing::{FileListing, listing};
use signer::{LinkClaim, LinkQuery, LinkSigner, LinkTarget, link_end};

/// So long the store takes the URL that a link redirects to.
const REDIRECT_TIME: Duration = Duration::from_mins(1);

/// What a download may hold of memory: chunks, and what the connection has of them.
const DOWNLOAD_BYTES: u64 = 3 * CHUNK_BYTES;

/// Makes the links of exports, and says what they open.
#[derive(Debug)]
pub(crate) struct Links {
    signer: LinkSigner,
    /// So long a link is good for.
    seconds: i64,
    /// Whether clients are sent to the store.
    redirect: bool,
    /// What links begin with.
    public: String,
}

impl Links {
    /// `keys` are those of links, the one that signs first.
    pub(crate) fn new(keys: &[[u8; 32]], seconds: i64, redirect: bool, public: &str) -> Self {
        Self { signer: LinkSigner::new(keys), seconds, redirect, public: public.to_owned() }
    }

    /// The link to the whole of an export, where its files are there.
    pub(crate) fn download_url(&self, job: &JobRecord) -> Option<String> {
        self.download_url_behind(&self.public, job)
    }

    /// The same behind a base that another process knows.
    pub(crate) fn download_url_behind(&self, public: &str, job: &JobRecord) -> Option<String> {
        job.status
            .is_ready()
            .then(|| self.path(job, LinkTarget::Download, self.end(job)))?
            .map(|path| format!("{public}{path}"))
    }

    /// When links to an export end that are made now.
    fn end(&self, job: &JobRecord) -> i64 {
        let end = link_end(Utc::now().timestamp(), self.seconds);
        job.expires_at.map_or(end, |expiry| end.min(expiry.timestamp()))
    }

    fn url(&self, job: &JobRecord, target: LinkTarget, expires: i64) -> Option<String> {
        self.path(job, target, expires).map(|path| format!("{}{path}", self.public))
    }

    fn path(&self, job: &JobRecord, target: LinkTarget, expires: i64) -> Option<String> {
        self.signer.sign(LinkClaim { export: &job.id, target, expires, revocation: job.revocation })
    }

    /// What can be told of a link before anybody looks for its export, which is all that is done for what is no link of ours.
    /// Its time is not: that of a link of an export that has expired is up as well, and such a link says more.
    ///
    /// # Errors
    /// It can be no link of ours.
    fn read(&self, query: &str) -> Result<LinkQuery, Refusal> {
        LinkQuery::parse(query).filter(|query| self.signer.may_be_genuine(query)).ok_or_else(invalid)
    }

    /// When the link ends that was followed to an export, if that is one.
    ///
    /// # Errors
    /// The same whatever is wrong with the link; but of an export that has expired, a link of ours says so.
    fn check(&self, query: &LinkQuery, job: Option<&JobRecord>, target: LinkTarget, now: i64) -> Result<i64, Refusal> {
        let job = job.ok_or_else(invalid)?;
        let claim = |revocation| LinkClaim { export: &job.id, target, expires: query.expires, revocation };
        // The files went with the last change of the number.
        if job.status == JobStatus::Expired && self.signer.is_genuine(query, claim(job.revocation.saturating_sub(1))) {
            return Err(gone());
        }
        let number = if failpoint::off("link_revocation") { 0 } else { job.revocation };
        let late = query.expires <= now && !failpoint::off("link_expiry");
        if late || !self.signer.is_genuine(query, claim(number)) { Err(invalid()) } else { Ok(query.expires) }
    }
}

/// An export whose files may be had.
struct OpenedExport {
    job: JobRecord,
    destination: Destination,
    manifest: Manifest,
    /// When links end that are given away with it.
    links_end: i64,
}

/// All parts as one file.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}/download",
    operation_id = "downloadExport",
    security((), ("key" = [])),
    params(
        ("id" = String, Path, description = "The export"),
        ("exp" = Option<i64>, Query, description = "Of a signed link"),
        ("kid" = Option<String>, Query, description = "Of a signed link"),
        ("sig" = Option<String>, Query, description = "Of a signed link: no Authorization is wanted then"),
    ),
    responses(
        (status = 200, description = "The file (CSV, NDJSON), or the list of its parts (Parquet)", body = FileListing),
        (status = 206, description = "The bytes that Range asks for"),
        (status = 304, description = "The file is the one of If-None-Match"),
        (status = 416, description = "There are no such bytes"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn download(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let asked = LinkRequest { id, target: LinkTarget::Download, parts };
    let opened = asked.open(&service).await?;
    match ServedFile::joined(&opened.manifest, &opened.stem()) {
        Some(file) => asked.send(&service, &opened, &file).await,
        None => opened.list(&service),
    }
}

/// One part.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}/parts/{number}",
    operation_id = "downloadPart",
    security((), ("key" = [])),
    params(
        ("id" = String, Path, description = "The export"),
        ("number" = usize, Path, description = "The part's place in the list, from 0"),
        ("exp" = Option<i64>, Query, description = "Of a signed link"),
        ("kid" = Option<String>, Query, description = "Of a signed link"),
        ("sig" = Option<String>, Query, description = "Of a signed link: no Authorization is wanted then"),
    ),
    responses(
        (status = 200, description = "The part"),
        (status = 206, description = "The bytes that Range asks for"),
        (status = 304, description = "The part is the one of If-None-Match"),
        (status = 307, description = "Where the part is, for a minute"),
        (status = 416, description = "There are no such bytes"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn part(
    State(service): State<Arc<ServiceState>>,
    Path((id, number)): Path<(String, String)>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let no_part = || Refusal::new(StatusCode::NOT_FOUND, "part_not_found", "the export has no such part");
    let number: usize = number.parse().map_err(|_| no_part())?;
    let asked = LinkRequest { id, target: LinkTarget::Part(number), parts };
    let opened = asked.open(&service).await?;
    let file = ServedFile::part(&opened.manifest, number, &opened.stem()).ok_or_else(no_part)?;
    let there = if service.links.redirect { opened.elsewhere(&file, &asked.parts.method).await } else { None };
    match there {
        Some(response) => Ok(response),
        None => asked.send(&service, &opened, &file).await,
    }
}

/// What the export is made of: links to its parts, and what checks them.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}/manifest",
    operation_id = "listFiles",
    security((), ("key" = [])),
    params(
        ("id" = String, Path, description = "The export"),
        ("exp" = Option<i64>, Query, description = "Of a signed link"),
        ("kid" = Option<String>, Query, description = "Of a signed link"),
        ("sig" = Option<String>, Query, description = "Of a signed link: no Authorization is wanted then"),
    ),
    responses(
        (status = 200, description = "The files", body = FileListing),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn manifest(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let asked = LinkRequest { id, target: LinkTarget::Manifest, parts };
    asked.open(&service).await?.list(&service)
}

/// A request for something of an export.
struct LinkRequest {
    id: String,
    target: LinkTarget,
    parts: Parts,
}

impl LinkRequest {
    /// Finds the export, judges the request, and reads the manifest.
    async fn open(&self, service: &ServiceState) -> Result<OpenedExport, Refusal> {
        let link = self.parts.uri.query().filter(|query| query.split('&').any(|pair| pair.starts_with("sig=")));
        let (job, links_end, user, credential) = if let Some(query) = link {
            let query = service.links.read(query)?;
            let job = service.store.any_job(self.id.clone()).await.map_err(|error| state(&error))?;
            let end = service.links.check(&query, job.as_ref(), self.target, Utc::now().timestamp())?;
            let job = job.ok_or_else(invalid)?;
            service.limits.request(&job.tenant)?;
            // A link gives no links that outlive it.
            (job, Some(end), None, "link".to_owned())
        } else {
            let caller = service.caller(&self.parts.headers)?;
            let job = found(service, &caller, &self.id).await?;
            (job, None, caller.user, caller.credential)
        };
        match job.status {
            // Its time is over, and the sweep that says so is still to come.
            JobStatus::Complete | JobStatus::Truncated if job.overdue => return Err(gone()),
            JobStatus::Complete | JobStatus::Truncated => {}
            JobStatus::Expired => return Err(gone()),
            JobStatus::Failed | JobStatus::Cancelled => {
                return Err(Refusal::new(StatusCode::CONFLICT, "no_files", "the export has no files")
                    .with_detail("ask for it again"));
            }
            JobStatus::Queued | JobStatus::Running | JobStatus::Cancelling => {
                return Err(Refusal::new(StatusCode::CONFLICT, "not_ready", "the export is not ready").after(5));
            }
        }
        let links_end = links_end.unwrap_or_else(|| service.links.end(&job));
        let (destination, manifest) = read(service, &job).await?;
        if self.parts.method != Method::HEAD {
            self.audit(service, &job, user, credential).await;
        }
        Ok(OpenedExport { job, destination, manifest, links_end })
    }

    /// Notes who had what.
    async fn audit(&self, service: &ServiceState, job: &JobRecord, user: Option<String>, credential: String) {
        let request = self.parts.extensions.get::<RequestId>().cloned().unwrap_or_default();
        let entry = AuditRecord {
            request_id: request.id,
            client: request.client,
            outcome: self.target.to_string(),
            rows: None,
            ..entry(job, user, credential, "download")
        };
        note(service, entry).await;
    }

    /// Sends the file through the service.
    async fn send(
        &self,
        service: &ServiceState,
        opened: &OpenedExport,
        file: &ServedFile,
    ) -> Result<Response, Refusal> {
        let Parts { method, headers, extensions, .. } = &self.parts;
        let permit = match *method {
            Method::HEAD => None,
            _ => Some(service.limits.stream(&opened.job.tenant, DOWNLOAD_BYTES).await?),
        };
        let held = DownloadHold { permit, stop: service.stop.child_token(), pace: ClientPace::of(service, extensions) };
        answer(file, &opened.destination, method, headers, held).await
    }
}

impl OpenedExport {
    /// What its files are called.
    fn stem(&self) -> String {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        self.job.file_name.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect()
    }

    /// Where the store gives the object to this client.
    async fn elsewhere(&self, file: &ServedFile, method: &Method) -> Option<Response> {
        let time = failpoint::limit("link_redirect", REDIRECT_TIME);
        match self.destination.presigned(file.object()?, &file.name, method == Method::HEAD, time).await {
            Ok(url) => redirect(file, &url?),
            Err(error) => {
                tracing::warn!(%error, "the store signs no URL: the service sends the file itself");
                None
            }
        }
    }

    fn list(&self, service: &ServiceState) -> Result<Response, Refusal> {
        let url = |target| service.links.url(&self.job, target, self.links_end);
        let whole = ServedFile::joined(&self.manifest, "").and_then(|_| url(LinkTarget::Download));
        let names = (self.job.id.as_str(), self.job.dataset.as_str());
        let list = listing(&self.manifest, names, whole, |number| url(LinkTarget::Part(number)));
        let list =
            list.ok_or_else(|| Refusal::of_export(&crate::export::ExportError::internal("no link was signed")))?;
        Ok((guarded(), Json(list)).into_response())
    }
}

/// The manifest of an export that is ready.
async fn read(service: &ServiceState, job: &JobRecord) -> Result<(Destination, Manifest), Refusal> {
    let unavailable =
        || Refusal::new(StatusCode::BAD_GATEWAY, "files_unavailable", "the export's files cannot be read now");
    let unread = |error: &dyn std::error::Error| {
        tracing::error!(%error, id = job.id, "the manifest of an export was not read");
        unavailable().after(5)
    };
    let options = StoreOptions::small();
    let credentials = service.config.credentials_of(&job.destination);
    let connected = Destination::connect(&job.destination, &options, credentials).await;
    let destination = connected.map_err(|error| unread(&error))?;
    let found = look(&destination, &Placement::Parts).await.map_err(|error| unread(&error))?;
    let Some(existing) = found else {
        tracing::error!(id = job.id, "an export that is ready has no manifest");
        return Err(unavailable());
    };
    Ok((destination, existing.manifest))
}

/// A link that opens nothing, whatever is wrong with it.
fn invalid() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "link_invalid", "the link is not valid, or its time is up")
        .with_detail("ask for the export again: its answer has a new link")
}

fn gone() -> Refusal {
    Refusal::new(StatusCode::GONE, "expired", "the export has expired, and its files are removed")
        .with_detail("ask for it again")
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::super::state::JobProgress;
    use super::*;

    /// An export of `acme` that is ready.
    pub(crate) fn ready() -> JobRecord {
        JobRecord {
            id: "0198".to_owned(),
            tenant: "tenant:acme".to_owned(),
            user: Some("u".to_owned()),
            credential: "key".to_owned(),
            request_id: "r".to_owned(),
            dataset: "orders".to_owned(),
            mode: "background".to_owned(),
            request: "{}".to_owned(),
            format: "csv".to_owned(),
            compression: "none".to_owned(),
            file_name: "orders".to_owned(),
            destination: "file:///secret".to_owned(),
            status: JobStatus::Truncated,
            attempt: 1,
            forgiven: 0,
            max_rows: Some(10),
            estimated_rows: None,
            estimated_minutes: None,
            progress: JobProgress { rows: 10, ..JobProgress::default() },
            truncated: true,
            created_at: DateTime::UNIX_EPOCH,
            claimed_at: None,
            tier: None,
            telling: None,
            overdue: false,
            started_at: None,
            completed_at: None,
            expires_at: Some(DateTime::UNIX_EPOCH),
            error: None,
            revocation: 0,
            version: 1,
        }
    }

    #[test]
    fn a_link_is_void_once_its_time_is_up_or_it_is_revoked() {
        let links = Links::new(&[[7; 32]], 3_600, true, "");
        let mut job = ready();
        job.expires_at = Some(Utc::now() + TimeDelta::days(1));
        let link = links.download_url(&job).unwrap();
        let query = link.split_once('?').unwrap().1;
        let check = |job: Option<&JobRecord>, now| links.check(&links.read(query)?, job, LinkTarget::Download, now);
        let now = Utc::now().timestamp();
        let end = check(Some(&job), now).unwrap();
        assert!(end > now && end <= now + 3_600);
        let refused = |job: Option<&JobRecord>, now| check(job, now).unwrap_err();
        let texts = |refusal: Refusal| (refusal.status, refusal.code, refusal.message, refusal.detail);
        assert_eq!(check(Some(&job), end - 1).unwrap(), end);
        let late = texts(refused(Some(&job), end));
        assert_eq!(late, texts(refused(None, now)));
        job.revocation += 1;
        assert_eq!(late, texts(refused(Some(&job), now)));
        // What names no key of ours, or has half a signature, is none of ours whatever its export is.
        for other in [query.replace("kid=", "kid=x"), query[..query.len() - 10].to_owned(), "sig=AAAA".to_owned()] {
            assert_eq!(late, texts(links.read(&other).unwrap_err()), "{other}");
        }
        // Whatever became of it since, a link of ours says that the files are gone.
        job.status = JobStatus::Expired;
        assert_eq!(refused(Some(&job), now).code, "expired");
        assert_eq!(refused(Some(&job), end + 1).code, "expired");
        job.revocation += 1;
        assert_eq!(late, texts(refused(Some(&job), now)));
    }

    #[test]
    fn links_do_not_outlive_the_export() {
        let links = Links::new(&[[7; 32]], 3_600, true, "https://x/exports");
        let mut job = ready();
        job.expires_at = DateTime::from_timestamp(Utc::now().timestamp() + 10, 0);
        let link = links.download_url(&job).unwrap();
        assert!(link.starts_with("https://x/exports/v1/exports/0198/download?"), "{link}");
        assert!(link.contains(&format!("exp={}&", job.expires_at.unwrap().timestamp())), "{link}");
        for status in JobStatus::ALL {
            job.status = status;
            assert_eq!(links.download_url(&job).is_some(), status.is_ready(), "{status:?}");
        }
    }
}
