//! `outhaul show`: a manifest for people, with who is at work at its destination and what dead runs left there.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ArgMatches;
use serde::Serialize;

use super::summary::shell_word;
use super::table::Table;
use super::{CommandContext, exit, human};
use crate::base::words::counted;
use crate::commit::Manifest;
use crate::commit::model::{RowCapRecord, SchemaColumn, SourceName};
use crate::export::ExportError;
use crate::export::show::{self, Remains, Shown, ShownOwner, ShownRun, UnendedState};
use crate::model::{
    ColumnChange, Consistency, ConsistencyMode, Direction, RowOrder, RowsAvailable, RunStatus, SchemaChange, Watermark,
};

/// Parts that people see before they are told how many more there are; the JSON form has all.
const PARTS_SHOWN_MAX: usize = 5;

/// The JSON form. The manifest is as it stands at the destination.
#[derive(Debug, Serialize)]
struct ShownJson<'a> {
    schema_version: u32,
    exit_code: u8,
    destination: &'a str,
    manifest_url: &'a str,
    manifest: Option<serde_json::Value>,
    owner: Option<&'a ShownOwner>,
    runs: &'a [ShownRun],
    retryable: bool,
}

pub(super) async fn show(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let url = matches.get_one::<String>("dest").map_or("", String::as_str);
    let shown = context
        .unless_stopped("stopped while looking at the destination", show::show(url, matches.get_flag("single_file")))
        .await;
    let told = shown.and_then(|shown| {
        let body = as_json(&shown)?;
        Ok(context.answer(|| text(&shown), &body))
    });
    told.unwrap_or_else(|error| context.fail(&error))
}

fn as_json(shown: &Shown) -> Result<ShownJson<'_>, ExportError> {
    let unwritten = |error: serde_json::Error| ExportError::internal("writing the answer as JSON").with_source(error);
    let manifest = shown.manifest.as_ref().map(|manifest| {
        let json = manifest.to_json().map_err(|error| ExportError::internal("writing the manifest").with_source(error));
        serde_json::from_slice(&json?).map_err(unwritten)
    });
    Ok(ShownJson {
        schema_version: 1,
        exit_code: exit::COMPLETE,
        destination: &shown.destination,
        manifest_url: &shown.manifest_url,
        manifest: manifest.transpose()?,
        owner: shown.owner.as_ref(),
        runs: &shown.runs,
        retryable: false,
    })
}

/// Lines with a label in front of each.
#[derive(Default)]
struct ShownLines(Vec<String>);

impl ShownLines {
    fn entry(&mut self, label: &str, text: &str) {
        self.0.push(format!("{label:<12}{}", text.replace('\n', "\n            ")));
    }

    fn table(&mut self, head: &str, table: &Table) {
        self.0.extend([String::new(), head.to_owned(), table.to_string()]);
    }
}

fn text(shown: &Shown) -> String {
    let mut lines = ShownLines::default();
    match &shown.manifest {
        Some(manifest) => of_export(manifest, shown, &mut lines),
        None => lines.0.push(format!("nothing is committed at {}", shown.destination)),
    }
    if !shown.runs.is_empty() || shown.owner.as_ref().is_some_and(|owner| owner.alive) {
        lines.0.push(String::new());
    }
    if let Some(owner) = shown.owner.as_ref().filter(|owner| owner.alive) {
        let run = shown.runs.iter().find(|run| run.state == UnendedState::Alive);
        lines.entry("at work", &at_work(owner, run));
    }
    for run in &shown.runs {
        of_run(run, &shown.destination, &mut lines);
    }
    lines.0.join("\n")
}

