//! What can go wrong at the destination.

use rustix::io::Errno;

use super::aws_credentials::NoCredentials;
use crate::base::{OPEN_FILES_HINT, tells_of_open_files};

/// The class of a destination error, which decides exit code and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The address or an option is wrong (exit 2).
    Configuration,
    /// Credentials are missing, wrong or not allowed to do it (exit 20).
    Authentication,
    /// The store did not answer, or answered with a passing error until retries were used up (exit 21).
    Unavailable,
    /// Somebody else's manifest or run is there (exit 22).
    Taken,
    /// Whoever reads standard output went away (exit 141).
    ReaderGone,
    /// No space, no quota (exit 23).
    Full,
    /// Something that must be there is not.
    Missing,
}

/// An error of the store layer: what was being done, to which object.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct StoreError {
    /// What was being done, as a verb that its object follows: `writing`, `reading`, `publishing`.
    pub operation: &'static str,
    /// The object's URL, without credentials.
    pub object: String,
    /// The class.
    pub fault: StoreFault,
    /// Whether what the operation had staged is known to be gone.
    pub leaves_nothing: bool,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is kept of an error of the store's client: its words without response bodies, which can quote request headers
/// and with them session tokens, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{text}{}{}", if hint.is_some() { "; " } else { "" }, hint.unwrap_or_default())]
struct Cause {
    text: String,
    hint: Option<&'static str>,
}

impl StoreError {
    /// An error of our own making.
    pub(crate) fn new(
        operation: &'static str,
        object: impl Into<String>,
        fault: StoreFault,
        source: impl Into<BoxError>,
    ) -> Self {
        Self { operation, object: object.into(), fault, leaves_nothing: false, source: source.into() }
    }

    /// An error of the operating system.
    pub(crate) fn from_io(operation: &'static str, object: impl Into<String>, error: std::io::Error) -> Self {
        let (fault, hint) = io_fault(&error);
        let source: BoxError = match hint {
            Some(_) => Box::new(Cause { text: error.to_string(), hint }),
            None => Box::new(error),
        };
        Self { operation, object: object.into(), fault, leaves_nothing: false, source }
    }

    /// An error of `object_store`.
    pub(crate) fn from_store(operation: &'static str, object: impl Into<String>, error: &object_store::Error) -> Self {
        let object = object.into();
        if let Some(none) = in_chain::<NoCredentials>(error) {
            return Self::new(operation, object, StoreFault::Authentication, none.clone());
        }
        let full = chain_text(error);
        let (fault, hint) = store_fault(error, &full);
        let known = ["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"];
        let is_policy = object.starts_with("s3://") && !known.iter().any(|code| full.contains(code));
        let hint = if is_policy && hint == Some(CREDENTIALS) { Some(s3_policy(operation)) } else { hint };
        Self::new(operation, object, fault, Cause { text: without_bodies(&full), hint })
    }
}

fn io_fault(error: &std::io::Error) -> (StoreFault, Option<&'static str>) {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (StoreFault::Full, Some("free space or raise the quota, then run again"))
        }
        ErrorKind::FileTooLarge => (StoreFault::Full, Some(FILE_TOO_LARGE)),
        ErrorKind::PermissionDenied => {
            (StoreFault::Authentication, Some("the user that runs the export needs write permission on the folder"))
        }
        ErrorKind::ReadOnlyFilesystem => {
            (StoreFault::Unavailable, Some("the file system is mounted read-only, as after an error of its disk"))
        }
        ErrorKind::AlreadyExists => (StoreFault::Taken, None),
        ErrorKind::NotFound => (StoreFault::Missing, None),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
            (StoreFault::Configuration, None)
        }
        _ if [Errno::MFILE, Errno::NFILE].into_iter().any(|full| error.raw_os_error() == Some(full.raw_os_error())) => {
            (StoreFault::Unavailable, Some(OPEN_FILES_HINT))
        }
        _ => (StoreFault::Unavailable, None),
    }
}

const FILE_TOO_LARGE: &str = "the process may write no larger file, or the file system may hold none: raise `ulimit -f`, or take \
                              smaller files with --part-size";
