//! The open uploads of an S3 bucket, which `object_store` cannot list: an upload whose process died before it could note
//! its id is found nowhere else.

use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;

use super::connect::REQUEST_TIMEOUT_MIN;
use super::error::BoxError;

/// Lists uploads by requests that it signs itself.
pub(super) struct OpenUploads {
    signer: AmazonS3,
    client: HttpClient,
}

/// An upload that was neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenUpload {
    /// The whole key.
    pub(super) key: String,
    pub(super) upload_id: String,
}

/// `ListMultipartUploadsResult` (S3, `ListMultipartUploads`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Page {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    upload: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

impl Page {
    /// Where the next page begins. S3 gives both markers; SeaweedFS sorts by upload and gives that one only.
    fn markers(&self) -> Result<Vec<(String, String)>, BoxError> {
        let markers = [("key-marker", &self.next_key_marker), ("upload-id-marker", &self.next_upload_id_marker)];
        let given = markers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let given: Vec<_> = given.filter(|(_, value)| !value.is_empty()).collect();
        // Without the rest, an upload that is open would be taken for gone.
        if given.is_empty() {
            Err("the store cut its list of uploads short without a marker".into())
        } else {
            Ok(given)
        }
    }
}

impl OpenUploads {
    pub(super) fn new(signer: AmazonS3, client: HttpClient) -> Self {
        Self { signer, client }
    }

    /// All below a prefix of keys. Needs `s3:ListBucketMultipartUploads`.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<OpenUpload>, BoxError> {
        let mut found = Vec::new();
        let mut markers = Vec::new();
        loop {
            let mut query = vec![("uploads".to_owned(), String::new()), ("prefix".to_owned(), prefix.to_owned())];
            query.append(&mut markers);
            let page = self.page(query).await?;
            if page.is_truncated {
                markers = page.markers()?;
            }
            found.extend(page.upload.into_iter().map(|Upload { key, upload_id }| OpenUpload { key, upload_id }));
            if markers.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn page(&self, query: Vec<(String, String)>) -> Result<Page, BoxError> {
        let options = SignedUrlOptions::default().with_query(query);
        let method = HttpRequest::new(HttpRequestBody::empty()).method().clone();
        let url = self.signer.signed_url_opts(method, &Path::ROOT, SIGNATURE_LIFE, &options).await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        // Parsed by the request's own type of address.
        *request.uri_mut() = url.as_str().parse()?;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT_MIN, self.client.execute(request)).await??;
        let status = answer.status();
        let body = answer.into_body().bytes().await?;
        if !status.is_success() {
            return Err(format!("the store answered {status} to ListMultipartUploads").into());
        }
        Ok(quick_xml::de::from_reader(&*body)?)
    }
}

/// The signed address is used at once.
const SIGNATURE_LIFE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let page: Page = quick_xml::de::from_str(
            r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Bucket>b</Bucket><KeyMarker></KeyMarker><NextKeyMarker>x/b</NextKeyMarker>
              <NextUploadIdMarker>2</NextUploadIdMarker><MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
              <Upload><Key>x/a &amp; b</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>
              <Upload><Key>x/b</Key><UploadId>2</UploadId></Upload>
            </ListMultipartUploadsResult>"#,
        )
        .unwrap();
        assert!(page.is_truncated);
        let markers = |page: &Page| page.markers().map_err(|error| error.to_string());
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(markers(&page).unwrap(), [("key-marker", "x/b"), ("upload-id-marker", "2")].map(owned));
        let keys: Vec<_> = page.upload.iter().map(|upload| upload.key.as_str()).collect();
        assert_eq!(keys, ["x/a & b", "x/b"]);
        let by_upload = Page { next_key_marker: Some(String::new()), ..page };
        assert_eq!(markers(&by_upload).unwrap(), [("upload-id-marker", "2")].map(owned));
        assert!(markers(&Page { next_upload_id_marker: None, ..by_upload }).is_err());
        let empty: Page = quick_xml::de::from_str("<ListMultipartUploadsResult/>").unwrap();
        assert!(empty.upload.is_empty() && !empty.is_truncated);
    }
}
