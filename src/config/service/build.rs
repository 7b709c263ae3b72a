//! What was written becomes what is used: every name resolved, every contradiction found, all mistakes told at once.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::typed::load as load_export;
use super::super::{ConfigError, ConfigErrors, Environment};
use super::analysis::analyses;
use super::file::{ColumnEntry, DatasetEntry, ServiceFile};
use super::{Dataset, DatasetColumn, ServiceConfig, ServiceLimits, ServiceRole, TenantRule};
use crate::export::ExportRequest;
use crate::model::{ReadMode, ServedReads, SourceKind};
use crate::source::Source;

const LISTEN: &str = "127.0.0.1:8080";
const STATE: &str = "outhaul-state.sqlite3";

/// Seconds.
const BUCKET_KEY_TTL: i64 = 3_600;

/// Seconds.
const LINK_TTL: i64 = 86_400;

/// One page of a stream, which is wholly in memory.
const PAGE_BYTES: u64 = 2 << 20;

/// One row of it.
const ROW_BYTES_MAX: u64 = 4 << 20;

/// One statement of a stream: a page, or a question about rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// So long the server waits for somebody to read on.
const CLICKHOUSE_WAITS: Duration = Duration::from_secs(30);

/// So long a dataset that is read in one snapshot may hold it.
const SNAPSHOT_AGE: &str = "10m";

/// Where the files of a job would be, which is its own folder in the end.
const NO_FOLDER: &str = "/nowhere";

/// Where a template's rows would be, which are its source's in the end.
pub(super) const NOWHERE: &str = "postgresql://nobody@localhost/nothing";

