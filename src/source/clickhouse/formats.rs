//! The output formats of ClickHouse: what a file of each is called, and how it is served.

/// What is known of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownFormat {
    /// A file of it has this extension and this content type.
    Written {
        /// Without a dot before it.
        extension: &'static str,
        /// Without a charset.
        content_type: &'static str,
    },
    /// It makes no file: it is the protocol of another program, or nothing at all.
    NoFile,
}

const CSV: (&str, &str) = ("csv", "text/csv");
const TSV: (&str, &str) = ("tsv", "text/tab-separated-values");
const LINES: (&str, &str) = ("jsonl", "application/x-ndjson");
const JSON: (&str, &str) = ("json", "application/json");
const TEXT: (&str, &str) = ("txt", "text/plain");
const BYTES: &str = "application/octet-stream";

/// Names, and what is written of them. A name that ends with `*` is the beginning of several.
const FORMATS: [(&str, (&str, &str)); 53] = [
    ("csv", CSV),
    ("csvwithnames", CSV),
    ("csvwithnamesandtypes", CSV),
    ("tabseparated*", TSV),
    ("tsv*", TSV),
    ("raw", TSV),
    ("rawwithnames", TSV),
    ("rawwithnamesandtypes", TSV),
    ("tskv", ("tskv", "text/plain")),
    ("jsoneachrow", LINES),
    ("jsonlines", LINES),
    ("ndjson", LINES),
    ("jsonl", LINES),
    ("jsonstringseachrow", LINES),
    ("jsoncompacteachrow*", LINES),
    ("jsoncompactstringseachrow*", LINES),
    ("jsoneachrowwithprogress", LINES),
    ("jsonstringseachrowwithprogress", LINES),
    ("json", JSON),
    ("jsonstrings", JSON),
    ("jsoncompact", JSON),
    ("jsoncompactstrings", JSON),
    ("jsoncolumns", JSON),
    ("jsoncolumnswithmetadata", JSON),
    ("jsoncompactcolumns", JSON),
    ("jsonobjecteachrow", JSON),
    ("prettyjsoneachrow", JSON),
    ("prettyjsonlines", JSON),
    ("prettyndjson", JSON),
    ("geojson", ("geojson", "application/geo+json")),
    ("parquet", ("parquet", "application/vnd.apache.parquet")),
    ("orc", ("orc", BYTES)),
    ("avro", ("avro", BYTES)),
    ("avroconfluent", ("avro", BYTES)),
    ("arrow", ("arrow", "application/vnd.apache.arrow.file")),
    ("arrowstream", ("arrows", "application/vnd.apache.arrow.stream")),
    ("native", ("native", BYTES)),
    ("rowbinary*", ("rowbinary", BYTES)),
    ("buffers", ("bin", BYTES)),
    ("rawblob", ("bin", BYTES)),
    ("bsoneachrow", ("bson", BYTES)),
    ("msgpack", ("msgpack", BYTES)),
    ("npy", ("npy", BYTES)),
    ("protobuf*", ("pb", BYTES)),
    ("png", ("png", "image/png")),
    ("xml", ("xml", "application/xml")),
    ("markdown", ("md", "text/markdown")),
    ("md", ("md", "text/markdown")),
    ("sqlinsert", ("sql", "application/sql")),
    ("values", TEXT),
    ("hivetext", TEXT),
    ("pretty*", TEXT),
    ("vertical", TEXT),
];

/// Texts of a form that the statement says.
const FREE_TEXTS: [&str; 5] = ["customseparated*", "template*", "lineasstring*", "prometheus", "hash"];

const NO_FILES: [&str; 4] = ["null", "mysqlwire", "postgresqlwire", "odbcdriver2"];

/// What is known of a format by its name, in any case; `None` where it is a new one.
pub(crate) fn by_name(name: &str) -> Option<KnownFormat> {
    let name = name.to_ascii_lowercase();
    let is = |known: &str| known.strip_suffix('*').map_or(name == known, |beginning| name.starts_with(beginning));
    if NO_FILES.contains(&name.as_str()) {
        return Some(KnownFormat::NoFile);
    }
    let (extension, content_type) = FORMATS
        .iter()
        .find(|(known, _)| is(known))
        .map(|(_, written)| *written)
        .or_else(|| FREE_TEXTS.iter().any(|known| is(known)).then_some(TEXT))?;
    Some(KnownFormat::Written { extension, content_type })
}

/// Whether files of some format have this extension.
pub(crate) fn is_extension(end: &str) -> bool {
    FORMATS.iter().any(|(_, (extension, _))| *extension == end)
}

/// The extension and the content type of what an answer has, by its headers. A format that is not known is called by what
/// the server says of its content.
pub(crate) fn written(format: &str, content_type: Option<&str>) -> Option<(String, String)> {
    match by_name(format) {
        Some(KnownFormat::Written { extension, content_type }) => Some((extension.to_owned(), content_type.to_owned())),
        Some(KnownFormat::NoFile) => None,
        None => {
            let content_type = content_type.unwrap_or(BYTES);
            let extension = if content_type.starts_with("text/") { "txt" } else { "bin" };
            Some((extension.to_owned(), content_type.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_the_name_that_the_page_gives_it() {
        let cases: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(include_str!("../../../tests/cases/formats.json")).unwrap();
        assert!(cases.len() > 90);
        for (name, wanted) in cases {
            let found = by_name(&name).unwrap_or_else(|| panic!("{name} is not known"));
            match (found, wanted) {
                (KnownFormat::NoFile, serde_json::Value::Null) => {}
                (KnownFormat::Written { extension, content_type }, wanted) => {
                    assert_eq!(serde_json::json!([extension, content_type]), wanted, "{name}");
                }
                (found, wanted) => panic!("{name}: {found:?}, and not {wanted}"),
            }
        }
    }

    #[test]
    fn a_new_format_is_called_by_its_content() {
        let called = |content: Option<&str>| written("Brandnew", content).unwrap().0;
        assert_eq!(
            [called(Some("text/new; charset=UTF-8")), called(Some("image/new")), called(None)],
            ["txt", "bin", "bin"]
        );
        assert_eq!(written("null", None), None);
        assert_eq!(by_name("PARQUET"), by_name("Parquet"));
    }
}
