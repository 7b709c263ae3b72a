//! `[jobs]`: how many exports run in the background, and how often one is tried.

use super::JobLimits;
use super::build::Builder;
use super::file::JobsEntry;

const WORKERS: u32 = 2;
const RUNNING_PER_TENANT: u32 = 2;
const QUEUED_PER_TENANT: u32 = 100;
const ATTEMPTS: u32 = 5;

impl Builder<'_> {
    pub(super) fn jobs(&mut self, entry: &JobsEntry) -> JobLimits {
        let jobs = JobLimits {
            workers: entry.workers.unwrap_or(WORKERS),
            running_per_tenant: entry.running_per_tenant.unwrap_or(RUNNING_PER_TENANT),
            queued_per_tenant: entry.queued_per_tenant.unwrap_or(QUEUED_PER_TENANT),
            attempts: entry.attempts.unwrap_or(ATTEMPTS),
        };
        if jobs.workers == 0 {
            self.wrong("jobs.workers is 0, and nothing would run", "write 1 or more; --role api runs none");
        }
        if [jobs.running_per_tenant, jobs.queued_per_tenant, jobs.attempts].contains(&0) {
            self.wrong("a limit of 0 in [jobs] lets nothing run", "write 1 or more");
        }
        jobs
    }
}
