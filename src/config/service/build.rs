//! What was written becomes what is used: every name resolved, every contradiction found, all mistakes told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::options::nearest;
use super::super::raw::TIERS;
use super::super::typed::{load as load_export, load_connection};
use super::super::{ConfigError, ConfigErrors, Environment, value};
use super::analysis::analyses;
use super::file::{CapEntry, ColumnEntry, DatasetEntry, KeyEntry, LimitsEntry, ServiceFile, SourceEntry};
use super::{ApiKey, Dataset, DatasetColumn, ServiceConfig, ServiceLimits, TenantRule};
use crate::export::ExportRequest;
use crate::model::{ReadMode, ServedReads};
use crate::source::Source;

const LISTEN: &str = "127.0.0.1:8080";
const STATE: &str = "outhaul-state.sqlite3";
const STREAMS: u32 = 64;
const STREAMS_PER_TENANT: u32 = 8;
const REQUESTS_PER_MINUTE: u32 = 600;

/// Seconds.
const BUCKET_KEY_TTL: i64 = 3_600;

const WRITE_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_PAGE: Duration = Duration::from_secs(20);

/// One page of a stream, which is wholly in memory.
const PAGE_BYTES: u64 = 2 << 20;

/// One row of it.
const ROW_BYTES_MAX: u64 = 4 << 20;

/// One statement of a stream: a page, or a question about rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// So long a dataset that is read in one snapshot may hold it.
const SNAPSHOT_AGE: &str = "10m";

/// Where a template's rows would be, which are its source's in the end.
const NOWHERE: &str = "postgresql://nobody@localhost/nothing";

/// A source's text on its way to the parser, which takes it from a variable as it takes it from one of a person's.
const SOURCE_VARIABLE: &str = "service.toml";

pub(super) fn load(path: &Path, environment: &Environment) -> Result<ServiceConfig, ConfigErrors> {
    let text = environment.read(path).map_err(|error| {
        let what =
            format!("--config: cannot read {}: {}", path.display(), crate::base::voice::plain(&error.to_string()));
        ConfigErrors(vec![ConfigError::new(what, "check the name of the file, and who may read it")])
    })?;
    let file = ServiceFile::parse(&text, path).map_err(|error| ConfigErrors(vec![error]))?;
    let mut builder = Builder { folder: path.parent(), environment, errors: Vec::new(), warnings: Vec::new() };
    let open = environment.is_open_to_others(path);
    if open && file.source.values().any(|source| source.from.as_deref().is_some_and(has_password)) {
        builder.warnings.push(format!("others can read the password in {}: run chmod 600 on it", path.display()));
    }
    let config = builder.config(file);
    match config {
        Some(config) if builder.errors.is_empty() => Ok(config),
        _ => Err(ConfigErrors(builder.errors)),
    }
}

/// Whether a URL has a password in it.
fn has_password(from: &str) -> bool {
    let authority = from.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
    from.contains("password=") || authority.and_then(|it| it.rsplit_once('@')).is_some_and(|(who, _)| who.contains(':'))
}

