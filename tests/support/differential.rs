//! Every value of a database's relations against PostgreSQL's own, by `differential.py`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::pg::Pg;
use super::{variable, within};

/// Some hundred exports, beside other tests.
const LIMIT: Duration = Duration::from_mins(8);

/// How a comparison ended.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub said: String,
    /// What it complained of.
    pub errors: String,
}

/// Exports all relations of a database in all formats with a binary, and compares them. `args` are those of
/// `differential.py`.
pub(crate) async fn judge(pg: &Pg, binary: &Path, args: &[&str]) -> Judged {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/differential.py");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.arg(script).arg(&pg.url).args(args).env("OUTHAUL", binary).kill_on_drop(true);
    let output = within(LIMIT, "differential.py", python.output()).await.unwrap();
    let [said, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Judged { code: output.status.code().unwrap_or(-1), said, errors }
}

/// Fails the test unless each export of the binary under test is what PostgreSQL says, or cannot be read or written for a
/// reason that `differential.py` accepts. Gives the latter: word, format and relation of the line.
pub(crate) async fn equal_but(pg: &Pg, args: &[&str], what: &str) -> BTreeSet<String> {
    let Judged { code, said, errors } = judge(pg, Path::new(env!("CARGO_BIN_EXE_outhaul")), args).await;
    let notable: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert_eq!(code, 0, "PostgreSQL {}, {what}:\n{}\n{errors}", pg.version, notable.join("\n"));
    let heads = notable.iter().filter_map(|line| line.split_once(" \u{2014} "));
    heads.map(|(head, _)| head.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
