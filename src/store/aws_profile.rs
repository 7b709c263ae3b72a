//! Reads the AWS profile: `~/.aws/credentials` and `~/.aws/config`, which `object_store` does not know.
//!
//! The order is that of the AWS CLI: variables with keys, a web identity, the profile of `AWS_PROFILE` or `default`, and
//! then the machine's own role. A profile that needs SSO, another role or a program is refused with the line to type.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::connect::Variables;

/// Why a profile gives no keys. No text quotes a line of a file: it may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProfileError {
    #[error(
        "no AWS credentials found: looked at AWS_ACCESS_KEY_ID and at profile {profile} in {files} (no such profile; {known})"
    )]
    Unknown { profile: String, files: String, known: String },
    #[error("profile {profile} in {files} has only one of aws_access_key_id and aws_secret_access_key")]
    HalfKeys { profile: String, files: String },
    #[error(
        "no AWS credentials found: looked at AWS_ACCESS_KEY_ID and at profile {profile} in {files}, which has no keys"
    )]
    NoKeys { profile: String, files: String },
    #[error(
        "profile {profile} gets its credentials by {key}, which is not read here; first type: \
         eval \"$(aws configure export-credentials --profile '{profile}' --format env)\""
    )]
    Indirect { profile: String, key: &'static str },
    #[error("reading {file}: {kind}")]
    Unreadable { file: String, kind: std::io::ErrorKind },
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Keys of a profile by which another program or service gives the credentials.
const INDIRECT: [&str; 6] =
    ["role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file", "credential_source"];

/// The variables, and what the profile adds to them: keys where they have none, a region where they have none.
pub(super) fn with_profile(variables: &Variables) -> Result<Variables, ProfileError> {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let mut found = variables.clone();
    let asked = set("AWS_PROFILE").or_else(|| set("AWS_DEFAULT_PROFILE"));
    let profile = asked.map_or("default", String::as_str);
    let place = |name: &str, file: &str| {
        set(name).map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".aws").join(file)))
    };
    let paths = [place("AWS_SHARED_CREDENTIALS_FILE", "credentials"), place("AWS_CONFIG_FILE", "config")];
    let files: Vec<String> = paths.iter().flatten().map(|path| path.display().to_string()).collect();
    let files = if files.is_empty() { "no file (HOME is not set)".to_owned() } else { files.join(" and ") };
    let needs_keys =
        !["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"]
            .iter()
            .any(|name| set(name).is_some());
    let of_file = read_files(&paths, needs_keys)?;
    let settings: Vec<_> = of_file.iter().filter_map(|sections| sections.get(profile)).collect();
    let setting = |key: &str| settings.iter().find_map(|section| section.get(key)).filter(|value| !value.is_empty());
    if let (None, None, Some(region)) = (set("AWS_REGION"), set("AWS_DEFAULT_REGION"), setting("region")) {
        found.insert("AWS_REGION".to_owned(), region.clone());
    }
    if !needs_keys {
        return Ok(found);
    }
    let profile_name = || profile.to_owned();
    if settings.is_empty() {
        let known: std::collections::BTreeSet<&str> =
            of_file.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {known}") };
        return match asked {
            Some(_) => Err(ProfileError::Unknown { profile: profile_name(), files, known }),
            None => Ok(found),
        };
    }
    if let Some(key) = Some("role_arn").filter(|key| setting(key).is_some()) {
        return Err(ProfileError::Indirect { profile: profile_name(), key });
    }
    // Both keys come from one file: half a pair of each would be nobody's credentials.
    if let Some(section) = settings.iter().find(|section| section.contains_key("aws_access_key_id")) {
        return take_keys(section, &mut found)
            .then_some(found)
            .ok_or_else(|| ProfileError::HalfKeys { profile: profile_name(), files });
    }
    match (INDIRECT.into_iter().find(|key| setting(key).is_some()), asked) {
        (Some(key), _) => Err(ProfileError::Indirect { profile: profile_name(), key }),
        (None, Some(_)) => Err(ProfileError::NoKeys { profile: profile_name(), files }),
        // A `default` with a region only: the machine's own role is next.
        (None, None) => Ok(found),
    }
}

/// Moves the keys of a profile into the variables; false where it has only one of them.
fn take_keys(section: &BTreeMap<String, String>, found: &mut Variables) -> bool {
    let (Some(id), Some(secret)) = (section.get("aws_access_key_id"), section.get("aws_secret_access_key")) else {
        return false;
    };
    // A token of the environment belongs to other keys.
    found.retain(|name, _| !["AWS_SESSION_TOKEN", "AWS_TOKEN"].contains(&name.as_str()));
    found.insert("AWS_ACCESS_KEY_ID".to_owned(), id.clone());
    found.insert("AWS_SECRET_ACCESS_KEY".to_owned(), secret.clone());
    if let Some(token) = section.get("aws_session_token") {
        found.insert("AWS_SESSION_TOKEN".to_owned(), token.clone());
    }
    true
}

