//! What stands among the parts and is nobody's: an export beside it would give its readers rows that are not its own.

use std::collections::BTreeMap;

use crate::support::job::rows;
use crate::support::pg::pg;
use crate::support::place::{Place, export};
use crate::support::run::Stop;

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 100) i";

async fn put(place: &Place, path: &str, text: &str) {
    match place {
        Place::Local(_) => {
            let file = place.folder().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Place::S3(s3) => s3.put(&format!("dest/{path}"), text.as_bytes()).await,
    }
}

async fn data(place: &Place) -> BTreeMap<String, u64> {
    place.list().await.into_iter().filter(|(path, _)| path.starts_with("data/")).collect()
}

#[tokio::test]
async fn i2_nothing_is_exported_beside_parts_that_no_manifest_names() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        export(&pg, &place, &[]).run().await.expect(0);
        // Emptied, it is no manifest any more; nobody knows its parts.
        for gone in [false, true] {
            if gone {
                place.delete("_manifest.json").await;
            } else {
                put(&place, "_manifest.json", "").await;
            }
            let (before, url) = (data(&place).await, place.url());
            let part = before.keys().next().unwrap();
            for args in [&[][..], &["--on-existing", "replace"], &["--on-existing", "skip"]] {
                let run = export(&pg, &place, args).run().await.expect(22);
                let wanted =
                    if gone { [part.as_str(), "no manifest names"] } else { ["_manifest.json", "it is damaged"] };
                for text in wanted {
                    assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
                }
                assert_eq!(data(&place).await, before);
            }
            let plan = place.outhaul(["plan", "--from", &pg.url, "--table", "t", "--to", &url]).run().await.expect(0);
            let told = String::from_utf8_lossy(&plan.stdout).into_owned();
            assert!(told.contains("taken") && told.contains("exit 22"), "{told}");
        }
        for path in data(&place).await.into_keys() {
            place.delete(&path).await;
        }
        export(&pg, &place, &[]).run().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

#[tokio::test]
async fn only_what_readers_take_for_a_part_is_in_the_way() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let replace = ["--on-existing", "replace"];
    for place in Place::both() {
        for path in ["notes.txt", "part-00000-000-deadbeef.csv", "data/.keep", "data/_temporary/part.csv"] {
            put(&place, path, "theirs").await;
        }
        export(&pg, &place, &[]).run().await.expect(0);
        export(&pg, &place, &replace).run().await.expect(0);
        assert_eq!(data(&place).await.len(), 3, "what it replaces is named");
        put(&place, "data/more.csv", "theirs").await;
        let run = export(&pg, &place, &replace).run().await.expect(22);
        assert!(run.stderr.contains("data/more.csv"), "{}", run.stderr);
        place.delete("data/more.csv").await;
        let flat = ["--layout", "flat", "--on-existing", "replace"];
        let run = export(&pg, &place, &flat).run().await.expect(22);
        assert!(run.stderr.contains("part-00000-000-deadbeef.csv"), "{}", run.stderr);
        place.delete("part-00000-000-deadbeef.csv").await;
        export(&pg, &place, &flat).run().await.expect(0);
        assert!(place.list().await.contains_key("notes.txt"), "nothing of others is ever removed");
    }
}

#[tokio::test]
async fn what_comes_while_the_run_goes_on_is_told() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let stop = Stop::at("uploaded");
        let running = export(&pg, &place, &["--visibility", "as-written"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        put(&place, "data/late.csv", "theirs").await;
        stop.release();
        let run = running.wait().await.expect(0);
        assert!(run.stderr.contains("1 object") && run.stderr.contains("data/late.csv"), "{}", run.stderr);
    }
}

/// Parts of the run itself are visible by then, which its journal names.
#[tokio::test]
async fn a_resumed_run_is_not_committed_beside_them_either() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let stop = Stop::at("uploaded");
        let args = ["--visibility", "as-written", "--keep-snapshot", "60s"];
        let running = export(&pg, &place, &args).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        put(&place, "data/late.csv", "theirs").await;
        let url = place.url();
        let resume = async || place.outhaul(["resume", &url, "--from", &pg.url, "--report", "json"]).run().await;
        let run = resume().await.expect(22);
        assert!(run.stderr.contains("1 object") && run.stderr.contains("data/late.csv"), "{}", run.stderr);
        place.delete("data/late.csv").await;
        resume().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}
