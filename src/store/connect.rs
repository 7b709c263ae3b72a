//! Makes the store clients.
//!
//! S3 gets CRC64NVME with every request that carries data, computed by the client over each body, so a byte that
//! changes on the way is refused. For an upload S3 puts the whole object's CRC64NVME together from those of its chunks:
//! CRC64NVME has no per-chunk (`COMPOSITE`) form there, so `FULL_OBJECT` is its only and default checksum type, and the
//! value that a HEAD shows later equals the one in the manifest. With the CRC in place bodies are sent as
//! `UNSIGNED-PAYLOAD`: a SHA-256 over every byte would cost more than the rest of the upload. The request's signature
//! covers the CRC, and TLS the body. Plain HTTP to another host is the exception, as in AWS's own clients: who can
//! change a body there can make it fit its CRC, so there it is signed. `AWS_UNSIGNED_PAYLOAD` decides otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, HeaderMap, HeaderValue, RetryConfig};

use super::address::Provider;
use super::aws_credentials::{AskedCredentials, MachineRole};
use super::aws_profile::{self, Giver, ProfileError};
use super::aws_region;
use super::buckets::Buckets;
use super::error::{StoreError, StoreFault};
use super::open_uploads::OpenUploads;
use super::remote::Remote;
use super::variables;
use crate::base::failpoint;
use crate::model::ErrorCode;

/// A request to a store may take this long until its answer begins, or longer where its body is large:
/// [`UPLOAD_RATE_MIN`].
pub(super) const REQUEST_TIMEOUT_MIN: Duration = Duration::from_mins(2);

/// The slowest upload that is waited for, in bytes a second.
const UPLOAD_RATE_MIN: usize = 64 * 1024;

/// `object_store` starts no more retries of a request after this long (its default); it has one signature for all of
/// them, which a store takes for five minutes at least.
const STORE_RETRY_BUDGET: Duration = Duration::from_mins(3);

/// A TCP and TLS connection to a store; the client tries again within its retry budget.
pub(super) const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The CRC64NVME that a store told in a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc64Header(pub(super) u64);

/// A store in this process, for tests; the same name gives the same store.
#[cfg(any(test, feature = "failpoints"))]
pub(super) fn memory(name: &str, url: String) -> Remote {
    use object_store::memory::InMemory;
    use std::sync::{Mutex, PoisonError};
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default();
    Remote::new(Arc::clone(store), Path::ROOT, url)
}

/// Environment variables, or what stands for them.
pub(super) type Variables = BTreeMap<String, String>;

/// A client for a bucket or container.
pub(super) fn cloud(
    provider: Provider,
    authority: &str,
    prefix: &str,
    url: &str,
    variables: &Variables,
) -> Result<Remote, StoreError> {
    let root = Path::parse(prefix)
        .map_err(|error| StoreError::new("opening destination", url, StoreFault::Configuration, error))?;
    let refused = |error: object_store::Error| {
        // Building sends nothing: what fails here is an option.
        let error = StoreError::from_store("opening destination", url, &error);
        StoreError { fault: StoreFault::Configuration, ..error }
    };
    Ok(match provider {
        Provider::S3 => {
            let found = profile(url, variables)?;
            let variables = &found.variables;
            variables::check(provider, url, variables)?;
            if aws_region::is_unknown(authority, variables) {
                return Err(aws_region::unknown(url));
            }
            let giver = credentials(authority, found.giver, variables).map_err(refused)?;
            let s3 = |facts, connector| s3(authority, variables, giver.clone(), facts, connector).map_err(refused);
            let asked = UploadStarts::default();
            let store = s3(false, TimedHttpConnector(asked.clone()))?;
            let facts = s3(true, TimedHttpConnector::default())?;
            let client = TimedHttpConnector::default()
                .connect(&s3_client(variables, s3_endpoint(&s3_builder(authority, variables)).as_deref()))
                .map_err(refused)?;
            let builder = s3_builder(authority, variables);
            let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
            let buckets = Buckets::new(facts.clone(), client.clone(), s3_endpoint(&builder), region);
            let open_uploads = OpenUploads::new(facts.clone(), client);
            let store = Arc::new(store);
            Remote::new(Arc::clone(&store), root, url.to_owned())
                .with_signer(store)
                .with_buckets(buckets)
                .with_facts(Arc::new(facts))
                .with_open_uploads(open_uploads, asked)
        }
        Provider::Gcs => {
            variables::check(provider, url, variables)?;
            let store = Arc::new(gcs(authority, variables).map_err(refused)?);
            Remote::new(Arc::clone(&store), root, url.to_owned()).with_signer(store)
        }
        Provider::Azure | Provider::AzureAbfss => {
            variables::check(provider, url, variables)?;
            let store = azure(&format!("{}://{authority}/", provider.scheme()), variables).map_err(refused)?;
            let store = Arc::new(store);
            Remote::new(Arc::clone(&store), root, url.to_owned()).with_signer(store).without_upload_attributes()
        }
    })
}

