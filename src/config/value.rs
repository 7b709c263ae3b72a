//! Parsers of single values: sizes, codecs, keys, names. Each error says what would be right.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;

use super::options::nearest;
use crate::base::memory::PARTITIONS_MAX;
use crate::base::text::moment::written_day;
use crate::model::policy::decimal;
use crate::model::{ColumnChoice, Compression, Direction, Format, Since, UnconstrainedNumeric};
use crate::source::postgres::plan::NAME_BYTES_MAX;
use crate::store::{UPLOAD_CHUNK_BYTES_MAX, UPLOAD_CHUNK_BYTES_MIN};

/// In front of a text, it says that the text is Unicode, and is no part of it.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A size in bytes: `268435456`, `256MiB`, `64MB`, `8k`.
pub(super) fn size(text: &str) -> Result<NonZeroU64, String> {
    const WRONG: &str = "a size such as 256MiB, 64MB or 1048576 is wanted";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().map_err(|_| WRONG.to_owned())?;
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(WRONG.to_owned()),
    };
    number.checked_mul(scale).and_then(NonZeroU64::new).ok_or_else(|| WRONG.to_owned())
}

/// A length of time: `500ms`, `30s`, `5m`, `2h`, `1d`; never none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "a duration such as 30s, 5m or 2h is wanted";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().map_err(|_| WRONG.to_owned())?;
    let millis: u64 = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(WRONG.to_owned()),
    };
    let duration = number.checked_mul(millis).filter(|millis| *millis > 0).map(Duration::from_millis);
    duration.ok_or_else(|| WRONG.to_owned())
}

/// A length of time, or `off`.
pub(super) fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text.trim() == "off" { Ok(None) } else { duration(text).map(Some).map_err(|why| format!("{why}, or off")) }
}

/// The export that an incremental one goes on from.
pub(super) fn since(text: &str) -> Result<Since, String> {
    match text.trim() {
        "" => Err("none, or the address of a manifest, a run's record or a job's root is wanted".to_owned()),
        "none" => Ok(Since::Nothing),
        url => Ok(Since::At(url.to_owned())),
    }
}

/// One column.
pub(super) fn column(text: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(names(text)?) {
        Ok([name]) => Ok(name),
        Err(_) => Err("the name of one column is wanted".to_owned()),
    }
}

/// A count of at least 1; `_` may group its digits.
pub(super) fn count(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.trim().replace('_', "");
    let number = if digits.starts_with('+') { None } else { digits.parse().ok() };
    number.ok_or_else(|| "a whole number of 1 or more is wanted".to_owned())
}

/// A count of rows: `10000`, `10k`, `5m`, in thousands as people count, not as memory does.
pub(super) fn rows(text: &str) -> Result<NonZeroU64, String> {
    const WRONG: &str = "a whole number of 1 or more is wanted, such as 5000, 10k or 5m";
    let text = text.trim().to_ascii_lowercase();
    let units = [("k", 1_000_u64), ("m", 1_000_000)];
    let split = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (number, scale) = split.unwrap_or((text.as_str(), 1));
    let number = count(number).map_err(|_| WRONG.to_owned())?;
    number.get().checked_mul(scale).and_then(NonZeroU64::new).ok_or_else(|| WRONG.to_owned())
}

/// A count from 1 to `most`.
pub(super) fn bounded(most: usize) -> impl Fn(&str) -> Result<NonZeroUsize, String> {
    move |text| {
        let wrong = || format!("a whole number from 1 to {most} is wanted");
        let count = usize::try_from(count(text).map_err(|_| wrong())?.get()).map_err(|_| wrong())?;
        NonZeroUsize::new(count).filter(|count| count.get() <= most).ok_or_else(wrong)
    }
}

pub(super) fn partitions(text: &str) -> Result<NonZeroU32, String> {
    let most = usize::try_from(PARTITIONS_MAX).unwrap_or(usize::MAX);
    NonZeroU32::try_from(bounded(most)(text)?).map_err(|error| error.to_string())
}

