//! The server's errors by their codes, as the classes of a source's errors, and texts for people.

use super::super::{Retry, SourceError, SourceFault};
use super::unreached::PORTS;
use crate::model::ErrorCode;

/// Characters of a message that are shown.
const SHOWN_MAX: usize = 1000;

/// An error as the server told it, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ClickHouseError {
    /// Its number, which says what it is.
    pub code: Option<u32>,
    /// What it says, without its number and the server's version.
    pub text: String,
}

impl ClickHouseError {
    /// Reads an error out of a text that ends with it: an answer's body, or the end of one. `code` is what the answer's
    /// header says, where it says something.
    pub(crate) fn of_text(text: &str, code: Option<u32>) -> Self {
        let known = code.map(|code| format!("Code: {code}"));
        // A row in front of the message may have the words of another error.
        let at = known.as_deref().and_then(|known| text.rfind(known)).or_else(|| text.rfind("Code: "));
        let message = at.and_then(|at| text.get(at..)).unwrap_or(text);
        Self::of_message(message, code)
    }

    /// Reads an error that is nothing but a message.
    pub(crate) fn of_message(message: &str, code: Option<u32>) -> Self {
        let digits = message.strip_prefix("Code: ").map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.split_at(end)
        });
        let (read, text) = match digits {
            Some((digits, rest)) => (digits.parse().ok(), rest.trim_start_matches(['.', ',', ' '])),
            None => (None, message),
        };
        let text = text.strip_prefix("e.displayText() = ").unwrap_or(text);
        let text = text.split(", e.what() = ").next().unwrap_or(text);
        let text = text.rfind(" (version ").map_or(text, |at| text.get(..at).unwrap_or(text));
        let text =
            ["DB::Exception: ", "DB::NetException: "].iter().find_map(|name| text.strip_prefix(name)).unwrap_or(text);
        // Advice that is for whoever installed the server.
        let text = text.split("If you use ClickHouse Cloud").next().unwrap_or(text);
        Self { code: code.or(read), text: shown(text) }
    }

    /// Its number and its name, without any other word of it: the statement may be among them, and values of rows, in quotes
    /// of any kind or in none.
    pub(crate) fn in_short(&self) -> String {
        let is_letter = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        let named = self.text.rsplit_once(" (").and_then(|(_, behind)| behind.strip_suffix(')'));
        match (self.code, named.filter(|name| !name.is_empty() && name.chars().all(is_letter))) {
            (Some(code), Some(name)) => format!("code {code} ({name})"),
            (Some(code), None) => format!("code {code}"),
            (None, _) => "the server refused".to_owned(),
        }
    }

    /// As a source's error.
    pub(crate) fn while_doing(self, doing: impl Into<String>) -> SourceError {
        let (fault, retry) = self.code.map_or((SourceFault::Rejected, Retry::Never), class);
        let (code, hint) = (self.code, self.code.and_then(hint));
        let mut error = SourceError::new(fault, doing);
        error.retry = retry;
        error.code = code.map(|code| code.to_string());
        error.hint = hint.map(str::to_owned);
        error.reason = code.and_then(reason);
        error.with_source(self)
    }
}

/// One line of a bounded length.
fn shown(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", words.get(..at).unwrap_or_default()),
        None => words,
    }
}

