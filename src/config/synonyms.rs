//! What other programs call the options, and the flags that have no variable: names that are no option's and were meant.

use super::options::{OPTIONS, nearest};

/// The flags of a run that are no options: no variable stands for them.
pub(crate) const FLAGS_ALONE: [&str; 9] =
    ["dry_run", "verbose", "quiet", "only", "except", "schema", "take_over", "allow_mixed_snapshot", "unfinished"];

/// Words that people try, and what to write instead.
pub(crate) const SYNONYMS: &[(&[&str], &str)] = &[
    (&["overwrite", "force", "replace", "clobber"], "--on-existing replace"),
    (&["json"], "--report json for the report, --format ndjson for the rows"),
    (&["output", "out", "outfile", "dest", "destination", "file"], "--to DEST"),
    (&["sample", "head", "rows", "row-limit", "first", "top"], "--limit N"),
    (&["timezone", "time-zone", "tz"], "times are written in UTC: convert them in --query"),
    (&["order-by", "order", "sort", "sort-by", "orderby"], "--key COLUMN"),
    (&["schema"], "write the schema into the table's name: --table public.orders"),
    (&["host", "port", "user", "username", "dbname", "database", "url", "dsn", "p", "U", "d", "W"], SERVER),
    (&["sql", "select"], "--query SQL"),
    (&["filter", "predicate"], "--where PREDICATE"),
    (&["jobs", "threads", "parallel"], "--readers N"),
    (&["codec", "compress", "gzip", "zstd"], "--compression CODEC, or the end of the file's name: orders.csv.gz"),
    (&["delimiter", "separator", "sep"], "--csv-delimiter CHAR"),
    (&["header", "no-header"], "--csv-header on|off"),
    (&["csv", "parquet", "ndjson"], "--format FORMAT, or the end of the file's name: orders.csv"),
];

pub(crate) const SERVER: &str = "the server goes into --from: --from postgres://user@host:port/database";

/// What to write instead of a flag that other programs have.
pub(crate) fn instead_of(flag: &str) -> Option<&'static str> {
    SYNONYMS.iter().find(|(words, _)| words.contains(&flag)).map(|(_, instead)| *instead)
}

/// What was meant by a variable of ours that no option has, as a hint; nothing where it is of the surroundings: what a
/// wrapper sets for itself, or where its command finds the server (`--from env:OUTHAUL_DSN`).
pub(super) fn meant(key: &str, value: &str) -> Option<String> {
    // Kubernetes sets it in each pod beside a Service that is called outhaul. A switch that is off asks for nothing.
    if key == "port" || value == "false" {
        return None;
    }
    if let Some(flag) =
        nearest(&key.replace('_', ""), FLAGS_ALONE.map(|flag| flag.replace('_', "")).iter().map(String::as_str))
    {
        let flag = FLAGS_ALONE.iter().find(|alone| alone.replace('_', "") == flag)?.replace('_', "-");
        return Some(format!("unset it, and give the flag to the command: --{flag} has no variable"));
    }
    if let Some(option) = nearest(key, OPTIONS.iter().map(|option| option.key)) {
        return Some(format!("did you mean OUTHAUL_{}?", option.to_uppercase()));
    }
    let instead = instead_of(&key.replace('_', "-")).filter(|instead| *instead != SERVER)?;
    Some(format!("unset it, and write instead: {instead}"))
}
