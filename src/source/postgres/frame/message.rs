//! The backend messages around the COPY payload, and the errors of framing.

use crate::base::memory::MESSAGE_BYTES_MAX;
use crate::base::words::counted;
use crate::source::SourceFault;

/// Tag and length in front of each message.
pub(crate) const HEADER_BYTES: usize = 5;

/// libpq's bound for the messages that have no reason to be long: a larger one is a stream that lost its step.
const SHORT_MESSAGE_BYTES_MAX: usize = 30_000;

/// What the server said in an `ErrorResponse`. `detail`, `hint` and `context` may quote values of rows, and so may the
/// message of an expression that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {sqlstate})")]
pub(crate) struct ErrorResponse {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub(crate) severity: String,
    /// Five characters.
    pub(crate) sqlstate: String,
    /// The primary message.
    pub(crate) message: String,
    /// `DETAIL`.
    pub(crate) detail: Option<String>,
    /// `HINT`.
    pub(crate) hint: Option<String>,
    /// `CONTEXT` (field `W`, "where").
    pub(crate) context: Option<String>,
    /// The character of the statement that it is about, from 1.
    pub(crate) character: Option<usize>,
}

/// Why framing ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The server failed the COPY and is ready for the next statement: `ReadyForQuery` was read.
    #[error("the server ended the COPY")]
    Server {
        /// Its words.
        #[source]
        error: Box<ErrorResponse>,
        /// Whether the session can be used again: `ReadyForQuery` was the last byte of the input. Never after the
        /// connection was closed.
        reusable: bool,
    },
    /// The connection was closed before the COPY ended.
    #[error("the server closed the connection in the middle of the COPY, after {}", counted(*.rows, "row"))]
    Closed {
        /// Rows framed until then.
        rows: u64,
    },
    /// A message that has no place here.
    #[error("unexpected message {:?} while {stage}", char::from(*.tag))]
    UnexpectedMessage {
        /// Its tag.
        tag: u8,
        /// What was under way.
        stage: &'static str,
    },
    /// A message that cannot be as long as it says.
    #[error("message {:?} with an impossible length of {length}", char::from(*.tag))]
    MessageLength {
        /// Its tag.
        tag: u8,
        /// The length, its own four bytes included.
        length: i32,
    },
    /// A message whose inside is broken.
    #[error("malformed message {:?}: {reason}", char::from(*.tag))]
    MalformedMessage {
        /// Its tag.
        tag: u8,
        /// How it is broken.
        reason: &'static str,
    },
    /// The COPY has other columns than the plan.
    #[error("the COPY has {} where the plan has {expected}", counted(*.found, "column"))]
    Columns {
        /// Columns of the plan.
        expected: u16,
        /// Columns of the COPY.
        found: i16,
    },
    /// The payload does not begin as COPY BINARY does.
    #[error("the COPY payload's header is malformed: {reason}")]
    PayloadHeader {
        /// How.
        reason: &'static str,
    },
    /// A row with another number of fields.
    #[error("row {row} has {} where the COPY has {expected}", counted(*.found, "field"))]
    FieldCount {
        /// 1-based, within the COPY.
        row: u64,
        /// Columns of the COPY.
        expected: u16,
        /// Fields of the row.
        found: i16,
    },
    /// A field with a negative length that is not NULL's.
    #[error("row {row}, field {field}: impossible length {length}")]
    FieldLength {
        /// 1-based, within the COPY.
        row: u64,
        /// 1-based.
        field: usize,
        /// The length.
        length: i32,
    },
    /// A row beyond what PostgreSQL itself can send.
    #[error("row {row} takes more than {MESSAGE_BYTES_MAX} bytes")]
    RowBytes {
        /// 1-based, within the COPY.
        row: u64,
    },
    /// The payload ended inside a row, or without its trailer.
    #[error("the COPY payload ends without its trailer, after {}", counted(*.rows, "row"))]
    Unfinished {
        /// Whole rows framed until then.
        rows: u64,
    },
    /// The payload went on after its trailer.
    #[error("the COPY payload goes on after its trailer")]
    BeyondTrailer,
    /// The server counted other rows than were framed.
    #[error("the server sent {} and says that it copied {reported}", counted(*.framed, "row"))]
    RowCount {
        /// Rows framed.
        framed: u64,
        /// n of `COPY n`.
        reported: u64,
    },
    /// The caller gave fewer bytes than were left over, more than 4 GiB, or went on after the end.
    #[error("the framer was used against its contract: {0}")]
    Misuse(&'static str),
}

