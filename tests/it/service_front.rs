//! `outhaul serve` as its operator and its first users meet it: TLS, keys that change, pages of other origins, the demo, the
//! lines of its documentation.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::run::{outhaul, program};
use crate::support::service::{Service, key};
use crate::support::tls::Authority;

const LIMIT: Duration = Duration::from_mins(1);

/// What the demo makes.
async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, customer integer not null, amount numeric(12,2) not null, status text not null,
            created_at timestamptz not null, note text);
        insert into orders select n, n, n, (array['new', 'paid', 'shipped'])[1 + n % 3],
            timestamptz '2024-01-01 00:00:00+00' + n * interval '31 seconds', null from generate_series(1, 1000) n;
        analyze",
    )
    .await;
    pg
}

/// The example file, with a database and keys.
fn example(pg: &Pg, free: &str) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/service.example.toml")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("listen") && !line.starts_with("admin_listen"));
    let text: Vec<&str> = lines.collect();
    let zeros = "0".repeat(64);
    (text.join("\n") + "\n").replace("env:DATABASE_URL", &pg.url).replacen(
        &zeros,
        &crate::support::service::digest(free),
        1,
    )
}

/// The commands of the documentation's `sh` blocks.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/service.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks
        .flat_map(|block| {
            block
                .split("\ncurl")
                .enumerate()
                .map(|(at, text)| if at > 0 { format!("curl{text}") } else { text.to_owned() })
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
async fn the_lines_of_the_documentation_run() {
    let pg = orders().await;
    let service = Service::start(&example(&pg, "documented")).await;
    let (mut id, mut bucket_key, mut job) = (String::new(), String::new(), String::new());
    let commands = commands();
    assert_eq!(commands.len(), 14);
    for command in commands {
        let folder = tempfile::tempdir().unwrap();
        if command.contains("/download") {
            eventually(LIMIT, "the job of the documentation", async || {
                let status = service.get("documented", &format!("/v1/exports/{job}")).await.json()["status"].clone();
                (status == "complete").then_some(())
            })
            .await;
        }
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(folder.path())
            .env("URL", format!("http://{}", service.address))
            .env("KEY", "documented")
            .env("ID", &id)
            .env("BUCKET_KEY", &bucket_key)
            .env("JOB", &job)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let (said, wrong) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{command}: {wrong}");
        let file = std::fs::read_to_string(folder.path().join("orders.csv")).unwrap_or_default();
        if let Ok(compressed) = std::fs::read(folder.path().join("orders.csv.gz")) {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
            assert!(text.starts_with("Order number,Amount\r\n") && text.lines().count() == 101, "{command}: {text}");
            // Once more, though it is whole: curl appends whatever body a 416 has.
            let resume = command.replacen(" -f ", " -C - ", 1);
            let place = folder.path();
            let mut shell = Command::new("sh");
            shell.args(["-c", &resume]).current_dir(place).env("URL", format!("http://{}", service.address));
            shell.env("KEY", "documented").env("JOB", &job).output().await.unwrap();
            assert_eq!(std::fs::read(place.join("orders.csv.gz")).unwrap(), compressed, "{resume}");
            continue;
        }
        if let Some(line) = said.lines().find_map(|line| line.strip_prefix("location: /v1/exports/")) {
            line.trim().clone_into(&mut job);
            assert!(said.starts_with("HTTP/1.1 202"), "{said}");
        }
        assert!(
            !said.contains("\"code\"") && !file.contains("\"code\"") && said.len() + file.len() > 20,
            "{command}: {said}{file}"
        );
        if let Some(line) = said.lines().find_map(|line| line.strip_prefix("x-outhaul-export-id: ")) {
            id = line.trim().to_owned();
            assert!(
                said.trim_end().lines().last().unwrap().starts_with("{\"$end\":{\"status\":\"complete\""),
                "{said}"
            );
        }
        if let Ok(Value::Object(answer)) = serde_json::from_str(&said)
            && let Some(found) = answer.get("buckets")
        {
            bucket_key = found[0]["bucket_key"].as_str().unwrap().to_owned();
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn the_page_of_the_documentation_downloads_a_file() {
    let pg = orders().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!("cors_origins = [\"http://127.0.0.1:{port}\"]\n{}", example(&pg, "documented"));
    let service = Service::start(&text).await;
    let documentation = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/service.md")).unwrap();
    let page = documentation.split("```html\n").nth(1).unwrap().split("\n```").next().unwrap();
    let html = page.replace("127.0.0.1:8080", &service.address);
    assert_ne!(html, page);
    let folder = tempfile::tempdir().unwrap();
    let asked = serde_json::json!({"html": html, "port": port, "folder": folder.path(), "key": "documented"});
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/page_of_docs.mjs");
    let node = crate::support::run::program("node", [driver]).env("CLIENT_TEST", asked.to_string()).limit(LIMIT);
    let csv = node.run().await.expect(0).report["text"].as_str().unwrap().to_owned();
    assert!(csv.starts_with("Order number,Amount\r\n") && csv.lines().count() == 101, "{}", csv.lines().count());
    service.stop().await;
}

#[tokio::test]
async fn the_demo_says_where_it_serves_and_ends_with_a_signal() {
    let demo = outhaul(["demo", "--serve", "--rows", "20000", "--report", "json"]).limit(LIMIT).spawn();
    let line = eventually(LIMIT, "the line", async || {
        let text = demo.stdout();
        text.ends_with('\n').then_some(text)
    })
    .await;
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&said["datasets"][0], &said["api_key"]), (&"orders".into(), &said["api_keys"]["free"]), "{said}");
    let [url, free, enterprise] =
        [&said["url"], &said["api_keys"]["free"], &said["api_keys"]["enterprise"]].map(|it| it.as_str().unwrap());
    for (key, status) in [(free, "200"), (enterprise, "200"), ("demo_0", "401")] {
        let bearer = format!("Authorization: Bearer {key}");
        let query = format!("{url}/v1/query/orders/export");
        let arguments = [
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &bearer,
            "-d",
            r#"{"columns":["id","gross"]}"#,
            &query,
        ];
        let output = Command::new("curl").args(arguments).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), status, "{key}");
    }
    demo.signal("INT").await;
    let run = demo.wait().await.expect(0);
    assert!(!run.stderr.contains(free), "the key is told once, and on standard output");
}

/// Whoever closes the terminal has no server and no data left of it; whoever used nohup wants both.
#[tokio::test]
async fn the_demo_goes_with_its_terminal() {
    for ignored in [false, true] {
        let script = if ignored { "trap '' HUP; exec \"$0\" \"$@\"" } else { "exec \"$0\" \"$@\"" };
        let words =
            ["-c", script, env!("CARGO_BIN_EXE_outhaul"), "demo", "--serve", "--rows", "1000", "--report", "json"];
        let demo = program("sh", words).limit(LIMIT).spawn();
        eventually(LIMIT, "the line of the demo", async || demo.stdout().contains('\n').then_some(())).await;
        let said = demo.stderr();
        let server = Path::new(said.split(", data in ").nth(1).unwrap().lines().next().unwrap());
        let pid = std::fs::read_to_string(server.join("data/postmaster.pid")).unwrap();
        let process = Path::new("/proc").join(pid.lines().next().unwrap());
        assert!(process.exists());
        demo.signal("HUP").await;
        demo.signal("HUP").await;
        if ignored {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(process.exists() && server.exists(), "nohup is not heeded");
            demo.signal("INT").await;
        }
        demo.wait().await.expect(0);
        eventually(LIMIT, "the end of the server", async || (!process.exists()).then_some(())).await;
        assert!(!server.exists());
    }
}

#[tokio::test]
async fn the_lines_that_the_demo_prints_work() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("demo");
    let demo = outhaul(["demo", "--serve", "--dir", place.to_str().unwrap()]).limit(LIMIT).spawn();
    let text = eventually(LIMIT, "the lines", async || {
        let text = demo.stdout();
        text.contains("-o orders.csv").then_some(text)
    })
    .await;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("curl")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in lines {
        let line = line.replacen("curl", "curl --fail", 1);
        let done = Command::new("/bin/bash").args(["-c", &line]).current_dir(folder.path()).output().await.unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let csv = std::fs::read_to_string(folder.path().join("orders.csv")).unwrap();
    assert_eq!(csv.lines().count(), 10_001);
    demo.signal("INT").await;
    demo.wait().await.expect(0);
    let left: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "the private server goes with the demo: {left:?}");
}