fn of_export(manifest: &Manifest, shown: &Shown, lines: &mut ShownLines) {
    let Manifest { source, totals, format, .. } = manifest;
    let (what, query) = match &source.name {
        SourceName::Relation(name) => (name.as_str(), None),
        SourceName::Query(query) => ("query", Some(query)),
    };
    let status = match manifest.status {
        RunStatus::Complete => "complete",
        RunStatus::Truncated => "TRUNCATED",
    };
    lines.0.push(format!("{status}: {what} -> {}", shown.destination));
    if let Some(query) = query {
        lines.entry("query", query);
    }
    if let Some(predicate) = &source.predicate {
        lines.entry("where", predicate);
    }
    let what = if totals.rows.is_some() { "rows" } else { "bytes" };
    let sum = format!("{}, {}", human::rows_in_parts(totals.rows, totals.parts), human::bytes(totals.bytes));
    lines.entry(what, &sum);
    let took = (manifest.finished_at - manifest.created_at).to_std().unwrap_or_default();
    let took = human::seconds(took.as_secs_f64());
    lines.entry("when", &format!("{}, in {took}", moment(manifest.created_at)));
    let standby = if source.standby { ", a standby" } else { "" };
    lines.entry("source", &format!("{} {}{standby}", source.kind, source.server_version));
    lines.entry("snapshot", &consistency(&manifest.consistency));
    if source.row_security {
        lines.entry("rows", "those that row security let the role see (--allow-rls)");
    }
    if let Some(watermark) = &manifest.watermark {
        lines.entry("watermark", &of_watermark(watermark));
    }
    lines.entry("cap", &cap(&manifest.row_cap));
    if !source.key.is_empty() {
        let column =
            |name: &str, direction| if direction == Direction::Desc { format!("{name} desc") } else { name.to_owned() };
        let key: Vec<String> = source.key.iter().map(|key| column(&key.name, key.direction)).collect();
        lines.entry("key", &key.join(", "));
    }
    lines.entry("format", &human::format(format.format(), format.compression));
    lines.entry("run", &format!("{}, by outhaul {}", manifest.run_id, manifest.outhaul_version));
    if !manifest.schema.is_empty() {
        lines.table(&format!("columns     {}", manifest.schema.len()), &columns(&manifest.schema));
    }
    parts(manifest, lines);
}

fn moment(at: DateTime<Utc>) -> String {
    format!("{} UTC", at.format("%Y-%m-%d %H:%M:%S"))
}

/// What all rows have in common.
fn consistency(consistency: &Consistency) -> String {
    let snapshots = consistency.snapshots.iter().map(|snapshot| {
        let id = snapshot.id.as_deref().map_or_else(String::new, |id| format!("{id}, "));
        let place = snapshot.lsn.as_deref().map_or_else(String::new, |lsn| format!(" at {lsn}"));
        format!("{id}taken {}{place}", moment(snapshot.taken_at))
    });
    let mode = match &consistency.mode {
        ConsistencyMode::SingleSnapshot => None,
        ConsistencyMode::Keyset => Some("none for all rows: each page is of a moment of its own"),
        ConsistencyMode::Mixed => Some("the partitions are of several snapshots"),
        ConsistencyMode::Foreign => Some("foreign tables are of the moment of each statement"),
        ConsistencyMode::Other(mode) => Some(mode.as_str()),
    };
    let words: Vec<String> =
        mode.map(str::to_owned).into_iter().chain(snapshots).chain(consistency.note.clone()).collect();
    words.join("\n")
}

/// What an incremental export went on from, and what it leaves for the next one.
fn of_watermark(watermark: &Watermark) -> String {
    let Watermark { column, value, horizon, oldest_xact_start, look_back, since, why_full, .. } = watermark;
    let mut words = vec![format!("{column} up to {}", value.as_deref().unwrap_or("no value yet"))];
    words.push(match (since, why_full) {
        (Some(run), _) => format!("new since run {run}"),
        (None, Some(why)) => format!("all rows: {why}"),
        (None, None) => "all rows: there was no export to go on from".to_owned(),
    });
    words.push(format!("the next export reads what transactions from {horizon} on have written,"));
    words.push(match look_back {
        Some(seconds) => {
            format!("and looks back {} for it", human::seconds(f64::from(u32::try_from(*seconds).unwrap_or(u32::MAX))))
        }
        None => "and looks at every row for it".to_owned(),
    });
    words.extend(oldest_xact_start.map(|at| format!("the oldest transaction had begun {}", moment(at))));
    for SchemaChange { column, change } in &watermark.changes {
        words.push(match change {
            ColumnChange::Added => format!("column {column} is new"),
            ColumnChange::Dropped => format!("column {column} is gone"),
            ColumnChange::Retyped => format!("column {column} has another type"),
        });
    }
    words.join("\n")
}

/// What the cap did.
fn cap(cap: &RowCapRecord) -> String {
    let Some(max_rows) = cap.max_rows else { return "none".to_owned() };
    let tier = cap.tier.as_ref().map_or_else(String::new, |tier| format!(" (tier {tier})"));
    let rows = human::plural(max_rows.get(), "row");
    if !cap.truncated {
        return format!("{rows}{tier}, which cut nothing off");
    }
    let order = match cap.order {
        RowOrder::Key => "in key order",
        RowOrder::Physical => "in the order of the heap",
        RowOrder::Unspecified => "in no defined order",
    };
    let there = match cap.available {
        RowsAvailable::Exact(rows) => format!("; there were {}", human::count(rows)),
        RowsAvailable::AtLeast(rows) => format!("; there were at least {}", human::count(rows)),
        RowsAvailable::Unknown => String::new(),
    };
    format!("the first {rows} {order}{tier}{there}")
}

