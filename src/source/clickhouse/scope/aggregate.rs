//! Rows, grouped and measured, as one statement.

use super::super::types::ChType;
use super::error::ChScopeError;
use super::literal::ScopeType;
use super::predicate::{ChSide, operand};
use crate::model::{
    AggregateRequest, BUCKET_JSON_CHARS, BUCKET_TEXT_CHARS, BucketUnit, Dimension, Measure, ScopeColumn,
};

/// The statement of an aggregation over `relation`, which stands behind FROM with its filter: for each dimension the text of
/// its value and the value as JSON, then for each measure its value as JSON, where NULL is JSON's null; one group more than
/// asked for, where there is one.
///
/// # Errors
/// An expression that cannot stand in a statement; a dimension whose values lead back to no rows; a bucket of something that
/// is no date.
pub(crate) fn aggregate(request: &AggregateRequest, relation: &str) -> Result<String, ChScopeError> {
    let dimensions = request.dimensions.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
    let measures = request.measures.iter().map(measure).collect::<Result<Vec<_>, _>>()?;
    let name = |prefix: char, nth: usize| format!("outhaul_{prefix}{nth}");
    let inner = |prefix: char, list: Vec<String>| -> Vec<String> {
        list.into_iter().enumerate().map(|(nth, sql)| format!("{sql} AS {}", name(prefix, nth))).collect()
    };
    let groups: Vec<String> = (0..dimensions.len()).map(|nth| name('d', nth)).collect();
    let outer = dimensions
        .iter()
        .enumerate()
        .flat_map(|(nth, (_, as_json))| {
            let group = name('d', nth);
            // Only texts are long.
            let text = if *as_json == AsJson::Text { cut(&group, BUCKET_TEXT_CHARS) } else { group.clone() };
            [text, as_json.of(&group)]
        })
        .chain(measures.iter().enumerate().map(|(nth, (_, as_json))| as_json.of(&name('m', nth))));
    let outer: Vec<String> = outer.collect();
    let list: Vec<String> = inner('d', dimensions.iter().map(|(sql, _)| sql.clone()).collect())
        .into_iter()
        .chain(inner('m', measures.iter().map(|(sql, _)| sql.clone()).collect()))
        .collect();
    let (grouped, ordered) = if groups.is_empty() {
        (String::new(), String::new())
    } else {
        let places: Vec<String> = groups.iter().map(|group| format!("{group} ASC NULLS LAST")).collect();
        (format!("\nGROUP BY {}", groups.join(", ")), format!("\nORDER BY {}", places.join(", ")))
    };
    let limit = request.max_buckets.get().saturating_add(1);
    Ok(format!(
        "SELECT {}\nFROM (SELECT {}\nFROM {relation}{grouped}{ordered}\nLIMIT {limit}){ordered}",
        outer.join(", "),
        list.join(", ")
    ))
}

/// How a value becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AsJson {
    /// As the server writes it.
    Plain,
    /// The same of a text of any length.
    Text,
    /// A number, whose digits JSON takes as they are: the server puts wide ones between quotes.
    Digits,
    /// A text that is JSON itself between quotes.
    Quoted,
    /// A day and a time of it in UTC, as text.
    Moment,
}

impl AsJson {
    fn of(self, value: &str) -> String {
        let json = match self {
            Self::Plain | Self::Text => format!("toJSONString({value})"),
            Self::Digits => format!("toString({value})"),
            Self::Quoted => format!("concat('\"', {value}, '\"')"),
            Self::Moment => format!("concat('\"', replaceOne({value}, ' ', 'T'), '+00:00\"')"),
        };
        cut(&format!("if(isNull({value}), 'null', assumeNotNull({json}))"), BUCKET_JSON_CHARS)
    }
}

/// A text that is longer than so many characters, by one of them: the rest is worth no memory.
fn cut(text: &str, most: usize) -> String {
    format!("substringUTF8({text}, 1, {})", most.saturating_add(1))
}

