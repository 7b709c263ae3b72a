//! One export and what it left: its manifest, its parts, its data rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use futures_util::TryStreamExt;
use serde_json::Value;
use sha2::Digest as _;
use tempfile::TempDir;

use super::pg::Pg;
use super::run::{Outhaul, Run, outhaul};
use super::watch::files;
use super::{eventually, manifest};

/// A backend ends a moment after its client, and later where the client was killed while it worked.
const SESSIONS_LIMIT: Duration = Duration::from_secs(10);

/// A finished export to a folder of its own.
pub(crate) struct Export {
    /// The process.
    pub run: Run,
    folder: TempDir,
}

/// `outhaul export` of a test's database to any destination, with a JSON report.
pub(crate) fn command(pg: &Pg, to: &str, args: &[&str]) -> Outhaul {
    let fixed = ["export", "--from", &pg.url, "--to", to, "--report", "json"];
    outhaul(fixed.iter().chain(args))
}

/// Exports to a fresh folder.
pub(crate) async fn export(pg: &Pg, args: &[&str]) -> Export {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let run = command(pg, to.to_str().unwrap(), args).run().await;
    Export { run, folder }
}

/// Exports CSV without headers to a fresh folder and fails the test unless it ends with this code: its data rows are
/// comparable with what PostgreSQL's own COPY writes.
pub(crate) async fn export_csv(pg: &Pg, args: &[&str], code: i32) -> Export {
    let mut all = vec!["--format", "csv", "--csv-header", "off"];
    all.extend(args);
    export(pg, &all).await.expect(code)
}

/// The same, however it ends, with mechanisms switched off.
pub(crate) async fn export_csv_without(pg: &Pg, args: &[&str], off: &str) -> Export {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let all = [&["--format", "csv", "--csv-header", "off"], args].concat();
    let run = command(pg, to.to_str().unwrap(), &all).env("OUTHAUL_TEST_OFF", off).run().await;
    Export { run, folder }
}

impl Export {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(mut self, code: i32) -> Self {
        self.run = self.run.expect(code);
        self
    }

    /// Where it was written.
    pub(crate) fn dest(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Its manifest.
    pub(crate) fn manifest(&self) -> Value {
        manifest(&self.dest())
    }

    /// How many partitions have parts.
    pub(crate) fn partitions(&self) -> usize {
        let mut numbers: Vec<u64> =
            parts(&self.manifest()).iter().map(|part| part["partition"].as_u64().unwrap()).collect();
        numbers.dedup();
        numbers.len()
    }

    /// The data rows of all parts in the manifest's order, uncompressed and without headers, after checking that the
    /// files which readers see are exactly the manifest's.
    pub(crate) fn data(&self) -> Vec<u8> {
        data(&self.dest())
    }

    /// The same, as lines in a fixed order.
    pub(crate) fn sorted(&self) -> Vec<String> {
        sorted(&self.data())
    }
}

/// The parts of a manifest.
pub(crate) fn parts(manifest: &Value) -> &[Value] {
    manifest["parts"].as_array().unwrap()
}

/// See [`Export::data`].
pub(crate) fn data(dest: &Path) -> Vec<u8> {
    let manifest = manifest(dest);
    let mut all = Vec::new();
    let mut named = Vec::new();
    for part in parts(&manifest) {
        let path = part["path"].as_str().unwrap();
        named.push((path.to_owned(), part["bytes"].as_u64().unwrap()));
        let bytes = std::fs::read(dest.join(path)).unwrap();
        let rows = &bytes[usize::try_from(part["header_bytes"].as_u64().unwrap()).unwrap()..];
        all.extend(unpacked(path, rows));
    }
    named.sort();
    assert_eq!(visible(dest), named, "what readers see, and what the manifest names");
    all
}

/// The files that readers of a folder see: not those whose path has a name in `_` or `.`.
pub(crate) fn visible(dest: &Path) -> Vec<(String, u64)> {
    let hidden = |path: &str| path.split('/').any(|step| step.starts_with(['_', '.']));
    files(dest).into_iter().filter(|(path, _)| !hidden(path)).collect()
}

/// The content of a part, by its name's ending.
pub(crate) fn unpacked(path: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        }
        Some("zst") => plain = zstd::stream::decode_all(bytes).unwrap(),
        _ => plain.extend(bytes),
    }
    plain
}

/// Lines in a fixed order. No value of the tests that use it has a line end in it.
pub(crate) fn sorted(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = std::str::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What PostgreSQL's COPY writes for a query, as CSV without a header.
pub(crate) async fn copy(pg: &Pg, query: &str) -> Vec<u8> {
    let client = pg.connect().await;
    client.batch_execute("set timezone = 'UTC'; set intervalstyle = postgres").await.unwrap();
    let statement = format!("copy ({query}) to stdout with (format csv)");
    let stream = client.copy_out(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    stream.try_collect::<Vec<_>>().await.unwrap().concat()
}

/// The rows of the table `t`, as [`Place::whole`](super::place::Place::whole) gives those of an export.
pub(crate) async fn rows(pg: &Pg) -> Vec<String> {
    sorted(&copy(pg, "select * from t").await)
}

/// Neither parts nor a manifest nor staged bytes are in a folder.
#[track_caller]
pub(crate) fn nothing_is_left(dest: &Path) {
    assert_eq!(files(dest).into_keys().collect::<Vec<_>>(), [""; 0]);
}

/// Waits until the program has no session left in the database.
pub(crate) async fn no_sessions_left(pg: &Pg) {
    eventually(SESSIONS_LIMIT, "no session of the exporter", async || {
        (pg.exporter_sessions().await == 0).then_some(())
    })
    .await;
}

/// A CRC64NVME as manifests have it.
pub(crate) fn crc64nvme(bytes: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

/// A SHA-256 as manifests have it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
