//! AWS credentials that end and are asked for again: a program says them, or the machine's own role has them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::base::{command, failpoint};

/// A program that says credentials: a sign-in over the network takes seconds.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Credentials are renewed so long before they end, or after three quarters of their life where that is short.
const RENEWAL_MARGIN_MAX: Duration = Duration::from_mins(5);

/// Before a program that failed is run again, so that a request in each reader does not run it.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// The instance metadata service, which answers in milliseconds where there is one.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to renew the role of a machine that has given it before.
const MACHINE_TRIES: u32 = 10;

/// Bytes of a program's standard error that an error repeats.
const WORDS_MAX: usize = 300;

/// No credentials could be had. No text shows a command or its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct NoCredentials {
    pub(super) what: String,
    /// What to do, where it is known.
    pub(super) hint: Option<String>,
}

impl NoCredentials {
    fn new(what: String) -> Self {
        Self { what, hint: None }
    }
}

impl From<NoCredentials> for object_store::Error {
    fn from(error: NoCredentials) -> Self {
        Self::Generic { store: "S3", source: Box::new(error) }
    }
}

/// What prints credentials in the form that AWS calls `credential_process`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum CredentialProgram {
    /// `--aws-credential-command`.
    Given(String),
    /// `credential_process` of a profile.
    OfProfile { profile: String, line: String },
    /// The AWS CLI, for a profile that gets them by one of its keys: SSO, another role.
    Cli { profile: String, key: &'static str },
}

impl fmt::Debug for CredentialProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A command line may have a secret in it.
        f.write_str(&self.name())
    }
}

impl CredentialProgram {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Given(_) => "the AWS credential command".to_owned(),
            Self::OfProfile { profile, .. } => format!("credential_process of AWS profile {profile}"),
            Self::Cli { profile, .. } => format!("aws configure export-credentials --profile {profile}"),
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Given(line) | Self::OfProfile { line, .. } => command::shell(line),
            Self::Cli { profile, .. } => {
                let mut aws = Command::new("aws");
                aws.args(["configure", "export-credentials", "--profile", profile, "--format", "process"]);
                aws
            }
        }
    }

    /// What to do where the program is not there or fails.
    fn advice(&self) -> Option<String> {
        match self {
            Self::Cli { profile, key } if key.starts_with("sso") => {
                Some(format!("try: aws sso login --profile '{profile}'"))
            }
            _ => None,
        }
    }

    async fn ask(&self) -> Result<(AwsCredential, Option<DateTime<Utc>>), NoCredentials> {
        let failed = |why: &dyn fmt::Display| NoCredentials::new(format!("{} {why}", self.name()));
        let limit = failpoint::limit("aws_credential_command", COMMAND_TIMEOUT);
        let answer = match tokio::time::timeout(limit, command::run(self.command())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.not_run(&error)),
            Err(_) => return Err(failed(&format!("gave no answer within {} s", limit.as_secs_f64()))),
        };
        if !answer.status.success() {
            let words = first_line(&answer.stderr);
            let colon = if words.is_empty() { "" } else { ": " };
            let failed = failed(&format!("failed ({}){colon}{words}", answer.status));
            return Err(NoCredentials { hint: self.advice(), ..failed });
        }
        parse(&answer.stdout).map_err(|why| failed(&format!("printed {why}")))
    }

    fn not_run(&self, error: &std::io::Error) -> NoCredentials {
        match self {
            Self::Cli { profile, key } if error.kind() == std::io::ErrorKind::NotFound => NoCredentials {
                what: format!(
                    "AWS profile {profile} gets its credentials by {key}, for which the AWS CLI is asked, and there is no \
                     program aws in PATH"
                ),
                hint: Some(format!(
                    "install it, or give what this prints where it is: aws configure export-credentials --profile \
                     '{profile}' --format env"
                )),
            },
            _ => NoCredentials::new(format!("{} could not be run: {error}", self.name())),
        }
    }
}

/// The first line of what a program complained, without what would change a terminal.
fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut line = line.replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(WORDS_MAX));
    line
}