/// The text of a group's value, and how that becomes JSON.
fn dimension(dimension: &Dimension) -> Result<(String, AsJson), ChScopeError> {
    let side = ChSide::of(&dimension.column)?;
    if let Some(unit) = dimension.bucket {
        return bucketed(&side, unit, &dimension.column);
    }
    if !side.of.is_scalar() {
        let (column, type_name) = (dimension.column.name.clone(), dimension.column.type_name.clone());
        return Err(ChScopeError::NotChosen { column, type_name });
    }
    let value = &side.operand;
    Ok(match side.of.ch_type {
        ChType::Text => (value.clone(), AsJson::Text),
        ChType::Bool => (value.clone(), AsJson::Plain),
        // The server groups by bits, and finds by value: both zeros are one value, and every nan is.
        ChType::Float32 => (format!("toFloat32({})", one_of_equals(value)), AsJson::Plain),
        ChType::Float64 => (one_of_equals(value), AsJson::Plain),
        ChType::Integer { .. } | ChType::Decimal { .. } => (value.clone(), AsJson::Digits),
        ChType::DateTime | ChType::DateTime64 { .. } => (format!("toString({value}, 'UTC')"), AsJson::Moment),
        ChType::Date => (format!("toString({value})"), AsJson::Quoted),
        // Its zeros at the end are none of its text.
        _ => (format!("toString({value})"), AsJson::Plain),
    })
}

/// The same float for all that are equal.
fn one_of_equals(value: &str) -> String {
    format!("if(isNaN({value}), nan, {value} + 0)")
}

/// The first moment of the bucket that a value falls into, as text: the server's own functions for it know only the days of
/// `Date` unless they are told otherwise.
fn bucketed(side: &ChSide<'_>, unit: BucketUnit, column: &ScopeColumn) -> Result<(String, AsJson), ChScopeError> {
    if !side.of.has_days() {
        return Err(ChScopeError::NoDays(column.name.clone()));
    }
    let moments = side.of.has_moments();
    let value = if moments { format!("toTimeZone({}, 'UTC')", side.operand) } else { side.operand.clone() };
    let day = format!("toDate32({value})");
    let first = match unit {
        BucketUnit::Hour | BucketUnit::Day => day,
        BucketUnit::Week => format!("subtractDays({day}, toDayOfWeek({value}) - 1)"),
        BucketUnit::Month => format!("makeDate32(toYear({value}), toMonth({value}), 1)"),
        BucketUnit::Quarter => format!("makeDate32(toYear({value}), toQuarter({value}) * 3 - 2, 1)"),
        BucketUnit::Year => format!("makeDate32(toYear({value}), 1, 1)"),
    };
    if !moments {
        return Ok((format!("toString({first})"), AsJson::Quoted));
    }
    let time = match unit {
        BucketUnit::Hour => format!("concat(' ', leftPad(toString(toHour({value})), 2, '0'), ':00:00')"),
        _ => "' 00:00:00'".to_owned(),
    };
    Ok((format!("concat(toString({first}), {time})"), AsJson::Moment))
}

fn measure(measure: &Measure) -> Result<(String, AsJson), ChScopeError> {
    let of = |function: &str, column: &ScopeColumn| -> Result<String, ChScopeError> {
        Ok(format!("{function}({})", operand(column)?))
    };
    Ok(match measure {
        Measure::Count => ("count()".to_owned(), AsJson::Digits),
        Measure::Sum(column) => {
            let (value, as_json) = summed(column)?;
            (format!("sum({value})"), as_json)
        }
        Measure::Avg(column) => (of("avg", column)?, AsJson::Plain),
        Measure::Min(column) => of_values("min", column)?,
        Measure::Max(column) => of_values("max", column)?,
    })
}

fn of_values(function: &str, column: &ScopeColumn) -> Result<(String, AsJson), ChScopeError> {
    let value = format!("{function}({})", operand(column)?);
    let of = ScopeType::parse(&column.type_name);
    Ok(match of.as_ref().map(|of| &of.ch_type) {
        Some(ChType::DateTime | ChType::DateTime64 { .. }) => (format!("toString({value}, 'UTC')"), AsJson::Moment),
        Some(ChType::Integer { .. } | ChType::Decimal { .. }) => (value, AsJson::Digits),
        _ => (value, AsJson::Plain),
    })
}

/// What is summed, in a type that holds the sum: that of the server wraps around.
fn summed(column: &ScopeColumn) -> Result<(String, AsJson), ChScopeError> {
    let value = operand(column)?;
    Ok(match ScopeType::parse(&column.type_name).map(|of| of.ch_type) {
        Some(ChType::Integer { bits, .. }) if bits <= 64 => (format!("toInt128({value})"), AsJson::Digits),
        Some(ChType::Integer { signed: true, .. }) => (format!("toInt256({value})"), AsJson::Digits),
        Some(ChType::Integer { .. }) => (format!("toUInt256({value})"), AsJson::Digits),
        Some(ChType::Decimal { scale, .. }) => (format!("toDecimal256({value}, {scale})"), AsJson::Digits),
        _ => (value, AsJson::Plain),
    })
}
