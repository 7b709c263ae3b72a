//! A plan for people (`outhaul plan`) and as JSON.

use std::fmt::{self, Write as _};
use std::ops::Bound;

use chrono::{DateTime, SecondsFormat, Utc};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{exit, human, printable};
use crate::base::words::{counted, key_words, plural, tuple_words};
use crate::export::show::{DestinationState, PlannedDestination};
use crate::model::{
    CapPlan, Carrier, ColumnOrigin, ColumnPlan, CommitOptions, Compression, Direction, Format, FormatOptions,
    KeyColumn, KeyRange, KeyValue, OnExisting, PartRange, Partition, Plan, ReadPlan, RelationKind, RowOrder,
    RowsAvailable, TupleId,
};

/// Partitions that `outhaul plan` lists for people before it says how many more there are; the JSON form has all.
pub(crate) const PARTITIONS_SHOWN_MAX: usize = 40;

/// A plan as `outhaul plan` shows it: serialized as JSON, or by `Display` as text.
///
/// Partition bounds are key values, so rows' values are in it: it is shown to who asked for it and logged nowhere.
#[derive(Debug, Serialize)]
pub(crate) struct PlanView<'a> {
    format: &'static str,
    plan_version: u32,
    exit_code: u8,
    retryable: bool,
    relation: RelationView<'a>,
    predicate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<DateTime<Utc>>,
    key: Vec<KeyView<'a>>,
    row_cap: &'a CapPlan,
    read: &'a ReadPlan,
    output: Format,
    /// The codec, and where the parts go; absent where nothing says where.
    #[serde(flatten)]
    writes: Option<WritesView<'a>>,
    columns: Vec<ColumnView<'a>>,
    partitions: Vec<PartitionView>,
}

/// How and where the parts are written.
#[derive(Debug, Serialize)]
struct WritesView<'a> {
    compression: Compression,
    destination: &'a PlannedDestination,
    /// Both for people.
    #[serde(skip)]
    words: [String; 2],
}

#[derive(Debug, Serialize)]
struct RelationView<'a> {
    kind: RelationKind,
    name: Option<&'a str>,
    query: Option<&'a str>,
    estimated_rows: Option<u64>,
    /// Without TOAST; absent where the leaves are not read directly.
    heap_bytes: Option<u64>,
    leaves: usize,
}

#[derive(Debug, Serialize)]
struct KeyView<'a> {
    name: &'a str,
    direction: Direction,
    nullable: bool,
}

#[derive(Debug, Serialize)]
struct ColumnView<'a> {
    name: &'a str,
    from: &'a ColumnOrigin,
    pg_type: &'a str,
    wire: &'a str,
    carrier: &'a Carrier,
    arrow_type: String,
    nullable: bool,
    policy: &'a str,
    note: Option<&'a str>,
    /// What the files have of it, where it is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<String>,
}

#[derive(Debug, Serialize)]
struct PartitionView {
    number: u32,
    /// In words.
    range: String,
    ordered: bool,
    row_limit: Option<u64>,
}

impl<'a> PlanView<'a> {
    pub(crate) fn new(plan: &'a Plan, output: Format) -> Self {
        let relation = &plan.relation;
        Self {
            format: "outhaul.plan",
            plan_version: 1,
            exit_code: exit::COMPLETE,
            retryable: false,
            relation: RelationView {
                kind: relation.kind,
                name: relation.name.as_deref(),
                query: relation.query.as_deref(),
                estimated_rows: relation.estimated_rows,
                heap_bytes: relation.estimated_bytes,
                leaves: relation.tables,
            },
            predicate: relation.predicate.as_deref(),
            now: plan.now,
            key: plan.key.iter().map(KeyView::new).collect(),
            row_cap: &plan.cap,
            read: &plan.read,
            output,
            writes: None,
            columns: plan.columns.iter().map(ColumnView::new).collect(),
            partitions: plan.partitions.iter().map(|partition| PartitionView::new(partition, &plan.key)).collect(),
        }
    }
}