/// A size that an upload request can have.
pub(super) fn upload_chunk_size(text: &str) -> Result<NonZeroUsize, String> {
    let size = NonZeroUsize::try_from(size(text)?).map_err(|error| error.to_string())?;
    Some(size)
        .filter(|size| (UPLOAD_CHUNK_BYTES_MIN..=UPLOAD_CHUNK_BYTES_MAX).contains(&size.get()))
        .ok_or_else(|| "from 5MiB to 5GiB is wanted: what S3 takes".to_owned())
}

/// One of a few words, each with what it stands for.
pub(super) fn words<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    |text| {
        choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let near = nearest(text, words.iter().copied());
            near.map_or_else(
                || format!("one of {} is wanted", words.join(", ")),
                |near| format!("did you mean {near}?"),
            )
        })
    }
}

/// A format, in any case, by each of its names.
pub(super) fn format(text: &str) -> Result<Format, String> {
    let names = [
        ("parquet", Format::Parquet),
        ("csv", Format::Csv),
        ("ndjson", Format::Ndjson),
        ("json", Format::Ndjson),
        ("jsonl", Format::Ndjson),
        ("tsv", Format::Csv),
        ("source", Format::Source),
    ];
    words(&names)(&text.to_ascii_lowercase())
}

/// How Parquet holds `numeric` without a precision.
pub(super) fn unconstrained_numeric(text: &str) -> Result<UnconstrainedNumeric, String> {
    match text {
        "text" => Ok(UnconstrainedNumeric::Text),
        "double" => Ok(UnconstrainedNumeric::Double),
        _ => decimal(text)
            .map(|(precision, scale)| UnconstrainedNumeric::Decimal { precision, scale })
            .ok_or_else(|| "text, double or decimal(P,S) such as decimal(38,9) is wanted".to_owned()),
    }
}

/// `column=choice`, the column as it is called in the output.
pub(super) fn column_policy(text: &str) -> Result<(String, ColumnChoice), String> {
    // A choice has no `=`, a column's name may, in double quotes as elsewhere or without them.
    let quoted = text.trim_start().starts_with('"').then(|| name(text).ok()).flatten();
    let (column, choice) =
        match quoted.as_ref().and_then(|(column, tail)| Some((column.as_str(), tail.strip_prefix('=')?))) {
            Some((column, choice)) if !choice.contains('=') => (column, choice),
            _ => text.rsplit_once('=').ok_or("COLUMN=CHOICE is wanted")?,
        };
    let parsed = ColumnChoice::parse(choice.trim()).ok_or_else(|| {
        let words = [
            "error", "null", "text", "json", "double", "keep", "trim", "replace", "bytes", "number", "string", "round",
            "raw",
        ];
        nearest(choice.trim(), words).map_or_else(
            || format!("{choice:?} is none of {}, decimal(P,S)", words.join(", ")),
            |near| format!("did you mean {near}?"),
        )
    })?;
    Ok((column.to_owned(), parsed))
}

/// `on`, `off`, `true`, `false`, `yes`, `no`, `1`, `0`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("on or off is wanted".to_owned()),
    }
}

/// A codec with its level, for a format; `default_level` has the level of a codec that is named without one.
pub(super) fn compression(
    text: &str,
    format: Format,
    default_level: impl Fn(&str) -> Option<String>,
) -> Result<Compression, String> {
    let (name, written) = match text.trim().split_once(':') {
        Some((name, level)) => (name, Some(level.to_owned())),
        None => (text.trim(), None),
    };
    let level = |range: std::ops::RangeInclusive<u32>| {
        let level = written.clone().or_else(|| default_level(name)).and_then(|level| level.parse().ok());
        let wanted = || format!("a level of {name} from {} to {} is wanted", range.start(), range.end());
        level.filter(|level| range.contains(level)).ok_or_else(wanted)
    };
    let codec = match name {
        "none" => Compression::None,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd(i32::try_from(level(1..=22)?).map_err(|error| error.to_string())?),
        "gzip" => Compression::Gzip(level(0..=9)?),
        _ => return Err("none, snappy, zstd[:level], gzip[:level] or lz4 is wanted".to_owned()),
    };
    match (format, codec) {
        (Format::Source, Compression::None) => Ok(codec),
        (Format::Source, _) => Err(format!("{name}: what the source writes itself is written as it comes")),
        (Format::Csv | Format::Ndjson, Compression::Snappy | Compression::Lz4) => {
            Err(format!("{name} is a codec of Parquet; CSV and NDJSON take none, zstd or gzip"))
        }
        (_, Compression::None | Compression::Snappy | Compression::Lz4) if written.is_some() => {
            Err(format!("{name} has no levels"))
        }
        _ => Ok(codec),
    }
}

