//! `--single-file`: its name may need encoding, and its disk may have no hard links.

use crate::support::disk::Disk;
use crate::support::job::command;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Stop, outhaul};
use crate::support::watch::files;

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 400) i;
    alter table t add primary key (id); analyze t";

const ARGS: [&str; 7] = ["--table", "t", "--format", "csv", "--csv-header", "off", "--single-file"];

async fn table(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(TABLE).await;
    pg
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
