//! What shows that nothing is missing from an answer that is written as it came, once it has ended.
//!
//! A clean end of HTTP is not enough: whatever stands between may have lost the server and ended the answer itself, as nginx
//! does that asks in HTTP/1.0. An error of the server's has a mark (`frame`), and a lost connection to it has none. So the end
//! is looked for where only the server can have written it.

use std::time::{Duration, Instant};

use super::super::{SourceError, SourceFault};
use super::body::ClickHouseBody;
use super::ending::{EndShown, FormatEnd};
use super::error::ClickHouseError;
use super::frame::FrameProof;
use super::settings::ClickHouseSession;
use crate::base::failpoint;
use crate::base::words::counted;

/// How often the server's log of queries is looked at, and how long between: it is written every 7.5 s.
const LOG_LOOKS: u32 = 12;
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// An answer that took so long is worth the wait for the log: it makes the export longer by a twentieth.
const LOG_WORTH: Duration = Duration::from_secs(160);

/// Servers since then mark their errors, and say in the log how many bytes they sent.
const MARKED_SINCE: (u32, u32) = (25, 11);

/// Bytes of an answer's head, and of each of its chunks, which are counted as sent.
const HEAD_BYTES: u64 = 4 * 1024;
const CHUNK_BYTES: u64 = 16;

/// More bytes than these, and a quarter of what came, are missing for sure.
const UNCLEAR_BYTES: u64 = 64 * 1024;

/// What shows that nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerProof {
    /// The server compressed the answer, and the end of that came.
    Compression,
    /// The format has an end of its own, which came.
    Format,
    /// The server's log says that the query came to its end, and that no more was sent than came.
    Log,
    /// An error of the server's would have a mark. That nothing was cut is told by HTTP alone.
    Http,
    /// The last bytes do not look like an error.
    Looks,
}

impl AnswerProof {
    /// As the manifest has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Compression => "compressed_end",
            Self::Format => "format_end",
            Self::Log => "query_log",
            Self::Http => "http_end",
            Self::Looks => "heuristic",
        }
    }

    /// What somebody must know who relies on it.
    pub(crate) fn note(self) -> Option<&'static str> {
        match self {
            Self::Compression | Self::Format | Self::Log => None,
            Self::Http => Some(
                "an error of the server's would have been seen; that nothing was cut on the way is told by the end of HTTP alone",
            ),
            Self::Looks => Some(
                "this server writes errors among its rows as if they were rows: that there is none was seen by the last bytes \
                 only, since its log of queries could not be asked",
            ),
        }
    }

    /// For the plan.
    pub(crate) fn told(self) -> &'static str {
        match self {
            Self::Compression => "the end of what the server compresses",
            Self::Format => "the end that the format has",
            Self::Log => "the server's log of queries, where this user may read it",
            Self::Http => {
                "the end of HTTP, which a proxy that loses the server may write itself; ?compression=zstd behind the URL \
                 has an end of the server's own"
            }
            Self::Looks => "the last bytes of the answer",
        }
    }
}

/// What will show it, as far as that is known before the statement is sent.
pub(crate) fn expected(session: &ClickHouseSession, format: &str) -> AnswerProof {
    let marked = session.release() >= MARKED_SINCE;
    match FormatEnd::of(format) {
        _ if marked && session.packs() => AnswerProof::Compression,
        FormatEnd::Mark(_) | FormatEnd::Postscript => AnswerProof::Format,
        _ if !marked || session.between().is_some() => AnswerProof::Log,
        _ => AnswerProof::Http,
    }
}

/// An answer whose last byte has come.
#[derive(Debug)]
pub(crate) struct EndedAnswer<'a> {
    pub(crate) session: &'a ClickHouseSession,
    pub(crate) body: &'a ClickHouseBody,
    pub(crate) query_id: &'a str,
    pub(crate) format: &'a str,
    pub(crate) last: &'a [u8],
    /// When the statement was sent.
    pub(crate) asked: Instant,
}

