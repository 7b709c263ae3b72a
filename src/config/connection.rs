//! Connection settings by libpq's rules: `--from`, `DATABASE_URL`, `PG*`, service file, password file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::conninfo::{Parameters, parse, password_fields};
use super::raw::{Origin, Raw};
use super::{ConfigError, Environment, options};
use crate::source::postgres::settings::{Address, ConnectSettings, Secret, SslMode, TargetSessionAttrs};

/// libpq's parameters that mean something here (PostgreSQL, "Parameter Key Words").
const KNOWN: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "sslmode",
    "sslrootcert",
    "passfile",
    "service",
    "target_session_attrs",
];

/// Parameters that change nothing we do: we set our own, or the default is the only one.
const HARMLESS: &[&str] = &[
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "connect_timeout",
    "gssencmode",
    "sslnegotiation",
];

const DEFAULT_PORT: u16 = 5432;

/// Reads the connection settings.
///
/// # Errors
/// Every mistake, none of which shows a password.
pub fn settings(raw: &Raw, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
    let mut reader = Reader { environment, errors: Vec::new() };
    let mut parameters = reader.written(raw);
    reader.check_names(&parameters);
    if let Some(file) = raw.get("password_file").and_then(|setting| setting.values.first()) {
        match environment.read(Path::new(file)) {
            Ok(text) => {
                let password = text.lines().next().unwrap_or("").to_owned();
                parameters.insert("password".to_owned(), password);
            }
            Err(error) => {
                reader.complain(format!("reading the password file {file}: {error}"), "check --password-file");
            }
        }
    }
    reader.service(&mut parameters);
    for (parameter, variable) in [
        ("host", "PGHOST"),
        ("hostaddr", "PGHOSTADDR"),
        ("port", "PGPORT"),
        ("user", "PGUSER"),
        ("password", "PGPASSWORD"),
        ("dbname", "PGDATABASE"),
        ("options", "PGOPTIONS"),
        ("sslmode", "PGSSLMODE"),
        ("sslrootcert", "PGSSLROOTCERT"),
        ("passfile", "PGPASSFILE"),
        ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ] {
        if let (false, Some(value)) = (parameters.contains_key(parameter), environment.get(variable)) {
            parameters.insert(parameter.to_owned(), value);
        }
    }
    let settings = reader.finish(&parameters);
    if reader.errors.is_empty() { Ok(settings) } else { Err(reader.errors) }
}

