//! Which rows of a dataset a caller may have, and which of these he asks for. Values are the caller's text: a source makes
//! them typed literals, and no other code makes SQL of them.

use serde::{Deserialize, Serialize};

/// Which rows of a dataset a caller may have and asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowScope {
    /// All of them must hold.
    pub conditions: Vec<ScopeCondition>,
    /// Whose rows; `None` where the dataset has no tenants, or where row security scopes the rows.
    pub tenant: Option<TenantScope>,
}

impl RowScope {
    /// What its predicate is made of.
    pub(crate) fn made_of(&self) -> ScopedPredicate {
        let columns: Vec<ScopeColumn> = self.conditions.iter().map(|condition| condition.column.clone()).collect();
        let expressions = columns.iter().filter_map(|column| column.sql.clone());
        let texts = self.tenant.iter().map(|tenant| tenant.template.clone()).chain(expressions).collect();
        ScopedPredicate { columns, texts }
    }
}

/// What a predicate is made of that no person wrote as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopedPredicate {
    /// The columns that it tests: how their values are compared was chosen by their types.
    pub columns: Vec<ScopeColumn>,
    /// What of it the operator wrote. The rest is ours, and the values of a caller in quotes.
    pub texts: Vec<String>,
}

/// One condition on one column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeCondition {
    /// On what.
    pub column: ScopeColumn,
    /// What must hold.
    pub test: ScopeTest,
}

/// A column as a source knows it. Nothing in it comes from a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScopeColumn {
    /// Its name.
    pub name: String,
    /// The operator's expression for it; `None` is the column of that name.
    pub sql: Option<String>,
    /// Its type as the catalog prints it; empty is unknown, and read as text.
    pub type_name: String,
    /// The schema of its operators, where a source needs to be told: PostgreSQL's of a type such as `citext`.
    pub operators: Option<String>,
    /// Whether its values are made of others among which are dates or times, as those of arrays and ranges may be.
    #[serde(default)]
    pub holds_times: bool,
}

/// What must hold of a column. A NULL fulfils none of them but [`ScopeTest::IsNull`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeTest {
    /// `=`
    Equal(String),
    /// `<>`
    NotEqual(String),
    /// `<`
    Less(String),
    /// `<=`
    LessOrEqual(String),
    /// `>`
    Greater(String),
    /// `>=`
    GreaterOrEqual(String),
    /// It equals one of these; none of them is no row.
    In(Vec<String>),
    /// Both ends inclusive.
    Between(String, String),
    /// It is NULL.
    IsNull,
    /// It is not NULL.
    IsNotNull,
    /// The text of it matches: `%` is any text, `_` one character, a backslash takes their meaning from them.
    Like(String),
    /// Days, both ends inclusive: of a timestamp all moments of the last day are in it.
    DateRange {
        /// The first day, `YYYY-MM-DD`.
        from: Option<String>,
        /// The last day, `YYYY-MM-DD`.
        to: Option<String>,
    },
    /// It falls into one bucket of dates, as [`AggregateRequest`](super::AggregateRequest) makes them.
    Bucket {
        /// How long the bucket is.
        unit: BucketUnit,
        /// Its first moment, as the source printed it.
        start: String,
    },
}

/// How long a bucket of dates is; days begin at midnight in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants say it")]
pub enum BucketUnit {
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    Quarter,
    Year,
}

/// Whose rows: the operator's condition with the caller's tenant in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantScope {
    /// `customer_id = {tenant}`.
    pub template: String,
    /// The type of the tenant: `uuid`, `bigint`; empty is text.
    pub type_name: String,
    /// The tenant. An empty one is refused before anything is sent.
    pub tenant: String,
}
