//! Deadlines of progress: a server that works on a statement may be silent for hours, a connection that lost its bytes may
//! not. Which of the two it is, another connection is asked.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::catalog::value;
use super::connect::Session;
use crate::base::failpoint;
use crate::source::{SourceError, SourceFault};

/// A reader that is ready and gets no bytes for so long asks another session what the server is doing: a sort sends
/// nothing for hours and is left alone, a connection that lost its bytes is not.
pub(super) const SOURCE_SILENCE: Duration = Duration::from_mins(1);

/// A connection that looks as if it had lost its bytes gets so long until it is looked at again: they may have been on
/// their way when the server was asked.
const SILENCE_RECHECK: Duration = Duration::from_secs(5);

/// Another session's answer to that question, a new connection for it included.
pub(super) const INQUIRY_TIMEOUT: Duration = Duration::from_secs(15);

/// What a server process is at; no row where it is gone. The name guards against another process of the same number.
pub(super) const BACKEND: &str = "SELECT state, wait_event FROM pg_catalog.pg_stat_activity \
    WHERE pid = $1 AND pg_catalog.starts_with(application_name, $2)";

/// How the names of all our sessions begin.
const APPLICATIONS: &str = "outhaul/";

/// What somebody who gets no bytes may find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackendState {
    /// The server works on the statement: a sort, a filter, somebody's lock.
    Works,
    /// The server has sent all that it could, and it has not come; or it is gone; or nobody answers.
    Lost(&'static str),
}

impl BackendState {
    /// What the answer to [`BACKEND`] says.
    pub(super) fn of(answer: Result<Vec<Row>, SourceError>) -> Self {
        match answer {
            Ok(rows) => match rows.first() {
                None => Self::Lost("the server process is gone"),
                Some(row) => match (value(row, 0), value(row, 1)) {
                    (Ok(state), Ok(wait_event)) => judge(state, wait_event),
                    _ => Self::Works,
                },
            },
            Err(error) if error.fault == SourceFault::Unavailable => Self::Lost("nor does the server answer"),
            // It answers, if only to refuse one more connection.
            Err(_) => Self::Works,
        }
    }
}

fn judge(state: Option<&str>, wait_event: Option<&str>) -> BackendState {
    match (state, wait_event) {
        // It wants to send and cannot, although we read.
        (_, Some("ClientWrite")) => BackendState::Lost("the server waits for us to read what it sent"),
        // It has seen no statement, or has sent its end.
        (Some("idle in transaction" | "idle in transaction (aborted)" | "idle"), _) => {
            BackendState::Lost("the server has nothing more to send")
        }
        _ => BackendState::Works,
    }
}

/// What `answer` gives, however long it takes, as long as the server works on the statement.
///
/// # Errors
/// [`SourceFault::Unavailable`] where `ask` says twice in a row that it does not.
pub(super) async fn unless_lost<T, F: Future<Output = BackendState>>(
    action: &str,
    answer: impl Future<Output = T>,
    ask: impl Fn() -> F,
) -> Result<T, SourceError> {
    let mut answer = std::pin::pin!(answer);
    let mut suspect = None;
    let silence = failpoint::limit("silence", SOURCE_SILENCE);
    loop {
        let recheck = failpoint::limit("recheck", SILENCE_RECHECK);
        let patience = if suspect.is_some() { recheck } else { silence };
        if let Ok(answer) = tokio::time::timeout(patience, &mut answer).await {
            return Ok(answer);
        }
        if failpoint::off("silence") {
            continue;
        }
        let backend = tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            backend = ask() => backend,
        };
        suspect = match (backend, suspect) {
            (BackendState::Works, _) => None,
            // What it sent may just have been on its way.
            (BackendState::Lost(why), None) => Some(why),
            (BackendState::Lost(why), Some(_)) => return Err(lost(action, silence, why)),
        };
    }
}

fn lost(action: &str, silence: Duration, why: &str) -> SourceError {
    let message = format!("{action}: no bytes for {} s, and {why}", silence.as_secs());
    SourceError::new(SourceFault::Unavailable, message)
        .with_hint("the network between here and the server lost the connection")
}

impl Session {
    /// The answer to a statement that may take long, for as long as the server works on it.
    ///
    /// # Errors
    /// The server's; [`SourceFault::Unavailable`] where the answer does not come.
    pub(super) async fn patiently<T>(
        &self,
        action: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SourceError> {
        // The question is asked rarely, and its future is large.
        let answer = unless_lost(action, answer, || Box::pin(self.backend())).await?;
        answer.map_err(|error| SourceError::driver(action, error))
    }

    /// What the session's server process is at, asked over a connection of its own: while planning there is no other that
    /// is known to be whole.
    pub(super) async fn backend(&self) -> BackendState {
        let Some(pid) = self.pid() else { return BackendState::Works };
        let limit = failpoint::limit("inquiry", INQUIRY_TIMEOUT);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&pid, Type::INT4), (&APPLICATIONS, Type::TEXT)];
        let asked = tokio::time::timeout(limit, self.ask_aside(BACKEND, &parameters)).await;
        let silent = |_| SourceError::new(SourceFault::Unavailable, "looking at the source: no answer");
        BackendState::of(asked.map_err(silent).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_server_is_left_alone() {
        for (state, wait_event) in [
            ("active", None),
            ("active", Some("DataFileRead")),
            ("active", Some("relation")),
            ("active", Some("PgSleep")),
        ] {
            assert_eq!(judge(Some(state), wait_event), BackendState::Works, "{state} {wait_event:?}");
        }
        for (state, wait_event) in
            [("active", Some("ClientWrite")), ("idle in transaction", Some("ClientRead")), ("idle", None)]
        {
            assert!(matches!(judge(Some(state), wait_event), BackendState::Lost(_)), "{state} {wait_event:?}");
        }
        // The role may not see it: nothing is known then.
        assert_eq!(judge(None, None), BackendState::Works);
    }
}
