//! The password of one connection, asked for anew where a file or a command has it: tokens end, and passwords are changed
//! while a run lasts.

use std::path::Path;
use std::time::Duration;

use super::settings::{Password, Secret};
use crate::base::{command, failpoint};

/// The command that says a connection's password: an answer of a vault or a cloud's token service takes a second or two.
const PASSWORD_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a password command's standard error that an error repeats: its last lines say why.
const PASSWORD_COMMAND_WORDS_MAX: usize = 500;

/// No password could be had. Never shows the command or its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoPassword(String);

/// The password as it is now.
///
/// # Errors
/// [`NoPassword`].
///
/// # Cancel safety
/// Dropping the future kills the command with everything that it started in its process group.
pub(crate) async fn current(password: &Password) -> Result<Secret, NoPassword> {
    match password {
        Password::Known(secret) => Ok(secret.clone()),
        Password::File(path) => of_file(path).await,
        Password::Command(command) => {
            of_command(command, failpoint::limit("password_command", PASSWORD_COMMAND_TIMEOUT)).await
        }
    }
}

async fn of_file(path: &Path) -> Result<Secret, NoPassword> {
    let failed = |why: &dyn std::fmt::Display| NoPassword(format!("the password file {}: {why}", path.display()));
    let read = async { command::all_of(tokio::fs::File::open(path).await?).await };
    let bytes = read.await.map_err(|error| failed(&error))?;
    first_line(bytes).map_err(|why| failed(&why))
}

async fn of_command(line: &Secret, limit: Duration) -> Result<Secret, NoPassword> {
    let failed = |why: &dyn std::fmt::Display| NoPassword(format!("the password command {why}"));
    let answer = match tokio::time::timeout(limit, command::run(command::shell(line.expose()))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(&format!("could not be run: {error}"))),
        Err(_) => return Err(failed(&format!("gave no answer within {} s", limit.as_secs()))),
    };
    if !answer.status.success() {
        let words = last_words(&answer.stderr);
        let colon = if words.is_empty() { "" } else { ": " };
        return Err(failed(&format!("failed ({}){colon}{words}", answer.status)));
    }
    first_line(answer.stdout).map_err(|why| failed(&format!("printed no password: {why}")))
}

fn first_line(bytes: Vec<u8>) -> Result<Secret, &'static str> {
    let text = String::from_utf8(bytes).map_err(|_| "its text is not UTF-8")?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
        _ => Err("the first line is empty"),
    }
}

/// The end of what a command said, on one line.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = words.ceil_char_boundary(words.len().saturating_sub(PASSWORD_COMMAND_WORDS_MAX));
    words.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn say(command: &str) -> Result<String, String> {
        let password = Password::Command(Secret::new(command.to_owned()));
        current(&password).await.map(|secret| secret.expose().to_owned()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_first_line_is_the_password() {
        assert_eq!(say("printf 'hunter2\\nmore\\n'").await.unwrap(), "hunter2");
        assert_eq!(say("printf 'a b \\r\\n'").await.unwrap(), "a b ");
        assert_eq!(say("cat; echo done").await.unwrap(), "done", "its standard input is empty");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why_and_not_what_it_is() {
        let error = say("echo hunter2; echo 'no vault\nhere' >&2; exit 3").await.unwrap_err();
        assert_eq!(error, "the password command failed (exit status: 3): no vault here");
        for (command, why) in [
            ("exit 1", "failed (exit status: 1)"),
            ("kill -9 $$", "failed (signal: 9 (SIGKILL))"),
            ("true", "printed no password: the first line is empty"),
            ("echo; echo hunter2", "printed no password: the first line is empty"),
            ("printf '\\377'", "printed no password: its text is not UTF-8"),
            ("head -c 100000 /dev/zero", "could not be run: more than 65536 bytes"),
            ("yes", "could not be run: more than 65536 bytes"),
        ] {
            assert_eq!(say(command).await.unwrap_err(), format!("the password command {why}"), "{command}");
        }
        let long = say("for i in $(seq 1000); do echo $i >&2; done; exit 1").await.unwrap_err();
        assert!(long.ends_with(" 999 1000") && long.len() < 600, "{long}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_left() {
        let error = of_command(&Secret::new("sleep 600".to_owned()), Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.to_string(), "the password command gave no answer within 0 s");
    }

    #[tokio::test]
    async fn a_command_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let command = format!("sh -c 'echo $$ > {}; exec sleep 600' & wait", pid_file.display());
        let password = Password::Command(Secret::new(command));
        let asked = tokio::spawn(async move { current(&password).await });
        let deadline = Instant::now() + Duration::from_secs(20);
        let pid = loop {
            let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if pid.ends_with('\n') {
                break pid.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "the command did not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        asked.abort();
        // A process that nobody has waited for yet is a zombie, and as gone as one that somebody has.
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        };
        while !gone() {
            assert!(Instant::now() < deadline, "process {pid} is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let password = Password::File(path.clone());
        for text in ["one\n", "two"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(current(&password).await.unwrap().expose(), text.trim_end());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(current(&password).await.unwrap_err().to_string().contains("No such file"));
    }
}
