//! What a caller asks for, as JSON, and what it means: which columns, which rows, in which order. A caller names only what
//! the dataset grants.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::Caller;
use super::bucket_key::invalid;
use super::catalog::column_of;
use super::problem::Refusal;
use crate::config::date;
use crate::config::service::{Dataset, DatasetColumn, TenantRule};
use crate::model::{DescribedRelation, Direction, RowScope, ScopeCondition, ScopeTest, TenantScope};

/// Characters of a pattern; what is longer makes the server work more than it finds.
const PATTERN_CHARS_MAX: usize = 256;

/// Columns that rows are ordered by.
const ORDER_COLUMNS_MAX: usize = 4;

/// The SQLSTATEs of a text that is no value of its type: how it is written, a number, dates and offsets beyond what there is.
/// ClickHouse reads no text of a caller.
const VALUE_CODES: [&str; 6] = ["22P02", "22003", "22007", "22008", "22009", "22023"];

/// The two formats of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamFormat {
    #[default]
    Ndjson,
    Csv,
}

/// The body of a query.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Question {
    pub(crate) format: StreamFormat,
    #[schema(required = true)]
    pub(crate) columns: Vec<String>,
    pub(crate) r#where: Vec<Filter>,
    pub(crate) date_range: Option<DateRange>,
    pub(crate) order_by: Vec<OrderBy>,
    /// Whether no rows are an answer.
    pub(crate) allow_empty: bool,
    /// Whether NDJSON ends in a line that says how it ended.
    pub(crate) end_record: bool,
}

/// Reads a body.
///
/// # Errors
/// As [`Question::parse`].
pub(crate) fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        // Of a value it says the kind and, of a text, the text itself, which is the caller's own.
        Refusal::invalid("the body is not as it should be").with_detail(error.to_string())
    })
}

/// One filter. Numbers stay as they are written: a `f64` would lose digits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    column: String,
    op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    values: Option<Vec<Box<RawValue>>>,
}

/// Days, both ends inclusive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DateRange {
    from: Option<String>,
    to: Option<String>,
}

/// One column of the order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBy {
    column: String,
    #[serde(default)]
    direction: OrderDirection,
}

/// Which way.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderDirection {
    #[default]
    Asc,
    Desc,
}

impl Question {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON, has a field that there is not, or a value of the wrong kind.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        parsed(body)
    }

    /// What a failure is, where the value of a filter may be the cause: the database could not read it as one of its column's
    /// type. All else that it rejects is the operator's, whose expressions meet other rows each time.
    pub(crate) fn blamed(&self, refusal: Refusal) -> Refusal {
        let of_value = refusal.source_code.as_deref().is_some_and(|code| VALUE_CODES.contains(&code));
        let has_value = self.r#where.iter().any(|filter| filter.value.is_some() || filter.values.is_some());
        if refusal.code != "source_rejected" || !of_value || !has_value {
            return refusal;
        }
        let detail = "a value is none of its column's type, or is out of its range";
        Refusal::invalid("the database does not take a filter").with_detail(detail)
    }

    /// The columns that are asked for, in their order.
    ///
    /// # Errors
    /// None, one twice, or one that is not granted.
    pub(crate) fn columns<'a>(&'a self, dataset: &'a Dataset) -> Result<Vec<(&'a str, &'a DatasetColumn)>, Refusal> {
        if self.columns.is_empty() {
            return Err(Refusal::invalid("columns: name at least one column"));
        }
        let mut seen = BTreeSet::new();
        let columns = self.columns.iter().map(|name| {
            if !seen.insert(name) {
                return Err(Refusal::invalid(format!("columns: {name:?} is named twice")));
            }
            Ok((name.as_str(), granted(dataset, name, "columns")?))
        });
        columns.collect()
    }

    /// The order that is asked for.
    ///
    /// # Errors
    /// A column that is not granted, or not to be ordered by.
    pub(crate) fn order(&self, dataset: &Dataset) -> Result<Vec<(String, Direction)>, Refusal> {
        if self.order_by.len() > ORDER_COLUMNS_MAX {
            return Err(Refusal::invalid(format!("order_by: at most {ORDER_COLUMNS_MAX} columns")));
        }
        let terms = self.order_by.iter().map(|OrderBy { column, direction }| {
            if !granted(dataset, column, "order_by")?.sort {
                return Err(Refusal::invalid(format!("order_by: rows are not ordered by {column:?}")));
            }
            let direction = match direction {
                OrderDirection::Asc => Direction::Asc,
                OrderDirection::Desc => Direction::Desc,
            };
            Ok((column.clone(), direction))
        });
        terms.collect()
    }

    /// The rows that are asked for, of those that the caller may have; in a bucket, where `bucket` is one's.
    ///
    /// # Errors
    /// A filter that makes no sense, or on what is not granted; a bucket of columns that are others by now; a caller without
    /// the tenant that the rows go by.
    pub(crate) fn scope(
        &self,
        dataset: &Dataset,
        described: &DescribedRelation,
        caller: &Caller,
        bucket: &[ScopeCondition],
    ) -> Result<RowScope, Refusal> {
        let mut conditions = Vec::with_capacity(self.r#where.len() + 1);
        for filter in &self.r#where {
            if !granted(dataset, &filter.column, "where")?.filter {
                return Err(Refusal::invalid(format!("where: rows are not chosen by {:?}", filter.column)));
            }
            let column = column_of(described, &filter.column)?.scope.clone();
            conditions.push(ScopeCondition { column, test: filter.test()? });
        }
        if let Some(range) = &self.date_range {
            conditions.push(range.condition(dataset, described)?);
        }
        for condition in bucket {
            if column_of(described, &condition.column.name).ok().is_none_or(|now| now.scope != condition.column) {
                return Err(invalid());
            }
            conditions.push(condition.clone());
        }
        let tenant = match (&dataset.tenant, tenant_of(dataset, caller)?) {
            (Some(TenantRule::Condition { template, type_name }), Some(tenant)) => {
                Some(TenantScope { template: template.clone(), type_name: type_name.clone(), tenant })
            }
            _ => None,
        };
        Ok(RowScope { conditions, tenant })
    }
}