impl FrameError {
    /// The class; `None` for a server error, whose SQLSTATE decides.
    pub(crate) fn fault(&self) -> Option<SourceFault> {
        match self {
            Self::Server { .. } => None,
            Self::Closed { .. } => Some(SourceFault::Unavailable),
            _ => Some(SourceFault::Protocol),
        }
    }
}

/// Checks tag and length as soon as they are known, before anyone waits for (or makes room for) the rest. Returns the
/// body's bytes.
pub(super) fn body_bytes(tag: u8, length: i32) -> Result<usize, FrameError> {
    let bytes = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_sub(4))
        .ok_or(FrameError::MessageLength { tag, length })?;
    let max = match tag {
        b'd' | b'E' | b'N' | b'A' => MESSAGE_BYTES_MAX,
        _ => SHORT_MESSAGE_BYTES_MAX,
    };
    if bytes > max {
        return Err(FrameError::MessageLength { tag, length });
    }
    Ok(bytes)
}

/// `CopyOutResponse`: binary as a whole and in each column, as many columns as the plan has.
pub(super) fn check_copy_out(body: &[u8], columns: u16) -> Result<(), FrameError> {
    let malformed = |reason| FrameError::MalformedMessage { tag: b'H', reason };
    let Some((&[format, high, low], codes)) = body.split_first_chunk::<3>() else {
        return Err(malformed("too short"));
    };
    let found = i16::from_be_bytes([high, low]);
    if format != 1 {
        return Err(malformed("the COPY is not binary"));
    }
    if u16::try_from(found) != Ok(columns) {
        return Err(FrameError::Columns { expected: columns, found });
    }
    if codes.len() != 2 * usize::from(columns) {
        return Err(malformed("not one format code for each column"));
    }
    if codes.chunks_exact(2).any(|code| code != [0, 1]) {
        return Err(malformed("a column that is not binary"));
    }
    Ok(())
}

/// n of the command tag `COPY n`.
pub(super) fn copied_rows(body: &[u8]) -> Result<u64, FrameError> {
    body.strip_suffix(&[0])
        .and_then(|tag| tag.strip_prefix(b"COPY "))
        .filter(|digits| digits.first().is_some_and(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .ok_or(FrameError::MalformedMessage { tag: b'C', reason: "not the command tag of a COPY" })
}

/// `ErrorResponse`: fields of one type byte and a terminated string, until a zero byte.
pub(crate) fn server_error(body: &[u8]) -> Result<ErrorResponse, FrameError> {
    let malformed = |reason| FrameError::MalformedMessage { tag: b'E', reason };
    let mut error = ErrorResponse::default();
    let mut rest = body;
    loop {
        let Some((&kind, tail)) = rest.split_first() else {
            return Err(malformed("no end of its fields"));
        };
        if kind == 0 {
            return Ok(error);
        }
        let Some(end) = tail.iter().position(|&byte| byte == 0) else {
            return Err(malformed("a field without its end"));
        };
        let text = String::from_utf8_lossy(&tail[..end]).into_owned();
        rest = &tail[end + 1..];
        match kind {
            // `S` comes first and is translated, `V` is not; servers before 9.6 and some poolers send only `S`.
            b'S' | b'V' => error.severity = text,
            b'C' => error.sqlstate = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            b'W' => error.context = Some(text),
            b'P' => error.character = text.parse().ok(),
            _ => {}
        }
    }
}