/// One ASCII character other than quote, CR, LF and NUL; `\t` and `tab` are the tab.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(*byte),
        _ => Err("one ASCII character other than a quote or a line end is wanted, or \\t".to_owned()),
    }
}

/// What stands for NULL.
pub(super) fn csv_null(text: &str) -> Result<String, String> {
    if text.contains(['"', '\r', '\n', '\0']) {
        Err("text without quotes and line ends is wanted".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Names separated by commas: `a,"b, c"`.
///
/// Unquoted names are taken as they are: the catalog's `createdAt` is written `createdAt`. In double quotes any character
/// may stand, `""` for the quote itself.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, tail) = name(rest)?;
        names.push(name);
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if tail.is_empty() => return Ok(names),
            None => return Err(format!("a comma is wanted before {tail:?}, or double quotes around the whole name")),
        }
    }
}

/// Key terms: `created_at desc, id`. NULLs come last, in either direction.
pub(super) fn key(text: &str) -> Result<Vec<(String, Direction)>, String> {
    let mut terms = Vec::new();
    let mut rest = text;
    loop {
        let (name, tail) = name(rest)?;
        let (words, next) = tail.split_once(',').map_or((tail, None), |(words, next)| (words, Some(next)));
        let words: Vec<String> = words.split_whitespace().map(str::to_ascii_lowercase).collect();
        let direction = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] | ["asc"] | ["nulls", "last"] | ["asc", "nulls", "last"] => Direction::Asc,
            ["desc"] | ["desc", "nulls", "last"] => Direction::Desc,
            [.., "nulls", "first"] => return Err("NULLs come last in a key: leave nulls first out".to_owned()),
            _ => return Err(format!("columns with asc or desc are wanted, and {:?} is neither", words.join(" "))),
        };
        terms.push((name, direction));
        match next {
            Some(next) => rest = next,
            None => return Ok(terms),
        }
    }
}

/// `name=expression`, cut at the first `=` outside quotes.
pub(super) fn expression(text: &str) -> Result<(String, String), String> {
    const WANTED: &str = "NAME=EXPRESSION is wanted, as in 'total=price * quantity'";
    let (name, tail) = name(text).map_err(|why| format!("{WANTED}: {why}"))?;
    match tail.strip_prefix('=').map(str::trim) {
        Some(expression) if !expression.is_empty() => Ok((name, expression.to_owned())),
        _ => Err(WANTED.to_owned()),
    }
}

/// One word that a header can carry.
pub(super) fn word(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(text.to_owned()) } else { Err("a word without spaces is wanted".to_owned()) }
}

