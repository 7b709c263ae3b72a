//! What a run says of itself while it goes on, to whoever listens to its events.

use super::finish;
use super::run::{Planned, Run};
use crate::commit::Existing;
use crate::model::{Event, ExportReport, FormatOptions, RelationRequest, ResumedProgress};

impl Run {
    /// Reports an export that stands already.
    pub(crate) async fn already(&self, existing: &Existing) -> ExportReport {
        let report = finish::report(self, &existing.manifest, Some(existing.url.clone()), true);
        self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
        report
    }

    /// Nobody listens any more: the run goes on all the same.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    pub(crate) async fn announce(&self) {
        let FormatOptions { format, compression, .. } = self.request.format;
        self.tell(Event::RunStarted {
            run_id: self.request.commit.run_id.clone(),
            relation: match &self.request.shape.relation {
                RelationRequest::Table(name) => name.clone(),
                RelationRequest::Query(_) => "query".to_owned(),
            },
            destination: self.place.url(),
            format: format!("{format:?}").to_lowercase(),
            compression: compression.name().to_owned(),
            single_file: self.request.commit.single_file,
            readers: self.request.work.readers.get(),
        })
        .await;
    }

    pub(crate) async fn announce_plan(&self, planned: &Planned, resumed: ResumedProgress) {
        let plan = &planned.plan;
        tracing::info!(partitions = plan.partitions.len(), snapshot = planned.snapshot(), "planned");
        self.tell(Event::Planned {
            run_id: self.request.commit.run_id.clone(),
            partitions: plan.partitions.len(),
            estimated_rows: plan
                .cap
                .max_rows
                .filter(|_| plan.cap.truncated)
                .map(std::num::NonZeroU64::get)
                .or(plan.relation.estimated_rows),
            estimated_bytes: plan.relation.estimated_bytes,
            snapshot: planned.snapshot(),
            truncated: plan.cap.truncated,
            resumed,
        })
        .await;
    }
}
