//! Which columns are written, under which names, and how each is sent. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::mapping::{ChMapping, ChTerms, map_type, may_become_null, sent, sent_as};
use super::names::quoted;
use super::types::ChType;
use crate::base::words::NAMES_IN_ERROR_MAX;
use crate::model::{
    Carrier, ColumnChoice, ColumnOrigin, ColumnPlan, ColumnStatistics, DuplicateColumns, Format, InvalidUtf8,
    JsonLargeNumbers, JsonNan, Nested, OnUnrepresentable, Policies, PolicyOptions, Preset, ShapeOptions,
    TimestampPrecision,
};
use crate::source::{SourceError, SourceFault};

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChColumnFacts {
    pub(crate) name: String,
    /// As the server prints it.
    pub(crate) type_name: String,
    /// Whether `SELECT *` leaves it out: it is materialized or an alias.
    pub(crate) hidden: bool,
    /// What an alias stands for: it is computed whenever it is read.
    pub(crate) alias: Option<String>,
}

/// An output column, and the expression that sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChColumn {
    pub(crate) output: ColumnPlan,
    /// What stands for it in the SELECT list.
    pub(crate) sent: String,
}

/// A request that makes no sense for this server or relation.
pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> SourceError {
    SourceError::new(SourceFault::Usage, message).with_hint(hint)
}

/// What column plans depend on besides the relation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChColumnRules<'a> {
    pub(crate) format: Format,
    pub(crate) policies: &'a PolicyOptions,
}

/// Decides the output columns: `--columns` in the order given, else all that `SELECT *` gives, then the `--column`
/// expressions in theirs. `expressions` are those as the server describes them.
///
/// # Errors
/// A name that is unknown, given twice or taken, a type that cannot be read, or nothing to write.
pub(crate) fn columns(
    described: &[ChColumnFacts],
    shape: &ShapeOptions,
    expressions: &[ChColumnFacts],
    rules: &ChColumnRules<'_>,
) -> Result<Vec<ChColumn>, SourceError> {
    let mut places: Vec<(usize, ChColumn)> = Vec::new();
    let mut names = ChOutputNames { taken: HashSet::new(), rules };
    let selected = select(described, shape)?;
    for (old, _) in &shape.renames {
        if !selected.iter().any(|column| column.name == *old) {
            return Err(unknown("--rename", old, selected.iter().map(|column| column.name.as_str())));
        }
    }
    for column in selected {
        let new = shape.renames.iter().find(|(old, _)| *old == column.name).map(|(_, new)| new.as_str());
        let name = names.take(new.unwrap_or(&column.name))?;
        let origin = ColumnOrigin::Column(column.name.clone());
        let made = one(name, origin, &column.type_name, &quoted(&column.name), rules)?;
        places.push((place(shape, &column.name, true), made));
    }
    for ((name, text), column) in shape.expressions.iter().zip(expressions) {
        let taken = names.take(name)?;
        let made =
            one(taken, ColumnOrigin::Expression(text.clone()), &column.type_name, &format!("(\n{text}\n)"), rules)?;
        places.push((place(shape, name, false), made));
    }
    // What --columns does not name comes last, in its own order.
    places.sort_by_key(|(place, _)| *place);
    let made: Vec<ChColumn> = places.into_iter().map(|(_, column)| column).collect();
    if made.is_empty() {
        return Err(usage("there is no column to export", "name some with --columns"));
    }
    for (name, _) in &rules.policies.columns {
        if !made.iter().any(|column| column.output.name == *name) {
            return Err(unknown("--column-policy", name, made.iter().map(|column| column.output.name.as_str())));
        }
    }
    Ok(made)
}

/// Where a column stands by `--columns`.
fn place(shape: &ShapeOptions, name: &str, of_relation: bool) -> usize {
    let Some(names) = &shape.columns else { return usize::MAX };
    let renamed = shape.renames.iter().any(|(old, _)| old == name);
    let expression = shape.expressions.iter().any(|(of, _)| of == name) && !renamed;
    let here = names.iter().position(|of| of == name).filter(|_| expression != of_relation);
    here.unwrap_or(usize::MAX)
}

