//! `outhaul serve --check`: whether what the file says fits the databases and the machine, found out by the same ways that
//! requests take.

use std::error::Error;

use rustix::fs::Access;
use tokio::sync::mpsc::channel;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::analyze::{dimensions, measures};
use super::catalog::{describe, without_rows};
use super::jobs::probe;
use super::jwks;
use super::problem::Refusal;
use super::state;
use super::tls::server_config;
use crate::base::voice;
use crate::config::ConfigError;
use crate::config::service::{Analysis, Dataset, ServiceConfig, StatementCredentials, TenantRule, served_reads};
use crate::export::{ExportError, ExportRequest, plan, stream};
use crate::model::{AggregateRequest, DescribedRelation, ExportErrorKind, ServedRequest};

/// Looks for what does not fit; nothing of it is started, and no row is read.
pub(super) async fn check(config: &ServiceConfig) -> Vec<ConfigError> {
    let mut errors = machine(config);
    for dataset in config.datasets.values() {
        let place = format!("dataset.{}", dataset.name);
        match timeout(config.limits.first_page, of_dataset(&place, dataset)).await {
            Ok(found) => errors.extend(found),
            Err(_) => errors.push(ConfigError::new(
                format!("{place}: its source did not answer within limits.first_page"),
                "look whether the database is reached, and what locks the table",
            )),
        }
    }
    for (name, destination) in &config.destinations {
        let place = format!("destination.{name}");
        let (what, hint) = match timeout(config.limits.first_page, probe(destination)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => {
                let hint = "the service must be able to write, read, list and delete there";
                (format!("{place}: {}", error.sentence()), hint)
            }
            Err(_) => {
                let what = format!("{place} did not answer within limits.first_page");
                (what, "look whether the store is reached from here")
            }
        };
        errors.push(ConfigError::new(what, hint));
    }
    errors.extend(of_console(config).await);
    if let Err(error) = state::probe(config).await {
        let what = format!("state_url: {}", voice::sentence(&error.to_string(), error.source(), false));
        errors.push(ConfigError::new(what, error.hint().unwrap_or("look what the database says")));
    }
    if let Some(settings) = &config.jwt
        && let Err(error) = jwks::check(&settings.jwks).await
    {
        let what = format!("jwt: {}", voice::sentence(&error.to_string(), error.source(), false));
        errors.push(ConfigError::new(what, "check jwks_url or jwks_file"));
    }
    errors
}

/// Asks the servers that statements go to, where the service has a user of its own for them.
async fn of_console(config: &ServiceConfig) -> Vec<ConfigError> {
    let console = config.console.iter().filter(|console| console.credentials == StatementCredentials::Source);
    let mut errors = Vec::new();
    for (name, request) in console.flat_map(|console| &console.sources) {
        let place = format!("clickhouse_console: source {name:?}");
        match timeout(config.limits.first_page, Box::pin(plan(request.clone()))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => errors.push(failed(&place, &error)),
            Err(_) => errors.push(ConfigError::new(
                format!("{place} did not answer within limits.first_page"),
                "look whether the server is reached from here",
            )),
        }
    }
    errors
}

/// Files and folders.
fn machine(config: &ServiceConfig) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if let Some(Err(error)) = config.tls.as_ref().map(server_config) {
        errors.push(ConfigError::new(format!("tls_cert, tls_key: {error}"), "both are PEM files"));
    }
    if config.state_url.is_some() {
        return errors;
    }
    let folder = config.state.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
    if let Err(error) = rustix::fs::access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let what = format!("state: {} cannot be written to: {}", folder.display(), std::io::Error::from(error));
        errors.push(ConfigError::new(what, "make the folder, and let the service write there"));
    }
    errors
}

