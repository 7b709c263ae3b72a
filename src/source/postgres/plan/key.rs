//! The key: what orders the rows, and what may split them.

use super::error::PlanError;
use super::members::is_read_from_text;
use super::{ColumnFacts, PgKeyColumn, RelationFacts};
use crate::model::{Direction, ReadMode, RowCap};

/// The key of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChoice {
    /// Its columns, leading first; empty where neither order nor splitting by key is wanted or possible.
    pub columns: Vec<PgKeyColumn>,
    /// Whether no two rows share it, NULLs included.
    pub unique: bool,
    /// Whether rows are to be written in its order, rather than only split by it.
    pub ordered: bool,
}

/// Chooses the key.
///
/// The columns of `--key` come first. Where "the first N rows" or the next page must mean one thing (a cap, or keyset
/// reading), the relation's unique key follows as tie-break, in the direction of the last named column, so that a key
/// of one direction stays one that an index can serve. Without `--key` it is the unique key alone; that also splits a
/// table whose leaves may not be read directly.
///
/// # Errors
/// `--key` names an unknown column, one twice or one whose type has no order; keyset reading without a unique key over NOT NULL columns.
pub fn choose_key(
    facts: &RelationFacts,
    named: Option<&[(String, Direction)]>,
    cap: Option<&RowCap>,
    read_mode: ReadMode,
) -> Result<KeyChoice, PlanError> {
    let choice = choose(facts, named, cap, read_mode)?;
    if matches!(read_mode, ReadMode::Keyset { .. }) && !choice.unique {
        return Err(without_key(facts));
    }
    Ok(choice)
}

/// The same for pages that end where the key changes: rows may share it.
///
/// # Errors
/// As [`choose_key`]; without a unique key and without a named one.
pub(crate) fn choose_repeating_key(
    facts: &RelationFacts,
    named: Option<&[(String, Direction)]>,
    read_mode: ReadMode,
) -> Result<KeyChoice, PlanError> {
    let choice = choose(facts, named, None, read_mode)?;
    if choice.columns.is_empty() { Err(without_key(facts)) } else { Ok(choice) }
}

fn without_key(facts: &RelationFacts) -> PlanError {
    let relation = facts.display_name.clone().unwrap_or_else(|| "the query".to_owned());
    PlanError::KeysetWithoutKey { relation }
}

fn choose(
    facts: &RelationFacts,
    named: Option<&[(String, Direction)]>,
    cap: Option<&RowCap>,
    read_mode: ReadMode,
) -> Result<KeyChoice, PlanError> {
    let keyset = matches!(read_mode, ReadMode::Keyset { .. });
    let capped = cap.is_some_and(|cap| cap.max_rows.is_some());
    let needs_unique = keyset || capped;
    let mut columns = named_columns(facts, named.unwrap_or_default())?;
    let ordered = !columns.is_empty() || needs_unique;
    let tie_break = readable_unique_key(facts);
    let splits = columns.is_empty() && facts.leaves.is_empty();
    if needs_unique || splits {
        let direction = columns.last().map(|column| column.direction).unwrap_or_default();
        for facts in &tie_break {
            if !columns.iter().any(|column| column.name == facts.name) {
                columns.push(key_column(facts, direction)?);
            }
        }
    }
    let contains = |facts: &&ColumnFacts| columns.iter().any(|column| column.name == facts.name);
    let unique = !tie_break.is_empty() && tie_break.iter().all(contains);
    Ok(KeyChoice { ordered: ordered && !columns.is_empty(), columns, unique })
}

/// The columns of the relation's unique key; none where the role may not read all of them, where one of them has no
/// order (an index of such a type has one row at most), or where its values cannot be read from their texts.
fn readable_unique_key(facts: &RelationFacts) -> Vec<&ColumnFacts> {
    let usable = |column: &&ColumnFacts, name: &str| {
        column.name == *name && column.comparison.is_some() && is_read_from_text(&column.pg_type)
    };
    let find = |name: &String| facts.columns.iter().find(|column| usable(column, name));
    facts.unique_key.iter().flatten().map(find).collect::<Option<_>>().unwrap_or_default()
}

fn named_columns(facts: &RelationFacts, named: &[(String, Direction)]) -> Result<Vec<PgKeyColumn>, PlanError> {
    let mut columns: Vec<PgKeyColumn> = Vec::with_capacity(named.len());
    for (name, direction) in named {
        if columns.iter().any(|column| column.name == *name) {
            return Err(PlanError::RepeatedColumn { flag: "--key", name: name.clone() });
        }
        columns.push(key_column(facts.column("--key", name)?, *direction)?);
    }
    Ok(columns)
}

