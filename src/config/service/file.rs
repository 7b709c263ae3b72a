//! `service.toml` as it is written: every key that there is, with values of the right kind and not yet judged.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;

use serde::Deserialize;

use super::super::options::nearest;
use super::super::{ConfigError, position};
use crate::model::BucketUnit;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServiceFile {
    pub(super) listen: Option<String>,
    pub(super) admin_listen: Option<String>,
    pub(super) public_url: Option<String>,
    pub(super) state: Option<String>,
    pub(super) state_url: Option<StateUrl>,
    pub(super) state_password_file: Option<String>,
    pub(super) state_password_command: Option<String>,
    pub(super) bucket_key_ttl: Option<String>,
    pub(super) link_ttl: Option<String>,
    pub(super) link_redirect: Option<bool>,
    pub(super) link_secret: Option<Secrets>,
    pub(super) tls_cert: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) cors_origins: Vec<String>,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) source: BTreeMap<String, SourceEntry>,
    pub(super) tier: BTreeMap<String, TierEntry>,
    pub(super) key: Vec<KeyEntry>,
    pub(super) jwt: Option<JwtEntry>,
    pub(super) dataset: BTreeMap<String, DatasetEntry>,
    pub(super) limits: LimitsEntry,
    pub(super) jobs: JobsEntry,
    pub(super) retention: RetentionEntry,
    pub(super) webhook: Vec<WebhookEntry>,
    pub(super) destination: BTreeMap<String, DestinationEntry>,
    pub(super) clickhouse_console: Option<ConsoleEntry>,
}

/// `state_url`. Its text may hold a password: no `Debug` of it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct StateUrl(pub(super) String);

impl std::fmt::Debug for StateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateUrl").finish_non_exhaustive()
    }
}

/// `[source.NAME]`. Its text may hold a password: no `Debug` of it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SourceEntry {
    pub(super) from: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) password_command: Option<String>,
}

impl std::fmt::Debug for SourceEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceEntry").finish_non_exhaustive()
    }
}

/// `[tier.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierEntry {
    pub(super) max_rows: CapEntry,
}

/// A number, or `"unlimited"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum CapEntry {
    Rows(u64),
    Word(String),
}

/// `[[key]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyEntry {
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) tenant: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) datasets: Vec<String>,
    #[serde(default)]
    pub(super) may_assert: bool,
}

/// `[jwt]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtEntry {
    pub(super) jwks_url: Option<String>,
    pub(super) jwks_file: Option<String>,
    pub(super) issuer: String,
    pub(super) audience: AudienceEntry,
    pub(super) user_claim: Option<String>,
    pub(super) tenant_claim: Option<String>,
    pub(super) tier_claim: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) datasets_claim: Option<String>,
    pub(super) datasets: Vec<String>,
}

/// One name, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum AudienceEntry {
    One(String),
    Several(Vec<String>),
}

/// `[dataset.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetEntry {
    pub(super) source: Option<String>,
    pub(super) table: Option<String>,
    pub(super) query: Option<String>,
    pub(super) key: Option<String>,
    pub(super) date_column: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) tenant_type: Option<String>,
    pub(super) tenant_setting: Option<String>,
    pub(super) read_mode: Option<String>,
    pub(super) csv_bom: Option<bool>,
    pub(super) csv_newline: Option<String>,
    pub(super) csv_header: Option<String>,
    pub(super) filename: Option<String>,
    pub(super) destination: Option<String>,
    #[serde(default)]
    pub(super) columns: BTreeMap<String, ColumnEntry>,
    #[serde(default)]
    pub(super) analysis: BTreeMap<String, AnalysisEntry>,
    pub(super) grants: Option<GrantsEntry>,
}

/// `[dataset.NAME.columns]`, one column.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ColumnEntry {
    pub(super) label: Option<String>,
    pub(super) expr: Option<String>,
    pub(super) filter: Option<bool>,
    pub(super) sort: Option<bool>,
    pub(super) raw: Option<bool>,
}

/// `[dataset.NAME.grants]`: the tiers that may.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GrantsEntry {
    pub(super) query: Option<Vec<String>>,
    pub(super) analyze: BTreeMap<String, Vec<String>>,
}

/// `[dataset.NAME.analysis.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnalysisEntry {
    pub(super) dimensions: Vec<String>,
    pub(super) bucket: Option<BucketUnit>,
    pub(super) measures: Vec<String>,
    pub(super) max_buckets: Option<NonZeroU64>,
    pub(super) grants: Option<Vec<String>>,
}

/// `[destination.NAME]`. A command may have a secret among its words: no `Debug` of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationEntry {
    pub(super) to: String,
    pub(super) aws_credential_command: Option<String>,
}

impl std::fmt::Debug for DestinationEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DestinationEntry").field("to", &self.to).finish_non_exhaustive()
    }
}

/// One secret, or the new one and those before it: no `Debug` of them.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Secrets {
    One(String),
    Several(Vec<String>),
}

impl Secrets {
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// `[[webhook]]`. Its text may hold a secret: no `Debug` of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookEntry {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) secret: Option<Secrets>,
    pub(super) secret_file: Option<String>,
    pub(super) events: Option<Vec<String>>,
    pub(super) allow: Option<Vec<String>>,
}

impl std::fmt::Debug for WebhookEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `[clickhouse_console]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsoleEntry {
    pub(super) sources: Vec<String>,
    #[serde(default)]
    pub(super) keys: Vec<String>,
    #[serde(default)]
    pub(super) users: Vec<String>,
    pub(super) credentials: Option<String>,
    pub(super) first_bytes: Option<String>,
    #[serde(default)]
    pub(super) audit_literals: bool,
}

/// `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsEntry {
    pub(super) streams: Option<u32>,
    pub(super) streams_per_tenant: Option<u32>,
    pub(super) requests_per_minute: Option<u32>,
    pub(super) write_deadline: Option<String>,
    pub(super) first_page: Option<String>,
    pub(super) connections: Option<u32>,
    pub(super) memory: Option<String>,
    pub(super) max_row_bytes: Option<String>,
    pub(super) shutdown: Option<String>,
}

/// `[jobs]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JobsEntry {
    pub(super) workers: Option<u32>,
    pub(super) running_per_tenant: Option<u32>,
    pub(super) queued_per_tenant: Option<u32>,
    pub(super) attempts: Option<u32>,
}

/// `[retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionEntry {
    pub(super) receipts: Option<String>,
    pub(super) audit: Option<String>,
}

impl ServiceFile {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is no TOML, no key, or of the wrong kind; the first of them, with its line.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let (line, column) = position(text.as_bytes().get(..at).unwrap_or_default());
            let (what, hint) = told(error.message());
            ConfigError::new(format!("{}:{line}:{column}: {what}", path.display()), hint)
        })
    }
}

/// What is wrong, and what to do, by the parser's own words. They quote no value but one of the wrong kind, which is left
/// out: it may be a password.
fn told(message: &str) -> (String, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.strip_prefix("unknown field ").and_then(|_| quoted.next());
    if let Some(name) = unknown {
        let known: Vec<&str> = quoted.collect();
        let hint = nearest(name, known.iter().copied())
            .map_or_else(|| format!("the keys here are {}", known.join(", ")), |near| format!("did you mean {near}?"));
        return (format!("unknown key {name:?}"), hint);
    }
    match message.split_once(", expected ") {
        Some((kind, wanted)) if kind.starts_with("invalid") => {
            ("a value is of the wrong kind".to_owned(), format!("{wanted} is wanted"))
        }
        _ => (message.lines().next().unwrap_or_default().to_owned(), "the file must be TOML".to_owned()),
    }
}
