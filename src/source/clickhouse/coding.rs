//! The encoding of an answer on its way: the server compresses what it sends where it is asked to.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use crate::base::http::BodyCoding;

/// Compressed bytes that are unpacked at a time: what comes out of them is in memory at once.
const PIECE: usize = 4 * 1024;

/// Bytes that are unpacked at a time.
const ROOM: usize = 128 * 1024;

/// What has come of a body and is not unpacked yet: to its reader a connection that has nothing more for the moment.
#[derive(Debug, Default)]
pub(crate) struct PackedBytes {
    bytes: Vec<u8>,
    at: usize,
    over: bool,
}

impl BufRead for PackedBytes {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.bytes.get(self.at..) {
            Some(rest) if !rest.is_empty() || self.over => Ok(rest),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }
}

impl Read for PackedBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

/// Unpacks one body.
pub(crate) enum Unpacker {
    Gzip(Box<MultiGzDecoder<PackedBytes>>),
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
            BodyCoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(PackedBytes::default()))),
            BodyCoding::Zstd => Self::Zstd { decoder: Box::new(Decoder::new()?), at_end: false },
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
                    let arrived = decoder.get_mut();
                    arrived.bytes.drain(..arrived.at.min(arrived.bytes.len()));
                    arrived.at = 0;
                    arrived.bytes.extend_from_slice(piece);
                    read(decoder, &mut take)?;
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

    /// Hands on what is left at the end, however the body ended.
    ///
    /// # Errors
    /// Something is missing.
    pub(crate) fn finish(self, mut take: impl FnMut(Vec<u8>)) -> io::Result<()> {
        match self {
            Self::Gzip(mut decoder) => {
                decoder.get_mut().over = true;
                read(&mut decoder, &mut take)
            }
            Self::Zstd { at_end: true, .. } => Ok(()),
            Self::Zstd { at_end: false, .. } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads as far as bytes have come.
fn read(decoder: &mut MultiGzDecoder<PackedBytes>, take: &mut impl FnMut(Vec<u8>)) -> io::Result<()> {
    loop {
        let mut room = vec![0; ROOM];
        match decoder.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                room.truncate(read);
                take(room);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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

    /// An encoder that has not ended.
    enum Encoding {
        Gzip(flate2::write::GzEncoder<Vec<u8>>),
        Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    }

    impl Encoding {
        fn new(coding: BodyCoding) -> Self {
            match coding {
                BodyCoding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast())),
                BodyCoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap()),
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            match self {
                Self::Gzip(encoder) => encoder.write_all(bytes).and_then(|()| encoder.flush()).unwrap(),
                Self::Zstd(encoder) => encoder.write_all(bytes).and_then(|()| encoder.flush()).unwrap(),
            }
        }

        fn written(&self) -> Vec<u8> {
            match self {
                Self::Gzip(encoder) => encoder.get_ref().clone(),
                Self::Zstd(encoder) => encoder.get_ref().clone(),
            }
        }
    }

    fn unpacked(coding: BodyCoding, pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut unpacker, mut out) = (Unpacker::new(coding)?, Vec::new());
        for piece in pieces {
            unpacker.unpack(piece, |bytes| out.extend_from_slice(&bytes))?;
        }
        unpacker.finish(|bytes| out.extend_from_slice(&bytes))?;
        Ok(out)
    }

    #[test]
    fn what_has_come_is_handed_on_though_the_end_is_missing() {
        let rows: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let message = b"Code: 395. DB::Exception: no";
        for coding in [BodyCoding::Gzip, BodyCoding::Zstd] {
            for before in [rows.as_slice(), b""] {
                let mut encoder = Encoding::new(coding);
                encoder.write(before);
                encoder.write(message);
                let (mut unpacker, mut out) = (Unpacker::new(coding).unwrap(), Vec::new());
                for piece in encoder.written().chunks(7_919) {
                    unpacker.unpack(piece, |bytes| out.extend_from_slice(&bytes)).unwrap();
                }
                assert!(unpacker.finish(|bytes| out.extend_from_slice(&bytes)).is_err(), "{coding:?}");
                assert!(out.starts_with(before) && out.ends_with(message), "{coding:?}: {} bytes", out.len());
            }
        }
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
            assert!(unpacked(coding, &[]).is_err(), "{coding:?}: nothing at all is packed as something");
            let mut wrong = packed.clone();
            wrong[0] ^= 1;
            assert!(unpacked(coding, &[&wrong]).is_err());
        }
    }
}
