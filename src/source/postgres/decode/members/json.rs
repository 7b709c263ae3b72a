//! Parts of a value in the JSON that the server made of it.

use super::{ODD, ValuePart, rewritten};
use crate::model::JsonNan;
use crate::source::postgres::decode::error::Problem;

/// Appends JSON as the choices have it; returns how many parts they changed.
pub(super) fn append(part: &ValuePart, nan: JsonNan, text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    let mut json = Json { text, at: 0, out, nan, changed: 0 };
    json.value(part)?;
    json.copy_to(text.len());
    Ok(json.changed)
}

/// A walk through JSON, of which everything up to `at` has been written.
struct Json<'a> {
    text: &'a [u8],
    at: usize,
    out: &'a mut Vec<u8>,
    nan: JsonNan,
    changed: u64,
}

impl Json<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn copy_to(&mut self, end: usize) {
        self.out.extend_from_slice(self.text.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn blanks(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.copy_to(self.at + blanks);
    }

    /// Copies one of the characters that structure JSON; returns it.
    fn mark(&mut self) -> Result<u8, Problem> {
        self.blanks();
        let mark = self.peek().filter(|mark| matches!(mark, b'{' | b'}' | b'[' | b']' | b',' | b':')).ok_or(ODD)?;
        self.copy_to(self.at + 1);
        Ok(mark)
    }

    fn value(&mut self, part: &ValuePart) -> Result<(), Problem> {
        self.blanks();
        match (part, self.peek()) {
            (ValuePart::Array(element), Some(b'[')) => self.array(element),
            (ValuePart::Composite(parts), Some(b'{')) => self.object(parts),
            (ValuePart::Number, Some(b'"')) => self.not_a_number(),
            (ValuePart::Padded | ValuePart::Bytes { .. }, Some(b'"')) => self.string(part),
            _ => self.kept(),
        }
    }

    /// An array, or a dimension of one.
    fn array(&mut self, element: &ValuePart) -> Result<(), Problem> {
        self.mark()?;
        self.blanks();
        if self.peek() == Some(b']') {
            return self.mark().map(drop);
        }
        loop {
            self.blanks();
            if self.peek() == Some(b'[') {
                self.array(element)?;
            } else {
                self.value(element)?;
            }
            match self.mark()? {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(ODD),
            }
        }
    }

    /// A composite, whose attributes stand in their order.
    fn object(&mut self, parts: &[ValuePart]) -> Result<(), Problem> {
        self.mark()?;
        for (place, part) in parts.iter().enumerate() {
            self.blanks();
            self.kept()?;
            if self.mark()? != b':' {
                return Err(ODD);
            }
            self.value(part)?;
            let last = place + 1 == parts.len();
            if self.mark()? != if last { b'}' } else { b',' } {
                return Err(ODD);
            }
        }
        Ok(())
    }

    fn not_a_number(&mut self) -> Result<(), Problem> {
        let end = self.string_end()?;
        let value = match &self.text[self.at..end] {
            b"\"NaN\"" => "NaN",
            b"\"Infinity\"" => "Infinity",
            b"\"-Infinity\"" => "-Infinity",
            _ => return Err(ODD),
        };
        if self.nan != JsonNan::Null {
            return Err(Problem::NoJsonNumber { value });
        }
        self.out.extend_from_slice(b"null");
        self.at = end;
        self.changed += 1;
        Ok(())
    }

    fn string(&mut self, part: &ValuePart) -> Result<(), Problem> {
        let end = self.string_end()?;
        let text = unescaped(&self.text[self.at + 1..end - 1])?;
        let Some(text) = rewritten(part, &text) else {
            self.copy_to(end);
            return Ok(());
        };
        self.out.push(b'"');
        escape(&text, self.out);
        self.out.push(b'"');
        self.at = end;
        self.changed += 1;
        Ok(())
    }

    /// Where the string ends that begins here, behind its closing quote.
    fn string_end(&self) -> Result<usize, Problem> {
        let mut at = self.at + 1;
        loop {
            match self.text.get(at).ok_or(ODD)? {
                b'"' => return Ok(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Copies a value of any kind.
    fn kept(&mut self) -> Result<(), Problem> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(ODD)? {
                b'"' => self.copy_to(self.string_end()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.copy_to(self.at + 1);
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(ODD)?;
                    self.copy_to(self.at + 1);
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let token = rest.iter().position(|byte| b"\"{}[]".contains(byte) || depth == 0 && ends(*byte));
                    let length = token.unwrap_or(rest.len());
                    if length == 0 {
                        return Err(ODD);
                    }
                    self.copy_to(self.at + length);
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Whether a byte ends a word or a number.
fn ends(byte: u8) -> bool {
    matches!(byte, b',' | b':') || byte.is_ascii_whitespace()
}

/// The inside of a JSON string as `escape_json` writes it, back.
fn unescaped(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first().ok_or(ODD)?;
        rest = after;
        out.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (digits, after) = rest.split_first_chunk::<4>().ok_or(ODD)?;
                rest = after;
                let digits = std::str::from_utf8(digits).map_err(|_| ODD)?;
                // Only control characters are written so.
                u8::from_str_radix(digits, 16).map_err(|_| ODD)?
            }
            other => other,
        });
    }
    Ok(out)
}

/// Appends the inside of a JSON string as `escape_json` writes it.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0x08 => out.extend(b"\\b"),
            0x0c => out.extend(b"\\f"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..=0x1f => {
                let digit = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                out.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}
