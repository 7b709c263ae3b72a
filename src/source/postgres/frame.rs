//! The COPY BINARY framer: backend messages in, positions of fields out. No IO, and nothing is copied but what messages
//! cut apart.
//!
//! Two cuts are to be undone. The network cuts the byte stream anywhere: a message is looked at only once it is whole.
//! Messages cut the COPY payload: the server sends a row a message, but the protocol promises nothing, so the payload is
//! read as one stream. Where a message ends inside a row, the next payload is moved left over its own header to join
//! it. Each byte moves once for that, so the cost stays linear whatever the cuts are.

mod fields;
#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod fuzz_tests;
mod message;
mod payload;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "bench"))]
pub(crate) mod wire;

pub(crate) use fields::{Field, FieldTable};
pub(crate) use message::{ErrorResponse, FrameError, HEADER_BYTES, server_error};

use crate::base::memory::MESSAGE_BYTES_MAX;
use message::{body_bytes, check_copy_out, copied_rows};
use payload::{Unit, frame_header, frame_message, frame_row};

/// What a call of [`Framer::frame`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framed {
    /// Bytes of the input that are done with once the table's rows are: the next input begins with the rest.
    pub(crate) consumed: usize,
    /// What comes next.
    pub(crate) state: FrameState,
}

/// Why a call of [`Framer::frame`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameState {
    /// The input has no further whole message: read until it has [`Framer::needed_bytes`].
    NeedMore,
    /// The table holds as many rows as were asked for; there may be more in the input.
    Full,
    /// `ReadyForQuery`: the server confirmed the number of rows, and the session is quiet.
    Ready,
}

/// Frames one COPY, from the answers to Parse and Bind to `ReadyForQuery`.
#[derive(Debug)]
pub(crate) struct Framer {
    columns: u16,
    stage: Stage,
    held: Held,
    rows: u64,
    notices: u64,
    needed: usize,
}

#[derive(Debug)]
enum Stage {
    /// Before `CopyOutResponse`.
    Opening,
    /// Between `CopyOutResponse` and `CopyDone`.
    Copying(Payload),
    /// Before `CommandComplete`.
    Done,
    /// Before `ReadyForQuery`.
    Complete,
    /// The server reported an error; before `ReadyForQuery`.
    Failed(Box<ErrorResponse>),
    /// Ready or failed: nothing more to frame.
    Ended,
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Opening => "waiting for the COPY to begin",
            Self::Copying(_) => "copying",
            Self::Done => "waiting for the COPY's command tag",
            Self::Complete => "waiting for the end of the COPY",
            Self::Failed(_) => "waiting for the end of the failed COPY",
            Self::Ended => "nothing is awaited",
        }
    }
}

/// Where in the payload the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    Header,
    Rows,
    Trailed,
}

/// How the leftover of the last call begins: payload of messages whose headers are gone, then a gap of bytes that mean
/// nothing, then messages.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    payload: usize,
    gap: usize,
    /// Payload bytes below which looking at them again is in vain.
    wanted: usize,
}

/// Positions in the input during one call: unframed payload in `start..end`, the next message at `read`.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: usize,
    end: usize,
    read: usize,
}

impl Window {
    /// The first byte that is still needed.
    fn keep(&self) -> usize {
        if self.start == self.end { self.read } else { self.start }
    }
}

enum Message {
    Payload,
    Other,
    /// Whole once the input reaches this position.
    Partial(usize),
    Ready,
}

impl Framer {
    /// A framer for a COPY of so many columns.
    pub(crate) fn new(columns: u16) -> Self {
        Self { columns, stage: Stage::Opening, held: Held::default(), rows: 0, notices: 0, needed: HEADER_BYTES }
    }

    /// Frames as much of `input` as is whole, at most `max_rows` rows (and at least one: 0 counts as 1).
    ///
    /// `input` is the leftover of the last call (`input[consumed..]`), untouched, followed by what was read since; 4 GiB
    /// at most. Its bytes may be moved about; `fields` is emptied first and then holds places in `input` as it is after
    /// the call. Its rows are valid in each of the three states.
    ///
    /// # Errors
    /// A server error once the session is quiet again, a violation of the protocol, or a count of rows that the server
    /// does not confirm. The table's rows are void then, and the framer is spent.
    pub(crate) fn frame(
        &mut self,
        input: &mut [u8],
        fields: &mut FieldTable,
        max_rows: usize,
    ) -> Result<Framed, FrameError> {
        fields.clear(usize::from(self.columns));
        if matches!(self.stage, Stage::Ended) {
            return Err(FrameError::Misuse("it has ended"));
        }
        let framed = self.advance(input, fields, max_rows.max(1));
        if framed.is_err() {
            self.stage = Stage::Ended;
        }
        framed
    }