/// Reads `{"Version": 1, "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}`. Errors quote nothing of it.
fn parse(answer: &[u8]) -> Result<(AwsCredential, Option<DateTime<Utc>>), &'static str> {
    if answer.trim_ascii().is_empty() {
        return Err("nothing; the JSON of a credential_process is wanted");
    }
    let answer: Value =
        serde_json::from_slice(answer).map_err(|_| "no JSON; that of a credential_process is wanted")?;
    if answer.get("Version").and_then(Value::as_u64) != Some(1) {
        return Err("credentials without \"Version\": 1");
    }
    let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    // They become headers, on whose control characters the client panics.
    let one_line = |text: &String| !text.contains(char::is_control);
    let ends = match answer.get("Expiration") {
        None | Some(Value::Null) => None,
        Some(ends) => {
            let ends = ends.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            Some(ends.ok_or("an Expiration that is no time of ISO 8601")?.to_utc())
        }
    };
    let credential = AwsCredential {
        key_id: text("AccessKeyId").ok_or("no AccessKeyId")?,
        secret_key: text("SecretAccessKey").ok_or("no SecretAccessKey")?,
        token: text("SessionToken"),
    };
    let AwsCredential { key_id, secret_key, token } = &credential;
    if ![key_id, secret_key].into_iter().chain(token).all(one_line) {
        return Err("credentials with a line end or another control character in them");
    }
    Ok((credential, ends))
}

/// Credentials from a program, which is run again before they end, once at a time.
#[derive(Debug)]
pub(super) struct AskedCredentials {
    program: CredentialProgram,
    state: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    held: Option<HeldCredentials>,
    failed: Option<(Instant, NoCredentials)>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("failed", &self.failed).finish_non_exhaustive()
    }
}

struct HeldCredentials {
    credential: Arc<AwsCredential>,
    /// When they are renewed, and when they end; never where they do not end.
    times: Option<(Instant, Instant)>,
}

impl HeldCredentials {
    fn new(credential: AwsCredential, ends: Option<DateTime<Utc>>) -> Result<Self, &'static str> {
        let times = match ends {
            None => None,
            Some(ends) => {
                let life = (ends - Utc::now()).to_std().map_err(|_| "credentials that have ended")?;
                let now = Instant::now();
                let renewal = life.saturating_sub(RENEWAL_MARGIN_MAX.min(life / 4));
                now.checked_add(renewal).zip(now.checked_add(life))
            }
        };
        Ok(Self { credential: Arc::new(credential), times })
    }
}

impl AskedCredentials {
    pub(super) fn new(program: CredentialProgram) -> Self {
        Self { program, state: Mutex::default() }
    }

    async fn current(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let paused = state.failed.clone().filter(|(at, _)| now.duration_since(*at) < RENEWAL_PAUSE);
        if let Some(held) = &state.held {
            let (renew, end) = held.times.map_or((false, false), |(renewal, end)| (now >= renewal, now >= end));
            if !renew || (paused.is_some() && !end) {
                return Ok(Arc::clone(&held.credential));
            }
        }
        if let Some((_, error)) = paused {
            return Err(error);
        }
        let asked = self.program.ask().await.and_then(|(credential, ends)| {
            HeldCredentials::new(credential, ends)
                .map_err(|why| NoCredentials::new(format!("{} printed {why}", self.program.name())))
        });
        match asked {
            Ok(held) => {
                let credential = Arc::clone(&held.credential);
                *state = Asked { held: Some(held), failed: None };
                Ok(credential)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                let valid = state.held.as_ref().filter(|held| held.times.is_none_or(|(_, end)| Instant::now() < end));
                if valid.is_some() {
                    tracing::warn!(%error, "the AWS credentials could not be renewed yet");
                }
                valid.map(|held| Arc::clone(&held.credential)).ok_or(error)
            }
        }
    }
}

/// The role of the machine, by the instance metadata service.
#[derive(Debug)]
pub(super) struct MachineRole {
    role: AwsCredentialProvider,
    /// Whether nobody is to ask the service (`AWS_EC2_METADATA_DISABLED`).
    disabled: bool,
    /// What was looked at before.
    looked: String,
    given: AtomicBool,
}

impl MachineRole {
    /// `role` tries once; `looked` says where there were no credentials.
    pub(super) fn new(role: AwsCredentialProvider, disabled: bool, looked: String) -> Self {
        Self { role, disabled, looked, given: AtomicBool::new(false) }
    }