/// The tenant whose rows are asked for; `None` where the dataset has no tenants.
///
/// # Errors
/// A caller without the tenant that the rows go by.
pub(crate) fn tenant_of(dataset: &Dataset, caller: &Caller) -> Result<Option<String>, Refusal> {
    if dataset.tenant.is_none() {
        return Ok(None);
    }
    let tenant = caller.tenant.clone().filter(|tenant| !tenant.trim().is_empty());
    let none = || Refusal::forbidden("the dataset's rows go by tenant, and the caller has none");
    tenant.map(Some).ok_or_else(none)
}

/// A column of the dataset. One that is not granted and one that is not there are the same to a caller.
fn granted<'a>(dataset: &'a Dataset, name: &str, place: &str) -> Result<&'a DatasetColumn, Refusal> {
    dataset.columns.get(name).ok_or_else(|| {
        let known: Vec<&str> = dataset.columns.keys().map(String::as_str).collect();
        Refusal::invalid(format!("{place}: {name:?} is no column of the dataset"))
            .with_detail(format!("the columns are {}", known.join(", ")))
    })
}

impl Filter {
    fn test(&self) -> Result<ScopeTest, Refusal> {
        let wrong = |what: &str| Refusal::invalid(format!("where: {:?} with {:?}: {what}", self.column, self.op));
        let one = || match (&self.value, &self.values) {
            (Some(value), None) => text(value).ok_or_else(|| wrong("value is to be a text, a number, true or false")),
            _ => Err(wrong("one value is wanted, in \"value\"")),
        };
        let several = || match (&self.value, &self.values) {
            (None, Some(values)) if !values.is_empty() => {
                let texts: Option<Vec<String>> = values.iter().map(|value| text(value)).collect();
                texts.ok_or_else(|| wrong("values are to be texts, numbers, true or false"))
            }
            _ => Err(wrong("a list is wanted, in \"values\"")),
        };
        let none = |test| match (&self.value, &self.values) {
            (None, None) => Ok(test),
            _ => Err(wrong("no value is wanted")),
        };
        match self.op.to_ascii_lowercase().replace('_', " ").as_str() {
            "=" => one().map(ScopeTest::Equal),
            "!=" => one().map(ScopeTest::NotEqual),
            "<" => one().map(ScopeTest::Less),
            "<=" => one().map(ScopeTest::LessOrEqual),
            ">" => one().map(ScopeTest::Greater),
            ">=" => one().map(ScopeTest::GreaterOrEqual),
            "in" => several().map(ScopeTest::In),
            "between" => match <[String; 2]>::try_from(several()?) {
                Ok([from, to]) => Ok(ScopeTest::Between(from, to)),
                Err(_) => Err(wrong("two values are wanted, in \"values\"")),
            },
            "is null" => none(ScopeTest::IsNull),
            "is not null" => none(ScopeTest::IsNotNull),
            "like" => {
                let pattern = one()?;
                if pattern.chars().count() > PATTERN_CHARS_MAX {
                    return Err(wrong("the pattern is too long"));
                }
                Ok(ScopeTest::Like(pattern))
            }
            _ => Err(wrong("op is one of =, !=, <, <=, >, >=, in, between, is null, is not null, like")),
        }
    }
}

/// The text of a JSON value, a number as it was written; none of null, a list or an object.
fn text(value: &RawValue) -> Option<String> {
    let raw = value.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'n' | b'[' | b'{' => None,
        _ => Some(raw.to_owned()),
    }
}

impl DateRange {
    fn condition(&self, dataset: &Dataset, described: &DescribedRelation) -> Result<ScopeCondition, Refusal> {
        let name =
            dataset.date_column.as_deref().ok_or_else(|| Refusal::invalid("date_range: the dataset has no date"))?;
        let column = column_of(described, name)?.scope.clone();
        let day = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => date(text)
                .map(|day| Some(day.to_string()))
                .map_err(|_| Refusal::invalid(format!("date_range: {text:?} is no day such as 2026-11-29"))),
        };
        let (from, to) = (day(&self.from)?, day(&self.to)?);
        if from.is_none() && to.is_none() {
            return Err(Refusal::invalid("date_range: from or to is wanted"));
        }
        Ok(ScopeCondition { column, test: ScopeTest::DateRange { from, to } })
    }
}