#[tokio::test]
async fn certificates_and_keys_are_read_again() {
    let pg = orders().await;
    let authority = Authority::new("ec");
    let [first, second] = ["first", "second"].map(|name| authority.issue(name, "IP:127.0.0.1", 10));
    let files = tempfile::tempdir().unwrap();
    let place = |certificate: &crate::support::tls::Certificate| {
        std::fs::copy(&certificate.certificate, files.path().join("crt")).unwrap();
        std::fs::copy(&certificate.key, files.path().join("key")).unwrap();
    };
    place(&first);
    let folder = files.path().display();
    let text = format!("tls_cert = \"{folder}/crt\"\ntls_key = \"{folder}/key\"\n{}", example(&pg, "old-key"));
    let service = Service::start(&text).await;
    let ca = authority.certificate();
    let ask = async |key: &str| {
        let (bearer, url) =
            (format!("Authorization: Bearer {key}"), format!("https://{}/v1/datasets", service.address));
        let arguments = [
            "-sS",
            "-v",
            "--cacert",
            ca.to_str().unwrap(),
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &bearer,
            &url,
        ];
        let output = Command::new("curl").args(arguments).output().await.unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).contains("CN=second")
            || String::from_utf8_lossy(&output.stderr).contains("CN = second");
        (String::from_utf8(output.stdout).unwrap(), shown)
    };
    assert_eq!(ask("old-key").await, ("200".to_owned(), false));
    assert_eq!(ask("new-key").await.0, "401");
    place(&second);
    let file = service.folder.path().join("service.toml");
    let changed = std::fs::read_to_string(&file)
        .unwrap()
        .replace(&crate::support::service::digest("old-key"), &crate::support::service::digest("new-key"));
    // A file that is wrong changes nothing.
    std::fs::write(&file, "lisen = 1").unwrap();
    service.process.signal("HUP").await;
    service.process.stderr_has("everything stays as it was").await;
    assert_eq!(ask("old-key").await, ("200".to_owned(), false));
    std::fs::write(&file, changed).unwrap();
    service.process.signal("HUP").await;
    service.process.stderr_has("keys and certificates were read again").await;
    assert_eq!(ask("new-key").await, ("200".to_owned(), true));
    assert_eq!(ask("old-key").await.0, "401");
    service.stop().await;
}

