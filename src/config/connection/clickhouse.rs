//! `clickhouse[s]://user@host:port/db`: the settings of a ClickHouse server, in the same words as those of PostgreSQL where
//! they mean the same.

use std::path::PathBuf;

use super::{ConninfoParameter, Parameters, Resolver, conninfo, written};
use crate::base::http::{BodyCoding, CodingChoice};
use crate::base::postgres::settings::{
    ChannelBinding, ClientCertificate, ConnectSettings, ServerAddress, SslMode, TargetSessionAttrs,
};
use crate::config::raw::Raw;
use crate::config::{ConfigError, Environment};

const SCHEMES: [(&str, u16, bool); 2] = [("clickhouse://", 8123, false), ("clickhouses://", 8443, true)];

/// The parameters that a URL may have behind its `?`, and those that stand in front of it.
const PARAMETERS: [&str; 11] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "compression",
];

/// Whether a connection string is one of ClickHouse.
pub(super) fn is_meant(text: &str) -> bool {
    SCHEMES.iter().any(|(scheme, ..)| text.starts_with(scheme))
}

/// Finds out how to connect. `CLICKHOUSE_USER` and `CLICKHOUSE_PASSWORD` count where nothing else says the same; no
/// variable of PostgreSQL does.
///
/// # Errors
/// Every mistake; none shows a password.
pub(super) fn settings(raw: &Raw, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
    let found = written(raw, environment).map_err(|error| vec![error])?;
    let found = found.ok_or_else(|| vec![ConfigError::new("nothing says where the server is", "give --from URL")])?;
    let scheme = SCHEMES.iter().find_map(|(scheme, port, tls)| Some((found.text.strip_prefix(scheme)?, *port, *tls)));
    let (rest, port, tls) = scheme.ok_or_else(|| {
        vec![ConfigError::new(
            format!("{}: this is no URL of ClickHouse", found.place),
            "write clickhouse://user@host/db",
        )]
    })?;
    let parameters = conninfo::parse_url(rest, &found.place).map_err(|error| vec![error])?;
    let mut resolver = Resolver { environment, parameters, exposed: Vec::new(), errors: Vec::new() };
    resolver.check_password_in_string(raw, found.on_command_line, true);
    let settings = resolver.of_clickhouse(raw, port, tls);
    match settings {
        Some(settings) if resolver.errors.is_empty() => Ok(settings),
        _ => Err(resolver.errors),
    }
}

impl Resolver<'_> {
    fn of_clickhouse(&mut self, raw: &Raw, port: u16, tls: bool) -> Option<ConnectSettings> {
        let unknown: Vec<String> =
            self.parameters.keys().filter(|name| !PARAMETERS.contains(name)).map(|name| (*name).to_owned()).collect();
        for name in unknown {
            self.fault(self.place(&name), format!("{name} has no meaning for ClickHouse"), "leave it out");
        }
        for (keyword, variable) in [("user", "CLICKHOUSE_USER"), ("password", "CLICKHOUSE_PASSWORD")] {
            if let Some(value) = self.environment.get(variable) {
                add(&mut self.parameters, keyword, value, variable);
            }
        }
        if self.text("host").is_none() {
            self.fault(self.place("host"), "nothing says which host", "write clickhouse://user@host:8123/db");
            return None;
        }
        if self.text("port").is_none() {
            add(&mut self.parameters, "port", port.to_string(), "the default");
        }
        let addresses = self.addresses();
        if !matches!(addresses.as_slice(), [ServerAddress::Tcp { .. }]) {
            if self.errors.is_empty() {
                self.fault(self.place("host"), "one host is wanted", "name the one that is to be read from");
            }
            return None;
        }
        let (ssl_mode, ssl_root_cert) = self.https(tls);
        let ssl_cert = self.https_cert(tls);
        let connect_timeout = self.connect_timeout();
        let compression = self.answers_compressed();
        let user = self.text("user").unwrap_or("default").to_owned();
        let database = self.text("dbname").unwrap_or("default").to_owned();
        // libpq's file of passwords is for PostgreSQL.
        let says_password = self.text("password").is_some()
            || ["password_file", "password_command"].iter().any(|key| raw.get(key).is_some());
        let password = if says_password { self.password(raw, &addresses, &user, &database) } else { None };
        Some(ConnectSettings {
            nowhere: false,
            addresses,
            user,
            password,
            database,
            options: None,
            ssl_mode,
            ssl_root_cert,
            ssl_cert,
            channel_binding: ChannelBinding::Disable,
            target_session_attrs: TargetSessionAttrs::Any,
            connect_timeout,
            compression,
            exposed: std::mem::take(&mut self.exposed),
        })
    }

    /// The scheme says whether there is TLS, and `sslmode` how much is checked: all of it unless it says less.
    fn https(&mut self, tls: bool) -> (SslMode, Option<PathBuf>) {
        let root = self.text("sslrootcert").filter(|file| *file != "system").map(PathBuf::from);
        let mode = self.text("sslmode").map(str::to_owned);
        match (tls, mode.as_deref(), root) {
            (false, None, None) => (SslMode::Disable, None),
            (false, ..) => {
                let name = if mode.is_some() { "sslmode" } else { "sslrootcert" };
                let what = format!("{name} with clickhouse://, which is without TLS");
                self.fault(self.place(name), what, "write clickhouses://, or leave it out");
                (SslMode::Disable, None)
            }
            (true, None | Some("verify-full"), root) => (SslMode::VerifyFull, root),
            (true, Some("verify-ca" | "require"), Some(root)) => (SslMode::VerifyCa, Some(root)),
            (true, Some("require"), None) => (SslMode::Require, None),
            (true, Some("verify-ca"), None) => {
                let what =
                    "anybody can have a certificate of the system's authorities: verify-ca would take any of them";
                self.fault(self.place("sslmode"), what, "write verify-full, or name a file with sslrootcert");
                (SslMode::VerifyFull, None)
            }
            (true, Some("disable" | "prefer"), _) => {
                self.fault(self.place("sslmode"), "clickhouses:// is with TLS", "write clickhouse:// for none");
                (SslMode::VerifyFull, None)
            }
            (true, Some(other), _) => {
                let what = format!("{other:?} is not an sslmode");
                self.fault(self.place("sslmode"), what, "write require, verify-ca or verify-full");
                (SslMode::VerifyFull, None)
            }
        }
    }

    fn answers_compressed(&mut self) -> CodingChoice {
        let Some(said) = self.text("compression").map(str::to_owned) else { return CodingChoice::AsNeeded };
        match said.as_str() {
            "none" => CodingChoice::Plain,
            "zstd" => CodingChoice::Packed(BodyCoding::Zstd),
            other => {
                let what = format!("{other:?} is no compression of answers");
                self.fault(self.place("compression"), what, "write zstd or none");
                CodingChoice::AsNeeded
            }
        }
    }

    fn https_cert(&mut self, tls: bool) -> Option<ClientCertificate> {
        let certificate = self.text("sslcert").map(PathBuf::from);
        let key = self.text("sslkey").map(PathBuf::from);
        match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) if tls => Some(ClientCertificate { certificate, key }),
            (Some(_), Some(_)) => {
                self.fault(self.place("sslcert"), "a certificate without TLS", "write clickhouses://");
                None
            }
            (Some(_), None) => {
                self.fault(self.place("sslcert"), "a certificate without its key", "name its file with sslkey");
                None
            }
            (None, Some(_)) => {
                self.fault(self.place("sslkey"), "a key without a certificate", "name that with sslcert");
                None
            }
        }
    }
}

