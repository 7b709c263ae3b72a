//! Column chunks of Parquet that are written here rather than by the Parquet crate: by places in a dictionary where values
//! repeat, else by differences of integers, or by the lengths of texts in front of their bytes.
//!
//! The crate writes them, too, and writes all columns that are not for this module: nested ones, floats, and chunks whose
//! dictionary grows too large. But it takes each value in hand several times: for its level, for the least and the greatest,
//! for a hash, for its encoding. Here an integer costs a subtraction and a text a comparison of eight bytes; texts without
//! NULLs are copied as one piece. That is a fifth of the time of a whole export.
//!
//! What is written follows the format's specification (`Encodings.md`) and is of its version 1.

mod deltas;
mod dictionary;
mod direct;
mod hybrid;
mod pages;
mod table;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use crate::model::Carrier;
use dictionary::DictionaryChunk;
use direct::DirectChunk;
pub(super) use pages::PageCodec;

/// Rows of a data page, as in the Parquet crate: readers skip by pages.
const PAGE_ROWS: usize = 20_000;

/// How a column is written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnWay {
    /// `RLE_DICTIONARY`.
    Dictionary,
    /// `DELTA_BINARY_PACKED`; with the codec where differences get shorter by it.
    Deltas { compressed: bool },
    /// `DELTA_LENGTH_BYTE_ARRAY`.
    Lengths,
}

/// One column of a row group as it fills.
pub(super) enum ColumnChunk {
    Dictionary(Box<DictionaryChunk>),
    Direct(Box<DirectChunk>),
}

/// Whether columns of this carrier can be written here.
pub(super) fn is_for(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Decimal128 { precision, .. } => *precision <= 18,
        Carrier::Int16
        | Carrier::Int32
        | Carrier::Int64
        | Carrier::Date32
        | Carrier::Time64
        | Carrier::Timestamp { .. }
        | Carrier::Text
        | Carrier::Json
        | Carrier::NumberText
        | Carrier::Bytes => true,
        _ => false,
    }
}

impl ColumnChunk {
    /// An empty chunk for about so many `rows` of `data_type`, that of a carrier that [is for](is_for) this module.
    pub(super) fn new(way: OwnWay, data_type: &DataType, column: &ColumnDescPtr, rows: usize) -> Self {
        match way {
            OwnWay::Dictionary => Self::Dictionary(Box::new(DictionaryChunk::new(data_type.clone(), rows))),
            OwnWay::Deltas { compressed } => Self::Direct(Box::new(DirectChunk::new(data_type, column, compressed))),
            OwnWay::Lengths => Self::Direct(Box::new(DirectChunk::new(data_type, column, true))),
        }
    }

    /// Takes in an array. False where its values are too many or too long for a dictionary: then nothing of it was
    /// taken in, and the chunk is good only for [`Self::into_arrays`].
    ///
    /// # Errors
    /// The compressor fails, or a size is beyond the format's 32 bits.
    pub(super) fn push(&mut self, array: &ArrayRef, codec: &mut PageCodec) -> Result<bool, ParquetError> {
        match self {
            Self::Dictionary(chunk) => Ok(chunk.push(array)),
            Self::Direct(chunk) => chunk.push(array, codec).map(|()| true),
        }
    }

    /// Bytes of the chunk so far; of a dictionary's before compression.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dictionary(chunk) => chunk.bytes(),
            Self::Direct(chunk) => chunk.bytes(),
        }
    }

    /// Bytes of memory that the chunk takes, about.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Dictionary(chunk) => chunk.held(),
            Self::Direct(chunk) => chunk.bytes(),
        }
    }

    /// What a dictionary that has grown too large has taken in, as arrays of some rows each.
    ///
    /// # Errors
    /// None that anybody has seen: pages are never asked for this.
    pub(super) fn into_arrays(self) -> Result<impl Iterator<Item = Result<ArrayRef, ParquetError>>, ParquetError> {
        match self {
            Self::Dictionary(chunk) => Ok(chunk.into_arrays()),
            Self::Direct(_) => Err(ParquetError::General("pages are no arrays (a bug)".to_owned())),
        }
    }

    /// Writes the chunk: its bytes, and what the footer says of it.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn close(
        self,
        column: &ColumnDescPtr,
        codec: &mut PageCodec,
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        match self {
            Self::Dictionary(chunk) => chunk.close(column, codec),
            Self::Direct(chunk) => chunk.close(codec),
        }
    }
}

#[cfg(test)]
mod tests;
