//! What the incremental exports of a job share: where the last export of each is remembered.

use super::{JobExport, JobFile, shared};
use crate::config::raw::Raw;
use crate::config::{ConfigError, Environment};
use crate::model::StatePlace;

/// The folder of what a job remembers, under its root.
const STATE: &str = "_state";

impl JobFile {
    /// Says for each incremental export where it is remembered: what makes no sense.
    pub(super) fn remember(
        &self,
        exports: &mut [(JobExport, String)],
        root: Option<&str>,
        flags: &[(&'static str, Vec<String>)],
    ) -> Vec<ConfigError> {
        let is_incremental = |(export, _): &&(JobExport, String)| export.request.incremental.is_some();
        if !exports.iter().any(|export| is_incremental(&export)) {
            return self.needless(flags);
        }
        let mut errors = Vec::new();
        for (export, to) in exports.iter().filter(is_incremental) {
            if !to.contains("{run_id}") && !to.contains("{date}") {
                let what = format!("export {}: each load of it would go into the same folder, {to}", export.name);
                errors.push(ConfigError::new(what, "put {run_id} into `to`, as in ROOT/{table}/load={run_id}"));
            }
        }
        let folder = match (&self.state, root) {
            (Some(state), _) => state.clone(),
            (None, Some(root)) => format!("{}/{STATE}", root.trim_end_matches('/')),
            (None, None) => return errors,
        };
        // What expands to something else each night remembers nothing.
        let written = match (&self.state, &self.root) {
            (Some(written), _) | (None, Some(written)) => Some(written.clone()),
            (None, None) => shared(exports.iter().map(|(_, to)| to.clone())),
        };
        if written.is_none_or(|written| written.contains(['{', '}'])) {
            let what = format!("{}: the folder of incremental exports changes from run to run", self.path.display());
            errors.push(ConfigError::new(what, "write state = \"URL\" at the top, without a placeholder"));
        }
        for (export, _) in exports {
            let name = export.name.clone();
            if let Some(incremental) = &mut export.request.incremental {
                incremental.state = Some(StatePlace { folder: folder.clone(), name });
            }
        }
        errors
    }

    /// Settings of incremental exports in a job that has none.
    fn needless(&self, flags: &[(&'static str, Vec<String>)]) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.state.is_some() {
            let what = format!("{}: state has no meaning where no export has a watermark", self.path.display());
            errors.push(ConfigError::new(what, "leave it out, or give an export its watermark"));
        }
        let (raw, _) = Raw::of_job(self.defaults.clone(), &self.tiers, flags.to_vec(), &Environment::default());
        if raw.given("since").is_some() {
            let hint = "leave it out, or give an export its watermark";
            errors.push(ConfigError::new("--since has no meaning where no export has a watermark", hint));
        }
        errors
    }
}