/// The class of a code, and whether the same may go well later.
fn class(code: u32) -> (SourceFault, Retry) {
    match code {
        // AUTHENTICATION_FAILED, REQUIRED_PASSWORD, WRONG_PASSWORD, UNKNOWN_USER, ACCESS_DENIED, READONLY, IP_ADDRESS_NOT_ALLOWED
        516 | 192..=195 | 497 | 164 => (SourceFault::Authentication, Retry::Never),
        // SOCKET_TIMEOUT, NETWORK_ERROR, KEEPER_EXCEPTION, ALL_CONNECTION_TRIES_FAILED, ALL_REPLICAS_ARE_STALE, ABORTED, DNS_ERROR,
        // TABLE_IS_READ_ONLY
        209 | 210 | 999 | 279 | 369 | 236 | 198 | 242 => (SourceFault::Unavailable, Retry::Again),
        // UNKNOWN_TABLE, UNKNOWN_DATABASE, TABLE_IS_DROPPED
        60 | 81 | 218 => (SourceFault::Missing, Retry::Never),
        // NO_SUCH_COLUMN_IN_TABLE, THERE_IS_NO_COLUMN, NOT_FOUND_COLUMN_IN_BLOCK
        16 | 8 | 10 => (SourceFault::SchemaChanged, Retry::Never),
        // TOO_MANY_SIMULTANEOUS_QUERIES, NO_FREE_CONNECTION
        202 | 203 => (SourceFault::GaveWay, Retry::FewerReaders),
        // MEMORY_LIMIT_EXCEEDED, CANNOT_ALLOCATE_MEMORY, NOT_ENOUGH_SPACE
        241 | 173 | 243 => (SourceFault::GaveWay, Retry::Briefly),
        // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING
        216 => (SourceFault::GaveWay, Retry::Again),
        // QUERY_WAS_CANCELLED, by somebody else
        394 => (SourceFault::GaveWay, Retry::Once),
        // TIMEOUT_EXCEEDED, TOO_MANY_ROWS, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES, QUOTA_EXCEEDED, TOO_SLOW
        159 | 158 | 307 | 396 | 201 | 160 => (SourceFault::GaveWay, Retry::Never),
        _ => (SourceFault::Rejected, Retry::Never),
    }
}

fn reason(code: u32) -> Option<ErrorCode> {
    match code {
        60 | 218 => Some(ErrorCode::RelationMissing),
        81 => Some(ErrorCode::DatabaseMissing),
        16 | 8 => Some(ErrorCode::ColumnMissing),
        516 | 193 | 194 => Some(ErrorCode::PasswordRefused),
        192 => Some(ErrorCode::RoleRefused),
        497 => Some(ErrorCode::PermissionDenied),
        _ => None,
    }
}

const WHO: &str = "check user and password: the URL names the user, and CLICKHOUSE_PASSWORD, --password-file or \
    --password-command the password";

fn hint(code: u32) -> Option<&'static str> {
    match code {
        164 => Some("its profile is readonly = 1, which lets nobody change a setting: readonly = 2 reads as safely"),
        516 | 192..=194 => Some(WHO),
        497 => Some("GRANT SELECT on it to this user, or name another"),
        81 => Some("the URL names the database: clickhouse://user@host:8123/DATABASE"),
        202 | 203 => Some("fewer `--readers` take fewer of the server's queries"),
        241 => Some("the query needs more memory than the server, or its profile, allows"),
        159 | 160 => Some("the profile of this user limits how long a query may take (max_execution_time)"),
        158 | 307 | 396 => Some("the profile of this user limits how much a query may read or give"),
        201 => Some("the quota of this user is used up for now"),
        _ => None,
    }
}