/// The profiles of the credentials file and of the config file; no file has none.
fn read_files(paths: &[Option<PathBuf>; 2], needs_keys: bool) -> Result<Vec<Sections>, ProfileError> {
    let mut of_file = Vec::new();
    for (path, is_config) in paths.iter().zip([false, true]) {
        let Some(path) = path else { continue };
        match std::fs::read_to_string(path) {
            Ok(text) => of_file.push(sections(&text, is_config)),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && needs_keys => {
                return Err(ProfileError::Unreadable { file: path.display().to_string(), kind: error.kind() });
            }
            Err(_) => {}
        }
    }
    Ok(of_file)
}

/// The profiles of a file. The config file writes `[profile x]`, but `[default]`; the credentials file writes `[x]`.
fn sections(text: &str, is_config: bool) -> Sections {
    let mut sections = Sections::new();
    let mut current = None;
    for line in text.trim_start_matches('\u{feff}').lines() {
        // An indented line belongs to a nested setting (`s3 =`), which holds nothing that is read here.
        if line.starts_with([' ', '\t', '#', ';']) || line.trim().is_empty() {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or_default().trim();
            let of_config = name.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim);
            let name = if is_config { of_config.or((name == "default").then_some(name)) } else { Some(name) };
            current = name.map(|name| name.trim_matches(['"', '\'']).to_owned());
            if let Some(name) = &current {
                sections.entry(name.clone()).or_default();
            }
        } else if let (Some(name), Some((key, value))) = (&current, line.split_once('=')) {
            let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default().trim();
            sections.entry(name.clone()).or_default().insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (&'static str, &'static str);

    const CREDENTIALS: &str = "# a comment\n[default]\naws_access_key_id = D\naws_secret_access_key=canary-d\n\n\
        [ dev ]\nAWS_ACCESS_KEY_ID=V\naws_secret_access_key = canary=v/+ # why\naws_session_token = canary-t\n\
        [half]\naws_access_key_id = H\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile dev]\nregion=us-west-2\ns3 =\n  region = x\n\
        [half2]\naws_access_key_id = N\n[profile sso]\nsso_session = corp\n[profile role]\nrole_arn = a\n\
        source_profile = dev\n[profile bare]\nregion = x\n[sso-session corp]\nsso_start_url = u\n";

    fn read(variables: &[(&str, &str)]) -> Result<Variables, ProfileError> {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("credentials"), CREDENTIALS).unwrap();
        std::fs::write(folder.join("config"), CONFIG).unwrap();
        let mut all: Variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        all.entry("HOME".to_owned()).or_insert_with(|| home.path().to_str().unwrap().to_owned());
        with_profile(&all)
    }

    #[test]
    fn keys_and_region_come_from_the_variables_then_from_the_profile() {
        let dev = ("AWS_PROFILE", "dev");
        let own = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e")];
        let cases: [(&[Pair], [Option<&str>; 4]); 7] = [
            (&[], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[dev], [Some("V"), Some("canary=v/+"), Some("canary-t"), Some("us-west-2")]),
            (&[dev, own[0], own[1]], [Some("E"), Some("e"), None, Some("us-west-2")]),
            (&[("AWS_SESSION_TOKEN", "other")], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[dev, ("AWS_DEFAULT_REGION", "r")], [Some("V"), Some("canary=v/+"), Some("canary-t"), None]),
            (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "f")], [None, None, None, Some("eu-west-1")]),
            (&[("HOME", "")], [None; 4]),
        ];
        for (variables, expected) in cases {
            let found = read(variables).unwrap();
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"];
            assert_eq!(names.map(|name| found.get(name).map(String::as_str)), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_profile_without_keys_is_refused_by_name_and_no_secret_is_told() {
        let cases = [
            ("prod", "(no such profile; there are: bare, default, dev, half, role, sso)"),
            ("half", "has only one of"),
            ("half2", "no such profile"),
            ("bare", "which has no keys"),
            ("sso", "by sso_session, which is not read here; first type: eval \"$(aws configure export-credentials"),
            ("role", "by role_arn, which is not read here"),
        ];
        for (profile, expected) in cases {
            let error = read(&[("AWS_PROFILE", profile)]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(profile), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let error = read(&[("AWS_PROFILE", "x"), ("HOME", "")]).unwrap_err().to_string();
        assert!(error.contains("no file (HOME is not set) (no such profile; there is none)"), "{error}");
    }
}
