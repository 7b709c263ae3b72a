//! `service.toml`: what `outhaul serve` serves, to whom, and under which limits.

mod analysis;
mod build;
mod callers;
mod console;
mod destinations;
mod file;
mod jobs;
mod jwt;
mod places;
mod secrets;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ConfigError, ConfigErrors, Environment};
use crate::base::postgres::settings::ConnectSettings;
use crate::export::ExportRequest;
use crate::model::BucketUnit;
pub use console::{StatementConsole, StatementCredentials};
pub use destinations::JobDestination;
pub use secrets::{LinkKey, WebhookSecret};
pub use webhooks::{Network, Webhook};

/// Everything that a service is made of.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Where callers are answered.
    pub listen: SocketAddr,
    /// Where the operator is answered: metrics and health.
    pub admin_listen: Option<SocketAddr>,
    /// What links begin with where a proxy stands in front.
    pub public_url: Option<String>,
    /// The certificate and its key, both in PEM, where callers are answered over TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Pages of these origins may ask.
    pub cors_origins: Vec<String>,
    /// Who is believed about the address of a client.
    pub trusted_proxies: Vec<Network>,
    /// What this process does.
    pub role: ServiceRole,
    /// The file of the state store, where it has one.
    pub state: PathBuf,
    /// The database of the state store, where several processes share it.
    pub state_url: Option<ConnectSettings>,
    /// Where the files of exports in the background are that have no destination.
    pub job_folder: PathBuf,
    /// Where those of others are, by name.
    pub destinations: BTreeMap<String, JobDestination>,
    /// So many seconds a bucket key is good for.
    pub bucket_key_seconds: i64,
    /// So many seconds a link to a file is good for.
    pub link_seconds: i64,
    /// Whether a link to one object sends the client to the store, where that can.
    pub link_redirect: bool,
    /// What links are signed with, the newest first; none is the key of the state store.
    pub link_keys: Vec<LinkKey>,
    /// The callers.
    pub keys: Vec<CallerKey>,
    /// Tokens that open datasets too.
    pub jwt: Option<JwtConfig>,
    /// Row caps by tier; `None` is no cap.
    pub tiers: BTreeMap<String, Option<NonZeroU64>>,
    /// What can be asked for.
    pub datasets: BTreeMap<String, Dataset>,
    /// What a caller may take.
    pub limits: ServiceLimits,
    /// What runs in the background.
    pub jobs: JobLimits,
    /// How long the service remembers.
    pub retention: Remembrance,
    /// Who is told how exports end.
    pub webhooks: Vec<Webhook>,
    /// Who may send statements, and where; nobody unless it is there.
    pub console: Option<StatementConsole>,
    /// What works and should still be looked at.
    pub warnings: Vec<String>,
}

/// What one of several processes does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceRole {
    /// It answers callers and runs jobs.
    #[default]
    All,
    /// It answers callers.
    Api,
    /// It runs jobs.
    Worker,
}