struct Reader<'a> {
    environment: &'a Environment,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn complain(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(what, hint));
    }

    /// `--from` or what stands for it.
    fn written(&mut self, raw: &Raw) -> Parameters {
        let given = raw.get("from").map(|setting| (setting.values.concat(), setting.origin.clone()));
        let fallback =
            || self.environment.get("DATABASE_URL").map(|url| (url, Origin::Variable("DATABASE_URL".to_owned())));
        let Some((text, origin)) = given.or_else(fallback) else { return Parameters::new() };
        let (text, origin) = match text.strip_prefix("env:") {
            None => (text, origin),
            Some(name) => {
                let Some(value) = self.environment.get(name) else {
                    let what = format!("{origin}: environment variable {name} is not set");
                    self.complain(what, "set it, or name another");
                    return Parameters::new();
                };
                (value, Origin::Variable(name.to_owned()))
            }
        };
        match parse(&text) {
            Ok(parameters) => {
                if parameters.contains_key("password") && matches!(origin, Origin::Flag(_)) {
                    self.complain(
                        "--from holds a password, which every process list and shell history would show",
                        "use --from env:NAME, PGPASSWORD, ~/.pgpass or --password-file FILE",
                    );
                }
                parameters
            }
            Err(why) => {
                self.complain(
                    format!("{origin}: {why}"),
                    "write postgres://user@host:port/database or host=… dbname=…",
                );
                Parameters::new()
            }
        }
    }

    fn check_names(&mut self, parameters: &Parameters) {
        for name in parameters.keys().map(String::as_str) {
            if KNOWN.contains(&name) || HARMLESS.contains(&name) {
                continue;
            }
            let hint = options::nearest(name, KNOWN.iter().copied())
                .map_or("leave it out".to_owned(), |near| format!("did you mean {near}?"));
            self.complain(format!("the connection parameter {name} is not supported in this version"), hint);
        }
    }

    /// Fills in what the service file says (PostgreSQL, "The Connection Service File").
    fn service(&mut self, parameters: &mut Parameters) {
        let Some(service) = parameters.get("service").cloned().or_else(|| self.environment.get("PGSERVICE")) else {
            return;
        };
        let home = self.environment.get("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
        let system = self.environment.get("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
        let files = [self.environment.get("PGSERVICEFILE").map(PathBuf::from).or(home), system];
        for file in files.into_iter().flatten() {
            let Ok(text) = self.environment.read(&file) else { continue };
            let mut inside = false;
            let mut found = false;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                    inside = name == service;
                    found |= inside;
                } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
                    parameters.entry(name.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
                }
            }
            if found {
                return;
            }
        }
        self.complain(
            format!("service {service:?} is in no service file"),
            "check PGSERVICE, PGSERVICEFILE and ~/.pg_service.conf",
        );
    }

    fn finish(&mut self, parameters: &Parameters) -> ConnectSettings {
        let get = |name: &str| parameters.get(name).filter(|value| !value.is_empty()).cloned();
        let user = get("user").or_else(|| self.environment.user.clone()).unwrap_or_else(|| "postgres".to_owned());
        let database = get("dbname").unwrap_or_else(|| user.clone());
        let addresses = self.addresses(get("hostaddr").or_else(|| get("host")).as_deref(), get("port").as_deref());
        let local = addresses.iter().all(is_local);
        let ssl_mode = self.ssl_mode(get("sslmode").as_deref(), local);
        let target_session_attrs = self.target(get("target_session_attrs").as_deref());
        let password = get("password").or_else(|| self.password_file(get("passfile"), &addresses, &database, &user));
        let root = get("sslrootcert").filter(|file| file != "system").map(PathBuf::from);
        ConnectSettings {
            addresses,
            user,
            password: password.map(Secret::new),
            database,
            options: get("options"),
            ssl_mode,
            ssl_root_cert: root,
            target_session_attrs,
        }
    }

    /// libpq's default is `prefer` everywhere; away from home that would tell nobody that a server is not checked.
    fn ssl_mode(&mut self, written: Option<&str>, local: bool) -> SslMode {
        match written {
            None if local => SslMode::Prefer,
            None | Some("verify-full") => SslMode::VerifyFull,
            Some("disable") => SslMode::Disable,
            Some("prefer") => SslMode::Prefer,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some(other) => {
                let what = format!("sslmode={other} is not supported");
                self.complain(what, "disable, prefer, require, verify-ca or verify-full is wanted");
                SslMode::VerifyFull
            }
        }
    }

    fn target(&mut self, written: Option<&str>) -> TargetSessionAttrs {
        match written {
            None | Some("any") => TargetSessionAttrs::Any,
            Some("read-write") => TargetSessionAttrs::ReadWrite,
            Some("read-only") => TargetSessionAttrs::ReadOnly,
            Some("primary") => TargetSessionAttrs::Primary,
            Some("standby") => TargetSessionAttrs::Standby,
            Some("prefer-standby") => TargetSessionAttrs::PreferStandby,
            Some(other) => {
                let what = format!("target_session_attrs={other} is not known");
                self.complain(what, "any, read-write, read-only, primary, standby or prefer-standby is wanted");
                TargetSessionAttrs::Any
            }
        }
    }

    /// Hosts and ports go together in order; one port serves all hosts.
    fn addresses(&mut self, hosts: Option<&str>, ports: Option<&str>) -> Vec<Address> {
        let default = if Path::new("/var/run/postgresql").exists() { "/var/run/postgresql" } else { "localhost" };
        let hosts: Vec<&str> = hosts.unwrap_or(default).split(',').collect();
        let ports: Vec<&str> = ports.unwrap_or("").split(',').collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            let what = format!("{} ports are given for {} hosts", ports.len(), hosts.len());
            self.complain(what, "give one port, or one for each host");
        }
        let mut addresses = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or("");
            let port = match port {
                "" => DEFAULT_PORT,
                text => text.parse().unwrap_or_else(|_| {
                    self.complain(format!("port {text:?} is not a port"), "a number from 1 to 65535 is wanted");
                    DEFAULT_PORT
                }),
            };
            let host = if host.is_empty() { default } else { host };
            addresses.push(if host.starts_with(['/', '@']) {
                Address::Unix { folder: PathBuf::from(host), port }
            } else {
                Address::Tcp { host: host.to_owned(), port }
            });
        }
        addresses
    }

    /// The first matching line of the password file (PostgreSQL, "The Password File").
    fn password_file(
        &mut self,
        named: Option<String>,
        addresses: &[Address],
        database: &str,
        user: &str,
    ) -> Option<String> {
        let home = || self.environment.get("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
        let file = named.map(PathBuf::from).or_else(home)?;
        let text = self.environment.read(&file).ok()?;
        if self.environment.is_open_to_others(&file) {
            self.complain(
                format!("password file {} can be read by others", file.display()),
                "chmod 0600, as libpq asks for too",
            );
            return None;
        }
        let (host, port) = match addresses.first()? {
            Address::Tcp { host, port } => (host.clone(), *port),
            // libpq matches sockets in the default folder as localhost.
            Address::Unix { port, .. } => ("localhost".to_owned(), *port),
        };
        let wanted = [host, port.to_string(), database.to_owned(), user.to_owned()];
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let fields = password_fields(line);
            let (password, fields) = fields.split_last()?;
            let matches = fields.len() == wanted.len()
                && fields.iter().zip(&wanted).all(|(field, wanted)| field == "*" || field == wanted);
            matches.then(|| password.clone())
        })
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Unix { .. } => true,
        Address::Tcp { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(from: &str, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
        let flags = if from.is_empty() { Vec::new() } else { vec![("from", vec![from.to_owned()])] };
        settings(&Raw::load(flags, environment).unwrap(), environment)
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn urls() {
        let none = Environment::of([], []);
        let found = connect("postgres://alice@db.example:6432/shop?sslmode=require", &none).unwrap();
        assert_eq!(found.addresses, [tcp("db.example", 6432)]);
        assert_eq!((found.user.as_str(), found.database.as_str()), ("alice", "shop"));
        assert_eq!(found.ssl_mode, SslMode::Require);
        let found = connect("postgresql://a%40b@[::1]:5/x%20y", &none).unwrap();
        assert_eq!(found.addresses, [tcp("::1", 5)]);
        assert_eq!((found.user.as_str(), found.database.as_str()), ("a@b", "x y"));
        let found = connect("postgres:///shop?host=/tmp/socket&port=7", &none).unwrap();
        assert_eq!(found.addresses, [Address::Unix { folder: "/tmp/socket".into(), port: 7 }]);
        let found = connect("postgres://%2Ftmp%2Fsocket/shop", &none).unwrap();
        assert_eq!(found.addresses, [Address::Unix { folder: "/tmp/socket".into(), port: 5432 }]);
        let found = connect("postgres://u@one:1,two:2/d", &none).unwrap();
        assert_eq!(found.addresses, [tcp("one", 1), tcp("two", 2)]);
    }

    #[test]
    fn pairs() {
        let none = Environment::of([], []);
        let found = connect(r"host=db port=6 user='o\'brien' dbname = shop", &none).unwrap();
        assert_eq!(found.addresses, [tcp("db", 6)]);
        assert_eq!((found.user.as_str(), found.database.as_str()), ("o'brien", "shop"));
    }

    #[test]
    fn tls_is_verified_for_remote_hosts_and_preferred_at_home() {
        let none = Environment::of([], []);
        for (from, mode) in [
            ("postgres://u@db.example/d", SslMode::VerifyFull),
            ("postgres://u@127.0.0.1/d", SslMode::Prefer),
            ("postgres://u@localhost/d", SslMode::Prefer),
            ("postgres:///d?host=/tmp", SslMode::Prefer),
            ("postgres://u@localhost,db.example/d", SslMode::VerifyFull),
        ] {
            assert_eq!(connect(from, &none).unwrap().ssl_mode, mode, "{from}");
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_never_shown() {
        let errors = connect("postgres://u:hunter2@h/d", &Environment::of([], [])).unwrap_err();
        assert!(errors[0].hint.contains("PGPASSWORD"));
        assert!(!format!("{errors:?}").contains("hunter2"));
        let environment = Environment::of([("SHOP", "postgres://u:hunter2@h/d")], []);
        let found = connect("env:SHOP", &environment).unwrap();
        assert_eq!(found.password.as_ref().unwrap().expose(), "hunter2");
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn variables_service_and_password_file_fill_in() {
        let environment = Environment::of(
            [("HOME", "/h"), ("PGSERVICE", "shop"), ("PGUSER", "carol")],
            [
                ("/h/.pg_service.conf", "[other]\nhost=x\n[shop]\nhost=db\nport=7\ndbname=orders\n"),
                ("/h/.pgpass", "# no\n*:*:nothing:*:wrong\ndb:7:orders:carol:a\\:b\\\\c\n"),
            ],
        );
        let found = connect("", &environment).unwrap();
        assert_eq!(found.addresses, [tcp("db", 7)]);
        assert_eq!((found.user.as_str(), found.database.as_str()), ("carol", "orders"));
        assert_eq!(found.password.unwrap().expose(), "a:b\\c");
    }

    #[test]
    fn mistakes_are_named() {
        let none = Environment::of([], []);
        for (from, words) in [
            ("mysql://h/d", "not PostgreSQL"),
            ("db.example", "neither"),
            ("env:NOPE", "NOPE is not set"),
            ("postgres://h/d?sslmod=x", "sslmod"),
            ("postgres://h/d?sslmode=allow", "allow"),
            ("postgres://h:x/d", "port"),
            ("host='a", "never closed"),
        ] {
            let errors = connect(from, &none).unwrap_err();
            assert!(errors.iter().any(|error| error.what.contains(words)), "{from}: {errors:?}");
        }
    }
}
