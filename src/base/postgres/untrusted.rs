//! What is wrong with a server's certificate, in a person's words, and what to do about it.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

/// What is wrong with a certificate.
pub(crate) fn certificate_words(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "no trusted authority signed the server's certificate".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for other names".to_owned()
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server shows the certificate of an authority".to_owned()
        }
        other => format!("the server's certificate is refused: {other}"),
    }
}

/// What to do about it, where that is known.
pub(crate) fn certificate_hint(why: &CertificateError) -> Option<&'static str> {
    match why {
        CertificateError::UnknownIssuer => {
            Some("sslrootcert=FILE names the authority that has signed it; sslmode=require encrypts without checking")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some("it needs a new one"),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("use one of its alternative names as the host in --from")
        }
        // webpki's own error has no type that rustls shows.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            Some("let that authority sign one for the server; sslmode=require encrypts without checking")
        }
        _ => None,
    }
}

/// What is wanted of an error's causes; `io::Error` hides the one that it was made of.
pub(crate) fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
        inner.or_else(|| error.downcast_ref())
    })
}

/// A resolver's error without its library's words in front.
pub(crate) fn unknown_host(error: &io::Error) -> Option<String> {
    let text = error.to_string();
    let words = text.strip_prefix("failed to lookup address information: ")?;
    Some(format!("its name stands for no address ({words})"))
}