/// What the variables and the profile say.
pub(super) fn profile(url: &str, variables: &Variables) -> Result<aws_profile::ProfileFound, StoreError> {
    aws_profile::find(variables).map_err(|error| {
        let hint = error.hint();
        let fault = match error {
            ProfileError::Unreadable { .. } | ProfileError::HalfKeys { .. } => StoreFault::Configuration,
            _ => StoreFault::Authentication,
        };
        let error = StoreError::new("opening destination", url, fault, error);
        error.with_code(ErrorCode::CredentialsMissing).with_hint(hint)
    })
}

/// Who gives the credentials, where that is not `object_store` by the variables.
fn credentials(
    bucket: &str,
    giver: Giver,
    variables: &Variables,
) -> Result<Option<AwsCredentialProvider>, object_store::Error> {
    Ok(match giver {
        Giver::Variables => None,
        Giver::Program(program) => Some(Arc::new(AskedCredentials::new(program))),
        Giver::Machine { looked } => {
            let disabled = aws_profile::says_yes(variables, "AWS_EC2_METADATA_DISABLED");
            // This client is made for its provider, which takes its retries: none.
            let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
            let client = s3_client(variables, None);
            let role = s3_builder(bucket, variables).with_client_options(client).with_retry(once).build()?;
            Some(Arc::new(MachineRole::new(Arc::clone(role.credentials()), disabled, looked)))
        }
    })
}

/// `facts`: for HEADs that ask for checksums, with a header that no other request should carry.
fn s3(
    bucket: &str,
    variables: &Variables,
    credentials: Option<AwsCredentialProvider>,
    facts: bool,
    connector: TimedHttpConnector,
) -> Result<AmazonS3, object_store::Error> {
    let builder = s3_builder(bucket, variables);
    let endpoint = s3_endpoint(&builder);
    let mut client = s3_client(variables, endpoint.as_deref());
    if facts {
        let ask = ("x-amz-checksum-mode", "ENABLED");
        let mut headers = HeaderMap::new();
        headers.insert(ask.0, HeaderValue::from_static(ask.1));
        client = client.with_default_headers(headers);
    }
    let builder = match builder.get_config_value(&AmazonS3ConfigKey::Checksum) {
        // AWS_CHECKSUM_ALGORITHM=sha256, for a store that does not know CRC64NVME.
        Some(_) => builder,
        None => builder.with_checksum_algorithm(Checksum::CRC64NVME),
    };
    let builder = if settings("AWS_", variables).any(|(key, _)| AmazonS3ConfigKey::UnsignedPayload == key) {
        builder
    } else {
        builder.with_unsigned_payload(!endpoint.is_some_and(|endpoint| body_is_exposed(&endpoint)))
    };
    let builder = match credentials {
        Some(credentials) => builder.with_credentials(credentials),
        None => builder,
    };
    // Conditional writes by ETag are the builder's default.
    builder.with_client_options(client).with_retry(retries()).with_http_connector(connector).build()
}

pub(super) fn s3_builder(bucket: &str, variables: &Variables) -> AmazonS3Builder {
    settings("AWS_", variables)
        .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
        .with_bucket_name(bucket)
}

pub(super) fn s3_endpoint(builder: &AmazonS3Builder) -> Option<String> {
    [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint].iter().find_map(|key| builder.get_config_value(key))
}

pub(super) fn s3_client(variables: &Variables, endpoint: Option<&str>) -> ClientOptions {
    let client = client_options("AWS_", variables, ClientOptions::new()).with_timeout_disabled();
    if endpoint.is_some_and(is_loopback) { client.with_allow_http(true) } else { client }
}

fn gcs(bucket: &str, variables: &Variables) -> Result<object_store::gcp::GoogleCloudStorage, object_store::Error> {
    // Plain HTTP is how the metadata service gives out tokens, so the builder's default allows it.
    let client =
        client_options("GOOGLE_", variables, ClientOptions::new().with_allow_http(true)).with_timeout_disabled();
    let mut builder = settings("GOOGLE_", variables)
        .fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| builder.with_config(key, value));
    if let Some(path) = variables.get("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retries())
        .with_http_connector(TimedHttpConnector::default())
        .build()
}

