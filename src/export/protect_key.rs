//! The key under which `--protect` hashes values, from a file or a command.

use std::time::Duration;

use super::error::ExportError;
use super::run::Run;
use crate::base::command;
use crate::encode::ProtectKey;
use crate::model::{CredentialCommand, ExportErrorKind, ProtectOptions};

/// A command that asks a vault has it in a second.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

impl Run {
    /// The key under which values are hashed, read once; `None` where none are.
    ///
    /// # Errors
    /// Its file or command gives none.
    pub(crate) async fn protect_key(&self) -> Result<Option<&ProtectKey>, ExportError> {
        let protect = self.request.commit.protect.as_ref();
        let key = self.protect_key.get_or_try_init(|| of(protect)).await?;
        Ok(key.as_ref())
    }

    /// Refuses to go on under another key than the one that an earlier process of the run `began` with: equal values would
    /// have different hashes.
    ///
    /// # Errors
    /// [`ExportErrorKind::Usage`].
    pub(crate) async fn same_protect_key(&self, began: Option<&str>) -> Result<(), ExportError> {
        let now = self.protect_key().await?.map(ProtectKey::id);
        if began.is_none() || began == now.as_deref() {
            return Ok(());
        }
        Err(wrong("the key of --protect is another than the one that the run began with".to_owned())
            .with_hint("give back the key that the run began with, or export again"))
    }
}

/// The key; `None` where nothing is hashed.
///
/// # Errors
/// [`ExportErrorKind::Usage`]: there is no key, it cannot be read, or it is too short. No message has a byte of it.
///
/// # Cancel safety
/// Dropping the future kills the command.
async fn of(protect: Option<&ProtectOptions>) -> Result<Option<ProtectKey>, ExportError> {
    let Some(protect) = protect.filter(|protect| protect.hashes()) else {
        return Ok(None);
    };
    let bytes = match (&protect.key_file, &protect.key_command) {
        (Some(file), _) => {
            let read = async { command::all_of(tokio::fs::File::open(file).await?).await };
            read.await
                .map_err(|error| wrong(format!("--protect-key-file {} cannot be read: {error}", file.display())))?
        }
        (None, Some(line)) => said_by(line).await?,
        (None, None) => {
            let message = "no record of a run has the command that prints its key".to_owned();
            return Err(wrong(message).with_hint("give it again: --protect-key-command COMMAND"));
        }
    };
    let mut key = bytes.as_slice();
    while let Some((b'\n' | b'\r', rest)) = key.split_last() {
        key = rest;
    }
    let key = ProtectKey::new(key).ok_or_else(|| {
        wrong("the key of --protect is too short: 16 bytes or more are wanted".to_owned())
            .with_hint("openssl rand -hex 32 > protect.key")
    })?;
    Ok(Some(key))
}

async fn said_by(line: &CredentialCommand) -> Result<Vec<u8>, ExportError> {
    let answer = match tokio::time::timeout(COMMAND_TIMEOUT, command::run(command::shell(line.expose()))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(wrong(format!("--protect-key-command could not be run: {error}"))),
        Err(_) => {
            let seconds = COMMAND_TIMEOUT.as_secs();
            return Err(wrong(format!("--protect-key-command gave no answer within {seconds} s")));
        }
    };
    if !answer.status.success() {
        return Err(wrong(format!("--protect-key-command failed ({})", answer.status)));
    }
    Ok(answer.stdout)
}

fn wrong(message: String) -> ExportError {
    ExportError::new(ExportErrorKind::Usage, message)
}
