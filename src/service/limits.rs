//! What one tenant, and all of them together, may take at the same time.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Refusal;
use crate::base::budget::{MemoryBudget, MemoryPermit};
use crate::base::failpoint;
use crate::config::service::ServiceLimits;

/// After so many requests the tenants that have been silent are forgotten.
const REQUESTS_BETWEEN_SWEEPS: u32 = 1_024;

/// Seconds after which a caller may ask for another stream.
const STREAM_RETRY_SECONDS: u64 = 5;

/// So long a stream waits for memory that others give back.
const MEMORY_PATIENCE: Duration = Duration::from_secs(2);

/// The limits, with what is taken of them.
#[derive(Debug)]
pub(crate) struct Limits {
    requests: DefaultKeyedRateLimiter<String>,
    since_sweep: AtomicU32,
    streams: TenantSlots,
    followers: TenantSlots,
    memory: MemoryBudget,
}

/// So many at the same time, and so many of one tenant.
#[derive(Debug)]
struct TenantSlots {
    free: Arc<Semaphore>,
    all: u32,
    per_tenant: u32,
    of_tenants: Arc<Mutex<HashMap<String, u32>>>,
}

/// The right to one stream, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    _all: OwnedSemaphorePermit,
    memory: Option<MemoryPermit>,
    owner: String,
    of_tenants: Arc<Mutex<HashMap<String, u32>>>,
}

impl Limits {
    pub(crate) fn new(limits: &ServiceLimits, memory: MemoryBudget) -> Self {
        let per_minute = NonZeroU32::new(limits.requests_per_minute).unwrap_or(NonZeroU32::MIN);
        Self {
            requests: RateLimiter::keyed(Quota::per_minute(per_minute)),
            since_sweep: AtomicU32::new(0),
            streams: TenantSlots::new(limits.streams, limits.streams_per_tenant),
            followers: TenantSlots::new(limits.streams, limits.streams_per_tenant),
            memory,
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The tenant has made too many in a minute.
    pub(crate) fn request(&self, owner: &String) -> Result<(), Refusal> {
        if self.since_sweep.fetch_add(1, Ordering::Relaxed) >= REQUESTS_BETWEEN_SWEEPS {
            self.since_sweep.store(0, Ordering::Relaxed);
            self.requests.retain_recent();
        }
        self.requests.check_key(owner).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            too_many("too many requests").after(wait.as_secs().saturating_add(1))
        })
    }

    /// Lets a stream begin that may hold so many bytes of memory.
    ///
    /// # Errors
    /// The tenant has as many as it may have, or the service has, or others have the memory.
    pub(crate) async fn stream(&self, owner: &str, bytes: u64) -> Result<StreamPermit, Refusal> {
        let mut permit = self.streams.slot(owner)?;
        // Held by those that wait: no more of them than streams wait.
        permit.memory = self.reserve(bytes).await?;
        Ok(permit)
    }

    async fn reserve(&self, bytes: u64) -> Result<Option<MemoryPermit>, Refusal> {
        if failpoint::off("memory") {
            return Ok(None);
        }
        let busy = || {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the service's memory is taken by others")
                .after(STREAM_RETRY_SECONDS)
        };
        let reserved = tokio::time::timeout(MEMORY_PATIENCE, self.memory.reserve(bytes)).await;
        reserved.map_err(|_| busy())?.map(Some).map_err(|error| {
            tracing::error!(%error, "a stream has no room in limits.memory");
            busy()
        })
    }

    /// Lets a caller follow a job: as many as may have streams, beside them.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub(crate) fn follower(&self, owner: &str) -> Result<StreamPermit, Refusal> {
        self.followers.slot(owner)
    }

    /// Streams and questions that are under way.
    pub(crate) fn under_way(&self) -> u32 {
        self.streams.of_tenants.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Waits until nobody has a stream or follows a job, and lets none begin.
    pub(crate) async fn all_ended(&self) {
        for slots in [&self.streams, &self.followers] {
            if let Ok(permits) = slots.free.acquire_many(slots.all).await {
                permits.forget();
            }
        }
    }
}

impl TenantSlots {
    fn new(all: u32, per_tenant: u32) -> Self {
        let free = Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX)));
        Self { free, all, per_tenant, of_tenants: Arc::default() }
    }

    fn slot(&self, owner: &str) -> Result<StreamPermit, Refusal> {
        let all = Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the service has as many streams as it may have")
                .after(STREAM_RETRY_SECONDS)
        })?;
        let mut of_tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_tenants.entry(owner.to_owned()).or_default();
        if *count >= self.per_tenant {
            return Err(too_many("too many streams at the same time").after(STREAM_RETRY_SECONDS));
        }
        *count += 1;
        drop(of_tenants);
        Ok(StreamPermit { _all: all, memory: None, owner: owner.to_owned(), of_tenants: Arc::clone(&self.of_tenants) })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut of_tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_tenants.get_mut(&self.owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_tenants.remove(&self.owner);
            }
        }
    }
}

fn too_many(message: &str) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
}
