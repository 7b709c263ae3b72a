//! A job file, the folder of its destinations, and what stands there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::pg::{Pg, pg};
use super::run::{Outhaul, outhaul};
use super::{variable, within};

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
        self.run_at(&pg.url, args)
    }

    /// The same at a database by its URL.
    pub fn run_at(&self, url: &str, args: &[&str]) -> Outhaul {
        let job = self.folder.path().join("job.toml");
        let fixed = ["run", job.to_str().unwrap(), "--from", url, "--report", "json", "--progress", "none"];
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

/// Fourteen parents and as many children that refer to them, one of each partitioned, an empty one, and views: forty.
pub(crate) const PAIRS: usize = 14;

/// Checks every foreign key in the exported files.
const FOREIGN_KEYS: &str = r#"
import duckdb, json, sys
root, pairs = sys.argv[1], int(sys.argv[2])
connection, found = duckdb.connect(), []
def table(name): return f"read_parquet('{root}/{name}/data/*.parquet')"
for n in range(pairs):
    lost = connection.execute(f"select count(*) from {table(f'public.child{n}')} c anti join {table(f'public.parent{n}')} p on p.id = c.parent").fetchone()[0]
    rows = connection.execute(f"select count(*) from {table(f'public.child{n}')}").fetchone()[0]
    found.append([lost, rows])
print(json.dumps(found))
"#;

/// A database with all of them.
pub(crate) async fn shop() -> Pg {
    let pg = pg(15).await;
    let pairs = (0..PAIRS).map(|n| {
        let (parted, leaves) = if n % 7 == 0 {
            let leaf = |name: &str, remainder: u8| {
                format!("create table parent{n}_{name} partition of parent{n} for values with (modulus 2, remainder {remainder});")
            };
            ("partition by hash (id)", leaf("a", 0) + &leaf("b", 1))
        } else {
            ("", String::new())
        };
        format!(
            "create table parent{n} (id bigint primary key, v text) {parted}; {leaves}
             create table child{n} (id bigint generated always as identity primary key, parent bigint references parent{n});
             insert into parent{n} select i, md5(i::text) from generate_series(1, 300) i;
             insert into child{n} (parent) select 1 + i % 300 from generate_series(1, 900) i;"
        )
    });
    let views = (0..11).map(|n| {
        format!("create view view{n} as select c.id, p.v from child{n} c join parent{n} p on p.id = c.parent;")
    });
    let tables: Vec<String> = pairs.chain(views).collect();
    pg.batch(&format!("create table empty (id int primary key); {} analyze", tables.concat())).await;
    pg
}

/// Of each foreign key: rows that refer to nothing, and rows.
pub(crate) async fn foreign_keys(root: &Path) -> Vec<[u64; 2]> {
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.args(["-c", FOREIGN_KEYS]).arg(root).arg(PAIRS.to_string()).kill_on_drop(true);
    let output = within(Duration::from_mins(1), "DuckDB", python.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes parents and children, each pair in a transaction, until it is dropped.
pub(crate) struct Pgbench {
    _process: tokio::process::Child,
    _script: tempfile::NamedTempFile,
}

impl Pgbench {
    pub fn of(pg: &Pg) -> Self {
        let script = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "\\set n random(0, {})\n\\set id random(1000, 2000000000)\nbegin;\n\
             insert into parent:n values (:id, 'new') on conflict do nothing;\n\
             insert into child:n (parent) values (:id);\ncommit;\n",
            PAIRS - 1
        );
        std::fs::write(script.path(), text).unwrap();
        let mut process = tokio::process::Command::new("pgbench");
        process.args(["-n", "-c", "2", "-T", "600", "-f"]).arg(script.path()).arg(&pg.url);
        process.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Self { _process: process.spawn().unwrap(), _script: script }
    }
}
