//! Parsers of single values: sizes, codecs, keys, names. Each error says what would be right.

use std::num::NonZeroU64;

use crate::encode::{Compression, Format};
use crate::plan::Direction;

/// A size in bytes: `268435456`, `256MiB`, `64MB`, `8k`.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn size(text: &str) -> Result<NonZeroU64, String> {
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

/// A count of at least 1; `_` may group its digits.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn count(text: &str) -> Result<NonZeroU64, String> {
    text.trim().replace('_', "").parse().map_err(|_| "a whole number of 1 or more is wanted".to_owned())
}

/// `on`, `off`, `true`, `false`, `yes`, `no`, `1`, `0`.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("on or off is wanted".to_owned()),
    }
}

/// A codec with its level, for a format.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn compression(text: &str, format: Format) -> Result<Compression, String> {
    let (name, level) = match text.trim().split_once(':') {
        Some((name, level)) => (name, Some(level)),
        None => (text.trim(), None),
    };
    let level = |default: u32, range: std::ops::RangeInclusive<u32>| match level {
        None => Ok(default),
        Some(level) => match level.parse() {
            Ok(level) if range.contains(&level) => Ok(level),
            _ => Err(format!("a level of {name} from {} to {} is wanted", range.start(), range.end())),
        },
    };
    let codec = match name {
        "none" | "uncompressed" => Compression::None,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd(i32::try_from(level(1, 1..=22)?).map_err(|error| error.to_string())?),
        "gzip" => Compression::Gzip(level(6, 0..=9)?),
        _ => return Err("none, snappy, zstd[:level], gzip[:level] or lz4 is wanted".to_owned()),
    };
    match (format, codec) {
        (Format::Csv | Format::Ndjson, Compression::Snappy | Compression::Lz4) => {
            Err(format!("{name} is a codec of Parquet; CSV and NDJSON take none, zstd or gzip"))
        }
        (_, Compression::None | Compression::Snappy | Compression::Lz4) if text.contains(':') => {
            Err(format!("{name} has no levels"))
        }
        _ => Ok(codec),
    }
}

/// One ASCII character other than quote, CR, LF and NUL; `\t` and `tab` are the tab.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(*byte),
        _ => Err("one ASCII character other than a quote or a line end is wanted, or \\t".to_owned()),
    }
}

/// Names separated by commas, quoted as in SQL where they hold a comma, a blank or capitals that must stay.
///
/// Unquoted names are taken as they are: the catalog's `createdAt` is written `createdAt`.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn names(text: &str) -> Result<Vec<String>, String> {
    let mut terms = Vec::new();
    for term in split(text)? {
        terms.push(name(&term)?);
    }
    Ok(terms)
}

/// Key terms: `created_at desc, id`.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn key(text: &str) -> Result<Vec<(String, Direction)>, String> {
    let mut terms = Vec::new();
    for term in split(text)? {
        let term = term.trim();
        let (column, direction) = match term.rsplit_once(char::is_whitespace) {
            Some((column, word)) if word.eq_ignore_ascii_case("desc") => (column, Direction::Desc),
            Some((column, word)) if word.eq_ignore_ascii_case("asc") => (column, Direction::Asc),
            _ => (term, Direction::Asc),
        };
        terms.push((name(column)?, direction));
    }
    Ok(terms)
}

/// `name=value`, cut at the first `=` outside quotes.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn pair(text: &str, wanted: &str) -> Result<(String, String), String> {
    let mut quoted = false;
    let cut = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '=' && !quoted
    });
    match cut {
        Some((at, _)) => {
            let value = text[at + 1..].trim();
            if value.is_empty() {
                return Err(format!("{wanted} is wanted"));
            }
            Ok((name(&text[..at])?, value.to_owned()))
        }
        None => Err(format!("{wanted} is wanted")),
    }
}

/// One name, with its quotes taken off.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('"') {
        let inner = rest.strip_suffix('"').filter(|inner| inner.replace("\"\"", "").find('"').is_none());
        return match inner {
            Some(inner) if !inner.is_empty() => Ok(inner.replace("\"\"", "\"")),
            _ => Err(format!("{text} is not a quoted name")),
        };
    }
    if text.is_empty() { Err("a name is missing".to_owned()) } else { Ok(text.to_owned()) }
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut terms = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        quoted ^= character == '"';
        match terms.last_mut() {
            Some(last) if character != ',' || quoted => last.push(character),
            _ => terms.push(String::new()),
        }
    }
    if quoted { Err("a quote is never closed".to_owned()) } else { Ok(terms) }
}

/// A run id: 1 to 64 of `A-Za-z0-9._-`, not beginning with `_` or `.`.
///
/// # Errors
/// What is wanted instead, in a person's words.
pub fn run_id(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits && (1..=64).contains(&text.len()) && !text.starts_with(['_', '.']) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits, dots, dashes or underscores are wanted, the first a letter or a digit".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1", 1), ("256MiB", 256 << 20), ("64MB", 64_000_000), ("8k", 8192), ("1_000", 1000)] {
            assert_eq!(size(text).unwrap().get(), bytes, "{text}");
        }
        for wrong in ["", "0", "MiB", "1.5GiB", "-1", "1 parsec", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codecs_and_their_formats() {
        assert_eq!(compression("zstd", Format::Parquet), Ok(Compression::Zstd(1)));
        assert_eq!(compression("zstd:19", Format::Csv), Ok(Compression::Zstd(19)));
        assert_eq!(compression("gzip:9", Format::Ndjson), Ok(Compression::Gzip(9)));
        assert!(compression("snappy", Format::Csv).unwrap_err().contains("Parquet"));
        assert!(compression("zstd:23", Format::Parquet).unwrap_err().contains("1 to 22"));
        assert!(compression("brotli", Format::Parquet).is_err());
        assert!(compression("none:1", Format::Csv).is_err());
    }

    #[test]
    fn keys_and_names() {
        assert_eq!(
            key("created_at desc, id").unwrap(),
            [("created_at".to_owned(), Direction::Desc), ("id".to_owned(), Direction::Asc)]
        );
        assert_eq!(key(r#""a,b" DESC"#).unwrap(), [("a,b".to_owned(), Direction::Desc)]);
        assert_eq!(names(r#"a,"b ""c""",d"#).unwrap(), ["a", "b \"c\"", "d"]);
        assert!(names("a,,b").is_err());
        assert!(names(r#"a,"b"#).is_err());
    }

    #[test]
    fn pairs_are_cut_at_the_first_equals() {
        assert_eq!(pair("total=a = b", "x").unwrap(), ("total".to_owned(), "a = b".to_owned()));
        assert_eq!(pair(r#""a=b"=c"#, "x").unwrap(), ("a=b".to_owned(), "c".to_owned()));
        assert!(pair("total", "name=expression").is_err());
        assert!(pair("total=", "name=expression").is_err());
    }

    #[test]
    fn run_ids() {
        assert!(run_id("nightly-2026-11-21.a_b").is_ok());
        for wrong in ["", ".a", "_a", "a/b", "a b", &"x".repeat(65)] {
            assert!(run_id(wrong).is_err(), "{wrong}");
        }
    }
}
