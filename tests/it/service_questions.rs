//! `outhaul serve`: a question means the same rows whatever its dataset has become meanwhile, and whatever words, digits and
//! lengths its values have.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, key};

const COUNT: &str = "[dataset.t.analysis.NAME]\ndimensions = [\"NAME\"]\nmeasures = [\"count\"]\n";

/// A dataset `t` of the table `t`, without a tenant.
fn service(pg: &Pg, more: &str, columns: &[&str], analyses: &[&str]) -> String {
    let columns: String = columns
        .iter()
        .map(|column| if column.contains('=') { format!("{column}\n") } else { format!("{column} = {{}}\n") })
        .collect();
    let analyses: String = analyses.iter().map(|name| COUNT.replace("NAME", name)).collect();
    format!(
        "{}[source.shop]\nfrom = \"{}\"\n[dataset.t]\ntable = \"t\"\n{more}[dataset.t.columns]\n{columns}{analyses}",
        key("k", "acme", "pro"),
        pg.url
    )
}

async fn export(service: &Service, body: &Value) -> Answer {
    service.export("k", "t", &body.to_string()).await
}

async fn ids(service: &Service, body: Value) -> Vec<u64> {
    let answer = export(service, &body).await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap()).collect()
}

fn equal(column: &str, value: &str) -> Value {
    json!({"columns": ["id"], "where": [{"column": column, "op": "=", "value": value}], "allow_empty": true})
}

async fn analyze(service: &Service, name: &str) -> Answer {
    service.post("k", &format!("/v1/analyze/t/{name}"), "", "").await
}

/// The rows of a bucket.
async fn opened(service: &Service, name: &str, bucket: &Value) -> Answer {
    let body = json!({"bucket_key": bucket["bucket_key"], "columns": ["id"]}).to_string();
    service.post("k", &format!("/v1/analyze/t/{name}/rows/export"), &body, "").await
}

/// The last day of a range ends elsewhere for a moment than for a date.
#[tokio::test]
async fn a_column_that_has_another_type_is_asked_by_it() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, day date not null, n int not null);
        insert into t select i, date '2024-01-01' + i, i from generate_series(0, 4) i; analyze t",
    )
    .await;
    let text = service(&pg, "date_column = \"day\"\n", &["id", "day", "n"], &["n"]);
    let service = Service::start(&text).await;
    let days = json!({"columns": ["id"], "date_range": {"from": "2024-01-01", "to": "2024-01-03"}});
    assert_eq!(ids(&service, days.clone()).await, [0, 1, 2]);
    let buckets = analyze(&service, "n").await.json();
    pg.batch(
        "alter table t alter day type timestamptz using (day + time '15:00') at time zone 'UTC';
        alter table t alter n type text using n::text",
    )
    .await;
    let estimate = service.post("k", "/v1/query/t/estimate", &days.to_string(), "").await.json();
    assert_eq!((&estimate["rows"], &estimate["kind"]), (&json!(3), &json!("exact")), "{estimate}");
    assert_eq!(ids(&service, days.clone()).await, [0, 1, 2]);
    // What was counted was of a number.
    opened(&service, "n", &buckets["buckets"][1]).await.problem(400, "bucket_key_invalid");
    assert_eq!(analyze(&service, "n").await.json()["buckets"].as_array().unwrap().len(), 5);
    // No operator compares a text with what it was.
    pg.batch("alter table t alter n type int using n::int").await;
    assert_eq!(ids(&service, equal("n", "3")).await, [3]);
    pg.batch("alter table t alter n type text using n::text").await;
    assert_eq!(ids(&service, equal("n", "3")).await, [3]);
    // A job finds it out by its first attempt.
    pg.batch("alter table t alter day type date using day::date").await;
    let job = json!({"dataset": "t", "mode": "background", "columns": ["id"], "date_range": {"to": "2024-01-03"}});
    let queued = service.post("k", "/v1/exports", &job.to_string(), "").await.json();
    let path = format!("/v1/exports/{}", queued["id"].as_str().unwrap());
    let ended = async || {
        let job = service.get("k", &path).await.json();
        (!matches!(job["status"].as_str().unwrap(), "queued" | "running")).then_some(job)
    };
    let ended = eventually(Duration::from_secs(30), "the job", ended).await;
    assert_eq!((&ended["status"], &ended["rows"]), (&json!("complete"), &json!(3)), "{ended}");
    service.stop().await;
}

