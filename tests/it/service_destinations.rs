//! `outhaul serve`: where the files of background exports go, how they leave, and who is told.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::pg::{Pg, pg};
use crate::support::run::Stop;
use crate::support::s3::s3;
use crate::support::service::{Answer, Service, key, request, written};
use crate::support::{eventually, within};

const LIMIT: Duration = Duration::from_mins(1);

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, tenant text not null, note text not null);
        insert into orders select n, case when n % 10 = 0 then 'globex' else 'acme' end, 'of ' || n
            from generate_series(1, 1000) n;
        analyze",
    )
    .await;
    pg
}

/// Two datasets, with more lines at the front, and a destination for each where there is one.
fn config(pg: &Pg, front: &str, destinations: &[(&str, &str)]) -> String {
    let mut text = format!("{front}\n{}[source.shop]\nfrom = \"{}\"\n", key("acme-key", "acme", "free"), pg.url);
    for (name, to) in destinations {
        writeln!(text, "[destination.{name}]\nto = \"{to}\"").unwrap();
    }
    for name in ["first", "second"] {
        let named = destinations.iter().find(|(destination, _)| *destination == name);
        let destination = named.map_or_else(String::new, |(name, _)| format!("destination = \"{name}\"\n"));
        write!(
            text,
            "[dataset.{name}]\ntable = \"orders\"\ntenant = \"tenant = {{tenant}}\"\ncsv_bom = true\ncsv_header = \"labels\"\n\
             {destination}[dataset.{name}.columns]\nid = {{ label = \"Order number\", sort = true }}\nnote = {{}}\n"
        )
        .unwrap();
    }
    text
}

async fn submitted(service: &Service, dataset: &str) -> String {
    let body = json!({"dataset": dataset, "mode": "background", "format": "csv", "columns": ["id", "note"]});
    let answer = service.post("acme-key", "/v1/exports", &body.to_string(), "").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn job(service: &Service, id: &str) -> Value {
    service.get("acme-key", &format!("/v1/exports/{id}")).await.json()
}

async fn ended(service: &Service, id: &str) -> Value {
    eventually(LIMIT, "the export's end", async || {
        let job = job(service, id).await;
        job["completed_at"].is_string().then_some(job)
    })
    .await
}

async fn ready(service: &Service, id: &str) -> Value {
    let done = ended(service, id).await;
    assert_eq!(done["status"], "complete", "{done}");
    done
}

async fn follow(service: &Service, link: &str) -> Answer {
    service.ask(&format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).map_or_else(|_| Vec::new(), |entries| entries.map(Result::unwrap).collect());
    let below = |entry: &std::fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            vec![entry.path().display().to_string()]
        }
    };
    entries.iter().flat_map(below).collect()
}

#[tokio::test]
async fn an_export_goes_to_its_destination_and_leaves_nothing_there_once_it_is_removed() {
    let (pg, s3, local) = (orders().await, s3(), TempDir::new().unwrap());
    let folder = local.path().join("aus gänge #1");
    let lake = s3.url("von hier/\u{6570}\u{636e} \u{e9}");
    let text = config(&pg, "", &[("first", &format!("{lake}/")), ("second", folder.to_str().unwrap())]);
    let soon = "job_sweep=0.2,job_poll=0.1";
    let service = Service::with(&text, |command| command.envs(s3.env()).env("OUTHAUL_TEST_LIMITS", soon)).await;
    let ids = [submitted(&service, "first").await, submitted(&service, "second").await];
    let inside = [format!("von hier/\u{6570}\u{636e} \u{e9}/{}", ids[0]), ids[1].clone()];
    // What is beside an export's folder, and has its name in front of another, stays.
    s3.put(&format!("{}x/kept", inside[0]), b"kept").await;
    for (id, (number, url)) in ids.iter().zip([lake.clone(), "file://".to_owned()].iter().enumerate()) {
        let done = ready(&service, id).await;
        let file = follow(&service, done["download_url"].as_str().unwrap()).await;
        assert_eq!(file.status, 200, "{url}");
        assert!(file.text().starts_with("\u{feff}Order number,note\r\n1,of 1\r\n"), "{}", &file.text()[..40]);
        assert_eq!(file.text().lines().count(), 901, "{number}");
        let part = service.get("acme-key", &format!("/v1/exports/{id}/manifest")).await.json()["parts"][0].clone();
        let answer = follow(&service, part["url"].as_str().unwrap()).await;
        // The store gives what it has itself; a folder gives nothing.
        assert_eq!(answer.status, [307, 200][number]);
    }
    assert!(s3.list(&inside[0]).await.contains_key("_manifest.json"), "{:?}", s3.list(&inside[0]).await);
    assert!(!files(&folder.join(&inside[1])).is_empty());
    assert!(!service.folder.path().join("outhaul-state.sqlite3.exports").exists(), "nothing goes there");
    for id in &ids {
        let removed = service.ask(&request("DELETE", "acme-key", &format!("/v1/exports/{id}"), "", "")).await;
        assert_eq!((removed.status, removed.json()["status"].as_str()), (200, Some("expired")), "{removed:?}");
    }
    eventually(LIMIT, "the files to go", async || {
        let none = s3.list(&inside[0]).await.is_empty() && files(&folder).is_empty();
        none.then_some(())
    })
    .await;
    assert_eq!(s3.list(&format!("{}x", inside[0])).await.len(), 1);
    assert_eq!(s3.open_uploads().await, [""; 0]);
    service.stop().await;
}

