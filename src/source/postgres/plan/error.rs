//! Why a request cannot be planned.

use crate::base::memory;
use crate::base::words::NAMES_IN_ERROR_MAX;
use crate::model::ErrorCode;
use crate::source::{SourceError, SourceFault};

/// A request that makes no sense for this relation, with a hint that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A flag names a column that the relation does not have.
    #[error("{flag}: there is no column {name:?}")]
    UnknownColumn {
        /// The flag.
        flag: &'static str,
        /// The name as given.
        name: String,
        /// The nearest name, and all of them.
        advice: String,
    },
    /// A flag names a column twice.
    #[error("{flag}: column {name:?} is named twice")]
    RepeatedColumn {
        /// The flag.
        flag: &'static str,
        /// The name as given.
        name: String,
    },
    /// `--rename` of a column that `--columns` leaves out.
    #[error("--rename: column {name:?} is not among --columns")]
    RenameNotSelected {
        /// The old name.
        name: String,
    },
    /// An output column without a name.
    #[error("{flag}: the output column's name is empty")]
    EmptyName {
        /// The flag.
        flag: &'static str,
        /// What the flag takes.
        example: &'static str,
    },
    /// `--column` with the name of a selected column.
    #[error("--column or --partition-by {name}: a column of this name is exported already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// `--key` with a column whose type has no order.
    #[error("--key: values of type {pg_type} have no order, and so column {name:?} can order no rows")]
    NoOrder {
        /// The column.
        name: String,
        /// Its type.
        pg_type: String,
    },
    /// `--key` with a column whose values cannot be read from their texts.
    #[error(
        "--key: column {name:?} is of type {pg_type}, whose values cannot be read again from their text, and so it can order no rows"
    )]
    NotReadFromText {
        /// The column.
        name: String,
        /// Its type.
        pg_type: String,
    },
    /// Two output columns of one name.
    #[error("two output columns are called {name:?}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two members of a composite whose names readers take for one, in Parquet.
    #[error("column {column:?} has two members that its readers call {member:?}")]
    DuplicateMember {
        /// The output column.
        column: String,
        /// The second member's name.
        member: String,
    },
    /// The same in NDJSON, whose nested values are the server's own JSON.
    #[error("column {column:?} has two members that its readers call {member:?}")]
    DuplicateJsonMember {
        /// The output column.
        column: String,
        /// What it is in SQL.
        sql: String,
        /// The second member's name.
        member: String,
    },
    /// `--watermark` with a column that does not grow.
    #[error("--watermark: values of type {pg_type} tell no new rows from old ones, and so column {name:?} is none")]
    NoWatermark {
        /// The column.
        name: String,
        /// Its type.
        pg_type: String,
    },
    /// `--watermark` where rows do not say which transaction wrote them.
    #[error("--watermark: the rows of {relation} do not say which transaction wrote them")]
    NoTransactions {
        /// The relation.
        relation: String,
    },
    /// `--column-policy` with a choice that the column's type does not have.
    #[error("--column-policy {column}={choice}: a column of type {pg_type} has no such choice in this format")]
    ColumnPolicy {
        /// The output column.
        column: String,
        /// The choice as given.
        choice: String,
        /// The column's type.
        pg_type: String,
        /// The choices it has.
        takes: String,
    },
    /// Nothing to write.
    #[error("{relation} has no column to export")]
    NoColumns {
        /// The relation.
        relation: String,
    },
    /// The source described fewer or more expressions than were given: a bug.
    #[error("{described} of {given} --column expressions were described")]
    ExpressionsDescribed {
        /// Expressions of the request.
        given: usize,
        /// Types that came back.
        described: usize,
    },
    /// A person's SQL that cannot safely stand inside our statement.
    #[error("{what}, line {line}, character {character}: {flaw}")]
    Sql {
        /// The flag, and the column's name for an expression.
        what: String,
        /// Line, from 1.
        line: usize,
        /// Character in that line, from 1.
        character: usize,
        /// What is wrong there.
        flaw: SqlFlaw,
    },
    /// Keyset reading needs an order in which no two rows are equal.
    #[error(
        "--read-mode keyset: {relation} has no primary key and no unique index over NOT NULL columns, so pages could lose or repeat rows"
    )]
    KeysetWithoutKey {
        /// The relation.
        relation: String,
    },
    /// More partitions than object names have digits for.
    #[error(
        "the plan has {count} partitions, more than {max}",
        max = memory::PARTITIONS_MAX
    )]
    TooManyPartitions {
        /// How many it has.
        count: usize,
    },
}

