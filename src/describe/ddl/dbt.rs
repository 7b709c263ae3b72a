//! Sources of dbt over an export: for `dbt-duckdb` the parts of the manifest, for `dbt-external-tables` the Redshift manifest,
//! which lists them. YAML whose texts are written as JSON writes them, which YAML takes.
//!
//! A location is a template of Jinja and then one of Python, so that a brace in it has no sure way through; one with a
//! bracket in it is taken as an expression.

use std::fmt::Write as _;

use serde_json::Value;

use super::columns::DdlColumn;
use super::duckdb;
use super::folders::Folders;
use super::name::TableName;
use super::quote::double_quoted;
use super::spectrum;
use super::{Export, Script, columns, titles};
use crate::base::text::relation::apart;
use crate::commit::model::SourceName;
use crate::commit::{Manifest, Placement};
use crate::model::Format;

/// As `outhaul ddl --dialect` takes it.
pub(crate) const DBT: &str = "dbt";

/// Where the commit writes it, relative to the destination.
pub(crate) const DBT_PATH: &str = "_ddl/dbt-sources.yml";

/// The source's name where the export is of no schema.
const NAME: &str = "outhaul";

/// An external table of Redshift.
struct ExternalTable {
    location: String,
    stored: &'static [(&'static str, &'static str)],
    /// One for each column.
    types: Vec<String>,
}

/// The sources, with a comment in front that says what they read, and a comment alone where nothing reads the export as it is.
pub(crate) fn sources(manifest: &Manifest, placement: &Placement, name: Option<&TableName>) -> String {
    let mut yaml = Yaml::default();
    for line in titles(manifest, "dbt sources") {
        yaml.comment(&line);
    }
    let columns = if manifest.format.format() == Format::Source {
        Err(vec!["its bytes are as the source made them, and no columns are described".to_owned()])
    } else {
        columns::of(manifest).and_then(|columns| Ok((columns, columns::of_folders(manifest)?)))
    };
    let export = match columns {
        Ok((columns, of_folders)) => Export { manifest, placement, columns, of_folders },
        Err(reasons) => {
            for reason in &reasons {
                yaml.comment(reason);
            }
            return yaml.0;
        }
    };
    let name = named(manifest, name);
    let (location, external) = (duckdb_location(&export, &name), redshift_table(&export, &name));
    for why in [location.as_ref().err(), external.as_ref().err()].into_iter().flatten() {
        yaml.comment(why);
    }
    if location.is_ok() || external.is_ok() {
        yaml.source(&export, &name, location.ok().as_deref(), external.ok().as_ref());
    }
    yaml.0
}

/// The source and the table in it.
fn named(manifest: &Manifest, name: Option<&TableName>) -> TableName {
    let parts: Vec<String> = match (name, &manifest.source.name) {
        (Some(name), _) => name.parts.clone(),
        (None, SourceName::Relation(name)) => {
            let (schema, table) = apart(name);
            schema.into_iter().chain([table]).collect()
        }
        (None, SourceName::Query(_)) => vec!["export".to_owned()],
    };
    let mut last: Vec<String> = parts.into_iter().rev().take(2).collect();
    if last.len() < 2 {
        last.push(NAME.to_owned());
    }
    last.reverse();
    TableName { parts: last }
}

/// What `dbt-duckdb` reads: the query of the view of `_ddl/duckdb.sql`.
fn duckdb_location(export: &Export<'_>, name: &TableName) -> Result<String, String> {
    let mut script = Script::default();
    duckdb::script(export, name, &mut script);
    if !script.refusals.is_empty() {
        return Err(format!("dbt-duckdb cannot read it: {}", script.refusals.join("; ")));
    }
    let head = format!("CREATE OR REPLACE VIEW {} AS\n", name.quoted(double_quoted));
    let query = script.statements.first().and_then(|view| view.strip_prefix(&head)).unwrap_or_default();
    if query.is_empty() || query.contains(['{', '}']) {
        let why =
            "dbt-duckdb takes a location with braces in it for a template: name the view of _ddl/duckdb.sql there";
        return Err(why.to_owned());
    }
    Ok(format!("({query})"))
}

fn redshift_table(export: &Export<'_>, name: &TableName) -> Result<ExternalTable, String> {
    let mut script = Script::default();
    spectrum::script(export, name, &mut script);
    let folder = export.s3_folder(&mut Script::default()).unwrap_or_default();
    let alone = "a column is in the names of folders alone: export with --keep-partition-columns";
    script.refuse(!export.of_folders.is_empty(), alone);
    let partition = !Folders::of(folder).pairs.is_empty();
    script.refuse(partition, "its folder is a partition of a table, to which _ddl/spectrum.sql adds it");
    let parquet = export.format() == Format::Parquet;
    let words = if parquet { spectrum::PARQUET } else { spectrum::TEXT };
    let types = export.columns.iter().map(|column| words.of(&column.kind, column.nullable)).collect();
    match types {
        Ok(types) if script.refusals.is_empty() => Ok(ExternalTable {
            location: format!("{folder}_redshift/manifest"),
            stored: if parquet {
                &[("file_format", "parquet")]
            } else {
                &[("row_format", "serde 'org.openx.data.jsonserde.JsonSerDe'"), ("file_format", "textfile")]
            },
            types,
        }),
        _ => Err(format!("dbt-external-tables makes no table of Redshift of it: {}", script.refusals.join("; "))),
    }
}

/// Lines of YAML.
#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn comment(&mut self, line: &str) {
        let ends_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        self.0.push_str("# ");
        self.0.extend(line.chars().map(|c| if ends_line(c) { ' ' } else { c }));
        self.0.push('\n');
    }

    /// A line of our own words.
    fn key(&mut self, indent: usize, key: &str) {
        self.0.push_str(&" ".repeat(indent));
        self.0.push_str(key);
        self.0.push('\n');
    }

    /// A line with somebody's text.
    fn text(&mut self, indent: usize, key: &str, text: &str) {
        // JSON leaves DEL and what is behind it as it is, and YAML takes no control character but between its own escapes.
        let json: String = Value::from(text).to_string().chars().fold(String::new(), |mut out, c| {
            if ('\u{7f}'..='\u{9f}').contains(&c) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            } else {
                out.push(c);
            }
            out
        });
        self.key(indent, &format!("{key}: {json}"));
    }

    fn source(
        &mut self,
        export: &Export<'_>,
        name: &TableName,
        location: Option<&str>,
        external: Option<&ExternalTable>,
    ) {
        let [source, table] = name.parts.as_slice() else { return };
        self.key(0, "version: 2");
        self.key(0, "sources:");
        self.text(2, "- name", source);
        self.key(4, "tables:");
        self.text(6, "- name", table);
        if let Some(location) = location {
            self.key(8, "meta:");
            self.text(10, "external_location", location);
        }
        if let Some(ExternalTable { location, stored, .. }) = external {
            self.key(8, "external:");
            self.text(10, "location", location);
            for (key, value) in *stored {
                self.text(10, key, value);
            }
        }
        self.key(8, "columns:");
        for (place, DdlColumn { name, nullable, .. }) in export.columns.iter().chain(&export.of_folders).enumerate() {
            self.text(10, "- name", name);
            if let Some(data_type) = external.and_then(|external| external.types.get(place)) {
                self.text(12, "data_type", data_type);
            }
            if !nullable {
                self.key(12, "data_tests:");
                self.key(14, "- not_null");
            }
        }
    }
}
