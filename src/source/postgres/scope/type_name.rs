//! The names of types, as the catalog prints them and as people write them, without what would change a value: a cast to
//! `varchar(3)` cuts it off without a word, and the rows of another value would be found.

use super::error::ScopeError;
use crate::source::postgres::session::identifier;

/// What of a type decides how its values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Days.
    Date,
    /// Moments without a time zone.
    Timestamp,
    /// Moments.
    TimestampTz,
    /// Times of a day.
    Time,
    /// The same with a time zone.
    TimeTz,
    /// A type whose input cuts values off, and whose columns are compared as text.
    AsText,
    /// All others.
    Other,
}

impl Family {
    /// How a value of it is written.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Date => "a date is written as 2026-01-31, without a time of day",
            Self::Time => "a time is written as 12:00:00, without an offset",
            Self::TimeTz => "a time is written as 12:00:00+01:00",
            _ => "a moment is written in digits, as in 2026-01-31 or 2026-01-31T12:00:00Z",
        }
    }
}

/// A type that a value is cast to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlType {
    /// In SQL.
    pub(crate) sql: String,
    /// How its values are compared.
    pub(crate) family: Family,
}

/// The names that have several words or another meaning than they seem, each with the name in the catalog.
const WRITTEN: [(&str, &str); 22] = [
    ("", "text"),
    ("bigint", "int8"),
    ("bit varying", "varbit"),
    ("boolean", "bool"),
    ("char", "bpchar"),
    ("character", "bpchar"),
    ("character varying", "text"),
    ("dec", "numeric"),
    ("decimal", "numeric"),
    ("double precision", "float8"),
    ("float", "float8"),
    ("int", "int4"),
    ("integer", "int4"),
    ("real", "float4"),
    ("smallint", "int2"),
    ("time with time zone", "timetz"),
    ("time without time zone", "time"),
    ("timestamp with time zone", "timestamptz"),
    ("timestamp without time zone", "timestamp"),
    ("varchar", "text"),
    // In a cast without quotes, these two mean one bit and one character.
    ("bit", "bit"),
    ("bpchar", "bpchar"),
];

/// The types of the catalog that nobody needs to name with their schema.
const BUILT_IN: [&str; 40] = [
    "bit",
    "bool",
    "bpchar",
    "bytea",
    "char",
    "cidr",
    "date",
    "daterange",
    "float4",
    "float8",
    "inet",
    "int2",
    "int4",
    "int4range",
    "int8",
    "int8range",
    "interval",
    "json",
    "jsonb",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "numrange",
    "oid",
    "pg_lsn",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsrange",
    "tstzrange",
    "uuid",
    "varbit",
    "varchar",
    "xid",
    "xid8",
    "xml",
];

/// The fields of an interval, which its name may have.
const INTERVAL: &str = "interval ";

const PG_CATALOG: &str = "pg_catalog";

impl SqlType {
    /// Whether its values are arrays: the catalog calls such a type by its member's name behind an underscore.
    pub(super) fn is_array(&self) -> bool {
        self.sql.ends_with("[]") || self.sql.rsplit('.').next().is_some_and(|name| name.starts_with("\"_"))
    }

    /// Reads a name; an empty one is text.
    ///
    /// # Errors
    /// [`ScopeError::TypeName`].
    pub(crate) fn parse(name: &str) -> Result<Self, ScopeError> {
        let unfit = || ScopeError::TypeName(name.to_owned());
        let Parsed { parts, arrays } = Parsed::of(name).ok_or_else(unfit)?;
        let (schema, last) = match parts.as_slice() {
            [] => (None, Part::default()),
            [last] => (None, last.clone()),
            [schema, last] => (Some(schema.text.clone()), last.clone()),
            _ => return Err(unfit()),
        };
        if schema.as_deref() == Some("") || (!parts.is_empty() && last.text.is_empty()) {
            return Err(unfit());
        }
        let built_in = match schema.as_deref() {
            None | Some(PG_CATALOG) => built_in(&last, schema.is_some()),
            Some(_) => None,
        };
        let Some(type_name) = built_in else {
            let schema = schema.map_or(String::new(), |schema| format!("{}.", identifier(&schema)));
            let sql = format!("{schema}{}{}", identifier(&last.text), "[]".repeat(arrays));
            return Ok(Self { sql, family: Family::Other });
        };
        // The members of an array must have the type itself.
        if arrays > 0 {
            let member =
                if matches!(last.text.as_str(), "varchar" | "character varying") { "varchar" } else { type_name };
            let sql = format!("{PG_CATALOG}.{}{}", identifier(member), "[]".repeat(arrays));
            return Ok(Self { sql, family: Family::Other });
        }
        let family = match type_name {
            "date" => Family::Date,
            "timestamp" => Family::Timestamp,
            "timestamptz" => Family::TimestampTz,
            "time" => Family::Time,
            "timetz" => Family::TimeTz,
            "name" | "char" => Family::AsText,
            _ => Family::Other,
        };
        let type_name = if family == Family::AsText { "text" } else { type_name };
        Ok(Self { sql: format!("{PG_CATALOG}.{}", identifier(type_name)), family })
    }
}

