//! Which columns are written, under which names, and how each one's values travel.

use std::collections::{HashMap, HashSet};

use super::error::PlanError;
use super::oid;
use super::{Carrier, ColumnFacts, ColumnOrigin, ColumnPlan, PgType, RelationFacts, Wire};
use crate::encode::Format;
use crate::export::request::ShapeOptions;

/// The most digits that an Arrow `Decimal128` holds.
const DECIMAL128_DIGITS: u8 = 38;

/// Decides the output columns: `--columns` in the order given (else all, in catalog order), then the `--column`
/// expressions in theirs, all under the names that `--rename` leaves them.
///
/// `expressions` are the types of the request's `--column` expressions as the server described them, in the same
/// order; their `name` is not used. `--rename` is for the relation's columns: an expression is named where it is given.
///
/// # Errors
/// A name that is unknown, given twice or taken; nothing to write; expressions that were not all described.
pub fn columns(
    facts: &RelationFacts,
    shape: &ShapeOptions,
    expressions: &[ColumnFacts],
    format: Format,
) -> Result<Vec<ColumnPlan>, PlanError> {
    if expressions.len() != shape.expressions.len() {
        return Err(PlanError::ExpressionsDescribed { given: shape.expressions.len(), described: expressions.len() });
    }
    let selected = select(facts, shape.columns.as_deref())?;
    let renamed = renames(facts, &selected, &shape.renames)?;
    let mut plans = Vec::with_capacity(selected.len() + expressions.len());
    let mut taken = HashSet::new();
    for column in selected {
        let name = renamed.get(column.name.as_str()).copied().unwrap_or(&column.name);
        if !taken.insert(name) {
            return Err(PlanError::DuplicateName { name: name.to_owned() });
        }
        plans.push(column_plan(name, ColumnOrigin::Column(column.name.clone()), column, format));
    }
    let of_relation = taken.clone();
    for ((name, expression), described) in shape.expressions.iter().zip(expressions) {
        if name.is_empty() {
            return Err(PlanError::EmptyName { flag: "--column", example: "name=expression" });
        }
        if of_relation.contains(name.as_str()) {
            return Err(PlanError::NameTaken { name: name.clone() });
        }
        if !taken.insert(name) {
            return Err(PlanError::DuplicateName { name: name.clone() });
        }
        plans.push(column_plan(name, ColumnOrigin::Expression(expression.clone()), described, format));
    }
    if plans.is_empty() {
        let relation = facts.display_name.clone().unwrap_or_else(|| "the query".to_owned());
        return Err(PlanError::NoColumns { relation });
    }
    Ok(plans)
}

/// The relation's columns that are exported, in output order.
fn select<'a>(facts: &'a RelationFacts, names: Option<&[String]>) -> Result<Vec<&'a ColumnFacts>, PlanError> {
    let Some(names) = names else {
        return Ok(facts.columns.iter().collect());
    };
    let mut seen = HashSet::new();
    names
        .iter()
        .map(|name| {
            if !seen.insert(name) {
                return Err(PlanError::RepeatedColumn { flag: "--columns", name: name.clone() });
            }
            facts.column("--columns", name)
        })
        .collect()
}

/// Old name to new name, each old one selected.
fn renames<'a>(
    facts: &RelationFacts,
    selected: &[&ColumnFacts],
    renames: &'a [(String, String)],
) -> Result<HashMap<&'a str, &'a str>, PlanError> {
    let mut by_old = HashMap::new();
    for (old, new) in renames {
        if !selected.iter().any(|column| column.name == *old) {
            facts.column("--rename", old)?;
            return Err(PlanError::RenameNotSelected { name: old.clone() });
        }
        if new.is_empty() {
            return Err(PlanError::EmptyName { flag: "--rename", example: "old=new" });
        }
        if by_old.insert(old.as_str(), new.as_str()).is_some() {
            return Err(PlanError::RepeatedColumn { flag: "--rename", name: old.clone() });
        }
    }
    Ok(by_old)
}

fn column_plan(name: &str, origin: ColumnOrigin, facts: &ColumnFacts, format: Format) -> ColumnPlan {
    let Travel { wire, carrier, note } = travel(&facts.pg_type, format);
    ColumnPlan {
        name: name.to_owned(),
        origin,
        pg_type: facts.pg_type.clone(),
        wire,
        carrier,
        nullable: !facts.not_null,
        policy: policy(carrier),
        note: note.map(str::to_owned),
        statistics: facts.statistics,
    }
}

