//! Destination URLs, read and checked: pure but for the current folder, against which a relative path is made absolute.

use std::path::{Component, Path, PathBuf};

use super::error::{StoreError, StoreFault};

/// Where a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A folder of this machine, absolute.
    Local(PathBuf),
    /// A bucket or container.
    Cloud {
        /// Whose.
        provider: Provider,
        /// What stands between `://` and the first slash: the bucket, or `container@account.dfs.core.windows.net`.
        authority: String,
        /// The key prefix, taken literally (never percent-decoded, as the providers' own tools do), without slashes
        /// at its ends.
        prefix: String,
    },
}

/// An object store, by the scheme of its URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Gcs,
    Azure,
    /// `abfss`: Azure with the account named in the URL.
    AzureAbfss,
}

impl Provider {
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
            Self::AzureAbfss => "abfss",
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        [Self::S3, Self::Gcs, Self::Azure, Self::AzureAbfss].into_iter().find(|provider| provider.scheme() == scheme)
    }
}

const SCHEMES: &str = "use a path, file:///…, s3://bucket/…, gs://bucket/…, az://container/… or \
                       abfss://container@account.dfs.core.windows.net/…";

impl Address {
    /// Reads what a person wrote after `--to`.
    ///
    /// # Errors
    /// [`StoreFault::Configuration`]; the message never repeats user info or a query string.
    pub(super) fn parse(written: &str) -> Result<Self, StoreError> {
        let refuse =
            |why: String| Err(StoreError::new("opening destination", shown(written), StoreFault::Configuration, why));
        if written.is_empty() {
            return refuse("the destination is empty".into());
        }
        check_scheme(written)?;
        let Some((scheme, rest)) = written.split_once("://") else {
            return absolute(written).map(Self::Local);
        };
        let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        if scheme == "file" {
            return match path {
                Some(path) if authority.is_empty() || authority == "localhost" => match percent_decode(path) {
                    Some(path) => absolute(&format!("/{path}")).map(Self::Local),
                    None => refuse("the path is not percent-encoded UTF-8".into()),
                },
                _ => refuse("a file URL names an absolute path: file:///folder".into()),
            };
        }
        if rest.contains(['?', '#']) {
            return refuse("a destination has no query string or fragment: options are set in the environment".into());
        }
        let prefix = path.unwrap_or_default().trim_end_matches('/');
        if prefix.split('/').any(|segment| matches!(segment, "." | "..") || (segment.is_empty() && !prefix.is_empty()))
        {
            return refuse("the path has an empty, `.` or `..` segment".into());
        }
        let Some(provider) = Provider::of_scheme(scheme) else {
            return refuse(unknown(scheme));
        };
        let host_and_user_info = authority.rsplit_once('@');
        let plain = match (provider, host_and_user_info) {
            (Provider::AzureAbfss, Some((container, account))) => is_name(container) && is_name(account),
            (Provider::AzureAbfss, None) => {
                return refuse(format!("the account is missing: {SCHEMES}"));
            }
            (_, Some(_)) => {
                return refuse("a destination has no user info: credentials are set in the environment".into());
            }
            (_, None) => is_name(authority),
        };
        if !plain {
            return refuse(format!("the bucket's or container's name is missing or malformed: {SCHEMES}"));
        }
        Ok(Self::Cloud { provider, authority: authority.to_owned(), prefix: prefix.to_owned() })
    }

    /// The canonical URL: no trailing slash, so that `/path` can be appended.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Local(folder) => {
                format!("file://{}", percent_encode(&folder.to_string_lossy()).trim_end_matches('/'))
            }
            Self::Cloud { provider, authority, prefix } => {
                let slash = if prefix.is_empty() { "" } else { "/" };
                format!("{}://{authority}{slash}{prefix}", provider.scheme())
            }
        }
    }
}

/// Refuses what [`Destination::open`](super::Destination::open) would, but for settings in the environment.
///
/// # Errors
/// [`StoreFault::Configuration`].
pub(crate) fn check_address(written: &str) -> Result<(), StoreError> {
    Address::parse(written).map(drop)
}

/// The canonical URL of what a person wrote, to which `/path` can be appended; `folder` is where a relative path begins.
///
/// # Errors
/// [`StoreFault::Configuration`].
pub(crate) fn canonical_url(written: &str, folder: &Path) -> Result<String, StoreError> {
    check_scheme(written)?;
    if written.is_empty() || written.contains("://") {
        return Address::parse(written).map(|address| address.url());
    }
    Ok(Address::Local(absolute(&folder.join(written).to_string_lossy())?).url())
}

