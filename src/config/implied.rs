//! What a word says besides what it is: `--to orders.csv.gz` is one file of CSV with gzip, `--format tsv` has tabs between
//! its values, `--preset excel` is one file that Excel opens. What contradicts it is told, and what agrees is welcome.

use super::options::by_key;
use super::raw::{Origin, Raw, Setting};
use super::{ConfigError, Environment, own_format, value};

/// The ends of file names, and the format that each stands for, as `--format` has it.
pub(super) const FORMATS: [(&str, &str, &str); 6] = [
    ("parquet", "parquet", "Parquet"),
    ("csv", "csv", "CSV"),
    ("tsv", "csv", "CSV with tabs"),
    ("ndjson", "ndjson", "NDJSON"),
    ("jsonl", "ndjson", "NDJSON"),
    ("json", "ndjson", "NDJSON"),
];

/// The ends that follow them, and the codec that each stands for.
pub(super) const CODECS: [(&str, &str); 2] = [("gz", "gzip"), ("zst", "zstd")];

/// Ends of files that are packed in ways that are not written here.
const OTHER_CODECS: [&str; 8] = ["bz2", "xz", "zip", "zstd", "lz4", "gzip", "snappy", "7z"];

/// Ends of files of other kinds.
const OTHER_FORMATS: [&str; 11] = ["xlsx", "xls", "ods", "txt", "pq", "parq", "avro", "orc", "arrow", "feather", "xml"];

/// The preset that says more than types.
const EXCEL: &str = "excel";

/// The table of `config/default.toml` that has its settings.
const EXCEL_FILE: &str = "excel_file";

/// Adds what is implied to what was written. With it comes every contradiction.
pub(super) fn add(raw: &mut Raw, environment: &Environment) -> Vec<ConfigError> {
    if let Some(errors) = own_format::add(raw, environment) {
        return errors;
    }
    let mut errors = Vec::new();
    if let Some(to) = one_value(raw, "to") {
        match of_name(&to, raw.given("format").is_some()) {
            Ok(Some((what, settings))) => {
                let clause = format!("{} names one file of {what}", written("to", raw.get("to"), &to));
                imply(raw, &clause, &settings, &mut errors);
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    if let Some(format) = one_value(raw, "format").filter(|format| format.eq_ignore_ascii_case("tsv")) {
        let clause = format!("{} has tabs between its values", written("format", raw.get("format"), &format));
        imply(raw, &clause, &[("csv_delimiter", "\\t")], &mut errors);
    }
    if one_value(raw, "preset").as_deref() == Some(EXCEL) {
        excel(raw, &mut errors);
    }
    errors
}

/// One file that Excel opens by a double click: its settings stand in `config/default.toml`.
fn excel(raw: &mut Raw, errors: &mut Vec<ConfigError>) {
    let clause = format!("{} writes one file of CSV for Excel", written("preset", raw.get("preset"), EXCEL));
    let to = one_value(raw, "to");
    let is_file = raw.given("single_file").is_some();
    let is_stream = to.as_deref() == Some("-");
    if let Some(to) = to.filter(|_| !is_file && !is_stream) {
        let what = format!("{clause}, and --to {to} names a folder");
        let example = format!("{}/orders.csv", to.trim_end_matches('/'));
        errors.push(ConfigError::new(what, format!("end it in a file's name: --to {example}")));
    }
    let keys: Vec<String> = raw.keys(EXCEL_FILE).map(str::to_owned).collect();
    for key in keys {
        let (Some(option), Some(value)) = (by_key(&key), raw.entry(EXCEL_FILE, &key).map(str::to_owned)) else {
            continue;
        };
        if option.key != "single_file" || !is_stream {
            imply(raw, &clause, &[(option.key, &value)], errors);
        }
    }
}

/// The single value that somebody gave an option.
pub(super) fn one_value(raw: &Raw, key: &str) -> Option<String> {
    match raw.given(key)?.values.as_slice() {
        [value] => Some(value.clone()),
        _ => None,
    }
}

/// What the name of a destination says, in words and as settings; nothing where it names a folder. `told`: whether the format
/// is said elsewhere, and a folder is what is meant by any name.
#[expect(clippy::type_complexity, reason = "one use")]
fn of_name(to: &str, told: bool) -> Result<Option<(String, Vec<(&'static str, &'static str)>)>, ConfigError> {
    let Some(name) = last_name(to) else { return Ok(None) };
    let name = name.to_ascii_lowercase();
    let packed = CODECS.iter().find_map(|(end, codec)| Some((cut(&name, end)?, *codec)));
    let (plain, codec) = packed.map_or((name.as_str(), None), |(plain, codec)| (plain, Some(codec)));
    let found = FORMATS.iter().find(|(end, ..)| cut(plain, end).is_some_and(|stem| !stem.is_empty()));
    let Some((end, format, words)) = found else { return no_other_kind(to, &name, told).map(|()| None) };
    let mut settings = vec![("single_file", "true"), ("format", *format)];
    match (*format, codec) {
        ("parquet", Some(codec)) => {
            let what = format!("--to {to}: Parquet is compressed inside the file");
            let hint = format!("end the name in .parquet, and add --compression {codec}");
            return Err(ConfigError::new(what, hint));
        }
        // Any codec is inside, and no name tells which.
        ("parquet", None) => {}
        (_, codec) => settings.push(("compression", codec.unwrap_or("none"))),
    }
    if *end == "tsv" {
        settings.push(("csv_delimiter", "\\t"));
    }
    let with = codec.map_or_else(String::new, |codec| format!(" with {codec}"));
    Ok(Some((format!("{words}{with}"), settings)))
}

/// Refuses a name that looks like a file of a kind that is not written here: it would be a folder of Parquet.
fn no_other_kind(to: &str, name: &str, told: bool) -> Result<(), ConfigError> {
    let stem_of = |ends: &[&str]| ends.iter().find_map(|end| Some((cut(name, end)?, (*end).to_owned())));
    let is_format = |stem: &str| FORMATS.iter().any(|(end, ..)| cut(stem, end).is_some_and(|stem| !stem.is_empty()));
    let packed = stem_of(&OTHER_CODECS).filter(|(stem, _)| is_format(stem));
    let alone =
        stem_of(&OTHER_CODECS).or_else(|| stem_of(&OTHER_FORMATS)).or_else(|| stem_of(&CODECS.map(|(end, _)| end)));
    let alone = alone.filter(|(stem, _)| !stem.is_empty() && !stem.starts_with('.') && !told);
    let Some((_, end)) = packed.or(alone) else { return Ok(()) };
    let what = format!("--to {to} looks like a file, and nothing is known that ends in .{end}");
    let hint = "end the name in .parquet, .csv, .ndjson, .csv.gz or .csv.zst for one file; for a folder of this name end it \
                with /";
    Err(ConfigError::new(what, hint))
}

/// The last name of a path or URL; none where that is a folder, standard output or a bucket.
pub(super) fn last_name(to: &str) -> Option<&str> {
    let path = match to.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => to,
    };
    path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "-")
}

/// A name without its end and the dot before that.
pub(super) fn cut<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    name.strip_suffix(end)?.strip_suffix('.')
}

