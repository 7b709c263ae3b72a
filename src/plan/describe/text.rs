//! The text form of a [`PlanView`].

use std::fmt::{self, Write as _};

use chrono::SecondsFormat;
use indicatif::{HumanBytes, HumanCount};

use super::{ColumnView, KeyView, PartitionView, PlanView, ReadView, RelationView, value_words};
use crate::base::words::{counted, plural};
use crate::model::{
    CapPlan, Carrier, Direction, Member, Plan, Precision, RelationKind, RowOrder, RowsAvailable, SourceProfile, Wire,
};

/// Partitions that `outhaul plan` lists for people before it says how many more there are; the JSON form has all.
pub(super) const PARTITIONS_SHOWN_MAX: usize = 40;

impl fmt::Display for PlanView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "relation    {}", self.relation)?;
        if let Some(predicate) = self.predicate {
            writeln!(f, "where       {}", predicate.replace('\n', "\n            "))?;
        }
        if !self.key.is_empty() {
            let columns: Vec<String> = self.key.iter().map(KeyView::to_string).collect();
            writeln!(f, "key         {}", columns.join(", "))?;
        }
        if let Some(now) = self.now {
            writeln!(f, "now         {} for every reader", now.to_rfc3339_opts(SecondsFormat::Micros, true))?;
        }
        writeln!(f, "cap         {}", cap_words(self.row_cap))?;
        writeln!(f, "read        {}", self.read)?;
        if let Some(note) = &self.read.note {
            writeln!(f, "            {note}")?;
        }
        if self.read.locks.lock_table > 0 {
            writeln!(f, "locks       {}", self.read.locks)?;
        }
        if self.read.may_evict_bytes > 0 {
            let bytes = HumanBytes(self.read.may_evict_bytes);
            writeln!(f, "cache       block ranges may evict up to {bytes} of what the server has cached")?;
            if self.read.source_profile != SourceProfile::Gentle {
                writeln!(
                    f,
                    "            (--source-profile gentle reads each table in one pass, in a ring of 256 KiB)"
                )?;
            }
        } else if self.read.source_profile == SourceProfile::Gentle && self.key.is_empty() {
            writeln!(f, "cache       each table in one pass, in a ring of 256 KiB of the server's cache")?;
            writeln!(f, "            (a table below a quarter of shared_buffers is cached as a whole)")?;
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
            write!(f, "\n            {}", query.replace('\n', "\n            "))?;
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

impl fmt::Display for ReadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.page_size {
            None if self.consistency == "foreign" => write!(f, "COPY, foreign tables at the moment of each statement")?,
            None => write!(f, "COPY under one snapshot")?,
            Some(rows) => {
                write!(f, "keyset pages of {} {}, no common snapshot", HumanCount(rows), plural(rows, "row"))?;
            }
        }
        let (readers, connections) = (counted(self.readers, "reader"), counted(self.peak_connections, "connection"));
        write!(f, ", {readers}, {connections} at most")
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
        words.push_str(&value_words(boundary));
    }
    words
}

fn column_table(columns: &[ColumnView<'_>]) -> String {
    let head = ["name", "type", "sent as", "held as", "misfits", "note"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(columns.iter().map(column_cells)).collect();
    let width = |cell: usize| rows.iter().map(|row| row[cell].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "  {cell:width$}");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

fn column_cells(column: &ColumnView<'_>) -> [String; 6] {
    let wire = match column.wire {
        Wire::Binary => "binary",
        Wire::OutputText => "output text",
        Wire::JsonText => "JSON",
    };
    let null = if column.nullable { "" } else { " not null" };
    [
        column.name.to_owned(),
        format!("{}{null}", column.pg_type),
        wire.to_owned(),
        carrier_words(column.carrier),
        column.policy.to_owned(),
        column.note.unwrap_or_default().to_owned(),
    ]
}

fn carrier_words(carrier: &Carrier) -> String {
    let words = match carrier {
        Carrier::Decimal128 { precision, scale } | Carrier::Decimal256 { precision, scale } => {
            return format!("decimal({precision},{scale})");
        }
        Carrier::List(element) => return format!("list of {}", carrier_words(element)),
        Carrier::Struct(members) => {
            let member = |member: &Member| format!("{} {}", member.name, carrier_words(&member.carrier));
            return format!("struct({})", members.iter().map(member).collect::<Vec<_>>().join(", "));
        }
        Carrier::Timestamp { unit: Precision::Millis, utc: false } => "timestamp in milliseconds",
        Carrier::Timestamp { unit: Precision::Millis, utc: true } => "timestamp in UTC, in milliseconds",
        Carrier::Map => "map of text",
        Carrier::Bool => "bool",
        Carrier::Int16 => "int16",
        Carrier::Int32 => "int32",
        Carrier::Int64 => "int64",
        Carrier::Float32 => "float32",
        Carrier::Float64 => "float64",
        Carrier::NumberText => "number as text",
        Carrier::Text => "text",
        Carrier::Json => "JSON",
        Carrier::Bytes => "bytes",
        Carrier::Uuid => "uuid",
        Carrier::PgDate | Carrier::Date32 => "date",
        Carrier::PgTime | Carrier::Time64 => "time",
        Carrier::PgTimestamp | Carrier::Timestamp { unit: Precision::Micros, utc: false } => "timestamp",
        Carrier::PgTimestampTz | Carrier::Timestamp { unit: Precision::Micros, utc: true } => "timestamp in UTC",
    };
    words.to_owned()
}

impl Plan {
    /// What a person should know of rows that come from foreign tables.
    pub fn foreign_note(&self) -> Option<String> {
        let statements = self.foreign_statements()?;
        let tables = self.relation.reading.foreign.join(", ");
        Some(if statements > 1 {
            format!(
                "{statements} statements read the foreign tables {tables}, each at a moment of its own on the foreign \
                 server: rows that change there meanwhile may be missing or twice"
            )
        } else {
            format!(
                "one statement reads the foreign tables {tables}, at its moment on the foreign server and not under the \
                 snapshot"
            )
        })
    }
}
