//! What is asked for: flags become the path and the JSON body of a request.

use std::fmt::Write as _;

use clap::ArgMatches;
use serde_json::{Map, Value, json};

/// A request for rows.
#[derive(Debug, PartialEq)]
pub(crate) struct PullRequest {
    /// The path behind the service's own.
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) format: PullFormat,
}

/// The formats of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullFormat {
    Ndjson,
    Csv,
}

impl PullFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    /// The media type that says it.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

/// Makes the request; what is wrong with a filter or an order where it makes no sense.
pub(crate) fn request(matches: &ArgMatches) -> Result<PullRequest, String> {
    let word = |id: &str| matches.get_one::<String>(id).map(String::as_str);
    let dataset = segment(word("dataset").unwrap_or_default());
    let file = word("output").unwrap_or_default();
    let format = match word("format") {
        Some("csv") => PullFormat::Csv,
        None if file.to_ascii_lowercase().ends_with(".csv") => PullFormat::Csv,
        _ => PullFormat::Ndjson,
    };
    let mut body = Map::new();
    body.insert("format".to_owned(), format.name().into());
    let columns: Vec<&str> = many(matches, "columns").flat_map(|list| list.split(',')).map(str::trim).collect();
    if !columns.is_empty() {
        body.insert("columns".to_owned(), columns.into());
    }
    let path = match (word("analysis"), word("bucket_key")) {
        (Some(analysis), Some(key)) => {
            body.insert("bucket_key".to_owned(), key.into());
            format!("/v1/analyze/{dataset}/{}/rows/export", segment(analysis))
        }
        _ => format!("/v1/query/{dataset}/export"),
    };
    let filters: Vec<Value> = many(matches, "filter").map(filter).collect::<Result<_, _>>()?;
    if !filters.is_empty() {
        body.insert("where".to_owned(), filters.into());
    }
    let days: Map<String, Value> = [("from", "date_from"), ("to", "date_to")]
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), word(id)?.into())))
        .collect();
    if !days.is_empty() {
        body.insert("date_range".to_owned(), days.into());
    }
    let order: Vec<Value> = many(matches, "order_by").map(order).collect::<Result<_, _>>()?;
    if !order.is_empty() {
        body.insert("order_by".to_owned(), order.into());
    }
    if matches.get_flag("allow_empty") {
        body.insert("allow_empty".to_owned(), true.into());
    }
    if format == PullFormat::Ndjson {
        body.insert("end_record".to_owned(), true.into());
    }
    Ok(PullRequest { path, body: body.into(), format })
}

fn many<'a>(matches: &'a ArgMatches, id: &str) -> impl Iterator<Item = &'a str> {
    matches.get_many::<String>(id).into_iter().flatten().map(String::as_str)
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Operators that are words, the longer first where one begins with another.
const WORDS: [(&str, usize); 5] = [("is not null", 0), ("is null", 0), ("between", 2), ("in", usize::MAX), ("like", 1)];

/// Operators that are signs, the longer first.
const SIGNS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];

/// `status=new`, `amount >= 10`, `status in new,paid`, `day between 2026-01-01,2026-02-01`, `note is null`.
fn filter(text: &str) -> Result<Value, String> {
    let wrong = || {
        format!(
            "--filter {text:?}: write COLUMN OPERATOR VALUE, such as 'status=new', 'amount >= 10', 'status in new,paid', \
             'day between 2026-01-01,2026-02-01' or 'note is null'"
        )
    };
    // At its end a space is of the value.
    let text = text.trim_start();
    let start = text.find(|c: char| c.is_whitespace() || "!<>=".contains(c)).ok_or_else(wrong)?;
    let (column, rest) = text.split_at(start);
    if column.is_empty() {
        return Err(wrong());
    }
    let spaced = rest.starts_with(char::is_whitespace);
    let rest = rest.trim_start();
    if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        // What follows the operator is the value, a space at its end too.
        let value = rest[sign.len()..].strip_prefix(' ').unwrap_or(&rest[sign.len()..]);
        return Ok(json!({"column": column, "op": sign, "value": value}));
    }
    for (word, values) in WORDS {
        let Some(after) = rest.get(..word.len()).filter(|start| spaced && start.eq_ignore_ascii_case(word)) else {
            continue;
        };
        let value = &rest[after.len()..];
        if !value.is_empty() && !value.starts_with(char::is_whitespace) {
            continue;
        }
        // One blank parts the word from what follows.
        let value = value.strip_prefix(char::is_whitespace).unwrap_or(value);
        let list: Vec<&str> = value.split(',').map(str::trim_start).collect();
        return match values {
            0 if value.trim().is_empty() => Ok(json!({"column": column, "op": word})),
            1 if !value.is_empty() => Ok(json!({"column": column, "op": word, "value": value})),
            2 if list.len() == 2 => Ok(json!({"column": column, "op": word, "values": list})),
            usize::MAX if !value.is_empty() => Ok(json!({"column": column, "op": word, "values": list})),
            _ => Err(wrong()),
        };
    }
    Err(wrong())
}