/// The name in the catalog of a built-in type.
fn built_in(part: &Part, of_catalog: bool) -> Option<&'static str> {
    let name = part.text.as_str();
    if part.quoted || of_catalog {
        let name = if name == "varchar" { "text" } else { name };
        return BUILT_IN.iter().find(|known| **known == name).copied();
    }
    if name.starts_with(INTERVAL) {
        return Some("interval");
    }
    let written = WRITTEN.iter().find(|(written, _)| *written == name).map(|(_, known)| *known);
    written.or_else(|| BUILT_IN.iter().find(|known| **known == name).copied())
}

/// One part of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Part {
    text: String,
    quoted: bool,
}

#[derive(Debug, Default)]
struct Parsed {
    parts: Vec<Part>,
    arrays: usize,
}

impl Parsed {
    /// Words, quoted names, dots between them, modifiers in parentheses, which are left out, and brackets of arrays behind
    /// them; nothing else.
    fn of(name: &str) -> Option<Self> {
        let mut parsed = Self::default();
        let mut rest = name.trim();
        let mut dotted = true;
        while let Some(first) = rest.chars().next() {
            let taken = match first {
                ' ' => 1,
                '"' => {
                    let (text, bytes) = quoted(rest)?;
                    if !dotted {
                        return None;
                    }
                    parsed.parts.push(Part { text, quoted: true });
                    dotted = false;
                    bytes
                }
                '.' if !dotted => {
                    dotted = true;
                    1
                }
                '(' if !dotted => modifier(rest)?,
                '[' if !dotted && rest.starts_with("[]") => {
                    parsed.arrays += 1;
                    2
                }
                _ if is_word(first) && parsed.arrays == 0 => {
                    let bytes = rest.find(|next: char| !is_word(next)).unwrap_or(rest.len());
                    parsed.word(&rest[..bytes].to_lowercase(), dotted)?;
                    dotted = false;
                    bytes
                }
                _ => return None,
            };
            rest = rest.get(taken..)?;
        }
        (!dotted || parsed.parts.is_empty()).then_some(parsed)
    }

    /// A word begins a part, or follows on words of the same part.
    fn word(&mut self, word: &str, begins: bool) -> Option<()> {
        if begins {
            if word.starts_with(|first: char| first.is_ascii_digit()) {
                return None;
            }
            self.parts.push(Part { text: word.to_owned(), quoted: false });
            return Some(());
        }
        let last = self.parts.last_mut().filter(|last| !last.quoted)?;
        last.text.push(' ');
        last.text.push_str(word);
        Some(())
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The name in quotes that `rest` begins with, and the bytes that it takes.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let (mut text, mut at) = (String::new(), 1);
    loop {
        let end = at + rest.get(at..)?.find('"')?;
        text.push_str(&rest[at..end]);
        at = end + 1;
        if !rest[at..].starts_with('"') {
            return (!text.is_empty() && !text.contains('\0')).then_some((text, at));
        }
        text.push('"');
        at += 1;
    }
}

/// Bytes of `(10,2)`.
fn modifier(rest: &str) -> Option<usize> {
    let end = rest.find(')')?;
    let digits = |character: char| character.is_ascii_digit() || matches!(character, ',' | ' ' | '-');
    rest[1..end].chars().all(digits).then_some(end + 1)
}
