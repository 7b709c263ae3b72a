//! The console page in a real Chromium: what a person chooses, sees and is left with, however the stream ends.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::pg::{Pg, pg};
use crate::support::run::{outhaul, program};
use crate::support::service::{Service, digest, key, request};
use crate::support::{eventually, variable};

const ROWS: usize = 6_000;

const CAP: usize = 5_500;

async fn started() -> (Pg, Service) {
    started_at("public_url = \"https://x.test/below\"").await
}

async fn started_at(public: &str) -> (Pg, Service) {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, note text, status text, placed date);
         insert into orders select i, E'two\\nlines, \"ü\" ' || i, case i % 3 when 0 then 'paid' when 1 then 'new' end,
            date '2026-01-01' + (i % 10) from generate_series(1, {ROWS}) i;
         create function slept(id bigint) returns text language plpgsql immutable as
            'begin perform pg_sleep(case when id > 600 then 0.005 else 0 end); return null; end';
         analyze"
    ))
    .await;
    let (url, whole, capped, drill) = (&pg.url, key("whole", "7", "all"), key("capped", "7", "few"), digest("drill"));
    let other = key("other", "8", "all");
    let text = format!(
        "{public}
{whole}{capped}{other}
[[key]]
name = \"drill\"
sha256 = \"{drill}\"
tenant = \"7\"
tier = \"groups\"
datasets = [\"orders\"]
[source.shop]
from = \"{url}\"
[tier.all]
max_rows = \"unlimited\"
[tier.few]
max_rows = {CAP}
[tier.groups]
max_rows = \"unlimited\"
[dataset.orders]
table = \"public.orders\"
date_column = \"placed\"
grants = {{ query = [\"all\", \"few\"] }}
[dataset.orders.columns]
id = {{ label = \"Order number\", sort = true }}
note = {{}}
status = {{ label = \"Status\" }}
placed = {{ label = \"Ordered on\" }}
[dataset.orders.analysis.by_status]
dimensions = [\"status\"]
measures = [\"count\", \"sum(id)\"]
[dataset.broken]
query = \"select id, note, 100 / (5500 - id) as x from orders\"
key = \"id\"
[dataset.broken.columns]
id = {{}}
note = {{}}
x = {{}}
[dataset.slow]
query = \"select id, repeat('x', 2000) as wide, slept(id) as slept from orders\"
key = \"id\"
[dataset.slow.columns]
id = {{}}
wide = {{}}
slept = {{}}
"
    );
    let service = Service::start(&text).await;
    (pg, service)
}

/// What a person sees. With `OUTHAUL_TEST_SHOTS`, pictures of it are left in that folder.
async fn drive(what: &str, url: &str, more: &Value) -> Value {
    let shots = std::env::var("OUTHAUL_TEST_SHOTS").ok();
    let asked = json!({"url": url, "axe": variable("OUTHAUL_TEST_AXE"), "shots": shots, "more": more});
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/console.mjs");
    let node = program("node", [driver, what]).env("CONSOLE_TEST", asked.to_string()).env("TZ", "UTC");
    node.limit(Duration::from_mins(3)).run().await.expect(0).report
}

fn address(service: &Service) -> String {
    format!("http://{}", service.address)
}

/// As people read numbers.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn text<'a>(seen: &'a Value, place: &str, field: &str) -> &'a str {
    seen[place][field].as_str().unwrap_or_else(|| panic!("{place}.{field}: {seen}"))
}

#[tokio::test]
async fn a_person_saves_rows_and_is_told_the_truth_however_the_stream_ends() {
    let (pg, service) = started().await;
    let seen = drive("streams", &address(&service), &Value::Null).await;
    assert_eq!(seen["wrong"], json!([]));
    assert_eq!(seen["wrong_key"], "The service does not take this key.");
    let kept = json!({"local": 0, "session": 0, "cookies": "", "document": false, "field": ""});
    assert_eq!(seen["kept"], kept, "the key is kept somewhere");
    assert_eq!(seen["datasets"], json!(["broken", "orders", "slow"]));
    assert_eq!(seen["labels"], json!(["Order number", "note", "Ordered on", "Status"]));
    assert_eq!((&seen["estimate"], &seen["filtered"]), (&json!("6,000 rows."), &json!("3 rows.")));
    assert_eq!(seen["dated"], json!(["by Ordered on, both days included", "1,200 rows."]));
    assert_eq!(seen["unfinished"], json!(["true", "Give the filter on Order number its value, or remove it."]));

    // The picker is asked within the click, before anything is fetched.
    let picked = &seen["saved"]["picked"];
    assert_eq!((&picked["inClick"], &picked["requests"]), (&json!(true), &json!(0)), "{picked}");
    assert!(picked["options"]["suggestedName"].as_str().unwrap().starts_with("orders-20"), "{picked}");
    let file = "id,note\r\n1,\"two\nlines, \"\"ü\"\" 1\"\r\n2,\"two\nlines, \"\"ü\"\" 2\"\r\n3,\"two\nlines, \"\"ü\"\" 3\"\r\n";
    assert_eq!(text(&seen, "saved", "file"), file);
    assert!(text(&seen, "saved", "result").starts_with("Saved 3 rows, "), "{}", seen["saved"]);

    let nothing =
        json!({"result": "", "problem": "No data matches your filters. Nothing is saved.", "file": "NotFoundError"});
    assert_eq!(seen["nothing"], nothing);
    assert_eq!(seen["dismissed"], json!(["", "", 0]));
    assert!(text(&seen, "renewed", "result").starts_with("Saved 6,000 rows, "), "{}", seen["renewed"]);
    assert!(text(&seen, "given_up", "problem").ends_with("Nothing is saved."), "{}", seen["given_up"]);
    assert_eq!(seen["given_up"]["file"], "NotFoundError");

    let said = |place: &str| {
        let problem = text(&seen, place, "problem");
        assert!(problem.starts_with("Export incomplete: "), "{place}: {problem}");
        let rows = problem.split("the first ").nth(1).unwrap_or_else(|| panic!("{place}: {problem}"));
        rows.split(' ').next().unwrap().replace(',', "").parse::<usize>().unwrap()
    };
    // Cut within a quoted line break: what is kept is the rows before.
    let cut = text(&seen, "cut", "file");
    assert_eq!((cut.matches("\"\r\n").count(), cut.ends_with("\"\r\n")), (said("cut"), true), "{}", cut.len());
    assert!(said("cut") > 10);
    let broken = text(&seen, "broken", "file");
    assert_eq!((broken.lines().count(), broken.ends_with("}\n")), (said("broken"), true));
    assert!(text(&seen, "broken", "problem").contains("rejected"), "{}", seen["broken"]["problem"]);

    assert_eq!(seen["disabled"], json!(["true", "One export at a time: this one has to end first."]));
    assert_eq!(seen["second"][0], 0, "a second export began");
    let figures = seen["figures"].as_str().unwrap();
    assert!(figures.contains(" rows · ") && figures.contains("B · 0:0"), "{figures}");
    assert_eq!(seen["cancelled new"]["file"], "NotFoundError");
    assert!(text(&seen, "cancelled new", "result").contains("what was in it is lost"), "{}", seen["cancelled new"]);
    assert_eq!(seen["cancelled old"]["file"], "what was there");
    assert!(text(&seen, "cancelled old", "result").ends_with("is as it was."), "{}", seen["cancelled old"]);

    assert!(seen["only_groups"].as_str().unwrap().starts_with("Choose a group first"), "{}", seen["only_groups"]);
    assert_eq!(seen["groups"][0], json!(["Status", "Rows", "Sum of Order number", "Rows behind it"]));
    let group = &seen["groups"][2];
    assert_eq!(seen["bucket"], json!([format!("Status = {}", group[0].as_str().unwrap()), "2,000 rows."]));
    let file = text(&seen, "bucket_saved", "file");
    assert!(text(&seen, "bucket_saved", "result").starts_with("Saved 2,000 rows"), "{}", seen["bucket_saved"]);
    assert_eq!(file.matches(&format!(",{}\r\n", group[0].as_str().unwrap())).count(), 2_000);

    assert_eq!(seen["stale"], json!([true, false]), "groups of other filters than those that stand there");
    let limit = "More than 5,500 rows. Your limit is 5,500 rows: the file will end after the first 5,500 rows.";
    assert_eq!(seen["cap"], limit);
    let capped = text(&seen, "capped", "result");
    assert!(capped.starts_with("Saved the first 5,500 rows") && capped.ends_with("and there are more."), "{capped}");

    let why = "Large export requires Chrome/Edge over HTTPS";
    assert_eq!(seen["elsewhere"], json!({"disabled": "true", "why": why, "problem": why, "asked": 0}));
    service.stop().await;
    drop(pg);
}

#[tokio::test]
async fn a_session_ends_with_its_groups_and_a_key_that_expired_is_asked_for_again() {
    let (pg, service) = started().await;
    let seen = drive("sessions", &address(&service), &Value::Null).await;
    assert_eq!(seen["wrong"], json!([]));
    assert_eq!(seen["other_dataset"], json!(["", 0]), "groups of another dataset");
    assert_eq!((&seen["other_columns"], &seen["other_days"]), (&json!(4), &json!(true)));
    assert_eq!(seen["left"], json!([["", 0], "0"]), "something of the session is left");
    assert_eq!(seen["other_tenant"], json!(["", 0, ""]), "groups of another tenant");
    let again = "The service does not take the key any more. Sign in again";
    assert_eq!(
        (&seen["asked_again"], &seen["groups"]),
        (&json!(format!("{again}, and the groups are counted.")), &json!(4))
    );
    assert!(seen["estimate"].as_str().unwrap().ends_with(&format!("{again}.")), "{}", seen["estimate"]);
    assert!(text(&seen, "proved", "result").starts_with("Saved 6,000 rows, "), "{}", seen["proved"]);
    assert_eq!(seen["proved"]["asked"], 1, "the rows were asked for twice");
    let altered = text(&seen, "altered", "problem");
    assert!(altered.contains("is not what the service sent") && !altered.contains("whole"), "{altered}");
    service.stop().await;
    drop(pg);
}

#[tokio::test]
async fn the_page_has_no_barriers_in_any_look_and_works_by_keys_alone() {
    let (pg, service) = started().await;
    let seen = drive("looks", &format!("{}/below", address(&service)), &Value::Null).await;
    for (place, violations) in seen["violations"].as_object().unwrap() {
        assert_eq!(violations, &json!([]), "{place}");
    }
    assert_eq!(seen["violations"].as_object().unwrap().len(), 9);
    for look in ["light", "dark", "phone"] {
        let saved = seen[format!("{look} saved")].as_str().unwrap();
        assert!(saved.starts_with("Saved 2,000 rows"), "{look}: {saved}");
    }
    assert_eq!(seen["focus"], "save");
    let reached: Vec<&str> = seen["reached"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for control in ["sign", "dataset", "all-columns", "id", "analysis", "show-groups", "bucket-list", "save"] {
        assert!(reached.contains(&control), "{control} is not reached: {reached:?}");
    }
    assert_eq!(seen["wrong"], json!([]));
    service.stop().await;
    drop(pg);
}

#[tokio::test]
async fn background_exports_are_shown_while_they_run_with_their_links_and_what_can_be_done() {
    let (pg, service) = started().await;
    let seen = drive("jobs", &address(&service), &Value::Null).await;
    // Where the service has none, the page says nothing of them.
    assert_eq!(seen["none"], json!([true, true, true]));
    let before = json!({"title": "orders, CSV, Nov 29, 2026, 9:00 AM", "state": "Ready, cut off by your limit · 5,500 rows · 900 bytes",
        "note": "The link works no more.", "bar": null, "links": [], "buttons": ["Delete"]});
    assert_eq!(seen["before"], before);

    let posted = seen["posted"].as_array().unwrap();
    assert_eq!((posted.len(), &posted[0]["format"], &posted[0]["mode"]), (2, &json!("parquet"), &json!("background")));
    assert!(posted[0]["key"].as_str().unwrap().len() == 32 && posted[0]["key"] != posted[1]["key"], "{posted:?}");
    assert_eq!(seen["order"], json!(["job-job2", "job-job1", "job-job0"]));
    assert_eq!((&seen["queued"]["state"], &seen["queued"]["buttons"]), (&json!("Waiting"), &json!(["Cancel"])));

    let running = &seen["running"];
    let state = "Running · 1,500 rows of about 6,000 rows · 2.5 MB · 1 minute left";
    assert_eq!((&running["state"], &running["bar"]), (&json!(state), &json!(25)));
    let ready = &seen["ready"];
    assert_eq!(
        (&ready["state"], &ready["note"]),
        (&json!("Ready · 6,000 rows · 10.0 MB · 2 files"), &json!("The link works for 23 hours more."))
    );
    // Files of Parquet are not joined into one.
    assert_eq!((&ready["links"], &ready["buttons"]), (&json!([]), &json!(["Files", "Delete"])));
    assert_eq!(
        seen["files"],
        json!([["File 1 · 4.0 MB", "File 2 · 6.0 MB"], "/v1/exports/job1/parts/0?sig=a"]),
        "files, and the focus on the first"
    );
    let joined = &seen["joined"];
    assert_eq!(
        (&joined["links"], &joined["buttons"]),
        (&json!(["/v1/exports/job3/download?sig=x"]), &json!(["Delete"]))
    );
    assert_eq!(seen["announced"], "orders, Parquet, Nov 29, 2026, 10:01 AM: Ready.");
    assert_eq!(
        (&seen["older"]["state"], &seen["older"]["note"]),
        (&json!("Failed"), &json!("the database cannot be reached"))
    );
    for (place, state) in [("cancelled", "Cancelled"), ("deleted", "Expired")] {
        assert_eq!((&seen[place]["state"], &seen[place]["links"]), (&json!(state), &json!([])), "{place}");
    }
    assert_eq!(seen["left"], json!([true, 0]), "somebody else's exports stay in sight");
    assert_eq!((&seen["more"], &seen["violations"], &seen["wrong"]), (&json!(true), &json!([]), &json!([])));
    service.stop().await;
    drop(pg);
}

/// The jobs of another tenant are not in its list, and each of its own says the truth.
#[tokio::test]
async fn a_person_exports_in_the_background_watches_cancels_downloads_and_deletes() {
    let (pg, service) = started_at("").await;
    let folder = tempfile::tempdir().unwrap();
    let seen = drive("background", &address(&service), &json!({"folder": folder.path()})).await;
    assert!(text_of(&seen["said"]).starts_with("The export is queued."), "{}", seen["said"]);
    let ready = &seen["ready"];
    assert!(text_of(&ready["state"]).starts_with("Ready · 6,000 rows · "), "{ready}");
    assert_eq!((&ready["note"], &ready["buttons"]), (&json!("The link works for 23 hours more."), &json!(["Delete"])));
    let file = text_of(&seen["file"]);
    assert!(file.starts_with("id,note,placed,status\r\n1,\"two\nlines"), "{}", &file[..80]);
    assert_eq!(file.matches("\r\n").count(), ROWS + 1);
    assert_eq!(seen["again"], 200, "a download uses its link up");

    let running = &seen["running"];
    assert!(text_of(&running["state"]).contains(" rows of about 6,000 rows · "), "{running}");
    assert_eq!(running["buttons"], json!(["Cancel"]));
    assert!(running["bar"].as_u64().is_some_and(|percent| percent < 100), "{running}");
    assert_eq!((&seen["cancelled"]["link"], &seen["cancelled"]["buttons"]), (&Value::Null, &json!([])));
    assert_eq!(seen["failed"]["note"], "the database rejected the query");
    assert_eq!((&seen["parquet"]["link"], &seen["magic"]), (&Value::Null, &json!([200, "PAR1"])));
    assert_eq!(seen["deleted"], json!([410, "expired", null, "Its files are removed."]));
    assert_eq!(seen["states"], json!(["Ready", "Failed", "Cancelled", "Expired"]));
    assert_eq!(seen["other"], json!(["There are none.", 0]));
    for name in ["light", "dark", "phone", "wrong"] {
        assert_eq!(seen[name], json!([]), "{name}");
    }
    service.stop().await;
    drop(pg);
}

/// As config/service.md says it, on what `outhaul demo --serve` starts.
#[tokio::test]
async fn the_walk_of_the_documentation_ends_in_a_file() {
    let demo = outhaul(["demo", "--serve", "--report", "json"]).limit(Duration::from_mins(2)).spawn();
    let line = eventually(Duration::from_mins(1), "the line of the demo", async || {
        let text = demo.stdout();
        text.ends_with('\n').then_some(text)
    })
    .await;
    let mut said: Value = serde_json::from_str(&line).unwrap();
    let folder = tempfile::tempdir().unwrap();
    said["folder"] = folder.path().to_str().unwrap().into();
    let seen = drive("walk", said["url"].as_str().unwrap(), &said).await;
    assert_eq!(seen["labels"][0], "Amount");
    let limit = "More than 10,000 rows. Your limit is 10,000 rows: the file will end after the first 10,000 rows.";
    assert_eq!(seen["estimate"], limit);
    assert!(text(&seen, "capped", "result").starts_with("Saved the first 10,000 rows"), "{}", seen["capped"]);
    assert_eq!(seen["capped"]["lines"], 10_001);
    assert!(text(&seen, "group", "result").starts_with("Saved "), "{}", seen["group"]);
    assert!(text(&seen, "cancelled", "result").starts_with("Cancelled; nothing is saved."), "{}", seen["cancelled"]);
    assert_eq!(seen["cancelled"]["file"], "NotFoundError");
    assert_eq!(seen["waited"]["link"], Value::Null);
    let rows = seen["downloaded"].as_u64().unwrap() - 1;
    let ready = format!("Ready · {} rows · ", grouped(rows));
    assert!(rows > 10_000 && text_of(&seen["ready"]["state"]).starts_with(&ready), "{rows}: {}", seen["ready"]);
    assert_eq!(seen["wrong"], json!([]));
    demo.signal("INT").await;
    demo.wait().await.expect(0);
    let exports =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path().extension().is_some_and(|it| it == "exports");
    assert!(!std::fs::read_dir(".").unwrap().any(exports), "the demo leaves its exports where it was started");
}

#[tokio::test]
async fn the_page_is_of_the_binary_and_lets_nothing_else_in() {
    let (pg, service) = started().await;
    let page = service.get("", "/").await;
    let policy = page.header("content-security-policy").unwrap();
    for rule in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let named = |page: &str| -> Vec<String> {
        let ends = |part: &&str| Path::new(part).extension().is_some_and(|ending| ending == "js" || ending == "css");
        page.split(['"', '\'']).filter(ends).map(|part| part.trim_start_matches("./").to_owned()).collect()
    };
    let mut files = vec![String::new()];
    let mut at = 0;
    while at < files.len() {
        let path = format!("/{}", files[at]);
        let file = service.get("", &path).await;
        assert_eq!((file.status, file.header("x-content-type-options")), (200, Some("nosniff")), "{path}");
        // Inline scripts and styles would be refused, and absolute addresses would leave a path prefix.
        for wrong in
            ["<script>", "onclick=", "style=", "src=\"/", "href=\"/", "http://", "https://", "innerHTML", "Storage"]
        {
            assert!(!file.text().contains(wrong), "{path} has {wrong}");
        }
        let tag = file.header("etag").unwrap();
        let again = service.ask(&request("GET", "", &path, "", &format!("If-None-Match: W/{tag}, \"x\"\r\n"))).await;
        assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(tag), 0), "{path}");
        let other = service.ask(&request("GET", "", &path, "", "If-None-Match: \"x\"\r\n")).await;
        assert_eq!(other.status, 200, "{path}");
        for name in named(file.text()) {
            if !files.contains(&name) {
                files.push(name);
            }
        }
        at += 1;
    }
    assert_eq!(files.len(), 9, "{files:?}");
    // What the page names stands below its path, so that the path ends with a slash.
    let bare = service.get("", "/below").await;
    assert_eq!((bare.status, bare.header("location")), (308, Some("/below/")));
    assert_eq!(service.get("", "/below/").await.body, page.body);
    service.stop().await;
    drop(pg);
}
