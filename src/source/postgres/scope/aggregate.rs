//! Rows, grouped and measured, as one statement.

use super::error::ScopeError;
use super::predicate::{bucketed, operand};
use crate::model::{AggregateRequest, BUCKET_JSON_CHARS, BUCKET_TEXT_CHARS, Dimension, Measure};

/// The statement of an aggregation over `relation`, which stands behind FROM: for each dimension the text of its value and
/// the value as JSON, then for each measure its value as JSON; one group more than asked for, where there is one.
///
/// # Errors
/// An expression that cannot stand in a statement; a bucket of something that is no date.
pub(crate) fn aggregate(
    request: &AggregateRequest,
    relation: &str,
    predicate: Option<&str>,
) -> Result<String, ScopeError> {
    let dimensions = request.dimensions.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
    let measures = request.measures.iter().map(measure).collect::<Result<Vec<_>, _>>()?;
    let named = |prefix: &str, list: &[String]| -> Vec<String> {
        (0..).zip(list).map(|(nth, sql): (usize, _)| format!("{sql} AS {prefix}{nth}")).collect()
    };
    let inner: Vec<String> = named("d", &dimensions).into_iter().chain(named("m", &measures)).collect();
    let texts = (0..dimensions.len()).flat_map(|nth| {
        let value = format!("g.d{nth}");
        let text = cut(&format!("pg_catalog.format('%s', {value})"), BUCKET_TEXT_CHARS);
        [format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN {text} END"), json(&value)]
    });
    let outer: Vec<String> = texts.chain((0..measures.len()).map(|nth| json(&format!("g.m{nth}")))).collect();
    let places: Vec<String> = (1..=dimensions.len()).map(|place| place.to_string()).collect();
    let values: Vec<String> = (0..dimensions.len()).map(|nth| format!("g.d{nth}")).collect();
    let (grouped, ordered) = if places.is_empty() {
        (String::new(), String::new())
    } else {
        let places = places.join(", ");
        (format!("\nGROUP BY {places}\nORDER BY {places}"), format!("\nORDER BY {}", values.join(", ")))
    };
    let filter = predicate.map_or(String::new(), |predicate| format!("\nWHERE (\n{predicate}\n)"));
    let limit = request.max_buckets.get().saturating_add(1);
    Ok(format!(
        "SELECT {}\nFROM (SELECT {}\nFROM {relation}{filter}{grouped}\nLIMIT {limit}) AS g{ordered}",
        outer.join(", "),
        inner.join(", ")
    ))
}

fn json(value: &str) -> String {
    cut(&format!("COALESCE(pg_catalog.to_json({value})::pg_catalog.text, 'null')"), BUCKET_JSON_CHARS)
}

/// A text that is longer than so many characters, by one of them: the rest is worth no memory.
fn cut(text: &str, most: usize) -> String {
    format!("pg_catalog.left({text}, {})", most.saturating_add(1))
}

fn dimension(dimension: &Dimension) -> Result<String, ScopeError> {
    match dimension.bucket {
        Some(unit) => bucketed(&dimension.column, unit),
        None => operand(&dimension.column),
    }
}

fn measure(measure: &Measure) -> Result<String, ScopeError> {
    Ok(match measure {
        Measure::Count => "pg_catalog.count(*)".to_owned(),
        Measure::Sum(column) => format!("pg_catalog.sum({})", operand(column)?),
        Measure::Avg(column) => format!("pg_catalog.avg({})", operand(column)?),
        Measure::Min(column) => format!("pg_catalog.min({})", operand(column)?),
        Measure::Max(column) => format!("pg_catalog.max({})", operand(column)?),
    })
}