fn azure(url: &str, variables: &Variables) -> Result<object_store::azure::MicrosoftAzure, object_store::Error> {
    let mut builder = settings("AZURE_", variables)
        .fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
        .with_url(url);
    if let Some(endpoint) = variables.get("MSI_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    let mut client = client_options("AZURE_", variables, ClientOptions::new()).with_timeout_disabled();
    if builder.get_config_value(&AzureConfigKey::Endpoint).is_some_and(|endpoint| is_loopback(&endpoint)) {
        client = client.with_allow_http(true);
    }
    // Uploads cannot carry a Content-Type here; the client can derive one from the name.
    for (suffix, content_type) in [
        ("parquet", "application/vnd.apache.parquet"),
        ("csv", "text/csv; charset=utf-8"),
        ("ndjson", "application/x-ndjson"),
        ("gz", "application/gzip"),
        ("zst", "application/zstd"),
    ] {
        client = client.with_content_type_for_suffix(suffix, content_type);
    }
    builder.with_client_options(client).with_retry(retries()).with_http_connector(TimedHttpConnector::default()).build()
}

/// How long after its first try a request may still be tried again.
pub(super) fn retry_budget() -> Duration {
    failpoint::limit("store-retry", STORE_RETRY_BUDGET)
}

fn retries() -> RetryConfig {
    RetryConfig { retry_timeout: retry_budget(), ..RetryConfig::default() }
}

/// How long a request with a body of `bytes` may take until its answer begins: a slow store gets longer for more.
pub(super) fn request_timeout(bytes: usize) -> Duration {
    let least = failpoint::limit("request", REQUEST_TIMEOUT_MIN);
    if failpoint::off("scaled-timeout") {
        return least;
    }
    least.max(Duration::from_secs(u64::try_from(bytes / UPLOAD_RATE_MIN).unwrap_or(u64::MAX)))
}

/// The client's own options (`AWS_ALLOW_HTTP`, `GOOGLE_PROXY_URL`, …). Its whole-request timeout is replaced by ours.
fn client_options(prefix: &str, variables: &Variables, defaults: ClientOptions) -> ClientOptions {
    // The builders' keys are whole names, the client's have no prefix.
    variables
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_ascii_lowercase().parse().ok()?, value)))
        .filter(|(key, _)| *key != ClientConfigKey::Timeout)
        .fold(defaults.with_connect_timeout(STORE_CONNECT_TIMEOUT), |options, (key, value)| {
            options.with_config(key, value)
        })
}

/// The variables of one provider that its builder knows, as the builders' own `from_env` picks them.
fn settings<'a, K: std::str::FromStr>(prefix: &str, variables: &'a Variables) -> impl Iterator<Item = (K, &'a str)> {
    variables
        .iter()
        .filter(move |(name, _)| name.starts_with(prefix))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())))
}

/// Whether an endpoint is on this machine, where plain HTTP leaks nothing.
pub(super) fn is_loopback(endpoint: &str) -> bool {
    let Some((_, rest)) = endpoint.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether somebody between here and the endpoint can change what is sent.
fn body_is_exposed(endpoint: &str) -> bool {
    is_plain(endpoint) && !is_loopback(endpoint)
}

pub(super) fn is_plain(endpoint: &str) -> bool {
    endpoint.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))
}

/// Makes HTTP clients whose requests time out by the size of their bodies, and which keep the checksum header of the
/// answer. A timeout over the whole request, body of the answer included, would cut off slow readers of large objects.
#[derive(Debug, Default)]
struct TimedHttpConnector(UploadStarts);

/// How often a store was asked to begin an upload, each retry counted: whoever heard of fewer uploads may have begun more.
#[derive(Debug, Clone, Default)]
pub(super) struct UploadStarts(Arc<AtomicU64>);

impl UploadStarts {
    pub(super) fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// `POST ?uploads` (S3, `CreateMultipartUpload`).
    fn count(&self, request: &HttpRequest) {
        let begins = request.uri().query().is_some_and(|query| query.starts_with("uploads"));
        if begins && request.method().as_str() == "POST" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl HttpConnector for TimedHttpConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?, self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(HttpClient, UploadStarts);

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct TimedOut(Duration);

type ResponseFuture<'a> = std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> ResponseFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let timeout = request_timeout(request.body().content_length());
            self.1.count(&request);
            let mut answer = tokio::time::timeout(timeout, self.0.execute(request))
                .await
                .map_err(|_| HttpError::new(HttpErrorKind::Timeout, TimedOut(timeout)))??;
            if let Some(crc) = answer.headers().get("x-amz-checksum-crc64nvme").and_then(read_crc) {
                answer.extensions_mut().insert(Crc64Header(crc));
            }
            Ok(answer)
        })
    }
}

