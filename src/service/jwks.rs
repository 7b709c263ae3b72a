//! The keys that tokens are checked with: a document (JWKS) that its issuer publishes, or a file.
//!
//! A key has one algorithm, which the document says or its kind implies; what a token says of itself chooses none. The
//! document is fetched in the background from time to time, and for a key that nobody knows at most once a minute. One
//! that cannot be fetched, or has no key of use, changes nothing.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::base::failpoint;
use crate::base::http::{HttpError, HttpServer};
use crate::base::voice;
use crate::config::service::JwksPlace;

/// For the whole document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Between two fetches for keys that nobody knows: tokens with made-up ones ask the issuer for nothing more.
const BETWEEN_FETCHES: Duration = Duration::from_mins(1);

/// The same, until there are keys at all.
const BETWEEN_FIRST_FETCHES: Duration = Duration::from_secs(5);

/// Keys that the issuer has withdrawn are good for so long at most while it can be reached.
pub(super) const KEYS_AGE_MAX: Duration = Duration::from_mins(15);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the keys did not come in time")]
    Slow,
    #[error("the answer is {0}, and no document")]
    Status(StatusCode),
    #[error("the document is larger than {} KiB, or broke off", DOCUMENT_BYTES_MAX / 1_024)]
    Body,
    #[error("this is no JWKS document")]
    Document,
    #[error("no key of the document can be used: kid, and RS, ES or EdDSA, are wanted")]
    NoKey,
}

/// One key.
pub(crate) struct TokenKey {
    kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct TokenKeys {
    /// None where they came from a file.
    server: Option<HttpServer>,
    keys: RwLock<Arc<[TokenKey]>>,
    /// When the last fetch ended. Its lock lets one fetch at a time go.
    fetched: Mutex<Option<Instant>>,
}

impl TokenKeys {
    /// The keys of a place. Those of a URL are `known` until they are fetched.
    ///
    /// # Errors
    /// The file is no document with a key of use.
    pub(crate) fn of(place: &JwksPlace, known: Option<&Self>) -> Result<Self, JwksError> {
        let (server, keys) = match place {
            JwksPlace::Url(url) => {
                let server = HttpServer::parse(url)?;
                let known = known.filter(|known| known.server.as_ref() == Some(&server));
                (Some(server), known.map_or_else(|| Arc::from([]), Self::all))
            }
            JwksPlace::File(text) => (None, parse(text)?),
        };
        Ok(Self { server, keys: RwLock::new(keys), fetched: Mutex::new(None) })
    }