/// What the log of queries says of one.
enum QueryLogged {
    /// Nothing, or nobody may read it.
    Nothing,
    Finished {
        sent: Option<u64>,
    },
}

impl EndedAnswer<'_> {
    /// Looks for what shows that nothing is missing.
    ///
    /// # Errors
    /// Something is missing, or the log says that the query failed.
    ///
    /// # Cancel safety
    /// It may be dropped: it only asks.
    pub(crate) async fn proof(&self) -> Result<AnswerProof, SourceError> {
        let ending = FormatEnd::of(self.format).judge(self.last);
        if ending == EndShown::Cut && !failpoint::off("format_end") {
            return Err(cut(&format!("it does not end as {} does", self.format)));
        }
        let marked = self.body.proof() == Some(FrameProof::Tag);
        if marked && self.body.is_packed() {
            return Ok(AnswerProof::Compression);
        }
        if ending == EndShown::Whole {
            return Ok(AnswerProof::Format);
        }
        let long = self.asked.elapsed() >= failpoint::limit("query_log_worth", LOG_WORTH);
        let asks = !marked || long || self.session.between().is_some();
        if asks && !failpoint::off("query_log") && self.is_logged().await? {
            return Ok(AnswerProof::Log);
        }
        Ok(if marked { AnswerProof::Http } else { AnswerProof::Looks })
    }

    /// Whether the log says that all was sent, and that no more than came.
    async fn is_logged(&self) -> Result<bool, SourceError> {
        let QueryLogged::Finished { sent } = self.logged().await? else { return Ok(false) };
        let came = self.body.received();
        // What a proxy unpacked is larger than what was sent, and says nothing.
        let Some(over) = sent.and_then(|sent| sent.checked_sub(came)) else { return Ok(true) };
        let framing = HEAD_BYTES.saturating_add(CHUNK_BYTES.saturating_mul(self.body.pieces()));
        if over <= framing {
            return Ok(true);
        }
        // The server may have sent small chunks, which a proxy put together: they count too, and may explain as much.
        if over <= UNCLEAR_BYTES.saturating_add(came / 4) {
            return Ok(false);
        }
        let sent = counted(came.saturating_add(over), "byte");
        Err(cut(&format!("the server's log says that it sent {sent}, and {} came", counted(came, "byte"))))
    }

    /// # Errors
    /// It says that the query failed.
    async fn logged(&self) -> Result<QueryLogged, SourceError> {
        let counted = self.session.release() >= MARKED_SINCE;
        let sent = if counted { "toString(ProfileEvents['InterfaceHTTPSendBytes'])" } else { "'0'" };
        let sql = format!(
            "SELECT toString(type), exception, {sent} FROM system.query_log \
             WHERE query_id = '{}' AND event_date >= today() - 2 AND type != 'QueryStart' LIMIT 1",
            self.query_id
        );
        for _ in 0..LOG_LOOKS {
            let Ok(rows) = self.session.ask("looking for the query in the server's log", &sql, &[]).await else {
                return Ok(QueryLogged::Nothing);
            };
            match rows.first().map(Vec::as_slice) {
                Some([Some(kind), _, Some(sent)]) if kind == "QueryFinish" => {
                    return Ok(QueryLogged::Finished { sent: sent.parse().ok().filter(|sent| *sent > 0) });
                }
                Some([Some(kind), ..]) if kind == "QueryFinish" => return Ok(QueryLogged::Finished { sent: None }),
                Some([_, exception, ..]) => {
                    let message = exception.clone().unwrap_or_default();
                    return Err(ClickHouseError::of_text(&message, None).while_doing("reading the answer"));
                }
                _ => tokio::time::sleep(failpoint::limit("query_log", LOG_PAUSE)).await,
            }
        }
        Ok(QueryLogged::Nothing)
    }
}

/// An answer that ended as a whole one does, and is none.
fn cut(why: &str) -> SourceError {
    SourceError::new(SourceFault::Unavailable, format!("reading the answer: it was cut on the way: {why}"))
        .with_hint("a proxy between lost the server and ended the answer as if it were whole: look at its time limits")
}
