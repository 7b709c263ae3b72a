//! Who makes sockets to one server, and says what the driver is told of it.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::{CancelToken, Config};

use super::candidate::Endpoint;
use super::settings::{ChannelBinding, ConnectSettings, SslMode};
use super::stream::{RawStream, SessionStream};
use super::tls::client_config;
use crate::base::failpoint;

/// One cancel request, connection included; it is a courtesy to the server and never waited for longer.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// What to do where TLS cannot be prepared.
pub(crate) const TLS_FILES_HINT: &str =
    "sslrootcert=FILE names the authority; sslmode=require encrypts without checking";

/// Makes sockets to one server.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(super) settings: ConnectSettings,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) pinned: OnceLock<Endpoint>,
    /// Who is told that a session has heard a `NOTIFY`.
    pub(super) told: Option<Arc<Notify>>,
}

impl Connector {
    /// Nothing connects yet.
    ///
    /// # Errors
    /// The files of TLS cannot be read, or hold nothing of use.
    pub(crate) fn new(mut settings: ConnectSettings) -> io::Result<Self> {
        if failpoint::off("channel_binding") {
            settings.channel_binding = ChannelBinding::Prefer;
        }
        if failpoint::off("certificates") {
            settings.ssl_mode = SslMode::Require;
        }
        for file in &settings.exposed {
            let file = file.display();
            tracing::warn!("group or others can read {file}, which holds a password: run chmod 600 {file}");
        }
        let tls = client_config(&settings)?;
        Ok(Self { settings, tls, pinned: OnceLock::new(), told: None })
    }

    /// The same for sessions that listen: whatever `NOTIFY` one of them hears wakes one who waits for `told`.
    pub(crate) fn telling(self, told: Arc<Notify>) -> Self {
        Self { told: Some(told), ..self }
    }

    /// How it connects.
    pub(crate) fn settings(&self) -> &ConnectSettings {
        &self.settings
    }

    /// What the driver is told.
    pub(crate) fn driver_config(&self, application_name: &str) -> Config {
        let mut config = Config::new();
        config.user(&self.settings.user).dbname(&self.settings.database).application_name(application_name);
        if let Some(options) = &self.settings.options {
            config.options(options);
        }
        config.ssl_mode(match self.settings.ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        config.channel_binding(match self.settings.channel_binding {
            ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
        });
        config
    }

    /// TLS is never spoken over a Unix socket, whatever the mode (libpq, `sslmode`).
    pub(super) fn for_socket(config: &Config, raw: &RawStream) -> Config {
        let mut config = config.clone();
        if matches!(raw, RawStream::Unix(_)) {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        }
        config
    }

    /// Sends a cancel request; whether it hits is never known (PostgreSQL, "Canceling Requests in Progress").
    pub(crate) async fn cancel(&self, token: &CancelToken) {
        let request = async {
            let (raw, upgrade) = self.socket().await?;
            let plain = matches!(raw, RawStream::Unix(_)) || self.settings.ssl_mode == SslMode::Disable;
            let stream = SessionStream::new(raw, !plain);
            token.cancel_query_raw(stream, upgrade).await.map_err(io::Error::other)
        };
        if let Ok(Err(error)) = tokio::time::timeout(CANCEL_TIMEOUT, request).await {
            tracing::debug!(%error, "cancel request not sent");
        }
    }
}
