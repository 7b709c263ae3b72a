//! What people see of a job, of which its file says something too.

use super::JobFile;
use crate::config::raw::Raw;
use crate::config::{ConfigErrors, Environment, FrontOptions, typed};

impl JobFile {
    /// What people see of the job, whatever else of it is wrong.
    ///
    /// # Errors
    /// An option has no default.
    pub(crate) fn front(
        &self,
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
    ) -> Result<FrontOptions, ConfigErrors> {
        let (raw, _) = Raw::of_job(self.defaults.clone(), &self.tiers, flags, environment);
        typed::front_of(raw)
    }
}