/// Adds what nothing has said yet.
fn add(parameters: &mut Parameters, keyword: &'static str, value: String, place: &str) {
    parameters.entry(keyword).or_insert(ConninfoParameter { value, place: place.to_owned() });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect_in(from: &str, environment: &Environment) -> Result<ConnectSettings, String> {
        let (raw, errors) = Raw::read(vec![("from", vec![from.to_owned()])], environment);
        assert_eq!(errors, []);
        settings(&raw, environment)
            .map_err(|errors| errors.into_iter().map(|error| error.what).collect::<Vec<_>>().join("; "))
    }

    fn connect(from: &str) -> Result<ConnectSettings, String> {
        connect_in(from, &Environment::of([], []))
    }

    fn address(settings: &ConnectSettings) -> String {
        settings.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_url_says_where_and_whether_with_tls() {
        let plain = connect("clickhouse://me@db.example/shop").unwrap();
        assert_eq!((address(&plain).as_str(), plain.user.as_str()), ("db.example:8123", "me"));
        assert_eq!((plain.database.as_str(), plain.ssl_mode, plain.password), ("shop", SslMode::Disable, None));
        let secured = connect("clickhouses://[::1]").unwrap();
        assert_eq!((address(&secured).as_str(), secured.user.as_str()), ("[::1]:8443", "default"));
        assert_eq!((secured.database.as_str(), secured.ssl_mode), ("default", SslMode::VerifyFull));
        let own = connect("clickhouses://h:9443/?sslrootcert=/ca.pem&sslmode=require").unwrap();
        assert_eq!((own.ssl_mode, own.ssl_root_cert), (SslMode::VerifyCa, Some("/ca.pem".into())));
    }

    #[test]
    fn variables_of_postgresql_say_nothing() {
        let variables = [("PGHOST", "elsewhere"), ("PGPASSWORD", "hunter2"), ("PGSSLMODE", "disable"), ("HOME", "/h")];
        let environment = Environment::of(variables, [("/h/.pgpass", "*:*:*:*:hunter3")]);
        let settings = connect_in("clickhouse://h", &environment).unwrap();
        assert_eq!((address(&settings).as_str(), settings.password), ("h:8123", None));
        let environment = Environment::of([("CLICKHOUSE_PASSWORD", "hunter2"), ("CLICKHOUSE_USER", "me")], []);
        let settings = connect_in("clickhouse://h", &environment).unwrap();
        assert_eq!(settings.user, "me");
        assert!(settings.password.is_some());
    }

    #[test]
    fn mistakes_are_told_and_no_password_is() {
        for (from, what) in [
            ("clickhouse://me:hunter2@h/db", "--from: a password on the command line"),
            ("clickhouse:///db", "host: nothing says which host"),
            ("clickhouse://a,b/db", "--from: host: one host is wanted"),
            ("clickhouse://h/db?sslmode=require", "--from: sslmode: sslmode with clickhouse://, which is without TLS"),
            ("clickhouses://h/db?sslmode=disable", "--from: sslmode: clickhouses:// is with TLS"),
            ("clickhouse://h/db?options=x", "--from: options: options has no meaning for ClickHouse"),
        ] {
            let told = connect(from).unwrap_err();
            assert!(told.contains(what) && !told.contains("hunter2"), "{told}");
        }
        let environment = Environment::of([("URL", "clickhouse://me:hunter2@h/db")], []);
        assert!(connect_in("env:URL", &environment).unwrap().password.is_some());
    }
}
