//! Statements with which other engines read an export: pure, from the manifest alone.
//!
//! Whatever they name is the manifest's: its parts one by one, or a foreign manifest that lists them. None names a bare
//! prefix, which would also read what a failed run left. Where an engine cannot read a column exactly, there is a note in
//! front of the statement, or no statement at all: a table that shows other values than were exported is worse than none.

mod athena;
mod clickhouse;
mod columns;
mod current;
pub(crate) mod dbt;
mod duckdb;
mod folders;
mod name;
mod quote;
mod redshift;
mod spectrum;
mod types;

use std::collections::HashSet;
use std::fmt;

pub(crate) use name::TableName;

use crate::base::text::relation::apart;
use crate::base::words::counted;
use crate::commit::model::SourceName;
use crate::commit::{Manifest, Placement};
use crate::describe::partitions::{TableFolder, partitions};
use crate::model::{Compression, FolderValue, Format, RunStatus};
use columns::{DdlColumn, ValueKind};
use folders::Folders;
use quote::comment;
use types::DialectTypes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
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
    pub(crate) const ALL: [Self; 5] = [Self::Athena, Self::Spectrum, Self::Redshift, Self::Duckdb, Self::Clickhouse];

    /// The word of the flag, the file below the destination, the name as its makers write it, and what writes its script.
    fn facts(self) -> (&'static str, &'static str, &'static str, DdlWriter) {
        match self {
            Self::Athena => ("athena", "_ddl/athena.sql", "Athena", athena::script),
            Self::Spectrum => ("spectrum", "_ddl/spectrum.sql", "Redshift Spectrum", spectrum::script),
            Self::Redshift => ("redshift", "_ddl/redshift.sql", "Redshift", redshift::script),
            Self::Duckdb => ("duckdb", "_ddl/duckdb.sql", "DuckDB", duckdb::script),
            Self::Clickhouse => ("clickhouse", "_ddl/clickhouse.sql", "ClickHouse", clickhouse::script),
        }
    }

    /// As the flag takes it.
    pub(crate) fn name(self) -> &'static str {
        self.facts().0
    }

    /// Where the commit writes the statements, relative to the destination.
    pub(crate) fn path(self) -> &'static str {
        self.facts().1
    }

    fn title(self) -> &'static str {
        self.facts().2
    }
}

/// How a dialect writes a name, and how a text.
type Quoting = (fn(&str) -> String, fn(&str) -> String);

/// Writes what a dialect makes of an export.
type DdlWriter = fn(&Export<'_>, &TableName, &mut Script);

/// Why there is no statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnsupportedDdl {
    dialect: Dialect,
    /// At least one, each with what to do about it.
    reasons: Vec<String>,
}

impl fmt::Display for UnsupportedDdl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot read this export as it is: {}", self.dialect.title(), self.reasons.join("; "))
    }
}

impl std::error::Error for UnsupportedDdl {}

/// What a dialect makes of an export.
#[derive(Debug, Default)]
struct Script {
    /// For the comment in front.
    notes: Vec<String>,
    /// Why the engine cannot read the export, where it cannot: then the statements are not used.
    refusals: Vec<String>,
    /// Without their semicolons.
    statements: Vec<String>,
}

impl Script {
    fn note(&mut self, holds: bool, text: impl Into<String>) {
        if holds {
            self.notes.push(text.into());
        }
    }

    /// A note about columns, where there are any.
    fn note_of(&mut self, columns: Option<String>, text: &str) {
        self.notes.extend(columns.map(|columns| format!("{columns}: {text}")));
    }

    /// A refusal that may hold of many values.
    fn refuse_once(&mut self, holds: bool, why: String) {
        if holds && !self.refusals.contains(&why) {
            self.refusals.push(why);
        }
    }

    fn refuse(&mut self, holds: bool, why: impl Into<String>) {
        if holds {
            self.refusals.push(why.into());
        }
    }
}

/// An export as the dialects see it.
#[derive(Debug)]
struct Export<'a> {
    manifest: &'a Manifest,
    placement: &'a Placement,
    columns: Vec<DdlColumn<'a>>,
    /// Those that only the folders of the parts have.
    of_folders: Vec<DdlColumn<'a>>,
}

