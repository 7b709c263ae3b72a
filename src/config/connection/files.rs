//! `~/.pg_service.conf` and `~/.pgpass`, as libpq reads them.

use super::Parameters;
use super::conninfo;
use crate::config::ConfigError;

/// The parameters of one service, or `None` where the file does not define it.
pub(super) fn service(text: &str, service: &str, file: &str) -> Result<Option<Parameters>, ConfigError> {
    let mut found: Option<Parameters> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Parameters::new);
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        let place = format!("{file}:{}", index + 1);
        match line.split_once('=') {
            Some(("service", _)) => {
                return Err(ConfigError::new(
                    format!("{place}: a service cannot name another"),
                    "write its options out",
                ));
            }
            Some((key, value)) => {
                // The first one written counts.
                let mut one = Parameters::new();
                conninfo::add(&mut one, &place, (key.trim(), value.trim().to_owned()), true)?;
                for (keyword, parameter) in one {
                    parameters.entry(keyword).or_insert(parameter);
                }
            }
            None => return Err(ConfigError::new(format!("{place}: a line without ="), "write key=value")),
        }
    }
    Ok(found)
}

/// The password of the first line that matches: `host:port:database:user:password`, `*` for anything, a backslash
/// before a colon or backslash that is meant as such.
pub(super) fn password(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let port = port.to_string();
    let wanted = [host, port.as_str(), database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            rest = field(rest, wanted)?;
        }
        let password = unescape(rest);
        (!password.is_empty()).then_some(password)
    })
}

/// What follows a line's first field, where that matches.
fn field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    let (found, tail) = line.split_at(end);
    (found == "*" || unescape(found) == wanted).then(|| tail.get(1..).unwrap_or_default())
}

fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        // A backslash at the end stands for itself.
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}
