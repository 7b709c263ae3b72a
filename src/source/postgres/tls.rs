//! TLS for sessions: rustls, with libpq's `sslmode` rules, over the lendable stream.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::tls::TlsConnect;
use tokio_rustls::TlsConnector;

use super::settings::SslMode;
use super::stream::SessionStream;

/// Upgrades one connection; made anew for each, since the driver consumes it.
#[derive(Debug, Clone)]
pub(crate) struct TlsUpgrade {
    config: Option<Arc<ClientConfig>>,
    server: String,
}

impl TlsUpgrade {
    /// For connections that never ask for TLS.
    pub(crate) fn none() -> Self {
        Self { config: None, server: String::new() }
    }

    /// For connections to `server`, a host name or an IP address.
    pub(crate) fn new(config: Arc<ClientConfig>, server: &str) -> Self {
        Self { config: Some(config), server: server.to_owned() }
    }
}

impl TlsConnect<SessionStream> for TlsUpgrade {
    type Stream = SessionStream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<SessionStream>>;

    fn connect(self, stream: SessionStream) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("TLS is switched off"))?;
            let name = ServerName::try_from(self.server).map_err(io::Error::other)?;
            let socket = stream.take_tcp()?;
            let secured = TlsConnector::from(config).connect(name, socket).await?;
            Ok(stream.secured(secured))
        })
    }
}

/// The client configuration for a mode; `None` where the mode is `disable`.
///
/// # Errors
/// The root certificates cannot be read, or there are none.
pub(crate) fn client_config(mode: SslMode, root_cert: Option<&Path>) -> io::Result<Option<Arc<ClientConfig>>> {
    if mode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // libpq: `require` with a root certificate file behaves as `verify-ca`.
    let mode = if mode == SslMode::Require && root_cert.is_some() { SslMode::VerifyCa } else { mode };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = match mode {
        SslMode::Disable => return Ok(None),
        SslMode::VerifyFull => builder.with_root_certificates(roots(root_cert)?).with_no_client_auth(),
        SslMode::Prefer | SslMode::Require | SslMode::VerifyCa => {
            let authority = if mode == SslMode::VerifyCa {
                let roots = Arc::new(roots(root_cert)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(io::Error::other)?;
                Some(verifier)
            } else {
                None
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient { authority, provider }))
                .with_no_client_auth()
        }
    };
    Ok(Some(Arc::new(config)))
}

fn roots(file: Option<&Path>) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if let Some(file) = file {
        let certificates = CertificateDer::pem_file_iter(file)
            .map_err(|error| io::Error::other(format!("reading {}: {error}", file.display())))?;
        for certificate in certificates {
            let certificate =
                certificate.map_err(|error| io::Error::other(format!("reading {}: {error}", file.display())))?;
            store.add(certificate).map_err(io::Error::other)?;
        }
    } else {
        let loaded = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(loaded.certs);
    }
    if store.is_empty() {
        let hint = "no trusted certificate authority found; name a file with sslrootcert";
        return Err(io::Error::new(io::ErrorKind::NotFound, hint));
    }
    Ok(store)
}

/// `prefer` and `require` encrypt without asking whom they talk to; `verify-ca` asks who signed, not for which host.
#[derive(Debug)]
struct Lenient {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