/// What is wrong with a predicate, an expression or a query, before any server has seen it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlFlaw {
    /// Nothing but white space and comments.
    #[error("there is nothing but white space and comments")]
    Empty,
    /// A NUL character.
    #[error("a NUL character, which PostgreSQL's text never holds")]
    Nul,
    /// A string constant without its closing quote.
    #[error("this string is not closed")]
    OpenString,
    /// A quoted identifier without its closing quote.
    #[error("this quoted name is not closed")]
    OpenName,
    /// A dollar-quoted string without its end.
    #[error("this dollar-quoted string is not closed")]
    OpenDollarQuote(String),
    /// A block comment without its end.
    #[error("this comment is not closed")]
    OpenComment,
    /// A closing bracket too many.
    #[error("{0:?} closes nothing")]
    ClosesNothing(char),
    /// A closing bracket of the wrong kind.
    #[error("{found:?} stands where {expected:?} would close what is open")]
    ClosesOther {
        /// What stands there.
        found: char,
        /// What would be right.
        expected: char,
    },
    /// An opening bracket too many.
    #[error("{0:?} is never closed")]
    NeverClosed(char),
    /// A semicolon that could end our statement.
    #[error("a semicolon ends a statement, and only one is sent")]
    Semicolon,
    /// A parameter, for which nobody has a value.
    #[error("a parameter, for which there is no value")]
    Parameter,
    /// A query that is none.
    #[error("a query starts with SELECT, WITH, VALUES or TABLE, and nothing else can be exported")]
    NotAQuery,
}

impl PlanError {
    /// The class, for the exit code: nearly always the request is at fault.
    fn fault(&self) -> SourceFault {
        match self {
            Self::NoColumns { .. } => SourceFault::SchemaChanged,
            Self::ExpressionsDescribed { .. } => SourceFault::Protocol,
            _ => SourceFault::Usage,
        }
    }

    /// The sentence with what to do.
    #[cfg(test)]
    pub(super) fn whole(&self) -> String {
        format!("{self}; {}", self.hint())
    }

    /// What to do.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::UnknownColumn { advice, .. } => advice.clone(),
            Self::RepeatedColumn { .. } => "name it once".to_owned(),
            Self::RenameNotSelected { .. } => "add it there or drop the rename".to_owned(),
            Self::EmptyName { flag, example } => format!("give it one, as in {flag} {example}"),
            Self::NameTaken { .. } => "leave it out with --columns, give it another name with --rename, or name the \
                 expression otherwise"
                .to_owned(),
            Self::NoOrder { .. } => "name another column".to_owned(),
            Self::NoWatermark { .. } => {
                "name a timestamp, a date, an integer, or an xid8 column that has the writing transaction's id"
                    .to_owned()
            }
            Self::NoTransactions { .. } => {
                "name a column of type xid8 that has the writing transaction's id, or export the table behind it"
                    .to_owned()
            }
            Self::NotReadFromText { .. } => {
                "name another column, or have a --query select what it is made of as columns \
                 of its own, and name these"
                    .to_owned()
            }
            Self::DuplicateName { .. } => {
                "give one another name, a table's column with --rename, a query's with AS in it \
                 and an expression in its --column, or let --duplicate-columns suffix number them"
                    .to_owned()
            }
            Self::DuplicateMember { column, .. } => format!(
                "write it as JSON with --column-policy {column}=json, or let --duplicate-columns suffix number them"
            ),
            Self::DuplicateJsonMember { sql, .. } => format!(
                "leave it out with --columns and write its text with --column 'NAME={sql}::text', or its members each \
                 with a name of its own"
            ),
            Self::ColumnPolicy { takes, .. } => format!("it takes: {takes}"),
            Self::NoColumns { .. } => "add one with --column name=expression".to_owned(),
            Self::ExpressionsDescribed { .. } => "please report this as a bug".to_owned(),
            Self::Sql { flaw, .. } => flaw.hint(),
            Self::KeysetWithoutKey { .. } => "add one, or use --read-mode copy".to_owned(),
            Self::TooManyPartitions { .. } => "ask for fewer with --partitions or raise --part-size".to_owned(),
        }
    }

    /// [`PlanError::UnknownColumn`] with the nearest of `known`, if one is near, and with the list of them.
    pub(super) fn unknown_column<'a>(flag: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let listed = listed(&known);
        let advice = match nearest(name, &known) {
            Some(near) => format!("did you mean {near:?}? The columns are {listed}"),
            None => format!("the columns are {listed}"),
        };
        Self::UnknownColumn { flag, name: name.to_owned(), advice }
    }
}