/// Refuses every scheme that is not a destination's, and a destination's scheme without its two slashes. What does not begin
/// like a URL is a path.
///
/// # Errors
/// [`StoreFault::Configuration`].
pub(crate) fn check_scheme(written: &str) -> Result<(), StoreError> {
    let Some((scheme, rest)) = scheme_of(written) else { return Ok(()) };
    let known = scheme == "file" || Provider::of_scheme(scheme).is_some();
    let why = match (known, rest.starts_with("//")) {
        (true, true) => return Ok(()),
        (true, false) => format!("a URL needs two slashes after the colon: {scheme}://"),
        (false, _) => unknown(scheme),
    };
    Err(StoreError::new("opening destination", shown(written), StoreFault::Configuration, why))
}

fn unknown(scheme: &str) -> String {
    format!("`{scheme}:` is not a kind of destination: {SCHEMES}; a folder of that name is written ./{scheme}:…")
}

/// The scheme in front of a colon and what follows it, as RFC 3986 has it. A colon behind a slash is part of a path.
fn scheme_of(written: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = written.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

/// The URL as an error may show it.
pub(crate) fn shown(written: &str) -> String {
    let Some((scheme, rest)) = written.split_once("://") else {
        // What follows a scheme alone may be anything, a password too.
        return scheme_of(written).map_or(written.to_owned(), |(scheme, _)| format!("{scheme}:…"));
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_$".contains(&byte))
}

/// Makes a path absolute. `..` is resolved through the file system as far as that exists, because `a/..` is not `.`
/// where `a` is a symlink.
fn absolute(path: &str) -> Result<PathBuf, StoreError> {
    let error = |error| StoreError::from_io("opening destination", path, error);
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(path).map_err(error)?.components() {
        if component == Component::ParentDir {
            if let Ok(real) = resolved.canonicalize() {
                resolved = real;
            }
            resolved.pop();
        } else {
            resolved.push(component);
        }
    }
    Ok(resolved)
}

/// What a file is called whose name stands at the end of a `file://` URL.
///
/// # Errors
/// [`StoreFault::Configuration`] where no file can be called so.
pub(crate) fn file_name(url: &str, encoded: &str) -> Result<String, StoreError> {
    let name = percent_decode(encoded).filter(|name| !name.contains(['/', '\0']));
    name.ok_or_else(|| {
        let why = "the file's name is not percent-encoded UTF-8, or has a slash or a NUL in it";
        StoreError::new("opening destination", shown(url), StoreFault::Configuration, why)
    })
}

/// The path that a local destination's URL names; `None` where it is elsewhere.
pub(crate) fn local_path(url: &str) -> Option<String> {
    percent_decode(url.strip_prefix("file://")?)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        rest = tail;
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

pub(super) fn percent_encode(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default().to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_canonical() {
        let here = format!("file://{}", std::env::current_dir().unwrap().display());
        for (written, url) in [
            ("/tmp/out", "file:///tmp/out"),
            ("/tmp/out/", "file:///tmp/out"),
            ("/tmp/./out/../in", "file:///tmp/in"),
            ("/", "file://"),
            ("/tmp/a b?c", "file:///tmp/a%20b%3Fc"),
            ("file:///tmp/a%20b", "file:///tmp/a%20b"),
            ("file://localhost/tmp/", "file:///tmp"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b=1/", "s3://bucket/a/b=1"),
            ("s3://bucket/a%20b", "s3://bucket/a%20b"),
            ("gs://bucket/x", "gs://bucket/x"),
            ("az://container/x", "az://container/x"),
            ("abfss://c@acc.dfs.core.windows.net/x/", "abfss://c@acc.dfs.core.windows.net/x"),
            ("./memory:x/..", here.as_str()),
            ("1:2/..", here.as_str()),
        ] {
            assert_eq!(Address::parse(written).unwrap().url(), url, "{written}");
        }
    }

    #[test]
    fn a_bare_relative_path_is_made_absolute() {
        let Address::Local(path) = Address::parse("out/x").unwrap() else { panic!("not local") };
        assert!(path.is_absolute() && path.ends_with("out/x"));
    }

    #[test]
    fn what_is_refused_and_what_is_shown_of_it() {
        for written in [
            "",
            "s3:/bucket/x",
            "s3://",
            "s3:///x",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://key:hunter2@bucket/x",
            "s3://bucket/x?secret=hunter2",
            "s3://bucket/x#hunter2",
            "ftp://host/x",
            "memory:///x",
            "memory:x",
            "S3://bucket/x",
            "postgres://user:hunter2@host/x",
            "user:hunter2@host",
            "data:text/plain;hunter2",
            "git+ssh:hunter2",
            "c:\\hunter2",
            "a b://hunter2@x/x",
            "http://hunter2@169.254.169.254/x",
            "abfss://container/x",
            "abfss://c:hunter2@acc/x",
            "file://relative/x",
            "file:///tmp/%ff",
            "file:///tmp/%4",
        ] {
            let error = Address::parse(written).unwrap_err();
            assert_eq!(error.fault, StoreFault::Configuration, "{written}");
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn percent_encoding_round_trips(path in "\\PC*") {
            proptest::prop_assert_eq!(percent_decode(&percent_encode(&path)), Some(path));
        }
    }
}
