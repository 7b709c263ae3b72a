//! The queue's face: each method is one transaction on the store's thread.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::super::{
    Cancelled, ClaimLimits, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStore,
    JobsServed, LeaseState, OutboxMessage, QueueFigures, RecordedError, StateError, Submitted,
};
use super::{SqliteStore, jobs, outbox};

impl JobStore for SqliteStore {
    fn submit(
        &self,
        job: JobRecord,
        key: Option<IdempotencyKey>,
        live: u32,
    ) -> BoxFuture<'_, Result<Submitted, StateError>> {
        self.ask("a job was queued", move |transaction| jobs::submit(transaction, &job, key.as_ref(), live))
    }

    fn job(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        let doing = "a job was looked up";
        self.ask(doing, move |transaction| jobs::one(transaction, &id, Some(&tenant), doing))
    }

    fn any_job(&self, id: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        let doing = "a job was looked up";
        self.ask(doing, move |transaction| jobs::one(transaction, &id, None, doing))
    }

    fn jobs(
        &self,
        tenant: String,
        after: Option<JobCursor>,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        self.ask("jobs were listed", move |transaction| jobs::list(transaction, &tenant, after.as_ref(), most))
    }

    fn hints(&self, _queued: Arc<Notify>) -> BoxFuture<'static, ()> {
        // No other process has the file.
        std::future::ready(()).boxed()
    }

    fn claim(
        &self,
        worker: String,
        served: Arc<JobsServed>,
        limits: ClaimLimits,
    ) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        self.ask("a job was claimed", move |transaction| jobs::claim(transaction, &worker, &served, limits))
    }

    fn renew(&self, lease: JobLease, time: Duration) -> BoxFuture<'_, Result<LeaseState, StateError>> {
        self.ask("a lease was renewed", move |transaction| jobs::renew(transaction, &lease, time))
    }

    fn progress(&self, lease: JobLease, progress: JobProgress) -> BoxFuture<'_, Result<LeaseState, StateError>> {
        let doing = "the progress of a job was written";
        self.ask(doing, move |transaction| jobs::progress(transaction, &lease, progress))
    }

    fn finish_job(
        &self,
        lease: JobLease,
        end: JobEnd,
        messages: Vec<OutboxMessage>,
    ) -> BoxFuture<'_, Result<JobFinish, StateError>> {
        if !end.status.is_final() {
            return std::future::ready(Err(StateError::NoEnd { status: end.status.name() })).boxed();
        }
        self.ask("a job ended", move |transaction| jobs::finish(transaction, &lease, &end, &messages))
    }

    fn give_back(
        &self,
        lease: JobLease,
        error: Option<RecordedError>,
        delay: Duration,
        counted: bool,
    ) -> BoxFuture<'_, Result<bool, StateError>> {
        let doing = "a job was given back";
        self.ask(doing, move |transaction| jobs::give_back(transaction, &lease, error.as_ref(), delay, counted))
    }

    fn cancel(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<Cancelled>, StateError>> {
        self.ask("a job was cancelled", move |transaction| jobs::cancel(transaction, &id, &tenant))
    }

    fn expire(&self, id: String, messages: Vec<OutboxMessage>) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        self.ask("an export expired", move |transaction| jobs::expire(transaction, &id, &messages))
    }

    fn overdue(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        self.ask("expired exports were looked for", move |transaction| outbox::overdue(transaction, most))
    }

    fn unremoved(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        self.ask("files without an export were looked for", move |transaction| outbox::unremoved(transaction, most))
    }

    fn removed(&self, id: String) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("files were removed", move |transaction| outbox::removed(transaction, &id))
    }

    fn removal_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("files were not removed", move |transaction| outbox::removal_failed(transaction, &id, delay))
    }

    fn due_messages(
        &self,
        targets: Vec<String>,
        most: u32,
        hold: Duration,
    ) -> BoxFuture<'_, Result<Vec<OutboxMessage>, StateError>> {
        let doing = "messages were looked for";
        self.ask(doing, move |transaction| outbox::due_messages(transaction, &targets, most, hold))
    }

    fn message_done(&self, id: String) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("a message arrived", move |transaction| outbox::message_done(transaction, &id))
    }

    fn message_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("a message did not arrive", move |transaction| outbox::message_failed(transaction, &id, delay))
    }

    fn figures(&self) -> BoxFuture<'_, Result<QueueFigures, StateError>> {
        self.ask("the queue was counted", outbox::figures)
    }
}
