//! `service.toml`: what `outhaul serve` serves, to whom, and under which limits.

mod build;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ConfigErrors, Environment};
use crate::export::ExportRequest;

/// Everything that a service is made of.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Where callers are answered.
    pub listen: SocketAddr,
    /// Where the operator is answered: metrics and health.
    pub admin_listen: Option<SocketAddr>,
    /// What links begin with where a proxy stands in front.
    pub public_url: Option<String>,
    /// The file of the state store.
    pub state: PathBuf,
    /// The callers.
    pub keys: Vec<ApiKey>,
    /// Row caps by tier; `None` is no cap.
    pub tiers: BTreeMap<String, Option<NonZeroU64>>,
    /// What can be asked for.
    pub datasets: BTreeMap<String, Dataset>,
    /// What a caller may take.
    pub limits: ServiceLimits,
    /// What works and should still be looked at.
    pub warnings: Vec<String>,
}

/// A key: who has it, and what it opens. The key itself is known by its digest alone.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// What it is called in records.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Whose rows it opens.
    pub tenant: Option<String>,
    /// Its tier.
    pub tier: Option<String>,
    /// The datasets that it opens; `None` is all.
    pub datasets: Option<Vec<String>>,
    /// Whether its holder says in headers for whom and under which tier he asks.
    pub may_assert: bool,
}

/// One dataset.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// An export of it as NDJSON, before anything is asked.
    pub ndjson: ExportRequest,
    /// The same as CSV.
    pub csv: ExportRequest,
    /// What can be asked for, by the name that callers use.
    pub columns: BTreeMap<String, DatasetColumn>,
    /// The column of `date_range`.
    pub date_column: Option<String>,
    /// Whose rows a caller sees.
    pub tenant: Option<TenantTemplate>,
    /// Whether CSV's header line has the labels.
    pub labels: bool,
    /// What a file is called, without its extension.
    pub filename: Option<String>,
    /// The tiers that may query it; `None` is all.
    pub query_tiers: Option<Vec<String>>,
}

/// One column of a dataset.
#[derive(Debug, Clone, Default)]
pub struct DatasetColumn {
    /// What people call it.
    pub label: Option<String>,
    /// The operator's expression for it.
    pub expr: Option<String>,
    /// Its type, where the operator says it; else it is the catalog's.
    pub type_name: Option<String>,
    /// Whether rows can be chosen by it.
    pub filter: bool,
    /// Whether rows can be ordered by it.
    pub sort: bool,
}

/// `tenant` of a dataset.
#[derive(Debug, Clone)]
pub struct TenantTemplate {
    /// `customer_id = {tenant}`.
    pub template: String,
    /// The type of the tenant.
    pub type_name: String,
}

/// What callers may take.
#[derive(Debug, Clone)]
pub struct ServiceLimits {
    /// Streams at the same time.
    pub streams: u32,
    /// Those of one tenant.
    pub streams_per_tenant: u32,
    /// Requests of one tenant in a minute.
    pub requests_per_minute: u32,
    /// So long a connection may take no bytes.
    pub write_deadline: Duration,
    /// So long a caller waits for the first rows.
    pub first_page: Duration,
}

/// Reads and checks the file.
///
/// # Errors
/// All mistakes at once, but for what is no TOML or no key.
pub fn load_service(path: &Path, environment: &Environment) -> Result<ServiceConfig, ConfigErrors> {
    build::load(path, environment)
}
