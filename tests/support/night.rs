//! A job file, the folder of its destinations, and what stands there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::pg::Pg;
use super::run::{Outhaul, outhaul};

/// A job file of all tables, and the folder of its destinations.
pub(crate) struct Night {
    pub folder: tempfile::TempDir,
    text: String,
}

impl Night {
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = text.replace("ROOT", folder.path().join("out").to_str().unwrap());
        std::fs::write(folder.path().join("job.toml"), file).unwrap();
        Self { folder, text: text.to_owned() }
    }

    /// The job file as it was given, to make another night of.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn all(more: &str) -> Self {
        Self::new(&format!("[defaults]\nto = 'ROOT/{{table}}'\n{more}\n[[export]]\ntable = 'public.*'\n"))
    }

    pub fn run(&self, pg: &Pg, args: &[&str]) -> Outhaul {
        let job = self.folder.path().join("job.toml");
        let fixed = ["run", job.to_str().unwrap(), "--from", &pg.url, "--report", "json", "--progress", "none"];
        outhaul(fixed.iter().chain(args))
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    pub fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.out("_run.json")).unwrap()).unwrap()
    }

    /// The folders of exports that have a manifest.
    pub fn committed(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.out("")).into_iter().flatten().map(|entry| entry.unwrap());
        let done = entries.filter(|entry| entry.path().join("_manifest.json").exists());
        done.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

/// Two tables, whose partitions are read one after the other, and a third.
pub(crate) const THREE: &str =
    "create table a as select i as id, repeat('x', 200) as v from generate_series(1, 2000) i;
    create table b as select i as id, repeat('x', 200) as v from generate_series(1, 2000) i;
    create table c as select i as id from generate_series(1, 3) i; analyze";

pub(crate) fn three(defaults: &str) -> Night {
    let one = |table: &str| format!("[[export]]\ntable = '{table}'\nto = 'ROOT/{table}'\n");
    Night::new(&format!("[defaults]\n{defaults}\n{}{}{}", one("a"), one("b"), one("c")))
}
