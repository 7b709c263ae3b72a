//! `DuckDB`: the newest row of each key over all loads of an incremental export. Which loads there are, and which parts are
//! theirs, is read from their manifests when the view is asked; the newest export of all rows and what came after it count.
//! What a cap cut short hands on the moment of the load before it, and is the newer one of the two.

use super::duckdb::file;
use super::lines;
use super::name::TableName;
use super::quote::{double_quoted, literal};
use crate::commit::Manifest;
use crate::commit::model::FormatKind;

/// How the folder of one load begins: the partition key of its table.
const LOAD: &str = "load=";

/// What the view is made of, beside the manifest.
pub(super) struct CurrentView<'a> {
    pub(super) name: &'a TableName,
    /// The select list.
    pub(super) selected: &'a [String],
    /// What reads the parts, and how.
    pub(super) function: &'static str,
    pub(super) options: &'a [String],
    /// Whether columns stand in the names of folders alone.
    pub(super) in_folders: bool,
}

/// The statement, or why there is none.
pub(super) fn current(manifest: &Manifest, view: &CurrentView<'_>) -> Result<String, String> {
    let mut name = view.name.clone();
    if let Some(last) = name.parts.last_mut() {
        last.push_str("_current");
    }
    let name = name.quoted(double_quoted);
    let none = |why: &str| format!("there is no view {name}: {why}");
    let key = manifest.watermark.as_ref().map(|watermark| watermark.key.as_slice()).unwrap_or_default();
    if key.is_empty() {
        return Err(none(
            "no unique key tells the rows apart in the files: there is none, or its type, a policy or --protect lets one key \
             be written in several ways or several keys in one",
        ));
    }
    if view.in_folders {
        return Err(none("--keep-partition-columns would keep in the files what stands in the names of folders alone"));
    }
    let (root, parts) = places(manifest).ok_or_else(|| none("put load={run_id} at the end of --to for one"))?;
    let key = key.iter().map(|column| double_quoted(column)).collect::<Vec<_>>().join(", ");
    let union = matches!(manifest.format.kind, FormatKind::Parquet { .. }).then(|| "union_by_name = true".to_owned());
    let parts_of_load =
        if matches!(manifest.format.kind, FormatKind::Csv(_)) { named_alike(manifest) } else { "parts".to_owned() };
    let options: Vec<String> = view.options.iter().cloned().chain(union).map(|it| format!(",\n    {it}")).collect();
    Ok(format!(
        "CREATE OR REPLACE VIEW {name} AS\n\
         WITH outhaul_loads AS (\n    \
             SELECT left(filename, length(filename) - length('_manifest.json')) AS folder, status, created_at,\n        \
                 watermark.taken_at AS taken_at, watermark.since AS since, \"schema\" AS load_columns, parts\n    \
             FROM read_json(\n        {manifests},\n        format = 'unstructured',\n        \
                 columns = {{status: 'VARCHAR', created_at: 'VARCHAR', watermark: 'STRUCT(taken_at VARCHAR, since VARCHAR)',\n            \
                     \"schema\": 'STRUCT(\"name\" VARCHAR)[]', parts: 'STRUCT(\"path\" VARCHAR)[]'}},\n        \
                 filename = true,\n        hive_partitioning = false\n    )\n    \
             WHERE watermark IS NOT NULL\n\
         ), outhaul_parts AS (\n    \
             SELECT folder || part.path AS outhaul_file, taken_at AS outhaul_taken_at, created_at AS outhaul_created_at\n    \
             FROM (\n        \
                 SELECT folder, taken_at, created_at, unnest({parts_of_load}) AS part\n        \
                 FROM outhaul_loads\n        \
                 WHERE taken_at >= coalesce(\n            \
                     (SELECT max(taken_at) FROM outhaul_loads WHERE since IS NULL AND status = 'complete'), '')\n    \
             )\n\
         )\n\
         SELECT\n{selected}\nFROM {function}(\n    {files}{options},\n    filename = 'outhaul_file',\n    \
             hive_partitioning = false\n)\n\
         JOIN outhaul_parts USING (outhaul_file)\n\
         QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY outhaul_taken_at DESC, outhaul_created_at DESC) = 1",
        manifests = literal(&format!("{root}{LOAD}*/_manifest.json")),
        files = literal(&format!("{root}{LOAD}*/{parts}")),
        selected = lines(view.selected, "    "),
        function = view.function,
        options = options.concat(),
    ))
}

/// The parts of a load whose columns are those of the newest one, and an error for another: CSV is read by place.
fn named_alike(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest.schema.iter().map(|column| literal(&column.name)).collect();
    format!(
        "CASE WHEN [of_load.name FOR of_load IN load_columns] = [{}] THEN parts\n            \
         ELSE error('the columns of ' || folder || ' are not those of this load: export all rows again with --since none') END",
        names.join(", ")
    )
}

/// The folder of all loads with a slash at its end, and the pattern of the parts of one.
fn places(manifest: &Manifest) -> Option<(String, String)> {
    let part = manifest.parts.first()?;
    let folder = part.url.strip_suffix(part.path.as_str())?.strip_suffix('/')?;
    let (root, load) = folder.rsplit_once('/')?;
    load.strip_prefix(LOAD).filter(|id| !id.is_empty())?;
    let below = if part.path.starts_with("data/") { "data/**/" } else { "" };
    let ending = part.path.rsplit('/').next()?.split_once('.')?.1;
    Some((format!("{}/", file(root)), format!("{below}part-*.{ending}")))
}
