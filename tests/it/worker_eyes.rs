//! Whose eyes a worker and a resume read with: those of the run, whatever their own connection has set (I5, I13).

use std::collections::BTreeSet;

use crate::support::clickhouse::clickhouse;
use crate::support::pg::{both, pg};
use crate::support::place::Place;
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::workers::{Driver, QUICK};

const EXTERNAL: [&str; 2] = ["--workers", "external"];

fn worker(from: &str, place: &Place, shard: &str) -> Outhaul {
    let to = place.url();
    outhaul(["worker", "--destination", &to, "--from", from, "--shard", shard]).env("OUTHAUL_TEST_LIMITS", QUICK)
}

/// The distinct values of the last column.
async fn last(place: &Place) -> BTreeSet<String> {
    place.whole().await.iter().filter_map(|row| Some(row.rsplit_once(',')?.1.to_owned())).collect()
}

/// Rows of two tenants, and a policy that asks a setting which of them is meant.
const TENANTS: &str = "create table t as select i as id, (i % 2)::text as tenant from generate_series(1, 4000) i;
    alter table t add primary key (id); analyze t; alter table t enable row level security;
    create policy p on t using (tenant = current_setting('app.tenant'))";

#[tokio::test]
async fn a_setting_that_a_policy_asks_for_is_that_of_the_run() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TENANTS).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!("grant select on t to {role}")).await;
        let place = Place::local();
        let args = [&["--table", "t", "--key", "id", "--allow-rls", "--partitions", "4"][..], &EXTERNAL].concat();
        let tenant = |run: Outhaul, tenant: &str| run.env("PGOPTIONS", format!("-c app.tenant={tenant}"));
        let run = tenant(place.export(&url, &args), "1").env("OUTHAUL_TEST_LIMITS", QUICK);
        let driver = Driver::start(run).await;
        let refused = tenant(worker(&url, &place, "0/1"), "0").run().await.expect(2);
        assert!(refused.stderr.contains("app.tenant is not set as it was"), "{version}: {}", refused.stderr);
        worker(&url, &place, "0/1").run().await.expect(2);
        // What only carries the statements may differ.
        let ordinary = tenant(worker(&url, &place, "0/1"), "1 -c work_mem=8MB -c statement_timeout=1h");
        let ordinary = ordinary.env("PGAPPNAME", "somebody").env("PGCONNECT_TIMEOUT", "7");
        ordinary.run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!((last(&place).await, place.whole().await.len()), (BTreeSet::from(["1".to_owned()]), 2000));
    }
}

#[tokio::test]
async fn a_resume_has_the_settings_of_the_run_and_without_the_comparison_reads_another_tenant() {
    let pg = pg(18).await;
    pg.batch(TENANTS).await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on t to {role}")).await;
    for (off, tenant) in [("", "1"), ("outer-settings", "0")] {
        pg.batch(&format!("alter role {role} set app.tenant = 1")).await;
        let place = Place::local();
        let stop = Stop::at("batch");
        let args = ["--table", "t", "--key", "id", "--allow-rls", "--keep-snapshot", "60s"];
        let running = place.export(&url, &args).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        pg.batch(&format!("alter role {role} set app.tenant = 0")).await;
        let to = place.url();
        let resume = || outhaul(["resume", &to, "--from", &url, "--progress", "none"]);
        let refused = resume().run().await.expect(2);
        assert!(refused.stderr.contains("app.tenant is not set as it was"), "{}", refused.stderr);
        assert!(place.visible().await.is_empty());
        let again = if off.is_empty() { resume().env("PGOPTIONS", "-c app.tenant=1") } else { resume() };
        again.env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        assert_eq!(last(&place).await, BTreeSet::from([tenant.to_owned()]), "{off}");
    }
}

#[tokio::test]
async fn a_day_and_a_month_stand_in_the_order_of_the_run() {
    for version in both() {
        let pg = pg(version).await;
        let table =
            "create table t as select i as id, date '2026-01-01' + i % 365 as d from generate_series(0, 3999) i;
            alter table t add primary key (id); analyze t";
        pg.batch(table).await;
        let rows = ["--table", "t", "--key", "id", "--partitions", "4", "--where", "d > '2/3/2026'"];
        let [place, alone] = [Place::local(), Place::local()];
        alone.export(&pg.url, &rows).env("PGDATESTYLE", "ISO, DMY").run().await.expect(0);
        let run = place.export(&pg.url, &[&rows[..], &EXTERNAL].concat());
        let driver = Driver::start(run.env("PGDATESTYLE", "ISO, DMY").env("OUTHAUL_TEST_LIMITS", QUICK)).await;
        worker(&pg.url, &place, "0/1").run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, alone.whole().await, "{version}");
    }
}

#[tokio::test]
async fn a_name_without_a_database_is_of_the_run_s_database() {
    let server = clickhouse().await;
    let (a, b) = (&server.database, format!("{}_b", server.database));
    server.run(&format!("CREATE DATABASE {b}")).await;
    for (database, value) in [(a, "a"), (&b, "b")] {
        let table = format!("CREATE TABLE {database}.t (id UInt32, v String) ENGINE = MergeTree ORDER BY id");
        server.run(&table).await;
        server.run(&format!("INSERT INTO {database}.t SELECT number, '{value}' FROM numbers(4000)")).await;
    }
    let from = |user: &str, database: &str| format!("clickhouse://{user}@{}/{database}", server.server);
    let rows = ["--query", "select id, v from t", "--key", "id", "--partitions", "4"];
    let secret = |run: Outhaul| run.env("CLICKHOUSE_PASSWORD", &server.password);
    let place = Place::local();
    let run = secret(place.export(&from("writer", a), &[&rows[..], &EXTERNAL].concat()));
    let driver = Driver::start(run.env("OUTHAUL_TEST_LIMITS", QUICK)).await;
    secret(worker(&from("writer", &b), &place, "0/2")).run().await.expect(0);
    let other = secret(worker(&from("narrow", a), &place, "1/2")).run().await.expect(2);
    assert!(other.stderr.contains("begun by user writer"), "{}", other.stderr);
    secret(worker(&from("writer", a), &place, "1/2")).run().await.expect(0);
    driver.running.wait().await.expect(0);
    assert_eq!((last(&place).await, place.whole().await.len()), (BTreeSet::from(["a".to_owned()]), 4000));

    for off in ["", "eyes"] {
        let place = Place::local();
        let stop = Stop::at("receipted");
        let running = secret(place.export(&from("writer", a), &rows)).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        let (to, from) = (place.url(), from("writer", &b));
        let resume = outhaul(["resume", &to, "--from", &from, "--progress", "none"]).env("OUTHAUL_TEST_OFF", off);
        secret(resume).run().await.expect(0);
        assert_eq!(last(&place).await.len(), if off.is_empty() { 1 } else { 2 }, "{off}");
    }
}
