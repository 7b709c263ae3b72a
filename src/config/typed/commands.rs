//! The settings of the commands that take few of an export's options.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::base::postgres::settings::ConnectSettings;
use crate::base::telemetry::LogFormat;
use crate::config::front::{ColorKind, FrontOptions};
use crate::config::options::{Given, Heading, OPTIONS, of_connection, of_keep, of_resume, of_worker};
use crate::config::raw::{Raw, default_of};
use crate::config::{ConfigError, ConfigErrors, Environment, connection, contradictions, protect, value};
use crate::export::outside::Outside;
use crate::model::{CredentialCommand, ProtectKeyPlace, StdinRule};
use crate::source::Source;

/// Where the rows are, for a command that takes no other option of an export. `flags` as for [`super::load`].
///
/// # Errors
/// All mistakes at once.
pub(crate) fn load_connection(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<Arc<dyn Source>, ConfigErrors> {
    let mut settings = Settings::read(flags, environment, of_connection());
    let source = settings.source.take();
    settings.end(source)
}

/// The same, of what was read already.
///
/// # Errors
/// All mistakes at once, with those of `errors`.
pub(in crate::config) fn source_of(
    raw: Raw,
    errors: Vec<ConfigError>,
    environment: &Environment,
) -> Result<Arc<dyn Source>, ConfigErrors> {
    let mut settings = Settings::of(raw, errors, environment, of_connection());
    let source = settings.source.take();
    settings.end(source)
}

/// How to connect to a server that is no source, or all mistakes at once. `flags` as for [`super::load`].
pub(crate) fn load_settings(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<ConnectSettings, ConfigErrors> {
    let (raw, mut errors) = Raw::read(flags, environment);
    let settings = connection::settings(&raw, environment).map_err(|mistakes| errors.extend(mistakes)).ok();
    settings.filter(|_| errors.is_empty()).ok_or(ConfigErrors(errors))
}

/// What `keep` takes besides its destination: how to connect, and how long a session may wait for its locks. `flags` as
/// for [`super::load`].
///
/// # Errors
/// All mistakes at once.
pub(crate) fn load_keep(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<(Arc<dyn Source>, Option<Duration>), ConfigErrors> {
    let mut settings = Settings::read(flags, environment, of_keep());
    let keep = settings.source.take().zip(settings.given.yield_to_ddl);
    settings.end(keep)
}

/// What is resumed otherwise than it was begun, or is in no record of it.
pub(crate) struct Resumption {
    /// Readers, where they are given.
    pub(crate) readers: Option<NonZeroUsize>,
    /// Who says credentials for AWS, where a command does.
    pub(crate) aws_credential_command: Option<CredentialCommand>,
    /// That other processes read.
    pub(crate) external: Option<Outside>,
    /// Where the key of hashes is.
    pub(crate) protect_key: ProtectKeyPlace,
}

/// What `worker` takes besides its place in the run.
pub(crate) struct WorkerOptions {
    /// Where the rows are.
    pub(crate) source: Arc<dyn Source>,
    /// Who says credentials for AWS, where a command does.
    pub(crate) aws_credential_command: Option<CredentialCommand>,
    /// Where the key of hashes is; where the run had it unless given.
    pub(crate) protect_key: ProtectKeyPlace,
    /// What the end of standard input means; by what it is unless given.
    pub(crate) stdin: Option<StdinRule>,
    /// The form of log lines.
    pub(crate) log_format: LogFormat,
    /// Whether what people read has colours.
    pub(crate) color: ColorKind,
}

/// The options of `worker`. `flags` as for [`super::load`].
///
/// # Errors
/// All mistakes at once.
pub(crate) fn load_worker(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<WorkerOptions, ConfigErrors> {
    let mut settings = Settings::read(flags, environment, of_worker());
    let protect_key = protect::key_place(&mut settings.given, &mut settings.errors);
    let given = &mut settings.given;
    let (aws_credential_command, stdin) = (given.aws_credential_command.take(), given.stdin);
    let people = given.log_format.zip(given.color);
    let worker = settings.source.take().zip(people).map(|(source, (log_format, color))| WorkerOptions {
        source,
        aws_credential_command,
        protect_key,
        stdin,
        log_format,
        color,
    });
    settings.end(worker)
}

/// What `resume` takes besides its destination: how to connect, how many readers where that is given, who says
/// credentials for AWS, and what people see. `flags` as for [`super::load`].
///
/// # Errors
/// All mistakes at once.
pub(crate) fn load_resume(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<(Arc<dyn Source>, Resumption, FrontOptions), ConfigErrors> {
    let mut settings = Settings::read(flags, environment, of_resume());
    settings.errors.extend(contradictions::of_workers(&settings.raw, &settings.given));
    let given = settings.raw.given("readers").is_some() || settings.raw.given("max_workers").is_some();
    let readers = settings.readers().filter(|_| given);
    let protect_key = protect::key_place(&mut settings.given, &mut settings.errors);
    let (external, aws_credential_command) = (settings.external(), settings.given.aws_credential_command.take());
    let asked = Resumption { readers, aws_credential_command, external, protect_key };
    let resume = settings.source.take().zip(settings.front()).map(|(source, front)| (source, asked, front));
    settings.end(resume)
}

/// What people see of a command, of what was read already. A mistake counts as the default: whoever reads the rest tells it
/// with all others.
///
/// # Errors
/// An option has no default.
pub(in crate::config) fn front_of(raw: Raw) -> Result<FrontOptions, ConfigErrors> {
    let mut given = Given::default();
    for option in OPTIONS.iter().filter(|option| option.heading == Heading::People) {
        let Some(set) = option.set else { continue };
        let written = raw.get(option.key).map(|setting| setting.values.clone()).unwrap_or_default();
        for value in default_of(option).into_iter().chain(written) {
            // What is refused takes nothing away.
            let _ = set(&mut given, &value);
        }
    }
    let mut settings = Settings { raw, given, source: None, errors: Vec::new() };
    let front = settings.front();
    settings.end(front)
}

/// A length of time as options have it.
///
/// # Errors
/// What would be right.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}