fn select<'a>(described: &'a [ChColumnFacts], shape: &ShapeOptions) -> Result<Vec<&'a ChColumnFacts>, SourceError> {
    let Some(names) = shape.relation_columns() else {
        return Ok(described.iter().filter(|column| !column.hidden).collect());
    };
    let mut seen = HashSet::new();
    let one = |name: &String| {
        if !seen.insert(name.clone()) {
            return Err(usage(format!("--columns: column {name:?} is named twice"), "name it once"));
        }
        let found = described.iter().find(|column| column.name == *name);
        found.ok_or_else(|| unknown("--columns", name, described.iter().map(|column| column.name.as_str())))
    };
    names.iter().map(one).collect()
}

fn unknown<'a>(flag: &str, name: &str, known: impl Iterator<Item = &'a str>) -> SourceError {
    let known: Vec<&str> = known.collect();
    let shown = known.iter().take(NAMES_IN_ERROR_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if known.len() > NAMES_IN_ERROR_MAX { ", …" } else { "" };
    SourceError::new(SourceFault::Usage, format!("{flag}: there is no column {name:?}"))
        .with_hint(format!("the columns are {shown}{more}"))
}

/// The output names given so far.
struct ChOutputNames<'a> {
    taken: HashSet<String>,
    rules: &'a ChColumnRules<'a>,
}

impl ChOutputNames<'_> {
    /// A name as the preset's readers compare it.
    fn folded(&self, name: &str) -> String {
        match self.rules.policies.preset {
            Preset::Postgres => name.to_owned(),
            Preset::Athena | Preset::Spectrum => name.to_lowercase(),
        }
    }

    fn take(&mut self, name: &str) -> Result<String, SourceError> {
        if name.is_empty() {
            return Err(usage(
                "the name of an output column is empty",
                "give it one with --rename or --column NAME=SQL",
            ));
        }
        if self.taken.insert(self.folded(name)) {
            return Ok(name.to_owned());
        }
        if self.rules.policies.duplicate_columns == DuplicateColumns::Error {
            let hint = "rename one with --rename, or take --duplicate-columns suffix";
            return Err(usage(format!("two output columns are called {name:?}"), hint));
        }
        let free =
            (2..=u32::MAX).map(|nth| format!("{name}_{nth}")).find(|next| !self.taken.contains(&self.folded(next)));
        let free = free.unwrap_or_default();
        self.taken.insert(self.folded(&free));
        Ok(free)
    }
}

/// The plan of one column. `value` is its expression at the server.
fn one(
    name: String,
    origin: ColumnOrigin,
    type_name: &str,
    value: &str,
    rules: &ChColumnRules<'_>,
) -> Result<ChColumn, SourceError> {
    let ch_type = ChType::parse(type_name).map_err(|why| {
        let hint = format!("leave it out of --columns, or write its text: --column {name}='toString(…)'");
        usage(format!("column {name:?} is of type {type_name}: {why}"), hint)
    })?;
    let mut terms = ChTerms { format: rules.format, preset: rules.policies.preset, policies: rules.policies.default };
    for (_, choice) in rules.policies.columns.iter().filter(|(column, _)| *column == name) {
        choose(*choice, &mut terms, &name, type_name, &ch_type)?;
    }
    if rules.format != Format::Ndjson {
        terms.policies.json_nan = JsonNan::String;
    }
    let mapping = map_type(&ch_type, &terms).ok_or_else(|| {
        let message =
            format!("column {name:?} holds the state of an aggregate function ({type_name}), which no file can");
        usage(message, format!("write what it comes to: --column {name}='finalizeAggregation(…)'"))
    })?;
    let free_text = is_free_text(&ch_type, &mapping.carrier)
        && terms.policies.formula_guard == rules.policies.default.formula_guard;
    let sent_by = sent(&ch_type, &mapping.carrier, value);
    let output = ColumnPlan {
        policy: words(&ch_type, &mapping, &terms, free_text),
        nullable: ch_type.is_nullable() || may_become_null(&ch_type, &terms),
        name,
        origin,
        type_name: type_name.to_owned(),
        sent_as: sent_as(&ch_type, &mapping.carrier).to_owned(),
        ordered: is_ordered(ch_type.inner(), &mapping.carrier),
        may_show: may_show(ch_type.inner()),
        free_text,
        carrier: mapping.carrier,
        policies: terms.policies,
        rewritten: mapping.rewritten.is_some(),
        text_varies: mapping.rewritten.is_some_and(|word| word != "text"),
        shared_name: None,
        note: mapping.note,
        statistics: ColumnStatistics::default(),
    };
    Ok(ChColumn { output, sent: sent_by })
}

