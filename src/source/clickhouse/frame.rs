//! Errors among rows: a server that fails in the middle of an answer has sent its status long ago, and writes the error behind
//! the rows. The scanner tells one from the other, over decompressed bytes, without IO.
//!
//! Three generations of servers do it in three ways:
//!
//! | server | behind the rows | the end of the answer |
//! |---|---|---|
//! | 25.11 and later | `\r\n__exception__\r\nTAG\r\nMESSAGE\nLENGTH TAG\r\n__exception__\r\n`, with the tag of a header | broken off |
//! | 24.11 to 25.10 | `__exception__\r\nMESSAGE`, or the message alone | broken off |
//! | before 24.11 | the message alone | as if all were well |
//!
//! The last bytes of an answer are held back until it has ended, so that no byte of an error is ever handed on.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes that are held back: a server cuts the whole frame to 16 KiB.
pub(crate) const HELD_BACK: usize = 32 * 1024;

const MARK: &[u8] = b"__exception__";

/// So many bytes of the line before a mark, and of the mark, are no row's by chance: `\r\n__ex`.
const BEGUN_BYTES: usize = 6;

/// Letters of a tag.
const TAG_BYTES: usize = 16;

/// What the end of an answer proves of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameProof {
    /// An error would have had the tag that the answer announced, and there is none.
    Tag,
    /// The answer announced no tag. There is nothing at its end that looks like an error.
    Looks,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameEnd {
    /// With its last row.
    Whole {
        /// The last bytes.
        rest: Bytes,
        /// What that rests on.
        proof: FrameProof,
    },
    /// With an error of the server's.
    Failed {
        /// The last bytes before it.
        rest: Bytes,
        /// What the server said, all of it or its beginning.
        message: String,
    },
    /// In the middle of something.
    Cut {
        /// The last bytes that are certainly none of an error.
        rest: Bytes,
    },
}

/// Takes an answer's body apart.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    tag: Option<Bytes>,
    held: VecDeque<Bytes>,
    held_bytes: usize,
}

impl FrameScanner {
    /// `tag` is the answer's header `X-ClickHouse-Exception-Tag`.
    pub(crate) fn new(tag: Option<&[u8]>) -> Self {
        let tag = tag.filter(|tag| tag.len() == TAG_BYTES).map(Bytes::copy_from_slice);
        Self { tag, held: VecDeque::new(), held_bytes: 0 }
    }

    /// Takes the next bytes, and appends to `out` those that can no longer be of an error.
    pub(crate) fn push(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        self.held_bytes = self.held_bytes.saturating_add(bytes.len());
        self.held.push_back(bytes);
        while let Some(over) = self.held_bytes.checked_sub(HELD_BACK).filter(|over| *over > 0) {
            let Some(mut first) = self.held.pop_front() else { break };
            let free = first.split_to(over.min(first.len()));
            self.held_bytes = self.held_bytes.saturating_sub(free.len());
            if !first.is_empty() {
                self.held.push_front(first);
            }
            if !free.is_empty() {
                out.push_back(free);
            }
        }
    }

    /// What is held back, as it is.
    pub(crate) fn into_held(self) -> Bytes {
        let mut tail = BytesMut::with_capacity(self.held_bytes);
        for piece in &self.held {
            tail.extend_from_slice(piece);
        }
        tail.freeze()
    }

    /// Says how the answer ended; `clean` is whether it ended as HTTP wants it.
    pub(crate) fn finish(self, clean: bool) -> FrameEnd {
        let tag = self.tag.clone();
        let tail = self.into_held();
        let error = match &tag {
            Some(tag) => tagged(&tail, tag),
            None => untagged(&tail),
        };
        match error {
            Some(Located { at, message }) => FrameEnd::Failed { rest: tail.slice(..at), message },
            None if clean && !begins_a_frame(&tail, tag.as_deref()) => {
                let proof = if tag.is_some() { FrameProof::Tag } else { FrameProof::Looks };
                FrameEnd::Whole { rest: tail, proof }
            }
            None => FrameEnd::Cut { rest: tail.slice(..certain(&tail, tag.as_deref())) },
        }
    }
}

