//! Connection settings by libpq's rules: a URL or key=value string, then the service file, then `PG*` variables, then
//! the password file, then defaults.
//!
//! Where Outhaul differs from libpq: `sslmode` is verify-full for remote hosts unless set, `allow` is refused, and so
//! is a password on the command line, where every user of the machine can read it.

mod conninfo;
mod files;
mod keyword;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::keyword::{KEYWORDS, Use};
use super::raw::{Origin, Raw};
use super::{ConfigError, Environment};
use crate::limits;
use crate::source::postgres::settings::{Address, TargetSessionAttrs};
use crate::source::postgres::{ConnectSettings, Secret, SslMode};

/// Where libpq looks for a server unless told otherwise: Debian's place, then PostgreSQL's own.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

const PASSWORD_HINT: &str =
    "every user of this machine can read it there; use --from env:NAME, PGPASSWORD, ~/.pgpass or --password-file";

/// One of libpq's parameters, with the place it was written at. Its value may be a password: no `Debug`.
struct Parameter {
    value: String,
    place: String,
}

/// Parameters by libpq's keyword.
type Parameters = BTreeMap<&'static str, Parameter>;

/// Finds out how to connect.
///
/// # Errors
/// Every mistake; none shows a password, nor any part of a string that may hold one.
pub fn settings(raw: &Raw, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
    let mut resolver = Resolver { environment, parameters: Parameters::new(), errors: Vec::new() };
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
    errors: Vec<ConfigError>,
}

