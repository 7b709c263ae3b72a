//! The wire form of `parts`.

use std::fmt;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::WireError;
use crate::commit::model::PartEntry;
use crate::model::{ColumnSummary, FolderValue, KeyRange, KeyValue, TupleId};
use crate::model::{PartRange, micros};

/// A CRC64NVME as S3 writes it: base64 of the eight bytes, most significant first.
pub(crate) fn crc64nvme_text(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

fn crc64nvme_value(text: &str) -> Result<u64, WireError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| WireError::Value {
        field: "parts.crc64nvme",
        found: text.into(),
        reason: "it is the base64 of eight bytes",
    })
}

#[derive(Serialize, Deserialize)]
pub(super) struct WirePart {
    path: String,
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    bytes: u64,
    crc64nvme: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    partition: u32,
    roll: u32,
    attempt: String,
    range: WireRange,
    #[serde(default, skip_serializing_if = "WireValues::is_empty")]
    partition_values: WireValues,
    #[serde(with = "micros")]
    started_at: DateTime<Utc>,
    #[serde(with = "micros")]
    finished_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_rows: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<WireColumns>,
}

impl From<&PartEntry> for WirePart {
    fn from(part: &PartEntry) -> Self {
        Self {
            path: part.path.clone(),
            url: part.url.clone(),
            rows: part.rows,
            bytes: part.bytes,
            crc64nvme: crc64nvme_text(part.crc64nvme),
            sha256: part.sha256.clone(),
            partition: part.partition,
            roll: part.roll,
            attempt: format!("{:08x}", part.attempt),
            range: (&part.range).into(),
            partition_values: WireValues(part.partition_values.clone()),
            started_at: part.started_at,
            finished_at: part.finished_at,
            header_rows: part.rows.map(|_| part.header_rows),
            header_bytes: part.rows.map(|_| part.header_bytes),
            columns: part.rows.map(|_| WireColumns(part.columns.clone())),
        }
    }
}

impl TryFrom<WirePart> for PartEntry {
    type Error = WireError;

    fn try_from(wire: WirePart) -> Result<Self, WireError> {
        check_path(&wire.path)?;
        let attempt = u32::from_str_radix(&wire.attempt, 16).map_err(|_| WireError::Value {
            field: "parts.attempt",
            found: wire.attempt.clone(),
            reason: "it is eight hexadecimal digits",
        })?;
        // All of them stand for rows, or none does.
        let (header_rows, header_bytes, columns) = match (wire.rows, wire.header_rows, wire.header_bytes, wire.columns)
        {
            (Some(_), Some(lines), Some(bytes), Some(columns)) => (lines, bytes, columns.0),
            (None, None, None, None) => (0, 0, Vec::new()),
            _ => {
                return Err(WireError::Value {
                    field: "parts",
                    found: wire.path,
                    reason: "a part has rows, header_rows, header_bytes and columns, or none of them",
                });
            }
        };
        Ok(Self {
            crc64nvme: crc64nvme_value(&wire.crc64nvme)?,
            path: wire.path,
            url: wire.url,
            rows: wire.rows,
            bytes: wire.bytes,
            sha256: wire.sha256,
            partition: wire.partition,
            roll: wire.roll,
            attempt,
            range: wire.range.try_into()?,
            partition_values: wire.partition_values.0,
            started_at: wire.started_at,
            finished_at: wire.finished_at,
            header_rows,
            header_bytes,
            columns,
        })
    }
}

/// A manifest read back decides what is deleted when it is replaced, so a path must stay below the destination and
/// must not be one of the program's own files.
fn check_path(path: &str) -> Result<(), WireError> {
    let own = ["_outhaul", "_redshift", "_symlink_format_manifest", "_ddl", "_manifest.json", "_SUCCESS"];
    let mut segments = path.split('/');
    let first = segments.clone().next().unwrap_or_default();
    if segments.any(|segment| matches!(segment, "" | "." | "..")) || path.contains('\\') || own.contains(&first) {
        return Err(WireError::Value {
            field: "parts.path",
            found: path.into(),
            reason: "a part lies below the destination, outside the program's own files",
        });
    }
    Ok(())
}

/// An object with one member a column, in the columns' order.
struct WireColumns(Vec<ColumnSummary>);

#[derive(Serialize, Deserialize)]
struct WireColumn {
    nulls: u64,
    min: Option<String>,
    max: Option<String>,
    exact: bool,
}

impl Serialize for WireColumns {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|column| {
            let ColumnSummary { name, nulls, min, max, exact, changed: _ } = column;
            (name, WireColumn { nulls: *nulls, min: min.clone(), max: max.clone(), exact: *exact })
        }))
    }
}

impl<'de> Deserialize<'de> for WireColumns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = WireColumns;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object with one member a column")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireColumns, A::Error> {
                let mut columns = Vec::new();
                while let Some((name, WireColumn { nulls, min, max, exact })) = map.next_entry()? {
                    columns.push(ColumnSummary { name, nulls, min, max, exact, changed: 0 });
                }
                Ok(WireColumns(columns))
            }
        }

        from.deserialize_map(Columns)
    }
}

