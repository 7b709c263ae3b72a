//! `[dataset.NAME.analysis.NAME]`: what was written becomes what is used.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::super::ConfigError;
use super::file::{AnalysisEntry, DatasetEntry};
use super::{Analysis, Dataset, MeasureKind};

/// Groups of an answer, unless it is said.
const BUCKETS: u64 = 1_000;

impl MeasureKind {
    /// The name of the measure in answers.
    pub(crate) fn output(self, column: &str) -> String {
        match self {
            Self::Count => "count".to_owned(),
            Self::Sum => format!("sum_{column}"),
            Self::Avg => format!("avg_{column}"),
            Self::Min => format!("min_{column}"),
            Self::Max => format!("max_{column}"),
        }
    }
}

impl Analysis {
    /// What its dimensions are called in answers, in their order.
    pub(crate) fn dimension_names<'a>(&'a self, dataset: &'a Dataset) -> impl Iterator<Item = &'a String> {
        self.dimensions.iter().chain(self.bucket.and(dataset.date_column.as_ref()))
    }
}

/// The analyses of a dataset; mistakes go to `errors`.
pub(super) fn analyses(
    place: &str,
    dataset: &DatasetEntry,
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<String, Analysis> {
    let granted = dataset.grants.as_ref().map(|grants| &grants.analyze);
    for name in granted.into_iter().flat_map(BTreeMap::keys).filter(|name| !dataset.analysis.contains_key(*name)) {
        let what = format!("{place}.grants.analyze: there is no analysis {name:?}");
        errors.push(ConfigError::new(what, format!("declare it in [{place}.analysis.{name}]")));
    }
    let mut found = BTreeMap::new();
    for (name, entry) in &dataset.analysis {
        let place = format!("{place}.analysis.{name}");
        let grants = granted.and_then(|granted| granted.get(name));
        if grants.is_some() && entry.grants.is_some() {
            errors.push(ConfigError::new(format!("{place}: its grants are given twice"), "give them once"));
        }
        let mut measures = Vec::new();
        for text in &entry.measures {
            match measure(text) {
                Some((kind, column)) if kind == MeasureKind::Count || dataset.columns.contains_key(&column) => {
                    measures.push((kind, column));
                }
                _ => {
                    let hint = "count, or sum, avg, min or max of one of the dataset's columns, as in \"sum(amount)\"";
                    errors.push(ConfigError::new(format!("{place}: the measure {text:?}"), hint));
                }
            }
        }
        check_dimensions(&place, dataset, entry, errors);
        let most = entry.max_buckets.or(NonZeroU64::new(BUCKETS)).unwrap_or(NonZeroU64::MIN);
        let analysis = Analysis {
            dimensions: entry.dimensions.clone(),
            bucket: entry.bucket,
            measures,
            max_buckets: most,
            tiers: grants.or(entry.grants.as_ref()).cloned(),
        };
        found.insert(name.clone(), analysis);
    }
    found
}

fn check_dimensions(place: &str, dataset: &DatasetEntry, entry: &AnalysisEntry, errors: &mut Vec<ConfigError>) {
    for column in entry.dimensions.iter().filter(|name| !dataset.columns.contains_key(*name)) {
        let what = format!("{place}: the dimension {column:?} is no column of the dataset");
        errors.push(ConfigError::new(what, "add it to the columns"));
    }
    if entry.bucket.is_some() && dataset.date_column.is_none() {
        errors.push(ConfigError::new(format!("{place}: bucket"), "name the dataset's date_column"));
    }
    if entry.dimensions.is_empty() && entry.bucket.is_none() {
        errors.push(ConfigError::new(format!("{place} has no dimensions"), "name a column, or a bucket"));
    }
    if entry.measures.is_empty() {
        errors.push(ConfigError::new(format!("{place} has no measures"), "write measures = [\"count\"]"));
    }
}

fn measure(text: &str) -> Option<(MeasureKind, String)> {
    if text == "count" {
        return Some((MeasureKind::Count, String::new()));
    }
    let (word, column) = text.strip_suffix(')')?.split_once('(')?;
    let kind = match word {
        "sum" => MeasureKind::Sum,
        "avg" => MeasureKind::Avg,
        "min" => MeasureKind::Min,
        "max" => MeasureKind::Max,
        _ => return None,
    };
    Some((kind, column.to_owned()))
}
