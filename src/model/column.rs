//! One [`ColumnPlan`] per output column: how its values reach the encoder, and what may be told of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde::{Deserialize, Serialize};

use super::Policies;

/// Where a column's value comes from in the `SELECT` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnOrigin {
    /// A column of the relation, by its name in the catalog.
    Column(String),
    /// A person's SQL expression over the relation's columns (`--column name=expression`).
    Expression(String),
}

impl ColumnOrigin {
    /// The column of the source; `None` for an expression.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Column(name) => Some(name),
            Self::Expression(_) => None,
        }
    }
}

/// What a batch holds for this column and, with it, all that an encoder knows of the column's type.
///
/// The `Pg…` carriers keep PostgreSQL's own epoch (2000-01-01) and its infinities, which Arrow's logical types
/// cannot hold; only the text formats use them. Parquet uses the logical ones, and only Parquet the nested ones: nested
/// values reach the text formats as the server's own text or JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// `bool`.
    Bool,
    /// `int2`.
    Int16,
    /// `int4`.
    Int32,
    /// `int8`, and `oid` widened.
    Int64,
    /// `float4`.
    Float32,
    /// `float8`.
    Float64,
    /// A number as PostgreSQL prints it, `NaN` and `Infinity` included: a bare number in NDJSON where it is finite.
    NumberText,
    /// `numeric(precision, scale)` with `scale <= precision <= 38`.
    Decimal128 {
        /// Decimal digits in all, 1 to 38.
        precision: u8,
        /// Decimal digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// `numeric(precision, scale)` with `scale <= precision`, beyond what [`Carrier::Decimal128`] holds.
    Decimal256 {
        /// Decimal digits in all, 39 to 76.
        precision: u8,
        /// Decimal digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// Text in UTF-8.
    Text,
    /// JSON text: embedded as it is, compacted, in NDJSON; a string elsewhere.
    Json,
    /// Bytes.
    Bytes,
    /// 16 bytes.
    Uuid,
    /// Days since 2000-01-01 as `Int32`; `i32::MIN` and `i32::MAX` are the infinities.
    PgDate,
    /// Microseconds since midnight as `Int64`, 24:00:00 included.
    PgTime,
    /// Microseconds since 2000-01-01 as `Int64`; `i64::MIN` and `i64::MAX` are the infinities.
    PgTimestamp,
    /// As [`Carrier::PgTimestamp`], in UTC.
    PgTimestampTz,
    /// Arrow `Date32`, days since 1970-01-01.
    Date32,
    /// Arrow `Time64(Microsecond)`.
    Time64,
    /// Arrow `Timestamp`, without a zone or in UTC.
    Timestamp {
        /// Its unit.
        unit: Precision,
        /// Whether the zone is UTC (`timestamptz`) rather than none (`timestamp`).
        utc: bool,
    },
    /// Arrow `List`, whose items are called `element` and may be NULL.
    List(Arc<Carrier>),
    /// Arrow `Struct`.
    Struct(Arc<[Member]>),
    /// Arrow `Map` of text to text, whose values may be NULL.
    Map,
}

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Milliseconds.
    Millis,
    /// Microseconds, PostgreSQL's own.
    Micros,
}

/// One member of a [`Carrier::Struct`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// How its values are held.
    pub carrier: Carrier,
    /// Whether it can be NULL in a struct that is not.
    pub nullable: bool,
}

