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

use super::certificate;
use super::settings::{ChannelBinding, ConnectSettings, SslMode};
use super::stream::SessionStream;

/// Upgrades one connection; made anew for each, since the driver consumes it.
#[derive(Debug, Clone)]
pub(crate) struct TlsUpgrade {
    config: Option<Arc<ClientConfig>>,
    server: String,
    binding: ChannelBinding,
}

impl TlsUpgrade {
    /// For connections that never ask for TLS.
    pub(crate) fn none() -> Self {
        Self { config: None, server: String::new(), binding: ChannelBinding::Disable }
    }

    /// For connections to `server`, a host name or an IP address.
    pub(crate) fn new(config: Arc<ClientConfig>, server: &str, binding: ChannelBinding) -> Self {
        Self { config: Some(config), server: server.to_owned(), binding }
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
            let secured = stream.secured(secured);
            if self.binding == ChannelBinding::Require && secured.end_point().is_none() {
                return Err(io::Error::other(
                    "the server's certificate has a signature without a hash function of its own (Ed25519), for which \
                     there is no channel binding: channel_binding=prefer, or another certificate",
                ));
            }
            Ok(secured)
        })
    }
}

/// The client configuration; `None` where the mode is `disable`.
///
/// # Errors
/// The root certificates, or the client's certificate or key, cannot be read, or there are none in their files.
pub(crate) fn client_config(settings: &ConnectSettings) -> io::Result<Option<Arc<ClientConfig>>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let known = || {
        let roots = Arc::new(roots(settings.ssl_root_cert.as_deref())?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        verifier.build().map_err(io::Error::other)
    };
    let lenient =
        |authority| -> Arc<dyn ServerCertVerifier> { Arc::new(Lenient { authority, provider: Arc::clone(&provider) }) };
    let verifier = match settings.ssl_mode {
        SslMode::Disable => return Ok(None),
        SslMode::VerifyFull => known()?,
        SslMode::VerifyCa => lenient(Some(known()?)),
        SslMode::Prefer | SslMode::Require => lenient(None),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &settings.ssl_cert {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = certificate::client(files)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                io::Error::other(format!(
                    "{} and {} do not belong together: {error}",
                    files.certificate.display(),
                    files.key.display()
                ))
            })?
        }
    };
    Ok(Some(Arc::new(config)))
}

fn roots(file: Option<&Path>) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if let Some(file) = file {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| certificate::failed(file, &error))?;
        for found in certificates {
            store.add(found.map_err(|error| certificate::failed(file, &error))?).map_err(io::Error::other)?;
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
