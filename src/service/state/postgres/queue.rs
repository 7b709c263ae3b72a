//! The queue's face: each method is one transaction.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::super::{
    Cancelled, ClaimLimits, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStore,
    JobsServed, LeaseState, OutboxMessage, QueueFigures, RecordedError, StateError, Submitted,
};
use super::{PostgresStore, hints, jobs, outbox};

impl PostgresStore {
    /// Tells the workers of other processes, once something has given them work.
    fn then_hint<'a, T: Send + 'a>(
        &'a self,
        done: BoxFuture<'a, Result<T, StateError>>,
        gives_work: impl FnOnce(&T) -> bool + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StateError>> {
        async move {
            let done = done.await?;
            if gives_work(&done) {
                hints::send(&self.sessions);
            }
            Ok(done)
        }
        .boxed()
    }
}

impl JobStore for PostgresStore {
    fn submit(
        &self,
        job: JobRecord,
        key: Option<IdempotencyKey>,
        live: u32,
    ) -> BoxFuture<'_, Result<Submitted, StateError>> {
        let asked = Arc::new((job, key));
        let submitted = self.ask("a job was queued", move |transaction| {
            let asked = Arc::clone(&asked);
            async move { jobs::submit(transaction, &asked.0, asked.1.as_ref(), live).await }.boxed()
        });
        self.then_hint(submitted, |submitted| matches!(submitted, Submitted::Queued(_)))
    }

    fn hints(&self, queued: Arc<Notify>) -> BoxFuture<'static, ()> {
        hints::listen(Arc::clone(&self.sessions), queued).boxed()
    }

    fn job(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        self.ask("a job was looked up", move |transaction| {
            let (id, tenant) = (id.clone(), tenant.clone());
            async move { jobs::one(transaction, &id, Some(&tenant)).await }.boxed()
        })
    }

    fn any_job(&self, id: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        self.ask("a job was looked up", move |transaction| {
            let id = id.clone();
            async move { jobs::one(transaction, &id, None).await }.boxed()
        })
    }

    fn jobs(
        &self,
        tenant: String,
        after: Option<JobCursor>,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        self.ask("jobs were listed", move |transaction| {
            let (tenant, after) = (tenant.clone(), after.clone());
            async move { jobs::list(transaction, &tenant, after.as_ref(), most).await }.boxed()
        })
    }

    fn claim(
        &self,
        worker: String,
        served: Arc<JobsServed>,
        limits: ClaimLimits,
    ) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        self.ask("a job was claimed", move |transaction| {
            let (worker, served) = (worker.clone(), Arc::clone(&served));
            async move { jobs::claim(transaction, &worker, &served, limits).await }.boxed()
        })
    }

    fn renew(&self, lease: JobLease, time: Duration) -> BoxFuture<'_, Result<LeaseState, StateError>> {
        self.ask("a lease was renewed", move |transaction| {
            let lease = lease.clone();
            async move { jobs::renew(transaction, &lease, time).await }.boxed()
        })
    }

    fn progress(&self, lease: JobLease, progress: JobProgress) -> BoxFuture<'_, Result<LeaseState, StateError>> {
        self.ask("the progress of a job was written", move |transaction| {
            let lease = lease.clone();
            async move { jobs::progress(transaction, &lease, progress).await }.boxed()
        })
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
        let ended = Arc::new((lease, end, messages));
        let finished = self.ask("a job ended", move |transaction| {
            let ended = Arc::clone(&ended);
            async move { jobs::finish(transaction, &ended.0, &ended.1, &ended.2).await }.boxed()
        });
        // A place of its tenant is free.
        self.then_hint(finished, |finish| *finish == JobFinish::Ended)
    }

    fn give_back(
        &self,
        lease: JobLease,
        error: Option<RecordedError>,
        delay: Duration,
        counted: bool,
    ) -> BoxFuture<'_, Result<bool, StateError>> {
        let given = self.ask("a job was given back", move |transaction| {
            let (lease, error) = (lease.clone(), error.clone());
            async move { jobs::give_back(transaction, &lease, error.as_ref(), delay, counted).await }.boxed()
        });
        self.then_hint(given, move |given| *given && delay.is_zero())
    }

    fn cancel(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<Cancelled>, StateError>> {
        self.ask("a job was cancelled", move |transaction| {
            let (id, tenant) = (id.clone(), tenant.clone());
            async move { jobs::cancel(transaction, &id, &tenant).await }.boxed()
        })
    }

    fn expire(&self, id: String, messages: Vec<OutboxMessage>) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>> {
        let asked = Arc::new((id, messages));
        self.ask("an export expired", move |transaction| {
            let asked = Arc::clone(&asked);
            async move { outbox::expire(transaction, &asked.0, &asked.1).await }.boxed()
        })
    }

    fn overdue(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        self.ask("expired exports were looked for", move |transaction| outbox::overdue(transaction, most).boxed())
    }

    fn unremoved(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>> {
        let doing = "files without an export were looked for";
        self.ask(doing, move |transaction| outbox::unremoved(transaction, most).boxed())
    }

    fn removed(&self, id: String) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("files were removed", move |transaction| {
            let id = id.clone();
            async move { outbox::removed(transaction, &id).await }.boxed()
        })
    }

    fn removal_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("files were not removed", move |transaction| {
            let id = id.clone();
            async move { outbox::removal_failed(transaction, &id, delay).await }.boxed()
        })
    }

    fn due_messages(
        &self,
        targets: Vec<String>,
        most: u32,
        hold: Duration,
    ) -> BoxFuture<'_, Result<Vec<OutboxMessage>, StateError>> {
        self.ask("messages were looked for", move |transaction| {
            let targets = targets.clone();
            async move { outbox::due_messages(transaction, &targets, most, hold).await }.boxed()
        })
    }

    fn message_done(&self, id: String) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("a message arrived", move |transaction| {
            let id = id.clone();
            async move { outbox::message_done(transaction, &id).await }.boxed()
        })
    }

    fn message_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("a message did not arrive", move |transaction| {
            let id = id.clone();
            async move { outbox::message_failed(transaction, &id, delay).await }.boxed()
        })
    }

    fn figures(&self) -> BoxFuture<'_, Result<QueueFigures, StateError>> {
        self.ask("the queue was counted", |transaction| outbox::figures(transaction).boxed())
    }
}
