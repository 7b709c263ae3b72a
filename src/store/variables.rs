//! Checks what the environment and a profile say of a store, before a client is made of it: the client panics on a request
//! whose URL or headers cannot be, or takes it for a store that does not answer.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;

use super::address::Provider;
use super::aws_profile::says_yes;
use super::connect::{Variables, is_loopback, is_plain};
use super::error::{StoreError, StoreFault};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariableForm {
    /// The store's own URL.
    Endpoint,
    /// A URL of another service.
    Url,
    /// A piece of a host's name.
    Region,
    /// One line, which may become part of a header.
    Line,
    /// Several lines: a certificate, or the JSON of a key.
    Lines,
}

/// Refuses a variable of a provider that no request could be made of.
///
/// # Errors
/// [`StoreFault::Configuration`], with the variable's name. Nothing is quoted that may be a secret.
pub(super) fn check(provider: Provider, url: &str, variables: &Variables) -> Result<(), StoreError> {
    let refused = |why: String, hint: String| {
        Err(StoreError::new("opening destination", url, StoreFault::Configuration, why).with_hint(hint))
    };
    let prefix = prefix(provider);
    for (name, value) in variables {
        let Some(form) = form(provider, name) else { continue };
        if matches!(form, VariableForm::Endpoint | VariableForm::Url) && !is_url(value) {
            return refused(format!("{name} is no URL of http or https with a host"), written(value));
        }
        if form == VariableForm::Endpoint
            && is_plain(value)
            && !is_loopback(value)
            && !says_yes(variables, &allows(prefix))
        {
            let hint = format!(
                "write https://, or set {} to true where nobody can read or change what is sent",
                allows(prefix)
            );
            return refused(format!("{name} is plain HTTP to another machine"), hint);
        }
        if form != VariableForm::Lines && value.contains(char::is_control) {
            let what = format!("{name} has a line end or another control character in it");
            return refused(what, "set it again without: a shell leaves out the line end of $(cat FILE)".to_owned());
        }
        if form == VariableForm::Region && !value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return refused(format!("{name} is no name of a region"), "write one such as eu-central-1".to_owned());
        }
    }
    if provider == Provider::Gcs
        && let Some(base) = base_url_of_key(variables)
        && !is_url(&base)
    {
        let why = "gcs_base_url in the service account's key is no URL of http or https with a host";
        return refused(why.to_owned(), written(&base));
    }
    Ok(())
}

fn prefix(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => "AWS_",
        Provider::Gcs => "GOOGLE_",
        Provider::Azure | Provider::AzureAbfss => "AZURE_",
    }
}

/// The variable that allows plain HTTP.
fn allows(prefix: &str) -> String {
    format!("{prefix}ALLOW_HTTP")
}

/// What the variable of a provider must be; `None` where its client does not know it.
fn form(provider: Provider, name: &str) -> Option<VariableForm> {
    use AmazonS3ConfigKey as S3;
    use AzureConfigKey as Azure;
    fn key<K: FromStr>(name: &str, prefix: &str) -> Option<K> {
        name.starts_with(prefix).then(|| name.to_ascii_lowercase().parse().ok()).flatten()
    }
    let prefix = prefix(provider);
    let client = |key: ClientConfigKey| {
        if key == ClientConfigKey::ProxyCaCertificate { VariableForm::Lines } else { VariableForm::Line }
    };
    let of_client = || name.strip_prefix(prefix)?.to_ascii_lowercase().parse().ok().map(client);
    match provider {
        Provider::S3 => key(name, prefix).map(|key| match key {
            S3::Endpoint | S3::S3Endpoint => VariableForm::Endpoint,
            S3::StsEndpoint | S3::MetadataEndpoint | S3::ContainerCredentialsFullUri => VariableForm::Url,
            S3::Region | S3::DefaultRegion => VariableForm::Region,
            S3::Client(key) => client(key),
            _ => VariableForm::Line,
        }),
        Provider::Gcs => match name {
            "SERVICE_ACCOUNT" => Some(VariableForm::Line),
            _ => key(name, prefix).map(|key| match key {
                // Its client may use plain HTTP by itself, by which the machine gives out tokens.
                GoogleConfigKey::BaseUrl => VariableForm::Url,
                GoogleConfigKey::ServiceAccountKey => VariableForm::Lines,
                GoogleConfigKey::Client(key) => client(key),
                _ => VariableForm::Line,
            }),
        },
        Provider::Azure | Provider::AzureAbfss => match name {
            "MSI_ENDPOINT" => Some(VariableForm::Url),
            _ => key(name, prefix).map(|key| match key {
                Azure::Endpoint => VariableForm::Endpoint,
                Azure::MsiEndpoint
                | Azure::AuthorityHost
                | Azure::FabricTokenServiceUrl
                | Azure::FabricWorkloadHost => VariableForm::Url,
                Azure::Client(key) => client(key),
                _ => VariableForm::Line,
            }),
        },
    }
    .or_else(of_client)
}