impl SqlFlaw {
    fn hint(&self) -> String {
        let fixed = match self {
            Self::OpenDollarQuote(end) => return format!("end it with {end}"),
            Self::Empty => "write an expression or leave the flag out",
            Self::Nul => "remove it",
            Self::OpenString => "end it with a single quote, and write a quote inside it twice",
            Self::OpenName => "end it with a double quote",
            Self::OpenComment => "end it with */, once for each /* in it",
            Self::ClosesNothing(_) => "remove it, or open it before",
            Self::ClosesOther { .. } => "close brackets in the order they were opened",
            Self::NeverClosed(_) => "close it",
            Self::Semicolon => "remove it and what follows",
            Self::Parameter => {
                "write the value itself; in double quotes where it is a name, in single quotes where it is text"
            }
            Self::NotAQuery => "write one SELECT, WITH, VALUES or TABLE statement",
        };
        fixed.to_owned()
    }
}

impl From<PlanError> for SourceError {
    fn from(error: PlanError) -> Self {
        let reason = matches!(error, PlanError::UnknownColumn { .. }).then_some(ErrorCode::ColumnMissing);
        let (sentence, hint) = (error.to_string(), error.hint());
        Self { reason, ..Self::new(error.fault(), sentence).with_hint(hint) }
    }
}

/// Names for an error, as many as a screen holds.
pub(in crate::source::postgres) fn listed(names: &[&str]) -> String {
    let some = names.iter().take(NAMES_IN_ERROR_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMES_IN_ERROR_MAX) {
        Some(more @ 1..) => format!("{some} and {more} more"),
        _ => some,
    }
}

/// The known name most like `name`, if it is like it at all; letter case does not count.
pub(in crate::source::postgres) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    /// Below this, names of the same length that share a letter or two would be offered.
    const LIKENESS_MIN: f64 = 0.75;
    let folded = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&folded, &candidate.to_lowercase()), *candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["id", "created_at", "Customer"];
        assert_eq!(nearest("create_at", &known), Some("created_at"));
        assert_eq!(nearest("customer", &known), Some("Customer"));
        assert_eq!(nearest("zzz", &known), None);
    }

    #[test]
    fn a_long_list_of_columns_is_cut() {
        let names: Vec<String> = (0..NAMES_IN_ERROR_MAX + 3).map(|n| format!("c{n}")).collect();
        let error = PlanError::unknown_column("--columns", "x", names.iter().map(String::as_str));
        assert!(error.hint().ends_with(" and 3 more"), "{error}");
        let error = PlanError::unknown_column("--key", "b", ["a"]);
        assert_eq!(
            (error.to_string().as_str(), error.hint().as_str()),
            ("--key: there is no column \"b\"", "the columns are a")
        );
    }
}
