//! From a question to what a source is asked: one way for streams, estimates, analyses and the rows of a bucket, so that
//! none of them forgets whose rows they are.

use super::access::Caller;
use super::problem::Refusal;
use super::question::tenant_of;
use crate::config::service::{Dataset, TenantRule, served_reads};
use crate::model::{RowScope, ServedReads, ServedRequest, ShapeOptions};
use crate::source::{SourceError, SourceFault};

/// Puts the rows of a scope, and nobody else's, into a shape and the settings of its reads.
///
/// # Errors
/// A value that is none of its column's type; a caller without a tenant.
pub(crate) fn scope_into(
    shape: &mut ShapeOptions,
    served: &mut ServedReads,
    dataset: &Dataset,
    caller: &Caller,
    scope: &RowScope,
) -> Result<(), Refusal> {
    shape.predicate = dataset.ndjson.source.predicate(scope).map_err(|error| refused(&error))?;
    if let (Some(TenantRule::Setting(setting)), Some(tenant)) = (&dataset.tenant, tenant_of(dataset, caller)?) {
        served.settings.push((setting.clone(), tenant));
    }
    Ok(())
}

/// A question about rows that are not sent.
///
/// # Errors
/// As [`scope_into`].
pub(crate) fn about(dataset: &Dataset, caller: &Caller, scope: &RowScope) -> Result<ServedRequest, Refusal> {
    let mut shape = dataset.ndjson.shape.clone();
    let mut served = dataset.ndjson.work.served.clone().unwrap_or_else(served_reads);
    scope_into(&mut shape, &mut served, dataset, caller, scope)?;
    Ok(ServedRequest { shape, served })
}

/// A value that is none of its column's type, mostly. The message names the column, and no SQL.
fn refused(error: &SourceError) -> Refusal {
    match error.fault {
        SourceFault::Usage => Refusal::invalid("a filter cannot be used").with_detail(error.message.clone()),
        _ => Refusal::of_export(&crate::export::ExportError::internal("the rows cannot be scoped")),
    }
}