/// Whether a request can be made of it, by the rules of all who read it: some take `http:/h` and leading blanks, others a
/// port past 65,535.
fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let port = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    let port = port.rsplit_once(']').map_or(port, |(_, port)| port).split_once(':').map(|(_, port)| port);
    matches!(uri.scheme_str(), Some("http" | "https"))
        && is_host(authority.host())
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok();
    }
    let letters = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    // A name that ends in a number is an address, or nothing.
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    !last.is_empty() && letters(host) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// What to write instead. A value with user info may have a password in it.
fn written(value: &str) -> String {
    let bare = value.trim().trim_start_matches("http:").trim_start_matches("https:").trim_start_matches('/');
    let whole = format!("http://{bare}");
    if is_url(&whole) && !bare.contains(['@', '?']) {
        format!("write {whole}, or https://")
    } else {
        "write http:// or https://, the host, and where it has one a port: http://minio:9000".to_owned()
    }
}

/// Where the key of a service account says that the store is.
fn base_url_of_key(variables: &Variables) -> Option<String> {
    let of = |names: &[&str]| names.iter().find_map(|name| variables.get(*name)).cloned();
    let file = of(&["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT"]);
    let text = match file {
        Some(file) => std::fs::read_to_string(file).ok(),
        None => of(&["GOOGLE_SERVICE_ACCOUNT_KEY"]),
    };
    let key: serde_json::Value = serde_json::from_str(&text?).ok()?;
    key.get("gcs_base_url")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(provider: Provider, variables: &[(&str, &str)]) -> Option<(String, String)> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = check(provider, "u", &variables).err()?;
        assert_eq!(error.fault, StoreFault::Configuration);
        Some((error.to_string(), error.hint.unwrap_or_default().into()))
    }

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        for (name, provider) in [
            ("AWS_ENDPOINT_URL", Provider::S3),
            ("AWS_ENDPOINT", Provider::S3),
            ("AWS_ENDPOINT_URL_S3", Provider::S3),
            ("AWS_ENDPOINT_URL_STS", Provider::S3),
            ("AZURE_ENDPOINT", Provider::Azure),
            ("AZURE_STORAGE_ENDPOINT", Provider::AzureAbfss),
            ("MSI_ENDPOINT", Provider::Azure),
            ("GOOGLE_BASE_URL", Provider::Gcs),
        ] {
            for (value, instead) in [
                ("minio:9000", "write http://minio:9000, or"),
                ("localhost:9000", "write http://localhost:9000, or"),
                ("minio", "write http://minio, or"),
                ("http://", "http://minio:9000"),
                ("http:/h", "write http://h, or"),
                ("http://h:99999", "http://minio:9000"),
                ("http://h:x", "http://minio:9000"),
                ("http://:9000", "http://minio:9000"),
                ("http://10.0.0.256:9000", "http://minio:9000"),
                ("http://h%20:9000", "http://minio:9000"),
                ("http://[::x]:9000", "http://minio:9000"),
                ("//h", "write http://h, or"),
                (" http://h", "write http://h, or"),
                ("ftp://h", "http://minio:9000"),
                ("http://h\n", "write http://h, or"),
                ("http://h h", "http://minio:9000"),
                ("u:canary@h", "http://minio:9000"),
            ] {
                let (what, hint) = told(provider, &[(name, value)]).unwrap_or_else(|| panic!("{name} {value:?}"));
                assert!(
                    what.contains(&format!("{name} is no URL")) && hint.contains(instead),
                    "{value:?}: {what} {hint}"
                );
                assert!(!what.contains("canary") && !hint.contains("canary"), "{what} {hint}");
            }
            for value in [
                "https://h",
                "https://h:9000/",
                "https://h_1.example./path",
                "http://127.0.0.1:9000",
                "http://[::1]:9000/x",
            ] {
                assert_eq!(told(provider, &[(name, value)]), None, "{name} {value}");
            }
        }
    }

    #[test]
    fn plain_http_elsewhere_needs_a_permission() {
        let far = "http://minio:9000";
        for (provider, name, allow) in [
            (Provider::S3, "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
            (Provider::Azure, "AZURE_ENDPOINT", "AZURE_ALLOW_HTTP"),
        ] {
            let (what, hint) = told(provider, &[(name, far)]).unwrap();
            assert!(what.contains("is plain HTTP") && hint.contains(allow), "{what} {hint}");
            assert!(told(provider, &[(name, far), (allow, "false")]).is_some());
            assert_eq!(told(provider, &[(name, far), (allow, "true")]), None);
        }
        assert_eq!(told(Provider::S3, &[("AWS_METADATA_ENDPOINT", "http://169.254.169.254")]), None);
    }

    #[test]
    fn what_may_become_a_header_has_no_control_character() {
        for (provider, name) in [
            (Provider::S3, "AWS_ACCESS_KEY_ID"),
            (Provider::S3, "AWS_SECRET_ACCESS_KEY"),
            (Provider::S3, "AWS_SESSION_TOKEN"),
            (Provider::S3, "AWS_REGION"),
            (Provider::S3, "AWS_SSE_KMS_KEY_ID"),
            (Provider::S3, "AWS_USER_AGENT"),
            (Provider::Azure, "AZURE_STORAGE_ACCOUNT_NAME"),
            (Provider::Azure, "AZURE_STORAGE_TOKEN"),
        ] {
            for end in ["\n", "\r", "\r\n", "\u{1}", "\u{7f}"] {
                let (what, _) = told(provider, &[(name, &format!("canary{end}"))]).unwrap_or_else(|| panic!("{name}"));
                assert!(what.contains(&format!("{name} has a line end")) && !what.contains("canary"), "{what}");
            }
            assert_eq!(told(provider, &[(name, "x")]), None);
        }
        let (what, _) = told(Provider::S3, &[("AWS_REGION", "us east")]).unwrap();
        assert!(what.contains("AWS_REGION is no name of a region"), "{what}");
        for lines in [("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}"), ("GOOGLE_PROXY_CA_CERTIFICATE", "-\n-"), ("PATH", "\n")] {
            assert_eq!(told(Provider::Gcs, &[lines]), None);
        }
    }

    #[test]
    fn the_key_of_a_service_account_names_a_url() {
        for (base, right) in [("localhost:4443", false), ("http://localhost:4443", true)] {
            let key = format!("{{\"gcs_base_url\": \"{base}\"}}");
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &key).unwrap();
            let path = file.path().to_str().unwrap();
            for variable in [("GOOGLE_SERVICE_ACCOUNT_KEY", key.as_str()), ("GOOGLE_SERVICE_ACCOUNT", path)] {
                assert_eq!(told(Provider::Gcs, &[variable]).is_none(), right, "{base}");
            }
        }
    }
}
