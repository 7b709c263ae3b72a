//! Who gives the credentials of a destination, in words: where several could, a person wants to know who did.

use std::ffi::OsString;

use super::address::{Address, Provider};
use super::aws_profile::{CREDENTIAL_COMMAND, Giver, ProfileFound, find, says_yes};
use super::connect::Variables;
use crate::model::CredentialCommand;

/// The environment, but for what is not UTF-8.
pub(super) fn variables() -> Variables {
    let readable = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(readable).collect()
}

/// Who gives them; `None` where none are needed, or where an error will say that nobody does.
pub(crate) fn credentials_by(url: &str, command: Option<&CredentialCommand>) -> Option<String> {
    let mut variables = variables();
    if let Some(command) = command {
        variables.insert(CREDENTIAL_COMMAND.to_owned(), command.expose().to_owned());
    }
    let Address::Cloud { provider, .. } = Address::parse(url).ok()? else { return None };
    match provider {
        Provider::S3 => of_aws(&variables),
        Provider::Gcs => first_of(&variables, &GOOGLE).or(Some("the machine's own account".to_owned())),
        Provider::Azure | Provider::AzureAbfss => {
            first_of(&variables, &AZURE).or(Some("the machine's own identity".to_owned()))
        }
    }
}

/// Variables of Google in the order in which the client looks.
const GOOGLE: [&str; 5] = [
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Those of Azure.
const AZURE: [&str; 8] = [
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
];

fn set(variables: &Variables, name: &str) -> bool {
    variables.get(name).is_some_and(|value| !value.is_empty())
}

fn first_of(variables: &Variables, names: &[&str]) -> Option<String> {
    names.iter().find(|name| set(variables, name)).map(|name| (*name).to_owned())
}

fn of_aws(variables: &Variables) -> Option<String> {
    let ProfileFound { giver, .. } = find(variables).ok()?;
    Some(match giver {
        Giver::Program(program) => program.name(),
        Giver::Machine { .. } => "the role of the machine".to_owned(),
        Giver::Variables if says_yes(variables, "AWS_SKIP_SIGNATURE") => "nobody: AWS_SKIP_SIGNATURE is set".to_owned(),
        Giver::Variables if set(variables, "AWS_ACCESS_KEY_ID") => "AWS_ACCESS_KEY_ID".to_owned(),
        Giver::Variables if set(variables, "AWS_WEB_IDENTITY_TOKEN_FILE") && set(variables, "AWS_ROLE_ARN") => {
            "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE, for the role of AWS_ROLE_ARN".to_owned()
        }
        Giver::Variables => {
            let container = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
            let profile = ["AWS_DEFAULT_PROFILE", "AWS_PROFILE"];
            let named = profile.iter().find_map(|name| variables.get(*name)).filter(|name| !name.is_empty());
            match (first_of(variables, &container), named) {
                (_, Some(name)) => format!("profile {name}"),
                (Some(_), None) => "the service of the container".to_owned(),
                (None, None) => "profile default".to_owned(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_has_credentials_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(
            &file,
            "[default]\naws_access_key_id = a\naws_secret_access_key = canary\n[made]\ncredential_process = canary\n\
             [other]\nrole_arn = arn:canary\n[plain]\naws_access_key_id = a\naws_secret_access_key = canary\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let files = [("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_CONFIG_FILE", "/nowhere/config")];
        for (more, words) in [
            (&[][..], "profile default"),
            (&[("AWS_PROFILE", "plain")], "profile plain"),
            (&[("AWS_PROFILE", "made")], "credential_process of AWS profile made"),
            (&[("AWS_PROFILE", "other")], "aws configure export-credentials --profile other"),
            (&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "canary")], "AWS_ACCESS_KEY_ID"),
            (
                &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")],
                "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE, for the role of AWS_ROLE_ARN",
            ),
            (&[("AWS_ACCESS_KEY_ID", "a"), (CREDENTIAL_COMMAND, "canary")], "the AWS credential command"),
            (&[("AWS_SKIP_SIGNATURE", "true")], "nobody: AWS_SKIP_SIGNATURE is set"),
            (&[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")], "the role of the machine"),
        ] {
            let all = files.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            assert_eq!(of_aws(&all.collect()).as_deref(), Some(words));
        }
        assert_eq!(credentials_by("/tmp/x", None), None);
    }
}
