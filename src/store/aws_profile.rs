//! Reads the AWS profile: `~/.aws/credentials` and `~/.aws/config`, which `object_store` does not know.
//!
//! The order is that of the AWS CLI: variables with keys, a web identity, the profile of `AWS_PROFILE` or `default`, and
//! then the machine's own role. A program is asked for a profile that has one, and the AWS CLI for SSO and other roles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::aws_credentials::CredentialProgram;
use super::connect::Variables;

/// Why a profile gives no keys. No text quotes a line of a file: it may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProfileError {
    #[error(
        "no AWS credentials found: looked at AWS_ACCESS_KEY_ID and at profile {profile} in {files}, and there is no such profile"
    )]
    Unknown { profile: String, files: String, known: String },
    #[error("profile {profile} in {files} has only one of aws_access_key_id and aws_secret_access_key")]
    HalfKeys { profile: String, files: String },
    #[error(
        "no AWS credentials found: looked at AWS_ACCESS_KEY_ID and at profile {profile} in {files}, which has no keys"
    )]
    NoKeys { profile: String, files: String },
    #[error("cannot read {file}: {kind}")]
    Unreadable { file: String, kind: std::io::ErrorKind },
}

impl ProfileError {
    /// What to do.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Unknown { known, .. } => format!("name another with AWS_PROFILE; {known}"),
            Self::HalfKeys { .. } | Self::NoKeys { .. } => {
                "write both keys into the profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
            }
            Self::Unreadable { .. } => "let the user of this process read it, or name another file".to_owned(),
        }
    }
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Keys of a profile by which another service gives the credentials: the AWS CLI knows how.
const INDIRECT: [&str; 5] =
    ["role_arn", "sso_session", "sso_start_url", "web_identity_token_file", "credential_source"];

/// The variable of `--aws-credential-command`, which is read here for the commands that have no such flag.
pub(super) const CREDENTIAL_COMMAND: &str = "OUTHAUL_AWS_CREDENTIAL_COMMAND";

/// The variables with what the profile adds to them, and who gives the credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProfileFound {
    /// Keys where there were none, and a region where there was none.
    pub(super) variables: Variables,
    pub(super) giver: Giver,
}

/// Who gives the credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Giver {
    /// The variables have them, or name the service that does, or none are wanted.
    Variables,
    Program(CredentialProgram),
    /// The machine, if it has a role; and what was looked at before.
    Machine {
        looked: String,
    },
}

/// The value of a variable that is set and not empty.
fn set<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Whether a variable says yes, in one of the words that `object_store` takes.
pub(super) fn says_yes(variables: &Variables, name: &str) -> bool {
    set(variables, name)
        .is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str()))
}

/// Whether the variables say by themselves where credentials are, before any profile.
fn need_no_profile(variables: &Variables) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| set(variables, name).is_some());
    any(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
        || (any(&["AWS_WEB_IDENTITY_TOKEN_FILE"]) && any(&["AWS_ROLE_ARN"]))
        || says_yes(variables, "AWS_SKIP_SIGNATURE")
}

