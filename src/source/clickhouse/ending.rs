//! How files of the server's formats end. Where a format has an end of its own, an answer that was cut lacks it.

/// Bytes at the end of an answer that are looked at.
pub(crate) const LAST_BYTES: usize = 16;

/// How files of a format end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatEnd {
    /// With these bytes, which stand nowhere before.
    Mark(&'static [u8]),
    /// With a postscript that ends with its own length, as ORC has it.
    Postscript,
    /// Each row ends its line, and all lines end alike.
    Lines,
    /// Each row ends its line, and values have line ends of their own.
    RawLines,
    /// Wherever a row ends, or nobody has looked.
    Open,
}

/// What the last bytes of an answer show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndShown {
    /// The format's own end is there.
    Whole,
    /// It is not, or the last row is cut.
    Cut,
    /// Nothing: rows may be missing behind the last one.
    Silent,
}

/// The bytes of a postscript of ORC are no more than these.
const POSTSCRIPT_MAX: u8 = 200;

/// Names in small letters, and how files of them end. A name that ends with `*` is the beginning of several.
const ENDS: [(&str, FormatEnd); 32] = [
    ("parquet", FormatEnd::Mark(b"PAR1")),
    ("arrow", FormatEnd::Mark(b"ARROW1")),
    ("arrowstream", FormatEnd::Mark(b"\xff\xff\xff\xff\0\0\0\0")),
    ("orc", FormatEnd::Postscript),
    // A bracket at the beginning of a line stands at the very end alone: those within are indented, and text is escaped.
    ("json", FormatEnd::Mark(b"\n}\n")),
    ("jsonstrings", FormatEnd::Mark(b"\n}\n")),
    ("jsoncompact", FormatEnd::Mark(b"\n}\n")),
    ("jsoncompactstrings", FormatEnd::Mark(b"\n}\n")),
    ("jsoncolumns", FormatEnd::Mark(b"\n}\n")),
    ("jsoncolumnswithmetadata", FormatEnd::Mark(b"\n}\n")),
    ("jsonobjecteachrow", FormatEnd::Mark(b"\n}\n")),
    ("jsoncompactcolumns", FormatEnd::Mark(b"\n]\n")),
    ("geojson", FormatEnd::Mark(b"]}\n")),
    ("xml", FormatEnd::Mark(b"</result>\n")),
    ("csv", FormatEnd::Lines),
    ("csvwithnames", FormatEnd::Lines),
    ("csvwithnamesandtypes", FormatEnd::Lines),
    ("tabseparatedraw*", FormatEnd::RawLines),
    ("tsvraw*", FormatEnd::RawLines),
    ("raw", FormatEnd::RawLines),
    ("rawwithnames*", FormatEnd::RawLines),
    ("tabseparated*", FormatEnd::Lines),
    ("tsv*", FormatEnd::Lines),
    ("tskv", FormatEnd::Lines),
    ("jsoneachrow", FormatEnd::Lines),
    ("jsonlines", FormatEnd::Lines),
    ("ndjson", FormatEnd::Lines),
    ("jsonl", FormatEnd::Lines),
    ("jsonstringseachrow", FormatEnd::Lines),
    ("jsoncompacteachrow*", FormatEnd::Lines),
    ("jsoncompactstringseachrow*", FormatEnd::Lines),
    ("markdown", FormatEnd::Lines),
];

impl FormatEnd {
    /// By the format's name, in any case.
    pub(crate) fn of(format: &str) -> Self {
        let name = format.to_ascii_lowercase();
        let is = |known: &str| known.strip_suffix('*').map_or(name == known, |beginning| name.starts_with(beginning));
        ENDS.iter().find(|(known, _)| is(known)).map_or(Self::Open, |(_, end)| *end)
    }