    async fn current(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        if self.disabled {
            return Err(self.none("AWS_EC2_METADATA_DISABLED is set"));
        }
        let limit = failpoint::limit("aws_machine_role", MACHINE_TIMEOUT);
        // A machine that never had a role is told so in seconds; one that had it is worth waiting for.
        let tries = if self.given.load(Ordering::Relaxed) { MACHINE_TRIES } else { 1 };
        let mut why = String::new();
        for attempt in 0..tries {
            if attempt > 0 {
                tokio::time::sleep(limit).await;
            }
            why = match tokio::time::timeout(limit, self.role.get_credential()).await {
                Ok(Ok(credential)) => {
                    self.given.store(true, Ordering::Relaxed);
                    return Ok(credential);
                }
                Ok(Err(_)) => "gave none".to_owned(),
                Err(_) => format!("did not answer within {} s", limit.as_secs_f64()),
            };
        }
        Err(self.none(&format!("the instance metadata service {why}")))
    }

    fn none(&self, why: &str) -> NoCredentials {
        NoCredentials {
            what: format!("no AWS credentials found: looked at {}, and at the machine's role ({why})", self.looked),
            hint: Some(
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --aws-credential-command"
                    .to_owned(),
            ),
        }
    }
}

type CredentialFuture<'a> = Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'a>>;

impl CredentialProvider for AskedCredentials {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> CredentialFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async { Ok(self.current().await?) })
    }
}

impl CredentialProvider for MachineRole {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> CredentialFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async { Ok(self.current().await?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> AskedCredentials {
        AskedCredentials::new(CredentialProgram::Given(line.to_owned()))
    }

    const ANSWER: &str = r#"{"Version":1,"AccessKeyId":"K","SecretAccessKey":"canary","SessionToken":"t"}"#;

    #[tokio::test]
    async fn a_program_says_credentials_once_where_they_do_not_end() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let credentials = given(&format!("echo run >> {}; echo '{ANSWER}'", runs.display()));
        for _ in 0..3 {
            let found = credentials.current().await.unwrap();
            let token = found.token.as_deref();
            assert_eq!((found.key_id.as_str(), found.secret_key.as_str(), token), ("K", "canary", Some("t")));
        }
        assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
    }

    #[tokio::test]
    async fn credentials_that_end_are_asked_for_before_and_kept_while_the_program_fails() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let line = format!(
            "n=$(cat {0} 2>/dev/null || echo 0); n=$((n+1)); echo $n > {0}; [ $n -ne 2 ] || exit 1; \
             printf '{{\"Version\":1,\"AccessKeyId\":\"K%s\",\"SecretAccessKey\":\"s\",\"Expiration\":\"%s\"}}' $n \
             $(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)",
            count.display()
        );
        let credentials = given(&line);
        assert_eq!(credentials.current().await.unwrap().key_id, "K1");
        assert_eq!(credentials.current().await.unwrap().key_id, "K1");
        let past = |state: &mut Asked| {
            let (renewal, end) = state.held.as_ref().unwrap().times.unwrap();
            assert!(renewal < end);
            state.held.as_mut().unwrap().times = Some((Instant::now(), end));
        };
        past(&mut *credentials.state.lock().await);
        assert_eq!(credentials.current().await.unwrap().key_id, "K1", "the second run fails");
        assert_eq!(credentials.current().await.unwrap().key_id, "K1");
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "2\n", "and is not repeated at once");
        credentials.state.lock().await.failed = None;
        assert_eq!(credentials.current().await.unwrap().key_id, "K3");
    }

    #[tokio::test]
    async fn a_program_that_says_nothing_usable_is_told_without_its_answer() {
        for (line, why) in [
            ("true", "printed nothing; the JSON"),
            ("echo canary", "printed no JSON"),
            (
                r#"printf %s '{"Version":1,"AccessKeyId":"a","SecretAccessKey":"b","SessionToken":"canary\n"}'"#,
                "printed credentials with a line end",
            ),
            ("echo '{\"Version\":\"canary\"}'", "printed credentials without \"Version\": 1"),
            ("echo '{\"Version\":1,\"AccessKeyId\":\"canary\"}'", "printed no SecretAccessKey"),
            (
                "echo '{\"Version\":1,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"canary\",\"Expiration\":\"x\"}'",
                "printed an Expiration that is no time",
            ),
            (
                "echo '{\"Version\":1,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"canary\",\"Expiration\":\"2020-01-01T00:00:00Z\"}'",
                "printed credentials that have ended",
            ),
            ("echo canary; echo >&2; echo no vault >&2; echo more >&2; exit 3", "failed (exit status: 3): no vault"),
            ("yes canary", "could not be run: more than 65536 bytes"),
        ] {
            let error = given(line).current().await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("the AWS credential command {why}")), "{line}: {error}");
            assert!(!error.contains("canary") && !error.contains("more\n"), "{error}");
        }
        assert!(!format!("{:?}", given("canary")).contains("canary"));
    }
}
