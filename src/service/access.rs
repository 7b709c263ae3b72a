//! Who asks: keys become callers, and callers have tenants, tiers and datasets.

use std::num::NonZeroU64;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use super::problem::Refusal;
use crate::config::service::{Analysis, CallerKey, Dataset, ServiceConfig};

/// The longest tenant, user or tier that a header may name.
const ASSERTED_BYTES_MAX: usize = 256;

/// Whoever made a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    key: Arc<CallerKey>,
    pub(crate) tenant: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tier: String,
    /// The tier's cap.
    pub(crate) max_rows: Option<NonZeroU64>,
}

impl Caller {
    /// Finds the caller of a request by its key.
    ///
    /// # Errors
    /// There is no key, or none that is known; a header that only a trusted backend may send.
    pub(crate) fn of(headers: &HeaderMap, keys: &[Arc<CallerKey>], config: &ServiceConfig) -> Result<Self, Refusal> {
        let key = bearer(headers).and_then(|token| known(token, keys)).ok_or_else(Refusal::unauthorized)?;
        let tenant = asserted(headers, "x-outhaul-tenant")?;
        let user = asserted(headers, "x-outhaul-user")?;
        let tier = asserted(headers, "x-outhaul-tier")?;
        if !key.may_assert && (tenant.is_some() || user.is_some() || tier.is_some()) {
            return Err(Refusal::forbidden(
                "this key speaks for itself alone: X-Outhaul-Tenant, -Tier and -User are not for it",
            ));
        }
        let tier = tier.or_else(|| key.tier.clone());
        let tier =
            tier.ok_or_else(|| Refusal::invalid("X-Outhaul-Tier is missing, and the key has no tier of its own"))?;
        let max_rows = *config.tiers.get(&tier).ok_or_else(|| Refusal::invalid("X-Outhaul-Tier names no tier"))?;
        let tenant = tenant.or_else(|| key.tenant.clone());
        Ok(Self { key, tenant, user, tier, max_rows })
    }

    /// Whoever made a request that waited: what he may have is judged anew, and his key is not there any more.
    pub(crate) fn recorded(
        tenant: Option<String>,
        user: Option<String>,
        tier: String,
        max_rows: Option<NonZeroU64>,
        name: String,
    ) -> Self {
        let key = CallerKey { name, sha256: [0; 32], tenant: None, tier: None, datasets: None, may_assert: false };
        Self { key: Arc::new(key), tenant, user, tier, max_rows }
    }

    /// Whose records a request belongs to: the tenant's, or those of the key where it has none.
    pub(crate) fn owner(&self) -> String {
        self.tenant.as_ref().map_or_else(|| format!("key:{}", self.key.name), |tenant| format!("tenant:{tenant}"))
    }

    /// What the key is called.
    pub(crate) fn key_name(&self) -> &str {
        &self.key.name
    }

    /// Whether the caller may see that the dataset is there.
    pub(crate) fn may_use(&self, dataset: &Dataset) -> bool {
        self.key.datasets.as_ref().is_none_or(|datasets| datasets.contains(&dataset.name))
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
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
