//! The same table in a source of either kind, so that a test is written once and holds for both.

use std::ops::Range;
use std::time::Duration;

use super::clickhouse::{ClickHouse, clickhouse};
use super::eventually;
use super::job::no_sessions_left;
use super::pg::{Pg, pg};
use super::place::Place;
use super::run::Outhaul;

/// A query ends a moment after its client.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// A source with the table `t`: `id`, `name`, `maybe` (NULL in each seventh row), `price`, `at`; see [`row`].
pub(crate) enum Twin {
    /// A database of PostgreSQL 18.
    Postgres(Pg),
    /// A database of ClickHouse.
    ClickHouse(ClickHouse),
}

/// One of each kind, whose tables have the rows `0..rows`.
pub(crate) async fn twins(rows: u32) -> [Twin; 2] {
    let postgres = pg(18).await;
    postgres
        .batch(
            "create table t (id bigint primary key, name text not null, maybe bigint, price numeric(12,2) not null,
                at timestamptz not null);
            alter table t set (autovacuum_enabled = off)",
        )
        .await;
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE t (id Int64, name String, maybe Nullable(Int64), price Decimal(12, 2), at DateTime('UTC')) \
             ENGINE = MergeTree PARTITION BY id % 3 ORDER BY id",
        )
        .await;
    // What is inserted later stays in parts of its own.
    server.run("SYSTEM STOP MERGES t").await;
    let both = [Twin::Postgres(postgres), Twin::ClickHouse(server)];
    for twin in &both {
        twin.insert(0..rows / 2).await;
        twin.insert(rows / 2..rows).await;
        twin.run("analyze t", "SELECT 1").await;
    }
    both
}

/// A row as CSV has it.
pub(crate) fn row(id: u32) -> String {
    let maybe = if id.is_multiple_of(7) { String::new() } else { (id * 3).to_string() };
    let (hour, minute, second) = (id / 3600 % 24, id / 60 % 60, id % 60);
    let at = format!("2024-02-29 {hour:02}:{minute:02}:{second:02}+00");
    format!("{id},\"row, \"\"{id}\"\"\",{maybe},{}.{:02},{at}", id / 4, id % 4 * 25)
}

/// Rows as [`Place::whole`] gives those of an export.
pub(crate) fn rows(ids: Range<u32>) -> Vec<String> {
    let mut all: Vec<String> = ids.map(row).collect();
    all.sort();
    all
}

impl Twin {
    /// For messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::ClickHouse(_) => "ClickHouse",
        }
    }

    /// As a manifest has it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgresql",
            Self::ClickHouse(_) => "clickhouse",
        }
    }

    /// Its connection string.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(pg) => pg.url.clone(),
            Self::ClickHouse(server) => server.url("writer"),
        }
    }

    /// What an export needs, so that what it left can be resumed exactly once it is dead.
    pub(crate) fn resumable(&self) -> &'static [&'static str] {
        match self {
            Self::Postgres(_) => &["--keep-snapshot", "60s"],
            Self::ClickHouse(_) => &[],
        }
    }

    /// Runs statements that say the same in either language.
    pub(crate) async fn run(&self, postgres: &str, server: &str) {
        match self {
            Self::Postgres(pg) => pg.batch(postgres).await,
            Self::ClickHouse(twin) => drop(twin.run(server).await),
        }
    }

    /// More rows.
    pub(crate) async fn insert(&self, ids: Range<u32>) {
        let (from, to) = (ids.start, ids.end);
        let postgres = format!(
            "insert into t select i, format('row, \"%s\"', i), case when i % 7 <> 0 then i * 3 end, i * 0.25,
                timestamptz '2024-02-29 00:00:00+00' + i % 86400 * interval '1 second'
             from generate_series({from}, {to} - 1) i"
        );
        let server = format!(
            "INSERT INTO t SELECT number, concat('row, \"', toString(number), '\"'), if(number % 7 = 0, NULL, number * 3), \
             toDecimal64(number * 25, 2) / 100, toDateTime('2024-02-29 00:00:00', 'UTC') + toIntervalSecond(number % 86400) \
             FROM numbers({from}, {to} - {from})"
        );
        self.run(&postgres, &server).await;
    }

    /// A command of ours that knows the source's password and can write there.
    pub(crate) fn outhaul(&self, place: &Place, arguments: &[&str]) -> Outhaul {
        self.known_to(place.outhaul(arguments.iter().copied()))
    }

    /// [`Place::export`] of the table.
    pub(crate) fn export(&self, place: &Place, arguments: &[&str]) -> Outhaul {
        self.known_to(place.export(&self.url(), arguments))
    }

    fn known_to(&self, command: Outhaul) -> Outhaul {
        match self {
            Self::Postgres(_) => command,
            Self::ClickHouse(server) => command.env("CLICKHOUSE_PASSWORD", &server.password),
        }
    }

    /// Waits until nothing of ours is left at the server.
    pub(crate) async fn is_at_rest(&self) {
        match self {
            Self::Postgres(pg) => no_sessions_left(pg).await,
            Self::ClickHouse(server) => {
                let sql = format!(
                    "SELECT count() FROM system.processes WHERE query_id LIKE 'outhaul-%' AND current_database = '{}'",
                    server.database
                );
                let gone = async || (server.run(&sql).await.trim() == "0").then_some(());
                eventually(REST_LIMIT, "the end of all queries", gone).await;
            }
        }
    }
}