/// Base64 of eight bytes, as S3 writes it. Anything else (a `-n` at its end would mean a checksum of checksums) is none.
fn read_crc(value: &HeaderValue) -> Option<u64> {
    Some(u64::from_be_bytes(BASE64_STANDARD.decode(value).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_endpoints() {
        for endpoint in ["http://127.0.0.1:8333", "http://localhost", "http://[::1]:9000/x", "http://127.8.0.1"] {
            assert!(is_loopback(endpoint), "{endpoint}");
        }
        for endpoint in ["http://10.0.0.1", "http://localhost.evil.example", "http://127.0.0.1.nip.io", "127.0.0.1", ""]
        {
            assert!(!is_loopback(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn bodies_are_signed_where_they_are_exposed_or_it_is_asked_for() {
        let unsigned = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let text = format!("{:?}", s3("bucket", &variables, None, false, TimedHttpConnector::default()).unwrap());
            (text.contains("sign_payload: false"), text.contains("sign_payload: true"))
        };
        let (no, yes) = ((true, false), (false, true));
        let (endpoint, option) = ("AWS_ENDPOINT", "AWS_UNSIGNED_PAYLOAD");
        for (variables, expected) in [
            (&[][..], no),
            (&[(endpoint, "https://s3.example")], no),
            (&[(endpoint, "http://127.0.0.1:8333")], no),
            (&[(endpoint, "http://10.0.0.1:9000")], yes),
            (&[("AWS_ENDPOINT_URL", "HTTP://minio.example")], yes),
            (&[(endpoint, "http://10.0.0.1:9000"), (option, "true")], no),
            (&[(endpoint, "http://127.0.0.1:8333"), (option, "false")], yes),
        ] {
            assert_eq!(unsigned(variables), expected, "{variables:?}");
        }
    }

    /// What a client keeps of its credentials may be in a log line of ours, by way of `Debug`.
    #[test]
    fn clients_do_not_show_their_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().join("account.json");
        let key = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "RSA"]).output().unwrap();
        let key = String::from_utf8(key.stdout).unwrap();
        let json = serde_json::json!({"client_email": "x@example", "private_key": key, "private_key_id": "x"});
        std::fs::write(&account, json.to_string()).unwrap();
        let (account, secret) = (account.to_str().unwrap(), BASE64_STANDARD.encode("canary-secret"));
        let inner = key.lines().nth(1).unwrap();
        for (provider, authority, variables) in [
            (Provider::S3, "b", &[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "canary")][..]),
            (
                Provider::S3,
                "b",
                &[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_SESSION_TOKEN", "canary")],
            ),
            (Provider::Gcs, "b", &[("GOOGLE_SERVICE_ACCOUNT", account)]),
            (Provider::Azure, "c", &[("AZURE_STORAGE_ACCOUNT_NAME", "x"), ("AZURE_STORAGE_ACCOUNT_KEY", &secret)]),
            (
                Provider::Azure,
                "c",
                &[("AZURE_STORAGE_ACCOUNT_NAME", "x"), ("AZURE_STORAGE_SAS_KEY", "sv=1&sig=canary")],
            ),
            (
                Provider::Azure,
                "c",
                &[
                    ("AZURE_STORAGE_ACCOUNT_NAME", "x"),
                    ("AZURE_STORAGE_CLIENT_ID", "i"),
                    ("AZURE_STORAGE_CLIENT_SECRET", "canary"),
                    ("AZURE_STORAGE_TENANT_ID", "t"),
                ],
            ),
        ] {
            let region = [("AWS_REGION", "us-east-1")];
            let variables = variables.iter().chain(&region);
            let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let shown = format!("{:?}", cloud(provider, authority, "p", "u", &variables).unwrap());
            for secret in ["canary", &secret, inner] {
                assert!(!shown.contains(secret), "{provider:?} shows {secret}: {shown}");
            }
        }
    }

    #[test]
    fn checksum_headers() {
        // The check value of CRC-64/NVME: of the text "123456789".
        let header = HeaderValue::from_static("rosUhgp5mIg=");
        assert_eq!(read_crc(&header), Some(0xae8b_1486_0a79_9888));
        for other in ["rosUhgp5mIg=-3", "rosUhg==", "", "?"] {
            assert_eq!(read_crc(&HeaderValue::from_static(other)), None, "{other}");
        }
    }
}
