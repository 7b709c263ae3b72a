//! Statements with which other engines read an export: pure, from the manifest alone.
//!
//! Whatever they name is the manifest's: its parts one by one, or a foreign manifest that lists them. None names a bare
//! prefix, which would also read what a failed run left. Where an engine cannot read a column exactly, there is a note in
//! front of the statement, or no statement at all: a table that shows other values than were exported is worse than none.

mod athena;
mod clickhouse;
mod columns;
mod duckdb;
mod folders;
mod name;
mod quote;
mod redshift;
mod spectrum;

use std::fmt;

pub use name::TableName;

use crate::commit::model::SourceName;
use crate::commit::{Manifest, Placement};
use crate::model::{Format, RunStatus};
use columns::Column;
use quote::comment;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Amazon Athena: an external table over the symlink manifest.
    Athena,
    /// Amazon Redshift Spectrum: an external table over the Redshift manifest.
    Spectrum,
    /// Amazon Redshift: a table, and the COPY that loads it.
    Redshift,
    /// `DuckDB`: a view over the parts.
    Duckdb,
    /// `ClickHouse`: a view over the parts.
    Clickhouse,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Athena, Self::Spectrum, Self::Redshift, Self::Duckdb, Self::Clickhouse];

    /// As the flag takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Athena => "athena",
            Self::Spectrum => "spectrum",
            Self::Redshift => "redshift",
            Self::Duckdb => "duckdb",
            Self::Clickhouse => "clickhouse",
        }
    }

    /// Where the commit writes the statements, relative to the destination.
    pub fn path(self) -> &'static str {
        match self {
            Self::Athena => "_ddl/athena.sql",
            Self::Spectrum => "_ddl/spectrum.sql",
            Self::Redshift => "_ddl/redshift.sql",
            Self::Duckdb => "_ddl/duckdb.sql",
            Self::Clickhouse => "_ddl/clickhouse.sql",
        }
    }

    /// As its makers write it.
    fn title(self) -> &'static str {
        match self {
            Self::Athena => "Athena",
            Self::Spectrum => "Redshift Spectrum",
            Self::Redshift => "Redshift",
            Self::Duckdb => "DuckDB",
            Self::Clickhouse => "ClickHouse",
        }
    }
}

/// Why there is no statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    dialect: Dialect,
    /// At least one, each with what to do about it.
    reasons: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot read this export as it is: {}", self.dialect.title(), self.reasons.join("; "))
    }
}

impl std::error::Error for Refused {}

/// What a dialect makes of an export.
#[derive(Debug, Default)]
struct Script {
    /// For the comment in front.
    notes: Vec<String>,
    /// Without their semicolons.
    statements: Vec<String>,
}

/// An export as the dialects see it.
#[derive(Debug)]
struct Export<'a> {
    manifest: &'a Manifest,
    placement: &'a Placement,
    columns: Vec<Column<'a>>,
}

/// The statements for `dialect`, with a comment in front that says what they read.
///
/// # Errors
/// [`Refused`], where the engine cannot read what was exported.
pub fn ddl(
    manifest: &Manifest,
    placement: &Placement,
    dialect: Dialect,
    name: Option<&TableName>,
) -> Result<String, Refused> {
    let refused = |reasons| Refused { dialect, reasons };
    let columns = columns::of(manifest).map_err(refused)?;
    let export = Export { manifest, placement, columns };
    let name = match name {
        Some(name) => name.clone(),
        None => default_name(manifest, dialect),
    };
    let script = match dialect {
        Dialect::Athena => athena::script(&export, &name),
        Dialect::Spectrum => spectrum::script(&export, &name),
        Dialect::Redshift => redshift::script(&export, &name),
        Dialect::Duckdb => duckdb::script(&export, &name),
        Dialect::Clickhouse => clickhouse::script(&export, &name),
    };
    let Script { notes, statements } = script.map_err(refused)?;
    let mut text = header(manifest, dialect);
    for note in columns::notes(&export.columns).into_iter().chain(notes) {
        comment(&mut text, &note);
    }
    for statement in statements {
        text.push('\n');
        text.push_str(&statement);
        text.push_str(";\n");
    }
    Ok(text)
}

/// What the commit writes at [`Dialect::path`]: the statements, or a comment that says why there are none.
pub fn file(manifest: &Manifest, dialect: Dialect) -> String {
    ddl(manifest, &Placement::Parts, dialect, None).unwrap_or_else(|refused| {
        let mut text = header(manifest, dialect);
        comment(&mut text, "There is no statement here, since it cannot read this export as it is:");
        for reason in &refused.reasons {
            comment(&mut text, &format!("  {reason}"));
        }
        text
    })
}

fn header(manifest: &Manifest, dialect: Dialect) -> String {
    let source = match &manifest.source.name {
        SourceName::Relation(name) => name,
        SourceName::Query(_) => "a query",
    };
    let format = match manifest.format.format() {
        Format::Parquet => "Parquet",
        Format::Csv => "CSV",
        Format::Ndjson => "NDJSON",
    };
    let totals = manifest.totals;
    let mut text = String::new();
    comment(&mut text, &format!("{}: {source}, exported by Outhaul {}", dialect.title(), manifest.outhaul_version));
    let many = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    comment(
        &mut text,
        &format!("run {}: {} in {}, {format}", manifest.run_id, many(totals.rows, "row"), many(totals.parts, "part")),
    );
    if manifest.status == RunStatus::Truncated {
        comment(&mut text, "TRUNCATED: a cap cut rows off");
    }
    text
}

/// The relation's own name; Spectrum's tables stand in a schema of their own.
fn default_name(manifest: &Manifest, dialect: Dialect) -> TableName {
    let table = match &manifest.source.name {
        // `schema.relation` without quotes: a schema with a dot is rarer than a relation with one.
        SourceName::Relation(name) => name.split_once('.').map_or(name.as_str(), |(_, table)| table),
        SourceName::Query(_) => "export",
    };
    let mut parts = vec![table.to_owned()];
    if dialect == Dialect::Spectrum {
        parts.insert(0, "spectrum".to_owned());
    }
    TableName { parts }
}

impl Export<'_> {
    /// The destination's URL with a slash at its end, where it is on S3 and has the foreign manifests.
    fn s3_folder(&self) -> Result<&str, Vec<String>> {
        if self.placement != &Placement::Parts {
            return Err(vec!["a --single-file export has no manifest for it: export without that".to_owned()]);
        }
        let folder = self.manifest.parts.first().and_then(|part| part.url.strip_suffix(part.path.as_str()));
        match folder {
            Some(folder) if folder.starts_with("s3://") => Ok(folder),
            _ => Err(vec!["it reads from Amazon S3, and this export is elsewhere: export to s3://…".to_owned()]),
        }
    }

    /// Refuses columns whose names differ in letter case alone, where an engine takes them for one.
    fn distinct_names(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let twice = self.columns.iter().filter(|column| !seen.insert(column.name.to_lowercase()));
        let columns = twice.map(|column| {
            format!(
                "column {:?} differs from another in letter case alone, which makes no difference there: --rename one",
                column.name
            )
        });
        let members = self.columns.iter().filter_map(|column| {
            let member = column.kind.double_member()?;
            Some(format!(
                "column {:?} has a member {member:?} that differs from another in letter case alone, which makes no \
                 difference there: --column-policy COLUMN=json writes it as text",
                column.name
            ))
        });
        columns.chain(members).collect()
    }
}

#[cfg(test)]
mod tests;
