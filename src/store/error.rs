//! What can go wrong at the destination.

mod words;

use rustix::io::Errno;

use super::aws_credentials::NoCredentials;
use crate::base::{OPEN_FILES_HINT, tells_of_open_files, voice};
use crate::model::ErrorCode;

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
#[error("{}", self.sentence())]
pub struct StoreError {
    /// What was being done: `writing`, `reading`, `publishing`.
    pub operation: &'static str,
    /// The object's URL, without credentials.
    pub object: String,
    /// The class.
    pub fault: StoreFault,
    /// What it is, where that is known more closely than by its class.
    pub code: Option<ErrorCode>,
    /// Why, in a person's words.
    pub cause: Box<str>,
    /// What to do, where it is known.
    pub hint: Option<Box<str>>,
    /// Whether what the operation had staged is known to be gone.
    pub leaves_nothing: bool,
    /// Why, in whole.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is kept of an error of the store's client: its words without response bodies, which can quote request headers
/// and with them session tokens.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ClientError(String);

/// What is told with an error beside its fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Remedy {
    code: Option<ErrorCode>,
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
        let source = source.into();
        let cause = voice::cause(source.as_ref()).into();
        let object = object.into();
        Self { operation, object, fault, code: None, cause, hint: None, leaves_nothing: false, source }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn with_hint(self, hint: impl Into<Box<str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says what it is.
    #[must_use]
    pub(crate) fn with_code(self, code: ErrorCode) -> Self {
        Self { code: Some(code), ..self }
    }

    /// An error of the operating system.
    pub(crate) fn from_io(operation: &'static str, object: impl Into<String>, error: std::io::Error) -> Self {
        let (fault, hint) = io_fault(operation, &error);
        Self { hint: hint.map(Into::into), ..Self::new(operation, object, fault, error) }
    }

    /// An error of `object_store`.
    pub(crate) fn from_store(operation: &'static str, object: impl Into<String>, error: &object_store::Error) -> Self {
        let object = object.into();
        if let Some(none) = words::in_chain::<NoCredentials>(error) {
            let error = Self::new(operation, object, StoreFault::Authentication, none.clone());
            return Self { hint: none.hint.as_deref().map(Into::into), ..error }
                .with_code(ErrorCode::CredentialsMissing);
        }
        let full = chain_text(error);
        let (fault, meaning) = store_fault(error, &full);
        let is_policy = object.starts_with("s3://") && meaning.code == Some(ErrorCode::AccessDenied);
        let hint = if is_policy { Some(s3_policy(operation)) } else { meaning.hint };
        Self {
            code: meaning.code,
            cause: words::cause(error, &full).into(),
            hint: hint.map(Into::into),
            ..Self::new(operation, object, fault, ClientError(words::without_bodies(&full)))
        }
    }

    /// The bucket or container, where the object is in one.
    pub(super) fn bucket(&self) -> Option<&str> {
        let (_, rest) = self.object.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        Some(authority.split('@').next().unwrap_or(authority)).filter(|name| !name.is_empty())
    }

    /// One sentence, with the object and one cause.
    fn sentence(&self) -> String {
        let Self { operation, object, cause, .. } = self;
        match (self.code, self.bucket()) {
            (Some(ErrorCode::BucketMissing), Some(bucket))
                if object.starts_with("s3://") || object.starts_with("gs://") =>
            {
                format!("bucket {bucket} does not exist")
            }
            (Some(ErrorCode::BucketMissing), Some(container)) => format!("container {container} does not exist"),
            (Some(ErrorCode::CredentialsMissing), _) => cause.to_string(),
            _ => match *operation {
                "taking" | "keeping" => format!("{object}: {cause}"),
                doing => format!("cannot {} {object}: {cause}", infinitive(doing)),
            },
        }
    }
}

/// What cannot be done.
fn infinitive(doing: &'static str) -> &'static str {
    match doing {
        "opening destination" => "write to",
        "reading" => "read",
        "writing" | "staging" | "creating" => "write",
        "replacing" => "replace",
        "starting" => "start to write",
        "publishing" => "publish",
        "looking at" => "look at",
        "listing" => "list",
        "listing uploads" => "list the open uploads of",
        "deleting" => "delete",
        "discarding" => "remove what is staged of",
        other => other,
    }
}

fn io_fault(operation: &str, error: &std::io::Error) -> (StoreFault, Option<&'static str>) {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (StoreFault::Full, Some("free space or raise the quota, then run again"))
        }
        ErrorKind::FileTooLarge => (StoreFault::Full, Some(FILE_TOO_LARGE)),
        ErrorKind::PermissionDenied if ["reading", "looking at", "listing"].contains(&operation) => (
            StoreFault::Authentication,
            Some("the user that runs this needs read permission on it, and on its folders"),
        ),
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
pub(super) const NO_BUCKET: &str = "create it, or correct its name in the destination's URL";
const CREDENTIALS: &str = "check the credentials in the environment and that their policy allows writing here";
const NO_CREDENTIALS: &str =
    "set the variables of the provider, for S3 AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

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
fn store_fault(error: &object_store::Error, text: &str) -> (StoreFault, Remedy) {
    use ErrorCode::{AccessDenied, BucketMissing, CredentialsMissing, CredentialsRefused};
    use object_store::Error as E;
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let meant = |fault, code, hint| (fault, Remedy { code: Some(code), hint: Some(hint) });
    let only = |fault| (fault, Remedy::default());
    let hinted = |fault, hint| (fault, Remedy { code: None, hint: Some(hint) });
    let unknown_keys =
        says(&["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "status code: 401"]);
    let refused =
        || meant(StoreFault::Authentication, if unknown_keys { CredentialsRefused } else { AccessDenied }, CREDENTIALS);
    if says(&["NoSuchBucket", "ContainerNotFound", "specified bucket does not exist"]) {
        return meant(StoreFault::Configuration, BucketMissing, NO_BUCKET);
    }
    match error {
        // The memory store's word for an unknown upload is the second.
        E::NotFound { .. } => only(StoreFault::Missing),
        E::Generic { .. } if says(&["MultipartUpload not found"]) => only(StoreFault::Missing),
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => only(StoreFault::Taken),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => refused(),
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => only(StoreFault::Configuration),
        // A service of the machine itself refuses who is not on such a machine.
        _ if says(&[
            "169.254.169.254",
            "latest/api/token",
            "metadata.google.internal",
            "MissingAccessKey",
            "Missing AccessKeyId",
        ]) =>
        {
            meant(StoreFault::Authentication, CredentialsMissing, NO_CREDENTIALS)
        }
        // A request for several objects has the answer for each in its body.
        _ if says(&["code: AccessDenied", "status code: 403", "status code: 401"]) => refused(),
        _ if tells_of_open_files(text) => hinted(StoreFault::Unavailable, OPEN_FILES_HINT),
        _ if unknown_keys => refused(),
        _ if says(&["redirect without LOCATION", "AuthorizationHeaderMalformed", "PermanentRedirect"]) => {
            hinted(StoreFault::Configuration, REGION)
        }
        _ if says(&["status code: 507", "QuotaExceeded", "StorageFull", "InsufficientCapacity"]) => {
            only(StoreFault::Full)
        }
        _ => words::in_chain::<std::io::Error>(error).map_or(only(StoreFault::Unavailable), |io| {
            match io_fault("writing", io) {
                // The remote end of a connection can be "not found" too; only a full disk means the same there.
                (StoreFault::Full, hint) => (StoreFault::Full, Remedy { code: None, hint }),
                _ => only(StoreFault::Unavailable),
            }
        }),
    }
}

/// The words of the whole chain; each level that only repeats the one below it is said once.
fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    voice::causes(error).join(": ")
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
        assert!(text.contains("no match (SignatureDoesNotMatch)"), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
        assert!(!format!("{error:?}").contains("SECRET"));
    }

    #[test]
    fn what_a_policy_lacks_is_named_where_the_store_knows_who_asks() {
        let hint = |operation, object: &str, text: &str| {
            StoreError::from_store(operation, object, &generic(&format!("status code: 403 {text}"))).hint.unwrap()
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
        for (operation, what) in
            [("reading", "read permission"), ("listing", "read permission"), ("writing", "write permission")]
        {
            let error = StoreError::from_io(operation, "file:///x", ErrorKind::PermissionDenied.into());
            assert!(error.hint.is_some_and(|hint| hint.contains(what)), "{operation}");
        }
        for full in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            let error = StoreError::from_io("x", "file:///x", std::io::Error::from_raw_os_error(full.raw_os_error()));
            assert_eq!(error.fault, StoreFault::Full, "{full:?}");
        }
        let full = std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let error = StoreError::from_io("staging", "file:///x", full);
        assert_eq!(error.fault, StoreFault::Unavailable);
        assert!(error.hint.as_deref() == Some(OPEN_FILES_HINT), "{:?}", error.hint);
        let source = Box::new(std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()));
        let full = object_store::Error::Generic { store: "S3", source };
        let error = StoreError::from_store("starting", "s3://bucket/x", &full);
        assert_eq!(error.fault, StoreFault::Unavailable);
        assert!(error.hint.as_deref() == Some(OPEN_FILES_HINT), "{:?}", error.hint);
    }
}