/// An error in a tail.
struct Located {
    /// Where it begins.
    at: usize,
    message: String,
}

/// The opening of a frame.
fn opening(tag: &[u8]) -> Vec<u8> {
    [b"\r\n", MARK, b"\r\n", tag, b"\r\n"].concat()
}

/// The error with this tag. Whether it is whole does not matter: the tag is random, and stands in no row.
fn tagged(tail: &[u8], tag: &[u8]) -> Option<Located> {
    let opening = opening(tag);
    let at = last(tail, &opening)?;
    let framed = tail.get(at + opening.len()..)?;
    Some(Located { at, message: text(inside(framed, tag).unwrap_or(framed)) })
}

/// The message of a frame behind its opening, where the frame is whole.
fn inside<'a>(framed: &'a [u8], tag: &[u8]) -> Option<&'a [u8]> {
    let closing = [b" ", tag, b"\r\n", MARK, b"\r\n"].concat();
    let before = framed.strip_suffix(closing.as_slice())?;
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (message, length) = before.split_at_checked(before.len().checked_sub(digits)?)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    (length == message.len()).then_some(message)
}

/// An error where no tag was announced: a frame whose tag a proxy took out of the header, the mark of 24.11 to 25.10, or
/// the bare message.
fn untagged(tail: &[u8]) -> Option<Located> {
    marked(tail).or_else(|| bare(tail))
}

fn marked(tail: &[u8]) -> Option<Located> {
    let mark = [MARK, b"\r\n"].concat();
    let mut end = tail.len();
    // The last mark may be the end of a frame.
    while let Some(at) = last(tail.get(..end)?, &mark) {
        let behind = tail.get(at + mark.len()..)?;
        let before = tail.get(..at)?.strip_suffix(b"\r\n");
        let at_frame = before.map_or(at, <[u8]>::len);
        let tag = behind.get(..TAG_BYTES).filter(|tag| tag.iter().all(u8::is_ascii_lowercase));
        let framed = behind.get(TAG_BYTES..).and_then(|behind| behind.strip_prefix(b"\r\n"));
        if let (Some(tag), Some(framed)) = (tag, framed) {
            let message = inside(framed, tag).unwrap_or(framed);
            return Some(Located { at: at_frame, message: text(message) });
        }
        if code(behind).is_some() {
            return Some(Located { at: at_frame, message: text(behind) });
        }
        end = at;
    }
    None
}

/// The message alone. A row may read like one, so it must be the last thing, as a server ends it.
fn bare(tail: &[u8]) -> Option<Located> {
    let ended = ends_as_an_error(tail);
    let mut end = tail.len();
    while let Some(at) = last(tail.get(..end)?, b"Code: ") {
        let message = tail.get(at..)?;
        if code(message).is_some() && names_an_exception(message) {
            return ended.then(|| Located { at, message: text(message) });
        }
        end = at;
    }
    let longer = "an error that is longer than what is held back";
    // Its beginning has gone already: whoever wrote rows from it must not call them whole.
    (ended && tail.len() >= HELD_BACK).then(|| Located { at: 0, message: longer.to_owned() })
}

/// `Code: 395. ` and `Code: 395, `, as they begin a message.
fn code(message: &[u8]) -> Option<&[u8]> {
    let digits = message.strip_prefix(b"Code: ")?;
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let behind = digits.get(count..)?;
    (count > 0 && (behind.starts_with(b". ") || behind.starts_with(b", "))).then_some(behind)
}

