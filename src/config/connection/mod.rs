//! Connection settings by libpq's rules: a URL or key=value string, then the service file, then `PG*` variables, then
//! the password file, then defaults.
//!
//! Where Outhaul differs from libpq: `sslmode` is verify-full for remote hosts unless set, `allow` is refused, and so
//! is a password on the command line, where every user of the machine can read it.

mod clickhouse;
mod conninfo;
mod files;
mod keyword;
mod password;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::keyword::{KEYWORDS, Use};
use super::raw::{Origin, Raw};
use super::{ConfigError, Environment};
use crate::base::http::CodingChoice;
use crate::base::postgres::settings::{CONNECT_TIMEOUT, ConnectSettings, ServerAddress, TargetSessionAttrs};
use crate::base::words::counted;
use crate::source::Source;
use crate::source::clickhouse::ClickHouse;
use crate::source::postgres::Postgres;

/// Where libpq looks for a server unless told otherwise: Debian's place, then PostgreSQL's own.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// One of libpq's parameters, with the place it was written at. Its value may be a password: no `Debug`.
struct ConninfoParameter {
    value: String,
    place: String,
}

/// Parameters by libpq's keyword.
type Parameters = BTreeMap<&'static str, ConninfoParameter>;

/// Where the rows are: the source that `--from` names.
///
/// # Errors
/// As [`settings`].
pub(super) fn source(raw: &Raw, environment: &Environment) -> Result<Arc<dyn Source>, Vec<ConfigError>> {
    let written = written(raw, environment).map_err(|error| vec![error])?;
    if written.as_ref().is_some_and(|written| clickhouse::is_meant(&written.text)) {
        let settings = clickhouse::settings(raw, environment)?;
        return Ok(Arc::new(ClickHouse::new(settings)));
    }
    Ok(Arc::new(Postgres::new(settings(raw, environment)?)))
}

/// Whether the source is a ClickHouse server.
pub(super) fn is_clickhouse(raw: &Raw, environment: &Environment) -> bool {
    written(raw, environment).is_ok_and(|written| written.is_some_and(|written| clickhouse::is_meant(&written.text)))
}

/// What says where the server is, and where that was written. It may hold a password: no `Debug`.
struct WrittenConnection {
    text: String,
    place: String,
    on_command_line: bool,
}

/// What `--from` says, or else `DATABASE_URL`; `None` where neither is there.
fn written(raw: &Raw, environment: &Environment) -> Result<Option<WrittenConnection>, ConfigError> {
    let given = raw.get("from").and_then(|setting| Some((setting.values.first()?.clone(), &setting.origin)));
    let Some((text, origin)) = given else {
        let of_variable = |text| WrittenConnection { text, place: "DATABASE_URL".to_owned(), on_command_line: false };
        return Ok(environment.get("DATABASE_URL").map(of_variable));
    };
    let Some(name) = text.strip_prefix("env:") else {
        let on_command_line = matches!(origin, Origin::Flag(_));
        return Ok(Some(WrittenConnection { text, place: origin.to_string(), on_command_line }));
    };
    match environment.get(name) {
        Some(text) => Ok(Some(WrittenConnection { text, place: name.to_owned(), on_command_line: false })),
        None => Err(ConfigError::new(format!("{origin}: the variable {name} is not set"), "set it, or name another")),
    }
}

/// Finds out how to connect to PostgreSQL.
///
/// # Errors
/// Every mistake; none shows a password, nor any part of a string that may hold one.
pub(super) fn settings(raw: &Raw, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
    let mut resolver = Resolver { environment, parameters: Parameters::new(), exposed: Vec::new(), errors: Vec::new() };
    resolver.read_string(raw);
    resolver.read_service();
    resolver.read_variables();
    resolver.check_uses();
    let settings = resolver.settings(raw);
    match settings {
        Some(settings) if resolver.errors.is_empty() => Ok(settings),
        _ => Err(resolver.errors),
    }
}

struct Resolver<'a> {
    environment: &'a Environment,
    parameters: Parameters,
    /// Files that hold a password and that others can read.
    exposed: Vec<PathBuf>,
    errors: Vec<ConfigError>,
}