fn columns(schema: &[SchemaColumn]) -> Table {
    let mut table = Table::default();
    for column in schema {
        let null = if column.nullable { "" } else { " not null" };
        let changed = column.policy_count.filter(|count| *count > 0);
        table.row([
            column.name.clone(),
            format!("{}{null}", column.pg_type),
            column.parquet_type.clone().unwrap_or_else(|| column.arrow_type.clone()),
            changed.map_or_else(String::new, |count| format!("{} changed", human::plural(count, "value"))),
        ]);
    }
    table
}

fn parts(manifest: &Manifest, lines: &mut ShownLines) {
    let sizes = manifest.parts.iter().map(|part| part.bytes);
    let sizes = match (sizes.clone().min(), sizes.max()) {
        (Some(least), Some(most)) if least < most => {
            format!(", {} to {}", human::bytes(least), human::bytes(most))
        }
        _ => String::new(),
    };
    let mut table = Table::default();
    table.right(1).right(2);
    for part in manifest.parts.iter().take(PARTS_SHOWN_MAX) {
        let rows = part.rows.map_or_else(String::new, |rows| human::plural(rows, "row"));
        table.row([part.path.clone(), rows, human::bytes(part.bytes)]);
    }
    lines.table(&format!("parts       {}{sizes}", human::count(manifest.totals.parts)), &table);
    if let Some(more @ 1..) = manifest.parts.len().checked_sub(PARTS_SHOWN_MAX) {
        lines.0.push(format!("  and {more} more; --json has all"));
    }
}

/// `run r since …, last heard of at … (process 12 on host); 4 of 24 partitions read`.
fn at_work(owner: &ShownOwner, run: Option<&ShownRun>) -> String {
    let ShownOwner { run_id, renewed_at, .. } = owner;
    let process = match (&owner.host, owner.pid) {
        (Some(host), Some(pid)) => format!(", process {pid} on {host}"),
        _ => String::new(),
    };
    let since = run.and_then(|run| run.begun_at).map_or_else(String::new, |at| format!("\nsince {}", moment(at)));
    let relation = run.and_then(|run| run.relation.as_ref()).map_or_else(String::new, |name| format!(" of {name}"));
    let read = run.and_then(read).map_or_else(|| "\nnothing is read yet".to_owned(), |read| format!("\n{read}"));
    format!("run {run_id}{relation}{process}{since}\nlast heard of {}{read}", moment(*renewed_at))
}

/// `4 of 24 partitions read`.
fn read(run: &ShownRun) -> Option<String> {
    let partitions = run.partitions?;
    Some(format!("{} of {} read", run.partitions_read, counted(partitions, "partition")))
}

fn of_run(run: &ShownRun, destination: &str, lines: &mut ShownLines) {
    if run.state != UnendedState::Alive {
        lines.entry("dead run", &dead(run, destination));
    }
    for kept in &run.kept {
        let at_most = kept.until.to_rfc3339_opts(SecondsFormat::Secs, true);
        let snapshot = &kept.snapshot;
        lines.entry(
            "kept",
            &format!("snapshot {snapshot} until {at_most} at most,\nby process {} on {}", kept.pid, kept.host),
        );
    }
}

fn dead(run: &ShownRun, destination: &str) -> String {
    let relation = run.relation.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
    let mut words = vec![format!("{}{relation}", run.run_id)];
    let version = run.outhaul_version.as_ref().map_or_else(String::new, |version| format!(" by outhaul {version}"));
    words.extend(run.begun_at.map(|at| format!("begun {}{version}", moment(at))));
    words.extend(read(run));
    words.extend(run.left.as_ref().map(|left| format!("left: {}", remains(left))));
    let word = shell_word(destination);
    words.push(match run.state {
        UnendedState::Unfinished => {
            format!("its manifest stands, and some of its commit is undone:\nouthaul clean {word} finishes it")
        }
        UnendedState::Newer => {
            "only that version of outhaul, or a newer one, can go on with it or remove it".to_owned()
        }
        UnendedState::Alive | UnendedState::Dead => {
            let resumable = format!("outhaul resume {word} goes on with it while the snapshot is kept\n");
            let resumable = if run.kept.is_empty() { String::new() } else { resumable };
            format!("{resumable}outhaul clean {word} removes it")
        }
    });
    words.join("\n")
}