const NO_BUCKET: &str = "the bucket or container does not exist: create it, or correct the destination's URL";
const CREDENTIALS: &str = "check the credentials in the environment and that their policy allows writing here";
const NO_CREDENTIALS: &str = "no credentials were found in the environment and no instance metadata service answered: set the provider's variables";
/// What a refused operation may do on S3 only where the policy says so.
fn s3_policy(operation: &str) -> &'static str {
    match operation {
        "reading" | "looking at" => {
            "the policy must allow s3:GetObject, and s3:ListBucket, without which what is missing is refused too: \
             config/s3-policy.json"
        }
        "listing" => "the policy must allow s3:ListBucket: config/s3-policy.json",
        "listing uploads" => "the policy must allow s3:ListBucketMultipartUploads: config/s3-policy.json",
        "deleting" => "the policy must allow s3:DeleteObject: config/s3-cleaner-policy.json",
        "discarding" => "the policy must allow s3:AbortMultipartUpload: config/s3-policy.json",
        _ => "the policy must allow s3:PutObject: config/s3-policy.json",
    }
}

const REGION: &str = "check the region and the endpoint in the environment";

/// `object_store` names the cause by variant where a status code tells it, and only in words elsewhere (lists, uploads).
fn store_fault(error: &object_store::Error, text: &str) -> (StoreFault, Option<&'static str>) {
    use object_store::Error as E;
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket", "ContainerNotFound", "specified bucket does not exist"]) {
        return (StoreFault::Configuration, Some(NO_BUCKET));
    }
    match error {
        E::NotFound { .. } => (StoreFault::Missing, None),
        // The memory store's word for an unknown upload.
        E::Generic { .. } if says(&["MultipartUpload not found"]) => (StoreFault::Missing, None),
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => (StoreFault::Taken, None),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (StoreFault::Authentication, Some(CREDENTIALS)),
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => (StoreFault::Configuration, None),
        // A request for several objects has the answer for each in its body.
        _ if says(&["code: AccessDenied", "status code: 403", "status code: 401"]) => {
            (StoreFault::Authentication, Some(CREDENTIALS))
        }
        _ if tells_of_open_files(text) => (StoreFault::Unavailable, Some(OPEN_FILES_HINT)),
        _ if says(&["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"]) => {
            (StoreFault::Authentication, Some(CREDENTIALS))
        }
        _ if says(&["169.254.169.254", "metadata.google.internal", "MissingAccessKey", "Missing AccessKeyId"]) => {
            (StoreFault::Authentication, Some(NO_CREDENTIALS))
        }
        _ if says(&["redirect without LOCATION", "AuthorizationHeaderMalformed", "PermanentRedirect"]) => {
            (StoreFault::Configuration, Some(REGION))
        }
        _ if says(&["status code: 507", "QuotaExceeded", "StorageFull", "InsufficientCapacity"]) => {
            (StoreFault::Full, None)
        }
        _ => in_chain::<std::io::Error>(error).map_or((StoreFault::Unavailable, None), |io| match io_fault(io) {
            // The remote end of a connection can be "not found" too; only a full disk means the same there.
            (StoreFault::Full, hint) => (StoreFault::Full, hint),
            _ => (StoreFault::Unavailable, None),
        }),
    }
}

fn in_chain<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The words of the whole chain; each level that only repeats the one below it is said once.
fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).fold(String::new(), |mut text, error| {
        let words = error.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        text
    })
}