impl Carrier {
    /// The Arrow type of the batch's column.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 | Self::PgDate => DataType::Int32,
            Self::Int64 | Self::PgTime | Self::PgTimestamp | Self::PgTimestampTz => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::NumberText | Self::Text | Self::Json => DataType::Utf8,
            // Half the bytes to write, compare and look up.
            Self::Decimal128 { precision: precision @ ..=18, scale } => DataType::Decimal64(*precision, *scale),
            Self::Decimal128 { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Decimal256 { precision, scale } => DataType::Decimal256(*precision, *scale),
            Self::Bytes => DataType::Binary,
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Date32 => DataType::Date32,
            Self::Time64 => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp { unit, utc } => {
                let unit = match unit {
                    Precision::Millis => TimeUnit::Millisecond,
                    Precision::Micros => TimeUnit::Microsecond,
                };
                DataType::Timestamp(unit, utc.then(|| "UTC".into()))
            }
            Self::List(element) => DataType::List(Arc::new(element.field(ELEMENT, true))),
            Self::Struct(members) => DataType::Struct(
                members.iter().map(|member| member.carrier.field(&member.name, member.nullable)).collect(),
            ),
            Self::Map => {
                let entry = [Self::Text.field(KEY, false), Self::Text.field(VALUE, true)];
                let entries = Field::new(ENTRIES, DataType::Struct(Fields::from_iter(entry)), false);
                DataType::Map(Arc::new(entries), false)
            }
        }
    }

    /// The Arrow type that a reader of the file sees: all decimals of up to 38 digits are of one.
    pub fn read_type(&self) -> DataType {
        fn read(held: &DataType) -> DataType {
            let field = |field: &Arc<Field>| field.as_ref().clone().with_data_type(read(field.data_type()));
            match held {
                DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
                DataType::List(element) => DataType::List(Arc::new(field(element))),
                DataType::Struct(members) => DataType::Struct(members.iter().map(field).collect()),
                other => other.clone(),
            }
        }
        read(&self.data_type())
    }

    /// The Arrow field of a column, an element or a member. A UUID is marked as one, which the Parquet writer turns
    /// into its own logical type.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.data_type(), nullable);
        match self {
            Self::Uuid => field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), "arrow.uuid".to_owned())])),
            _ => field,
        }
    }

    /// Whether the values are lists, structs or maps.
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::List(_) | Self::Struct(_) | Self::Map)
    }
}

/// What the Parquet specification calls the items of a list, and the parts of a map.
pub(crate) const ELEMENT: &str = "element";
pub(crate) const ENTRIES: &str = "key_value";
pub(crate) const KEY: &str = "key";
pub(crate) const VALUE: &str = "value";

/// The key under which Arrow names a field's extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";

/// What the server's statistics say of a column; steers dictionary and delta encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnStatistics {
    /// `pg_stats.n_distinct`: positive is a count, negative a fraction of the rows.
    pub n_distinct: Option<f32>,
    /// `pg_stats.correlation` of the values with the heap's order, -1 to 1.
    pub correlation: Option<f32>,
    /// `pg_stats.avg_width` in bytes.
    pub avg_width: Option<i32>,
}

/// One output column: decided before anything is read, known to source and encoder alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct ColumnPlan {
    /// The name in the output, after `--rename`.
    pub name: String,
    /// Where the value comes from.
    pub origin: ColumnOrigin,
    /// The type at the source, as the source prints it.
    pub type_name: String,
    /// How the source sends it, in a word of the source's own.
    pub sent_as: String,
    /// How a batch holds it.
    pub carrier: Carrier,
    /// Whether a NULL can occur; `false` only where the source promises it.
    pub nullable: bool,
    /// The choices in force for this column.
    pub policies: Policies,
    /// Those that matter to its type, in the words of the flags that set them; `lossless` where none does.
    pub policy: String,
    /// Whether values compared as they are held, texts and bytes byte by byte, stand in the source's order of the column:
    /// only then there is a least and a greatest of them.
    pub ordered: bool,
    /// Whether its values say nothing that a person wrote: numbers, moments and the like may stand in a manifest.
    pub may_show: bool,
    /// Whether it holds what somebody typed, which a spreadsheet may take for a formula.
    pub free_text: bool,
    /// Whether a policy writes every value otherwise than it would be without it; each is then counted as changed.
    pub rewritten: bool,
    /// Whether another format, or no policy, would write another text for a value: equal values would have other hashes there.
    #[serde(default)]
    pub text_varies: bool,
    /// The name that the source gives it, where that is another column's too and both are told apart by numbers.
    #[serde(default)]
    pub shared_name: Option<String>,
    /// What a person should know of this column, for example "sent as its output text".
    pub note: Option<String>,
    /// The source's statistics, where there are any.
    pub statistics: ColumnStatistics,
}