/// An object with one member a folder, from the outside in.
#[derive(Default)]
struct WireValues(Vec<FolderValue>);

impl WireValues {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for WireValues {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|folder| (&folder.column, &folder.value)))
    }
}

impl<'de> Deserialize<'de> for WireValues {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = WireValues;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object with one member a folder")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireValues, A::Error> {
                let mut values = Vec::new();
                while let Some((column, value)) = map.next_entry()? {
                    values.push(FolderValue { column, value });
                }
                Ok(WireValues(values))
            }
        }

        from.deserialize_map(Values)
    }
}

/// Heap places are written as PostgreSQL prints a `ctid`, so that a person can paste them.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum WireRange {
    Whole,
    Heap {
        leaf: String,
        from: Option<String>,
        to: Option<String>,
    },
    Leaves {
        first: String,
        last: String,
        tables: u64,
    },
    Keys {
        lower: Option<WireBound>,
        upper: Option<WireBound>,
        #[serde(default)]
        withheld: bool,
    },
    NullKeys,
    /// Last: what none of the others is.
    #[serde(untagged)]
    Other(OtherRange),
}

/// A range of a kind that this version does not know. Its other members are nobody's here.
#[derive(Serialize, Deserialize)]
struct OtherRange {
    kind: String,
}

/// The kinds that this version knows: one of these in [`WireRange::Other`] lacks a member.
const KNOWN_RANGES: [&str; 4] = ["whole", "heap", "keys", "null_keys"];

/// Where a key range ends; an open end is `null`.
#[derive(Serialize, Deserialize)]
struct WireBound {
    values: KeyValue,
    inclusive: bool,
}

impl From<&PartRange> for WireRange {
    fn from(range: &PartRange) -> Self {
        match range {
            PartRange::Whole => Self::Whole,
            PartRange::Heap { leaf, from, to } => {
                Self::Heap { leaf: leaf.clone(), from: from.map(ctid_text), to: to.map(ctid_text) }
            }
            PartRange::Leaves { first, last, tables } => {
                Self::Leaves { first: first.clone(), last: last.clone(), tables: *tables }
            }
            PartRange::Keys(KeyRange { lower, upper }) => {
                Self::Keys { lower: wire_bound(lower), upper: wire_bound(upper), withheld: false }
            }
            PartRange::KeysWithheld => Self::Keys { lower: None, upper: None, withheld: true },
            PartRange::NullKeys => Self::NullKeys,
            PartRange::Other(kind) => Self::Other(OtherRange { kind: kind.clone() }),
        }
    }
}

impl TryFrom<WireRange> for PartRange {
    type Error = WireError;

    fn try_from(wire: WireRange) -> Result<Self, WireError> {
        Ok(match wire {
            WireRange::Whole => Self::Whole,
            WireRange::Heap { leaf, from, to } => Self::Heap {
                leaf,
                from: from.as_deref().map(ctid_value).transpose()?,
                to: to.as_deref().map(ctid_value).transpose()?,
            },
            WireRange::Leaves { first, last, tables } => Self::Leaves { first, last, tables },
            WireRange::Keys { withheld: true, .. } => Self::KeysWithheld,
            WireRange::Keys { lower, upper, withheld: false } => {
                Self::Keys(KeyRange { lower: model_bound(lower), upper: model_bound(upper) })
            }
            WireRange::NullKeys => Self::NullKeys,
            WireRange::Other(OtherRange { kind }) if KNOWN_RANGES.contains(&kind.as_str()) => {
                return Err(WireError::Value {
                    field: "parts.range",
                    found: kind,
                    reason: "a member of this kind of range is missing or of another type",
                });
            }
            WireRange::Other(OtherRange { kind }) => Self::Other(kind),
        })
    }
}

fn wire_bound(bound: &Bound<KeyValue>) -> Option<WireBound> {
    match bound {
        Bound::Unbounded => None,
        Bound::Included(values) => Some(WireBound { values: values.clone(), inclusive: true }),
        Bound::Excluded(values) => Some(WireBound { values: values.clone(), inclusive: false }),
    }
}

fn model_bound(bound: Option<WireBound>) -> Bound<KeyValue> {
    match bound {
        None => Bound::Unbounded,
        Some(WireBound { values, inclusive: true }) => Bound::Included(values),
        Some(WireBound { values, inclusive: false }) => Bound::Excluded(values),
    }
}

fn ctid_text(TupleId { block, offset }: TupleId) -> String {
    format!("({block},{offset})")
}

fn ctid_value(text: &str) -> Result<TupleId, WireError> {
    let parsed = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once(','));
    parsed
        .and_then(|(block, offset)| Some(TupleId { block: block.parse().ok()?, offset: offset.parse().ok()? }))
        .ok_or_else(|| WireError::Value {
            field: "parts.range",
            found: text.into(),
            reason: "a place in a heap is written (block,offset)",
        })
}
