//! What a link serves as one file: the parts of an export one behind the other, or one of them. Pure.

use std::ops::Range;

use super::signer::LinkTarget;
use crate::base::failpoint;
use crate::commit::Manifest;
use crate::commit::model::PartEntry;
use crate::model::{Format, ObjectKind};

/// Bytes of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePiece {
    /// Relative to the destination.
    pub(crate) path: String,
    pub(crate) range: Range<u64>,
}

/// A file whose length and bytes are known before it is read, and stay the same as long as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedFile {
    pieces: Vec<FilePiece>,
    pub(crate) length: u64,
    /// Strong, with its quotes.
    pub(crate) etag: String,
    pub(crate) content_type: String,
    /// What it is saved as.
    pub(crate) name: String,
}

impl ServedFile {
    /// All parts of a text format with one header: that of the first. `None` for a format whose objects cannot be joined,
    /// and for a manifest that contradicts itself.
    ///
    /// The header is a gzip member or zstd frame of its own, so this holds for compressed parts too.
    pub(crate) fn joined(manifest: &Manifest, stem: &str) -> Option<Self> {
        let format = manifest.format.format();
        if !matches!(format, Format::Csv | Format::Ndjson) {
            return None;
        }
        let kind = ObjectKind::of(format, manifest.format.compression)?;
        let mut pieces = Vec::with_capacity(manifest.parts.len());
        for (number, part) in manifest.parts.iter().enumerate() {
            let header = if number == 0 || failpoint::off("one_header") { 0 } else { part.header_bytes };
            if header > part.bytes {
                return None;
            }
            pieces.push(FilePiece { path: part.path.clone(), range: header..part.bytes });
        }
        Self::of(
            pieces,
            &manifest.nonce,
            LinkTarget::Download,
            kind.content_type(),
            format!("{stem}.{}", kind.extension()),
        )
    }

    /// One part as it is.
    pub(crate) fn part(manifest: &Manifest, number: usize, stem: &str) -> Option<Self> {
        let part: &PartEntry = manifest.parts.get(number)?;
        let kind = ObjectKind::of(manifest.format.format(), manifest.format.compression)?;
        let pieces = vec![FilePiece { path: part.path.clone(), range: 0..part.bytes }];
        let name = format!("{stem}-{number:05}.{}", kind.extension());
        Self::of(pieces, &manifest.nonce, LinkTarget::Part(number), kind.content_type(), name)
    }

    fn of(pieces: Vec<FilePiece>, nonce: &str, target: LinkTarget, content_type: &str, name: String) -> Option<Self> {
        let lengths = pieces.iter().map(|piece| piece.range.end - piece.range.start);
        let length = lengths.into_iter().try_fold(0_u64, u64::checked_add)?;
        let etag = format!("\"{nonce}/{target}\"");
        Some(Self { pieces, length, etag, content_type: content_type.to_owned(), name })
    }

    /// The one object that the file is, where it is one.
    pub(crate) fn object(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [piece] => Some(&piece.path),
            _ => None,
        }
    }

    /// Where these bytes of the file are; of no object nothing.
    pub(crate) fn cut(&self, wanted: &Range<u64>) -> Vec<FilePiece> {
        let mut found = Vec::new();
        let mut before = 0_u64;
        for piece in &self.pieces {
            let length = piece.range.end - piece.range.start;
            let from = wanted.start.saturating_sub(before).min(length);
            let to = wanted.end.saturating_sub(before).min(length);
            if from < to {
                let range = piece.range.start + from..piece.range.start + to;
                found.push(FilePiece { path: piece.path.clone(), range });
            }
            before = before.saturating_add(length);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::model::{FormatKind, FormatRecord};
    use crate::commit::test_data::{format, manifest};
    use crate::model::Compression;

    /// Parts whose bytes are `object`, with the first `header` of each for its header.
    fn of(parts: &[(&str, u64)]) -> Manifest {
        let mut manifest = manifest();
        manifest.format = FormatRecord::from(&format(Format::Csv, Compression::None));
        let template = manifest.parts[0].clone();
        let part = |(object, header): &(&str, u64)| PartEntry {
            path: (*object).to_owned(),
            bytes: u64::try_from(object.len()).unwrap(),
            header_bytes: *header,
            ..template.clone()
        };
        manifest.parts = parts.iter().map(part).collect();
        manifest
    }

    fn read(pieces: &[FilePiece]) -> String {
        let place = |at: u64| usize::try_from(at).unwrap();
        pieces.iter().map(|piece| &piece.path[place(piece.range.start)..place(piece.range.end)]).collect()
    }

    #[test]
    fn every_range_of_the_joined_file_is_a_range_of_its_text() {
        for parts in [
            vec![("h\na\nb\n", 2), ("h\nc\n", 2), ("h\n", 2), ("h\nd\n", 2)],
            vec![("a\n", 0), ("b\n", 0)],
            vec![("h\n", 2)],
            vec![("\u{feff}h\nx\n", 5), ("\u{feff}h\ny\n", 5)],
        ] {
            let file = ServedFile::joined(&of(&parts), "orders").unwrap();
            let cut = |(number, (object, header)): (usize, &(&str, u64))| {
                object.get(if number == 0 { 0 } else { usize::try_from(*header).unwrap() }..).unwrap().to_owned()
            };
            let whole: String = parts.iter().enumerate().map(cut).collect();
            assert_eq!((file.length, file.name.as_str()), (u64::try_from(whole.len()).unwrap(), "orders.csv"));
            for from in (0..whole.len()).filter(|from| whole.is_char_boundary(*from)) {
                for to in (from..=whole.len()).filter(|to| whole.is_char_boundary(*to)) {
                    let range = u64::try_from(from).unwrap()..u64::try_from(to).unwrap();
                    assert_eq!(read(&file.cut(&range)), whole[from..to], "{range:?}");
                }
            }
        }
    }

    #[test]
    fn files_of_one_export_have_tags_of_their_own() {
        let manifest = of(&[("h\na\n", 2), ("h\nb\n", 2)]);
        let joined = ServedFile::joined(&manifest, "orders").unwrap();
        let parts = [0, 1].map(|number| ServedFile::part(&manifest, number, "orders").unwrap());
        assert_eq!(parts[1].name, "orders-00001.csv");
        assert_eq!((parts[1].object(), joined.object()), (Some("h\nb\n"), None));
        assert!(parts.iter().all(|part| part.etag != joined.etag && part.etag.contains(&manifest.nonce)));
        assert_ne!(parts[0].etag, parts[1].etag);
        assert_eq!(ServedFile::part(&manifest, 2, "orders"), None);
    }

    #[test]
    fn what_cannot_be_joined_is_not() {
        let mut manifest = of(&[("h\na\n", 2), ("h\n", 3)]);
        assert_eq!(ServedFile::joined(&manifest, "orders"), None);
        manifest.parts.truncate(1);
        assert!(ServedFile::joined(&manifest, "orders").is_some());
        manifest.format.kind = FormatKind::Source;
        assert_eq!(ServedFile::joined(&manifest, "orders"), None);
    }
}