impl ServiceRole {
    /// Their names, as `--role` takes them.
    pub const ALL: [(&'static str, Self); 3] = [("all", Self::All), ("api", Self::Api), ("worker", Self::Worker)];

    /// Whether callers are answered.
    pub const fn answers(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether jobs are run.
    pub const fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

impl ServiceConfig {
    /// Gives the process its role.
    ///
    /// # Errors
    /// It shares its state with others, and the file has a state for one.
    pub fn take_role(&mut self, role: ServiceRole) -> Result<(), ConfigErrors> {
        self.role = role;
        if role == ServiceRole::All || self.state_url.is_some() {
            return Ok(());
        }
        let hint = "name a PostgreSQL database with state_url: a state file is for one process, which does all";
        Err(ConfigErrors(vec![ConfigError::new("--role: api and worker share their state", hint)]))
    }
}

/// A key: who has it, and what it opens. The key itself is known by its digest alone.
#[derive(Debug, Clone)]
pub struct CallerKey {
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

/// Tokens that somebody else issues.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Where the issuer's keys are.
    pub jwks: JwksPlace,
    /// `iss`.
    pub issuer: String,
    /// One of them is in `aud`.
    pub audience: Vec<String>,
    /// The claims: a name at the top, or a JSON pointer.
    pub user_claim: String,
    /// Whose rows the token opens.
    pub tenant_claim: Option<String>,
    /// Its tier.
    pub tier_claim: Option<String>,
    /// That of a token without the claim.
    pub tier: Option<String>,
    /// The datasets that the token opens, of those that tokens may open.
    pub datasets_claim: Option<String>,
    /// The datasets that tokens may open; `None` is all.
    pub datasets: Option<Vec<String>>,
}

/// A document of keys (JWKS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksPlace {
    /// It is fetched.
    Url(String),
    /// It was read with the configuration.
    File(Vec<u8>),
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
    /// An export of it in the background, by the name of its format.
    pub jobs: BTreeMap<String, ExportRequest>,
    /// What can be asked for, by the name that callers use.
    pub columns: BTreeMap<String, DatasetColumn>,
    /// The column of `date_range`.
    pub date_column: Option<String>,
    /// Whose rows a caller sees.
    pub tenant: Option<TenantRule>,
    /// Whether CSV's header line has the labels.
    pub labels: bool,
    /// What a file is called, without its extension.
    pub filename: Option<String>,
    /// The name of the destination of its exports in the background; `None` is the folder beside the state file.
    pub destination: Option<String>,
    /// What can be asked of it besides its rows.
    pub analyses: BTreeMap<String, Analysis>,
    /// The tiers that may query it; `None` is all.
    pub query_tiers: Option<Vec<String>>,
}

impl Dataset {
    /// Bytes of memory that a stream of its rows may hold, in whichever format.
    pub(crate) fn stream_bytes(&self) -> u64 {
        self.ndjson.memory_bytes().max(self.csv.memory_bytes())
    }
}

/// One column of a dataset.
#[derive(Debug, Clone, Default)]
pub struct DatasetColumn {
    /// What people call it.
    pub label: Option<String>,
    /// The operator's expression for it.
    pub expr: Option<String>,
    /// Whether rows can be chosen by it.
    pub filter: bool,
    /// Whether rows can be ordered by it.
    pub sort: bool,
    /// Whether CSV has its text as it is, even where a spreadsheet would run it.
    pub raw: bool,
}

/// Rows, grouped and measured.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// By which columns.
    pub dimensions: Vec<String>,
    /// The length of the buckets of the dataset's date column, which is the last dimension then.
    pub bucket: Option<BucketUnit>,
    /// What is measured, each of a column or, for a count, of none.
    pub measures: Vec<(MeasureKind, String)>,
    /// Groups at most.
    pub max_buckets: NonZeroU64,
    /// The tiers that may ask for it; `None` is all.
    pub tiers: Option<Vec<String>>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are SQL's own functions")]
pub enum MeasureKind {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

/// What chooses the rows of a tenant.
#[derive(Debug, Clone)]
pub enum TenantRule {
    /// `tenant`: a condition.
    Condition {
        /// `customer_id = {tenant}`.
        template: String,
        /// The type of the tenant.
        type_name: String,
    },
    /// `tenant_setting`: row security of the database, which reads the tenant from this setting.
    Setting(String),
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
    /// Connections at the same time.
    pub connections: u32,
    /// Bytes of memory that all streams and jobs together may hold.
    pub memory: u64,
    /// Bytes of one row at most; a larger one ends its stream.
    pub max_row_bytes: NonZeroU64,
    /// So long streams have to end by themselves once the service is to stop.
    pub shutdown: Duration,
}

/// What runs in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// Exports that run at the same time in one process.
    pub workers: u32,
    /// Those of one tenant, in all processes.
    pub running_per_tenant: u32,
    /// Exports of one tenant that wait or run.
    pub queued_per_tenant: u32,
    /// After so many attempts an export has failed.
    pub attempts: u32,
}

/// How long the service remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembrance {
    /// How a stream ended.
    pub receipts: Duration,
    /// Who asked for what.
    pub audit: Duration,
}

/// How the source is asked for a dataset whose streams are not read by pages.
pub(crate) fn served_reads() -> crate::model::ServedReads {
    build::served()
}

/// Reads and checks the file.
///
/// # Errors
/// All mistakes at once, but for what is no TOML or no key.
pub fn load_service(path: &Path, environment: &Environment) -> Result<ServiceConfig, ConfigErrors> {
    build::load(path, environment)
}