fn key_column(facts: &ColumnFacts, direction: Direction) -> Result<PgKeyColumn, PlanError> {
    let (name, pg_type) = (facts.name.clone(), facts.pg_type.name.clone());
    if !is_read_from_text(&facts.pg_type) {
        return Err(PlanError::NotReadFromText { name, pg_type });
    }
    let no_order = || PlanError::NoOrder { name, pg_type };
    Ok(PgKeyColumn {
        name: facts.name.clone(),
        pg_type: facts.pg_type.clone(),
        direction,
        nullable: !facts.not_null,
        comparison: facts.comparison.clone().ok_or_else(no_order)?,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::source::postgres::plan::testing::{column, relation};

    const COPY: ReadMode = ReadMode::Copy;
    const KEYSET: ReadMode = ReadMode::Keyset { page_size: NonZeroU64::MIN };

    fn orders() -> RelationFacts {
        let mut facts =
            relation(vec![column("id", 20, true), column("line", 23, true), column("created", 1184, false)]);
        facts.unique_key = Some(vec!["id".into(), "line".into()]);
        facts
    }

    fn cap(max_rows: u64) -> RowCap {
        RowCap { tier: None, max_rows: NonZeroU64::new(max_rows) }
    }

    fn named(columns: &[(&str, Direction)]) -> Vec<(String, Direction)> {
        columns.iter().map(|(name, direction)| ((*name).to_owned(), *direction)).collect()
    }

    fn words(choice: &KeyChoice) -> String {
        let columns: Vec<String> =
            choice.columns.iter().map(|column| format!("{} {:?}", column.name, column.direction)).collect();
        format!("{} unique={} ordered={}", columns.join(","), choice.unique, choice.ordered)
    }

    #[test]
    fn the_key_that_fits_the_request() {
        use Direction::{Asc, Desc};
        let created = named(&[("created", Desc)]);
        let contained = named(&[("line", Asc), ("created", Desc), ("id", Asc)]);
        let partly = named(&[("line", Asc)]);
        let (ten, unlimited) = (cap(10), cap(0));
        for (named, cap, mode, expected) in [
            (None, None, COPY, " unique=false ordered=false"),
            (None, Some(&unlimited), COPY, " unique=false ordered=false"),
            (None, Some(&ten), COPY, "id Asc,line Asc unique=true ordered=true"),
            (None, None, KEYSET, "id Asc,line Asc unique=true ordered=true"),
            (Some(&created), None, COPY, "created Desc unique=false ordered=true"),
            (Some(&created), Some(&ten), COPY, "created Desc,id Desc,line Desc unique=true ordered=true"),
            (Some(&created), None, KEYSET, "created Desc,id Desc,line Desc unique=true ordered=true"),
            (Some(&contained), Some(&ten), COPY, "line Asc,created Desc,id Asc unique=true ordered=true"),
            (Some(&partly), Some(&ten), COPY, "line Asc,id Asc unique=true ordered=true"),
        ] {
            let choice = choose_key(&orders(), named.map(Vec::as_slice), cap, mode).unwrap();
            assert_eq!(words(&choice), expected);
        }
    }

    #[test]
    fn nullability_comes_from_the_catalog() {
        let key = named(&[("created", Direction::Asc)]);
        let choice = choose_key(&orders(), Some(&key), Some(&cap(1)), COPY).unwrap();
        assert_eq!(choice.columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_table_that_must_be_read_by_its_own_name_is_split_by_its_unique_key() {
        let facts = RelationFacts { leaves: Vec::new(), ..orders() };
        let choice = choose_key(&facts, None, None, COPY).unwrap();
        assert_eq!(words(&choice), "id Asc,line Asc unique=true ordered=false");
    }

    #[test]
    fn without_a_unique_key_a_cap_has_no_key_and_keyset_is_refused() {
        let facts = RelationFacts { unique_key: None, ..orders() };
        let choice = choose_key(&facts, None, Some(&cap(10)), COPY).unwrap();
        assert_eq!(words(&choice), " unique=false ordered=false");
        let error = choose_key(&facts, None, None, KEYSET).unwrap_err();
        assert!(error.to_string().contains("public.t has no primary key"), "{error}");
        let key = named(&[("id", Direction::Asc)]);
        assert!(choose_key(&facts, Some(&key), None, KEYSET).is_err());
        let choice = choose_key(&facts, Some(&key), Some(&cap(10)), COPY).unwrap();
        assert_eq!(words(&choice), "id Asc unique=false ordered=true");
    }

    #[test]
    fn wrong_names_are_refused() {
        let unknown = named(&[("creatd", Direction::Asc)]);
        let error = choose_key(&orders(), Some(&unknown), None, COPY).unwrap_err();
        assert!(error.whole().contains("--key: there is no column \"creatd\"; did you mean \"created\"?"));
        let twice = named(&[("id", Direction::Asc), ("id", Direction::Desc)]);
        assert!(matches!(
            choose_key(&orders(), Some(&twice), None, COPY),
            Err(PlanError::RepeatedColumn { flag: "--key", .. })
        ));
        let mut facts = orders();
        facts.columns[2].comparison = None;
        let unordered = named(&[("created", Direction::Asc)]);
        assert!(matches!(choose_key(&facts, Some(&unordered), None, COPY), Err(PlanError::NoOrder { .. })));
        assert!(choose_key(&facts, None, Some(&cap(1)), COPY).is_ok());
    }
}
