//! The key by which an error names a row.

use std::fmt::Write;

use super::choose;
use super::column::may_fail;
use super::error::RowName;
use super::text::{TextWriter, text_writer};
use crate::source::postgres::frame::Field;
use crate::source::postgres::plan::oid;
use crate::source::postgres::plan::{PgColumn, PgKeyColumn, RowKeyColumn};

/// Characters of one value that an error shows: enough for a UUID or a name.
const SHOWN_MAX: usize = 64;

/// The most columns that a SELECT may have (`MaxTupleAttributeNumber` of `htup_details.h`).
const SELECT_MAX: usize = 1664;

/// Where the key's values stand in a framed row, and how they become text.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowKey {
    parts: Vec<KeyPart>,
    /// Columns of the relation that are read behind the plan's, only for errors.
    extra: Vec<String>,
}

#[derive(Debug, Clone)]
struct KeyPart {
    name: String,
    place: usize,
    write: TextWriter,
    shown: bool,
}

impl RowKey {
    /// The row key of a plan; columns that are not among the plan's are read beside them, but only where an error can
    /// come to need them. A column whose type has no text here is left out.
    pub(crate) fn new(columns: &[PgColumn], row_key: &[RowKeyColumn]) -> Self {
        let mut key = Self::default();
        let needed = columns.iter().any(may_fail);
        for column in row_key.iter().filter(|_| needed) {
            let Some(write) = writer(column) else { continue };
            // What is not shown need not be read, and may have no form in UTF-8.
            if !column.shown {
                key.parts.push(KeyPart { name: column.name.clone(), place: 0, write, shown: false });
                continue;
            }
            if column.place.is_none() && columns.len() + key.extra.len() >= SELECT_MAX {
                continue;
            }
            let place = column.place.unwrap_or_else(|| {
                key.extra.push(column.name.clone());
                columns.len() + key.extra.len() - 1
            });
            key.parts.push(KeyPart { name: column.name.clone(), place, write, shown: column.shown });
        }
        key
    }

    /// The row key where the columns of the plan's `key` are read behind its `columns` anyway, as text.
    pub(crate) fn of_pages(columns: &[PgColumn], row_key: &[RowKeyColumn], key: &[PgKeyColumn]) -> Self {
        let part = |column: &RowKeyColumn| {
            let paged = key.iter().position(|key| key.name == column.name);
            let (place, write) = match (column.place, paged) {
                (Some(place), _) => (place, writer(column)?),
                (None, Some(paged)) => (columns.len() + paged, text_writer(oid::TEXT)?),
                (None, None) => return None,
            };
            Some(KeyPart { name: column.name.clone(), place, write, shown: column.shown })
        };
        Self { parts: row_key.iter().filter_map(part).collect(), extra: Vec::new() }
    }

    /// Columns of the relation that are to be selected, in binary, behind the plan's.
    pub(crate) fn extra(&self) -> &[String] {
        &self.extra
    }

    /// The name of a row: by its key, else by `number`, counted from 1 in the partition.
    #[cold]
    pub(super) fn name(&self, input: &[u8], row: &[Field], number: u64) -> RowName {
        let mut name = String::new();
        for part in &self.parts {
            let Some(text) = row.get(part.place).and_then(|field| part.text(input, *field)) else {
                return RowName::Number(number);
            };
            let separator = if name.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(name, "{separator}{} = {text}", part.name);
        }
        if name.is_empty() { RowName::Number(number) } else { RowName::Key(name) }
    }
}

impl KeyPart {
    fn text(&self, input: &[u8], field: Field) -> Option<String> {
        if !self.shown {
            return Some(shown_part(false, ""));
        }
        if field.is_null() {
            return Some("NULL".to_owned());
        }
        let bytes = field.bytes(input)?;
        let mut text = Vec::new();
        (self.write)(bytes, &mut text).ok()?;
        Some(shown_part(true, &String::from_utf8_lossy(&text)))
    }
}

/// One value of a key as an error shows it, or that it does not.
pub(crate) fn shown_part(shown: bool, text: &str) -> String {
    if !shown {
        return "(not shown; --manifest-stats all shows it)".to_owned();
    }
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}

/// How a column's binary form becomes text; `None` is not at all.
fn writer(column: &RowKeyColumn) -> Option<TextWriter> {
    text_writer(if choose::is_text(&column.pg_type) { oid::TEXT } else { column.pg_type.base_oid })
}
