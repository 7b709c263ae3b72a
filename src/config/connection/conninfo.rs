//! The two ways to write a connection down, as libpq reads them (`conninfo_uri_parse`, `conninfo_parse`).
//!
//! No error repeats any part of the string but the names of options, and these only where no mistake in quoting can have
//! made them of a password.

use super::keyword::KEYWORDS;
use super::{ConninfoParameter, Parameters};
use crate::config::{ConfigError, options};

const ENCODE: &str = "percent-encode / : @ ? % in user and password";

/// Reads a URL or a key=value string; `place` is where it was written.
pub(super) fn parse(text: &str, place: &str) -> Result<Parameters, ConfigError> {
    let mut out = ParsedConninfo { place, parameters: Parameters::new(), unclear: false };
    let url = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => out.read_url(rest)?,
        None if text.contains("://") || !text.contains('=') => {
            return Err(out.fault(
                "no URL of a source, and no key=value words",
                "write postgres://user@host:5432/database, clickhouse://user@host:8123/database (clickhouses:// with TLS), \
                 or 'host=… dbname=… user=…'",
            ));
        }
        None => out.read_words(text)?,
    }
    Ok(out.parameters)
}

/// Reads what follows the scheme of a URL.
pub(super) fn parse_url(rest: &str, place: &str) -> Result<Parameters, ConfigError> {
    let mut out = ParsedConninfo { place, parameters: Parameters::new(), unclear: false };
    out.read_url(rest)?;
    Ok(out.parameters)
}

/// Adds one `key=value` to parameters; shared with the service file. Unless the string is `clear`, the key may be a part of
/// a password, and is not repeated where it is not known.
pub(super) fn add(
    parameters: &mut Parameters,
    place: &str,
    (name, value): (&str, String),
    clear: bool,
) -> Result<(), ConfigError> {
    let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) else {
        let near = options::nearest(name, KEYWORDS.iter().map(|keyword| keyword.name));
        return Err(match near {
            Some(near) => ConfigError::new(format!("{place}: no option {name:?}"), format!("did you mean {near}?")),
            None if clear && may_be_shown(parameters, name) => {
                let hint = "it is none of libpq's connection parameters: leave it out";
                ConfigError::new(format!("{place}: no option {name:?}"), hint)
            }
            None => ConfigError::new(format!("{place}: an unknown option"), "check the quoting, or leave it out"),
        });
    };
    parameters.insert(keyword.name, ConninfoParameter { value, place: format!("{place}: {}", keyword.name) });
    Ok(())
}

/// Whether a key is a word that cannot be the rest of a password, since none has come before it.
fn may_be_shown(parameters: &Parameters, key: &str) -> bool {
    const SECRET: [&str; 4] = ["password", "sslpassword", "scram_client_key", "scram_server_key"];
    let word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (1..=63).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(word)
        && !SECRET.iter().any(|secret| parameters.contains_key(secret))
}

struct ParsedConninfo<'a> {
    place: &'a str,
    /// Whether what stands in place of options may be a part of a password.
    unclear: bool,
    parameters: Parameters,
}

impl ParsedConninfo<'_> {
    fn fault(&self, what: &str, hint: &str) -> ConfigError {
        ConfigError::new(format!("{}: {what}", self.place), hint)
    }

    fn add(&mut self, key: &str, value: String) -> Result<(), ConfigError> {
        add(&mut self.parameters, self.place, (key, value), !self.unclear)
    }

    fn add_decoded(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let value = self.decode(value)?;
        self.add(key, value)
    }

    fn decode(&self, text: &str) -> Result<String, ConfigError> {
        let bad = || self.fault("percent-encoding that is not two hexadecimal digits of UTF-8", ENCODE);
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte != b'%' {
                out.push(byte);
                continue;
            }
            let (digits, tail) = rest.split_at_checked(2).ok_or_else(bad)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(bad());
            }
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            out.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            rest = tail;
        }
        if out.contains(&0) {
            return Err(bad());
        }
        String::from_utf8(out).map_err(|_| bad())
    }

    fn read_url(&mut self, rest: &str) -> Result<(), ConfigError> {
        // libpq takes everything before the first @ for user and password, unless a slash comes before it.
        let rest = match rest.find(['@', '/']) {
            Some(at) if rest.as_bytes().get(at) == Some(&b'@') => {
                let (user, host) = rest.split_at(at);
                let (user, password) = user.split_once(':').map_or((user, ""), |(user, password)| (user, password));
                if !user.is_empty() {
                    self.add_decoded("user", user)?;
                }
                if !password.is_empty() {
                    self.add_decoded("password", password)?;
                }
                host.get(1..).unwrap_or_default()
            }
            _ => rest,
        };
        let (address, query) = rest.split_once('?').map_or((rest, ""), |(address, query)| (address, query));
        let (hosts, database) = address.split_once('/').map_or((address, ""), |(hosts, database)| (hosts, database));
        self.read_hosts(hosts)?;
        if !database.is_empty() {
            self.add_decoded("dbname", database)?;
        }
        // In front of a raw @ there may be a password whose slash and question mark are not encoded.
        self.unclear = query.contains('@');
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(self.fault("an option without a value behind the ?", "write ?key=value"));
            };
            match (self.decode(key)?.as_str(), value) {
                // JDBC's word, which libpq understands too.
                ("ssl", "true") => self.add("sslmode", "require".to_owned())?,
                (key, value) => self.add_decoded(key, value)?,
            }
        }
        Ok(())
    }

    fn read_hosts(&mut self, text: &str) -> Result<(), ConfigError> {
        let mut hosts = Vec::new();
        let mut ports = Vec::new();
        for item in text.split(',') {
            let (host, port) = if let Some(address) = item.strip_prefix('[') {
                let Some((address, tail)) = address.split_once(']') else {
                    return Err(self.fault("an IPv6 address without its closing bracket", "write it as in [::1]:5432"));
                };
                match tail.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if tail.is_empty() => (address, ""),
                    None => return Err(self.fault("something follows an IPv6 address", "write it as in [::1]:5432")),
                }
            } else {
                item.split_once(':').map_or((item, ""), |(host, port)| (host, port))
            };
            hosts.push(self.decode(host)?);
            ports.push(self.decode(port)?);
        }
        if hosts.iter().any(|host| !host.is_empty()) {
            self.add("host", hosts.join(","))?;
        }
        if ports.iter().any(|port| !port.is_empty()) {
            self.add("port", ports.join(","))?;
        }
        Ok(())
    }

    fn read_words(&mut self, text: &str) -> Result<(), ConfigError> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((key, tail)) = rest.split_once('=') else {
                return Err(self.fault("a word without =", "write key=value words, values with spaces in '…'"));
            };
            let (value, tail) = self.read_value(tail.trim_start())?;
            self.add(key.trim_end(), value)?;
            rest = tail.trim_start();
        }
        Ok(())
    }

    /// A value, in single quotes or up to white space; a backslash takes the next character as it is.
    fn read_value<'a>(&self, text: &'a str) -> Result<(String, &'a str), ConfigError> {
        let quoted = text.starts_with('\'');
        let mut chars = text.char_indices().skip(usize::from(quoted));
        let mut value = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                '\'' if quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
                c if !quoted && c.is_ascii_whitespace() => return Ok((value, text.get(at..).unwrap_or_default())),
                c => value.push(c),
            }
        }
        if quoted { Err(self.fault("a single quote stays open", "close it")) } else { Ok((value, "")) }
    }
}
