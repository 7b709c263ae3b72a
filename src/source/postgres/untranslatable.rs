//! Text that has no form in UTF-8: the server refuses to send it, and says neither of which column nor of which row it is.
//! Both are looked for over a session of its own, by the statement that was refused.

use super::catalog::{query, value};
use super::connect::Session;
use super::decode::{RowName, shown_part};
use super::session::{identifier, literal};
use super::sql;
use super::watch::Watch;
use crate::model::{ColumnOrigin, KeyValue};
use crate::source::postgres::plan::{PgPartition, PgPlan};
use crate::source::{SourceError, SourceFault};
use tokio_postgres::types::Type;

/// Whether the server refused a text for its bytes.
pub(super) fn is_untranslatable(error: &SourceError) -> bool {
    matches!(error.code.as_deref(), Some("22P05" | "22021"))
}

const ACTION: &str = "looking for a text without a form in UTF-8";

/// What a statement was reading when the server refused to go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedRead<'a> {
    pub(super) plan: &'a PgPlan,
    pub(super) partition: &'a PgPartition,
    /// Whether it is a page, which has the key beside its columns.
    pub(super) page: bool,
    /// The key after which a page begins.
    pub(super) after: Option<&'a KeyValue>,
    /// Rows that came before, of the statement.
    pub(super) rows: u64,
    /// What is read, for people.
    pub(super) what: &'a str,
}

/// A column and a row of it.
#[derive(Debug)]
struct UntranslatableValue {
    column: String,
    origin: ColumnOrigin,
    pg_type: String,
    row: RowName,
    encoding: String,
}

/// Adds to an error, where it is of this kind, which column of which row it is about, as far as that can be found.
pub(super) async fn explain(error: SourceError, watch: &Watch, reading: FailedRead<'_>) -> SourceError {
    if !is_untranslatable(&error) {
        return error;
    }
    let Ok(session) = watch.aside().await else { return error };
    let found = find(&session, reading).await;
    session.discard();
    match found {
        Ok(Some(found)) if reading.page && found.is_in_key(reading.plan) => of_key(error),
        Ok(Some(found)) => found.added_to(error, reading.what),
        Ok(None) if reading.page => of_key(error),
        Ok(None) => error,
        Err(why) => {
            tracing::debug!(error = %why, "the text that could not be sent was not found");
            error
        }
    }
}

/// Pages cannot do without it.
fn of_key(error: SourceError) -> SourceError {
    let message = "--read-mode keyset: a value of the key has no form in UTF-8, and so no page can begin behind it";
    SourceError { fault: SourceFault::Usage, message: message.to_owned(), ..error }
        .with_hint("--read-mode copy reads the table without a key")
}

impl UntranslatableValue {
    fn is_in_key(&self, plan: &PgPlan) -> bool {
        plan.key.iter().any(|key| matches!(&self.origin, ColumnOrigin::Column(name) if *name == key.name))
    }

    fn added_to(self, error: SourceError, what: &str) -> SourceError {
        let Self { column, origin, pg_type, row, encoding } = self;
        let message = format!(
            "reading {what}: column {column:?} ({pg_type}), {row}: text with a character of {encoding} that has no form in \
             UTF-8"
        );
        let bytes = match origin {
            // As a shell takes it between double quotes.
            ColumnOrigin::Column(name) => {
                let (name, encoding) = (identifier(&name).replace('"', "\\\""), literal(&encoding));
                format!(
                    ", and write its bytes, where they are wanted, by --column \"bytes=convert_to({name}, {encoding})\""
                )
            }
            ColumnOrigin::Expression(_) => String::new(),
        };
        SourceError { message, ..error }.with_hint(format!("leave the column out with --columns{bytes}"))
    }
}

async fn find(session: &Session, reading: FailedRead<'_>) -> Result<Option<UntranslatableValue>, SourceError> {
    let FailedRead { plan, partition, after, rows, .. } = reading;
    if let Some(bounds) = sql::set_bounds(&partition.slice) {
        session.batch(ACTION, &bounds).await?;
    }
    let beside: Vec<&str> =
        plan.row_key.iter().filter(|column| column.place.is_none()).map(|column| column.name.as_str()).collect();
    let extra: Vec<String> = beside.iter().map(|name| identifier(name)).collect();
    let names: Vec<String> = (0..plan.columns.len() + extra.len()).map(|index| format!("c{index}")).collect();
    let bytes =
        |name: &String| format!("pg_catalog.convert_to({name}::pg_catalog.text, pg_catalog.getdatabaseencoding())");
    let list: Vec<String> = names.iter().map(bytes).collect();
    // In the database's own encoding nothing is translated.
    let statement = format!(
        "SELECT pg_catalog.getdatabaseencoding()::pg_catalog.text, {} FROM (\n{}\n) AS outhaul_r({}) OFFSET {rows} LIMIT 1",
        list.join(", "),
        sql::select(plan, partition, &extra, after),
        names.join(", ")
    );
    let answer = query(session, ACTION, &statement, &[]).await?;
    let Some(row) = answer.first() else { return Ok(None) };
    let mut guilty = None;
    let mut texts = Vec::with_capacity(names.len());
    for index in 0..names.len() {
        let text: Option<&[u8]> = value(row, index + 1)?;
        let translated = match text {
            Some(bytes) => translate(session, bytes).await?,
            None => Some("NULL".to_owned()),
        };
        if translated.is_none() && index < plan.columns.len() {
            guilty = guilty.or(Some(index));
        }
        texts.push(translated);
    }
    let Some(column) = guilty.and_then(|index| plan.columns.get(index)) else { return Ok(None) };
    Ok(Some(UntranslatableValue {
        column: column.output.name.clone(),
        origin: column.output.origin.clone(),
        pg_type: column.pg_type.name.clone(),
        row: row_name(plan, &texts, rows),
        encoding: value(row, 0)?,
    }))
}

/// A text in UTF-8; none where it has no form there.
async fn translate(session: &Session, bytes: &[u8]) -> Result<Option<String>, SourceError> {
    if bytes.is_ascii() {
        return Ok(std::str::from_utf8(bytes).ok().map(str::to_owned));
    }
    let sql = "SELECT pg_catalog.convert($1, pg_catalog.getdatabaseencoding(), 'UTF8')";
    session.batch(ACTION, "SAVEPOINT outhaul_text").await?;
    match query(session, ACTION, sql, &[(&bytes, Type::BYTEA)]).await {
        Ok(rows) => {
            let row = rows.first().ok_or_else(|| SourceError::new(SourceFault::Protocol, ACTION))?;
            let bytes: &[u8] = value(row, 0)?;
            Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
        }
        Err(error) if is_untranslatable(&error) => {
            session.batch(ACTION, "ROLLBACK TO SAVEPOINT outhaul_text").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// By its key, where there is one that has a form in UTF-8.
fn row_name(plan: &PgPlan, texts: &[Option<String>], rows: u64) -> RowName {
    let mut beside = plan.columns.len()..;
    let parts: Option<Vec<String>> = plan
        .row_key
        .iter()
        .map(|column| {
            let text = texts.get(column.place.or_else(|| beside.next())?)?.as_ref()?;
            Some(format!("{} = {}", column.name, shown_part(column.shown, text)))
        })
        .collect();
    match parts {
        Some(parts) if !parts.is_empty() => RowName::Key(parts.join(", ")),
        _ => RowName::Number(rows.saturating_add(1)),
    }
}