    /// After [`FrameState::NeedMore`]: the length that the leftover must reach before another call can get further.
    /// A message is never longer than it says, so waiting for this many bytes cannot hang.
    pub(crate) fn needed_bytes(&self) -> usize {
        self.needed
    }

    /// Rows framed so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Notices the server sent so far.
    pub(crate) fn notices(&self) -> u64 {
        self.notices
    }

    /// What it means that the connection was closed now: the server's last words, if it had any.
    pub(crate) fn closed(self) -> FrameError {
        match self.stage {
            Stage::Failed(error) => FrameError::Server { error, reusable: false },
            _ => FrameError::Closed { rows: self.rows },
        }
    }

    fn advance(&mut self, input: &mut [u8], fields: &mut FieldTable, max_rows: usize) -> Result<Framed, FrameError> {
        let mut window = Window { start: 0, end: self.held.payload, read: self.held.payload + self.held.gap };
        if input.len() < window.read {
            return Err(FrameError::Misuse("the leftover is gone"));
        }
        if u32::try_from(input.len()).is_err() {
            return Err(FrameError::Misuse("more than 4 GiB of input"));
        }
        loop {
            if self.whole_rows(input, &mut window, fields, max_rows) {
                return Ok(self.hold(input, window, FrameState::Full));
            }
            if self.payload(&input[..window.end], &mut window, fields, max_rows)? {
                return Ok(self.hold(input, window, FrameState::Full));
            }
            match self.message(input, &mut window)? {
                Message::Payload | Message::Other => {}
                Message::Partial(end) => {
                    let framed = self.hold(input, window, FrameState::NeedMore);
                    self.needed = end - framed.consumed;
                    return Ok(framed);
                }
                Message::Ready => return Ok(self.hold(input, window, FrameState::Ready)),
            }
        }
    }

    /// Frames rows that have a message each, as servers send them; true once `fields` is full. It stops before the first
    /// byte that is anything else, right or wrong.
    fn whole_rows(&mut self, input: &[u8], window: &mut Window, fields: &mut FieldTable, max_rows: usize) -> bool {
        if window.start < window.end || !matches!(self.stage, Stage::Copying(Payload::Rows)) {
            return false;
        }
        while let Some(end) = frame_message(input, window.read, self.columns, fields.next_row()) {
            *window = Window { start: end, end, read: end };
            fields.commit_row();
            self.rows += 1;
            if fields.rows() >= max_rows {
                return true;
            }
        }
        false
    }

    /// Frames the rows of `window.start..window.end`; true once `fields` is full.
    fn payload(
        &mut self,
        input: &[u8],
        window: &mut Window,
        fields: &mut FieldTable,
        max_rows: usize,
    ) -> Result<bool, FrameError> {
        while window.start < window.end && window.end - window.start >= self.held.wanted {
            let Stage::Copying(payload) = &mut self.stage else {
                return Err(FrameError::Misuse("payload outside of a COPY"));
            };
            let bytes = &input[window.start..];
            let unit = match payload {
                Payload::Header => frame_header(bytes)?,
                Payload::Rows => frame_row(bytes, window.start, fields.next_row(), self.rows)?,
                Payload::Trailed => return Err(FrameError::BeyondTrailer),
            };
            self.held.wanted = 0;
            match unit {
                Unit::Whole(length) => {
                    window.start += length;
                    if *payload == Payload::Header {
                        *payload = Payload::Rows;
                        continue;
                    }
                    fields.commit_row();
                    self.rows += 1;
                    if fields.rows() >= max_rows {
                        return Ok(true);
                    }
                }
                Unit::Trailer => {
                    window.start += 2;
                    *payload = Payload::Trailed;
                }
                Unit::Short(wanted) if wanted > MESSAGE_BYTES_MAX => {
                    return Err(FrameError::RowBytes { row: self.rows + 1 });
                }
                Unit::Short(wanted) => self.held.wanted = wanted,
            }
        }
        Ok(false)
    }