/// `2 parts that nobody's manifest names, 1 upload`.
fn remains(left: &Remains) -> String {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let counts = [
        (count(left.visible.len()), "part", " without a manifest"),
        (count(left.uploads.len()), "open upload", ""),
        (left.staged, "staged file", ""),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, noun, more)| format!("{}{more}", human::plural(*count, noun)))
        .collect();
    if counts.is_empty() { "only records".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden::check;
    use crate::commit::test_data::{at, manifest};
    use crate::model::KeptSnapshot;

    const URL: &str = "s3://lake/orders/";
    const RUN: &str = "20261128T174427Z-9f3a2b1c";

    fn shown(manifest: Option<Manifest>) -> Shown {
        let manifest_url = format!("{URL}_manifest.json");
        Shown { destination: URL.into(), manifest_url, manifest, has_file: false, owner: None, runs: Vec::new() }
    }

    fn run(state: UnendedState) -> ShownRun {
        let kept = |snapshot: &str, seconds| KeptSnapshot {
            snapshot: snapshot.into(),
            until: at(seconds),
            host: "db-gate".into(),
            pid: 4242,
        };
        ShownRun {
            run_id: RUN.into(),
            state,
            begun_at: Some(at(0)),
            outhaul_version: Some("0.1.0".into()),
            relation: Some("public.orders".into()),
            partitions: Some(24),
            partitions_read: 4,
            kept: vec![kept("00000003-0000001B-1", 3600)],
            left: (state != UnendedState::Alive).then(|| Remains {
                visible: vec![format!("{URL}data/part-00000-000-9f3a2b1c.parquet")],
                uploads: vec!["upload 7 of …".into(), "upload 8 of …".into()],
                staged: 0,
            }),
        }
    }

    fn owner() -> ShownOwner {
        ShownOwner {
            run_id: RUN.into(),
            alive: true,
            epoch: 2,
            renewed_at: at(30),
            host: Some("worker-7".into()),
            pid: Some(12),
        }
    }

    /// Both forms of one destination.
    fn both(name: &str, shown: &Shown) {
        check(&format!("show/{name}.txt"), &format!("{}\n", text(shown)));
        let json: serde_json::Value = serde_json::to_value(as_json(shown).unwrap()).unwrap();
        check(
            &format!("show/{name}.json"),
            &format!("{:#}\n", serde_json::json!({"owner": json["owner"], "runs": json["runs"]})),
        );
        let parts = json["manifest"]["parts"].as_array().map(Vec::len);
        assert_eq!(parts, shown.manifest.as_ref().map(|manifest| manifest.parts.len()));
    }

    #[test]
    fn an_export_is_shown_as_it_was_shown() {
        both("truncated", &shown(Some(manifest())));
        let mut complete = manifest();
        complete.status = RunStatus::Complete;
        complete.row_cap.max_rows = None;
        complete.source.predicate = None;
        let part = complete.parts[0].clone();
        complete.parts.extend(std::iter::repeat_n(part, 9));
        complete.totals.parts = complete.parts.len().try_into().unwrap();
        both("complete", &shown(Some(complete)));
    }

    #[test]
    fn bytes_of_the_source_have_no_rows_and_no_columns() {
        let mut manifest = manifest();
        manifest.schema.clear();
        manifest.totals.rows = None;
        manifest.row_cap.max_rows = None;
        manifest.format.kind = crate::commit::model::FormatKind::Source;
        for part in &mut manifest.parts {
            part.rows = None;
        }
        let text = text(&shown(Some(manifest)));
        assert!(text.contains("\nbytes       ") && !text.contains(" row") && !text.contains("\ncolumns"), "{text}");
    }

    #[test]
    fn runs_that_have_not_ended_are_shown() {
        let alive = Shown { owner: Some(owner()), runs: vec![run(UnendedState::Alive)], ..shown(None) };
        both("at_work", &alive);
        let begun = Shown { owner: Some(owner()), ..shown(None) };
        both("just_begun", &begun);
        let unfinished = ShownRun { kept: Vec::new(), ..run(UnendedState::Unfinished) };
        let newer =
            ShownRun { partitions: None, relation: None, left: None, kept: Vec::new(), ..run(UnendedState::Newer) };
        both("died", &Shown { runs: vec![run(UnendedState::Dead), unfinished, newer], ..shown(None) });
    }
}
