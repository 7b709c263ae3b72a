//! The buckets that there are, for who has misspelt one. `object_store` cannot list them.

use std::time::Duration;

use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::Deserialize;

use super::error::BoxError;

/// A guess is worth no longer waiting.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lists buckets by requests that it signs itself.
pub(super) struct Buckets {
    /// Has the credentials.
    store: AmazonS3,
    client: HttpClient,
    endpoint: String,
    region: String,
}

/// `ListAllMyBucketsResult` (S3, `ListBuckets`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BucketsAnswer {
    buckets: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct List {
    bucket: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    name: String,
}

impl Buckets {
    /// `endpoint` is that of the service where none is configured.
    pub(super) fn new(store: AmazonS3, client: HttpClient, endpoint: Option<String>, region: String) -> Self {
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        Self { store, client, endpoint, region }
    }

    /// The bucket whose name is most like one that does not exist. None where the role may not list buckets.
    pub(super) async fn near(&self, missing: &str) -> Option<String> {
        let names = tokio::time::timeout(PATIENCE, self.list()).await.ok()?.ok()?;
        nearest(missing, names)
    }

    async fn list(&self) -> Result<Vec<String>, BoxError> {
        let credential = self.store.credentials().get_credential().await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = format!("{}/", self.endpoint.trim_end_matches('/')).parse()?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let answer = self.client.execute(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the store answered {} to ListBuckets", answer.status()).into());
        }
        let body = answer.into_body().bytes().await?;
        let answer: BucketsAnswer = quick_xml::de::from_reader(&*body)?;
        Ok(answer.buckets.bucket.into_iter().map(|bucket| bucket.name).collect())
    }
}

/// One letter in four may be wrong.
fn nearest(missing: &str, names: Vec<String>) -> Option<String> {
    let scored = names.into_iter().map(|name| (strsim::damerau_levenshtein(missing, &name), name));
    let (wrong, name) = scored.min_by_key(|(wrong, _)| *wrong)?;
    (wrong <= (missing.chars().count() / 4).max(1)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_and_the_nearest_name_taken() {
        let answer: BucketsAnswer = quick_xml::de::from_str(
            "<ListAllMyBucketsResult><Owner><ID>x</ID></Owner><Buckets><Bucket><Name>lake</Name>\
             <CreationDate>2026-11-28T00:00:00Z</CreationDate></Bucket><Bucket><Name>logs</Name></Bucket></Buckets>\
             </ListAllMyBucketsResult>",
        )
        .unwrap();
        let names: Vec<String> = answer.buckets.bucket.into_iter().map(|bucket| bucket.name).collect();
        assert_eq!(names, ["lake", "logs"]);
        assert_eq!(nearest("laek", names.clone()).as_deref(), Some("lake"));
        assert_eq!(nearest("warehouse", names), None);
        let none: BucketsAnswer =
            quick_xml::de::from_str("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>").unwrap();
        assert!(none.buckets.bucket.is_empty());
    }
}