    /// Takes the next message, if it is whole, and moves a payload to the end of the unframed one.
    fn message(&mut self, input: &mut [u8], window: &mut Window) -> Result<Message, FrameError> {
        let Some(&[tag, a, b, c, d]) = input[window.read..].first_chunk::<HEADER_BYTES>() else {
            return Ok(Message::Partial(window.read + HEADER_BYTES));
        };
        self.check_tag(tag)?;
        let body = window.read + HEADER_BYTES;
        let end = body + body_bytes(tag, i32::from_be_bytes([a, b, c, d]))?;
        if end > input.len() {
            return Ok(Message::Partial(end));
        }
        window.read = end;
        if tag != b'd' {
            return self.control(tag, &input[body..end], window, end == input.len());
        }
        if window.start == window.end {
            window.start = body;
            window.end = end;
        } else {
            input.copy_within(body..end, window.end);
            window.end += end - body;
        }
        Ok(Message::Payload)
    }

    /// Refuses a message that has no place at this stage before anyone waits for its end.
    fn check_tag(&self, tag: u8) -> Result<(), FrameError> {
        let expected = match (&self.stage, tag) {
            (Stage::Ended, _) => false,
            (_, b'N' | b'S' | b'A' | b'E')
            | (Stage::Opening, b'1' | b'2' | b'n' | b'H')
            | (Stage::Copying(_), b'd' | b'c')
            | (Stage::Done, b'C')
            | (Stage::Complete | Stage::Failed(_), b'Z') => true,
            _ => false,
        };
        if expected {
            return Ok(());
        }
        Err(FrameError::UnexpectedMessage { tag, stage: self.stage.name() })
    }

    /// Everything but `CopyData`, already known to be expected.
    fn control(&mut self, tag: u8, body: &[u8], window: &mut Window, last: bool) -> Result<Message, FrameError> {
        match tag {
            b'N' => self.notices += 1,
            b'H' => {
                check_copy_out(body, self.columns)?;
                self.stage = Stage::Copying(Payload::Header);
            }
            b'c' => {
                let trailed = matches!(self.stage, Stage::Copying(Payload::Trailed));
                if !trailed || window.start < window.end {
                    return Err(FrameError::Unfinished { rows: self.rows });
                }
                self.stage = Stage::Done;
            }
            b'C' => {
                let reported = copied_rows(body)?;
                if reported != self.rows {
                    return Err(FrameError::RowCount { framed: self.rows, reported });
                }
                self.stage = Stage::Complete;
            }
            b'E' => {
                let error = server_error(body)?;
                // Half a row may be held: it will never be whole.
                window.start = window.end;
                self.held.wanted = 0;
                // The first error is the cause; a later one says that the connection goes, too.
                if !matches!(self.stage, Stage::Failed(_)) {
                    self.stage = Stage::Failed(Box::new(error));
                }
            }
            b'Z' => {
                if !matches!(body, [b'I' | b'T' | b'E']) {
                    return Err(FrameError::MalformedMessage { tag, reason: "no transaction status" });
                }
                return match std::mem::replace(&mut self.stage, Stage::Ended) {
                    Stage::Failed(error) => Err(FrameError::Server { error, reusable: last }),
                    _ => Ok(Message::Ready),
                };
            }
            _ => {}
        }
        Ok(Message::Other)
    }

    /// Leaves the unframed payload for the next call. It is moved up to the next message once that costs no more than
    /// the bytes it frees; until then the gap stays.
    fn hold(&mut self, input: &mut [u8], window: Window, state: FrameState) -> Framed {
        let payload = window.end - window.start;
        let gap = window.read - window.end;
        let (consumed, gap) = if payload == 0 {
            (window.read, 0)
        } else if gap >= payload {
            input.copy_within(window.start..window.end, window.read - payload);
            (window.read - payload, 0)
        } else {
            (window.keep(), gap)
        };
        self.held = Held { payload, gap, wanted: self.held.wanted };
        Framed { consumed, state }
    }
}