/// Sets what nobody gave; what somebody gave must mean the same.
pub(super) fn imply(raw: &mut Raw, clause: &str, settings: &[(&'static str, &str)], errors: &mut Vec<ConfigError>) {
    for (key, value) in settings {
        match raw.given(key) {
            None => raw.imply(key, value, clause),
            Some(other) if other.values.iter().all(|other| same(key, other, value)) => {}
            Some(other) => {
                let what = match &other.origin {
                    Origin::Implied(other) => other.clone(),
                    _ => format!("{} says otherwise", written(key, Some(other), &other.values.join(" "))),
                };
                errors.push(ConfigError::new(format!("{clause}, and {what}"), "leave one of them out"));
            }
        }
    }
}

/// An option and its value as somebody wrote them, with the place.
pub(super) fn written(key: &str, setting: Option<&Setting>, value: &str) -> String {
    match setting.map(|setting| &setting.origin) {
        Some(origin @ Origin::File(..)) => format!("{origin}: {key} = {value:?}"),
        Some(Origin::Variable(name)) => format!("{name}={value}"),
        _ => format!("--{} {value}", key.replace('_', "-")),
    }
}

/// Whether two values of an option mean the same. One that means nothing is told of where it is parsed.
fn same(key: &str, one: &str, other: &str) -> bool {
    fn agree<T: PartialEq>(parse: impl Fn(&str) -> Result<T, String>, one: &str, other: &str) -> bool {
        parse(one).ok().zip(parse(other).ok()).is_none_or(|(one, other)| one == other)
    }
    let codec = |text: &str| text.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
    match key {
        "format" => agree(value::format, one, other),
        "compression" => codec(one) == codec(other),
        "csv_delimiter" => agree(value::delimiter, one, other),
        "csv_newline" => one == other,
        _ => agree(value::switch, one, other),
    }
}

#[cfg(test)]
#[path = "implied_tests.rs"]
mod tests;
