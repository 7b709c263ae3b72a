//! Tokens of an issuer (JWT): one that is right in every respect is a caller. What is wrong with another is for the log.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::Value;

use super::ServiceState;
use super::access::{Caller, bearer};
use super::jwks::{JwksError, TokenKeys};
use crate::base::failpoint;
use crate::config::service::JwtConfig;

/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;

/// The longest text of a claim that is used.
const CLAIM_BYTES_MAX: usize = 256;

/// The issuer whose tokens are taken.
#[derive(Debug)]
pub(crate) struct Tokens {
    settings: JwtConfig,
    pub(crate) keys: Arc<TokenKeys>,
}

/// Why a token is not taken, which no caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TokenFault(&'static str);

impl Tokens {
    /// What the settings say. Keys of the same URL that are `known` stay until they are fetched anew.
    ///
    /// # Errors
    /// The file of keys has none of use.
    pub(crate) fn new(settings: &JwtConfig, known: Option<&Self>) -> Result<Self, JwksError> {
        let keys = Arc::new(TokenKeys::of(&settings.jwks, known.map(|known| &*known.keys))?);
        Ok(Self { settings: settings.clone(), keys })
    }

    /// Who has a token.
    ///
    /// # Errors
    /// Anything about it is not right.
    pub(crate) fn caller(
        &self,
        token: &str,
        tiers: &BTreeMap<String, Option<NonZeroU64>>,
    ) -> Result<Caller, TokenFault> {
        let claims = self.claims(token)?;
        let JwtConfig { user_claim, tenant_claim, tier_claim, tier, .. } = &self.settings;
        let user = text(&claims, user_claim)?.ok_or(TokenFault("it names no user"))?;
        let tenant = match tenant_claim {
            Some(name) => Some(text(&claims, name)?.ok_or(TokenFault("it names no tenant"))?),
            None => None,
        };
        let claimed = tier_claim.as_ref().map_or(Ok(None), |name| text(&claims, name))?;
        let tier = claimed.or_else(|| tier.clone()).ok_or(TokenFault("it names no tier"))?;
        let max_rows = *tiers.get(&tier).ok_or(TokenFault("its tier is not known"))?;
        let datasets = self.datasets(&claims)?;
        let (credential, own) = (self.settings.issuer.clone(), format!("user:{user}"));
        Ok(Caller { credential, own, datasets, tenant, user: Some(user), tier, max_rows })
    }

    /// The claims of a token, all of whose promises hold.
    fn claims(&self, token: &str) -> Result<Value, TokenFault> {
        let header = decode_header(token).map_err(|_| TokenFault("it is no token of a known algorithm"))?;
        let kid = header.kid.as_deref().ok_or(TokenFault("it names no key"))?;
        if header.crit.is_some() {
            return Err(TokenFault("it wants what nobody here understands"));
        }
        let checked = self.keys.with(kid, |key| {
            // Its own word counts for nothing: a public key is no secret for an HMAC.
            let pinned = if failpoint::off("jwt_algorithm") { header.alg } else { key.algorithm };
            let mut validation = Validation::new(pinned);
            validation.leeway = LEEWAY;
            validation.validate_nbf = true;
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            validation.set_issuer(&[&self.settings.issuer]);
            validation.set_audience(&self.settings.audience);
            validation.validate_aud = !failpoint::off("jwt_audience");
            decode::<Value>(token, &key.key, &validation)
        });
        let token = checked.ok_or(TokenFault("its key is not known"))?.map_err(|error| fault(error.kind()))?;
        // A list of issuers is no issuer.
        if token.claims.get("iss").and_then(Value::as_str) != Some(&self.settings.issuer) {
            return Err(TokenFault("it is of another issuer"));
        }
        Ok(token.claims)
    }

    /// The datasets that the token opens; `None` is all.
    fn datasets(&self, claims: &Value) -> Result<Option<Vec<String>>, TokenFault> {
        let JwtConfig { datasets, datasets_claim, .. } = &self.settings;
        let Some(name) = datasets_claim else { return Ok(datasets.clone()) };
        let wrong = TokenFault("its datasets are no list of names");
        let claimed: Vec<String> = match claim(claims, name) {
            None => return Err(TokenFault("it names no datasets")),
            // As scopes are written.
            Some(Value::String(names)) => names.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(names)) => {
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or(wrong)?
            }
            Some(_) => return Err(wrong),
        };
        if claimed.iter().any(|name| name == "*") {
            return Ok(datasets.clone());
        }
        let open = |name: &String| datasets.as_ref().is_none_or(|datasets| datasets.contains(name));
        Ok(Some(claimed.into_iter().filter(open).collect()))
    }
}

fn fault(kind: &ErrorKind) -> TokenFault {
    TokenFault(match kind {
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidAudience => "it is for somebody else",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAlgorithm => "its algorithm is not that of its key",
        ErrorKind::MissingRequiredClaim(_) => "exp, iss or aud is missing",
        _ => "it is no token",
    })
}

/// A claim: a name at the top, or a JSON pointer.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    let found = if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) };
    found.filter(|value| !value.is_null())
}

/// The text of a claim, or a whole number's digits.
fn text(claims: &Value, name: &str) -> Result<Option<String>, TokenFault> {
    let text = match claim(claims, name) {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        Some(_) => return Err(TokenFault("a claim is no text")),
    };
    let plain = !text.trim().is_empty() && text.len() <= CLAIM_BYTES_MAX && !text.chars().any(char::is_control);
    if plain { Ok(Some(text)) } else { Err(TokenFault("a claim is empty, or no plain text")) }
}

/// Fetches the key that a token names where nobody knows it, so that whoever looks at the token need not wait.
pub(crate) async fn with_keys(State(service): State<Arc<ServiceState>>, request: Request, next: Next) -> Response {
    if let Some(tokens) = service.tokens()
        && let Some(kid) = named_key(request.headers())
    {
        tokens.keys.look_for(&kid).await;
    }
    next.run(request).await
}

fn named_key(headers: &HeaderMap) -> Option<String> {
    decode_header(bearer(headers)?).ok()?.kid
}
