//! What the manifest says of the columns, and what was found in a part.

use std::cmp::Ordering;

use super::value::{TextKind, Value};
use crate::commit::model::{FormatKind, Manifest, PartEntry, SchemaColumn};
use crate::commit::types::{parquet_type, parse_arrow_type};
use crate::model::{Carrier, ColumnSummary, Format};

/// Of a longer text no more is kept: the manifest shows 64 bytes at most.
pub(super) const KEPT_BYTES: usize = 128;

/// One column, as the manifest describes it.
#[derive(Debug, Clone)]
pub(super) struct ExpectedColumn {
    /// Its name in the output.
    pub(super) name: String,
    /// How its values are read.
    pub(super) kind: TextKind,
    /// The type of its batches; text and integers stand for all that are held as such.
    pub(super) carrier: Carrier,
    /// Whether a NULL can occur.
    pub(super) nullable: bool,
    /// Whether the file may have more NULLs than the manifest counts: JSON's own null is none of SQL's, and a policy may
    /// write null for what JSON has no number for.
    pub(super) more_nulls: bool,
    /// Whether the file's values are in the manifest's order: not where a guard or a policy wrote some otherwise.
    comparable: bool,
}

/// The columns of a manifest.
///
/// # Errors
/// What the manifest says of a column's type makes no sense.
pub(super) fn columns(manifest: &Manifest) -> Result<Vec<ExpectedColumn>, Vec<String>> {
    let (mut columns, mut problems) = (Vec::new(), Vec::new());
    for described in &manifest.schema {
        match column(described, manifest) {
            Ok(column) => columns.push(column),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

fn column(described: &SchemaColumn, manifest: &Manifest) -> Result<ExpectedColumn, String> {
    let SchemaColumn { name, arrow_type, nullable, .. } = described;
    let Some(carrier) = parse_arrow_type(arrow_type) else {
        return Err(format!("column {name:?}: its arrow_type {arrow_type:?} is no type that this build knows"));
    };
    let format = manifest.format.format();
    let wanted = parquet_type(&carrier, format);
    if described.parquet_type != wanted {
        let text = |name: &Option<String>| name.as_deref().unwrap_or("none").to_owned();
        let (found, wanted) = (text(&described.parquet_type), text(&wanted));
        return Err(format!(
            "column {name:?}: its parquet_type {found} is not that of {arrow_type}, which is {wanted}"
        ));
    }
    let kind = TextKind::of(&carrier);
    let is_text = described.is_plain_text();
    let (float, text) = (matches!(kind, TextKind::Float32 | TextKind::Float64), kind == TextKind::Text);
    let nulled = described.policy.split(", ").any(|word| word == "null");
    // In NDJSON the null of a value that is none in JSON is not told from the one of a policy, nor JSON's own from SQL's.
    let ambiguous = format == Format::Ndjson && ((text && !is_text) || (float && nulled));
    let guarded = matches!(&manifest.format.kind, FormatKind::Csv(options) if options.formula_guard);
    Ok(ExpectedColumn {
        name: name.clone(),
        kind,
        nullable: *nullable,
        more_nulls: ambiguous,
        comparable: match format {
            Format::Parquet => true,
            Format::Csv => !(text && guarded && described.policy_count != Some(0)),
            Format::Ndjson => !ambiguous,
            Format::Source => false,
        },
        carrier,
    })
}

/// What was found of one column in one part.
#[derive(Debug, Clone, Default)]
pub(super) struct ObservedStatistics {
    /// How many values are NULL.
    pub(super) nulls: u64,
    /// The least and greatest value.
    pub(super) extremes: Option<(Value, Value)>,
}

impl ObservedStatistics {
    /// Takes one more value in.
    pub(super) fn widen(&mut self, value: Value) {
        match &mut self.extremes {
            None => self.extremes = Some((value.clone(), value)),
            Some((min, max)) => {
                if value.order(min) == Ordering::Less {
                    *min = value;
                } else if value.order(max) == Ordering::Greater {
                    *max = value;
                }
            }
        }
    }
}

/// Compares what was found in a part with what the manifest says of it.
pub(super) fn compare(columns: &[ExpectedColumn], found: &[ObservedStatistics], part: &PartEntry) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, (column, found)) in columns.iter().zip(found).enumerate() {
        let mut tell = |problem: String| problems.push(format!("column {:?}: {problem}", column.name));
        if found.nulls > 0 && !column.nullable && !column.more_nulls {
            tell(format!("{} of its values are NULL, the manifest says that none can be", found.nulls));
        }
        // Under `--manifest-stats none` there is nothing to compare.
        let Some(said) = part.columns.get(index) else { continue };
        let nulls_agree = if column.more_nulls { found.nulls >= said.nulls } else { found.nulls == said.nulls };
        if !nulls_agree {
            tell(format!("{} of its values are NULL, the manifest says {}", found.nulls, said.nulls));
        }
        if column.comparable {
            extremes(column.kind, found, said).into_iter().for_each(tell);
        }
    }
    problems
}

/// Only a value that the manifest shows itself is repeated here.
fn extremes(kind: TextKind, found: &ObservedStatistics, said: &ColumnSummary) -> Vec<String> {
    let mut problems = Vec::new();
    let ends = found.extremes.as_ref();
    let least = (&said.min, ends.map(|ends| &ends.0), "least", Ordering::Less);
    let greatest = (&said.max, ends.map(|ends| &ends.1), "greatest", Ordering::Greater);
    for (said_text, found, which, beyond) in [least, greatest] {
        let Some(text) = said_text else { continue };
        let Some(value) = kind.parse(text.as_bytes()) else {
            problems.push(format!("the manifest's {which} value {text:?} is none of its type"));
            continue;
        };
        let Some(found) = found else {
            problems.push(format!("it has no value, the manifest says that the {which} is {text:?}"));
            continue;
        };
        match found.order(&value) {
            Ordering::Equal => {}
            order if said.exact || order == beyond => {
                let bound = if said.exact { "" } else { "a bound of " };
                problems.push(format!("its {which} value is not {text:?}, as the manifest says of {bound}it"));
            }
            _ => {}
        }
    }
    problems
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// Columns by name and kind, which can be NULL.
    pub(in crate::verify) fn columns(kinds: &[(&str, TextKind)]) -> Arc<[ExpectedColumn]> {
        let column = |(name, kind): &(&str, TextKind)| ExpectedColumn {
            name: (*name).to_owned(),
            kind: *kind,
            carrier: Carrier::Text,
            nullable: true,
            more_nulls: false,
            comparable: true,
        };
        kinds.iter().map(column).collect()
    }
}