    /// What the last bytes of an answer show: as many as [`LAST_BYTES`], or all that there are.
    pub(crate) fn judge(self, last: &[u8]) -> EndShown {
        let there = |it: bool| if it { EndShown::Whole } else { EndShown::Cut };
        match self {
            Self::Mark(mark) => there(last.ends_with(mark)),
            Self::Postscript => there(is_postscript(last)),
            // No row at all is an answer too.
            Self::Lines | Self::RawLines if last.is_empty() => EndShown::Silent,
            // The first two bytes of an error's frame, behind rows that end otherwise.
            Self::Lines if is_mixed(last) => EndShown::Cut,
            Self::Lines | Self::RawLines if last.ends_with(b"\n") => EndShown::Silent,
            Self::Lines | Self::RawLines => EndShown::Cut,
            Self::Open => EndShown::Silent,
        }
    }
}

fn is_mixed(last: &[u8]) -> bool {
    last.strip_suffix(b"\r\n").is_some_and(|before| before.ends_with(b"\n") && !before.ends_with(b"\r\n"))
}

fn is_postscript(last: &[u8]) -> bool {
    let Some((length, before)) = last.split_last() else { return false };
    before.ends_with(b"ORC") && (4..=POSTSCRIPT_MAX).contains(length)
}

/// Keeps the last bytes of all that has come.
#[derive(Debug, Default)]
pub(crate) struct LastBytes(Vec<u8>);

impl LastBytes {
    /// What came next.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let new = bytes.get(bytes.len().saturating_sub(LAST_BYTES)..).unwrap_or(bytes);
        self.0.extend_from_slice(new);
        self.0.drain(..self.0.len().saturating_sub(LAST_BYTES));
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_with_an_end_of_its_own_is_whole_with_it_alone() {
        for (format, whole) in [
            ("Parquet", &b"\x87\0\0\0PAR1"[..]),
            ("JSON", b"\t\"rows\": 3\n}\n"),
            ("JSONCompactColumns", b"[\n\n]\n"),
            ("XML", b"</statistics>\n</result>\n"),
            ("ORC", b"\x06\x82\xf4\x03\x03ORC\x17"),
            ("ArrowStream", b"\0\0\xff\xff\xff\xff\0\0\0\0"),
            ("GeoJSON", b"\"features\":[]}\n"),
        ] {
            let end = FormatEnd::of(format);
            assert_eq!(end.judge(whole), EndShown::Whole, "{format}");
            for cut in 0..whole.len() {
                assert_eq!(end.judge(&whole[..cut]), EndShown::Cut, "{format} {cut}");
            }
        }
        // The last row of JSON, and an object that is indented.
        assert_eq!(FormatEnd::of("JSON").judge(b"\t\t\t\"a\": 1\n\t\t}\n"), EndShown::Cut);
    }

    #[test]
    fn rows_in_lines_are_cut_within_a_line_and_say_nothing_else() {
        for format in ["CSV", "tsv", "TabSeparatedRawWithNames", "JSONEachRow", "JSONCompactEachRowWithNames", "Raw"] {
            let end = FormatEnd::of(format);
            assert_eq!(end.judge(b""), EndShown::Silent, "{format}");
            assert_eq!(end.judge(b"1,2\n"), EndShown::Silent, "{format}");
            assert_eq!(end.judge(b"1,2\n3"), EndShown::Cut, "{format}");
        }
        // The beginning of a frame, and lines that the statement wants to end so.
        let csv = FormatEnd::of("CSV");
        assert_eq!(csv.judge(b"1,2\n\r\n"), EndShown::Cut);
        assert_eq!(csv.judge(b"1,2\r\n\r\n"), EndShown::Silent);
        assert_eq!(FormatEnd::of("TSVRaw").judge(b"x\n\r\n"), EndShown::Silent);
        for format in ["Native", "RowBinary", "Values", "Pretty", "Brandnew", "PrettyJSONEachRow"] {
            assert_eq!(FormatEnd::of(format).judge(b"\x01"), EndShown::Silent, "{format}");
        }
    }

    #[test]
    fn the_last_bytes_are_the_last_however_they_come() {
        let all: Vec<u8> = (0..100).collect();
        for size in [1, 3, LAST_BYTES, 40, 100] {
            let mut last = LastBytes::default();
            all.chunks(size).for_each(|piece| last.add(piece));
            assert_eq!(last.bytes(), &all[100 - LAST_BYTES..], "{size}");
        }
    }
}
