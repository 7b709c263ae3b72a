//! gzip members and zstd frames around the text formats. One context serves all frames of a part.

use std::io;

use flate2::{FlushCompress, Status};
use zstd::stream::raw::{CParameter, InBuffer, Operation, OutBuffer};

use super::EncodeError;
use crate::model::{Compression, Format};

/// Free space offered to a compressor at each call.
const OUTPUT_STEP: usize = 32 * 1024;

/// log2 of gzip's window of 32 KiB.
const GZIP_WINDOW_BITS: u8 = 15;

/// A compressor between two frames or inside one.
pub(crate) enum Compressor {
    Gzip(flate2::Compress),
    Zstd(Box<zstd::stream::raw::Encoder<'static>>),
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Compressor {
    /// The compressor of a text format; `None` where the text stays as it is.
    ///
    /// # Errors
    /// A codec that exists only inside Parquet, or a level that the codec does not have.
    pub(crate) fn new(compression: Compression, format: Format) -> Result<Option<Self>, EncodeError> {
        let inside_parquet_only = |codec| EncodeError::CodecOfParquet { codec, format };
        match compression {
            Compression::None => Ok(None),
            Compression::Snappy => Err(inside_parquet_only("snappy")),
            Compression::Lz4 => Err(inside_parquet_only("lz4")),
            Compression::Gzip(level @ 0..=9) => {
                let level = flate2::Compression::new(level);
                Ok(Some(Self::Gzip(flate2::Compress::new_gzip(level, GZIP_WINDOW_BITS))))
            }
            Compression::Gzip(level) => Err(gzip_error(no_such_level(level))),
            Compression::Zstd(level @ 1..=22) => {
                let mut encoder = zstd::stream::raw::Encoder::new(level).map_err(zstd_error)?;
                encoder.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
                Ok(Some(Self::Zstd(Box::new(encoder))))
            }
            Compression::Zstd(level) => Err(zstd_error(no_such_level(level))),
        }
    }

    /// Compresses all of `input` into the current frame, which begins here where none is open.
    ///
    /// # Errors
    /// The compressor's own; the part is lost.
    pub(crate) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Gzip(stream) => {
                let mut rest = input;
                while !rest.is_empty() {
                    out.reserve(OUTPUT_STEP);
                    let before = stream.total_in();
                    stream.compress_vec(rest, out, FlushCompress::None).map_err(|error| gzip_error(error.into()))?;
                    let consumed =
                        usize::try_from(stream.total_in() - before).ok().and_then(|consumed| rest.get(consumed..));
                    rest = consumed.ok_or_else(|| gzip_error(io::ErrorKind::InvalidData.into()))?;
                }
            }
            Self::Zstd(stream) => {
                let mut input = InBuffer::around(input);
                while input.pos() < input.src.len() {
                    out.reserve(OUTPUT_STEP);
                    let filled = out.len();
                    stream.run(&mut input, &mut OutBuffer::around_pos(out, filled)).map_err(zstd_error)?;
                }
            }
        }
        Ok(())
    }

    /// Gives out all that the current frame holds back, so that its reader has everything up to here.
    ///
    /// # Errors
    /// As [`Compressor::write`].
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Gzip(stream) => loop {
                out.reserve(OUTPUT_STEP);
                stream.compress_vec(&[], out, FlushCompress::Sync).map_err(|error| gzip_error(error.into()))?;
                // Where there is room left, nothing waits for any.
                if out.len() < out.capacity() {
                    return Ok(());
                }
            },
            Self::Zstd(stream) => loop {
                out.reserve(OUTPUT_STEP);
                let filled = out.len();
                let left = stream.flush(&mut OutBuffer::around_pos(out, filled)).map_err(zstd_error)?;
                if left == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// Ends the current frame, or makes an empty one where none is open.
    ///
    /// # Errors
    /// As [`Compressor::write`].
    pub(crate) fn end_frame(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Gzip(stream) => loop {
                out.reserve(OUTPUT_STEP);
                let status =
                    stream.compress_vec(&[], out, FlushCompress::Finish).map_err(|error| gzip_error(error.into()))?;
                if status == Status::StreamEnd {
                    stream.reset();
                    return Ok(());
                }
            },
            Self::Zstd(stream) => loop {
                out.reserve(OUTPUT_STEP);
                let filled = out.len();
                let left = stream.finish(&mut OutBuffer::around_pos(out, filled), true).map_err(zstd_error)?;
                if left == 0 {
                    return stream.reinit().map_err(zstd_error);
                }
            },
        }
    }
}

fn no_such_level(level: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("there is no level {level}"))
}

fn gzip_error(source: io::Error) -> EncodeError {
    EncodeError::Compress { codec: "gzip", source }
}

fn zstd_error(source: io::Error) -> EncodeError {
    EncodeError::Compress { codec: "zstd", source }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpacked(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match compression {
            Compression::Gzip(_) => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap(),
            _ => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).unwrap(),
        };
        text
    }

    #[test]
    fn frames_of_one_context_stand_alone_and_join() {
        let long: Vec<u8> =
            (0_u32..200_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for compression in [Compression::Gzip(0), Compression::Gzip(6), Compression::Zstd(1), Compression::Zstd(19)] {
            let mut compressor = Compressor::new(compression, Format::Csv).unwrap().unwrap();
            let mut out = Vec::new();
            let mut ends = vec![0];
            for text in [b"header\n".as_slice(), &long, b"", b"tail"] {
                compressor.write(text, &mut out).unwrap();
                compressor.end_frame(&mut out).unwrap();
                ends.push(out.len());
            }
            let frames: Vec<Vec<u8>> =
                ends.windows(2).map(|ends| unpacked(compression, &out[ends[0]..ends[1]])).collect();
            assert_eq!(frames, [b"header\n".to_vec(), long.clone(), Vec::new(), b"tail".to_vec()]);
            assert_eq!(unpacked(compression, &out), frames.concat());
        }
    }

    #[test]
    fn codecs_and_levels_that_text_has_not_are_refused() {
        for compression in
            [Compression::Snappy, Compression::Lz4, Compression::Gzip(10), Compression::Zstd(0), Compression::Zstd(23)]
        {
            assert!(Compressor::new(compression, Format::Ndjson).is_err(), "{compression:?}");
        }
        assert!(Compressor::new(Compression::None, Format::Csv).unwrap().is_none());
    }
}
