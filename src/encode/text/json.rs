//! JSON strings as PostgreSQL's `escape_json` writes them, and JSON without its insignificant whitespace.

use crate::base::text::exact::kept_by_double;

/// Appends `text` as a JSON string, quotes included: `\b \f \n \r \t \" \\`, `\u00xx` for the other control
/// characters, everything else as it is.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends the inside of a JSON string.
fn escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(plain) = first_escape(text) {
        out.extend_from_slice(&text[..plain]);
        escape(out, text[plain]);
        text = &text[plain + 1..];
    }
    out.extend_from_slice(text);
}

/// Where the first byte stands that cannot be copied as it is.
fn first_escape(text: &[u8]) -> Option<usize> {
    const LANES: usize = 16;
    let (blocks, rest) = text.as_chunks::<LANES>();
    // Without early exit inside a block, the compiler compares all of it in a few instructions.
    let clean =
        blocks.iter().take_while(|block| !block.iter().fold(false, |found, &byte| found | needs_escape(byte))).count();
    let from = clean * LANES;
    let tail = if clean == blocks.len() { rest } else { &text[from..] };
    tail.iter().position(|&byte| needs_escape(byte)).map(|at| from + at)
}

/// Whether a byte of a string cannot be copied as it is.
#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "branches would keep the compiler from comparing many bytes at once")]
pub(crate) fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digits = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(digits[usize::from(byte >> 4)]);
            out.push(digits[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends valid JSON without the whitespace between its tokens. Strings and numbers stay as they are.
pub(crate) fn compact(out: &mut Vec<u8>, mut json: &[u8]) {
    loop {
        let Some(at) = json.iter().position(|&byte| matches!(byte, b'"' | b' ' | b'\n' | b'\r' | b'\t')) else {
            out.extend_from_slice(json);
            return;
        };
        if json[at] == b'"' {
            let end = at + string_length(&json[at..]);
            out.extend_from_slice(&json[..end]);
            json = &json[end..];
        } else {
            out.extend_from_slice(&json[..at]);
            json = &json[at + 1..];
        }
    }
}

/// As [`compact`], with every number that a 64-bit float does not keep as a string of its own digits. Returns whether
/// there was one.
pub(crate) fn compact_for_doubles(out: &mut Vec<u8>, mut json: &[u8]) -> bool {
    let mut changed = false;
    let stops = |byte: &u8| matches!(byte, b'"' | b' ' | b'\n' | b'\r' | b'\t' | b'-' | b'0'..=b'9');
    while let Some(at) = json.iter().position(stops) {
        out.extend_from_slice(&json[..at]);
        json = &json[at..];
        let length = match json[0] {
            b'"' => string_length(json),
            b'-' | b'0'..=b'9' => number_length(json),
            _ => {
                json = &json[1..];
                continue;
            }
        };
        let (token, rest) = json.split_at(length);
        let kept = token[0] == b'"' || kept_by_double(token);
        if kept {
            out.extend_from_slice(token);
        } else {
            out.push(b'"');
            out.extend_from_slice(token);
            out.push(b'"');
            changed = true;
        }
        json = rest;
    }
    out.extend_from_slice(json);
    changed
}

/// The length of the number that `json` begins with.
fn number_length(json: &[u8]) -> usize {
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    json.iter().position(|byte| !in_number(byte)).unwrap_or(json.len())
}

/// The length of the JSON string that `json` begins with, both quotes included; all of it where none closes.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = json.get(at..).and_then(|rest| rest.iter().position(|&byte| matches!(byte, b'"' | b'\\'))) {
        if json[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compacted(json: &str) -> String {
        let mut out = Vec::new();
        compact(&mut out, json.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_whitespace_between_tokens_goes() {
        for (json, expected) in [
            ("{\"a\": 1, \"b\" : [ ] }", "{\"a\":1,\"b\":[]}"),
            (" \"a b\\\" c\" ", "\"a b\\\" c\""),
            ("[\"\\\\\", \" \"]", "[\"\\\\\",\" \"]"),
            ("{\n\t\"k\":\r\n1.50e+2}", "{\"k\":1.50e+2}"),
            ("null", "null"),
            ("{\"a\": 1, \"a\": 2}", "{\"a\":1,\"a\":2}"),
            ("\"open \\", "\"open \\"),
        ] {
            assert_eq!(compacted(json), expected);
        }
    }

    #[test]
    fn strings_escape_what_postgres_escapes() {
        let mut out = Vec::new();
        string(&mut out, "a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}é\u{2028}".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\u{7f}é\u{2028}\"");
    }

    fn for_doubles(json: &str) -> (String, bool) {
        let mut out = Vec::new();
        let changed = compact_for_doubles(&mut out, json.as_bytes());
        (String::from_utf8(out).unwrap(), changed)
    }

    #[test]
    fn numbers_that_doubles_change_become_strings() {
        for (json, expected) in [
            ("9007199254740993", "\"9007199254740993\""),
            (
                "[-9007199254740993 , 1e400,{\"a\" : 0.10000000000000001}]",
                "[\"-9007199254740993\",\"1e400\",{\"a\":\"0.10000000000000001\"}]",
            ),
            ("{\"9007199254740993\": 12345678901234567890}", "{\"9007199254740993\":\"12345678901234567890\"}"),
            ("[1.7976931348623159E+308]", "[\"1.7976931348623159E+308\"]"),
        ] {
            assert_eq!(for_doubles(json), (expected.to_owned(), true));
        }
        for json in [
            "9007199254740992",
            "[0.1, 0.30, -0.0, 1E5, 1e23]",
            "{\"a\\\" 9007199254740993\": \"9007199254740993\"}",
            "[true, false, null, \"\"]",
            "\"open 9007199254740993",
            " ",
            "",
        ] {
            assert_eq!(for_doubles(json), (compacted(json), false));
        }
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn only_the_quotes_around_numbers_are_new(json in "([\\[\\]{},: ]|\"[0-9e \\\\\"]{0,20}\"|-?[0-9]{1,20}(\\.[0-9]{1,4})?(e-?[0-9]{1,3})?|true|null){0,12}") {
            let (written, changed) = for_doubles(&json);
            let without = |text: &str| text.replace('"', "");
            prop_assert_eq!(without(&written), without(&compacted(&json)));
            prop_assert_eq!(changed, written != compacted(&json));
        }

        #[test]
        fn strings_read_back(text in any::<String>()) {
            let mut out = Vec::new();
            string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn compacting_pretty_json_gives_compact_json(words in prop::collection::btree_map(any::<String>(), any::<(i64, String)>(), 0..5)) {
            let pretty = serde_json::to_string_pretty(&words).unwrap();
            prop_assert_eq!(compacted(&pretty), serde_json::to_string(&words).unwrap());
        }
    }
}
