//! Why there is no answer, in a person's words: nobody is there, or somebody else than a ClickHouse server over HTTP.

use std::io;

use super::super::{SourceError, SourceFault};
use crate::base::http::HttpError;
use crate::base::postgres::untrusted::{cause, certificate_hint, certificate_words, unknown_host};
use crate::model::ErrorCode;

/// What listens where.
pub(super) const PORTS: &str = "clickhouse:// speaks HTTP, usually at port 8123, and clickhouses:// HTTPS, usually at port 8443; \
    9000 and 9440 are the ports of clickhouse-client";

const NOBODY: &str = "check host and port in --from, and that the server runs and takes connections there";

const CLIENT_CERTIFICATE: &str =
    "sslcert=FILE and sslkey=FILE in --from name the certificate that the server wants to see";

/// No answer to what was being done.
pub(crate) fn of_http(error: HttpError, doing: &str) -> SourceError {
    let (fault, why) = match &error {
        HttpError::Address(_) | HttpError::NotListed { .. } => (SourceFault::Usage, None),
        HttpError::Tls { server, source } => (SourceFault::Authentication, Some(handshake(server, source))),
        HttpError::Connect { server, source } => (SourceFault::Unavailable, Some(connecting(server, source))),
        HttpError::Exchange { server, source } => match cause::<rustls::Error>(source) {
            // With TLS 1.3 a server refuses its client after the handshake.
            Some(rustls::Error::AlertReceived(alert)) => {
                (SourceFault::Authentication, Some(refused_by(server, *alert)))
            }
            _ if source.is_parse() => (SourceFault::Usage, Some(no_http(server))),
            _ => (SourceFault::Unavailable, None),
        },
        HttpError::Silent { .. } => (SourceFault::Unavailable, None),
    };
    let mut failed = SourceError::new(fault, doing);
    if let Some(why) = why {
        failed = SourceError { reason: why.reason, hint: why.hint.map(str::to_owned), ..failed.told_as(why.sentence) };
    }
    failed.with_source(error)
}

/// An error of the first question to a server: that it goes away without an answer may be since it is none.
pub(crate) fn first(mut error: SourceError) -> SourceError {
    if error.fault == SourceFault::Unavailable && error.code.is_none() {
        error.hint.get_or_insert_with(|| PORTS.to_owned());
    }
    error
}

struct WhyUnreached {
    sentence: String,
    reason: Option<ErrorCode>,
    hint: Option<&'static str>,
}

fn connecting(server: &str, error: &io::Error) -> WhyUnreached {
    let unknown = unknown_host(error);
    let reason = match error.kind() {
        _ if unknown.is_some() => Some(ErrorCode::HostUnknown),
        io::ErrorKind::ConnectionRefused => Some(ErrorCode::ConnectionRefused),
        _ => None,
    };
    let words = match reason {
        Some(ErrorCode::ConnectionRefused) => "connection refused".to_owned(),
        _ => unknown.unwrap_or_else(|| error.to_string()),
    };
    WhyUnreached { sentence: format!("cannot connect to {server}: {words}"), reason, hint: Some(NOBODY) }
}

fn handshake(server: &str, error: &io::Error) -> WhyUnreached {
    match cause::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(why)) => WhyUnreached {
            sentence: format!("cannot connect to {server}: {}", certificate_words(why)),
            reason: Some(ErrorCode::CertificateRefused),
            hint: certificate_hint(why),
        },
        Some(rustls::Error::AlertReceived(alert)) => refused_by(server, *alert),
        Some(rustls::Error::InvalidMessage(_)) => WhyUnreached {
            sentence: format!("cannot connect to {server}: what answers there speaks no TLS"),
            reason: Some(ErrorCode::TlsRefused),
            hint: Some(PORTS),
        },
        Some(_) | None => WhyUnreached {
            sentence: format!("cannot connect to {server}: its TLS fails: {error}"),
            reason: Some(ErrorCode::TlsRefused),
            hint: Some(PORTS),
        },
    }
}

fn refused_by(server: &str, alert: rustls::AlertDescription) -> WhyUnreached {
    use rustls::AlertDescription as Alert;
    let certificate = matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied
    );
    let words = match alert {
        Alert::CertificateRequired => "the server asks for a client's certificate, and there is none".to_owned(),
        _ if certificate => format!("the server refuses the client's certificate ({alert:?})"),
        _ => format!("the server refuses the TLS that is offered ({alert:?})"),
    };
    WhyUnreached {
        sentence: format!("cannot connect to {server}: {words}"),
        reason: Some(ErrorCode::TlsRefused),
        hint: Some(if certificate { CLIENT_CERTIFICATE } else { PORTS }),
    }
}

fn no_http(server: &str) -> WhyUnreached {
    WhyUnreached { sentence: format!("what answers at {server} does not speak HTTP"), reason: None, hint: Some(PORTS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(error: rustls::Error) -> SourceError {
        of_http(HttpError::Tls { server: "h:1".to_owned(), source: io::Error::other(error) }, "asking")
    }

    #[test]
    fn nobody_and_somebody_else_are_told_apart() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = of_http(HttpError::Connect { server: "h:1".to_owned(), source: refused }, "asking");
        assert_eq!((error.fault, error.reason), (SourceFault::Unavailable, Some(ErrorCode::ConnectionRefused)));
        assert_eq!(error.message, "cannot connect to h:1: connection refused");
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        let error = of_http(HttpError::Connect { server: "h:1".to_owned(), source: unknown }, "asking");
        assert_eq!(error.reason, Some(ErrorCode::HostUnknown));
        assert_eq!(error.message, "cannot connect to h:1: its name stands for no address (Name or service not known)");
        let plain = tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        assert_eq!(plain.fault, SourceFault::Authentication);
        assert!(plain.message.ends_with("speaks no TLS") && plain.hint.unwrap().contains("8123"));
    }

    #[test]
    fn certificates_are_refused_by_either_side() {
        let stranger = tls(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        assert_eq!(stranger.reason, Some(ErrorCode::CertificateRefused));
        assert!(stranger.hint.unwrap().contains("sslrootcert"));
        let none = tls(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired));
        assert!(none.message.contains("there is none") && none.hint.unwrap().contains("sslcert"));
        let old = tls(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion));
        assert!(old.message.contains("ProtocolVersion") && old.hint.unwrap().contains("HTTPS"));
    }

    #[test]
    fn only_a_lost_first_question_asks_for_the_port() {
        let lost = || SourceError::new(SourceFault::Unavailable, "asking");
        assert!(first(lost()).hint.unwrap().contains("9000"));
        let mut told = lost();
        told.code = Some("210".to_owned());
        assert_eq!(first(told).hint, None);
        assert_eq!(first(SourceError::new(SourceFault::Rejected, "asking")).hint, None);
    }
}
