//! What can go wrong while reading: the class decides the exit code, `retry` whether the partition is read again, and the
//! message says what was being done.

use std::error::Error as StdError;

use super::clickhouse::error::ClickHouseError;
use crate::model::ErrorCode;

/// The class of a source error, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFault {
    /// The request makes no sense for this server or relation (exit 2).
    Usage,
    /// Credentials, privileges, TLS (10).
    Authentication,
    /// Not reachable, or lost (11).
    Unavailable,
    /// The snapshot is gone (12).
    SnapshotLost,
    /// A table or column that was asked for is not there (13).
    Missing,
    /// The relation changed (13).
    SchemaChanged,
    /// A value that its carrier cannot hold (14).
    Data,
    /// The server rejected the statement (15).
    Rejected,
    /// Locked, or a limit was reached (16).
    GaveWay,
    /// The server broke the protocol, or we did (1).
    Protocol,
}

/// Whether the partition that an error ended is worth another attempt, under the same snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// It would end the same way.
    #[default]
    Never,
    /// Whatever it was may be over.
    Again,
    /// A timeout or a person cancelled the statement: once may be a mistake.
    Once,
    /// Somebody held a lock, or used up what the server has, and may be done soon.
    Briefly,
    /// The server has no connection left: others of ours go on.
    FewerReaders,
    /// What the partition was of has moved: [`Reading::replan`](super::Reading::replan) plans it anew.
    Replan,
}

impl SourceFault {
    /// Whether a partition is worth another attempt, where nothing but the class is known.
    pub(crate) fn retry(self) -> Retry {
        match self {
            Self::Unavailable => Retry::Again,
            _ => Retry::Never,
        }
    }
}

/// An error of the source layer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// The class.
    pub fault: SourceFault,
    /// Whether the partition that it ended is worth another attempt.
    pub retry: Retry,
    /// What was being done, with its nouns.
    pub message: String,
    /// Whether the message tells the cause, which is then not added to it.
    pub told: bool,
    /// What it is, where that is known more closely than by its class.
    pub reason: Option<ErrorCode>,
    /// The source's own code for it, where it gave one.
    pub code: Option<String>,
    /// What to do, where it is known.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The classes of SQLSTATEs that arise while rows are looked at: of data, of constraints, of functions.
const ROW_CLASSES: [&str; 5] = ["22", "23", "38", "39", "P0"];

/// Those of what is wrong with a text, or with a name in it. A value may be such a text too, as it is for `tsquery` and
/// `regclass`.
const TEXT_CLASSES: [&str; 3] = ["42", "3D", "3F"];

/// Codes of these classes whose words are of a request: a privilege that is missing, and a name without its quotes.
const REQUEST_CODES: [&str; 2] = ["42501", "42602"];

/// The codes of ClickHouse for what is wrong with a text, whatever the rows are: names, types, numbers of arguments.
const TEXT_CODES: [&str; 15] =
    ["42", "43", "44", "46", "47", "48", "50", "60", "62", "63", "81", "115", "184", "215", "386"];

/// What a log may have of a cause whose words may hold values of rows; `None` where it is none of that kind.
pub(crate) fn without_words_of(cause: &(dyn StdError + Send + Sync + 'static)) -> Option<String> {
    cause.downcast_ref::<ClickHouseError>().map(ClickHouseError::in_short)
}

impl SourceError {
    /// An error of our own finding.
    pub fn new(fault: SourceFault, message: impl Into<String>) -> Self {
        Self {
            fault,
            retry: fault.retry(),
            message: message.into(),
            told: false,
            reason: None,
            code: None,
            hint: None,
            source: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what it is.
    #[must_use]
    pub(crate) fn with_reason(mut self, reason: ErrorCode) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Puts a sentence in the place of what was being done; the cause stays, for who asks for the whole chain.
    #[must_use]
    pub(crate) fn told_as(mut self, sentence: impl Into<String>) -> Self {
        self.message = sentence.into();
        self.told = true;
        self
    }

    /// The same without the words of a source, which may hold values of rows whatever the fault is.
    #[must_use]
    pub(crate) fn without_words(self) -> Self {
        // Whoever is not connected has read nothing.
        let connecting = self.told && self.fault != SourceFault::Rejected;
        if connecting || !self.has_words_of_source() {
            return self;
        }
        let doing = if self.told { "reading" } else { &self.message };
        let with_code = self.code.as_ref().map_or_else(String::new, |code| format!(" with code {code}"));
        let message = format!(
            "{doing}: the source refused{with_code}, and its words may hold values of a column that is protected"
        );
        let of_source = self.of_server().and_then(|server| server.hint.clone());
        let hint = self.hint.clone().filter(|hint| Some(hint) != of_source.as_ref());
        let hint = hint.unwrap_or_else(|| "the same statement at the source itself says more".to_owned());
        Self { message, told: true, source: None, ..self }.with_hint(hint)
    }

    /// The same of an error of planning, which reads rows only to count them: what is wrong with a text is told.
    #[must_use]
    pub(crate) fn without_words_of_rows(self) -> Self {
        // No place in a statement is one in a value.
        let placed = self.of_server().is_some_and(|server| server.place.is_some());
        let of_rows = |code: &String| match code.get(..2).filter(|_| code.len() == 5) {
            Some(class) if TEXT_CLASSES.contains(&class) => !placed && !REQUEST_CODES.contains(&code.as_str()),
            Some(class) => ROW_CLASSES.contains(&class),
            None => !TEXT_CODES.contains(&code.as_str()),
        };
        if self.told || !self.code.as_ref().is_some_and(of_rows) { self } else { self.without_words() }
    }

    /// Whether the cause, or the message, is in the words of the source.
    fn has_words_of_source(&self) -> bool {
        let of_clickhouse = self.source.as_ref().is_some_and(|source| source.is::<ClickHouseError>());
        self.code.is_some() || of_clickhouse
    }

    /// Adds why.
    #[must_use]
    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}