pub(super) fn load(path: &Path, environment: &Environment) -> Result<ServiceConfig, ConfigErrors> {
    let text = environment.read(path).map_err(|error| {
        let what =
            format!("--config: cannot read {}: {}", path.display(), crate::base::voice::plain(&error.to_string()));
        ConfigErrors(vec![ConfigError::new(what, "check the name of the file, and who may read it")])
    })?;
    let file = ServiceFile::parse(&text, path).map_err(|error| ConfigErrors(vec![error]))?;
    let mut builder = Builder {
        folder: path.parent(),
        environment,
        errors: Vec::new(),
        warnings: Vec::new(),
        max_row_bytes: served().max_row_bytes,
    };
    let open = environment.is_open_to_others(path);
    let urls = file.source.values().filter_map(|source| source.from.as_deref());
    if open && urls.chain(file.state_url.as_ref().map(|url| url.0.as_str())).any(has_password) {
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

pub(super) struct Builder<'a> {
    pub(super) folder: Option<&'a Path>,
    pub(super) environment: &'a Environment,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    /// Of the rows of every dataset.
    pub(super) max_row_bytes: NonZeroU64,
}

impl Builder<'_> {
    pub(super) fn wrong(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(what, hint));
    }

    fn config(&mut self, file: ServiceFile) -> Option<ServiceConfig> {
        let listen = self.address("listen", file.listen.as_deref().unwrap_or(LISTEN));
        let admin_listen = file.admin_listen.as_deref().and_then(|text| self.address("admin_listen", text));
        let state_url = self.state_url(&file);
        let state = self.relative(file.state.as_deref().unwrap_or(STATE));
        let job_folder = beside(&state);
        let destinations = self.destinations(&file.destination);
        let tiers = self.tiers(&file);
        let limits = self.limits(&file.limits);
        self.max_row_bytes = limits.max_row_bytes;
        let mut sources = BTreeMap::new();
        for (name, entry) in &file.source {
            if let Some(source) = self.source(name, entry) {
                sources.insert(name.clone(), source);
            }
        }
        let mut datasets = BTreeMap::new();
        for (name, entry) in &file.dataset {
            if let Some(dataset) = self.dataset(name, entry, &sources, &tiers) {
                let destination = self.destination_of(name, entry.destination.as_deref(), &destinations);
                datasets.insert(name.clone(), Dataset { destination, ..dataset });
            }
        }
        self.check_destinations(state_url.is_some(), &job_folder, &datasets, &destinations);
        if file.dataset.is_empty() && file.clickhouse_console.is_none() {
            self.wrong("there is no [dataset.NAME]", "config/service.example.toml shows one");
        }
        let names: Vec<&str> = file.dataset.keys().map(String::as_str).collect();
        let keys = self.keys(&file.key, &tiers, &names);
        let jwt = file.jwt.as_ref().and_then(|entry| self.jwt(entry, &tiers, &names));
        let console = self.console(&file, &sources);
        self.check_limits(&limits, &datasets);
        self.check_sources(&file);
        let retention = self.retention(&file.retention);
        let jobs = self.jobs(&file.jobs);
        let tls = self.tls(file.tls_cert.as_deref(), file.tls_key.as_deref());
        self.origins(&file.cors_origins);
        let trusted_proxies = self.proxies(&file.trusted_proxies);
        let bucket_key_seconds = self.seconds("bucket_key_ttl", file.bucket_key_ttl.as_deref(), BUCKET_KEY_TTL);
        let link_seconds = self.seconds("link_ttl", file.link_ttl.as_deref(), LINK_TTL);
        let link_keys = self.link_keys(file.link_secret.as_ref());
        let public_url = self.public_url(file.public_url);
        let webhooks = self.webhooks(file.webhook, public_url.is_some());
        let warnings = std::mem::take(&mut self.warnings);
        Some(ServiceConfig {
            listen: listen?,
            admin_listen,
            public_url,
            tls,
            cors_origins: file.cors_origins,
            trusted_proxies,
            role: ServiceRole::All,
            state,
            state_url,
            job_folder,
            destinations,
            bucket_key_seconds,
            link_seconds,
            link_redirect: file.link_redirect.unwrap_or(true),
            link_keys,
            keys,
            jwt,
            tiers,
            datasets,
            limits,
            jobs,
            retention,
            webhooks,
            console,
            warnings,
        })
    }

    /// A stream must have room for itself at least, and nobody waits longer for a client than ClickHouse for its reader.
    fn check_limits(&mut self, limits: &ServiceLimits, datasets: &BTreeMap<String, Dataset>) {
        self.check_patience(limits, datasets);
        let largest = datasets.values().map(Dataset::stream_bytes).max();
        if let Some(bytes) = largest.filter(|bytes| *bytes > limits.memory) {
            let wanted = bytes.div_ceil(1 << 20);
            self.wrong("limits.memory has no room for one stream", format!("give it {wanted}MiB or more"));
        }
    }

    fn check_sources(&mut self, file: &ServiceFile) {
        let console = file.clickhouse_console.iter().flat_map(|console| &console.sources);
        let named: Vec<&String> =
            file.dataset.values().filter_map(|entry| entry.source.as_ref()).chain(console).collect();
        let unused = file.source.keys().filter(|name| file.source.len() > 1 && !named.contains(name));
        self.warnings.extend(unused.map(|name| format!("source.{name} is the source of nothing")));
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
        if source.as_ref().is_some_and(|source| source.kind() == SourceKind::Clickhouse) {
            self.of_clickhouse(&place, entry);
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
        let template = |format| self.template(&place, entry, format, "-");
        let [ndjson, csv] = ["ndjson", "csv"].map(template);
        let (mut ndjson, mut csv, source) = (ndjson?, csv?, source?);
        let mut jobs = BTreeMap::new();
        for format in ["ndjson", "csv", "parquet"] {
            let mut template = self.template(&place, entry, format, NO_FOLDER)?;
            template.source = Arc::clone(&source);
            jobs.insert(format.to_owned(), template);
        }
        (ndjson.source, csv.source) = (Arc::clone(&source), source);
        Some(Dataset {
            name: name.to_owned(),
            ndjson,
            csv,
            jobs,
            columns,
            date_column: entry.date_column.clone(),
            tenant,
            labels,
            filename: entry.filename.clone(),
            destination: None,
            analyses,
            query_tiers: entry.grants.as_ref().and_then(|grants| grants.query.clone()),
        })
    }

    /// What a dataset of ClickHouse cannot have.
    fn of_clickhouse(&mut self, place: &str, entry: &DatasetEntry) {
        if entry.tenant_setting.is_some() {
            let hint = "write tenant = \"customer_id = {tenant}\", and tenant_type";
            self.wrong(format!("{place}: tenant_setting is of PostgreSQL, and its source is ClickHouse"), hint);
        }
        if entry.read_mode.is_some() {
            let hint = "leave it out: rows of ClickHouse are read by one statement, which sees one moment";
            self.wrong(format!("{place}: read_mode is of PostgreSQL, and its source is ClickHouse"), hint);
        }
    }

    fn check_patience(&mut self, limits: &ServiceLimits, datasets: &BTreeMap<String, Dataset>) {
        let first = datasets.values().find(|dataset| dataset.ndjson.source.kind() == SourceKind::Clickhouse);
        if let Some(dataset) = first.filter(|_| limits.write_deadline > CLICKHOUSE_WAITS) {
            self.warnings.push(format!(
                "limits.write_deadline is longer than the 30 s for which ClickHouse waits for its reader: a client of \
                 dataset.{} that stops for longer has its stream broken off",
                dataset.name
            ));
        }
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
        if entry.csv_header.as_deref() == Some("labels") {
            let mut headers = BTreeMap::new();
            for (name, column) in &entry.columns {
                let header = column.label.as_ref().unwrap_or(name);
                if let Some(other) = headers.insert(header, name) {
                    let what = format!("{place}: columns {other:?} and {name:?} have one header in CSV, {header:?}");
                    self.wrong(what, "give one of them another label");
                }
            }
        }
        let typed = |entry: &ColumnEntry| DatasetColumn {
            label: entry.label.clone(),
            expr: entry.expr.clone(),
            filter: entry.filter.unwrap_or(true),
            sort: entry.sort.unwrap_or(false),
            raw: entry.raw.unwrap_or(false),
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
                if entry.read_mode.as_deref() == Some("copy") {
                    let what =
                        format!("{place}: read_mode = \"copy\" reads in sessions that are told no tenant_setting");
                    self.wrong(what, "leave read_mode out, or name the tenant's rows by tenant = \"… = {tenant}\"");
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
    fn template(&mut self, place: &str, entry: &DatasetEntry, format: &str, to: &str) -> Option<ExportRequest> {
        let word = |text: &str| vec![text.to_owned()];
        let mut flags = vec![
            ("from", word(NOWHERE)),
            ("to", word(to)),
            ("format", word(format)),
            ("compression", word("none")),
            ("allow_truncated", word("on")),
            ("on_unrepresentable", word("text")),
        ];
        if to == NO_FOLDER {
            // One after the other, as the order is: the next tenant's export runs beside it.
            flags.push(("readers", word("1")));
        }
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
                    request.work.served = Some(ServedReads { max_row_bytes: self.max_row_bytes, ..served() });
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

/// The folder of the files of jobs, beside the state file.
fn beside(state: &Path) -> PathBuf {
    let mut folder = state.as_os_str().to_owned();
    folder.push(".exports");
    std::path::absolute(&folder).unwrap_or_else(|_| folder.into())
}

/// A name that stands in a URL as it is.
pub(super) fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
