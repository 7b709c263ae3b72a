//! Who asks: keys become callers, and callers have tenants, tiers and datasets.

use std::num::NonZeroU64;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use super::jwt::Tokens;
use super::problem::Refusal;
use crate::config::service::{Analysis, CallerKey, Dataset, ServiceConfig};

/// The longest tenant, user or tier that a header may name.
const ASSERTED_BYTES_MAX: usize = 256;

/// Headers in which a trusted backend says for whom it asks.
const ASSERTIONS: [&str; 3] = ["x-outhaul-tenant", "x-outhaul-user", "x-outhaul-tier"];

/// Whoever made a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// What the key is called, or the issuer of the token.
    pub(crate) credential: String,
    /// Whose records are those of a caller without a tenant: the key's, or those of the token's user.
    pub(crate) own: String,
    /// The datasets that it opens; `None` is all.
    pub(crate) datasets: Option<Vec<String>>,
    pub(crate) tenant: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tier: String,
    /// The tier's cap.
    pub(crate) max_rows: Option<NonZeroU64>,
}

impl Caller {
    /// Finds the caller of a request by its key or its token.
    ///
    /// # Errors
    /// There is none, or none that is right; a header that only a trusted backend may send.
    pub(crate) fn of(
        headers: &HeaderMap,
        keys: &[Arc<CallerKey>],
        tokens: Option<&Tokens>,
        config: &ServiceConfig,
    ) -> Result<Self, Refusal> {
        let token = bearer(headers).ok_or_else(Refusal::unauthorized)?;
        let Some(key) = known(token, keys) else {
            let caller = of_token(token, tokens, config)?;
            // A token speaks for itself.
            return if ASSERTIONS.iter().any(|name| headers.contains_key(*name)) { Err(alone()) } else { Ok(caller) };
        };
        let [tenant, user, tier] = ASSERTIONS.map(|name| asserted(headers, name));
        let (tenant, user, tier) = (tenant?, user?, tier?);
        if !key.may_assert && (tenant.is_some() || user.is_some() || tier.is_some()) {
            return Err(alone());
        }
        let asserted = tier.is_some();
        let tier = tier.or_else(|| key.tier.clone());
        let tier =
            tier.ok_or_else(|| Refusal::invalid("X-Outhaul-Tier is missing, and the key has no tier of its own"))?;
        let unknown = if asserted { "X-Outhaul-Tier names no tier" } else { "the key's tier is not served" };
        let max_rows = *config.tiers.get(&tier).ok_or_else(|| Refusal::invalid(unknown))?;
        let tenant = tenant.or_else(|| key.tenant.clone());
        let (credential, own, datasets) = (key.name.clone(), format!("key:{}", key.name), key.datasets.clone());
        Ok(Self { credential, own, datasets, tenant, user, tier, max_rows })
    }

    /// Whose records a request belongs to: the tenant's, or the caller's own where he has none.
    pub(crate) fn owner(&self) -> String {
        self.tenant.as_ref().map_or_else(|| self.own.clone(), |tenant| format!("tenant:{tenant}"))
    }

    /// Whether the caller may see that the dataset is there.
    pub(crate) fn may_use(&self, dataset: &Dataset) -> bool {
        self.datasets.as_ref().is_none_or(|datasets| datasets.contains(&dataset.name))
    }

    /// Whether the caller may have its rows.
    pub(crate) fn may_query(&self, dataset: &Dataset) -> bool {
        self.may_use(dataset) && dataset.query_tiers.as_ref().is_none_or(|tiers| tiers.contains(&self.tier))
    }

    /// Whether the caller, who may use its dataset, may have an analysis and the rows of its buckets.
    pub(crate) fn may_analyze(&self, analysis: &Analysis) -> bool {
        analysis.tiers.as_ref().is_none_or(|tiers| tiers.contains(&self.tier))
    }
}

fn alone() -> Refusal {
    Refusal::forbidden("this key speaks for itself alone: X-Outhaul-Tenant, -Tier and -User are not for it")
}

/// The caller of a token, of which every fault is the same to him.
fn of_token(token: &str, tokens: Option<&Tokens>, config: &ServiceConfig) -> Result<Caller, Refusal> {
    let tokens = tokens.filter(|_| token.split('.').count() == 3).ok_or_else(Refusal::unauthorized)?;
    if tokens.keys.is_empty() {
        let message = "the service does not have the keys of tokens yet";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable", message).after(5));
    }
    tokens.caller(token, &config.tiers).map_err(|fault| {
        tracing::info!(%fault, "a token was not taken");
        Refusal::unauthorized()
    })
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The key of a token. All of them are compared, each to its end, so that the time says nothing.
fn known(token: &str, keys: &[Arc<CallerKey>]) -> Option<Arc<CallerKey>> {
    let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let mut found = None;
    for key in keys {
        let different = digest.iter().zip(&key.sha256).fold(0, |sum, (one, other)| sum | (one ^ other));
        if std::hint::black_box(different) == 0 {
            found = Some(Arc::clone(key));
        }
    }
    found
}

/// What a trusted backend says in a header. An empty one is none.
fn asserted(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || Refusal::invalid(format!("{name} is wanted once, as text of at most 256 characters"));
    if values.next().is_some() || value.len() > ASSERTED_BYTES_MAX {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_| wrong())?.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