impl<'a> PlanView<'a> {
    /// Says how and where the parts would be written, and what would become of what is there.
    pub(crate) fn writes(
        &mut self,
        plan: &Plan,
        format: &FormatOptions,
        destination: &'a PlannedDestination,
        commit: &CommitOptions,
    ) {
        let written = human::format(format.format, format.compression);
        let written = if commit.single_file { format!("one file of {written}") } else { written };
        let mut there = destination_words(destination, commit.on_existing, &commit.run_id);
        if let Some(who) = &destination.credentials {
            let _ = write!(there, "\ncredentials by {who}");
        }
        let written = commit.folders.iter().fold(written, |written, folders| {
            let levels: Vec<String> = folders.columns.iter().map(|column| format!("{column}=…/")).collect();
            format!("{written}\nin folders {}", levels.concat())
        });
        let words = [there, written];
        for (column, planned) in self.columns.iter_mut().zip(&plan.columns) {
            column.protection = commit.output_rules().protection(planned);
        }
        self.writes = Some(WritesView { compression: format.compression, destination, words });
    }
}

/// `s3://lake/orders/, free`.
fn destination_words(destination: &PlannedDestination, on_existing: OnExisting, our_run: &str) -> String {
    let becomes = match on_existing {
        OnExisting::Fail => "an export would stop with exit 22",
        OnExisting::Skip => "an export would leave it as it is",
        OnExisting::Replace => "an export would replace it",
    };
    let url = &destination.url;
    match &destination.state {
        DestinationState::Stream => "standard output".to_owned(),
        DestinationState::Free => format!("{url}, free"),
        DestinationState::AtWork(owner) => {
            let process = match (&owner.host, owner.pid) {
                (Some(host), Some(pid)) => format!(" (process {pid} on {host})"),
                _ => String::new(),
            };
            format!("{url}, taken\nrun {}{process} is at work there: an export would stop with exit 22", owner.run_id)
        }
        DestinationState::Committed { run_id, .. } if run_id == our_run => {
            format!("{url}, done\nrun {run_id} has committed: an export would report it")
        }
        DestinationState::Committed { run_id, at } => {
            let at = at.format("%Y-%m-%d %H:%M:%S UTC");
            format!("{url}, taken\nrun {run_id} committed there {at}: {becomes}")
        }
        DestinationState::Occupied => format!(
            "{url}, taken\na file without a manifest is there: {}",
            match on_existing {
                OnExisting::Replace => becomes,
                OnExisting::Fail | OnExisting::Skip => "an export would stop with exit 22",
            }
        ),
        DestinationState::IsFolder => {
            format!("{url}, taken\nthe folder of an earlier export has this name: an export would stop with exit 22")
        }
        DestinationState::Refused { why } => format!("{url}, taken\n{why}: an export would stop with exit 22"),
        DestinationState::Unknown { why } => format!("{url}\nwhat is there is not known: {why}"),
    }
}

impl<'a> KeyView<'a> {
    fn new(key: &'a KeyColumn) -> Self {
        Self { name: &key.name, direction: key.direction, nullable: key.nullable }
    }
}

impl<'a> ColumnView<'a> {
    fn new(column: &'a ColumnPlan) -> Self {
        Self {
            name: &column.name,
            from: &column.origin,
            pg_type: &column.type_name,
            wire: &column.sent_as,
            carrier: &column.carrier,
            arrow_type: column.carrier.read_type().to_string(),
            nullable: column.nullable,
            policy: &column.policy,
            note: column.note.as_deref(),
            protection: None,
        }
    }
}

impl PartitionView {
    fn new(partition: &Partition, key: &[KeyColumn]) -> Self {
        let Partition { number, range, ordered, row_limit, .. } = partition;
        Self { number: *number, range: range_words(range, key), ordered: *ordered, row_limit: row_limit.map(u64::from) }
    }
}

