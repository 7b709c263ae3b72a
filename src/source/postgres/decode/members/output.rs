//! Parts of a value in its output text.

use super::{ODD, ValuePart, rewritten};
use crate::source::postgres::decode::error::Problem;

/// The output text of a part, rewritten.
pub(super) fn append(part: &ValuePart, text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    match part {
        ValuePart::Array(element) => array(element, text, out),
        ValuePart::Composite(parts) => record(parts, text, out),
        scalar => {
            let changed = rewritten(scalar, text);
            out.extend_from_slice(changed.as_deref().unwrap_or(text));
            Ok(u64::from(changed.is_some()))
        }
    }
}

/// `[2:3]={"a b",c,NULL}`. Every type whose parts are rewritten has the comma as its delimiter.
fn array(element: &ValuePart, text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    let mut at = text.iter().position(|&byte| byte == b'{').ok_or(ODD)?;
    out.extend_from_slice(&text[..at]);
    let mut changed = 0;
    while let Some(&byte) = text.get(at) {
        if matches!(byte, b'{' | b'}' | b',') {
            out.push(byte);
            at += 1;
            continue;
        }
        let (value, end) = token(text, at, b"{},")?;
        if text[at..end] == *b"NULL" {
            out.extend_from_slice(b"NULL");
        } else {
            changed += quoted(element, &value, &text[at..end], out, OutputQuoting::Array)?;
        }
        at = end;
    }
    Ok(changed)
}

/// `(1,"a b",)`.
fn record(parts: &[ValuePart], text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    if text.first() != Some(&b'(') {
        return Err(ODD);
    }
    out.push(b'(');
    let (mut at, mut changed) = (1, 0);
    for (place, part) in parts.iter().enumerate() {
        // Nothing between two commas is NULL.
        if !matches!(text.get(at), Some(b',' | b')')) {
            let (value, end) = token(text, at, b"(),")?;
            changed += quoted(part, &value, &text[at..end], out, OutputQuoting::Record)?;
            at = end;
        }
        let mark = if place + 1 == parts.len() { b')' } else { b',' };
        if text.get(at) != Some(&mark) {
            return Err(ODD);
        }
        out.push(mark);
        at += 1;
    }
    if at == text.len() { Ok(changed) } else { Err(ODD) }
}

/// One element or attribute that is not NULL: what it means, and where it ends. Inside quotes `\` stands before what is
/// meant as it is, and a quote twice is one, as records have it.
fn token(text: &[u8], at: usize, marks: &[u8]) -> Result<(Vec<u8>, usize), Problem> {
    if text.get(at) != Some(&b'"') {
        let rest = text.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| marks.contains(byte)).ok_or(ODD)?;
        return Ok((rest[..length].to_vec(), at + length));
    }
    let (mut value, mut at) = (Vec::new(), at + 1);
    loop {
        match (text.get(at).ok_or(ODD)?, text.get(at + 1)) {
            (b'\\', Some(&escaped)) => {
                value.push(escaped);
                at += 2;
            }
            (b'"', Some(b'"')) => {
                value.push(b'"');
                at += 2;
            }
            (b'"', _) => return Ok((value, at + 1)),
            (&byte, _) => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

/// Whose rules of quoting hold.
#[derive(Debug, Clone, Copy)]
enum OutputQuoting {
    /// `array_out`.
    Array,
    /// `record_out`.
    Record,
}

impl OutputQuoting {
    fn needs_quotes(self, text: &[u8]) -> bool {
        let (marks, null) = match self {
            Self::Array => (b"{}", text.eq_ignore_ascii_case(b"NULL")),
            Self::Record => (b"()", false),
        };
        let is_special = |byte: &u8| {
            marks.contains(byte) || matches!(byte, b'"' | b'\\' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
        };
        null || text.is_empty() || text.iter().any(is_special)
    }

    /// What stands before a quote inside quotes.
    fn before_quote(self) -> u8 {
        match self {
            Self::Array => b'\\',
            Self::Record => b'"',
        }
    }
}

/// Appends an element or an attribute: as it was printed where nothing of it changes, else in quotes where its new text
/// needs them.
fn quoted(
    part: &ValuePart,
    value: &[u8],
    printed: &[u8],
    out: &mut Vec<u8>,
    style: OutputQuoting,
) -> Result<u64, Problem> {
    let mut text = Vec::with_capacity(value.len());
    let changed = append(part, value, &mut text)?;
    if changed == 0 {
        out.extend_from_slice(printed);
        return Ok(0);
    }
    if !style.needs_quotes(&text) {
        out.extend_from_slice(&text);
        return Ok(changed);
    }
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend([style.before_quote(), byte]),
            b'\\' => out.extend([byte, byte]),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    Ok(changed)
}
