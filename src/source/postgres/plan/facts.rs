//! What planning reads off the facts of a relation.

use std::collections::HashSet;

use super::error::PlanError;
use crate::source::postgres::plan::{ColumnFacts, RelationFacts};

/// `name_2`, or the next number that `take` takes.
pub(super) fn numbered(name: &str, mut take: impl FnMut(String) -> bool) -> String {
    let mut number = 2_u64;
    loop {
        let next = format!("{name}_{number}");
        if take(next.clone()) {
            return next;
        }
        number += 1;
    }
}

impl RelationFacts {
    /// What our SQL calls each column: its name, or for the second of that name, which a query can have, a numbered one.
    pub(crate) fn column_aliases(&self) -> Vec<String> {
        let mut taken: HashSet<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let mut seen = HashSet::new();
        let mut aliases = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let first = seen.insert(column.name.as_str());
            aliases.push(if first { column.name.clone() } else { numbered(&column.name, |name| taken.insert(name)) });
        }
        aliases
    }

    /// The column that `flag` calls `name`, letter case counting.
    ///
    /// # Errors
    /// There is none; the error offers the nearest.
    pub fn column(&self, flag: &'static str, name: &str) -> Result<&ColumnFacts, PlanError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            PlanError::unknown_column(flag, name, self.columns.iter().map(|column| column.name.as_str()))
        })
    }
}
