//! From a question to what a source is asked: one way for streams, estimates, analyses and the rows of a bucket, so that
//! none of them forgets whose rows they are.

use std::num::NonZeroU64;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::access::Caller;
use super::problem::Refusal;
use super::question::tenant_of;
use crate::config::service::{Dataset, TenantRule, served_reads};
use crate::model::{CountedRows, RowScope, ServedReads, ServedRequest, ShapeOptions};
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
    shape.scoped = Some(Box::new(scope.made_of()));
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

/// Counts the rows of a question; `None` where the source counts nothing.
pub(crate) fn count(
    dataset: &Dataset,
    request: ServedRequest,
    up_to: NonZeroU64,
) -> Option<BoxFuture<'_, Result<CountedRows, SourceError>>> {
    let counting = dataset.ndjson.source.estimate(request, up_to)?;
    let has_tenants = dataset.tenant.is_some();
    Some(async move { without_statistics(counting.await?, has_tenants) }.boxed())
}

/// Takes no estimate where rows go by tenant: it is of the server's statistics, which count the rows of all of them.
fn without_statistics(counted: CountedRows, has_tenants: bool) -> Result<CountedRows, SourceError> {
    match counted {
        CountedRows::Estimate(_) if has_tenants => {
            Err(SourceError::new(SourceFault::GaveWay, "counting the rows takes too long"))
        }
        counted => Ok(counted),
    }
}

/// A value that is none of its column's type, mostly. The message names the column, and no SQL.
fn refused(error: &SourceError) -> Refusal {
    match error.fault {
        SourceFault::Usage => Refusal::invalid("a filter cannot be used").with_detail(error.message.clone()),
        _ => Refusal::of_export(&crate::export::ExportError::internal("the rows cannot be scoped")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_is_told_what_statistics_say_of_everybody() {
        for known in [CountedRows::Exact(3), CountedRows::AtLeast(3)] {
            assert_eq!(without_statistics(known, true).unwrap(), known);
        }
        assert_eq!(without_statistics(CountedRows::Estimate(3), false).unwrap(), CountedRows::Estimate(3));
        let refused = without_statistics(CountedRows::Estimate(3), true).unwrap_err();
        assert_eq!(refused.fault, SourceFault::GaveWay);
    }
}