struct Builder<'a> {
    folder: Option<&'a Path>,
    environment: &'a Environment,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Builder<'_> {
    fn wrong(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(what, hint));
    }

    fn config(&mut self, file: ServiceFile) -> Option<ServiceConfig> {
        let listen = self.address("listen", file.listen.as_deref().unwrap_or(LISTEN));
        let admin_listen = file.admin_listen.as_deref().and_then(|text| self.address("admin_listen", text));
        let state = self.relative(file.state.as_deref().unwrap_or(STATE));
        let tiers = self.tiers(&file);
        let mut sources = BTreeMap::new();
        for (name, entry) in &file.source {
            if let Some(source) = self.source(name, entry) {
                sources.insert(name.clone(), source);
            }
        }
        let mut datasets = BTreeMap::new();
        for (name, entry) in &file.dataset {
            if let Some(dataset) = self.dataset(name, entry, &sources, &tiers) {
                datasets.insert(name.clone(), dataset);
            }
        }
        if file.dataset.is_empty() {
            self.wrong("there is no [dataset.NAME]", "config/service.example.toml shows one");
        }
        let names: Vec<&str> = file.dataset.keys().map(String::as_str).collect();
        let keys = file.key.iter().filter_map(|entry| self.key(entry, &tiers, &names)).collect();
        let limits = self.limits(&file.limits);
        let bucket_key_seconds = self.seconds("bucket_key_ttl", file.bucket_key_ttl.as_deref(), BUCKET_KEY_TTL);
        let public_url = file.public_url.map(|url| url.trim_end_matches('/').to_owned());
        if public_url.as_deref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            self.wrong("public_url is no URL", "write it as in https://exports.example.com");
        }
        let warnings = std::mem::take(&mut self.warnings);
        Some(ServiceConfig {
            listen: listen?,
            admin_listen,
            public_url,
            state,
            bucket_key_seconds,
            keys,
            tiers,
            datasets,
            limits,
            warnings,
        })
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        match crate::base::telemetry::exporter::listen_address(text) {
            Ok(address) => Some(address),
            Err(why) => {
                self.wrong(format!("{key} is {text:?}"), why);
                None
            }
        }
    }

    /// A path, from the folder of the file.
    fn relative(&self, text: &str) -> PathBuf {
        self.folder.map_or_else(|| PathBuf::from(text), |folder| folder.join(text))
    }

    fn tiers(&mut self, file: &ServiceFile) -> BTreeMap<String, Option<NonZeroU64>> {
        let mut tiers: BTreeMap<String, Option<NonZeroU64>> = BTreeMap::new();
        let built_in: toml::Table = TIERS.parse().unwrap_or_default();
        for (name, cap) in built_in.get("tiers").and_then(toml::Value::as_table).into_iter().flatten() {
            let rows = cap.as_integer().and_then(|rows| u64::try_from(rows).ok()).and_then(NonZeroU64::new);
            tiers.insert(name.clone(), rows);
        }
        for (name, entry) in &file.tier {
            let cap = match &entry.max_rows {
                CapEntry::Word(word) if word == "unlimited" => Some(None),
                CapEntry::Word(_) => None,
                CapEntry::Rows(rows) => NonZeroU64::new(*rows).map(Some),
            };
            match cap {
                Some(cap) => drop(tiers.insert(name.clone(), cap)),
                None => self.wrong(format!("tier.{name}: max_rows"), "write a number of rows, or \"unlimited\""),
            }
        }
        tiers
    }

    fn source(&mut self, name: &str, entry: &SourceEntry) -> Option<Arc<dyn Source>> {
        let mut flags = Vec::new();
        let mut environment = self.environment.clone();
        if let Some(from) = &entry.from {
            // A variable may hold a password, which a command line may not.
            if let Some(variable) = from.strip_prefix("env:") {
                flags.push(("from", vec![format!("env:{variable}")]));
            } else {
                environment = environment.with(SOURCE_VARIABLE, from);
                flags.push(("from", vec![format!("env:{SOURCE_VARIABLE}")]));
            }
        }
        for (key, value) in [("password_file", &entry.password_file), ("password_command", &entry.password_command)] {
            flags.extend(value.as_ref().map(|value| (key, vec![value.clone()])));
        }
        match load_connection(flags, &environment) {
            Ok(source) => Some(source),
            Err(errors) => {
                let named = |error: ConfigError| ConfigError::new(format!("source.{name}: {}", error.what), error.hint);
                self.errors.extend(errors.0.into_iter().map(named));
                None
            }
        }
    }

    fn dataset(
        &mut self,
        name: &str,
        entry: &DatasetEntry,
        sources: &BTreeMap<String, Arc<dyn Source>>,
        tiers: &BTreeMap<String, Option<NonZeroU64>>,
    ) -> Option<Dataset> {
        let place = format!("dataset.{name}");
        if !is_word(name) {
            self.wrong(format!("{place}: the name stands in a URL"), "use letters, digits, _ and -");
        }
        let source = match (&entry.source, sources.len()) {
            (Some(source), _) => sources.get(source).cloned(),
            (None, 1) => sources.values().next().cloned(),
            (None, _) => None,
        };
        if source.is_none() && self.errors.is_empty() {
            self.wrong(format!("{place}: source"), "name one of the [source.NAME] tables");
        }
        let columns = self.columns(&place, entry);
        for tier in entry.grants.iter().filter_map(|grants| grants.query.as_ref()).flatten() {
            self.known_tier(&format!("{place}.grants.query"), tier, tiers);
        }
        let labels = match entry.csv_header.as_deref() {
            None | Some("names") => false,
            Some("labels") => true,
            Some(other) => {
                self.wrong(format!("{place}: csv_header is {other:?}"), "write names or labels");
                false
            }
        };
        let tenant = self.tenant(&place, entry);
        let analyses = analyses(&place, entry, &mut self.errors);
        for tier in analyses.values().filter_map(|analysis| analysis.tiers.as_ref()).flatten() {
            self.known_tier(&format!("{place}.analysis"), tier, tiers);
        }
        let template = |format| self.template(&place, entry, format);
        let [ndjson, csv] = ["ndjson", "csv"].map(template);
        let (mut ndjson, mut csv, source) = (ndjson?, csv?, source?);
        (ndjson.source, csv.source) = (Arc::clone(&source), source);
        Some(Dataset {
            name: name.to_owned(),
            ndjson,
            csv,
            columns,
            date_column: entry.date_column.clone(),
            tenant,
            labels,
            filename: entry.filename.clone(),
            analyses,
            query_tiers: entry.grants.as_ref().and_then(|grants| grants.query.clone()),
        })
    }

    fn columns(&mut self, place: &str, entry: &DatasetEntry) -> BTreeMap<String, DatasetColumn> {
        if entry.columns.is_empty() {
            self.wrong(
                format!("{place} has no columns"),
                format!("list in [{place}.columns] what callers may ask for"),
            );
        }
        if let Some(column) = &entry.date_column
            && !entry.columns.contains_key(column)
        {
            self.wrong(format!("{place}: date_column {column:?} is none of its columns"), "add it to them");
        }
        let typed = |entry: &ColumnEntry| DatasetColumn {
            label: entry.label.clone(),
            expr: entry.expr.clone(),
            filter: entry.filter.unwrap_or(true),
            sort: entry.sort.unwrap_or(false),
        };
        entry.columns.iter().map(|(name, entry)| (name.clone(), typed(entry))).collect()
    }

    fn tenant(&mut self, place: &str, entry: &DatasetEntry) -> Option<TenantRule> {
        match (&entry.tenant, &entry.tenant_setting) {
            (Some(_), Some(_)) => {
                self.wrong(format!("{place}: tenant and tenant_setting are both given"), "give one of them");
                None
            }
            (Some(template), None) => {
                if template.matches("{tenant}").count() != 1 {
                    let hint = "write {tenant} in it once, as in \"customer_id = {tenant}\"";
                    self.wrong(format!("{place}: tenant"), hint);
                }
                let type_name = entry.tenant_type.clone().unwrap_or_default();
                Some(TenantRule::Condition { template: template.clone(), type_name })
            }
            (None, Some(setting)) => {
                let word = |part: &str| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                };
                if setting.split('.').count() != 2 || !setting.split('.').all(word) {
                    self.wrong(format!("{place}: tenant_setting is {setting:?}"), "write it as in \"app.tenant\"");
                }
                Some(TenantRule::Setting(setting.clone()))
            }
            (None, None) => {
                self.warnings
                    .push(format!("{place} has no tenant: each caller that it is open to sees all of its rows"));
                None
            }
        }
    }

    /// The export of a dataset, before anything is asked, by the options of `outhaul export`.
    fn template(&mut self, place: &str, entry: &DatasetEntry, format: &str) -> Option<ExportRequest> {
        let word = |text: &str| vec![text.to_owned()];
        let mut flags = vec![
            ("from", word(NOWHERE)),
            ("to", word("-")),
            ("format", word(format)),
            ("compression", word("none")),
            ("allow_truncated", word("on")),
            ("on_unrepresentable", word("text")),
        ];
        let read_mode = entry.read_mode.as_deref().unwrap_or("keyset");
        flags.push(("read_mode", word(read_mode)));
        if read_mode == "copy" {
            flags.push(("max_snapshot_age", word(SNAPSHOT_AGE)));
        }
        if format == "csv" {
            let bom = if entry.csv_bom == Some(true) { "on" } else { "off" };
            flags.push(("csv_newline", word(entry.csv_newline.as_deref().unwrap_or("crlf"))));
            flags.extend([("csv_bom", word(bom)), ("csv_formula_guard", word("on")), ("csv_nested", word("json"))]);
        }
        let texts = [("table", &entry.table), ("query", &entry.query), ("key", &entry.key)];
        flags.extend(texts.into_iter().filter_map(|(key, value)| Some((key, word(value.as_ref()?)))));
        if entry.tenant_setting.is_some() {
            // The rows that row security hides are those of others.
            flags.push(("allow_rls", word("on")));
        }
        match load_export(flags, &Environment::default(), true) {
            Ok((mut request, _)) => {
                if let ReadMode::Keyset { .. } = request.work.read_mode {
                    request.work.served = Some(served());
                }
                Some(request)
            }
            Err(errors) => {
                for ConfigError { what, hint } in errors.0 {
                    // Both formats find the same mistakes.
                    let error = ConfigError::new(format!("{place}: {what}"), hint);
                    if !self.errors.contains(&error) {
                        self.errors.push(error);
                    }
                }
                None
            }
        }
    }

    fn key(&mut self, entry: &KeyEntry, tiers: &BTreeMap<String, Option<NonZeroU64>>, all: &[&str]) -> Option<ApiKey> {
        let place = format!("key {:?}", entry.name);
        let sha256 = digest(&entry.sha256);
        if sha256.is_none() {
            let hint = "write the 64 hex digits of printf %s \"$KEY\" | sha256sum";
            self.wrong(format!("{place}: sha256 is no SHA-256"), hint);
        }
        match (&entry.tier, entry.may_assert) {
            (Some(tier), _) => self.known_tier(&place, tier, tiers),
            (None, true) => {}
            (None, false) => self.wrong(format!("{place} has no tier"), "name one of the tiers"),
        }
        if entry.tenant.as_ref().is_some_and(|tenant| tenant.trim().is_empty()) {
            self.wrong(format!("{place}: tenant is empty"), "name the tenant, or leave it out");
        }
        for dataset in entry.datasets.iter().filter(|name| *name != "*") {
            if !all.contains(&dataset.as_str()) {
                let hint = nearest(dataset, all.iter().copied());
                let hint = hint.map_or_else(
                    || format!("the datasets are {}", all.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                self.wrong(format!("{place}: dataset {dataset:?} is not there"), hint);
            }
        }
        let every = entry.datasets.iter().any(|name| name == "*");
        Some(ApiKey {
            name: entry.name.clone(),
            sha256: sha256?,
            tenant: entry.tenant.clone(),
            tier: entry.tier.clone(),
            datasets: (!every).then(|| entry.datasets.clone()),
            may_assert: entry.may_assert,
        })
    }

    fn known_tier(&mut self, place: &str, tier: &str, tiers: &BTreeMap<String, Option<NonZeroU64>>) {
        if !tiers.contains_key(tier) {
            let known: Vec<&str> = tiers.keys().map(String::as_str).collect();
            self.wrong(format!("{place}: tier {tier:?} is not known"), format!("the tiers are {}", known.join(", ")));
        }
    }

    fn seconds(&mut self, key: &str, text: Option<&str>, usual: i64) -> i64 {
        match text.map(value::duration) {
            None => usual,
            Some(Ok(duration)) => i64::try_from(duration.as_secs()).unwrap_or(usual),
            Some(Err(why)) => {
                self.wrong(key, why);
                usual
            }
        }
    }

    fn limits(&mut self, entry: &LimitsEntry) -> ServiceLimits {
        let mut time = |key: &str, text: &Option<String>, usual: Duration| match text.as_deref().map(value::duration) {
            None => usual,
            Some(Ok(duration)) => duration,
            Some(Err(why)) => {
                self.errors.push(ConfigError::new(format!("limits.{key}"), why));
                usual
            }
        };
        let write_deadline = time("write_deadline", &entry.write_deadline, WRITE_DEADLINE);
        let first_page = time("first_page", &entry.first_page, FIRST_PAGE);
        let limits = ServiceLimits {
            streams: entry.streams.unwrap_or(STREAMS),
            streams_per_tenant: entry.streams_per_tenant.unwrap_or(STREAMS_PER_TENANT),
            requests_per_minute: entry.requests_per_minute.unwrap_or(REQUESTS_PER_MINUTE),
            write_deadline,
            first_page,
        };
        if limits.streams == 0 || limits.streams_per_tenant == 0 || limits.requests_per_minute == 0 {
            self.wrong("a limit of 0 serves nobody", "write 1 or more");
        }
        limits
    }
}

/// How pages are read for callers, before it is known for whom.
pub(super) fn served() -> ServedReads {
    let bytes = |bytes| NonZeroU64::new(bytes).unwrap_or(NonZeroU64::MIN);
    ServedReads {
        page_bytes: bytes(PAGE_BYTES),
        max_row_bytes: bytes(ROW_BYTES_MAX),
        statement_timeout: STATEMENT_TIMEOUT,
        settings: Vec::new(),
    }
}

/// A name that stands in a URL as it is.
fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// A SHA-256 in hex.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|it| u8::try_from(it).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}
