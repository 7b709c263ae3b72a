//! `[destination.NAME]`: where the files of exports in the background go, each in a folder with the export's id.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::options::nearest;
use super::build::Builder;
use super::file::DestinationEntry;
use super::{Dataset, ServiceConfig};
use crate::model::CredentialCommand;
use crate::store::canonical_url;

/// A place for the files of exports.
#[derive(Debug, Clone)]
pub struct JobDestination {
    /// Its URL, without a slash at its end.
    pub url: String,
    /// Who says credentials for AWS, where a command does.
    pub credentials: Option<CredentialCommand>,
}

impl ServiceConfig {
    /// The URL below which the exports of a dataset have their folders.
    pub(crate) fn destination_of(&self, dataset: &Dataset) -> String {
        let named = dataset.destination.as_ref().and_then(|name| self.destinations.get(name));
        named.map_or_else(|| folder_url(&self.job_folder), |destination| destination.url.clone())
    }

    /// Who says credentials for the destination that an export went to, whatever its dataset has by now.
    pub(crate) fn credentials_of(&self, export_url: &str) -> Option<&CredentialCommand> {
        let (parent, _) = export_url.rsplit_once('/')?;
        let found = self.destinations.values().find(|destination| destination.url == parent)?;
        found.credentials.as_ref()
    }

    /// Whether exports go to the folder beside the state file.
    pub(crate) fn uses_job_folder(&self) -> bool {
        self.datasets.values().any(|dataset| dataset.destination.is_none())
    }
}

/// The URL of a folder whose path is absolute.
fn folder_url(folder: &Path) -> String {
    // What cannot be read as a path is told by whoever opens it.
    canonical_url(&folder.to_string_lossy(), Path::new("/")).unwrap_or_default()
}

impl Builder<'_> {
    pub(super) fn destinations(
        &mut self,
        entries: &BTreeMap<String, DestinationEntry>,
    ) -> BTreeMap<String, JobDestination> {
        let mut found = BTreeMap::new();
        for (name, entry) in entries {
            let place = format!("destination.{name}");
            if entry.to.contains(['{', '}']) {
                self.wrong(
                    format!("{place}: to expands nothing"),
                    "leave {…} out: each export has a folder of its own",
                );
                continue;
            }
            let folder = self.folder.unwrap_or_else(|| Path::new("")).to_owned();
            match canonical_url(&entry.to, &folder) {
                Ok(url) => {
                    let credentials = entry.aws_credential_command.clone().map(CredentialCommand::new);
                    found.insert(name.clone(), JobDestination { url, credentials });
                }
                Err(error) => self.wrong(format!("{place}: to: {error}"), "write it as in \"s3://bucket/exports/\""),
            }
        }
        found
    }

    /// The destination of a dataset, by its name; the only one is that of all.
    pub(super) fn destination_of(
        &mut self,
        dataset: &str,
        named: Option<&str>,
        destinations: &BTreeMap<String, JobDestination>,
    ) -> Option<String> {
        let known: Vec<&str> = destinations.keys().map(String::as_str).collect();
        let place = format!("dataset.{dataset}");
        let Some(named) = named else {
            if let [_, _, ..] = known.as_slice() {
                let hint = format!("the destinations are {}", known.join(", "));
                self.wrong(format!("{place}: destination: there are several"), hint);
            }
            return known.first().map(|name| (*name).to_owned());
        };
        // One whose own text is wrong is told of already.
        if !known.contains(&named) && self.errors.is_empty() {
            let hint = nearest(named, known.iter().copied()).map_or_else(
                || "name one of the [destination.NAME] tables".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            self.wrong(format!("{place}: destination {named:?} is not there"), hint);
        }
        Some(named.to_owned())
    }

    pub(super) fn check_destinations(
        &mut self,
        shared: bool,
        job_folder: &Path,
        datasets: &BTreeMap<String, Dataset>,
        destinations: &BTreeMap<String, JobDestination>,
    ) {
        let used = |name: &String| datasets.values().any(|dataset| dataset.destination.as_ref() == Some(name));
        let unused = destinations.keys().filter(|name| !used(name));
        self.warnings.extend(unused.map(|name| format!("destination.{name} is the destination of no dataset")));
        if shared && datasets.values().any(|dataset| dataset.destination.is_none()) {
            let folder = job_folder.display();
            self.warnings.push(format!(
                "exports go to {folder}, which all processes must share: name a [destination.NAME] where they do not"
            ));
        }
    }
}
