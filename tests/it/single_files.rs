//! `--single-file`: its name may be that of somebody else's file, it may need encoding, and its disk may have no hard links.

use crate::support::disk::Disk;
use crate::support::job::{command, copy, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::Place;
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::watch::files;

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 400) i;
    alter table t add primary key (id); analyze t";

const ARGS: [&str; 7] = ["--table", "t", "--format", "csv", "--csv-header", "off", "--single-file"];

/// What another tool wrote.
const FOREIGN: &[u8] = b"somebody's\n";

async fn table(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(TABLE).await;
    pg
}

fn file(place: &Place) -> String {
    format!("{}/orders.csv", place.url())
}

/// A destination with a file that no manifest describes.
async fn occupied(place: Place) -> Place {
    match &place {
        Place::Local(_) => {
            std::fs::create_dir_all(place.folder()).unwrap();
            std::fs::write(place.folder().join("orders.csv"), FOREIGN).unwrap();
        }
        Place::S3(s3) => s3.put("dest/orders.csv", FOREIGN).await,
    }
    place
}

fn replacement(pg: &Pg, place: &Place) -> Outhaul {
    place.known_to(command(pg, &file(place), &[&ARGS[..], &["--on-existing", "replace"]].concat()))
}

/// A replacement that is killed once it stands at `at`.
async fn killed(pg: &Pg, place: &Place, at: &'static str) {
    let stop = Stop::at(at);
    let running = replacement(pg, place).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
}

async fn is_replaced(pg: &Pg, place: &Place) {
    let there: Vec<String> = place.list().await.into_keys().collect();
    assert_eq!(there, ["orders.csv", "orders.csv.manifest.json"]);
    assert!(sorted(&place.get("orders.csv").await) == sorted(&copy(pg, "select * from t").await));
    place.outhaul(["verify", &file(place), "--read-data"]).run().await.expect(0);
}

#[tokio::test]
async fn a_foreign_file_outlives_a_replacement_that_dies_before_it_replaces() {
    for (version, place) in both().into_iter().zip(Place::both()) {
        let (pg, place) = (table(version).await, occupied(place).await);
        killed(&pg, &place, "noted").await;
        let file = file(&place);
        let clean = ["clean", &file, "--single-file", "--report", "json"];
        let planned = place.outhaul([&clean[..], &["--dry-run"]].concat()).run().await.expect(0);
        let traces = planned.report["report"]["runs"][0]["traces"].as_array().unwrap();
        assert!(!traces.is_empty() && !traces.contains(&planned.report["report"]["destination"]), "{traces:?}");
        let cleaned = place.outhaul(clean).run().await.expect(0);
        assert_eq!(cleaned.report["report"]["runs"][0]["removed"], 0, "{}", cleaned.report);
        assert_eq!(place.get("orders.csv").await, FOREIGN);
        assert_eq!(place.list().await.len(), 1, "{:?}", place.list().await);

        killed(&pg, &place, "noted").await;
        replacement(&pg, &place).run().await.expect(0);
        is_replaced(&pg, &place).await;
    }
}

/// Equal bytes of one second are one object to a store without versions.
async fn until_later() {
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
}

#[tokio::test]
async fn a_replacement_that_dies_before_its_manifest_is_resumed_and_cleaned() {
    let pg = table(18).await;
    for place in Place::both() {
        let place = occupied(place).await;
        for at in ["noted", "published"] {
            until_later().await;
            killed(&pg, &place, at).await;
            place.outhaul(["resume", &file(&place), "--from", &pg.url]).run().await.expect(0);
            is_replaced(&pg, &place).await;
            place.delete("orders.csv.manifest.json").await;
        }
        until_later().await;
        killed(&pg, &place, "published").await;
        place.outhaul(["clean", &file(&place), "--single-file"]).run().await.expect(0);
        place.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_name_that_urls_encode_is_found_by_the_url_that_is_reported() {
    let pg = table(18).await;
    let folder = tempfile::tempdir().unwrap();
    let below = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (to, name) in [
        (below("a b.csv"), "a b.csv"),
        (below("100%.csv"), "100%.csv"),
        (below("my%20file.csv"), "my%20file.csv"),
        (format!("file://{}", below("my%20file.csv")), "my file.csv"),
    ] {
        let run = command(&pg, &to, &ARGS).run().await.expect(0);
        assert!(folder.path().join(name).exists(), "{to}: {:?}", files(folder.path()));
        let url = run.report["destination"].as_str().unwrap();
        for args in [vec!["verify", url, "--read-data"], vec!["show", url], vec!["clean", url, "--single-file"]] {
            outhaul(args).run().await.expect(0);
        }
        std::fs::remove_file(folder.path().join(name)).unwrap();
        std::fs::remove_file(folder.path().join(format!("{name}.manifest.json"))).unwrap();
    }
    command(&pg, &format!("file://{}", below("a%2Fb.csv")), &ARGS).run().await.expect(2);
    assert_eq!(files(folder.path()).len(), 0);
}

/// A page of the disk is room for one manifest, and not for two.
#[tokio::test]
async fn a_disk_without_hard_links_needs_room_for_one_manifest() {
    let pg = table(18).await;
    for off in ["hard-links", "hard-links,rename-new"] {
        let disk = Disk::new(4).await;
        let to = disk.folder().join("orders.csv");
        let stop = Stop::at("signing");
        let fixed = ["export", "--from", &pg.url, "--to", to.to_str().unwrap(), "--report", "json"];
        let export = disk.outhaul(&[&fixed[..], &ARGS].concat()).env("OUTHAUL_TEST_OFF", off).stops([&stop]);
        let running = export.spawn();
        running.stands_at(&stop).await;
        disk.fill();
        let filler = std::fs::File::options().write(true).open(disk.seen().join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - 4096).unwrap();
        stop.release();
        running.wait().await.expect(0);
        std::fs::remove_file(disk.seen().join("filler")).unwrap();
        let left: Vec<String> = files(&disk.seen()).into_keys().collect();
        assert_eq!(left, ["orders.csv", "orders.csv.manifest.json"], "{off}");
        disk.outhaul(&["verify", to.to_str().unwrap(), "--read-data"]).run().await.expect(0);
    }
}