/// How values get from the server into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Travel {
    wire: Wire,
    carrier: Carrier,
    note: Option<&'static str>,
}

impl Travel {
    fn binary(carrier: Carrier) -> Self {
        Self { wire: Wire::Binary, carrier, note: None }
    }

    fn noting(self, note: &'static str) -> Self {
        Self { note: Some(note), ..self }
    }
}

fn travel(pg_type: &PgType, format: Format) -> Travel {
    let parquet = format == Format::Parquet;
    let by_format = |logical, own| Travel::binary(if parquet { logical } else { own });
    // The binary form of an enum is its label.
    if pg_type.is_enum {
        return Travel::binary(Carrier::Text);
    }
    match pg_type.base_oid {
        oid::BOOL => Travel::binary(Carrier::Bool),
        oid::INT2 => Travel::binary(Carrier::Int16),
        oid::INT4 => Travel::binary(Carrier::Int32),
        oid::INT8 => Travel::binary(Carrier::Int64),
        // row_to_json quotes these, unlike the integers, so NDJSON takes them as JSON below.
        oid::OID | oid::XID | oid::CID if format != Format::Ndjson => Travel::binary(Carrier::Int64),
        oid::FLOAT4 => Travel::binary(Carrier::Float32),
        oid::FLOAT8 => Travel::binary(Carrier::Float64),
        oid::NUMERIC if parquet => decimal(pg_type.typmod),
        oid::NUMERIC => Travel::binary(Carrier::NumberText),
        oid::TEXT | oid::VARCHAR | oid::NAME => Travel::binary(Carrier::Text),
        oid::BPCHAR => Travel::binary(Carrier::Text).noting("padded with blanks to its length, as stored"),
        oid::BYTEA => Travel::binary(Carrier::Bytes),
        oid::UUID => Travel::binary(Carrier::Uuid),
        oid::JSON | oid::JSONB => Travel::binary(Carrier::Json),
        oid::DATE => by_format(Carrier::Date32, Carrier::PgDate),
        oid::TIME => by_format(Carrier::Time64, Carrier::PgTime),
        oid::TIMESTAMP => by_format(Carrier::Timestamp { utc: false }, Carrier::PgTimestamp),
        oid::TIMESTAMPTZ => by_format(Carrier::Timestamp { utc: true }, Carrier::PgTimestampTz),
        _ if format == Format::Ndjson => Travel {
            wire: Wire::JsonText,
            carrier: Carrier::Json,
            note: Some("sent as the JSON that row_to_json makes of it"),
        },
        _ => Travel { wire: Wire::OutputText, carrier: Carrier::Text, note: Some("sent as its output text") },
    }
}

/// A `numeric` in Parquet: a decimal where one can hold the declared digits, else the digits as text.
fn decimal(typmod: Option<i32>) -> Travel {
    let text = Travel::binary(Carrier::NumberText);
    let Some((precision, scale)) = numeric_digits(typmod) else {
        return text.noting("numeric without precision and scale is written as text");
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits @ 1..=DECIMAL128_DIGITS), Ok(scale @ 0..)) if i32::from(scale) <= precision => {
            Travel::binary(Carrier::Decimal128 { precision: digits, scale })
        }
        (Ok(0..=DECIMAL128_DIGITS), _) => {
            text.noting("numeric with a scale below 0 or above its precision is written as text")
        }
        _ => text.noting("numeric of more than 38 digits is written as text"),
    }
}

/// Precision and scale of a `numeric`'s type modifier; the scale is an 11-bit two's complement since PostgreSQL 15 and
/// reads the same in 14.
fn numeric_digits(typmod: Option<i32>) -> Option<(i32, i32)> {
    /// Every varlena type's modifier is this much larger than what it means.
    const VARLENA_HEADER: i32 = 4;
    let packed = typmod?.checked_sub(VARLENA_HEADER).filter(|packed| *packed >= 0)?;
    Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}

/// What happens to a value that the carrier cannot hold: NaN, an infinity, 24:00:00, a timestamp past Arrow's end.
fn policy(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Decimal128 { .. } | Carrier::Date32 | Carrier::Time64 | Carrier::Timestamp { .. } => "error",
        _ => "lossless",
    }
}

#[cfg(test)]
mod tests;