async fn of_dataset(place: &str, dataset: &Dataset) -> Vec<ConfigError> {
    let described = match describe(dataset).await {
        Ok(described) => described,
        Err(error) => return vec![failed(place, &error)],
    };
    let mut errors = misfits(place, dataset, &described);
    if !errors.is_empty() {
        return errors;
    }
    for request in [&dataset.ndjson, &dataset.csv] {
        if let Err(error) = no_rows(dataset, request).await {
            // What both find is told once.
            let error = failed(place, &error);
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
    }
    for (name, analysis) in &dataset.analyses {
        if let Err(error) = no_buckets(dataset, &described, analysis).await {
            errors.push(failed(&format!("{place}.analysis.{name}"), &error));
        }
    }
    errors
}

fn failed(place: &str, error: &ExportError) -> ConfigError {
    let hint = error.hint.clone().unwrap_or_else(|| "check the dataset against the database".to_owned());
    ConfigError::new(format!("{place}: {}", error.sentence()), hint)
}

/// Asks for all columns as a caller would, and for no rows.
async fn no_rows(dataset: &Dataset, template: &ExportRequest) -> Result<(), ExportError> {
    let mut request = template.clone();
    let plain = dataset.columns.iter().filter(|(_, column)| column.expr.is_none());
    request.shape.columns = Some(plain.map(|(name, _)| name.clone()).collect());
    let made = dataset.columns.iter().filter_map(|(name, column)| Some((name.clone(), column.expr.clone()?)));
    request.shape.expressions = made.collect();
    request.shape.predicate = Some(without_rows(dataset)?);
    if let (Some(served), Some(TenantRule::Setting(setting))) = (&mut request.work.served, &dataset.tenant) {
        served.settings.push((setting.clone(), String::new()));
    }
    let (bytes, mut sent) = channel(1);
    let (events, _) = channel(1);
    let reading = tokio::spawn(async move { while sent.recv().await.is_some() {} });
    let streamed = stream(request, bytes, events, CancellationToken::new()).await;
    reading.abort();
    streamed.map(drop)
}

/// Asks for an analysis of no rows: a sum of texts is found out.
async fn no_buckets(dataset: &Dataset, described: &DescribedRelation, analysis: &Analysis) -> Result<(), ExportError> {
    let unknown = |refusal: Refusal| ExportError::new(ExportErrorKind::SourceMissing, refusal.message);
    let mut shape = dataset.ndjson.shape.clone();
    shape.predicate = Some(without_rows(dataset)?);
    let mut served = dataset.ndjson.work.served.clone().unwrap_or_else(served_reads);
    if let Some(TenantRule::Setting(setting)) = &dataset.tenant {
        served.settings.push((setting.clone(), String::new()));
    }
    let request = AggregateRequest {
        of: ServedRequest { shape, served },
        dimensions: dimensions(dataset, described, analysis).map_err(unknown)?,
        measures: measures(described, analysis).map_err(unknown)?,
        max_buckets: analysis.max_buckets,
        max_bytes: u64::MAX,
    };
    match dataset.ndjson.source.aggregate(request) {
        Some(aggregated) => Ok(aggregated.await.map(drop)?),
        None => Err(ExportError::internal("the source measures nothing")),
    }
}

fn misfits(place: &str, dataset: &Dataset, described: &DescribedRelation) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if described.key.is_empty() && !described.one_statement {
        errors.push(ConfigError::new(format!("{place} has no key that its pages could follow"), "name one in key"));
    }
    if let Some(refused) = &described.refused {
        errors.push(ConfigError::new(format!("{place}: {refused}"), "name another key"));
    }
    // Of a query or a view nobody can tell.
    if !described.row_security && matches!(dataset.tenant, Some(TenantRule::Setting(_))) {
        let what = format!("{place}: tenant_setting, and row security hides nothing from the role that reads");
        let hint = "enable row level security, and read as a role that neither owns the table nor has BYPASSRLS";
        errors.push(ConfigError::new(what, hint));
    }
    let all = || described.columns.iter().chain(&described.expressions);
    for name in dataset.columns.keys().filter(|name| all().all(|column| column.scope.name != **name)) {
        errors
            .push(ConfigError::new(format!("{place}: there is no column {name:?}"), "leave it out, or write an expr"));
    }
    for column in all() {
        let name = &column.scope.name;
        if dataset.date_column.as_ref() == Some(name) && !column.dates {
            let what = format!("{place}: date_column {name:?} holds {}, and no days", column.type_name);
            errors.push(ConfigError::new(what, "name a column of dates or timestamps"));
        }
        if dataset.columns.get(name).is_some_and(|granted| granted.sort) && !column.leads_index {
            errors.push(not_sorted(place, name, described.one_statement));
        }
    }
    errors
}

/// Rows are not ordered by a column that says they can be.
fn not_sorted(place: &str, name: &str, one_statement: bool) -> ConfigError {
    if one_statement {
        let what = format!("{place}: rows cannot be ordered by {name:?}");
        let hint =
            format!("leave sort = true out of {name}: it takes a column of numbers, dates, times, texts or UUIDs");
        return ConfigError::new(what, hint);
    }
    let what = format!("{place}: no index leads with {name:?}, so that each page would sort the table");
    ConfigError::new(what, format!("create one, or leave sort = true out of {name}"))
}