    fn all(&self) -> Arc<[TokenKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there has never been a key.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Uses a key.
    pub(crate) fn with<T>(&self, kid: &str, used: impl FnOnce(&TokenKey) -> T) -> Option<T> {
        self.all().iter().find(|key| key.kid == kid).map(used)
    }

    /// Looks for a key that is not known, unless somebody has looked just now.
    ///
    /// # Cancel safety
    /// What was begun goes on: a caller who leaves stops nobody else's.
    pub(crate) async fn look_for(self: &Arc<Self>, kid: &str) {
        if self.server.is_none() || self.with(kid, |_| ()).is_some() {
            return;
        }
        let (keys, kid) = (Arc::clone(self), kid.to_owned());
        let looking = tokio::spawn(async move {
            let mut fetched = keys.fetched.lock().await;
            let pause = if keys.is_empty() { BETWEEN_FIRST_FETCHES } else { BETWEEN_FETCHES };
            let pause = failpoint::limit("jwks_pause", pause);
            let just_now = fetched.is_some_and(|at| at.elapsed() < pause) && !failpoint::off("jwks_pause");
            if keys.with(&kid, |_| ()).is_none() && !just_now {
                keys.fetch().await;
                *fetched = Some(Instant::now());
            }
        });
        // A panic is told by the panic hook.
        let _ = looking.await;
    }

    /// Fetches the document once more.
    pub(crate) async fn refresh(&self) {
        let mut fetched = self.fetched.lock().await;
        self.fetch().await;
        *fetched = Some(Instant::now());
    }

    async fn fetch(&self) {
        let Some(server) = &self.server else { return };
        let limit =
            if failpoint::off("jwks_timeout") { Duration::MAX } else { failpoint::limit("jwks", FETCH_TIMEOUT) };
        match timeout(limit, document(server)).await.unwrap_or(Err(JwksError::Slow)) {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
            Err(error) => {
                let error = voice::sentence(&error.to_string(), error.source(), false);
                tracing::error!(error, "the keys of tokens were not fetched; those that are known stay");
            }
        }
    }
}

/// What is wrong with the keys of a place.
///
/// # Errors
/// They cannot be had, or none is of use.
pub(crate) async fn check(place: &JwksPlace) -> Result<(), JwksError> {
    let keys = TokenKeys::of(place, None)?;
    match &keys.server {
        Some(server) => timeout(FETCH_TIMEOUT, document(server)).await.unwrap_or(Err(JwksError::Slow)).map(drop),
        None => Ok(()),
    }
}

async fn document(server: &HttpServer) -> Result<Arc<[TokenKey]>, JwksError> {
    let path = server.path("");
    let request = Request::get(if path.is_empty() { "/" } else { &path })
        .header(HOST, server.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("outhaul/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::new()));
    let request = request.map_err(|_| JwksError::Http(HttpError::Address("this is no URL")))?;
    let answer = server.send(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(JwksError::Status(answer.status()));
    }
    let most = if failpoint::off("jwks_size") { usize::MAX } else { DOCUMENT_BYTES_MAX };
    let whole = Limited::new(answer.into_body(), most).collect().await.map_err(|_| JwksError::Body)?;
    parse(&whole.to_bytes())
}

/// A document, whose keys are read one by one: one of a kind that is not known spoils no other.
#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<serde_json::Value>,
}

fn parse(text: &[u8]) -> Result<Arc<[TokenKey]>, JwksError> {
    let document: JwksDocument = serde_json::from_slice(text).map_err(|_| JwksError::Document)?;
    let keys: Arc<[TokenKey]> = document.keys.into_iter().filter_map(usable).collect();
    if keys.is_empty() { Err(JwksError::NoKey) } else { Ok(keys) }
}

/// A public key that signs, with a name and one algorithm.
fn usable(key: serde_json::Value) -> Option<TokenKey> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let common = &key.common;
    let signs = common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let kid = common.key_id.clone().filter(|kid| signs && !kid.is_empty())?;
    let algorithm = match (&key.algorithm, common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
            if ec.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES384))
            if ec.curve == EllipticCurve::P384 =>
        {
            Algorithm::ES384
        }
        (AlgorithmParameters::OctetKeyPair(ed), None | Some(KeyAlgorithm::EdDSA))
            if ed.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(&key).ok()?;
    Some(TokenKey { kid, algorithm, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_named_public_keys_that_sign_by_one_algorithm_are_of_use() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let ed = |more: serde_json::Value| {
            let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "1"});
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        let good = [ed(json!({})), ed(json!({"alg": "EdDSA", "use": "sig"})), ed(json!({"key_ops": ["verify"]}))];
        let bad = [
            ed(json!({"kid": ""})),
            ed(json!({"kid": null})),
            ed(json!({"use": "enc"})),
            ed(json!({"key_ops": ["sign"]})),
            ed(json!({"alg": "RS256"})),
            ed(json!({"alg": "HS256"})),
            ed(json!({"crv": "P-256"})),
            json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "1", "alg": "HS256"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "1", "alg": "RSA-OAEP"}),
            json!({"kty": "new", "kid": "1"}),
            json!(7),
        ];
        for key in &good {
            assert!(usable(key.clone()).is_some(), "{key}");
        }
        for key in &bad {
            assert!(usable(key.clone()).is_none(), "{key}");
            let text = json!({"keys": [key]}).to_string();
            assert!(matches!(parse(text.as_bytes()), Err(JwksError::NoKey)), "{key}");
            // It spoils no other.
            let text = json!({"keys": [key, good[0]]}).to_string();
            assert_eq!(parse(text.as_bytes()).unwrap().len(), 1, "{key}");
        }
        for text in ["", "[]", "{}", "{\"keys\": 1}", "<html>"] {
            assert!(matches!(parse(text.as_bytes()), Err(JwksError::Document)), "{text}");
        }
    }
}
