//! Where things are: the addresses that the service listens at, its files, and the databases that it asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::typed::{load_connection, load_settings};
use super::super::{ConfigError, ConfigErrors, Environment};
use super::build::Builder;
use super::file::{ServiceFile, SourceEntry};
use crate::base::postgres::settings::ConnectSettings;
use crate::source::Source;

impl Builder<'_> {
    pub(super) fn public_url(&mut self, written: Option<String>) -> Option<String> {
        let public_url = written.map(|url| url.trim_end_matches('/').to_owned());
        if public_url.as_deref().is_some_and(|url| !is_base(url)) {
            self.wrong("public_url is no URL", "write it as in https://exports.example.com, or with a path behind it");
        }
        public_url
    }

    pub(super) fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        match crate::base::telemetry::exporter::listen_address(text) {
            Ok(address) => Some(address),
            Err(why) => {
                self.wrong(format!("{key} is {text:?}"), why);
                None
            }
        }
    }

    pub(super) fn tls(&mut self, cert: Option<&str>, key: Option<&str>) -> Option<(PathBuf, PathBuf)> {
        match (cert, key) {
            (Some(cert), Some(key)) => Some((self.relative(cert), self.relative(key))),
            (None, None) => None,
            _ => {
                self.wrong("tls_cert and tls_key belong together", "give both, or neither");
                None
            }
        }
    }

    /// Origins are compared letter by letter, as browsers send them.
    pub(super) fn origins(&mut self, origins: &[String]) {
        for origin in origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(['/', '*', ' ']) || host != host.to_lowercase())
            {
                let hint = "write it as a browser sends it, as in https://app.example.com, one for each; there is no *";
                self.wrong(format!("cors_origins: {origin:?} is no origin"), hint);
            }
        }
    }

    /// A path, from the folder of the file.
    pub(super) fn relative(&self, text: &str) -> PathBuf {
        self.folder.map_or_else(|| PathBuf::from(text), |folder| folder.join(text))
    }

    pub(super) fn source(&mut self, name: &str, entry: &SourceEntry) -> Option<Arc<dyn Source>> {
        let loaded = self.connection(entry, load_connection);
        self.named(&format!("source.{name}"), loaded)
    }

    /// The database of the state store, which several processes need: a file has one.
    pub(super) fn state_url(&mut self, file: &ServiceFile) -> Option<ConnectSettings> {
        let passwords = [&file.state_password_file, &file.state_password_command];
        let Some(url) = &file.state_url else {
            if passwords.iter().any(|password| password.is_some()) {
                self.wrong("a state file has no password", "name a database with state_url");
            }
            return None;
        };
        if file.state.is_some() {
            self.wrong(
                "state and state_url are both given",
                "keep one: a file for one process, a database for several",
            );
        }
        let [password_file, password_command] = passwords.map(Clone::clone);
        let entry = SourceEntry { from: Some(url.0.clone()), password_file, password_command };
        let loaded = self.connection(&entry, load_settings);
        self.named("state_url", loaded)
    }

    fn named<T>(&mut self, place: &str, loaded: Result<T, ConfigErrors>) -> Option<T> {
        let named = |error: ConfigError| ConfigError::new(format!("{place}: {}", error.what), error.hint);
        loaded.map_err(|errors| self.errors.extend(errors.0.into_iter().map(named))).ok()
    }

    /// What connects as the options of a command line do.
    fn connection<T>(
        &self,
        entry: &SourceEntry,
        load: impl FnOnce(Vec<(&'static str, Vec<String>)>, &Environment) -> Result<T, ConfigErrors>,
    ) -> Result<T, ConfigErrors> {
        let mut flags = Vec::new();
        let mut environment = self.environment.clone();
        if let Some(from) = &entry.from {
            flags.push(("from", vec![environment.take_source("service.toml", from)]));
        }
        for (key, value) in [("password_file", &entry.password_file), ("password_command", &entry.password_command)] {
            flags.extend(value.as_ref().map(|value| (key, vec![value.clone()])));
        }
        load(flags, &environment)
    }
}

/// What paths can be written behind.
fn is_base(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#<>\"\\^`{|}".contains(&byte);
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain))
}
