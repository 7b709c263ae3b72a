//! `outhaul serve`: who may ask for what, and what nobody is told.

use serde_json::Value;

use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, digest, key, request, written};

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, customer_id text not null, note text, secret text);
        insert into orders select i, case when i % 2 = 0 then 'acme' else 'canary-tenant' end, 'note ' || i, 'canary-column'
            from generate_series(1, 1000) i;
        create table guarded (id int primary key, tenant text);
        insert into guarded select i, case when i % 2 = 0 then 'acme' else 'canary-tenant' end from generate_series(1, 100) i;
        alter table guarded enable row level security;
        create policy own on guarded using (tenant = current_setting('app.tenant'));
        analyze",
    )
    .await;
    pg
}

fn service(url: &str) -> String {
    let trusted = digest("trusted-backend-key");
    let narrow = digest("narrow");
    format!(
        "{}{}
[[key]]
name = \"backend\"
sha256 = \"{trusted}\"
datasets = [\"*\"]
may_assert = true
[[key]]
name = \"narrow\"
sha256 = \"{narrow}\"
tenant = \"acme\"
tier = \"free\"
datasets = [\"vip\"]
[source.shop]
from = \"{url}\"
[dataset.orders]
table = \"orders\"
tenant = \"customer_id = {{tenant}}\"
[dataset.orders.columns]
id = {{ sort = true }}
note = {{ filter = false }}
customer_id = {{}}
[dataset.vip]
table = \"orders\"
tenant = \"customer_id = {{tenant}}\"
grants = {{ query = [\"enterprise\"] }}
[dataset.vip.columns]
id = {{}}
[dataset.guarded]
table = \"guarded\"
tenant_setting = \"app.tenant\"
[dataset.guarded.columns]
id = {{}}
tenant = {{}}
",
        key("acme-secret-key", "acme", "free"),
        key("other", "globex", "free"),
    )
}

const IDS: &str = r#"{"columns":["id"]}"#;

#[tokio::test]
async fn keys_open_their_datasets_and_assert_only_where_they_may() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let path = "/v1/query/orders/export";
    for head in ["", "Authorization: Basic YTpi\r\n"] {
        let anonymous =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: 16\r\n\r\n{IDS}");
        let answer = service.ask(&anonymous).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    service.export("acme-secret-kez", "orders", IDS).await.problem(401, "unauthorized");
    service.export("acme-secret-key", "nothing", IDS).await.problem(404, "dataset_not_found");
    service.export("narrow", "orders", IDS).await.problem(403, "forbidden");
    service.export("narrow", "vip", IDS).await.problem(403, "forbidden");
    service
        .export_with("acme-secret-key", "orders", IDS, "X-Outhaul-Tenant: globex\r\n")
        .await
        .problem(403, "forbidden");
    let trusted = "trusted-backend-key";
    service.export(trusted, "orders", IDS).await.problem(400, "invalid_request");
    service.export_with(trusted, "orders", IDS, "X-Outhaul-Tier: none\r\n").await.problem(400, "invalid_request");
    // A tenant that nobody has named is refused before the database is asked.
    service.export_with(trusted, "orders", IDS, "X-Outhaul-Tier: free\r\n").await.problem(403, "forbidden");
    service.export_with(trusted, "guarded", IDS, "X-Outhaul-Tier: free\r\n").await.problem(403, "forbidden");
    service
        .export_with(trusted, "orders", IDS, "X-Outhaul-Tier: free\r\nX-Outhaul-Tenant:  \r\n")
        .await
        .problem(403, "forbidden");
    let head = "X-Outhaul-Tier: enterprise\r\nX-Outhaul-Tenant: acme\r\nX-Outhaul-User: u1\r\n";
    let answer = service.export_with(trusted, "vip", IDS, head).await;
    assert_eq!((answer.status, answer.text().lines().count()), (200, 500), "{}", answer.text());
    // Its receipt is the tenant's.
    assert_eq!(service.receipt("acme-secret-key", &answer).await["rows"], 500);
    let listed = service.get("narrow", "/v1/datasets").await.json();
    assert_eq!(listed["datasets"], Value::Array(Vec::new()));
    let listed = service.get("acme-secret-key", "/v1/datasets").await.json();
    let names: Vec<&str> = listed["datasets"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!((names, &listed["datasets"][1]["max_rows"]), (vec!["guarded", "orders"], &Value::from(10_000)));
    service.stop().await;
}

#[tokio::test]
async fn no_path_shows_another_tenants_rows() {
    let pg = orders().await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on guarded, orders to {role}")).await;
    let service = Service::start(&service(&url)).await;
    for (dataset, expected) in [("orders", 500), ("guarded", 50)] {
        let columns = if dataset == "orders" { r#"["customer_id"]"# } else { r#"["tenant"]"# };
        for extra in ["", r#","where":[{"column":"id","op":">","value":0}]"#] {
            let answer =
                service.export("acme-secret-key", dataset, &format!(r#"{{"columns":{columns}{extra}}}"#)).await;
            assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{dataset}: {}", answer.text());
            assert_eq!(answer.text().lines().count(), expected, "{dataset}");
            assert!(!answer.text().contains("canary"), "{dataset}");
        }
        service.export("other", dataset, &format!(r#"{{"columns":{columns}}}"#)).await.problem(404, "no_data");
    }
    // Values that try to leave their literal.
    for hostile in ["x' or true --", "x\\' or true --", "') or (true", "$$ or true", "{tenant}", "\u{0}"] {
        let value = serde_json::to_string(hostile).unwrap();
        let body = format!(r#"{{"columns":["id"],"where":[{{"column":"customer_id","op":"=","value":{value}}}]}}"#);
        let answer = service.export("acme-secret-key", "orders", &body).await;
        assert!([400, 404].contains(&answer.status), "{hostile}: {}", answer.text());
    }
    let own = service.export("acme-secret-key", "orders", IDS).await;
    let link = own.header("link").unwrap().trim_start_matches('<').split('>').next().unwrap().to_owned();
    let strangers = service.get("other", &link).await.problem(404, "export_not_found");
    let nothing = service.get("other", "/v1/exports/00000000000000000000000000000000").await;
    assert_eq!(strangers, nothing.problem(404, "export_not_found"), "who asks learns nothing");
    assert_eq!(service.get("acme-secret-key", &link).await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_granted_is_refused_wherever_it_is_named() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let ask = async |body: &str| service.export("acme-secret-key", "orders", body).await;
    let refused = |answer: Answer, word: &str| {
        let problem = answer.problem(400, "invalid_request");
        assert!(problem.to_string().contains(word), "{problem}");
        assert!(!problem.to_string().contains("select"), "{problem}");
    };
    refused(ask(r#"{"columns":["id","secret"]}"#).await, "columns");
    refused(ask(r#"{"columns":["id"],"where":[{"column":"secret","op":"like","value":"c%"}]}"#).await, "where");
    refused(ask(r#"{"columns":["id"],"order_by":[{"column":"secret"}]}"#).await, "order_by");
    refused(ask(r#"{"columns":["id"],"where":[{"column":"note","op":"=","value":"x"}]}"#).await, "where");
    refused(ask(r#"{"columns":["id"],"order_by":[{"column":"customer_id"}]}"#).await, "order_by");
    refused(ask(r#"{"columns":["id"],"date_range":{"from":"2026-01-01"}}"#).await, "date_range");
    refused(ask(r#"{"columns":[]}"#).await, "columns");
    refused(ask(r#"{"columns":["id","id"]}"#).await, "twice");
    refused(ask(r#"{"columns":["id"],"colums":[]}"#).await, "colums");
    refused(ask(r#"{"columns":["id"],"where":[{"column":"id","op":"; drop table orders","value":1}]}"#).await, "op");
    refused(ask(r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":"a"}]}"#).await, "filter");
    refused(ask(r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":null}]}"#).await, "value");
    refused(ask("no json").await, "body");
    let long =
        format!(r#"{{"columns":["id"],"where":[{{"column":"id","op":"in","values":[{}1]}}]}}"#, "1,".repeat(5_000));
    ask(&long).await.problem(400, "input_too_large");
    service.get("acme-secret-key", "/v1/query/orders/export").await.problem(405, "method_not_allowed");
    for path in ["/metrics", "/healthz", "/readyz", "/audit?tenant=acme", "/v1/audit"] {
        service.get("acme-secret-key", path).await.problem(404, "not_found");
    }
    let admin = reqwest_free_get(&service.admin, "/metrics").await;
    assert!(admin.starts_with("HTTP/1.1 200") && admin.contains("outhaul_rows_read_total"), "{admin}");
    assert!(reqwest_free_get(&service.admin, "/healthz").await.ends_with("ok\n"));
    assert!(reqwest_free_get(&service.admin, "/readyz").await.ends_with("ok\n"));
    service.stop().await;
}

pub(crate) async fn reqwest_free_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn hostile_heads_end() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let large = format!("GET /v1/datasets HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let mut stream = service.connect(&large).await;
    let mut wire = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut wire).await;
    assert!(wire.is_empty() || wire.starts_with(b"HTTP/1.1 431"), "{}", wire.escape_ascii());
    // A head that never ends, and one that has not begun, are let go after ten seconds.
    let mut slow = service.connect("GET /v1/datasets HTTP/1.1\r\nHost").await;
    let mut silent = service.connect("").await;
    let began = std::time::Instant::now();
    for stream in [&mut slow, &mut silent] {
        let mut wire = Vec::new();
        let _ = tokio::time::timeout(
            std::time::Duration::from_secs(20),
            tokio::io::AsyncReadExt::read_to_end(stream, &mut wire),
        )
        .await
        .unwrap();
        assert!(wire.is_empty() || wire.starts_with(b"HTTP/1.1 408"), "{}", wire.escape_ascii());
    }
    assert!(began.elapsed().as_secs() >= 9, "they had no time at all");
    for smuggled in [
        "POST /v1/query/orders/export HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST /v1/query/orders/export HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    ] {
        let mut stream = service.connect(smuggled).await;
        let mut wire = Vec::new();
        let _ = tokio::time::timeout(
            std::time::Duration::from_secs(20),
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut wire),
        )
        .await;
        let text = String::from_utf8_lossy(&wire);
        assert!(text.starts_with("HTTP/1.1 4") && !text.contains("HTTP/1.1 200"), "{text}");
    }
    service.stop().await;
}

#[tokio::test]
async fn limits_are_per_tenant_and_say_when_to_come_again() {
    let pg = orders().await;
    pg.batch("insert into orders select i, 'acme', repeat('x', 2000), '' from generate_series(2000, 20000) i").await;
    let text = format!("{}[limits]\nstreams_per_tenant = 1\nrequests_per_minute = 6\n", service(&pg.url));
    let service = Service::start(&text).await;
    let ask = request("POST", "acme-secret-key", "/v1/query/orders/export", r#"{"columns":["id","note"]}"#, "");
    let mut open = service.connect(&ask).await;
    let mut first = [0; 100];
    tokio::io::AsyncReadExt::read_exact(&mut open, &mut first).await.unwrap();
    let refused = service.export("acme-secret-key", "orders", IDS).await;
    refused.problem(429, "too_many_requests");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // Another tenant has streams of its own.
    service.export("other", "orders", IDS).await.problem(404, "no_data");
    drop(open);
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(service.get("acme-secret-key", "/v1/datasets").await);
    }
    let last = answers.last().unwrap();
    last.problem(429, "too_many_requests");
    assert!((1..=60).contains(&last.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert_eq!(service.get("other", "/v1/datasets").await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn secrets_and_values_are_in_no_log() {
    let pg = orders().await;
    let (url, role) = pg.role("password 'canary-password'").await;
    pg.batch(&format!("grant select on orders to {role}")).await;
    let url = url.replace(&format!("{role}@"), &format!("{role}:canary-password@"));
    let service = Service::start(&service(&url)).await;
    let body =
        r#"{"columns":["id","customer_id"],"where":[{"column":"customer_id","op":"!=","value":"canary-value"}]}"#;
    assert_eq!(service.export("acme-secret-key", "orders", body).await.status, 200);
    service.export("wrong-canary-key", "orders", body).await.problem(401, "unauthorized");
    let body = r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":"canary-number"}]}"#;
    service.export("acme-secret-key", "orders", body).await.problem(400, "invalid_request");
    // A database that is gone, whose error has its address.
    pg.batch(&format!("revoke select on orders from {role}")).await;
    let answer = service.export("acme-secret-key", "orders", IDS).await;
    let problem = answer.problem(502, "source_authentication");
    assert!(!problem.to_string().contains("127.0.0.1") && !problem.to_string().contains("orders"), "{problem}");
    let log = service.stop().await;
    for secret in ["acme-secret-key", "canary", "Bearer", &digest("acme-secret-key")] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[tokio::test]
async fn a_check_names_what_does_not_fit_the_database() {
    let pg = orders().await;
    // Row security hides nothing from the owner.
    let owners = service(&pg.url);
    let (url, role) = pg.role("").await;
    pg.batch(&format!(
        "grant select on guarded to {role}; grant select (id, note, customer_id) on orders to {role};
         create table closed (id int primary key); create table sums (id int primary key, note text);
         grant select on sums to {role}"
    ))
    .await;
    let right = service(&url).replace(
        "[dataset.guarded]",
        "[dataset.sums]\ntable = \"sums\"\n[dataset.sums.columns]\nid = {}\nnote = {}\n\
         [dataset.sums.analysis.all]\ndimensions = [\"note\"]\nmeasures = [\"count\", \"sum(id)\"]\n[dataset.guarded]",
    );
    for (from, to, expected) in [
        ("note = { filter = false }", "note = { sort = true }", "no index leads with \"note\""),
        ("note = { filter = false }", "nte = {}", "nte"),
        ("query = [\"enterprise\"]", "query = [\"gold\"]", "tier \"gold\" is not known"),
        ("note = { filter = false }", "secret = {}", "dataset.orders: "),
        ("table = \"sums\"", "table = \"closed\"", "dataset.sums: "),
        ("sum(id)", "sum(note)", "dataset.sums.analysis.all: "),
        ("customer_id = {tenant}", "customer = {tenant}", "dataset.orders: "),
        ("customer_id = {tenant}\"", "customer_id = {tenant}\"\ntenant_type = \"int\"", "dataset.orders: "),
        ("[dataset.sums]", "[dataset.sums]\ntenant_setting = \"app.tenant\"", "row security hides nothing"),
        ("[source.shop]", "state = \"nowhere/state\"\n[source.shop]", "state: "),
    ] {
        // The first of the file's own keys stands in front of its tables.
        let text = match from {
            "[source.shop]" => format!("{}\n{right}", to.lines().next().unwrap()),
            _ => right.replacen(from, to, 1),
        };
        assert_ne!(text, right, "{from}");
        let (_folder, command) = written(&text, &["--check"]);
        let run = command.run().await.expect(2);
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    let (_folder, command) = written(&right, &["--check"]);
    let run = command.run().await.expect(0);
    assert!(run.stderr.contains("is right"), "{}", run.stderr);
    let (_folder, command) = written(&owners, &["--check"]);
    let run = command.run().await.expect(2);
    assert!(run.stderr.contains("dataset.guarded: tenant_setting"), "{}", run.stderr);
}