/// Makes a `--column-policy` choice for one column.
fn choose(
    choice: ColumnChoice,
    terms: &mut ChTerms,
    name: &str,
    type_name: &str,
    ch_type: &ChType,
) -> Result<(), SourceError> {
    let parquet = terms.format == Format::Parquet;
    let ndjson = terms.format == Format::Ndjson;
    let nested = ch_type.is_nested();
    let text = ch_type.holds(&|part| is_text(part)) || *ch_type.inner() == ChType::Json;
    let float = ndjson && is_float(ch_type.inner());
    let number =
        ndjson && (nested || matches!(ch_type.inner(), ChType::Integer { .. } | ChType::Decimal { .. } | ChType::Json));
    let stamp = parquet && ch_type.holds(&|part| matches!(part, ChType::DateTime | ChType::DateTime64 { .. }));
    let takes = [
        (ColumnChoice::Error, text || float || stamp),
        (ColumnChoice::Null, float || stamp),
        (ColumnChoice::Text, parquet),
        (ColumnChoice::Json, nested && parquet),
        (ColumnChoice::Replace, text),
        (ColumnChoice::Bytes, text && (parquet || !nested) && *ch_type.inner() != ChType::Json),
        (ColumnChoice::Number, number),
        (ColumnChoice::String, number),
        (ColumnChoice::Round, stamp),
        (ColumnChoice::Raw, terms.policies.formula_guard),
    ];
    if !takes.contains(&(choice, true)) {
        let words: Vec<String> =
            takes.iter().filter(|(_, takes)| *takes).map(|(choice, _)| choice.to_string()).collect();
        let known = if words.is_empty() { "it has none".to_owned() } else { format!("it has {}", words.join(", ")) };
        let message =
            format!("--column-policy {name}={choice}: a column of type {type_name} has no such choice in this format");
        return Err(usage(message, known));
    }
    let policies = &mut terms.policies;
    match choice {
        ColumnChoice::Error => {
            policies.on_unrepresentable = OnUnrepresentable::Error;
            policies.invalid_utf8 = InvalidUtf8::Error;
            if ndjson {
                policies.json_nan = JsonNan::Error;
            }
            if policies.timestamp_precision == TimestampPrecision::Millis {
                policies.timestamp_precision = TimestampPrecision::MillisExact;
            }
        }
        ColumnChoice::Null => {
            policies.on_unrepresentable = OnUnrepresentable::Null;
            policies.json_nan = JsonNan::Null;
        }
        ColumnChoice::Text => policies.as_text = true,
        ColumnChoice::Json => policies.nested = Nested::Json,
        ColumnChoice::Replace => policies.invalid_utf8 = InvalidUtf8::Replace,
        ColumnChoice::Bytes => policies.invalid_utf8 = InvalidUtf8::Bytes,
        ColumnChoice::Number => policies.json_large_numbers = JsonLargeNumbers::Number,
        ColumnChoice::String => policies.json_large_numbers = JsonLargeNumbers::String,
        ColumnChoice::Round => policies.timestamp_precision = TimestampPrecision::Millis,
        ColumnChoice::Raw => policies.formula_guard = false,
        // These are of types that ClickHouse does not have, and were refused above.
        ColumnChoice::Decimal { .. } | ColumnChoice::Double | ColumnChoice::Keep | ColumnChoice::Trim => {}
    }
    Ok(())
}