impl Resolver<'_> {
    fn fault(&mut self, place: impl Display, what: impl Display, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(format!("{place}: {what}"), hint));
    }

    fn read_string(&mut self, raw: &Raw) {
        let given = raw.get("from").and_then(|setting| Some((setting.values.first()?.clone(), &setting.origin)));
        let (text, place, on_command_line) = match given {
            Some((text, origin)) => match text.strip_prefix("env:") {
                Some(name) => match self.environment.get(name) {
                    Some(text) => (text, name.to_owned(), false),
                    None => {
                        return self.fault(
                            origin,
                            format!("the variable {name} is not set"),
                            "set it, or name another",
                        );
                    }
                },
                None => (text, origin.to_string(), matches!(origin, Origin::Flag(_))),
            },
            None => match self.environment.get("DATABASE_URL") {
                Some(text) => (text, "DATABASE_URL".to_owned(), false),
                None => return,
            },
        };
        match conninfo::parse(&text, &place) {
            Ok(parameters) => self.parameters = parameters,
            Err(error) => return self.errors.push(error),
        }
        if let Some(password) = self.parameters.get("password") {
            let place = password.place.clone();
            if on_command_line {
                self.fault("--from", "a password on the command line", PASSWORD_HINT);
            } else if let Some(file) = raw.get("password_file") {
                self.fault(place, format!("{} gives a password too", file.origin), "keep one of them");
            }
        }
    }

    fn read_service(&mut self) {
        let named = |keyword, variable: &str| {
            let parameter: Option<&Parameter> = self.parameters.get(keyword);
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
                let parameter = Parameter { value, place: variable.to_owned() };
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
        let ssl_mode = self.ssl_mode(&addresses);
        let (ssl_mode, ssl_root_cert) = self.ssl_root_cert(ssl_mode);
        let target_session_attrs = self.target_session_attrs();
        let connect_timeout = self.connect_timeout();
        let Some(user) = self.text("user").or(self.environment.user.as_deref()).map(str::to_owned) else {
            self.fault("user", "nothing says which role to connect as", "write it into --from, or set PGUSER");
            return None;
        };
        let database = self.text("dbname").unwrap_or(&user).to_owned();
        let password = self.password(raw, &addresses, &user, &database);
        Some(ConnectSettings {
            addresses,
            user,
            password: password.map(Secret::new),
            database,
            options: self.text("options").map(str::to_owned),
            ssl_mode,
            ssl_root_cert,
            target_session_attrs,
            connect_timeout,
        })
    }

    fn addresses(&mut self) -> Vec<Address> {
        let hosts: Vec<String> = self.text("host").unwrap_or_default().split(',').map(str::to_owned).collect();
        let ports: Vec<String> = self.text("port").unwrap_or_default().split(',').map(str::to_owned).collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            let what = format!("{} ports for {} hosts", ports.len(), hosts.len());
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
                let folders = SOCKET_FOLDERS.iter().map(|folder| Address::Unix { folder: folder.into(), port });
                addresses.extend(folders);
            } else if host.starts_with('/') {
                addresses.push(Address::Unix { folder: host.into(), port });
            } else if host.contains(['@', '/']) {
                let hint = "in a URL, percent-encode / : @ ? in user and password";
                self.fault(self.place("host"), "a host name contains @ or /", hint);
            } else {
                addresses.push(Address::Tcp { host: host.to_owned(), port });
            }
        }
        addresses
    }

    fn ssl_mode(&mut self, addresses: &[Address]) -> SslMode {
        let default = if addresses.iter().all(is_near) { SslMode::Prefer } else { SslMode::VerifyFull };
        let Some(word) = self.text("sslmode") else { return default };
        let (what, hint) = match word {
            "disable" => return SslMode::Disable,
            "prefer" => return SslMode::Prefer,
            "require" => return SslMode::Require,
            "verify-ca" => return SslMode::VerifyCa,
            "verify-full" => return SslMode::VerifyFull,
            "allow" => ("sslmode allow tries without TLS first".to_owned(), "write prefer"),
            other => {
                (format!("{other:?} is not an sslmode"), "write disable, prefer, require, verify-ca or verify-full")
            }
        };
        self.fault(self.place("sslmode"), what, hint);
        default
    }

    /// The authorities to trust. As with libpq, naming some turns `require` into `verify-ca`, `system` are the
    /// system's, and `~/.postgresql/root.crt` counts where it is there.
    fn ssl_root_cert(&self, mode: SslMode) -> (SslMode, Option<PathBuf>) {
        match self.text("sslrootcert") {
            Some("system") => (SslMode::VerifyFull, None),
            Some(file) => (if mode == SslMode::Require { SslMode::VerifyCa } else { mode }, Some(file.into())),
            None if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) => {
                let own = self.in_home(".postgresql/root.crt");
                (mode, own.filter(|file| self.environment.read(file).is_ok()))
            }
            None => (mode, None),
        }
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
        let Some(text) = self.text("connect_timeout") else { return limits::CONNECT_TIMEOUT };
        match text.trim().parse::<i32>().map(u64::try_from) {
            Ok(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds),
            Ok(_) => limits::CONNECT_TIMEOUT,
            Err(_) => {
                let what = format!("{text:?} is not a whole number of seconds");
                self.fault(self.place("connect_timeout"), what, "write it as in 10");
                limits::CONNECT_TIMEOUT
            }
        }
    }

    fn password(&mut self, raw: &Raw, addresses: &[Address], user: &str, database: &str) -> Option<String> {
        if let Some(setting) = raw.get("password_file") {
            let file = setting.values.first().map_or("", String::as_str);
            return self.password_of_file(&setting.origin, Path::new(file));
        }
        if let Some(password) = self.text("password") {
            return Some(password.to_owned());
        }
        let file = self.text("passfile").map(PathBuf::from).or_else(|| self.in_home(".pgpass"))?;
        let text = self.environment.read(&file).ok()?;
        let mut passwords: Vec<Option<String>> = Vec::new();
        for address in addresses {
            let (host, port) = match address {
                Address::Tcp { host, port } => (host.as_str(), *port),
                Address::Unix { folder, port } => (folder.to_str().unwrap_or_default(), *port),
            };
            let host = if SOCKET_FOLDERS.contains(&host) { "localhost" } else { host };
            passwords.push(files::password(&text, host, port, database, user));
        }
        passwords.dedup();
        let shown = file.display();
        if passwords.len() > 1 {
            self.fault(&shown, "the hosts have different passwords", "give them the same, or name one host");
            return None;
        }
        let password = passwords.pop().flatten()?;
        // libpq warns and goes on without a password, only to be turned away.
        if self.environment.is_open_to_others(&file) {
            self.fault(&shown, "group or others can read this password file", format!("run chmod 600 {shown}"));
            return None;
        }
        Some(password)
    }

    fn password_of_file(&mut self, origin: &Origin, file: &Path) -> Option<String> {
        match self.environment.read(file) {
            Ok(text) => {
                let password = text.lines().next().filter(|line| !line.is_empty());
                if password.is_none() {
                    let what = format!("the first line of {} is empty", file.display());
                    self.fault(origin, what, "write the password there");
                }
                password.map(str::to_owned)
            }
            Err(error) => {
                let what = format!("reading {}: {error}", file.display());
                self.fault(origin, what, "check the name");
                None
            }
        }
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.environment.get("HOME").map(|home| Path::new(&home).join(name))
    }
}

/// Whether an address is on this machine.
fn is_near(address: &Address) -> bool {
    match address {
        Address::Unix { .. } => true,
        Address::Tcp { host, .. } => {
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests;
