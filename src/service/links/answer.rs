//! A file as a response: as much of it as the request is for, read from the destination while it is sent.

use std::collections::VecDeque;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;

use super::super::body::BrokenOff;
use super::super::limits::StreamPermit;
use super::super::paced::{ClientPace, paced};
use super::super::problem::Refusal;
use super::file::{FilePiece, ServedFile};
use super::selection::{Selection, selection};
use crate::store::{Destination, StoreError};

/// Bytes that are read at once. Three times as many are in memory: those that are read or wait, and two pieces that the
/// connection has.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;

/// What is held as long as a file is sent.
#[derive(Debug, Default)]
pub(crate) struct DownloadHold {
    pub(crate) permit: Option<StreamPermit>,
    /// Breaks the body off.
    pub(crate) stop: CancellationToken,
    /// What is wanted of the client.
    pub(crate) pace: ClientPace,
}

/// Answers with the file, or with as much of it as is asked for.
///
/// # Errors
/// The client wants another file, or its first bytes cannot be read.
pub(crate) async fn answer(
    file: &ServedFile,
    destination: &Destination,
    method: &Method,
    headers: &HeaderMap,
    held: DownloadHold,
) -> Result<Response, Refusal> {
    let length = file.length;
    let (status, range) = match selection(method, headers, &file.etag, length) {
        Selection::Whole => (StatusCode::OK, 0..length),
        Selection::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
        Selection::NotModified => return Ok((StatusCode::NOT_MODIFIED, head(file)).into_response()),
        Selection::OtherFile => {
            let message = "the file is not the one that If-Match names";
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message));
        }
        Selection::NoSuchBytes => {
            let all = [(CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all, head(file)).into_response());
        }
    };
    let mut fields = head(file);
    put(&mut fields, CONTENT_TYPE, &file.content_type);
    put(&mut fields, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", file.name));
    put(&mut fields, CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        put(&mut fields, CONTENT_RANGE, &format!("bytes {}-{}/{length}", range.start, range.end - 1));
    }
    if *method == Method::HEAD {
        return Ok((status, fields).into_response());
    }
    let mut reading = Download { destination: destination.clone(), pieces: file.cut(&range).into() };
    // What cannot be read at all is said before anything is sent.
    let first = reading.next().await.map_err(|error| {
        tracing::error!(%error, "a file of an export was not read");
        Refusal::new(StatusCode::BAD_GATEWAY, "files_unavailable", "the export's files cannot be read now").after(5)
    })?;
    Ok((status, fields, reading.body(first, range.end - range.start, held)).into_response())
}

/// Sends the client to where the object is, for a short time.
pub(crate) fn redirect(file: &ServedFile, url: &str) -> Option<Response> {
    let mut fields = head(file);
    // The tag is of this service; the store has its own.
    fields.remove(ETAG);
    fields.insert(LOCATION, HeaderValue::try_from(url).ok()?);
    Some((StatusCode::TEMPORARY_REDIRECT, fields).into_response())
}

/// What is said of the file in every answer. The link is a secret that no other site is told.
fn head(file: &ServedFile) -> HeaderMap {
    let mut fields = guarded();
    put(&mut fields, ETAG, &file.etag);
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields
}