impl fmt::Display for PlanView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |label: &str, text: &str| writeln!(f, "{label:<12}{}", text.replace('\n', "\n            "));
        line("relation", &self.relation.to_string())?;
        if let Some(predicate) = self.predicate {
            line("where", predicate)?;
        }
        if !self.key.is_empty() {
            let columns: Vec<String> = self.key.iter().map(KeyView::to_string).collect();
            line("key", &columns.join(", "))?;
        }
        if let Some(now) = self.now {
            line("now", &format!("{} for every reader", now.to_rfc3339_opts(SecondsFormat::Micros, true)))?;
        }
        if let Some(WritesView { words: [destination, format], .. }) = &self.writes {
            line("to", destination)?;
            line("format", format)?;
        }
        line("cap", &cap_words(self.row_cap))?;
        for (label, text) in &self.read.lines {
            line(label, text)?;
        }
        writeln!(f, "\ncolumns     {}", self.columns.len())?;
        f.write_str(&column_table(&self.columns))?;
        writeln!(f, "\npartitions  {}", self.partitions.len())?;
        for partition in self.partitions.iter().take(PARTITIONS_SHOWN_MAX) {
            writeln!(f, "  {partition}")?;
        }
        if let Some(more @ 1..) = self.partitions.len().checked_sub(PARTITIONS_SHOWN_MAX) {
            writeln!(f, "  and {more} more; --report json shows all")?;
        }
        Ok(())
    }
}

impl fmt::Display for RelationView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RelationKind::Table => "table",
            RelationKind::PartitionedTable => "partitioned table",
            RelationKind::View => "view",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::ForeignTable => "foreign table",
            RelationKind::Query => "query",
        };
        match self.name {
            Some(name) => write!(f, "{name}, {kind}")?,
            None => write!(f, "{kind}")?,
        }
        if let Some(rows) = self.estimated_rows {
            write!(f, ", about {} {}", HumanCount(rows), plural(rows, "row"))?;
        }
        if let Some(bytes) = self.heap_bytes {
            write!(f, ", {} of heap", HumanBytes(bytes))?;
        }
        if self.leaves > 1 {
            write!(f, " in {} tables", self.leaves)?;
        }
        if let Some(query) = self.query {
            write!(f, "\n{query}")?;
        }
        Ok(())
    }
}

impl fmt::Display for KeyView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.direction == Direction::Desc {
            f.write_str(" desc")?;
        }
        if self.nullable {
            f.write_str(" (NULLs last)")?;
        }
        Ok(())
    }
}

impl fmt::Display for PartitionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5}  {}", self.number, self.range)?;
        if let Some(rows) = self.row_limit {
            write!(f, ", at most {} {}", HumanCount(rows), plural(rows, "row"))?;
        }
        if self.ordered {
            f.write_str(", in key order")?;
        }
        Ok(())
    }
}

/// Rows in words, for example `blocks 0 to 127 of public.orders` or `id from 10 to before 20`.
///
/// Key values are in it (invariant I9): show it only where they were asked for.
pub(crate) fn range_words(range: &PartRange, key: &[KeyColumn]) -> String {
    match range {
        PartRange::Whole => "all rows".to_owned(),
        PartRange::Heap { leaf, from, to } => heap_words(leaf, *from, *to),
        PartRange::Leaves { first, last, tables } => {
            format!("all of {}, {first} to {last}", counted(*tables, "table"))
        }
        PartRange::Keys(range) => key_range_words(range, key),
        PartRange::KeysWithheld => "a range of the key".to_owned(),
        PartRange::NullKeys => {
            format!("{} is NULL", key.first().map_or("the key", |column| column.name.as_str()))
        }
        PartRange::Other(kind) => kind.clone(),
    }
}

