//! The encoding of an answer on its way: the server compresses what it sends where it is asked to.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use crate::base::http::BodyCoding;

/// Compressed bytes that are unpacked at a time: what comes out of them is in memory at once.
const PIECE: usize = 4 * 1024;

/// Bytes that zstd unpacks at a time.
const ROOM: usize = 128 * 1024;

/// Unpacks one body.
pub(crate) enum Unpacker {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd { decoder: Box<Decoder<'static>>, at_end: bool },
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Gzip(_) => "Unpacker::Gzip",
            Self::Zstd { .. } => "Unpacker::Zstd",
        })
    }
}

impl Unpacker {
    /// # Errors
    /// zstd has no memory.
    pub(crate) fn new(coding: BodyCoding) -> io::Result<Self> {
        Ok(match coding {
            BodyCoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            BodyCoding::Zstd => Self::Zstd { decoder: Box::new(Decoder::new()?), at_end: true },
        })
    }

    /// Unpacks the next bytes, and hands on what comes out of each few of them.
    ///
    /// # Errors
    /// They are not what the answer says they are.
    pub(crate) fn unpack(&mut self, packed: &[u8], mut take: impl FnMut(Vec<u8>)) -> io::Result<()> {
        for piece in packed.chunks(PIECE) {
            match self {
                Self::Gzip(decoder) => {
                    decoder.write_all(piece)?;
                    take(std::mem::take(decoder.get_mut()));
                }
                Self::Zstd { decoder, at_end } => {
                    let mut input = InBuffer::around(piece);
                    loop {
                        let mut room = vec![0; ROOM];
                        let mut output = OutBuffer::around(room.as_mut_slice());
                        let left = decoder.run(&mut input, &mut output)?;
                        let written = output.pos();
                        room.truncate(written);
                        take(room);
                        *at_end = left == 0;
                        // A full room may not have been enough for what has been read.
                        if input.pos() == piece.len() && (written < ROOM || *at_end) {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What is left at the end.
    ///
    /// # Errors
    /// Something is missing.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => decoder.finish(),
            Self::Zstd { at_end: true, .. } => Ok(Vec::new()),
            Self::Zstd { at_end: false, .. } => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(coding: BodyCoding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            BodyCoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            BodyCoding::Zstd => zstd::stream::encode_all(bytes, 1).unwrap(),
        }
    }

    fn unpacked(coding: BodyCoding, pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut unpacker, mut out) = (Unpacker::new(coding)?, Vec::new());
        for piece in pieces {
            unpacker.unpack(piece, |bytes| out.extend_from_slice(&bytes))?;
        }
        out.extend(unpacker.finish()?);
        Ok(out)
    }

    #[test]
    fn what_was_packed_comes_out_again_however_it_is_cut() {
        let bytes: Vec<u8> = (0..400_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for coding in [BodyCoding::Gzip, BodyCoding::Zstd] {
            let packed = packed(coding, &bytes);
            assert!(packed.len() < bytes.len());
            assert_eq!(unpacked(coding, &[&packed]).unwrap(), bytes);
            let ones: Vec<&[u8]> = packed.chunks(1).collect();
            assert_eq!(unpacked(coding, &ones).unwrap(), bytes);
            // Empty answers.
            assert_eq!(unpacked(coding, &[&self::packed(coding, b"")]).unwrap(), b"");
            for cut in [1, packed.len() / 2, packed.len() - 1] {
                assert!(unpacked(coding, &[&packed[..cut]]).is_err(), "{coding:?} {cut}");
            }
            let mut wrong = packed.clone();
            wrong[0] ^= 1;
            assert!(unpacked(coding, &[&wrong]).is_err());
        }
    }
}
