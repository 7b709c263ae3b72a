//! What the sources say of the datasets: types for filters, keys for pages. Asked when it is first needed, and anew where a
//! question shows that it holds no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::ServiceState;
use super::problem::{Refusal, without_values};
use crate::config::service::{Dataset, ServiceConfig, TenantRule, served_reads};
use crate::export::ExportError;
use crate::model::{DescribedColumn, DescribedRelation, ExportErrorKind, ServedRequest, TenantScope};

/// What is known of each dataset. Whoever asks its source holds the lock, so that others wait for the same answer.
pub(crate) type Catalog = BTreeMap<String, Mutex<Option<Arc<DescribedRelation>>>>;

/// Nothing yet.
pub(crate) fn unknown(config: &ServiceConfig) -> Catalog {
    config.datasets.keys().map(|name| (name.clone(), Mutex::default())).collect()
}

impl ServiceState {
    /// What the source says of a dataset.
    ///
    /// # Errors
    /// The source fails, or does not know what the dataset names.
    pub(crate) async fn described(&self, dataset: &Dataset) -> Result<Arc<DescribedRelation>, Refusal> {
        self.described_since(dataset, None).await
    }

    /// What is known of a dataset, where that is newer than what `before` says.
    async fn described_since(
        &self,
        dataset: &Dataset,
        before: Option<&Arc<DescribedRelation>>,
    ) -> Result<Arc<DescribedRelation>, Refusal> {
        let cell = self.catalog.get(&dataset.name).ok_or_else(|| Refusal::invalid("there is no such dataset"))?;
        let mut cell = cell.lock().await;
        if let Some(known) = cell.as_ref().filter(|known| before.is_none_or(|before| !Arc::ptr_eq(known, before))) {
            return Ok(Arc::clone(known));
        }
        let described = describe(dataset).await.map_err(|error| {
            tracing::warn!(dataset = dataset.name, error = without_values(&error), "a dataset could not be described");
            Refusal::of_export(&error)
        })?;
        Ok(Arc::clone(cell.insert(Arc::new(described))))
    }

    /// What the source says of a dataset by now; `None` where that is what was known, or it says nothing.
    pub(crate) async fn renewed(
        &self,
        dataset: &Dataset,
        known: &Arc<DescribedRelation>,
    ) -> Option<Arc<DescribedRelation>> {
        let now = self.described_since(dataset, Some(known)).await.ok()?;
        let differs = now.columns != known.columns || now.expressions != known.expressions;
        differs.then_some(now)
    }

    /// Asks a question by what is known of its dataset. A column may have another type by now, and then the same text means
    /// other rows: where the source says so, the question is asked once more, by what it says of the dataset then.
    ///
    /// # Errors
    /// As `ask`.
    pub(crate) async fn by_description<'a, T>(
        &self,
        dataset: &Dataset,
        ask: impl Fn(Arc<DescribedRelation>) -> BoxFuture<'a, Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let known = self.described(dataset).await?;
        match ask(Arc::clone(&known)).await {
            Err(refusal) if refusal.may_be_of_changed_columns() => match self.renewed(dataset, &known).await {
                Some(now) => ask(now).await,
                None => Err(refusal),
            },
            answer => answer,
        }
    }

    /// Asks for all datasets, so that no caller has to wait for it.
    pub(crate) async fn describe_all(&self) {
        for dataset in self.config.datasets.values() {
            // It is asked again for the first caller.
            drop(self.described(dataset).await);
        }
    }
}

/// Asks the source.
pub(crate) async fn describe(dataset: &Dataset) -> Result<DescribedRelation, ExportError> {
    let mut shape = dataset.ndjson.shape.clone();
    let plain = dataset.columns.iter().filter(|(_, column)| column.expr.is_none());
    shape.columns = Some(plain.map(|(name, _)| name.clone()).collect());
    let made = dataset.columns.iter().filter_map(|(name, column)| Some((name.clone(), column.expr.clone()?)));
    shape.expressions = made.collect();
    let mut served = dataset.ndjson.work.served.clone().unwrap_or_else(served_reads);
    if let Some(TenantRule::Setting(setting)) = &dataset.tenant {
        // A policy that reads it fails where nobody has ever set it.
        served.settings.push((setting.clone(), String::new()));
    }
    if let Some(TenantRule::Condition { .. }) = &dataset.tenant {
        shape.predicate = Some(without_rows(dataset)?);
    }
    dataset.ndjson.source.check(&mut shape)?;
    match dataset.ndjson.source.describe(ServedRequest { shape, served }) {
        Some(described) => Ok(described.await?),
        None => Err(ExportError::new(ExportErrorKind::Usage, "the source serves nobody")),
    }
}

/// A condition without rows, which the server still has to understand: the tenant's column, its type, the rights.
///
/// # Errors
/// The tenant's condition cannot be meant.
pub(crate) fn without_rows(dataset: &Dataset) -> Result<String, ExportError> {
    let tenant = match &dataset.tenant {
        Some(TenantRule::Condition { template, type_name }) => {
            let (template, type_name) = (template.clone(), type_name.clone());
            Some(TenantScope { template, type_name, tenant: String::new() })
        }
        _ => None,
    };
    Ok(dataset.ndjson.source.without_rows(tenant.as_ref())?)
}

/// A column, which is granted. One that an expression makes hides the stored one of its name, here as in the rows.
pub(crate) fn column_of<'a>(described: &'a DescribedRelation, name: &str) -> Result<&'a DescribedColumn, Refusal> {
    let mut all = described.expressions.iter().chain(&described.columns);
    all.find(|column| column.scope.name == name)
        .ok_or_else(|| Refusal::of_export(&ExportError::new(ExportErrorKind::SourceMissing, "a column is not there")))
}
