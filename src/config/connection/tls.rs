//! TLS by libpq's parameters.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Resolver;
use crate::base::postgres::settings::{ChannelBinding, ClientCertificate, ServerAddress, SslMode};

impl Resolver<'_> {
    /// The mode, and the authorities to trust: `None` is the system's. As with libpq, naming some turns `require` into
    /// `verify-ca`, `system` wants `verify-full`, and `~/.postgresql/root.crt` counts where it is there.
    pub(super) fn ssl(&mut self, addresses: &[ServerAddress]) -> (SslMode, Option<PathBuf>) {
        let mode = self.ssl_mode();
        let mode = mode.unwrap_or_else(|| {
            let near = addresses.iter().all(is_near) && self.text("sslrootcert") != Some("system");
            if near { SslMode::Prefer } else { SslMode::VerifyFull }
        });
        match self.text("sslrootcert") {
            Some("system") if mode == SslMode::VerifyFull => (mode, None),
            Some("system") => {
                let what = "anybody can have a certificate of the system's authorities: a weaker sslmode than verify-full \
                            would take any of them";
                self.fault(self.place("sslmode"), what, "write verify-full, or name a file with sslrootcert");
                (SslMode::VerifyFull, None)
            }
            Some(file) => (verified(mode), Some(file.into())),
            None if matches!(mode, SslMode::Disable | SslMode::Prefer) => (mode, None),
            None => match self.in_home(".postgresql/root.crt").filter(|file| self.environment.is_there(file)) {
                Some(file) => (verified(mode), Some(file)),
                None => (mode, None),
            },
        }
    }

    fn ssl_mode(&mut self) -> Option<SslMode> {
        let (what, hint) = match self.text("sslmode")? {
            "disable" => return Some(SslMode::Disable),
            "prefer" => return Some(SslMode::Prefer),
            "require" => return Some(SslMode::Require),
            "verify-ca" => return Some(SslMode::VerifyCa),
            "verify-full" => return Some(SslMode::VerifyFull),
            "allow" => ("sslmode allow tries without TLS first".to_owned(), "write prefer"),
            other => {
                (format!("{other:?} is not an sslmode"), "write disable, prefer, require, verify-ca or verify-full")
            }
        };
        self.fault(self.place("sslmode"), what, hint);
        None
    }

    /// What we show the server: as named, or libpq's own where it is there. Named files must be there; libpq would go on
    /// without them.
    pub(super) fn ssl_cert(&mut self, mode: SslMode) -> Option<ClientCertificate> {
        if mode == SslMode::Disable || self.text("sslcertmode").is_some_and(|mode| mode.eq_ignore_ascii_case("disable"))
        {
            return None;
        }
        let own = |name| self.in_home(name).filter(|file| self.environment.is_there(file));
        let named = self.text("sslcert").map(PathBuf::from);
        let key = self.text("sslkey").map(PathBuf::from).or_else(|| own(".postgresql/postgresql.key"));
        match (named.or_else(|| own(".postgresql/postgresql.crt")), key) {
            (None, _) if self.text("sslkey").is_some() => {
                self.fault(self.place("sslkey"), "a key without a certificate", "name that with sslcert");
                None
            }
            (None, _) => None,
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (Some(certificate), None) => {
                let what = format!("{} has no private key", certificate.display());
                self.fault(self.place("sslcert"), what, "name its file with sslkey");
                None
            }
        }
    }

    pub(super) fn channel_binding(&mut self, mode: SslMode) -> ChannelBinding {
        let (what, hint) = match self.text("channel_binding") {
            Some("disable") => return ChannelBinding::Disable,
            None | Some("prefer") => return ChannelBinding::Prefer,
            Some("require") if mode == SslMode::Disable => {
                ("channel_binding=require needs TLS, and sslmode is disable".to_owned(), "write sslmode=verify-full")
            }
            Some("require") => return ChannelBinding::Require,
            Some(other) => (format!("{other:?} is not a channel_binding"), "write disable, prefer or require"),
        };
        self.fault(self.place("channel_binding"), what, hint);
        ChannelBinding::Require
    }
}

fn verified(mode: SslMode) -> SslMode {
    if mode == SslMode::Require { SslMode::VerifyCa } else { mode }
}

/// Whether an address is on this machine.
fn is_near(address: &ServerAddress) -> bool {
    match address {
        ServerAddress::Unix { .. } => true,
        ServerAddress::Tcp { host, .. } => {
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}