fn heap_words(table: &str, from: Option<TupleId>, to: Option<TupleId>) -> String {
    let first = |place: TupleId| match place.offset {
        0 | 1 => place.block.to_string(),
        offset => format!("{} (from row {offset})", place.block),
    };
    let last = |place: TupleId| match (place.offset, place.block.checked_sub(1)) {
        (0, Some(block)) => block.to_string(),
        (offset, _) => format!("{} (to row {})", place.block, offset.saturating_sub(1)),
    };
    match (from, to) {
        (None, None) => format!("all of {table}"),
        (Some(from), None) => format!("blocks from {} on of {table}", first(from)),
        (from, Some(to)) => {
            let first = from.map_or_else(|| "0".to_owned(), first);
            format!("blocks {first} to {} of {table}", last(to))
        }
    }
}

fn key_range_words(range: &KeyRange, key: &[KeyColumn]) -> String {
    let lower = match &range.lower {
        Bound::Unbounded => None,
        Bound::Included(value) => Some(("from", value)),
        Bound::Excluded(value) => Some(("after", value)),
    };
    let upper = match &range.upper {
        Bound::Unbounded => None,
        Bound::Included(value) => Some(("through", value)),
        Bound::Excluded(value) => Some(("to before", value)),
    };
    let compared = |(_, value): (&str, &KeyValue)| value.len();
    let width = lower.map(compared).max(upper.map(compared)).unwrap_or(key.len());
    let names: Vec<&str> = key.iter().take(width).map(|column| column.name.as_str()).collect();
    let mut words = tuple_words(&names);
    for (word, value) in [lower, upper].into_iter().flatten() {
        words = format!("{words} {word} {}", key_words(value));
    }
    match (lower, upper) {
        (None, None) => format!("every {words}"),
        (Some(_), None) => format!("{words} on"),
        (_, Some(_)) => words,
    }
}

fn cap_words(cap: &CapPlan) -> String {
    let tier = cap.tier.as_ref().map(|tier| format!(" (tier {tier})")).unwrap_or_default();
    let Some(max_rows) = cap.max_rows else {
        return format!("none{tier}");
    };
    let rows = HumanCount(max_rows.get());
    let mut words = format!("{rows} {}{tier}: ", plural(max_rows.get(), "row"));
    let order = match cap.order {
        RowOrder::Key => "in key order",
        RowOrder::Physical => "in the order of the heap",
        RowOrder::Unspecified => "in no particular order",
    };
    let effect = match (cap.truncated, cap.available) {
        _ if cap.by_reading => format!("the first {rows} {order}; reading shows whether there are more"),
        (true, _) => format!("truncated to the first {rows} {order}"),
        (false, RowsAvailable::Exact(all)) => format!("complete, there are {}", HumanCount(all)),
        (false, RowsAvailable::AtLeast(_)) => "complete".to_owned(),
        (false, RowsAvailable::Unknown) => format!("the first {rows} {order}, if there are more"),
    };
    words.push_str(&effect);
    if let Some(boundary) = &cap.boundary {
        words.push_str(", up to and including ");
        words.push_str(&key_words(boundary));
    }
    words
}

fn column_table(columns: &[ColumnView<'_>]) -> String {
    let head = ["name", "type", "sent as", "held as", "if a value does not fit", "note"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(columns.iter().map(column_cells)).collect();
    let width = |cell: usize| rows.iter().map(|row| printable::width(&row[cell])).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "  {}", printable::padded(cell, width));
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

fn column_cells(column: &ColumnView<'_>) -> [String; 6] {
    let null = if column.nullable { "" } else { " not null" };
    [
        column.name.to_owned(),
        format!("{}{null}", column.pg_type),
        column.wire.replace('_', " "),
        human::carrier(column.carrier),
        misfit_words(column.policy),
        match (&column.protection, column.note) {
            (Some(how), _) => format!("protected: {how}"),
            (None, note) => note.unwrap_or_default().to_owned(),
        },
    ]
}

/// What `error` does.
fn misfit_words(policy: &str) -> String {
    let word = |word| if word == "error" { "fail" } else { word };
    policy.split(", ").map(word).collect::<Vec<_>>().join(", ")
}