#[tokio::test]
async fn two_processes_expire_an_export_once_and_a_killed_one_leaves_the_rest_to_the_other() {
    let (pg, local) = (orders().await, TempDir::new().unwrap());
    let folder = local.path().join("exports");
    let hook = "[[webhook]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:9/\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    let front = format!("state_url = \"{}\"\nlink_ttl = \"4s\"\n", pg.url);
    let text = config(&pg, &front, &[("first", folder.to_str().unwrap())]) + hook;
    let soon = "job_sweep=0.1,job_poll=0.1";
    let listed = Stop::at("files-listed");
    let one = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", soon).stops([&listed])).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submitted(&one, "first").await);
    }
    let mut links = Vec::new();
    for id in &ids {
        // It may have expired by now.
        links.push(ended(&one, id).await["download_url"].as_str().map(str::to_owned));
    }
    // One has begun to remove files, and dies; the other goes on.
    one.process.stands_at(&listed).await;
    let other = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", soon)).await;
    one.process.signal("KILL").await;
    one.process.wait().await;
    let third = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", soon)).await;
    eventually(LIMIT, "the files to go", async || files(&folder).is_empty().then_some(())).await;
    for (id, link) in ids.iter().zip(&links) {
        let job = job(&other, id).await;
        assert_eq!((job["status"].as_str(), &job["download_url"]), (Some("expired"), &Value::Null), "{job}");
        if let Some(link) = link {
            follow(&third, link).await.problem(410, "expired");
        }
    }
    // Each was told of once and noted once, though three had looked.
    let count = async |what: &str| pg.value(what).await;
    assert_eq!(count("select count(*) from outhaul.audit where action = 'expire'").await, "4");
    assert_eq!(count("select count(*) from outhaul.outbox where event = 'export.expired'").await, "4");
    other.stop().await;
    third.stop().await;
}

#[tokio::test]
async fn the_check_before_a_deploy_tries_each_destination_and_leaves_nothing_there() {
    let (pg, s3, local) = (orders().await, s3(), TempDir::new().unwrap());
    let folder = local.path().join("new/exports");
    let (lake, here) = (s3.url("lake"), folder.to_str().unwrap().to_owned());
    let text = config(&pg, "", &[("first", &lake), ("second", &here)]);
    let checked = async |text: &str, environment: [(&'static str, String); 5], code: i32| {
        let (_folder, command) = written(text, &["--check"]);
        command.envs(environment).run().await.expect(code).stderr
    };
    let said = checked(&text, s3.env(), 0).await;
    assert!(said.contains("is right"), "{said}");
    assert!(s3.list("lake").await.is_empty() && !folder.exists());
    let said = checked(&text, s3.read_only_env(), 2).await;
    assert!(said.contains("destination.first: ") && !said.contains("destination.second"), "{said}");
    std::fs::write(local.path().join("new"), "a file").unwrap();
    let said = checked(&text, s3.env(), 2).await;
    assert!(said.contains("destination.second: ") && !said.contains("destination.first"), "{said}");
}

/// Listens, and tells of each message: its id and its body. Until it is told to answer, it takes messages and is silent.
async fn receiver() -> (String, tokio::sync::watch::Sender<bool>, tokio::sync::mpsc::Receiver<[String; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (answers, answering) = tokio::sync::watch::channel(false);
    let (sender, told) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (sender, mut answering) = (sender.clone(), answering.clone());
            tokio::spawn(async move {
                let mut wire = Vec::new();
                while !wire.ends_with(b"}") && socket.read_buf(&mut wire).await.unwrap_or(0) > 0 {}
                let wire = String::from_utf8(wire).unwrap();
                let Some((head, body)) = wire.split_once("\r\n\r\n") else { return };
                let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap().to_owned();
                drop(sender.send([id, body.to_owned()]).await);
                if answering.wait_for(|answers| *answers).await.is_ok() {
                    drop(socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await);
                }
            });
        }
    });
    (address, answers, told)
}

#[tokio::test]
async fn a_message_outlives_the_process_that_was_sending_it() {
    let pg = orders().await;
    let (address, answers, mut told) = receiver().await;
    let hook = format!(
        "[[webhook]]\nname = \"backend\"\nurl = \"http://{address}/\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    );
    let text = config(&pg, "", &[]) + &hook;
    let soon = "job_poll=0.1,webhook_hold=1,webhook_retry=0.1";
    let service = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", soon)).await;
    let id = submitted(&service, "first").await;
    let first = within(LIMIT, "the first message", told.recv()).await.unwrap();
    assert_eq!(first[0], format!("msg_{id}_ready_backend"));
    // The receiver has it, and the service does not know.
    let service = service.killed_and_started(|command| command.env("OUTHAUL_TEST_LIMITS", soon)).await;
    answers.send_replace(true);
    let again = within(LIMIT, "the same message", told.recv()).await.unwrap();
    assert_eq!(again, first);
    let body: Value = serde_json::from_str(&again[1]).unwrap();
    assert_eq!((&body["rows"], &body["type"]), (&json!(900), &json!("export.ready")), "{body}");
    assert_eq!(follow(&service, body["download_url"].as_str().unwrap()).await.status, 200);
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    eventually(LIMIT, "the message to be done", async || {
        let left: u32 = file.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        (left == 0).then_some(())
    })
    .await;
    service.stop().await;
}
