//! What is chosen for a column, inside nested values that the server printed: their JSON (`to_json`) and their output
//! text (`array_out`, `record_out`), read by their type. What no choice concerns is copied as it is.

mod json;
mod output;

use super::error::Problem;
use crate::model::{CharPadding, InvalidUtf8, JsonNan, Policies};
use crate::source::postgres::plan::{PgType, TypeKind};
use crate::source::postgres::plan::{is_text, oid};

const ODD: Problem = Problem::Malformed("nested value that is not what its type prints");

/// How the printed values of a nested type are rewritten.
#[derive(Debug)]
pub(super) struct Members {
    part: ValuePart,
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
enum ValuePart {
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
    Array(Box<ValuePart>),
    Composite(Vec<ValuePart>),
}

impl Members {
    /// `None` where no choice changes a part of such a value.
    pub(super) fn of(pg_type: &PgType, print: Print, policies: &Policies) -> Option<Self> {
        if !matches!(pg_type.kind, TypeKind::Array(_) | TypeKind::Composite(_)) {
            return None;
        }
        let part = part(pg_type, print, policies);
        (part != ValuePart::Kept).then_some(Self { part, print, nan: policies.json_nan })
    }

    /// Appends a value as the choices have it; returns how many parts they changed.
    pub(super) fn append(&self, value: &[u8], out: &mut Vec<u8>) -> Result<u64, Problem> {
        match self.print {
            Print::Json => json::append(&self.part, self.nan, value, out),
            Print::Output => output::append(&self.part, value, out),
        }
    }
}

fn part(pg_type: &PgType, print: Print, policies: &Policies) -> ValuePart {
    let trimmed = pg_type.base_oid == oid::BPCHAR && policies.char_padding == CharPadding::Trim;
    match &pg_type.kind {
        TypeKind::Array(element) => match part(element, print, policies) {
            ValuePart::Kept => ValuePart::Kept,
            // JSON does not tell an array in an array, which a domain makes, from a further dimension.
            ValuePart::Array(element) if print == Print::Json => ValuePart::Array(element),
            element => ValuePart::Array(Box::new(element)),
        },
        TypeKind::Composite(attributes) => {
            let parts: Vec<ValuePart> =
                attributes.iter().map(|attribute| part(&attribute.pg_type, print, policies)).collect();
            if parts.iter().all(|part| *part == ValuePart::Kept) {
                ValuePart::Kept
            } else {
                ValuePart::Composite(parts)
            }
        }
        _ if is_text(pg_type) && policies.invalid_utf8 == InvalidUtf8::Bytes => ValuePart::Bytes { trimmed },
        _ if trimmed => ValuePart::Padded,
        TypeKind::Base if print == Print::Json && policies.json_nan != JsonNan::String => match pg_type.base_oid {
            oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC => ValuePart::Number,
            _ => ValuePart::Kept,
        },
        _ => ValuePart::Kept,
    }
}

/// A scalar's text as the choices have it; `None` where that is as it was.
fn rewritten(part: &ValuePart, text: &[u8]) -> Option<Vec<u8>> {
    match part {
        ValuePart::Padded => Some(without_blanks(text)).filter(|kept| kept.len() < text.len()).map(<[u8]>::to_vec),
        ValuePart::Bytes { trimmed } => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::plan::Attribute;

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
