//! Content codings: which one a client takes, and one gzip member or zstd frame around a whole stream, flushed where the
//! stream pauses. Clients ignore what follows the first member.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, TE};
use bytes::Bytes;

use crate::base::cpu::on_rayon;
use crate::encode::{Compressor, EncodeError};
use crate::export::ExportError;
use crate::model::{Compression, ExportErrorKind, Format};

/// A coding of ours, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
    Identity,
}

/// The level of either: a stream waits for its source, and then for its client.
const LEVEL: u8 = 1;

impl Coding {
    /// What a client takes; of several that it likes the same, the first.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let items: Vec<(&str, f32)> = lists.flat_map(|list| list.split(',')).map(weighed).collect();
        let weight = |name: &str| {
            let named = items.iter().find(|(item, _)| item.eq_ignore_ascii_case(name));
            named.or_else(|| items.iter().find(|(item, _)| *item == "*")).map_or(0.0, |(_, weight)| *weight)
        };
        match (weight("zstd"), weight("gzip")) {
            (zstd, gzip) if zstd > 0.0 && zstd >= gzip => Self::Zstd,
            (_, gzip) if gzip > 0.0 => Self::Gzip,
            _ => Self::Identity,
        }
    }

    /// As `Content-Encoding` has it.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

/// An item of a list, and its weight.
fn weighed(item: &str) -> (&str, f32) {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    (name.trim(), weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
}

/// Whether a client says that it reads trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| weighed(item).0.eq_ignore_ascii_case("trailers"))
}

/// What a stream's bytes go through on their way to the connection.
#[derive(Debug)]
pub(crate) struct Coder(Option<Compressor>);

impl Coder {
    pub(crate) fn new(coding: Coding) -> Result<Self, ExportError> {
        let compression = match coding {
            Coding::Zstd => Compression::Zstd(LEVEL.into()),
            Coding::Gzip => Compression::Gzip(LEVEL.into()),
            Coding::Identity => return Ok(Self(None)),
        };
        Ok(Self(Compressor::new(compression, Format::Ndjson)?))
    }

    /// Codes bytes so that the client can read all of them now; the last ones end the member.
    pub(crate) async fn code(&mut self, bytes: Bytes, last: bool) -> Result<Bytes, ExportError> {
        let Some(mut compressor) = self.0.take() else { return Ok(bytes) };
        let coded = on_rayon(move || {
            let mut out = Vec::new();
            compressor.write(&bytes, &mut out)?;
            if last {
                compressor.end_frame(&mut out)?;
            } else {
                compressor.flush(&mut out)?;
            }
            Ok::<_, EncodeError>((compressor, out))
        });
        let panicked = |error| ExportError::new(ExportErrorKind::Internal, "compressing").with_source(error);
        let (compressor, out) = coded.await.map_err(panicked)??;
        self.0 = Some(compressor);
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_coding_is_the_one_that_the_client_likes_best() {
        for (list, coding) in [
            ("", Coding::Identity),
            ("gzip, deflate, br, zstd", Coding::Zstd),
            ("gzip, zstd;q=0.5", Coding::Gzip),
            ("GZIP", Coding::Gzip),
            ("zstd;q=0, gzip;q=0.1", Coding::Gzip),
            ("br, identity", Coding::Identity),
            ("*", Coding::Zstd),
            ("*;q=0", Coding::Identity),
            ("gzip;q=x", Coding::Identity),
        ] {
            assert_eq!(Coding::of(&headers(ACCEPT_ENCODING, list)), coding, "{list}");
        }
        assert_eq!(Coding::of(&HeaderMap::new()), Coding::Identity);
        assert!(takes_trailers(&headers(TE, "deflate;q=0.5, Trailers")) && !takes_trailers(&headers(TE, "trailer")));
    }

    #[tokio::test]
    async fn one_member_has_all_and_each_flush_can_be_read() {
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Identity] {
            let mut coder = Coder::new(coding).unwrap();
            let mut wire = Vec::new();
            for (index, text) in ["one\n", "two\n"].into_iter().enumerate() {
                wire.extend_from_slice(&coder.code(text.into(), false).await.unwrap());
                let mut seen = vec![0; 4 * (index + 1)];
                match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(&*wire).read_exact(&mut seen).unwrap(),
                    Coding::Zstd => zstd::stream::read::Decoder::new(&*wire).unwrap().read_exact(&mut seen).unwrap(),
                    Coding::Identity => seen.copy_from_slice(&wire),
                }
                assert!(seen.ends_with(text.as_bytes()), "{coding:?}");
            }
            wire.extend_from_slice(&coder.code(Bytes::new(), true).await.unwrap());
            let mut whole = String::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*wire).read_to_string(&mut whole).unwrap(),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(&*wire).unwrap().single_frame().read_to_string(&mut whole).unwrap()
                }
                Coding::Identity => (&*wire).read_to_string(&mut whole).unwrap(),
            };
            assert_eq!(whole, "one\ntwo\n", "{coding:?}");
        }
    }
}
