//! The API key: from a variable, a file or a command, and never from the command line, where others can read it.

use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;

use super::super::CommandContext;
use crate::base::command;
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};

/// For a command that asks an identity service.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

const HINT: &str = "set OUTHAUL_API_KEY, or give --api-key-file or --api-key-command";

/// A key. It is never shown.
pub(crate) struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// What a request says of it.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// The key of the flags, else of the variables.
///
/// # Errors
/// There is none, or it cannot be read, or no key has such characters.
pub(crate) async fn find(matches: &ArgMatches, context: &CommandContext) -> Result<ApiKey, ExportError> {
    let flag = |id: &str| matches.get_one::<String>(id).cloned();
    let variable = |name: &str| context.environment.get(name);
    // A flag wins over every variable, and the nearest variable over the others.
    let (text, place) = if let Some(file) = flag("api_key_file") {
        (of_file(Path::new(&file), context)?, file)
    } else if let Some(line) = flag("api_key_command") {
        (of_command(&line).await?, "the command".to_owned())
    } else if let Some(key) = variable("OUTHAUL_API_KEY") {
        (key, "OUTHAUL_API_KEY".to_owned())
    } else if let Some(file) = variable("OUTHAUL_API_KEY_FILE") {
        (of_file(Path::new(&file), context)?, file)
    } else if let Some(line) = variable("OUTHAUL_API_KEY_COMMAND") {
        (of_command(&line).await?, "the command".to_owned())
    } else {
        return Err(refused("there is no API key".to_owned()).with_code(ErrorCode::CredentialsMissing));
    };
    let key = text.lines().next().unwrap_or_default().trim();
    if key.is_empty() {
        return Err(refused(format!("the API key of {place} is empty")).with_code(ErrorCode::CredentialsMissing));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(format!("the API key of {place} has characters that no key has")));
    }
    Ok(ApiKey(key.to_owned()))
}

fn refused(message: String) -> ExportError {
    ExportError::new(ExportErrorKind::Usage, message).with_hint(HINT)
}

fn of_file(file: &Path, context: &CommandContext) -> Result<String, ExportError> {
    let shown = file.display();
    let text = context.environment.read(file).map_err(|error| {
        ExportError::new(ExportErrorKind::Usage, format!("reading the API key from {shown}")).with_source(error)
    })?;
    if context.environment.is_open_to_others(file) {
        context.screen.line(&format!("warning: group or others can read the key in {shown}: run chmod 600 {shown}"));
    }
    Ok(text)
}

async fn of_command(line: &str) -> Result<String, ExportError> {
    let failed = |what: &str| ExportError::new(ExportErrorKind::Usage, format!("the command for the API key {what}"));
    let answer = tokio::time::timeout(COMMAND_TIMEOUT, command::run(command::shell(line))).await;
    let answer = answer.map_err(|_| failed("took longer than 30 s"))?;
    let answer = answer.map_err(|error| failed("could not be run").with_source(error))?;
    if !answer.status.success() {
        // What it says may hold the key.
        return Err(failed(&format!("failed ({})", answer.status)));
    }
    String::from_utf8(answer.stdout).map_err(|_| failed("answered what is no text"))
}
