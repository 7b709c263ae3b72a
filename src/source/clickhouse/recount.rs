//! `verify --against-source`: the rows of a manifest, counted again.

use super::columns::usage;
use super::names::{quoted, table};
use super::prepare::session;
use super::shards::ALL_SHARDS;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::RelationRequest;
use crate::source::{RecountRequest, Recounted, SourceError, SourceFault};

/// Counts as many rows as the manifest could have, and one more, as they are now: no snapshot outlives a statement.
///
/// # Errors
/// The relation or one of its columns is gone, or the server fails.
pub(crate) async fn recount(settings: &ConnectSettings, request: &RecountRequest) -> Result<Recounted, SourceError> {
    let session = session(settings, &request.run_id, None).await?;
    let from = match &request.relation {
        RelationRequest::Table(name) => {
            let (database, name) =
                table(name).map_err(|why| usage(format!("the table {name}: {why}"), "see --help"))?;
            let database = database.unwrap_or_else(|| settings.database.clone());
            format!("{}.{}", quoted(&database), quoted(&name))
        }
        RelationRequest::Query(query) => format!("(\n{query}\n)"),
    };
    let filter = request.predicate.as_ref().map_or(String::new(), |predicate| format!(" WHERE (\n{predicate}\n)"));
    let columns: Vec<String> = request.columns.iter().map(|name| quoted(name)).collect();
    let list = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
    // The columns are named only to see that they are there.
    session.ask("looking for the columns", &format!("SELECT {list} FROM {from} LIMIT 0{ALL_SHARDS}"), &[]).await?;
    let sql = match request.up_to {
        Some(most) => format!("SELECT count() FROM (SELECT 1 FROM {from}{filter} LIMIT {most}){ALL_SHARDS}"),
        None => format!("SELECT count() FROM {from}{filter}{ALL_SHARDS}"),
    };
    let rows = session.ask("counting the rows", &sql, &[]).await?;
    let count = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    let rows = count.and_then(|count| count.parse().ok());
    let rows = rows.ok_or_else(|| SourceError::new(SourceFault::Protocol, "the server's count cannot be read"))?;
    Ok(Recounted { snapshot: None, rows, ranges: vec![None; request.ranges.len()], note: None })
}
