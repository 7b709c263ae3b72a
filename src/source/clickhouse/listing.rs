//! `outhaul ls`: the tables and views of a server.

use super::prepare::session;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ListedRelation, ReadableRows, RelationKind, SplitWay};
use crate::source::SourceError;

const TABLES: &str = "SELECT database, name, engine, total_rows, total_bytes FROM system.tables \
    WHERE database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') AND is_temporary = 0 \
    ORDER BY database, name";

/// All that the user may see.
///
/// # Errors
/// The server fails.
pub(crate) async fn list(settings: &ConnectSettings) -> Result<Vec<ListedRelation>, SourceError> {
    let session = session(settings, "ls", None).await?;
    let rows = session.ask("listing the tables", TABLES, &[]).await?;
    Ok(rows.into_iter().filter_map(relation).collect())
}

fn relation(row: Vec<Option<String>>) -> Option<ListedRelation> {
    let mut values = row.into_iter();
    let (schema, name, engine) = (values.next()??, values.next()??, values.next()??);
    let mut number = || values.next().flatten().and_then(|number| number.parse().ok());
    let (estimated_rows, bytes) = (number(), number());
    let by_parts = engine.ends_with("MergeTree");
    let kind = match engine.as_str() {
        "View" | "LiveView" | "WindowView" => RelationKind::View,
        "MaterializedView" => RelationKind::MaterializedView,
        "Distributed" => RelationKind::ForeignTable,
        _ => RelationKind::Table,
    };
    let word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let part = |name: &str| if word(name) { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) };
    Some(ListedRelation {
        table: format!("{}.{}", part(&schema), part(&name)),
        kind,
        part_of: None,
        tables: usize::from(kind == RelationKind::Table),
        estimated_rows,
        bytes,
        key: Vec::new(),
        split: if by_parts { SplitWay::Blocks } else { SplitWay::OnePartition },
        readable: ReadableRows::All,
        schema,
        name,
    })
}
