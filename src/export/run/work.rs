//! What the workers of a run share, and the receipts that other processes bring.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Planned, Run};
use crate::commit::Placement;
use crate::export::company::Company;
use crate::export::error::ExportError;
use crate::export::finish::RunTarget;
use crate::export::hold::Hold;
use crate::export::outlet::Outlet;
use crate::export::outside::gather;
use crate::export::request::ExportRequest;
use crate::export::worker::{Work, columns_of};
use crate::model::PartitionReceipt;
use crate::source::Reading;

impl Run {
    /// The receipts given, or where other processes read the partitions one of each: theirs, and those that were there.
    pub(super) async fn gathered(
        &self,
        (work, company): (&Arc<Work>, &Company),
        receipts: Vec<PartitionReceipt>,
        hold: Option<&Hold>,
        stop: &CancellationToken,
    ) -> Result<Vec<PartitionReceipt>, ExportError> {
        let Some(outside) = &self.request.external else { return Ok(receipts) };
        let gathered = Box::pin(gather(self, outside, (work, company), hold, stop)).await;
        outside.needs_nobody();
        if let Err(error) = &gathered
            && self.retention(hold).keeps(error).await
        {
            self.litter.set();
        }
        gathered
    }

    /// Says to the other exports of its job that it waits for no workers.
    pub(in crate::export) fn needs_no_workers(&self) {
        if let Some(outside) = &self.request.external {
            outside.needs_nobody();
        }
    }

    pub(in crate::export) fn work(
        &self,
        reading: Arc<dyn Reading>,
        relation: usize,
        planned: &Planned,
    ) -> Result<Work, ExportError> {
        let ExportRequest { work, commit, .. } = &self.request;
        let mut format = planned.format.clone();
        format.parquet.metadata.push(("outhaul.run_id".to_owned(), commit.run_id.clone()));
        if let Some(id) = planned.snapshot() {
            format.parquet.metadata.push(("outhaul.snapshot".to_owned(), id));
        }
        let key = self.protect_key.get().and_then(Option::as_ref);
        let (shape, columns) = columns_of(&planned.plan, commit.output_rules(), key)?;
        Ok(Work {
            reading,
            relation,
            plan: Arc::clone(&planned.plan),
            columns,
            shape,
            format,
            outlet: self.outlet(),
            part_size: work.part_size.get(),
            visibility: commit.visibility,
            stats: commit.manifest_stats,
            sha256: commit.sha256,
            seed: self.seed,
            litter: self.litter.clone(),
            events: self.events.clone(),
            fence: None,
        })
    }

    pub(super) fn outlet(&self) -> Outlet {
        match &self.place {
            RunTarget::Stream { sink, .. } => Outlet::Stream(sink.clone()),
            RunTarget::Destination { destination, journal, placement } => {
                let (destination, journal) = (destination.clone(), journal.clone());
                match placement {
                    Placement::Parts => Outlet::Parts { destination, journal, layout: self.request.commit.layout },
                    Placement::Single { name } => Outlet::Single { destination, journal, name: name.clone() },
                }
            }
        }
    }
}
