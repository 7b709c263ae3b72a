//! A database that is far away: what a run costs is counted in round trips.

use std::time::{Duration, Instant};

use crate::support::far::Far;
use crate::support::job::no_sessions_left;
use crate::support::night::Night;
use crate::support::pg::{Pg, pg};
use crate::support::run::outhaul;
use crate::support::secured::Secured;
use crate::support::tls::{Authority, LOCAL};

/// How often a time is taken; the shortest counts.
const ROUNDS: usize = 2;

async fn tables(pg: &Pg, count: usize) {
    let table = |n: usize| {
        format!(
            "create table t{n:03} (id bigint primary key, v text); insert into t{n:03} select i, 'x' from generate_series(1, 100) i;"
        )
    };
    let all: String = (0..count).map(table).collect();
    pg.batch(&format!("{all} analyze")).await;
}

fn near(pg: &Pg) -> String {
    // Without a question for TLS, which is one round trip more.
    format!("{}?sslmode=disable", pg.url)
}

/// The shortest time of some runs.
async fn shortest(run: impl AsyncFn()) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        run().await;
        times.push(began.elapsed());
    }
    times.into_iter().min().unwrap()
}

/// An export of one small table.
async fn one(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    outhaul(["export", "t", "--from", url, "--to", to.to_str().unwrap()]).run().await.expect(0);
}

/// How many round trips a run takes that is given a URL, each as long as can be told from what the processor takes.
async fn round_trips(pg: &Pg, each: Duration, run: impl AsyncFn(&str)) -> f64 {
    trips(&near(pg), each, run).await
}

async fn trips(url: &str, each: Duration, run: impl AsyncFn(&str)) -> f64 {
    let (_at_once, here) = Far::before_database(url, Duration::ZERO).await;
    let (_late, there) = Far::before_database(url, each).await;
    let (at_once, late) = (shortest(async || run(&here).await).await, shortest(async || run(&there).await).await);
    late.saturating_sub(at_once).as_secs_f64() / each.as_secs_f64()
}

#[tokio::test]
async fn one_table_takes_twelve_round_trips() {
    let pg = pg(15).await;
    pg.batch("create table t (id bigint primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i; analyze").await;
    let trips = round_trips(&pg, Duration::from_millis(150), async |url| one(url).await).await;
    eprintln!("{trips:.1} round trips");
    // One more is noise.
    assert!(trips < 13.0, "{trips:.1}");
    no_sessions_left(&pg).await;
}

/// A connection asks for TLS, shakes hands, and proves the password in two steps. The first two are made at the same time.
#[tokio::test]
async fn encryption_and_a_password_take_five_round_trips_more() {
    let each = Duration::from_millis(100);
    let authority = Authority::new("ec");
    let server = Secured::start(15, &authority, &authority.issue("server", LOCAL, 30)).await;
    server
        .batch(
            "create role trusted login; create role encrypted login password 'secret';
             create table t (id bigint primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i;
             grant select on t to trusted, encrypted; analyze t",
        )
        .await;
    let root = authority.certificate();
    let root = root.to_str().unwrap();
    let mut counts = Vec::new();
    for (user, settings) in
        [("trusted", "sslmode=disable".to_owned()), ("encrypted", format!("sslmode=verify-full&sslrootcert={root}"))]
    {
        let url = format!("postgres://{user}@127.0.0.1:{}/postgres?{settings}", server.port);
        let run = async |url: &str| {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("out");
            let run = outhaul(["export", "t", "--from", url, "--to", to.to_str().unwrap()]).env("PGPASSWORD", "secret");
            run.run().await.expect(0);
        };
        counts.push(trips(&url, each, run).await);
    }
    println!("{counts:?} round trips");
    // One more is noise.
    assert!(counts[1] - counts[0] < 6.0, "{counts:?}");
    let tls = server.sql("select count(*)::text from pg_stat_ssl where ssl").await;
    assert_eq!(tls[0][0].as_deref(), Some("0"), "all sessions have ended");
}

#[tokio::test]
async fn each_further_table_takes_four_round_trips() {
    // What all of them have in common is a dozen tables' worth.
    const MORE: usize = 40;
    let pg = pg(15).await;
    tables(&pg, 1 + MORE).await;
    let mut counts = Vec::new();
    for only in ["t000", "t*"] {
        let trips = round_trips(&pg, Duration::from_millis(60), async |url| {
            let night = Night::new("[defaults]\nreaders = 4\nto = 'ROOT/{table}'\n[[export]]\ntable = 'public.*'\n");
            night.run_at(url, &["--only", &format!("public.{only}")]).run().await.expect(0);
        })
        .await;
        counts.push(trips);
    }
    #[expect(clippy::cast_precision_loss, reason = "few tables")]
    let each = (counts[1] - counts[0]) / MORE as f64;
    println!("{:.1} round trips, and {each:.2} for each further table", counts[0]);
    assert!(each < 4.0, "{counts:?}");
    no_sessions_left(&pg).await;
}