/// Tiers wait for the next start: a key that is given a new one is as it was, and one that is taken away is gone.
#[tokio::test]
async fn a_key_of_a_tier_that_is_new_in_the_file_waits_for_the_next_start() {
    let pg = orders().await;
    let all = "[dataset.all]\nsource = \"shop\"\ntable = \"public.orders\"\n[dataset.all.columns]\nid = {}\n";
    let text = example(&pg, "a") + all + &key("third", "1", "free");
    let service = Service::start(&(text.clone() + &key("second", "1", "free") + &key("first", "1", "free"))).await;
    let own = key("own", "1", "free").replace("tenant = \"1\"\n", "");
    let gold = "[tier.gold]\nmax_rows = 5\n".to_owned() + &key("first", "1", "gold") + &key("new", "1", "gold");
    service.rewrite(&(text + &own + &gold));
    service.process.signal("HUP").await;
    service.process.stderr_has("key \"new\": its tier is new in the file").await;
    service.process.stderr_has("keys and certificates were read again").await;
    for (name, status) in [("first", 200), ("second", 401), ("third", 200), ("new", 401), ("own", 200)] {
        assert_eq!(service.get(name, "/v1/datasets").await.status, status, "{name}");
    }
    // What a key without a tenant does is asked for by its name.
    assert_eq!(service.export("own", "all", r#"{"columns":["id"]}"#).await.status, 200);
    let audit =
        async |asked: &str| crate::service_access::reqwest_free_get(&service.admin, &format!("/audit?{asked}")).await;
    let noted = async || audit("key=own").await.contains("\"credential\":\"own\"").then_some(());
    eventually(LIMIT, "the record of it", noted).await;
    for (asked, status) in [("user=own", 200), ("key=first", 200), ("", 400), ("key=own&tenant=1", 400)] {
        let answer = audit(asked).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && !answer.contains("own\""), "{asked}: {answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn pages_of_listed_origins_may_ask_and_no_others() {
    let pg = orders().await;
    let text = format!("cors_origins = [\"https://app.example.com\"]\n{}{}", example(&pg, "a"), key("b", "1", "free"));
    let service = Service::start(&text).await;
    let allowed = "access-control-allow-origin";
    for (origin, expected) in [
        ("https://app.example.com", Some("https://app.example.com")),
        ("https://app.example.com.evil.com", None),
        ("http://app.example.com", None),
        ("null", None),
    ] {
        let head = format!("Origin: {origin}\r\n");
        let answer = service.export_with("b", "orders", r#"{"columns":["id"]}"#, &head).await;
        assert_eq!((answer.status, answer.header(allowed)), (200, expected), "{origin}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
        assert_eq!(exposed.contains("x-outhaul-export-id") && exposed.contains("link"), expected.is_some());
        let head =
            format!("{head}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n");
        let request = crate::support::service::request("OPTIONS", "", "/v1/query/orders/export", "", &head);
        let answer = service.ask(&request).await;
        assert_eq!((answer.status == 204, answer.header(allowed)), (expected.is_some(), expected), "{origin}");
    }
    service.stop().await;
}

#[tokio::test]
async fn two_processes_do_not_share_a_state_file_and_a_receipt_outlives_its_process() {
    let pg = orders().await;
    let state = tempfile::tempdir().unwrap();
    let text =
        example(&pg, "keeper").replace("outhaul-state.sqlite3", &state.path().join("state").display().to_string());
    let first = Service::start(&text).await;
    let answer = first.export("keeper", "orders", r#"{"columns":["id"]}"#).await;
    assert_eq!(answer.status, 200);
    let (_folder, command) = crate::support::service::written(&text, &[]);
    let second = command.run().await.expect(2);
    assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    let receipt = first.receipt("keeper", &answer).await;
    first.stop().await;
    let again = Service::start(&text).await;
    assert_eq!(again.receipt("keeper", &answer).await, receipt);
    again.stop().await;
}

#[tokio::test]
async fn pull_takes_from_a_real_service_what_curl_does() {
    let pg = orders().await;
    let service = Service::start(&example(&pg, "puller")).await;
    for path in ["/client.js", "/client.d.ts", "/use-export-rows.js", "/openapi.json"] {
        let answer = service.get("", path).await;
        assert!(answer.status == 200 && answer.body.len() > 500, "{path}");
    }
    for (format, lines) in [("ndjson", 100), ("csv", 101)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows");
        let url = format!("http://{}", service.address);
        let line = [
            "pull",
            &url,
            "--dataset",
            "orders",
            "--columns",
            "id,gross",
            "--format",
            format,
            "-o",
            file.to_str().unwrap(),
        ];
        outhaul(line).env("OUTHAUL_API_KEY", "puller").run().await.expect(0);
        assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), lines, "{format}");
    }
    service.stop().await;
}
