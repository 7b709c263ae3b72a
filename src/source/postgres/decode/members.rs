//! What is chosen for a column, inside nested values that the server printed: their JSON (`to_json`) and their output
//! text (`array_out`, `record_out`), read by their type. What no choice concerns is copied as it is.

use super::error::Problem;
use crate::plan::policy::{CharPadding, InvalidUtf8, JsonNan};
use crate::plan::{PgType, Policies, TypeKind, is_text, oid};

const ODD: Problem = Problem::Malformed("nested value that is not what its type prints");

/// How the printed values of a nested type are rewritten.
#[derive(Debug)]
pub(super) struct Members {
    part: Part,
    print: Print,
    nan: JsonNan,
}

/// How the server printed a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Print {
    Json,
    Output,
}

/// A value or a part of one, as far as choices concern it.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// They do not.
    Kept,
    /// A float or a numeric, which can be what JSON has no number for.
    Number,
    /// `char(n)` whose blanks go.
    Padded,
    /// Text that is written as its bytes, without the blanks at its end where that is said.
    Bytes {
        trimmed: bool,
    },
    Array(Box<Part>),
    Composite(Vec<Part>),
}

impl Members {
    /// `None` where no choice changes a part of such a value.
    pub(super) fn of(pg_type: &PgType, print: Print, policies: &Policies) -> Option<Self> {
        if !matches!(pg_type.kind, TypeKind::Array(_) | TypeKind::Composite(_)) {
            return None;
        }
        let part = part(pg_type, print, policies);
        (part != Part::Kept).then_some(Self { part, print, nan: policies.json_nan })
    }

    /// Appends a value as the choices have it; returns how many parts they changed.
    pub(super) fn append(&self, value: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
        match self.print {
            Print::Json => {
                let mut json = Json { text: value, at: 0, out, nan: self.nan, changed: 0 };
                json.value(&self.part)?;
                json.copy_to(value.len());
                Ok(json.changed)
            }
            Print::Output => output(&self.part, value, out),
        }
    }
}

fn part(pg_type: &PgType, print: Print, policies: &Policies) -> Part {
    let trimmed = pg_type.base_oid == oid::BPCHAR && policies.char_padding == CharPadding::Trim;
    match &pg_type.kind {
        TypeKind::Array(element) => match part(element, print, policies) {
            Part::Kept => Part::Kept,
            // JSON does not tell an array in an array, which a domain makes, from a further dimension.
            Part::Array(element) if print == Print::Json => Part::Array(element),
            element => Part::Array(Box::new(element)),
        },
        TypeKind::Composite(attributes) => {
            let parts: Vec<Part> =
                attributes.iter().map(|attribute| part(&attribute.pg_type, print, policies)).collect();
            if parts.iter().all(|part| *part == Part::Kept) { Part::Kept } else { Part::Composite(parts) }
        }
        _ if is_text(pg_type) && policies.invalid_utf8 == InvalidUtf8::Bytes => Part::Bytes { trimmed },
        _ if trimmed => Part::Padded,
        TypeKind::Base if print == Print::Json && policies.json_nan != JsonNan::String => match pg_type.base_oid {
            oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC => Part::Number,
            _ => Part::Kept,
        },
        _ => Part::Kept,
    }
}

