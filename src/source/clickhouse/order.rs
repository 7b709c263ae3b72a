//! In which order one statement gives its rows, and so which of them a cap leaves.

use super::columns::{ChColumnFacts, usage};
use super::lexer;
use super::names::quoted;
use super::plan::{ChPlan, alias, cap};
use super::prepare::ChPlanning;
use crate::model::{ColumnPlan, Direction, KeyColumn, ProtectMisfit, ProtectOptions, Protection};
use crate::source::SourceError;

impl ChPlanning<'_> {
    /// One statement in an order of its own, up to the cap and a row beyond. `key` is the sorting key of the table.
    ///
    /// # Errors
    /// A cap chooses rows by a column that is protected.
    pub(super) fn as_one(&self, plan: &mut ChPlan, described: &[ChColumnFacts], key: &str) -> Result<(), SourceError> {
        let capped = self.request.work.cap.as_ref();
        let max_rows = capped.and_then(|cap| cap.max_rows);
        let written: Vec<ColumnPlan> = plan.columns.iter().map(|column| column.output.clone()).collect();
        let protect = self.request.protect.as_ref();
        let mut order: Vec<String> = plan.key.iter().map(ordered).collect();
        // Without a key somebody named, only a cap needs an order: that of the table.
        if order.is_empty() && max_rows.is_some() && !key.is_empty() {
            if let Some(name) = protect.and_then(|protect| protected(protect, &written, described, key)) {
                let misfit = ProtectMisfit::Key(name);
                return Err(usage(misfit.to_string(), misfit.hint()));
            }
            order.push(key.to_owned());
        }
        let mut alike = true;
        if !order.is_empty() && max_rows.is_some() {
            // No key of ClickHouse is of one row: rows that share it come in the order of all that is written of them.
            for (place, column) in written.iter().enumerate() {
                match protect.and_then(|protect| protect.of(column)) {
                    None => order.push(alias(place)),
                    Some(Protection::Null | Protection::Drop) => {}
                    // Rows that differ in nothing else differ in the files, and nothing may say which of them comes first.
                    Some(Protection::Mask | Protection::Hash) => alike = false,
                }
            }
        }
        let tier = capped.and_then(|cap| cap.tier.clone());
        plan.cap = cap(tier, max_rows, !order.is_empty() && alike);
        plan.order = order;
        Ok(())
    }
}

/// A column of a sorting key whose values nobody is to see.
fn protected(
    protect: &ProtectOptions,
    written: &[ColumnPlan],
    described: &[ChColumnFacts],
    key: &str,
) -> Option<String> {
    let names = lexer::names(key);
    // A name with a dot in it may be read as two, and of a key that cannot be read any column may be part.
    let stands_there =
        |name: &String| names.is_empty() || names.contains(name) || (name.contains('.') && key.contains(name.as_str()));
    let mut names = described.iter().map(|column| &column.name);
    names.find(|name| stands_there(name) && protect.hides(name, written)).cloned()
}

/// A key column as it stands behind ORDER BY.
fn ordered(key: &KeyColumn) -> String {
    let direction = match key.direction {
        Direction::Asc => "ASC",
        Direction::Desc => "DESC",
    };
    format!("{} {direction} NULLS LAST", quoted(&key.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AbsentColumn, ProtectRule};

    #[test]
    fn a_protected_column_is_found_in_a_sorting_key() {
        let facts = |name: &str| ChColumnFacts {
            name: name.to_owned(),
            type_name: "String".to_owned(),
            hidden: false,
            alias: None,
        };
        let described = ["id", "email", "e mail", "n.email"].map(facts);
        for (rule, key, found) in [
            ("email", "id, email", Some("email")),
            ("email", "lower(email)", Some("email")),
            ("email", "id", None),
            ("email", "id, `e mail`", None),
            ("e mail", "cityHash64(`e mail`)", Some("e mail")),
            ("n.email", "id, n.email", Some("n.email")),
            // No column is called so, though a function is.
            ("lower", "lower(email)", None),
            ("email", "'", Some("email")),
        ] {
            let (pattern, how, absent) = (false, Protection::Hash, AbsentColumn::Told);
            let rules = vec![ProtectRule { name: rule.to_owned(), pattern, how, absent }];
            let protect = ProtectOptions { rules, ..ProtectOptions::default() };
            assert_eq!(protected(&protect, &[], &described, key).as_deref(), found, "{rule} {key}");
        }
    }
}
