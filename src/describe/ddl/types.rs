//! The words that a dialect has for the kinds of values. A new dialect is one such table, its clauses, and a line in
//! [`Dialect::facts`](super::Dialect).

use super::columns::ValueKind;
use super::quote::is_word;

/// A word, or why there is none.
pub(super) type TypeName = Result<&'static str, &'static str>;

pub(super) const TOO_MANY_DIGITS: TypeName =
    Err("has more than 38 digits, the most it reads: --column-policy COLUMN=text writes text");

/// The words of one engine. `{}` stands for what is within a list, a struct, or a value that may be NULL.
pub(super) struct DialectTypes {
    /// From [`ValueKind::Bool`] to [`ValueKind::Float64`].
    pub(super) plain: [&'static str; 6],
    /// With `{p}` and `{s}` for precision and scale; the most digits, and what stands for a decimal with more.
    pub(super) decimal: (&'static str, u8, TypeName),
    /// Also for numbers of any length.
    pub(super) text: &'static str,
    pub(super) json: &'static str,
    pub(super) bytes: &'static str,
    pub(super) uuid: TypeName,
    pub(super) date: &'static str,
    pub(super) time: TypeName,
    /// Without and with a time zone, with `{f}` for the digits of a second.
    pub(super) timestamps: [&'static str; 2],
    /// One of values, and one with lists or maps in it.
    pub(super) list: (&'static str, TypeName),
    pub(super) map: &'static str,
    /// A struct, and what parts its members.
    pub(super) structure: (&'static str, &'static str),
    /// A member's name, with what parts it from its type.
    pub(super) member: fn(&str) -> Result<String, String>,
    /// What may be NULL and is not nested.
    pub(super) nullable: &'static str,
}

impl DialectTypes {
    /// The type of a kind. What is nested says nothing of its NULLs.
    pub(super) fn of(&self, kind: &ValueKind, nullable: bool) -> Result<String, String> {
        let lists = |kind: &ValueKind| matches!(kind, ValueKind::List(_) | ValueKind::Map);
        let word = match kind {
            ValueKind::Bool => self.plain[0],
            ValueKind::Int16 => self.plain[1],
            ValueKind::Int32 => self.plain[2],
            ValueKind::Int64 => self.plain[3],
            ValueKind::Float32 => self.plain[4],
            ValueKind::Float64 => self.plain[5],
            ValueKind::Decimal { precision, .. } if *precision > self.decimal.1 => self.decimal.2?,
            ValueKind::Decimal { .. } => self.decimal.0,
            ValueKind::Number | ValueKind::Text | ValueKind::Unclear => self.text,
            ValueKind::Json => self.json,
            ValueKind::Bytes => self.bytes,
            ValueKind::Uuid => self.uuid?,
            ValueKind::Date => self.date,
            ValueKind::Time => self.time?,
            ValueKind::Timestamp { utc, .. } => self.timestamps[usize::from(*utc)],
            ValueKind::List(element) if element.any(&lists) => self.list.1?,
            ValueKind::List(_) => self.list.0,
            ValueKind::Struct(_) => self.structure.0,
            ValueKind::Map => self.map,
        };
        let made = match kind {
            ValueKind::Decimal { precision, scale } => {
                word.replace("{p}", &precision.to_string()).replace("{s}", &scale.to_string())
            }
            ValueKind::Timestamp { micros, .. } => word.replace("{f}", if *micros { "6" } else { "3" }),
            ValueKind::List(element) => word.replace("{}", &self.of(element, true)?),
            ValueKind::Struct(members) => {
                let member = |(name, kind): &(String, ValueKind)| Ok((self.member)(name)? + &self.of(kind, true)?);
                word.replace(
                    "{}",
                    &members.iter().map(member).collect::<Result<Vec<_>, String>>()?.join(self.structure.1),
                )
            }
            _ => word.to_owned(),
        };
        Ok(if nullable && !kind.is_nested() { self.nullable.replace("{}", &made) } else { made })
    }
}

/// A member where names are not quoted within a type.
pub(super) fn bare_member(name: &str) -> Result<String, String> {
    if is_word(name) {
        return Ok(format!("{name}:"));
    }
    Err(format!("has a member {name:?}, which can have no name there: --column-policy COLUMN=json writes it as text"))
}