/// `DB::Exception`, `DB::NetException` and their like.
fn names_an_exception(message: &[u8]) -> bool {
    let mut rest = message;
    while let Some(at) = first(rest, b"DB::") {
        let Some(behind) = rest.get(at + 4..) else { return false };
        let word = behind.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        if behind.get(..word).is_some_and(|word| word.ends_with(b"Exception")) {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether the last thing is the end of a server's message: `(version 24.3.2.23 (official build))`, or `e.what() =
/// DB::Exception` of old ones.
fn ends_as_an_error(tail: &[u8]) -> bool {
    let tail = tail.trim_ascii_end();
    if tail.ends_with(b")") {
        let versioned = last(tail, b"(version ").and_then(|at| tail.get(at + 9..));
        return versioned.is_some_and(|version| {
            version.len() < 200 && version.first().is_some_and(u8::is_ascii_digit) && !version.contains(&b'\n')
        });
    }
    let said = last(tail, b"e.what() = DB::").and_then(|at| tail.get(at + 15..));
    said.is_some_and(|word| {
        word.ends_with(b"Exception") && word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    })
}

/// Whether the tail ends in the middle of a frame's opening, and far enough in it that this is no chance: a connection that
/// was lost there, and a proxy that ended the answer as if it were whole.
fn begins_a_frame(tail: &[u8], tag: Option<&[u8]>) -> bool {
    let begun = [b"\r\n", MARK].concat();
    if (BEGUN_BYTES..begun.len()).any(|length| begun.get(..length).is_some_and(|begun| tail.ends_with(begun))) {
        return true;
    }
    let Some(at) = last(tail, MARK) else { return false };
    match tag {
        Some(tag) => {
            let opening = opening(tag);
            let begun = at.checked_sub(2).and_then(|start| tail.get(start..));
            begun.is_some_and(|begun| opening.starts_with(begun))
        }
        None => tail.len() - at <= MARK.len() + 2 + TAG_BYTES + 2,
    }
}

/// So much of a broken answer is certainly not of an error: the beginning of a frame or of a message may be the last thing.
fn certain(tail: &[u8], tag: Option<&[u8]>) -> usize {
    if let Some(tag) = tag {
        let opening = opening(tag);
        let cut = (1..=opening.len().min(tail.len()))
            .rev()
            .find(|length| opening.get(..*length).is_some_and(|beginning| tail.ends_with(beginning)));
        return tail.len().saturating_sub(cut.unwrap_or(0));
    }
    let marked =
        last(tail, MARK).map(|at| if tail.get(..at).is_some_and(|b| b.ends_with(b"\r\n")) { at - 2 } else { at });
    let bare = last(tail, b"Code: ");
    let begun = [&b"\r\n__exception__\r\n"[..], b"__exception__\r\n", b"Code: "].into_iter().filter_map(|known| {
        let longest = known.len().min(tail.len());
        (1..=longest).rev().find(|length| known.get(..*length).is_some_and(|part| tail.ends_with(part)))
    });
    let begun = tail.len().saturating_sub(begun.max().unwrap_or(0));
    [marked, bare].into_iter().flatten().fold(begun, usize::min)
}

/// So many bytes of an answer's tail are no beginning of a frame, where the answer turned out to be cut though it ended as a
/// whole one does.
pub(crate) fn before_an_opening(tail: &[u8]) -> usize {
    let begun = [b"\r\n", MARK, b"\r\n"].concat();
    let longest = (1..=begun.len().min(tail.len()))
        .rev()
        .find(|length| begun.get(..*length).is_some_and(|begun| tail.ends_with(begun)));
    tail.len().saturating_sub(longest.unwrap_or(0))
}

fn last(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).rposition(|window| window == wanted)
}

fn first(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The server cuts a message to its size, in the middle of a character where it comes so.
fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: &[u8] = b"rnwavjhyxghbwkly";

    const MESSAGE: &str = "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero: while executing \
        'FUNCTION throwIf(equals(number, 3))'. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.9.2.1)";

    fn frame(message: &[u8]) -> Vec<u8> {
        let length = (message.len() + 1).to_string();
        [b"\r\n__exception__\r\n", TAG, b"\r\n", message, b"\n", length.as_bytes(), b" ", TAG, b"\r\n__exception__\r\n"]
            .concat()
    }

    /// What is handed on before the end, and the end.
    fn scan(tag: Option<&[u8]>, pieces: &[&[u8]], clean: bool) -> (Vec<u8>, FrameEnd) {
        let (mut scanner, mut out) = (FrameScanner::new(tag), VecDeque::new());
        for piece in pieces {
            scanner.push(Bytes::copy_from_slice(piece), &mut out);
        }
        (Vec::from(out).concat(), scanner.finish(clean))
    }

    fn rest(end: &FrameEnd) -> &[u8] {
        match end {
            FrameEnd::Whole { rest, .. } | FrameEnd::Failed { rest, .. } | FrameEnd::Cut { rest } => rest,
        }
    }

    /// The old forms, as servers send them.
    fn old_forms() -> [String; 6] {
        let shown = "Value passed to 'throwIf' function is non zero";
        [
            format!("Code: 395, e.displayText() = DB::Exception: {shown}, e.what() = DB::Exception\n"),
            format!(
                "Code: 395, e.displayText() = DB::Exception: {shown}: while executing (version 20.3.5.21 (official build))\n"
            ),
            format!(
                "Code: 395. DB::Exception: {shown}: while executing. (FUNCTION_THROW) (version 23.8.1.2 (official build))\n"
            ),
            format!("__exception__\r\nCode: 395. DB::Exception: {shown} (version 24.12.1.1614 (official build))\n"),
            format!("\r\n__exception__\r\nCode: 395. DB::Exception: {shown} (version 25.1.1.1614 (official build))\n"),
            "Code: 210. DB::NetException: Connection reset by peer (NETWORK_ERROR) (version 25.8.1.1)\n".to_owned(),
        ]
    }

    #[test]
    fn a_frame_is_an_error_and_no_byte_of_it_is_handed_on() {
        let body = [b"1\t2\n", frame(MESSAGE.as_bytes()).as_slice()].concat();
        for clean in [true, false] {
            let (out, end) = scan(Some(TAG), &[&body], clean);
            assert_eq!((out.len(), rest(&end)), (0, &b"1\t2\n"[..]));
            assert!(matches!(&end, FrameEnd::Failed { message, .. } if message == MESSAGE), "{end:?}");
            // A proxy took the tag out of the header.
            let (_, end) = scan(None, &[&body], clean);
            assert!(
                matches!(&end, FrameEnd::Failed { message, rest } if message == MESSAGE && rest == "1\t2\n"),
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_frame_that_is_cut_at_any_byte_is_no_whole_answer() {
        let (rows, frame) = (b"1,2\r\n".as_slice(), frame(MESSAGE.as_bytes()));
        for tag in [Some(TAG), None] {
            for cut in 0..frame.len() {
                let body = [rows, &frame[..cut]].concat();
                let (out, end) = scan(tag, &[&body], false);
                assert!(out.is_empty() && !matches!(end, FrameEnd::Whole { .. }), "{cut}: {end:?}");
                // What of it could be the beginning of a frame is not rows for sure.
                assert!(rows.starts_with(rest(&end)), "{cut}: {end:?}");
                // And where a proxy ends it as if it were whole, all but the first bytes are told.
                let (_, end) = scan(tag, &[&body], true);
                assert!(cut < BEGUN_BYTES || !matches!(end, FrameEnd::Whole { .. }), "{cut}: {end:?}");
            }
        }
    }

    #[test]
    fn what_may_be_the_beginning_of_a_frame_is_left_out() {
        for (tail, kept) in
            [(&b"1\n"[..], 2), (b"1\n\r", 2), (b"1\n\r\n", 2), (b"1\n\r\n__exc", 2), (b"\r\n1", 3), (b"", 0)]
        {
            assert_eq!(before_an_opening(tail), kept, "{tail:?}");
        }
    }

    #[test]
    fn errors_of_old_servers_are_found_behind_rows_of_any_format() {
        for error in old_forms() {
            for rows in [&b"1\t2\n"[..], b"", b"\x00\x01\xff\xfe", "x".repeat(100_000).as_bytes()] {
                let body = [rows, error.as_bytes()].concat();
                for clean in [true, false] {
                    let (out, end) = scan(None, &[&body], clean);
                    let FrameEnd::Failed { rest, message } = end else { panic!("{error}: {end:?}") };
                    assert_eq!([out.as_slice(), &rest].concat(), rows, "{error}");
                    assert!(message.starts_with("Code: ") && message.contains("Exception"), "{message}");
                }
            }
        }
    }

    #[test]
    fn rows_that_read_like_errors_are_rows() {
        let log = format!("1\t{MESSAGE}\n2\tfine\n");
        let marks = "a\t\r\n__exception__\r\n and so on, for longer than a tag is, and then some\n".to_owned();
        for body in [log, marks, "Code: 7\n".to_owned(), "f(x)\n(version 1)\n".repeat(2)] {
            let (_, end) = scan(None, &[body.as_bytes()], true);
            assert_eq!(end, FrameEnd::Whole { rest: body.clone().into(), proof: FrameProof::Looks });
            let (_, end) = scan(Some(TAG), &[body.as_bytes()], true);
            assert_eq!(end, FrameEnd::Whole { rest: body.into(), proof: FrameProof::Tag });
        }
        // Where errors have a tag, nothing without it is one, however much it looks so.
        for error in old_forms() {
            let (_, end) = scan(Some(TAG), &[error.as_bytes()], true);
            assert_eq!(end, FrameEnd::Whole { rest: error.into(), proof: FrameProof::Tag });
        }
    }

    #[test]
    fn a_message_that_is_cut_in_a_character_is_shown() {
        let long = [MESSAGE.as_bytes(), "é".repeat(100_000).as_bytes()].concat();
        let body = frame(&long[..MESSAGE.len() + 14_001]);
        let (out, end) = scan(Some(TAG), &[&body], false);
        assert!(out.is_empty());
        assert!(matches!(&end, FrameEnd::Failed { message, .. } if message.ends_with('\u{fffd}')), "{end:?}");
        // An old server sends all of it, and its beginning is no longer here.
        let old = format!("{}{} (version 23.8.1.2 (official build))\n", &MESSAGE[..40], "x".repeat(100_000));
        let (_, end) = scan(None, &[old.as_bytes()], true);
        assert!(matches!(end, FrameEnd::Failed { .. }), "{end:?}");
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn wherever_an_answer_is_cut_it_says_the_same(
            rows in proptest::collection::vec(any::<u8>(), 0..80_000),
            message in "Code: [1-9]{1,3}\\. DB::Exception: .{0,200}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            failed in any::<bool>(),
            clean in any::<bool>(),
        ) {
            let error = frame(message.as_bytes());
            let body = if failed { [rows.as_slice(), &error].concat() } else { rows.clone() };
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            ends.extend([0, body.len()]);
            ends.sort_unstable();
            let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            let (out, end) = scan(Some(TAG), &pieces, clean);
            prop_assert!(out.len() >= body.len().saturating_sub(HELD_BACK));
            let handed = [out.as_slice(), rest(&end)].concat();
            match &end {
                FrameEnd::Failed { message: told, .. } => {
                    prop_assert!(failed);
                    prop_assert_eq!(told.as_bytes(), message.as_bytes().trim_ascii());
                    prop_assert_eq!(&handed, &rows);
                }
                FrameEnd::Whole { .. } => {
                    prop_assert!(clean && !failed);
                    prop_assert_eq!(&handed, &rows);
                }
                FrameEnd::Cut { .. } => {
                    prop_assert!(!clean && !failed);
                    prop_assert!(rows.starts_with(&handed));
                }
            }
        }

        #[test]
        fn whatever_comes_nothing_is_invented(
            body in proptest::collection::vec(prop_oneof![
                Just(b"__exception__".to_vec()), Just(b"\r\n".to_vec()), Just(TAG.to_vec()), Just(b"Code: 395. ".to_vec()),
                Just(b"DB::Exception".to_vec()), Just(b" (version 1.2)".to_vec()), Just(b"12 ".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..9),
            ], 0..12),
            tagged in any::<bool>(),
            clean in any::<bool>(),
        ) {
            let body = body.concat();
            let (out, end) = scan(tagged.then_some(TAG), &[&body], clean);
            prop_assert!(body.starts_with(&[out.as_slice(), rest(&end)].concat()));
            let whole = matches!(end, FrameEnd::Whole { .. });
            prop_assert!(clean || !whole);
        }
    }
}