/// `id`, `id:desc`.
fn order(text: &str) -> Result<Value, String> {
    let (column, direction) = text.rsplit_once(':').unwrap_or((text, "asc"));
    if column.is_empty() || !["asc", "desc"].contains(&direction) {
        return Err(format!("--order-by {text:?}: write COLUMN, COLUMN:asc or COLUMN:desc"));
    }
    Ok(json!({"column": column, "direction": direction}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn asked(words: &[&str]) -> Result<PullRequest, String> {
        let line = ["outhaul", "pull", "http://localhost", "--dataset", "a b/ü", "-o", "-"].iter().chain(words);
        let matches = args::command().try_get_matches_from(line).unwrap();
        request(matches.subcommand().unwrap().1)
    }

    #[test]
    fn flags_become_the_body() {
        let asked = asked(&[
            "--columns",
            "id, total",
            "--columns=note",
            "--filter",
            "status=new",
            "--order-by",
            "id:desc",
            "--date-from",
            "2026-01-01",
            "--allow-empty",
        ])
        .unwrap();
        assert_eq!(asked.path, "/v1/query/a%20b%2F%C3%BC/export");
        let expected = json!({
            "format": "ndjson", "columns": ["id", "total", "note"],
            "where": [{"column": "status", "op": "=", "value": "new"}],
            "date_range": {"from": "2026-01-01"}, "order_by": [{"column": "id", "direction": "desc"}],
            "allow_empty": true, "end_record": true,
        });
        assert_eq!(asked.body, expected);
    }

    #[test]
    fn a_bucket_has_a_path_of_its_own() {
        let asked = asked(&["--analysis", "by_status", "--bucket-key", "v1.x", "--format", "csv"]).unwrap();
        assert_eq!(asked.path, "/v1/analyze/a%20b%2F%C3%BC/by_status/rows/export");
        assert_eq!(asked.body, json!({"format": "csv", "bucket_key": "v1.x"}));
        let line = ["outhaul", "pull", "http://localhost", "--dataset", "d", "-o", "-", "--analysis", "a"];
        args::command().try_get_matches_from(line).unwrap_err();
    }

    #[test]
    fn filters_are_read_as_they_are_written() {
        let good = [
            ("a=1", json!({"column": "a", "op": "=", "value": "1"})),
            ("a = b=c", json!({"column": "a", "op": "=", "value": "b=c"})),
            ("a!=", json!({"column": "a", "op": "!=", "value": ""})),
            ("a<=-1", json!({"column": "a", "op": "<=", "value": "-1"})),
            ("a >  x", json!({"column": "a", "op": ">", "value": " x"})),
            ("  a=x ", json!({"column": "a", "op": "=", "value": "x "})),
            ("a = x  ", json!({"column": "a", "op": "=", "value": "x  "})),
            ("a in x, y", json!({"column": "a", "op": "in", "values": ["x", "y"]})),
            ("a in  x , y ", json!({"column": "a", "op": "in", "values": ["x ", "y "]})),
            ("a between 1, 2 ", json!({"column": "a", "op": "between", "values": ["1", "2 "]})),
            ("a is null ", json!({"column": "a", "op": "is null"})),
            ("a like  %x ", json!({"column": "a", "op": "like", "value": " %x "})),
            ("a IN x", json!({"column": "a", "op": "in", "values": ["x"]})),
            ("a between 1,2", json!({"column": "a", "op": "between", "values": ["1", "2"]})),
            ("a is null", json!({"column": "a", "op": "is null"})),
            ("a is not null", json!({"column": "a", "op": "is not null"})),
            ("a like x%", json!({"column": "a", "op": "like", "value": "x%"})),
        ];
        for (text, expected) in good {
            assert_eq!(filter(text).unwrap(), expected, "{text}");
        }
        for text in ["", "a", "=1", "a between 1", "a is", "a inside x", "a is nullish", "a in", "a ~ x", "ü in"] {
            filter(text).unwrap_err();
        }
    }

    #[test]
    fn the_file_s_name_says_the_format() {
        let format = |words: &[&str]| {
            let line = ["outhaul", "pull", "http://localhost", "--dataset", "d"].iter().chain(words);
            request(args::command().try_get_matches_from(line).unwrap().subcommand().unwrap().1).unwrap().format
        };
        assert_eq!(format(&["-o", "x.CSV"]), PullFormat::Csv);
        assert_eq!(format(&["-o", "x.csv", "--format", "ndjson"]), PullFormat::Ndjson);
        assert_eq!(format(&["-o", "x"]), PullFormat::Ndjson);
    }
}