/// An answer that is an error by its status, with the end of its body.
pub(crate) fn of_status(status: http::StatusCode, code: Option<u32>, body: &str, doing: &str) -> SourceError {
    let mut error = ClickHouseError::of_text(body, code);
    if let Some(code) = error.code {
        if error.text.is_empty() {
            error.text = format!("error {code} of the server, whose words did not come");
        }
        return error.while_doing(doing);
    }
    // No ClickHouse: a proxy in front of one, or another server.
    let (fault, retry) = match status.as_u16() {
        401 | 403 | 407 => (SourceFault::Authentication, Retry::Never),
        429 | 503 => (SourceFault::GaveWay, Retry::Briefly),
        408 | 502 | 504 => (SourceFault::Unavailable, Retry::Again),
        500..=599 => (SourceFault::Unavailable, Retry::Never),
        _ => (SourceFault::Usage, Retry::Never),
    };
    let said = if error.text.is_empty() { String::new() } else { format!(": {}", error.text) };
    let mut failed = SourceError::new(fault, format!("{doing}: the answer is {status}{said}"));
    failed.retry = retry;
    failed.hint = (fault == SourceFault::Usage).then(|| format!("is there a ClickHouse server? {PORTS}"));
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_age_are_read() {
        for (message, code, text) in [
            ("Code: 395. DB::Exception: no. (NAME) (version 26.9.2.1)", Some(395), "no. (NAME)"),
            ("Code: 395. DB::Exception: no. (NAME) (version 23.8.1.2 (official build))\n", Some(395), "no. (NAME)"),
            ("Code: 395, e.displayText() = DB::Exception: no, e.what() = DB::Exception\n", Some(395), "no"),
            ("Code: 210. DB::NetException: reset\nby peer", Some(210), "reset by peer"),
            (
                "Code: 194. DB::Exception: no\n\nIf you use ClickHouse Cloud, go there (NAME) (version 26.9.2.1)",
                Some(194),
                "no",
            ),
            ("<html>Bad Gateway</html>", None, "<html>Bad Gateway</html>"),
            ("", None, ""),
        ] {
            let error = ClickHouseError::of_text(message, None);
            assert_eq!((error.code, error.text.as_str()), (code, text));
        }
    }

    #[test]
    fn in_short_it_has_no_word_of_a_row() {
        let short = |message: &str| ClickHouseError::of_message(message, None).in_short();
        assert_eq!(
            short(
                "Code: 6. DB::Exception: Cannot parse string 'anna@example.com' as UInt64. (CANNOT_PARSE_TEXT) (version 26.9.2.1)"
            ),
            "code 6 (CANNOT_PARSE_TEXT)"
        );
        assert_eq!(short("Code: 69. DB::Exception: 4711 is too large"), "code 69");
        assert_eq!(short("4711 (secret)"), "the server refused");
    }

    #[test]
    fn megabytes_of_rows_in_front_are_not_shown() {
        let rows = "1\tCode: 60. DB::Exception: a row of a log\n2\tfine\n";
        let body = format!("{rows}Code: 395. DB::Exception: stop. Code: 7. (NAME) (version 26.9.2.1)\n");
        let error = ClickHouseError::of_text(&body, Some(395));
        assert_eq!((error.code, error.text.as_str()), (Some(395), "stop. Code: 7. (NAME)"));
        let long = ClickHouseError::of_text(&format!("Code: 62. DB::Exception: {}", "é".repeat(5000)), None);
        assert_eq!(long.text.chars().count(), SHOWN_MAX + 1);
    }

    #[test]
    fn codes_are_classes() {
        for (code, fault, retry) in [
            (516, SourceFault::Authentication, Retry::Never),
            (210, SourceFault::Unavailable, Retry::Again),
            // So a shard is called of which no replica can be reached.
            (369, SourceFault::Unavailable, Retry::Again),
            (60, SourceFault::Missing, Retry::Never),
            (16, SourceFault::SchemaChanged, Retry::Never),
            (62, SourceFault::Rejected, Retry::Never),
            (395, SourceFault::Rejected, Retry::Never),
            (202, SourceFault::GaveWay, Retry::FewerReaders),
            (394, SourceFault::GaveWay, Retry::Once),
            (241, SourceFault::GaveWay, Retry::Briefly),
        ] {
            let error = ClickHouseError { code: Some(code), text: "no".to_owned() }.while_doing("reading");
            assert_eq!((error.fault, error.retry, error.code), (fault, retry, Some(code.to_string())));
        }
    }

    #[test]
    fn what_is_no_clickhouse_is_told_by_its_status() {
        let fault =
            |status: u16, body: &str| of_status(http::StatusCode::from_u16(status).unwrap(), None, body, "asking");
        assert_eq!(fault(502, "<html>").fault, SourceFault::Unavailable);
        assert_eq!(fault(403, "no").fault, SourceFault::Authentication);
        assert_eq!(fault(404, "nginx").fault, SourceFault::Usage);
        let wordless = of_status(http::StatusCode::OK, Some(60), "", "asking");
        assert_eq!((wordless.fault, wordless.code.as_deref()), (SourceFault::Missing, Some("60")));
        assert_eq!(wordless.source.unwrap().to_string(), "error 60 of the server, whose words did not come");
        // A proxy that repeats what the server said.
        let error =
            fault(500, "[ Id: 1; User \"x\" ] concurrent query failed: Code: 202. DB::Exception: Too many (version 1)");
        assert_eq!((error.fault, error.retry), (SourceFault::GaveWay, Retry::FewerReaders));
    }
}
