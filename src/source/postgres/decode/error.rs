//! Why a value could not be decoded.

use std::fmt;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::loops::DecodeFailure;
use crate::base::words::counted;
use crate::model::Carrier;
use crate::model::policy::written;
use crate::source::SourceFault;
use crate::source::postgres::plan::PgColumn;

/// An error of decoding. Values are quoted only where they are special ones (`NaN`, `infinity`, `24:00:00`), never where
/// they are a person's; the row's key as far as it may be shown.
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
    #[error(transparent)]
    Value(Box<ValueError>),
    /// The framer's rows are not the plan's.
    #[error("rows of {} where the plan has {}", counted(*.found, "field"), counted(*.expected, "column"))]
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
    /// The sentence with what to do.
    #[cfg(test)]
    pub(super) fn whole(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self}; {hint}"))
    }

    /// What to do, where it is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Value(error) => error.hint(),
            Self::NoDecoder { .. } | Self::Columns { .. } | Self::Arrow(_) => None,
        }
    }

    /// The class.
    pub(crate) fn fault(&self) -> SourceFault {
        match self {
            Self::Value(error) if !matches!(error.problem, Problem::Malformed(_) | Problem::Length { .. }) => {
                SourceFault::Data
            }
            Self::Value(_) | Self::NoDecoder { .. } | Self::Columns { .. } | Self::Arrow(_) => SourceFault::Protocol,
        }
    }
}

/// Which row of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowName {
    /// By its key, as `id = 5`.
    Key(String),
    /// By its number in the partition, from 1.
    Number(u64),
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "row with {key}"),
            Self::Number(number) => write!(f, "row {number} of the partition"),
        }
    }
}

/// A value that could not be decoded: column, row, what is wrong with it and which flag decides.
#[derive(Debug)]
pub(crate) struct ValueError {
    column: String,
    pg_type: String,
    row: RowName,
    problem: Problem,
    /// What the value, or the part of it that failed, was to become.
    target: String,
}

impl ValueError {
    #[cold]
    pub(super) fn new(plan: &PgColumn, row: RowName, failure: DecodeFailure) -> Self {
        Self {
            column: plan.output.name.clone(),
            pg_type: plan.pg_type.name.clone(),
            row,
            problem: failure.problem,
            target: failure.target.unwrap_or_else(|| target(&plan.output.carrier)),
        }
    }
}

impl std::error::Error for ValueError {}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, pg_type, row, problem, target } = self;
        write!(f, "column {column:?} ({pg_type}), {row}: {problem}")?;
        match problem {
            Problem::Unrepresentable { .. } | Problem::TooFine => write!(f, " cannot be written as {target}"),
            Problem::NoJsonNumber { .. } => f.write_str(" is no number in JSON"),
            Problem::InvalidUtf8
            | Problem::Null
            | Problem::TooLarge
            | Problem::Length { .. }
            | Problem::Malformed(_) => Ok(()),
        }
    }
}

impl ValueError {
    /// Which flag decides.
    fn hint(&self) -> Option<String> {
        let policy = || written(&self.column, "null");
        Some(match self.problem {
            Problem::Unrepresentable { .. } => {
                format!("choose with --on-unrepresentable null|text or --column-policy {}", policy())
            }
            Problem::TooFine => "--timestamp-precision ms rounds it, us keeps it, or choose with --on-unrepresentable \
                                 null|text"
                .to_owned(),
            Problem::NoJsonNumber { .. } => {
                format!("choose with --json-nan string|null or --column-policy {}", policy())
            }
            Problem::InvalidUtf8 => {
                "in a SQL_ASCII database choose with --invalid-utf8 replace|bytes, or give its encoding, \
                 as in --column \"name=convert_from(convert(convert_to(column, 'SQL_ASCII'), 'LATIN1', 'UTF8'), \
                 'SQL_ASCII')\""
                    .to_owned()
            }
            Problem::Null | Problem::TooLarge | Problem::Length { .. } | Problem::Malformed(_) => return None,
        })
    }
}

/// What values become, for people.
pub(super) fn target(carrier: &Carrier) -> String {
    match carrier {
        Carrier::List(_) => "a list".to_owned(),
        Carrier::Struct(_) => "a struct".to_owned(),
        Carrier::Map => "a map".to_owned(),
        scalar => scalar_words(&scalar.read_type()),
    }
}

fn scalar_words(target: &DataType) -> String {
    let words = match target {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            return format!("decimal({precision},{scale})");
        }
        DataType::Date32 | DataType::Date64 => "a Parquet date",
        DataType::Timestamp(..) => "a Parquet timestamp",
        DataType::Time32(_) | DataType::Time64(_) => "a Parquet time of day",
        DataType::Boolean => "a boolean",
        DataType::Float32 | DataType::Float64 => "a floating-point number",
        number if number.is_integer() => "an integer",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        _ => "bytes",
    };
    words.to_owned()
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// A NULL where the plan has none.
    #[error("NULL in a column that is NOT NULL by the catalog")]
    Null,
    /// A value that the carrier cannot hold.
    #[error("{value}")]
    Unrepresentable {
        /// The special value, or a description of the kind of value.
        value: &'static str,
    },
    /// A timestamp with microseconds where only milliseconds are wanted; unrepresentable too.
    #[error("a timestamp finer than milliseconds")]
    TooFine,
    /// A number that JSON has no number for, where it is not to be a string.
    #[error("{value}")]
    NoJsonNumber {
        /// By its name in PostgreSQL.
        value: &'static str,
    },
    /// Text that is not UTF-8, out of a `SQL_ASCII` database.
    #[error("text that is not valid UTF-8")]
    InvalidUtf8,
    /// More than the 32-bit offsets of one batch can address, in a single row: see [`super::BLOCK_BYTES_MAX`].
    #[error("the value takes more than 2 GiB as it is to be written")]
    TooLarge,
    /// A fixed-width value of another width.
    #[error("{} where the type has {expected}", counted(*.found, "byte"))]
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