/// The statements for `dialect`, with a comment in front that says what they read.
///
/// # Errors
/// [`UnsupportedDdl`], where the engine cannot read what was exported.
pub(crate) fn ddl(
    manifest: &Manifest,
    placement: &Placement,
    dialect: Dialect,
    name: Option<&TableName>,
) -> Result<String, UnsupportedDdl> {
    let refused = |reasons| UnsupportedDdl { dialect, reasons };
    if manifest.format.format() == Format::Source {
        return Err(refused(vec!["its bytes are as the source made them, and no columns are described".to_owned()]));
    }
    let columns = columns::of(manifest).map_err(refused)?;
    let of_folders = columns::of_folders(manifest).map_err(refused)?;
    let export = Export { manifest, placement, columns, of_folders };
    let name = match name {
        Some(name) => name.clone(),
        None => default_name(manifest, dialect),
    };
    let mut script = Script::default();
    if matches!(dialect, Dialect::Redshift | Dialect::Clickhouse)
        && let Some(column) = export.of_folders.first()
    {
        let why = "is in the names of folders alone, which these statements do not read";
        script.refuse(true, format!("column {:?} {why}: export with --keep-partition-columns", column.name));
    }
    dialect.facts().3(&export, &name, &mut script);
    let Script { notes, refusals, statements } = script;
    if !refusals.is_empty() {
        return Err(refused(refusals));
    }
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
pub(crate) fn file(manifest: &Manifest, dialect: Dialect) -> String {
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
    let mut text = String::new();
    for line in titles(manifest, dialect.title()) {
        comment(&mut text, &line);
    }
    text
}

/// What stands in front of all statements: what they read, and by whom it was made.
fn titles(manifest: &Manifest, title: &str) -> Vec<String> {
    let source = match &manifest.source.name {
        SourceName::Relation(name) => name,
        SourceName::Query(_) => "a query",
    };
    let format = match manifest.format.format() {
        Format::Parquet => "Parquet",
        Format::Csv => "CSV",
        Format::Ndjson => "NDJSON",
        Format::Source => "a format of the source's own",
    };
    let totals = manifest.totals;
    let rows = totals.rows.map_or_else(String::new, |rows| format!("{} in ", counted(rows, "row")));
    let parts = counted(totals.parts, "part");
    let mut titles = vec![
        format!("{title}: {source}, exported by Outhaul {}", manifest.outhaul_version),
        format!("run {}: {rows}{parts}, {format}", manifest.run_id),
    ];
    if manifest.status == RunStatus::Truncated {
        titles.push("TRUNCATED: a cap cut rows off".to_owned());
    }
    titles
}

/// The relation's own name; Spectrum's tables stand in a schema of their own.
fn default_name(manifest: &Manifest, dialect: Dialect) -> TableName {
    let table = match &manifest.source.name {
        SourceName::Relation(name) => apart(name).1,
        SourceName::Query(_) => "export".to_owned(),
    };
    let mut parts = vec![table];
    if dialect == Dialect::Spectrum {
        parts.insert(0, "spectrum".to_owned());
    }
    TableName { parts }
}

/// A column with its type, as `write` puts the two; none where the dialect has no such type, which is refused.
fn typed(
    DdlColumn { name, kind, nullable, .. }: &DdlColumn<'_>,
    types: &DialectTypes,
    script: &mut Script,
    write: impl Fn(&str, &str) -> String,
) -> Option<String> {
    match types.of(kind, *nullable) {
        Ok(data_type) => Some(write(name, &data_type)),
        Err(why) => {
            script.refuse(true, format!("column {name:?} {why}"));
            None
        }
    }
}

impl Export<'_> {
    fn format(&self) -> Format {
        self.manifest.format.format()
    }

    fn compression(&self) -> Compression {
        self.manifest.format.compression
    }

    /// The scheme of the parts' URLs.
    fn scheme(&self) -> &str {
        let url = self.manifest.parts.first().and_then(|part| part.url.split_once("://"));
        url.map_or("", |(scheme, _)| scheme)
    }

    /// Whether a column, or something in it, is so.
    fn has(&self, is: &dyn Fn(&ValueKind) -> bool) -> bool {
        self.columns.iter().any(|column| column.kind.any(is))
    }

    /// Whether a column itself is so.
    fn has_column(&self, is: &dyn Fn(&ValueKind) -> bool) -> bool {
        self.columns.iter().any(|column| is(&column.kind))
    }

    /// The names of the columns that are so, for a note.
    fn names(&self, is: impl Fn(&DdlColumn<'_>) -> bool) -> Option<String> {
        let names: Vec<String> =
            self.columns.iter().filter(|column| is(column)).map(|column| format!("{:?}", column.name)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The destination's URL with a slash at its end, where it is on S3 and has the foreign manifests.
    fn s3_folder(&self, script: &mut Script) -> Option<&str> {
        let folder = self.manifest.parts.first().and_then(|part| part.url.strip_suffix(part.path.as_str()));
        let folder = folder.filter(|folder| folder.starts_with("s3://"));
        if self.placement != &Placement::Parts {
            script.refuse(true, "a --single-file export has no manifest for it: export without that");
            return None;
        }
        script.refuse(folder.is_none(), "it reads from Amazon S3, and this export is elsewhere: export to s3://…");
        folder
    }

    /// The columns of a table, as `write` puts a name and a type. A partition column stands for the column of its name.
    fn columns(
        &self,
        types: &DialectTypes,
        folders: &Folders<'_>,
        script: &mut Script,
        write: impl Fn(&str, &str) -> String,
    ) -> Vec<String> {
        let mut written = Vec::new();
        for column in &self.columns {
            let name = &column.name;
            if folders.has_key(name) {
                let why = "is left out of the table: its partition column of the same name stands for it";
                script.note(true, format!("column {name:?} {why}"));
                continue;
            }
            written.extend(typed(column, types, script, &write));
        }
        script.refuse(written.is_empty(), "no column is left");
        written
    }

    /// The columns that the folders of the parts stand for, as `write` puts a name and a type.
    fn partition_columns(
        &self,
        types: &DialectTypes,
        folders: &Folders<'_>,
        script: &mut Script,
        write: impl Fn(&str, &str) -> String,
    ) -> Vec<String> {
        let mut written = Vec::new();
        for column in &self.of_folders {
            let name = &column.name;
            script.refuse(folders.has_key(name), format!("the destination's path has the partition key {name:?} too"));
            written.extend(typed(column, types, script, &write));
        }
        written
    }

    /// `ALTER TABLE … ADD PARTITION` of the folders of the parts, where the files leave columns out: each at the `place` of
    /// its own manifest.
    fn add_partitions(
        &self,
        table: &str,
        folders: &Folders<'_>,
        quoting: Quoting,
        place: impl Fn(&TableFolder<'_>) -> String,
        script: &mut Script,
    ) {
        let (quote, literal) = quoting;
        let found = partitions(self.manifest);
        let values = || found.iter().flat_map(|partition| partition.values);
        for FolderValue { column, value } in values() {
            let Some(text) = value else { continue };
            let hostile = text.contains(['\'', '\\']) || text.contains(char::is_control);
            let why = "has a value with a quote, a backslash or a control character, which the statement cannot have";
            script.refuse_once(hostile, format!("column {column:?} {why}: --keep-partition-columns"));
            let why = "has the empty text or the one that stands for NULL, which a partition cannot have";
            let taken = text.is_empty() || text.eq_ignore_ascii_case(NULL_VALUE);
            script.refuse_once(taken, format!("column {column:?} {why}: --keep-partition-columns"));
        }
        let outer = folders.values(quote, literal);
        let one = |partition: &TableFolder<'_>| {
            let value = |folder: &FolderValue| {
                let value = folder.value.as_deref().unwrap_or(NULL_VALUE);
                format!("{} = {}", quote(&folder.column), literal(value))
            };
            let outer = Some(outer.clone()).filter(|outer| !outer.is_empty());
            let pairs: Vec<String> = outer.into_iter().chain(partition.values.iter().map(value)).collect();
            format!("PARTITION ({}) LOCATION {}", pairs.join(", "), literal(&place(partition)))
        };
        let all: Vec<String> = found.iter().map(one).collect();
        for some in all.chunks(PARTITIONS_OF_A_STATEMENT) {
            script.statements.push(format!("ALTER TABLE {table} ADD IF NOT EXISTS\n{}", some.join("\n")));
        }
        let why = "a value that is gone from a later export has to be dropped by ALTER TABLE … DROP PARTITION";
        script.note(!found.is_empty(), why);
    }

    /// Refuses columns whose names differ in letter case alone, where an engine takes them for one.
    fn refuse_doubles(&self, script: &mut Script) {
        let beside = "differs from another in letter case alone, which makes no difference there:";
        let mut seen = HashSet::new();
        let columns = self.columns.iter().chain(&self.of_folders);
        for DdlColumn { name, .. } in columns.filter(|column| !seen.insert(column.name.to_lowercase())) {
            script.refuse(true, format!("column {name:?} {beside} --rename one"));
        }
        for DdlColumn { name, kind, .. } in &self.columns {
            let Some(member) = kind.double_member() else { continue };
            let hint = "--column-policy COLUMN=json writes it as text";
            script.refuse(true, format!("column {name:?} has a member {member:?} that {beside} {hint}"));
        }
    }
}

/// What stands for NULL in a partition.
const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Redshift takes no more in one statement, and Athena's are short.
const PARTITIONS_OF_A_STATEMENT: usize = 100;

/// Items of a list, one a line.
fn lines(items: &[String], indent: &str) -> String {
    let indented: Vec<String> = items.iter().map(|item| format!("{indent}{item}")).collect();
    indented.join(",\n")
}

#[cfg(test)]
mod tests;
