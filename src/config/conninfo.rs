//! The forms in which libpq's users write connection settings: URLs, `key=value` pairs, lines of the password file. Pure.

use std::collections::BTreeMap;

/// libpq's parameters by name.
pub(super) type Parameters = BTreeMap<String, String>;

/// A URL or `key=value` pairs.
pub(super) fn parse(text: &str) -> Result<Parameters, String> {
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => parse_url(rest),
        None if text.contains("://") => {
            Err(format!("{}:// is not PostgreSQL", text.split("://").next().unwrap_or_default()))
        }
        None if text.contains('=') => parse_pairs(text),
        None => Err("this is neither a URL nor key=value pairs".to_owned()),
    }
}

/// `user:password@host:port,host:port/database?name=value` (PostgreSQL, "Connection URIs").
fn parse_url(rest: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (login, hosts),
        None => ("", authority),
    };
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let mut put = |name: &str, value: &str| -> Result<(), String> {
        if !value.is_empty() {
            parameters.insert(name.to_owned(), decode(value)?);
        }
        Ok(())
    };
    put("user", user)?;
    put("password", password.unwrap_or(""))?;
    put("dbname", database)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        // A bracketed IPv6 address holds colons of its own.
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("")),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    put("host", names.join(",").trim_matches(','))?;
    if ports.iter().any(|port| !port.is_empty()) {
        put("port", &ports.join(","))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not name=value"))?;
        put(&decode(name)?, value)?;
    }
    Ok(parameters)
}

/// `name=value name='quoted value'`, backslash before a quote or backslash.
fn parse_pairs(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| "a parameter has no value".to_owned())?;
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let body = if quoted { &after[1..] } else { after };
        let mut value = String::new();
        let mut end = None;
        let mut characters = body.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => value.extend(characters.next().map(|(_, next)| next)),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                blank if !quoted && blank.is_whitespace() => {
                    end = Some(at);
                    break;
                }
                other => value.push(other),
            }
        }
        if quoted && end.is_none() {
            return Err(format!("the quote of {} is never closed", name.trim()));
        }
        parameters.insert(name.trim().to_owned(), value);
        rest = body[end.unwrap_or(body.len())..].trim_start();
    }
    Ok(parameters)
}

fn decode(text: &str) -> Result<String, String> {
    let wrong = || "a % is not followed by two hexadecimal digits of a character".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Fields between colons; a backslash keeps the next character as it is.
pub(super) fn password_fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(characters.next()),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}