/// The service of a container that gives credentials.
fn has_container(variables: &Variables) -> bool {
    let has = |name| set(variables, name).is_some();
    has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || (has("AWS_CONTAINER_CREDENTIALS_FULL_URI") && has("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
}

/// Looks for credentials and region in the variables and in the profile.
pub(super) fn find(variables: &Variables) -> Result<ProfileFound, ProfileError> {
    let set = |name: &str| set(variables, name);
    let mut found = variables.clone();
    // The order of botocore, and with it of the AWS CLI.
    let asked = set("AWS_DEFAULT_PROFILE").or_else(|| set("AWS_PROFILE"));
    let profile = asked.unwrap_or("default");
    let home = set("HOME").map(PathBuf::from);
    let place = |name: &str, file: &str| match set(name) {
        Some(path) => Some(match (path.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }),
        None => Some(home.as_ref()?.join(".aws").join(file)),
    };
    let paths = [place("AWS_SHARED_CREDENTIALS_FILE", "credentials"), place("AWS_CONFIG_FILE", "config")];
    let line = set(CREDENTIAL_COMMAND);
    let needs_keys = line.is_none() && !need_no_profile(variables);
    let of_file = read_files(&paths, needs_keys)?;
    let settings: Vec<_> = of_file.iter().filter_map(|sections| sections.get(profile)).collect();
    let setting = |key: &str| settings.iter().find_map(|section| section.get(key)).filter(|value| !value.is_empty());
    if let (None, None, Some(region)) = (set("AWS_REGION"), set("AWS_DEFAULT_REGION"), setting("region")) {
        found.insert("AWS_REGION".to_owned(), region.clone());
    }
    let giver = match line {
        Some(line) => Giver::Program(CredentialProgram::Given(line.to_owned())),
        None if !needs_keys => Giver::Variables,
        None => {
            let chosen = Chosen { profile, asked: asked.is_some(), files: shown(&paths), known: &of_file, settings };
            let giver = chosen.giver(&mut found)?;
            if matches!(giver, Giver::Machine { .. }) && has_container(variables) { Giver::Variables } else { giver }
        }
    };
    Ok(ProfileFound { variables: found, giver })
}

/// The files as an error names them.
fn shown(paths: &[Option<PathBuf>; 2]) -> String {
    let files: Vec<String> = paths.iter().flatten().map(|path| path.display().to_string()).collect();
    if files.is_empty() { "no file (HOME is not set)".to_owned() } else { files.join(" and ") }
}

/// The profile that counts, and what the files say of it.
struct Chosen<'a> {
    profile: &'a str,
    /// Whether a variable names it.
    asked: bool,
    files: String,
    known: &'a [Sections],
    settings: Vec<&'a BTreeMap<String, String>>,
}

impl Chosen<'_> {
    fn giver(self, found: &mut Variables) -> Result<Giver, ProfileError> {
        let profile = || self.profile.to_owned();
        let setting =
            |key: &str| self.settings.iter().find_map(|section| section.get(key)).filter(|value| !value.is_empty());
        if self.settings.is_empty() {
            return self.absent();
        }
        // A role comes before keys, which are those that it is taken with.
        if setting("role_arn").is_some() {
            return Ok(Giver::Program(CredentialProgram::Cli { profile: profile(), key: "role_arn" }));
        }
        // Both keys come from one file: half a pair of each would be nobody's credentials.
        if let Some(section) = self.settings.iter().find(|section| section.contains_key("aws_access_key_id")) {
            let taken = take_keys(section, found);
            return taken
                .then_some(Giver::Variables)
                .ok_or_else(|| ProfileError::HalfKeys { profile: profile(), files: self.files.clone() });
        }
        if let Some(line) = setting("credential_process") {
            let line = line.clone();
            return Ok(Giver::Program(CredentialProgram::OfProfile { profile: profile(), line }));
        }
        match INDIRECT.into_iter().find(|key| setting(key).is_some()) {
            Some(key) => Ok(Giver::Program(CredentialProgram::Cli { profile: profile(), key })),
            None if self.asked => Err(ProfileError::NoKeys { profile: profile(), files: self.files }),
            // A `default` with a region only: the machine's own role is next.
            None => Ok(self.machine("which has no keys")),
        }
    }

    fn absent(self) -> Result<Giver, ProfileError> {
        if !self.asked {
            return Ok(self.machine("not there"));
        }
        let known: BTreeSet<&str> = self.known.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {known}") };
        Err(ProfileError::Unknown { profile: self.profile.to_owned(), files: self.files, known })
    }

    fn machine(self, why: &str) -> Giver {
        let looked = format!("AWS_ACCESS_KEY_ID, at profile {} in {} ({why})", self.profile, self.files);
        Giver::Machine { looked }
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
        source_profile = dev\n[profile tool]\ncredential_process = /bin/tool --for \"a b\"\n[profile bare]\nregion = x\n[sso-session corp]\nsso_start_url = u\n";

    fn read(variables: &[(&str, &str)]) -> Result<ProfileFound, ProfileError> {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("credentials"), CREDENTIALS).unwrap();
        std::fs::write(folder.join("config"), CONFIG).unwrap();
        let mut all: Variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        all.entry("HOME".to_owned()).or_insert_with(|| home.path().to_str().unwrap().to_owned());
        find(&all)
    }

    #[test]
    fn keys_and_region_come_from_the_variables_then_from_the_profile() {
        let dev = ("AWS_PROFILE", "dev");
        let own = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e")];
        let web = ("AWS_WEB_IDENTITY_TOKEN_FILE", "f");
        let cases: [(&[Pair], [Option<&str>; 4]); 14] = [
            (&[], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[dev], [Some("V"), Some("canary=v/+"), Some("canary-t"), Some("us-west-2")]),
            (&[dev, own[0], own[1]], [Some("E"), Some("e"), None, Some("us-west-2")]),
            (&[("AWS_SESSION_TOKEN", "other")], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[dev, ("AWS_DEFAULT_REGION", "r")], [Some("V"), Some("canary=v/+"), Some("canary-t"), None]),
            (&[web, ("AWS_ROLE_ARN", "r")], [None, None, None, Some("eu-west-1")]),
            (&[web], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[("AWS_SKIP_SIGNATURE", "true")], [None, None, None, Some("eu-west-1")]),
            (&[("AWS_SKIP_SIGNATURE", "false")], [Some("D"), Some("canary-d"), None, Some("eu-west-1")]),
            (&[(CREDENTIAL_COMMAND, "c")], [None, None, None, Some("eu-west-1")]),
            (
                &[("AWS_DEFAULT_PROFILE", "dev"), ("AWS_PROFILE", "half")],
                [Some("V"), Some("canary=v/+"), Some("canary-t"), Some("us-west-2")],
            ),
            (&[("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/other")], [None, None, None, Some("eu-west-1")]),
            (&[("AWS_CONFIG_FILE", "~/.aws/credentials")], [Some("D"), Some("canary-d"), None, None]),
            (&[("HOME", "")], [None; 4]),
        ];
        for (variables, expected) in cases {
            let found = read(variables).unwrap().variables;
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"];
            assert_eq!(names.map(|name| found.get(name).map(String::as_str)), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_profile_without_keys_is_refused_by_name_and_no_secret_is_told() {
        let cases = [
            (
                "prod",
                "there is no such profile; name another with AWS_PROFILE; there are: bare, default, dev, half, role, sso, tool",
            ),
            ("half", "has only one of"),
            ("half2", "no such profile"),
            ("bare", "which has no keys"),
        ];
        for (profile, expected) in cases {
            let error = read(&[("AWS_PROFILE", profile)]).unwrap_err();
            let error = format!("{error}; {}", error.hint());
            assert!(error.contains(expected) && error.contains(profile), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let error = read(&[("AWS_PROFILE", "x"), ("HOME", "")]).unwrap_err().to_string();
        assert!(error.contains("no file (HOME is not set), and there is no such profile"), "{error}");
    }

    #[test]
    fn who_gives_the_credentials() {
        let cli = |profile: &str, key| CredentialProgram::Cli { profile: profile.to_owned(), key };
        let tool = CredentialProgram::OfProfile { profile: "tool".into(), line: "/bin/tool --for \"a b\"".into() };
        let cases: [(&[Pair], Giver); 6] = [
            (&[("AWS_PROFILE", "sso")], Giver::Program(cli("sso", "sso_session"))),
            (&[("AWS_PROFILE", "role")], Giver::Program(cli("role", "role_arn"))),
            (&[("AWS_PROFILE", "tool")], Giver::Program(tool)),
            (
                &[("AWS_PROFILE", "sso"), (CREDENTIAL_COMMAND, "c")],
                Giver::Program(CredentialProgram::Given("c".into())),
            ),
            (&[], Giver::Variables),
            (&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"), ("HOME", "")], Giver::Variables),
        ];
        for (variables, expected) in cases {
            assert_eq!(read(variables).unwrap().giver, expected, "{variables:?}");
        }
        let nothing = read(&[("HOME", "/nowhere")]).unwrap().giver;
        let looked =
            "AWS_ACCESS_KEY_ID, at profile default in /nowhere/.aws/credentials and /nowhere/.aws/config (not there)";
        assert_eq!(nothing, Giver::Machine { looked: looked.to_owned() });
    }
}