/// Whoever may see a part of a value may not find rows by all of it.
#[tokio::test]
async fn a_made_column_hides_the_stored_one_of_its_name() {
    let pg = pg(18).await;
    pg.batch("create table t (id bigint primary key, mail text); insert into t values (1, 'anna@x'), (2, 'bert@x')")
        .await;
    let columns = ["id", "mail = { expr = \"left(mail, 1)\" }"];
    let service = Service::start(&service(&pg, "", &columns, &["mail"])).await;
    assert_eq!(ids(&service, equal("mail", "a")).await, [1]);
    let whole = export(&service, &equal("mail", "anna@x")).await;
    assert_eq!((whole.status, whole.text()), (200, ""));
    let buckets = analyze(&service, "mail").await;
    assert!(!buckets.text().contains("@x"), "{}", buckets.text());
    assert_eq!(opened(&service, "mail", &buckets.json()["buckets"][0]).await.text(), "{\"id\":1}\n");
    service.stop().await;
}

/// `now` in a value is a text of a caller, and no clock.
#[tokio::test]
async fn words_of_time_are_words_where_no_time_is() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, title text not null, customer text not null, at timestamptz[], span tsrange);
        insert into t values (1, 'Buy now', 'USA Today', '{2024-01-01Z}', '[2024-01-01,2024-01-02)'),
            (2, 'tomorrow', 'acme', null, null)",
    )
    .await;
    let tenants = format!(
        "{}{}",
        key("usa", "USA Today", "pro"),
        service(&pg, "tenant = \"customer = {tenant} and now() > '2020-01-01'\"\n", &["id", "title"], &["title"])
    );
    let running = Service::start(&tenants).await;
    let mine = running.export("usa", "t", r#"{"columns":["id"]}"#).await;
    assert_eq!((mine.status, mine.text()), (200, "{\"id\":1}\n"));
    running.stop().await;
    let columns = ["id", "title", "at", "span", "upper_title = { expr = \"upper(title)\" }"];
    let running = Service::start(&service(&pg, "", &columns, &["title"])).await;
    assert_eq!(ids(&running, equal("title", "Buy now")).await, [1]);
    assert_eq!(ids(&running, equal("upper_title", "TOMORROW")).await, [2]);
    let found = analyze(&running, "title").await.json();
    for (bucket, id) in found["buckets"].as_array().unwrap().iter().zip(["{\"id\":1}\n", "{\"id\":2}\n"]) {
        assert_eq!(opened(&running, "title", bucket).await.text(), id, "{bucket}");
    }
    assert_eq!(ids(&running, equal("at", "{2024-01-01Z}")).await, [1]);
    for (column, value) in [("at", "{now}"), ("span", "[2024-01-01,now)")] {
        let problem = export(&running, &equal(column, value)).await.problem(400, "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains(column), "{problem}");
    }
    running.stop().await;
}

/// The server's own casts leave out what a type has no place for.
#[tokio::test]
async fn no_part_of_a_date_or_a_time_is_left_out() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, d date, ts timestamp, tm time, tz timetz);
        insert into t values (1, '2024-01-02', '2024-01-31 12:00:00', '12:00:00', '12:00:00+05'),
            (2, '2024-01-01', '2024-02-01 00:00:00', '07:00:00', '12:00:00+00'), (3, 'infinity', '-infinity', '24:00', null),
            (4, '0044-03-15 BC', '0044-03-15 12:00:00 BC', null, null)",
    )
    .await;
    let names = ["d", "ts", "tm", "tz"];
    let service = Service::start(&service(&pg, "", &["id", "d", "ts", "tm", "tz"], &names)).await;
    for (column, value, expected) in [
        ("d", "2024-01-02", Some(&[1][..])),
        ("d", "2024-01-02T12:00:00Z", None),
        ("d", "2024-01-02 00:00", None),
        ("ts", "2024-02-01T00:00:00+12:00", Some(&[1])),
        ("ts", "2024-02-01T00:00:00", Some(&[2])),
        ("ts", "2024-02-01", Some(&[2])),
        ("tm", "12:00:00", Some(&[1])),
        ("tm", "12:00:00+05", None),
        ("tm", "2024-01-01 12:00:00", None),
        ("tz", "12:00:00+05", Some(&[1])),
        ("tz", "2024-01-01 12:00:00+05", None),
    ] {
        let answer = export(&service, &equal(column, value)).await;
        match expected {
            Some(expected) => {
                assert_eq!(answer.status, 200, "{column} {value}: {}", answer.text());
                assert_eq!(ids(&service, equal(column, value)).await, expected, "{column} {value}");
            }
            None => drop(answer.problem(400, "invalid_request")),
        }
    }
    // What the server prints itself leads back to its row.
    for name in names {
        for bucket in analyze(&service, name).await.json()["buckets"].as_array().unwrap() {
            let rows = opened(&service, name, bucket).await;
            assert_eq!((rows.status, rows.end), (200, BodyEnd::Whole), "{bucket}: {}", rows.text());
            assert_eq!(json!(rows.text().lines().count()), bucket["measures"]["count"], "{bucket}");
        }
    }
    service.stop().await;
}