/// `key=value`, as S3 takes a tag.
pub(super) fn object_tag(text: &str) -> Result<(String, String), String> {
    const WANTED: &str = "KEY=VALUE is wanted, of at most 128 and 256 letters, digits, spaces and + - = . _ : / @";
    let (key, value) = text.split_once('=').ok_or(WANTED)?;
    let taken = |text: &str, most: usize| {
        text.chars().count() <= most && text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
    };
    if key.is_empty() || !taken(key, 128) || !taken(value, 256) {
        return Err(WANTED.to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `old=new`, each quoted where it must be.
pub(super) fn rename(text: &str) -> Result<(String, String), String> {
    const WANTED: &str = "OLD=NEW is wanted, as in id=order_id";
    let (old, tail) = name(text).map_err(|why| format!("{WANTED}: {why}"))?;
    let tail = tail.strip_prefix('=').ok_or_else(|| WANTED.to_owned())?;
    match name(tail).map_err(|why| format!("{WANTED}: {why}"))? {
        (new, "") => Ok((old, new)),
        _ => Err(WANTED.to_owned()),
    }
}

/// A table's name as in SQL: its schema, where there is one, and its own name, as the catalog has them.
pub(super) fn table(text: &str) -> Result<(Option<String>, String), String> {
    const WANTED: &str = "a name as in SQL is wanted: orders, public.orders or \"Order Items\"";
    let part = |text| {
        let (name, tail) = name_until(text, &['.']).map_err(|_| WANTED.to_owned())?;
        if name.contains('\0') {
            return Err(WANTED.to_owned());
        }
        let as_in_catalog = if text.trim_start().starts_with('"') { name } else { name.to_ascii_lowercase() };
        Ok::<_, String>((as_in_catalog, tail))
    };
    match part(text)? {
        (name, "") => Ok((None, name)),
        (schema, tail) => match part(tail.strip_prefix('.').unwrap_or_default())? {
            (name, "") => Ok((Some(schema), name)),
            _ => Err(WANTED.to_owned()),
        },
    }
}

/// # Errors
/// A table's name is longer than PostgreSQL has them: the server would cut it, and what is left may be another table.
pub(super) fn whole_name(text: &str) -> Result<(), String> {
    let long = |name: &String| name.len() > NAME_BYTES_MAX;
    match table(text) {
        Ok((schema, name)) if long(&name) || schema.as_ref().is_some_and(long) => {
            Err(format!("a name has {NAME_BYTES_MAX} bytes at most in PostgreSQL"))
        }
        _ => Ok(()),
    }
}

/// A table's name as a person wrote it, once it is known to be one.
pub(super) fn relation(text: &str) -> Result<String, String> {
    table(text)?;
    let text = text.trim();
    // No name has these without quotes, and the server would not say why it knows no such table.
    if !text.contains('"') && text.contains([',', '*']) {
        return Err("--table takes one name: run an export for each table".to_owned());
    }
    Ok(text.to_owned())
}

/// A name, and what follows it.
fn name(text: &str) -> Result<(String, &str), String> {
    name_until(text, &[',', '=', ' ', '\t', '\n', '\r'])
}

fn name_until<'a>(text: &'a str, ends: &[char]) -> Result<(String, &'a str), String> {
    let text = text.trim();
    let Some(mut rest) = text.strip_prefix('"') else {
        let (name, tail) = text.split_at(text.find(ends).unwrap_or(text.len()));
        return match name.chars().find(|c| c.is_whitespace() || *c == '"') {
            Some(_) => Err(format!("double quotes are wanted around {name:?}")),
            None if name.is_empty() => Err("a name is missing".to_owned()),
            None => Ok((name.to_owned(), tail.trim_start())),
        };
    };
    let mut name = String::new();
    while let Some((piece, tail)) = rest.split_once('"') {
        name.push_str(piece);
        match tail.strip_prefix('"') {
            Some(tail) => {
                name.push('"');
                rest = tail;
            }
            None if name.is_empty() => return Err("a name is empty".to_owned()),
            None => return Ok((name, tail.trim_start())),
        }
    }
    Err("a quote is never closed".to_owned())
}

/// A text that says something.
pub(super) fn text(text: &str) -> Result<String, String> {
    // What an editor put in front of a query's file is not of the query.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() { Err("it is empty: leave it out, or write one".to_owned()) } else { Ok(text.to_owned()) }
}

/// A file's name.
pub(super) fn path(written: &str) -> Result<PathBuf, String> {
    text(written).map(PathBuf::from)
}

/// A text that is judged once other options are known.
#[expect(clippy::unnecessary_wraps, reason = "it is a parser like the others")]
pub(super) fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A day, of four digits of a year and two of its month and day.
pub(crate) fn date(text: &str) -> Result<NaiveDate, String> {
    let date = written_day(text).filter(|_| !text.starts_with('-'));
    date.ok_or_else(|| "a date such as 2026-11-21 is wanted".to_owned())
}

/// A run id: 1 to 64 of `A-Za-z0-9._-:+`, beginning with none of `_.:+`: it stands in the names of objects, and what begins
/// with the first two is hidden from readers.
pub(super) fn run_id(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:+".contains(&byte));
    if fits && (1..=64).contains(&text.len()) && !text.starts_with(['_', '.', ':', '+']) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits or . _ - : + are wanted, the first a letter or a digit; in Airflow {{ ts_nodash }} is such \
             an id"
            .to_owned())
    }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
