//! One [`ColumnPlan`] per output column: how its values travel from the server to the encoder.

use arrow::datatypes::{DataType, TimeUnit};
use serde::Serialize;

/// A PostgreSQL type as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PgType {
    /// The type's own OID (a domain's or an enum's included).
    pub oid: u32,
    /// The OID after every domain is resolved to its base type.
    pub base_oid: u32,
    /// `atttypmod` of the column, or of the domain that fixes it; `-1` in the catalog is `None` here.
    pub typmod: Option<i32>,
    /// What `format_type` prints, for example `numeric(12,2)`; safe to stand after `::` in SQL.
    pub name: String,
    /// Whether the base type is an enum.
    pub is_enum: bool,
}

/// Where a column's value comes from in the `SELECT` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnOrigin {
    /// A column of the relation, by its name in the catalog.
    Column(String),
    /// A person's SQL expression over the relation's columns (`--column name=expression`).
    Expression(String),
}

/// How a value is sent by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// The type's binary send function.
    Binary,
    /// The text of the type's output function; what `COPY … TO` in text form would show.
    OutputText,
    /// `to_json(value)::text`, for values that `row_to_json` writes as anything but a quoted output text.
    JsonText,
}

/// What a batch holds for this column and, with it, all that an encoder knows of the column's type.
///
/// The `Pg…` carriers keep PostgreSQL's own epoch (2000-01-01) and its infinities, which Arrow's logical types
/// cannot hold; only the text formats use them. Parquet uses the logical ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    /// Arrow `Timestamp(Microsecond)`, without a zone or in UTC.
    Timestamp {
        /// Whether the zone is UTC (`timestamptz`) rather than none (`timestamp`).
        utc: bool,
    },
}

impl Carrier {
    /// The Arrow type of the batch's column.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 | Self::PgDate => DataType::Int32,
            Self::Int64 | Self::PgTime | Self::PgTimestamp | Self::PgTimestampTz => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::NumberText | Self::Text | Self::Json => DataType::Utf8,
            Self::Decimal128 { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Bytes => DataType::Binary,
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Date32 => DataType::Date32,
            Self::Time64 => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp { utc: false } => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamp { utc: true } => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// What the server's statistics say of a column; steers dictionary and delta encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ColumnStatistics {
    /// `pg_stats.n_distinct`: positive is a count, negative a fraction of the rows.
    pub n_distinct: Option<f32>,
    /// `pg_stats.correlation` of the values with the heap's order, -1 to 1.
    pub correlation: Option<f32>,
    /// `pg_stats.avg_width` in bytes.
    pub avg_width: Option<i32>,
}

/// One output column: decided before anything is read, known to source and encoder alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnPlan {
    /// The name in the output, after `--rename`.
    pub name: String,
    /// Where the value comes from.
    pub origin: ColumnOrigin,
    /// The type in PostgreSQL.
    pub pg_type: PgType,
    /// How the server sends it.
    pub wire: Wire,
    /// How a batch holds it.
    pub carrier: Carrier,
    /// Whether a NULL can occur; `false` only where the catalog promises it.
    pub nullable: bool,
    /// The policy in force for values the carrier cannot hold, in the words of the flag that sets it.
    pub policy: &'static str,
    /// What a person should know of this column, for example "sent as its output text".
    pub note: Option<String>,
    /// The server's statistics, where there are any.
    pub statistics: ColumnStatistics,
}