/// A key opens what was counted, or nothing.
#[tokio::test]
async fn a_bucket_key_ends_with_the_definition_that_it_is_of() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, a text not null, b text not null, at date not null);
        create table other as table t; alter table other add primary key (id);
        insert into t values (1, 'x', 'y', '2024-01-01'), (2, 'y', 'x', '2024-01-01')",
    )
    .await;
    let columns = ["id", "a", "at", "made = { expr = \"a\" }"];
    let text = service(&pg, "date_column = \"at\"\n", &columns, &["made"]);
    let mut running = Service::start(&text).await;
    let asked = r#"{"where":[{"column":"a","op":"!=","value":"z"}]}"#;
    let buckets = running.post("k", "/v1/analyze/t/made", asked, "").await.json();
    let bucket = &buckets["buckets"][0];
    assert_eq!(opened(&running, "made", bucket).await.text(), "{\"id\":1}\n");
    for (old, new, opens) in [
        ("", "", true),
        ("expr = \"a\"", "expr = \"b\"", false),
        ("table = \"t\"", "table = \"other\"", false),
        ("table = \"t\"", "table = \"t\"\ntenant = \"a = 'x' or {tenant} = 'y'\"", false),
        ("\na = {}", "\na = { filter = false }", false),
        ("\na = {}", "\na = { expr = \"b\" }", false),
    ] {
        running.rewrite(&text.replacen(old, new, 1));
        running.process.signal("TERM").await;
        running = running.stopped_and_started(|command| command).await;
        let answer = opened(&running, "made", bucket).await;
        let expected = if opens { (200, "{\"id\":1}\n") } else { (400, "bucket_key_invalid") };
        assert!(answer.status == expected.0 && answer.text().contains(expected.1), "{old} {new}: {answer:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_number_that_groups_rows_keeps_its_digits() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, n numeric not null); insert into t values
            (1, 12345678901234567890123456789), (2, 12345678901234567890123456790), (3, 12345678901234567890123456791),
            (4, 1e400), (5, 'NaN')",
    )
    .await;
    let service = Service::start(&service(&pg, "", &["id", "n"], &["n"])).await;
    let answer = analyze(&service, "n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let large = format!("1{}", "0".repeat(400));
    for digits in ["12345678901234567890123456789", "12345678901234567890123456790", "\"NaN\"", &large] {
        assert!(answer.text().contains(&format!("{{\"n\":{digits}}}")), "{digits}: {}", answer.text());
    }
    service.stop().await;
}

#[tokio::test]
async fn an_analysis_has_no_more_memory_than_it_reserves() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, long text not null, many text not null, wild text not null, fits text not null);
        insert into t select i, i || repeat('x', 200000), i || repeat('m', 8000), i || repeat(e'\\x01', 6000),
            i || case when i < 20 then repeat('é', 6000) else '' end from generate_series(1, 200) i",
    )
    .await;
    let names = ["long", "many", "wild", "fits"];
    let service = Service::start(&service(&pg, "", &["id", "long", "many", "wild", "fits"], &names)).await;
    for name in ["long", "many", "wild"] {
        analyze(&service, name).await.problem(422, "buckets_too_large");
    }
    let found = analyze(&service, "fits").await.json();
    assert_eq!(found["buckets"].as_array().unwrap().len(), 200);
    for bucket in found["buckets"].as_array().unwrap().iter().step_by(11) {
        assert_eq!(opened(&service, "fits", bucket).await.text().lines().count(), 1, "{bucket}");
    }
    service.stop().await;
}

/// What an operator's expression does to a row is no fault of who asks for the row.
#[tokio::test]
async fn a_filter_is_blamed_for_its_own_value_alone() {
    let pg = pg(18).await;
    pg.batch("create table t (id bigint primary key, q int not null); insert into t values (1, 0), (2, 5)").await;
    let columns = ["id", "q", "share = { expr = \"100 / q\" }"];
    let service = Service::start(&service(&pg, "", &columns, &["share"])).await;
    let ask = |column: &str, value: &str| json!({"columns": ["id", "share"], "where": [{"column": column, "op": "=", "value": value}]});
    export(&service, &ask("q", "0")).await.problem(502, "source_rejected");
    let body = r#"{"where":[{"column":"id","op":"<","value":9}]}"#;
    service.post("k", "/v1/analyze/t/share", body, "").await.problem(502, "source_rejected");
    for value in ["zero", "99999999999"] {
        export(&service, &ask("q", value)).await.problem(400, "invalid_request");
    }
    assert_eq!(export(&service, &ask("q", "5")).await.text(), "{\"id\":2,\"share\":20}\n");
    service.stop().await;
}