fn is_text(ch_type: &ChType) -> bool {
    matches!(ch_type, ChType::Text | ChType::Fixed)
}

fn is_float(ch_type: &ChType) -> bool {
    matches!(ch_type, ChType::Float32 | ChType::Float64 | ChType::BFloat16)
}

/// Whether somebody typed it: a spreadsheet may take it for a formula.
fn is_free_text(ch_type: &ChType, carrier: &Carrier) -> bool {
    let by_type = matches!(ch_type.inner(), ChType::Text | ChType::Fixed | ChType::Enum | ChType::Either);
    *carrier == Carrier::Text && by_type
}

/// Whether the values as they are held stand in the server's order.
fn is_ordered(ch_type: &ChType, carrier: &Carrier) -> bool {
    match ch_type {
        ChType::Text | ChType::Fixed | ChType::Bool | ChType::Date => true,
        ChType::Integer { .. } | ChType::Decimal { .. } => *carrier != Carrier::NumberText,
        ChType::DateTime | ChType::DateTime64 { .. } => *carrier != Carrier::Text,
        _ => false,
    }
}

/// Whether values of a type say nothing that a person wrote.
fn may_show(ch_type: &ChType) -> bool {
    matches!(
        ch_type,
        ChType::Bool
            | ChType::Integer { .. }
            | ChType::Float32
            | ChType::Float64
            | ChType::BFloat16
            | ChType::Decimal { .. }
            | ChType::Date
            | ChType::DateTime
            | ChType::DateTime64 { .. }
            | ChType::TimeOfDay
            | ChType::Interval
            | ChType::Uuid
    )
}

/// The choices that matter to a column, in the words of their flags.
fn words(ch_type: &ChType, mapping: &ChMapping, terms: &ChTerms, free_text: bool) -> String {
    let Policies { json_nan, json_large_numbers, timestamp_precision, invalid_utf8, .. } = terms.policies;
    let ndjson = terms.format == Format::Ndjson;
    let mut words: Vec<&str> = mapping.rewritten.into_iter().collect();
    let stamps = terms.format == Format::Parquet
        && !terms.policies.as_text
        && ch_type.holds(&|part| matches!(part, ChType::DateTime64 { scale } if *scale <= 6));
    match timestamp_precision {
        TimestampPrecision::Millis if stamps => words.push("round"),
        TimestampPrecision::MillisExact if stamps => {
            words.push(if terms.policies.on_unrepresentable == OnUnrepresentable::Null { "null" } else { "error" });
        }
        _ => {}
    }
    if terms.format == Format::Csv && terms.policies.formula_guard && free_text {
        words.push("guard");
    }
    let text = ch_type.holds(&|part| is_text(part) || matches!(part, ChType::Json | ChType::Either));
    match invalid_utf8 {
        InvalidUtf8::Replace if text => words.push("replace"),
        InvalidUtf8::Error if text => words.push("error"),
        InvalidUtf8::Bytes if text && mapping.carrier != Carrier::Bytes => words.push("error"),
        _ => {}
    }
    match json_nan {
        JsonNan::Null if ndjson && is_float(ch_type.inner()) => words.push("null"),
        JsonNan::Error if ndjson && is_float(ch_type.inner()) => words.push("error"),
        _ => {}
    }
    let large = matches!(mapping.carrier, Carrier::Int64 | Carrier::NumberText | Carrier::Json);
    if ndjson && large && json_large_numbers == JsonLargeNumbers::String {
        words.push("string");
    }
    Policies::shown(&words)
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