/// A scalar's text as the choices have it; `None` where that is as it was.
fn rewritten(part: &Part, text: &[u8]) -> Option<Vec<u8>> {
    match part {
        Part::Padded => Some(without_blanks(text)).filter(|kept| kept.len() < text.len()).map(<[u8]>::to_vec),
        Part::Bytes { trimmed } => {
            let text = if *trimmed { without_blanks(text) } else { text };
            let mut hex = b"\\x".to_vec();
            for byte in text {
                hex.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
            }
            Some(hex)
        }
        _ => None,
    }
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|&&byte| byte == b' ').count();
    &text[..text.len() - blanks]
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

    fn value(&mut self, part: &Part) -> Result<(), Problem> {
        self.blanks();
        match (part, self.peek()) {
            (Part::Array(element), Some(b'[')) => self.array(element),
            (Part::Composite(parts), Some(b'{')) => self.object(parts),
            (Part::Number, Some(b'"')) => self.not_a_number(),
            (Part::Padded | Part::Bytes { .. }, Some(b'"')) => self.string(part),
            _ => self.kept(),
        }
    }

    /// An array, or a dimension of one.
    fn array(&mut self, element: &Part) -> Result<(), Problem> {
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
    fn object(&mut self, parts: &[Part]) -> Result<(), Problem> {
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

    fn string(&mut self, part: &Part) -> Result<(), Problem> {
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

/// The output text of a part, rewritten.
fn output(part: &Part, text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    match part {
        Part::Array(element) => array(element, text, out),
        Part::Composite(parts) => record(parts, text, out),
        scalar => {
            let changed = rewritten(scalar, text);
            out.extend_from_slice(changed.as_deref().unwrap_or(text));
            Ok(u64::from(changed.is_some()))
        }
    }
}

/// `[2:3]={"a b",c,NULL}`. Every type whose parts are rewritten has the comma as its delimiter.
fn array(element: &Part, text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
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
            changed += quoted(element, &value, &text[at..end], out, Style::Array)?;
        }
        at = end;
    }
    Ok(changed)
}

/// `(1,"a b",)`.
fn record(parts: &[Part], text: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
    if text.first() != Some(&b'(') {
        return Err(ODD);
    }
    out.push(b'(');
    let (mut at, mut changed) = (1, 0);
    for (place, part) in parts.iter().enumerate() {
        // Nothing between two commas is NULL.
        if !matches!(text.get(at), Some(b',' | b')')) {
            let (value, end) = token(text, at, b"(),")?;
            changed += quoted(part, &value, &text[at..end], out, Style::Record)?;
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
enum Style {
    /// `array_out`.
    Array,
    /// `record_out`.
    Record,
}

impl Style {
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
fn quoted(part: &Part, value: &[u8], printed: &[u8], out: &mut Vec<u8>, style: Style) -> Result<u64, Problem> {
    let mut text = Vec::with_capacity(value.len());
    let changed = output(part, value, &mut text)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Attribute;

    fn of(oid: u32) -> PgType {
        PgType { oid, base_oid: oid, typmod: None, name: "x".to_owned(), kind: TypeKind::Base }
    }

    fn array(element: PgType) -> PgType {
        PgType { kind: TypeKind::Array(Box::new(element)), ..of(70_000) }
    }

    fn composite(types: &[PgType]) -> PgType {
        let attribute = |pg_type: &PgType| Attribute { name: "x".to_owned(), pg_type: pg_type.clone() };
        PgType { kind: TypeKind::Composite(types.iter().map(attribute).collect()), ..of(70_001) }
    }

    fn nan(json_nan: JsonNan) -> Policies {
        Policies { json_nan, ..Policies::default() }
    }

    fn trim() -> Policies {
        Policies { char_padding: CharPadding::Trim, ..Policies::default() }
    }

    fn bytes() -> Policies {
        Policies { invalid_utf8: InvalidUtf8::Bytes, ..Policies::default() }
    }

    /// The text that is written, and how many parts changed.
    fn written(pg_type: &PgType, print: Print, policies: &Policies, value: &str) -> Result<(String, u64), Problem> {
        let mut out = b"before".to_vec();
        let changed = Members::of(pg_type, print, policies).unwrap().append(value.as_bytes(), &mut out)?;
        Ok((String::from_utf8(out.strip_prefix(b"before").unwrap().to_vec()).unwrap(), changed))
    }

    #[test]
    fn numbers_that_json_lacks_become_null_at_any_depth() {
        let floats = || array(of(oid::FLOAT8));
        let pair = || composite(&[of(oid::TEXT), of(oid::NUMERIC), floats()]);
        for (pg_type, value, expected, count) in [
            (floats(), r#"["NaN",1.5,null,"-Infinity"]"#, "[null,1.5,null,null]", 2),
            (floats(), "[]", "[]", 0),
            (floats(), r#"[["NaN",1],[2e+10,"Infinity"]]"#, "[[null,1],[2e+10,null]]", 2),
            (array(floats()), r#"[["NaN"],null,[]]"#, "[[null],null,[]]", 1),
            (pair(), r#"{"NaN":"NaN","b\"]":"NaN","c":["NaN",0]}"#, r#"{"NaN":"NaN","b\"]":null,"c":[null,0]}"#, 2),
            (array(pair()), r#"[{"a":"x","b":1,"c":null},null]"#, r#"[{"a":"x","b":1,"c":null},null]"#, 0),
            (
                composite(&[of(oid::JSONB), of(oid::FLOAT4)]),
                r#"{"a":{"x": ["NaN", "]}"], "y": 1},"b":"NaN"}"#,
                r#"{"a":{"x": ["NaN", "]}"], "y": 1},"b":null}"#,
                1,
            ),
        ] {
            assert_eq!(written(&pg_type, Print::Json, &nan(JsonNan::Null), value), Ok((expected.to_owned(), count)));
        }
        let error = written(&pair(), Print::Json, &nan(JsonNan::Error), r#"{"a":"","b":1,"c":["Infinity"]}"#);
        assert_eq!(error, Err(Problem::NoJsonNumber { value: "Infinity" }));
    }

    #[test]
    fn blanks_go_from_padded_texts_alone() {
        let (padded, text) = (|| array(of(oid::BPCHAR)), || composite(&[of(oid::TEXT), of(oid::BPCHAR)]));
        for (pg_type, print, value, expected, count) in [
            (padded(), Print::Json, r#"["a  ","ab","   "]"#, r#"["a","ab",""]"#, 2),
            (padded(), Print::Json, r#"["\\\"  ","\n "]"#, r#"["\\\"","\n"]"#, 2),
            (text(), Print::Json, r#"{"t":"a ","c":"a "}"#, r#"{"t":"a ","c":"a"}"#, 1),
            (padded(), Print::Output, r#"{"a  ",NULL,ab}"#, "{a,NULL,ab}", 1),
            (padded(), Print::Output, r#"[0:1]={{"a "},{"NULL "}}"#, r#"[0:1]={{a},{"NULL"}}"#, 2),
            (padded(), Print::Output, r#"{"\"\\ ","{ ","  "}"#, r#"{"\"\\","{",""}"#, 3),
            (array(padded()), Print::Output, r#"{"{\"a \",b}"}"#, r#"{"{a,b}"}"#, 1),
            (text(), Print::Output, r#"("a ","a ")"#, r#"("a ",a)"#, 1),
            (text(), Print::Output, r#"(,"""\\(,) ")"#, r#"(,"""\\(,)")"#, 1),
            (text(), Print::Output, "(,)", "(,)", 0),
            (array(text()), Print::Output, r#"{"(x,\"a  \")",NULL,"(,)"}"#, r#"{"(x,a)",NULL,"(,)"}"#, 1),
            (array(text()), Print::Output, r#"{"(x,\"a b \")"}"#, r#"{"(x,\"a b\")"}"#, 1),
        ] {
            assert_eq!(written(&pg_type, print, &trim(), value), Ok((expected.to_owned(), count)), "{value}");
        }
    }

    #[test]
    fn text_becomes_its_bytes() {
        let texts = || array(of(oid::TEXT));
        let json = written(&texts(), Print::Json, &bytes(), r#"["a\n","",null]"#);
        assert_eq!(json, Ok((r#"["\\x610a","\\x",null]"#.to_owned(), 2)));
        let output = written(&texts(), Print::Output, &bytes(), r#"{"a b",c}"#);
        assert_eq!(output, Ok((r#"{"\\x612062","\\x63"}"#.to_owned(), 2)));
        let both = Policies { char_padding: CharPadding::Trim, ..bytes() };
        let output = written(&composite(&[of(oid::BPCHAR)]), Print::Output, &both, r#"("a ")"#);
        assert_eq!(output, Ok((r#"("\\x61")"#.to_owned(), 1)));
    }

    #[test]
    fn what_no_choice_concerns_is_not_looked_at() {
        let range = PgType { kind: TypeKind::Range(Box::new(of(oid::BPCHAR))), ..of(70_002) };
        for (pg_type, print, policies) in [
            (array(of(oid::INT4)), Print::Json, nan(JsonNan::Null)),
            (array(of(oid::FLOAT8)), Print::Json, nan(JsonNan::String)),
            (array(of(oid::FLOAT8)), Print::Output, nan(JsonNan::Null)),
            (array(range.clone()), Print::Output, trim()),
            (range, Print::Output, trim()),
            (of(oid::RECORD), Print::Json, nan(JsonNan::Null)),
        ] {
            assert!(Members::of(&pg_type, print, &policies).is_none(), "{pg_type:?}");
        }
    }

    #[test]
    fn what_its_type_does_not_print_is_an_error() {
        let pair = || composite(&[of(oid::BPCHAR), of(oid::BPCHAR)]);
        for (pg_type, print, value) in [
            (pair(), Print::Output, ""),
            (pair(), Print::Output, "(a)"),
            (pair(), Print::Output, "(a,b,c)"),
            (pair(), Print::Output, "(a,\"b"),
            (array(pair()), Print::Output, "{(a,b"),
            (array(pair()), Print::Output, "none"),
            (pair(), Print::Json, "{\"a\":\"x\"}"),
            (pair(), Print::Json, "{\"a\":\"x\",\"b\":\"y"),
            (pair(), Print::Json, ""),
            (array(pair()), Print::Json, "[{\"a\":1,\"b\":2}"),
        ] {
            assert_eq!(written(&pg_type, print, &trim(), value), Err(ODD), "{value}");
        }
    }
}