/// What every answer to a link says.
pub(crate) fn guarded() -> HeaderMap {
    HeaderMap::from_iter([
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store, no-transform")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ])
}

fn put(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// What is still to be sent.
struct Download {
    destination: Destination,
    pieces: VecDeque<FilePiece>,
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(None) };
        let end = piece.range.end.min(piece.range.start.saturating_add(CHUNK_BYTES));
        let bytes = self.destination.read_range(&piece.path, piece.range.start..end).await?;
        piece.range.start = end;
        if piece.range.is_empty() {
            self.pieces.pop_front();
        }
        Ok(Some(bytes))
    }

    /// The first bytes, which are read, and the others as the client takes those before. A body that cannot go on breaks
    /// off: it is shorter than its length then.
    fn body(self, first: Option<Bytes>, length: u64, held: DownloadHold) -> Body {
        let rest = stream::try_unfold(self, |mut reading| async move {
            match reading.next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, reading))),
                Err(error) => {
                    tracing::error!(%error, "a download was broken off");
                    Err(BrokenOff)
                }
            }
        });
        let DownloadHold { permit, stop, pace } = held;
        Body::new(paced(stream::iter(first.map(Ok)).chain(rest), length, pace, stop, permit))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

    use super::*;
    use crate::commit::Manifest;
    use crate::commit::model::FormatRecord;
    use crate::commit::test_data::{format, manifest, memory};
    use crate::model::{Compression, Format};

    /// A destination with parts of a CSV, and their manifest.
    async fn made(name: &str, parts: &[Vec<u8>], header: u64) -> (Destination, Manifest) {
        let destination = memory(name);
        let mut manifest = manifest();
        manifest.format = FormatRecord::from(&format(Format::Csv, Compression::None));
        let template = manifest.parts[0].clone();
        manifest.parts.clear();
        for (number, bytes) in parts.iter().enumerate() {
            let mut part = template.clone();
            part.path = format!("data/part-{number}");
            (part.bytes, part.header_bytes) = (u64::try_from(bytes.len()).unwrap(), header);
            destination.put(&part.path, bytes.clone().into(), "text/csv").await.unwrap();
            manifest.parts.push(part);
        }
        (destination, manifest)
    }

    async fn ask(
        file: &ServedFile,
        destination: &Destination,
        method: Method,
        fields: &[(HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let answered = answer(file, destination, &method, &headers, DownloadHold::default()).await.unwrap();
        let (status, headers) = (answered.status(), answered.headers().clone());
        (status, headers, to_bytes(answered.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn a_download_that_is_cut_anywhere_goes_on_where_it_was_cut() {
        let part = |seed: u32| {
            let lines = (0..90_000_u32).map(|line| format!("{},{line}\r\n", line.wrapping_mul(seed)));
            ["a,b\r\n".to_owned()].into_iter().chain(lines).collect::<String>().into_bytes()
        };
        let parts = [part(2_654_435_761), part(40_503), part(3)];
        let (destination, manifest) = made("cut anywhere", &parts, 5).await;
        let file = ServedFile::joined(&manifest, "orders").unwrap();
        let whole = [&parts[0][..], &parts[1][5..], &parts[2][5..]].concat();
        assert!(whole.len() > 3 << 20);
        let (status, fields, body) = ask(&file, &destination, Method::GET, &[]).await;
        assert_eq!((status, body == whole), (StatusCode::OK, true));
        assert_eq!(fields[CONTENT_LENGTH], whole.len().to_string());
        assert_eq!(fields[CONTENT_DISPOSITION], "attachment; filename=\"orders.csv\"");
        assert_eq!(fields[REFERRER_POLICY], "no-referrer");
        let etag = fields[ETAG].to_str().unwrap().to_owned();
        for at in [1, 4, 5, parts[0].len() - 1, parts[0].len(), parts[0].len() + 1, 1 << 20, whole.len() - 1] {
            let range = format!("bytes={at}-");
            let asked = [(RANGE, range.as_str()), (IF_RANGE, etag.as_str())];
            let (status, fields, body) = ask(&file, &destination, Method::GET, &asked).await;
            assert_eq!((status, body == whole[at..]), (StatusCode::PARTIAL_CONTENT, true), "{at}");
            let length = whole.len();
            assert_eq!(fields[CONTENT_RANGE], format!("bytes {at}-{}/{length}", length - 1));
        }
        let stale = [(RANGE, "bytes=7-"), (IF_RANGE, "\"another\"")];
        let (status, _, body) = ask(&file, &destination, Method::GET, &stale).await;
        assert_eq!((status, body == whole), (StatusCode::OK, true));
    }

    #[tokio::test]
    async fn the_head_is_that_of_the_whole_and_no_bytes_are_read_for_it() {
        let (destination, manifest) = made("head", &[b"a\n1\n".to_vec(), b"a\n2\n".to_vec()], 2).await;
        let file = ServedFile::joined(&manifest, "orders").unwrap();
        destination.delete("data/part-1").await.unwrap();
        let (status, fields, body) = ask(&file, &destination, Method::HEAD, &[(RANGE, "bytes=0-1")]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0));
        assert_eq!(
            (&fields[CONTENT_LENGTH], &fields[ACCEPT_RANGES]),
            (&"6".parse().unwrap(), &"bytes".parse().unwrap())
        );
        let (status, fields, _) = ask(&file, &destination, Method::GET, &[(RANGE, "bytes=6-")]).await;
        assert_eq!(
            (status, &fields[CONTENT_RANGE]),
            (StatusCode::RANGE_NOT_SATISFIABLE, &"bytes */6".parse().unwrap())
        );
        let known = [(IF_NONE_MATCH, file.etag.as_str())];
        let (status, _, body) = ask(&file, &destination, Method::GET, &known).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_said_or_breaks_the_body_off() {
        let (destination, manifest) = made("gone", &[b"a\n1\n".to_vec(), b"a\n2\n".to_vec()], 2).await;
        let file = ServedFile::joined(&manifest, "orders").unwrap();
        destination.delete("data/part-1").await.unwrap();
        let answered =
            answer(&file, &destination, &Method::GET, &HeaderMap::new(), DownloadHold::default()).await.unwrap();
        to_bytes(answered.into_body(), usize::MAX).await.unwrap_err();
        destination.delete("data/part-0").await.unwrap();
        let refused =
            answer(&file, &destination, &Method::GET, &HeaderMap::new(), DownloadHold::default()).await.unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::BAD_GATEWAY, "files_unavailable"));
        // An object that has become shorter is not sent as if it were whole.
        destination.put("data/part-0", Bytes::from_static(b"a"), "text/csv").await.unwrap();
        answer(&file, &destination, &Method::GET, &HeaderMap::new(), DownloadHold::default()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_service_that_stops_breaks_downloads_off() {
        let (destination, manifest) = made("stops", &[b"a\n1\n".to_vec(), b"a\n2\n".to_vec()], 2).await;
        let file = ServedFile::joined(&manifest, "orders").unwrap();
        let held = DownloadHold::default();
        held.stop.cancel();
        let answered = answer(&file, &destination, &Method::GET, &HeaderMap::new(), held).await.unwrap();
        to_bytes(answered.into_body(), usize::MAX).await.unwrap_err();
    }
}
