//! Why a value could not be decoded.

use arrow::error::ArrowError;

use crate::plan::Carrier;
use crate::source::postgres::error::SourceFault;

/// An error of decoding. Rows are counted from 1 within the partition; values are quoted only where they are special
/// ones (`NaN`, `infinity`, `24:00:00`), never where they are a person's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The plan asks for something that cannot be done: a bug in planning.
    #[error("column {column:?}: no decoder for {pg_type} sent as {wire} into {carrier:?}")]
    NoDecoder {
        /// The output column.
        column: String,
        /// Its type.
        pg_type: String,
        /// How the server sends it.
        wire: &'static str,
        /// What it should become.
        carrier: Carrier,
    },
    /// A value, or the lack of one.
    #[error("column {column:?}, row {row} of the partition: {problem}")]
    Value {
        /// The output column.
        column: String,
        /// 1-based, within the partition.
        row: u64,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The framer's rows are not the plan's.
    #[error("rows of {found} fields where the plan has {expected} columns")]
    Columns {
        /// Columns of the plan.
        expected: usize,
        /// Fields of a framed row.
        found: usize,
    },
    /// Arrow refused the columns: a bug here.
    #[error("assembling a batch")]
    Arrow(#[from] ArrowError),
}

impl DecodeError {
    /// The class.
    pub(crate) fn fault(&self) -> SourceFault {
        match self {
            Self::Value { problem: Problem::Malformed(_) | Problem::Length { .. }, .. }
            | Self::NoDecoder { .. }
            | Self::Columns { .. }
            | Self::Arrow(_) => SourceFault::Protocol,
            Self::Value { .. } => SourceFault::Data,
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// A NULL where the plan has none.
    #[error("NULL in a column that is NOT NULL by the catalog")]
    Null,
    /// A value that the carrier cannot hold.
    #[error("{value} cannot be held by the column's type; --on-unrepresentable decides on such values")]
    Unrepresentable {
        /// The special value, or a description of the kind of value.
        value: &'static str,
    },
    /// Text that is not UTF-8, out of a `SQL_ASCII` database.
    #[error(
        "text that is not valid UTF-8; in a SQL_ASCII database --column 'name=convert_from(…)' can give its encoding"
    )]
    InvalidUtf8,
    /// More text than the 32-bit offsets of one batch can address.
    #[error("the text of one batch passes 2 GiB")]
    TooLarge,
    /// A fixed-width value of another width.
    #[error("{found} bytes where the type has {expected}")]
    Length {
        /// Bytes by the type.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// Bytes that the type's send function never makes.
    #[error("malformed value: {0}")]
    Malformed(&'static str),
}
