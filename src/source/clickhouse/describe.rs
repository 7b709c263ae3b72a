//! What the server says of a relation: its engine, its columns and their types.

use std::collections::BTreeSet;

use super::columns::{ChColumn, ChColumnFacts, ChColumnRules, columns as planned_columns, usage};
use super::folders::check_folders;
use super::identity::IDENTITY;
use super::names::{literal, table};
use super::plan::{ChRelation, alias};
use super::prepare::ChPlanning;
use crate::model::{ErrorCode, ReadRequest, RelationKind, RelationRequest};
use crate::source::{SourceError, SourceFault};

/// What the server says of a relation.
pub(super) struct ChDescribed {
    pub(super) relation: ChRelation,
    pub(super) columns: Vec<ChColumnFacts>,
    /// The sorting key as the server prints it; empty where there is none.
    pub(super) sorting_key: String,
    /// The text that makes a view or a query, in which a limit may stand.
    pub(super) text: Option<String>,
}

impl ChPlanning<'_> {
    pub(super) async fn described(&self) -> Result<ChDescribed, SourceError> {
        let described = self.looked_up().await?;
        Box::pin(self.same_types(&described)).await?;
        Ok(described)
    }

    /// Refuses rows that are chosen by types that their columns had once: days of a `Date` end where those of a moment begin.
    async fn same_types(&self, described: &ChDescribed) -> Result<(), SourceError> {
        let Some(scoped) = &self.request.shape.scoped else { return Ok(()) };
        let made: Vec<(String, String)> =
            scoped.columns.iter().filter_map(|column| Some((column.name.clone(), column.sql.clone()?))).collect();
        let mut made = self.made_columns(&made, &described.relation).await?.into_iter();
        for column in &scoped.columns {
            let stored = || described.columns.iter().find(|facts| facts.name == column.name).cloned();
            let now = if column.sql.is_some() { made.next() } else { stored() };
            if now.map(|facts| facts.type_name).as_ref() != Some(&column.type_name) {
                let message = format!("column {} has another type than when its rows were chosen", column.name);
                return Err(SourceError::new(SourceFault::SchemaChanged, message));
            }
        }
        Ok(())
    }

    async fn looked_up(&self) -> Result<ChDescribed, SourceError> {
        let shape = &self.request.shape;
        let predicate = shape.predicate.clone();
        match &shape.relation {
            RelationRequest::Table(name) => self.table(name, predicate).await,
            RelationRequest::Query(query) => {
                let relation = ChRelation {
                    kind: RelationKind::Query,
                    table: None,
                    query: Some(query.clone()),
                    predicate,
                    engine: "query".to_owned(),
                    estimated_rows: None,
                    estimated_bytes: None,
                    identity: None,
                };
                let columns = self.columns_of(&relation.from()).await?;
                let mut seen = BTreeSet::new();
                if let Some(twice) = columns.iter().find(|column| !seen.insert(column.name.as_str())) {
                    let message = format!("the query gives two columns called {:?}", twice.name);
                    return Err(usage(message, "name them apart in the query: … AS another_name"));
                }
                Ok(ChDescribed { relation, columns, sorting_key: String::new(), text: Some(query.clone()) })
            }
        }
    }

    /// What the server says of the relation, and a column plan for each column of the export.
    pub(super) async fn relation_and_columns(&self) -> Result<(ChDescribed, Vec<ChColumn>), SourceError> {
        let described = self.described().await?;
        let expressions = self.expressions(&described.relation).await?;
        let ReadRequest { shape, policies, format, together, .. } = self.request;
        check_folders(together, &shape.expressions, &described.columns)?;
        let rules = ChColumnRules { format: *format, policies };
        let columns = planned_columns(&described.columns, shape, &expressions, &rules)?;
        Ok((described, columns))
    }

    async fn table(&self, name: &str, predicate: Option<String>) -> Result<ChDescribed, SourceError> {
        let (database, table) = table(name).map_err(|why| usage(format!("--table {name}: {why}"), "see --help"))?;
        let database = database.unwrap_or_else(|| self.database.to_owned());
        let sql = format!(
            "SELECT engine, total_rows, total_bytes, sorting_key, toValidUTF8(as_select), {IDENTITY} FROM system.tables \
             WHERE database = {} AND name = {}",
            literal(&database),
            literal(&table)
        );
        let rows = self.ask("looking for the table", &sql).await?;
        let Some(row) = rows.into_iter().next() else {
            let message = format!("there is no table {database}.{table} that this user may see");
            return Err(SourceError::new(SourceFault::Missing, message)
                .with_reason(ErrorCode::RelationMissing)
                .with_hint("`outhaul ls` lists what can be exported"));
        };
        let text = |place: usize| row.get(place).cloned().flatten();
        let engine = text(0).unwrap_or_default();
        let number = |place: usize| text(place).and_then(|number| number.parse().ok());
        let kind = match engine.as_str() {
            "View" | "LiveView" | "WindowView" => RelationKind::View,
            "MaterializedView" => RelationKind::MaterializedView,
            "Distributed" | "MySQL" | "PostgreSQL" | "S3" | "URL" => RelationKind::ForeignTable,
            _ => RelationKind::Table,
        };
        let relation = ChRelation {
            kind,
            estimated_rows: number(1),
            estimated_bytes: number(2),
            table: Some((database, table)),
            query: None,
            predicate,
            engine,
            identity: text(5),
        };
        let columns = self.columns_of(&relation.from()).await?;
        let sorting_key = text(3).unwrap_or_default();
        Ok(ChDescribed { relation, columns, sorting_key, text: text(4).filter(|text| !text.is_empty()) })
    }

    async fn columns_of(&self, from: &str) -> Result<Vec<ChColumnFacts>, SourceError> {
        let rows = self.ask("asking for the columns", &format!("DESCRIBE TABLE {from}")).await?;
        let column = |row: Vec<Option<String>>| {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let (name, type_name, default) = (values.next()?, values.next()?, values.next().unwrap_or_default());
            let hidden = matches!(default.as_str(), "MATERIALIZED" | "ALIAS");
            let alias = values.next().filter(|_| default == "ALIAS");
            // An ephemeral column is only there while rows are inserted.
            (default != "EPHEMERAL").then(|| ChColumnFacts { name, type_name: on_one_line(&type_name), hidden, alias })
        };
        Ok(rows.into_iter().filter_map(column).collect())
    }

    pub(super) async fn expressions(&self, relation: &ChRelation) -> Result<Vec<ChColumnFacts>, SourceError> {
        self.made_columns(&self.request.shape.expressions, relation).await
    }

    async fn made_columns(
        &self,
        expressions: &[(String, String)],
        relation: &ChRelation,
    ) -> Result<Vec<ChColumnFacts>, SourceError> {
        if expressions.is_empty() {
            return Ok(Vec::new());
        }
        let one = |(place, (_, text)): (usize, &(String, String))| format!("(\n{text}\n) AS {}", alias(place));
        let list: Vec<String> = expressions.iter().enumerate().map(one).collect();
        let described = self.columns_of(&format!("(SELECT {} FROM {})", list.join(", "), relation.from())).await?;
        if described.len() == expressions.len() {
            return Ok(described);
        }
        Err(SourceError::new(SourceFault::Protocol, "the server described other expressions than were asked for"))
    }
}

/// A type's name as it stands on one line.
fn on_one_line(type_name: &str) -> String {
    let lines: Vec<&str> = type_name.lines().map(str::trim).collect();
    let mut out = String::with_capacity(type_name.len());
    for line in lines {
        if out.ends_with(',') {
            out.push(' ');
        }
        out.push_str(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_printed_on_lines_stands_on_one() {
        assert_eq!(on_one_line("Tuple(\n    a UInt8,\n    `b c` String)"), "Tuple(a UInt8, `b c` String)");
        assert_eq!(on_one_line("UInt8"), "UInt8");
    }
}