impl Resolver<'_> {
    fn fault(&mut self, place: impl Display, what: impl Display, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(format!("{place}: {what}"), hint));
    }

    fn read_string(&mut self, raw: &Raw) {
        let (text, place, on_command_line) = match written(raw, self.environment) {
            Ok(Some(written)) => (written.text, written.place, written.on_command_line),
            Ok(None) => return,
            Err(error) => return self.errors.push(error),
        };
        match conninfo::parse(&text, &place) {
            Ok(parameters) => self.parameters = parameters,
            Err(error) => return self.errors.push(error),
        }
        self.check_password_in_string(raw, on_command_line, false);
    }

    fn read_service(&mut self) {
        let named = |keyword, variable: &str| {
            let parameter: Option<&ConninfoParameter> = self.parameters.get(keyword);
            parameter.map(|parameter| parameter.value.clone()).or_else(|| self.environment.get(variable))
        };
        let Some(service) = named("service", "PGSERVICE") else { return };
        let files: Vec<PathBuf> = match named("servicefile", "PGSERVICEFILE") {
            Some(file) => vec![PathBuf::from(file)],
            None => self.in_home(".pg_service.conf").into_iter().collect(),
        };
        let system = self.environment.get("PGSYSCONFDIR").map(|folder| Path::new(&folder).join("pg_service.conf"));
        for file in files.into_iter().chain(system) {
            let Ok(text) = self.environment.read(&file) else { continue };
            match files::service(&text, &service, &file.display().to_string()) {
                Ok(Some(parameters)) => {
                    if parameters.contains_key("password") {
                        self.note_if_open(&file);
                    }
                    for (keyword, parameter) in parameters {
                        self.parameters.entry(keyword).or_insert(parameter);
                    }
                    return;
                }
                Ok(None) => {}
                Err(error) => return self.errors.push(error),
            }
        }
        self.fault(
            "service",
            format!("no service {service:?} in the service file"),
            "define it in ~/.pg_service.conf, or name the file with PGSERVICEFILE",
        );
    }

    fn read_variables(&mut self) {
        for keyword in KEYWORDS {
            let Some(variable) = keyword.variable else { continue };
            if let Some(value) = self.environment.get(variable) {
                let parameter = ConninfoParameter { value, place: variable.to_owned() };
                self.parameters.entry(keyword.name).or_insert(parameter);
            }
        }
    }

    /// Refuses what this version cannot honour.
    fn check_uses(&mut self) {
        for keyword in KEYWORDS {
            let Some(parameter) = self.parameters.get(keyword.name) else { continue };
            let place = parameter.place.clone();
            match keyword.used {
                Use::Read => {}
                Use::Only(values) if values.contains(&parameter.value.to_ascii_lowercase().as_str()) => {}
                Use::Only([]) => {
                    self.fault(place, format!("{} is not in this version yet", keyword.name), "leave it out");
                }
                Use::Only(values) => {
                    let what =
                        format!("{} other than {} is not in this version yet", keyword.name, values.join(" or "));
                    self.fault(place, what, "leave it out");
                }
            }
        }
    }

    fn text(&self, keyword: &str) -> Option<&str> {
        self.parameters.get(keyword).map(|parameter| parameter.value.as_str()).filter(|value| !value.is_empty())
    }

    fn place(&self, keyword: &str) -> String {
        self.parameters.get(keyword).map_or_else(|| keyword.to_owned(), |parameter| parameter.place.clone())
    }

    fn settings(&mut self, raw: &Raw) -> Option<ConnectSettings> {
        let addresses = self.addresses();
        let (ssl_mode, ssl_root_cert) = self.ssl(&addresses);
        let ssl_cert = self.ssl_cert(ssl_mode);
        let channel_binding = self.channel_binding(ssl_mode);
        let target_session_attrs = self.target_session_attrs();
        let connect_timeout = self.connect_timeout();
        let Some(user) = self.text("user").or(self.environment.user.as_deref()).map(str::to_owned) else {
            self.fault("user", "nothing says which role to connect as", "write it into --from, or set PGUSER");
            return None;
        };
        let database = self.text("dbname").unwrap_or(&user).to_owned();
        let password = self.password(raw, &addresses, &user, &database);
        let says_where = ["host", "hostaddr", "port", "dbname", "service"];
        Some(ConnectSettings {
            nowhere: says_where.into_iter().all(|keyword| self.text(keyword).is_none()),
            addresses,
            user,
            password,
            database,
            options: self.options(),
            ssl_mode,
            ssl_root_cert,
            ssl_cert,
            channel_binding,
            target_session_attrs,
            connect_timeout,
            compression: CodingChoice::AsNeeded,
            exposed: std::mem::take(&mut self.exposed),
        })
    }

    /// The backend's options. `PGDATESTYLE` is one of them, as libpq sends it: it says how people's SQL reads `2/3/2026`.
    fn options(&self) -> Option<String> {
        let date_style = self.environment.get("PGDATESTYLE").map(|style| {
            let escaped = style.replace('\\', "\\\\").replace(' ', "\\ ");
            format!("-c DateStyle={escaped}")
        });
        let parts: Vec<String> = self.text("options").map(str::to_owned).into_iter().chain(date_style).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    fn addresses(&mut self) -> Vec<ServerAddress> {
        let hosts: Vec<String> = self.text("host").unwrap_or_default().split(',').map(str::to_owned).collect();
        let ports: Vec<String> = self.text("port").unwrap_or_default().split(',').map(str::to_owned).collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            let what = format!("{} for {}", counted(ports.len(), "port"), counted(hosts.len(), "host"));
            self.fault(self.place("port"), what, "write one port for all, or one for each");
            return Vec::new();
        }
        let mut addresses = Vec::with_capacity(hosts.len());
        for (index, host) in hosts.iter().enumerate() {
            let written = ports.get(index).or(ports.first()).map_or("", String::as_str).trim();
            let port = if written.is_empty() { Ok(DEFAULT_PORT) } else { written.parse().map(NonZeroU16::get) };
            // A password whose slash is not percent-encoded ends up as a port: the text is not repeated.
            let Ok(port) = port else {
                let hint = "write 1 to 65535; in a URL, percent-encode / : @ ? in user and password";
                self.fault(self.place("port"), "a port is not a number from 1 to 65535", hint);
                continue;
            };
            let host = host.trim();
            if host.is_empty() {
                let folders = SOCKET_FOLDERS.iter().map(|folder| ServerAddress::Unix { folder: folder.into(), port });
                addresses.extend(folders);
            } else if host.starts_with('/') {
                addresses.push(ServerAddress::Unix { folder: host.into(), port });
            } else if host.contains(['@', '/']) {
                let hint = "in a URL, percent-encode / : @ ? in user and password";
                self.fault(self.place("host"), "a host name contains @ or /", hint);
            } else {
                addresses.push(ServerAddress::Tcp { host: host.to_owned(), port });
            }
        }
        addresses
    }

    fn target_session_attrs(&mut self) -> TargetSessionAttrs {
        let Some(word) = self.text("target_session_attrs") else { return TargetSessionAttrs::Any };
        match word {
            "any" => TargetSessionAttrs::Any,
            "read-write" => TargetSessionAttrs::ReadWrite,
            "read-only" => TargetSessionAttrs::ReadOnly,
            "primary" => TargetSessionAttrs::Primary,
            "standby" => TargetSessionAttrs::Standby,
            "prefer-standby" => TargetSessionAttrs::PreferStandby,
            other => {
                let what = format!("{other:?} is not one of target_session_attrs");
                let hint = "write any, read-write, read-only, primary, standby or prefer-standby";
                self.fault(self.place("target_session_attrs"), what, hint);
                TargetSessionAttrs::Any
            }
        }
    }

    /// libpq waits for ever at 0 and below; Outhaul as long as it does unless told.
    fn connect_timeout(&mut self) -> Duration {
        let Some(text) = self.text("connect_timeout") else { return CONNECT_TIMEOUT };
        match text.trim().parse::<i32>().map(u64::try_from) {
            Ok(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds),
            Ok(_) => CONNECT_TIMEOUT,
            Err(_) => {
                let what = format!("{text:?} is not a whole number of seconds");
                self.fault(self.place("connect_timeout"), what, "write it as in 10");
                CONNECT_TIMEOUT
            }
        }
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.environment.get("HOME").map(|home| Path::new(&home).join(name))
    }
}

#[cfg(test)]
mod tests;