/// Cuts XML bodies down to their code and message, and everything to a length that a person reads.
fn without_bodies(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    let mut out = match text.find("<?xml").or_else(|| text.find("<Error")) {
        Some(start) => {
            let (before, body) = text.split_at(start);
            let tag = |name: &str| {
                let value = body.split_once(&format!("<{name}>"))?.1;
                Some(value.split_once(&format!("</{name}>"))?.0.to_owned())
            };
            let parts = [tag("Code"), tag("Message")].into_iter().flatten().collect::<Vec<_>>();
            format!("{before}{}", parts.join(": "))
        }
        None => text.to_owned(),
    };
    if out.len() > LENGTH_MAX {
        out.truncate(out.floor_char_boundary(LENGTH_MAX));
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn faults_follow_the_cause() {
        let not_found = |text: &str| object_store::Error::NotFound { path: "p".into(), source: text.to_owned().into() };
        let cases = [
            (not_found("404"), StoreFault::Missing),
            (not_found("<Code>NoSuchBucket</Code>"), StoreFault::Configuration),
            (object_store::Error::AlreadyExists { path: "p".into(), source: "412".into() }, StoreFault::Taken),
            (
                object_store::Error::PermissionDenied { path: "p".into(), source: "x".into() },
                StoreFault::Authentication,
            ),
            (generic("Server returned non-2xx status code: 403 Forbidden"), StoreFault::Authentication),
            (generic("DeleteObjects request failed for key x: No. (code: AccessDenied)"), StoreFault::Authentication),
            (generic("Server returned non-2xx status code: 503 Slow Down"), StoreFault::Unavailable),
            (generic("Server returned non-2xx status code: 507"), StoreFault::Full),
            (
                object_store::Error::Generic {
                    store: "x",
                    source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
                },
                StoreFault::Full,
            ),
        ];
        for (error, fault) in cases {
            assert_eq!(StoreError::from_store("writing", "s3://b/x", &error).fault, fault, "{error}");
        }
    }

    #[test]
    fn response_bodies_do_not_reach_the_message() {
        let body = "status code: 403: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
                    <Message>no match</Message><CanonicalRequest>x-amz-security-token:SECRET</CanonicalRequest></Error>";
        let error = StoreError::from_store("writing", "s3://b/x", &generic(body));
        let text = error.source.to_string();
        assert!(text.contains("SignatureDoesNotMatch: no match"), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
        assert!(!format!("{error:?}").contains("SECRET"));
    }

    #[test]
    fn what_a_policy_lacks_is_named_where_the_store_knows_who_asks() {
        let hint = |operation, object: &str, text: &str| {
            StoreError::from_store(operation, object, &generic(&format!("status code: 403 {text}"))).source.to_string()
        };
        assert!(hint("deleting", "s3://b/x", "AccessDenied").contains("s3:DeleteObject"));
        assert!(hint("reading", "s3://b/x", "").contains("s3:ListBucket"), "a HEAD has no code");
        for (object, text) in [("s3://b/x", "SignatureDoesNotMatch"), ("s3://b/x", "ExpiredToken"), ("gs://b/x", "")] {
            assert!(hint("reading", object, text).ends_with(CREDENTIALS), "{object} {text}");
        }
    }

    #[test]
    fn io_faults() {
        use std::io::ErrorKind;
        for (kind, fault) in [
            (ErrorKind::StorageFull, StoreFault::Full),
            (ErrorKind::QuotaExceeded, StoreFault::Full),
            (ErrorKind::FileTooLarge, StoreFault::Full),
            (ErrorKind::PermissionDenied, StoreFault::Authentication),
            (ErrorKind::ReadOnlyFilesystem, StoreFault::Unavailable),
            (ErrorKind::Other, StoreFault::Unavailable),
        ] {
            assert_eq!(StoreError::from_io("writing", "file:///x", kind.into()).fault, fault, "{kind:?}");
        }
        for full in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            let error = StoreError::from_io("x", "file:///x", std::io::Error::from_raw_os_error(full.raw_os_error()));
            assert_eq!(error.fault, StoreFault::Full, "{full:?}");
        }
        let full = std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let error = StoreError::from_io("staging", "file:///x", full);
        assert_eq!(error.fault, StoreFault::Unavailable);
        assert!(error.source.to_string().ends_with(OPEN_FILES_HINT), "{}", error.source);
        let source = Box::new(std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()));
        let full = object_store::Error::Generic { store: "S3", source };
        let error = StoreError::from_store("starting", "s3://bucket/x", &full);
        assert_eq!(error.fault, StoreFault::Unavailable);
        assert!(error.source.to_string().ends_with(OPEN_FILES_HINT), "{}", error.source);
    }
}
