//! The two ways out for metrics, as Prometheus text: a file (`--metrics-file`) and a small HTTP responder
//! (`--metrics-listen`).
//!
//! `metrics-exporter-prometheus` has a listener of its own. It takes any number of connections, each for any time, and
//! spins where the process has no file descriptors left; this one bounds all three.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{EXPORT_BUCKETS, EXPORT_DURATION_SECONDS, LAST_COMMIT, PART_BUCKETS, PART_UPLOAD_SECONDS};
use crate::base::whole_file::{Readers, write_whole};

/// Between two writes of `--metrics-file`, and between two upkeeps of the histograms.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of one HTTP request to `--metrics-listen`: a scrape is a request line and a few headers.
const METRICS_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// One scrape, from accept to the last byte.
const METRICS_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Scrapes at the same time; more wait in the listener's backlog.
const METRICS_CONNECTIONS_MAX: usize = 8;

/// Before the responder tries again to accept a connection.
const METRICS_ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Metrics cannot be given out as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MetricsError {
    /// The address cannot be listened on.
    #[error("--metrics-listen {address}: listening")]
    Listen { address: SocketAddr, source: io::Error },
    /// The file cannot be written.
    #[error("--metrics-file {}: writing", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The recorder cannot be made or installed.
    #[error("recording metrics: {0}")]
    Recorder(String),
}

/// What gives metrics out while a run lasts.
#[derive(Debug)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    file: Option<PathBuf>,
    tasks: Vec<JoinHandle<()>>,
    address: Option<SocketAddr>,
}

impl Exporter {
    /// Installs the process's recorder and starts what was asked for. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the file or the address cannot be used, or a recorder was installed before.
    pub(crate) async fn start(
        file: Option<PathBuf>,
        listen: Option<SocketAddr>,
        labels: &[(&'static str, String)],
    ) -> Result<Self, MetricsError> {
        let wrong = |error: BuildError| MetricsError::Recorder(error.to_string());
        let recorder = recorder(labels).map_err(wrong)?;
        let earlier = file.as_deref().and_then(|file| last_commit(file, labels));
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| MetricsError::Recorder(error.to_string()))?;
        super::describe();
        super::run_began();
        if let Some(committed_at) = earlier {
            metrics::gauge!(LAST_COMMIT).set(committed_at);
        }
        let mut exporter = Self { handle, file, tasks: Vec::new(), address: None };
        // The first write tells of a wrong path before the run rather than after it.
        exporter.write_file()?;
        if let Some(address) = listen {
            let failed = |source| MetricsError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            exporter.address = Some(listener.local_addr().map_err(failed)?);
            exporter.tasks.push(tokio::spawn(serve(listener, exporter.handle.clone())));
        }
        let (handle, file) = (exporter.handle.clone(), exporter.file.clone());
        exporter.tasks.push(tokio::spawn(keep_up(handle, file)));
        Ok(exporter)
    }

    /// All metrics as they are now.
    pub(crate) fn text(&self) -> String {
        render(&self.handle)
    }

    /// Where the responder listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops, and writes the file one last time.
    ///
    /// # Errors
    /// Where that write fails.
    pub(crate) fn finish(self) -> Result<(), MetricsError> {
        for task in &self.tasks {
            task.abort();
        }
        self.write_file()
    }

    fn write_file(&self) -> Result<(), MetricsError> {
        let Some(path) = &self.file else { return Ok(()) };
        // Who collects metrics is commonly another user than who exports.
        write_whole(path, render(&self.handle).as_bytes(), Readers::Everybody)
            .map_err(|source| MetricsError::File { path: path.clone(), source })
    }
}

/// All metrics as they are now.
fn render(handle: &PrometheusHandle) -> String {
    super::refresh_age();
    handle.render()
}

/// When the export that had written the file last committed: a run that fails must not make its alert forget that.
fn last_commit(file: &Path, labels: &[(&'static str, String)]) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(LAST_COMMIT))?;
    let committed_at = line.rsplit_once(' ')?.1.parse().ok().filter(|at: &f64| at.is_finite())?;
    let ours = recorder(labels).ok()?;
    metrics::with_local_recorder(&ours, || metrics::gauge!(LAST_COMMIT).set(committed_at));
    // What another export has written there is not ours to keep.
    ours.handle().render().lines().any(|our| our == line).then_some(committed_at)
}

fn recorder(labels: &[(&'static str, String)]) -> Result<PrometheusRecorder, BuildError> {
    let builder =
        labels.iter().fold(PrometheusBuilder::new(), |builder, (name, value)| builder.add_global_label(*name, value));
    Ok(builder
        .set_buckets_for_metric(Matcher::Full(PART_UPLOAD_SECONDS.into()), &PART_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(EXPORT_DURATION_SECONDS.into()), &EXPORT_BUCKETS)?
        .build_recorder())
}

/// Keeps the histograms small and the file fresh.
async fn keep_up(handle: PrometheusHandle, file: Option<PathBuf>) {
    loop {
        tokio::time::sleep(METRICS_INTERVAL).await;
        let (handle, file) = (handle.clone(), file.clone());
        let written = tokio::task::spawn_blocking(move || {
            handle.run_upkeep();
            file.map_or(Ok(()), |path| write_whole(&path, render(&handle).as_bytes(), Readers::Everybody))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "writing the metrics file");
        }
    }
}

/// `9187` and `:9187` are ports on 127.0.0.1: metrics leave the machine only where an address says so.
///
/// # Errors
/// What is wanted instead.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| "a port such as 9187, or an address such as 0.0.0.0:9187, is wanted".to_owned())
}

async fn serve(listener: TcpListener, handle: PrometheusHandle) {
    let permits = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptors, mostly: some come back with time.
            tokio::time::sleep(METRICS_ACCEPT_PAUSE).await;
            continue;
        };
        let handle = handle.clone();
        tokio::spawn(async move {
            // A scraper that is slow, silent or gone is its own affair.
            let _ = tokio::time::timeout(METRICS_REQUEST_TIMEOUT, answer(stream, &handle)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, handle: &PrometheusHandle) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
        if request.len() > METRICS_REQUEST_BYTES_MAX {
            return stream.write_all(response("431 Request Header Fields Too Large", "", true).as_bytes()).await;
        }
    }
    stream.write_all(respond(&request, || render(handle)).as_bytes()).await?;
    stream.shutdown().await
}

/// The whole response to a request whose headers are read.
fn respond(request: &[u8], render: impl FnOnce() -> String) -> String {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let path = target.map(|target| target.split('?').next().unwrap_or_default());
    match (method, path, version) {
        (Some("GET"), Some("/metrics"), Some("HTTP/1.1" | "HTTP/1.0")) => response("200 OK", &render(), true),
        (Some("HEAD"), Some("/metrics"), Some("HTTP/1.1" | "HTTP/1.0")) => response("200 OK", &render(), false),
        (Some("GET" | "HEAD"), Some(_), Some("HTTP/1.1" | "HTTP/1.0")) => {
            response("404 Not Found", "metrics are at /metrics\n", method == Some("GET"))
        }
        (Some(_), Some(_), Some("HTTP/1.1" | "HTTP/1.0")) => {
            response("405 Method Not Allowed", "metrics are read with GET\n", true)
        }
        _ => response("400 Bad Request", "", true),
    }
}

fn response(status: &str, body: &str, with_body: bool) -> String {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if with_body { head + body } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::telemetry::{self, Outcome};

    fn rendered(act: impl FnOnce()) -> String {
        let recorder = recorder(&[]).unwrap();
        metrics::with_local_recorder(&recorder, || {
            telemetry::describe();
            act();
        });
        recorder.handle().render()
    }

    #[test]
    fn metrics_render_with_names_units_and_zeros() {
        let text = rendered(|| {
            telemetry::rows_read(7);
            telemetry::rows_encoded(5);
            telemetry::bytes_written(1_024);
            telemetry::part_uploaded(Duration::from_millis(300));
            telemetry::partition_completed();
            telemetry::partition_retried();
            telemetry::readers_active(4);
            telemetry::keeper_promoted();
            telemetry::export_ended(Outcome::Truncated, Duration::from_secs(2));
        });
        for line in [
            "outhaul_rows_read_total 7",
            "outhaul_rows_encoded_total 5",
            "outhaul_bytes_written_total 1024",
            "outhaul_part_upload_seconds_bucket{le=\"0.25\"} 0",
            "outhaul_part_upload_seconds_bucket{le=\"0.5\"} 1",
            "outhaul_partitions_completed_total 1",
            "outhaul_partition_retries_total 1",
            "outhaul_readers_active 4",
            "outhaul_keeper_promotions_total 1",
            "outhaul_exports_total{outcome=\"truncated\"} 1",
            "outhaul_exports_total{outcome=\"complete\"} 0",
            "outhaul_export_duration_seconds_bucket{le=\"5\"} 1",
            "# TYPE outhaul_part_upload_seconds histogram",
            "# HELP outhaul_rows_read_total Rows that came from the source",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
        assert!(text.contains("\nouthaul_last_commit_timestamp_seconds "));
    }

    #[test]
    fn what_is_no_moment_is_not_kept_from_an_earlier_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = |moment: f64| {
            let ours = recorder(&[]).unwrap();
            metrics::with_local_recorder(&ours, || metrics::gauge!(LAST_COMMIT).set(moment));
            std::fs::write(file.path(), ours.handle().render()).unwrap();
            last_commit(file.path(), &[])
        };
        assert_eq!(kept(1_796_000_000.5), Some(1_796_000_000.5));
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(kept(none), None, "{none}");
        }
    }

    #[test]
    fn a_failed_export_is_no_commit() {
        let text = rendered(|| telemetry::export_ended(Outcome::Failed, Duration::ZERO));
        assert!(!text.contains("\nouthaul_last_commit_timestamp_seconds "));
    }

    #[test]
    fn requests_get_their_answers() {
        let cases: [(&[u8], &str, bool); 8] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200", true),
            (b"GET /metrics?x=y HTTP/1.0\r\n\r\n", "200", true),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", "200", false),
            (b"GET / HTTP/1.1\r\n\r\n", "404", false),
            (b"GET /metrics/.. HTTP/1.1\r\n\r\n", "404", false),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405", false),
            (b"GET /metrics\r\n\r\n", "400", false),
            (b"\xff\xfe\r\n\r\n", "400", false),
        ];
        for (request, status, has_metrics) in cases {
            let response = respond(request, || "some_metric 1\n".to_owned());
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert_eq!(response.ends_with("\r\n\r\nsome_metric 1\n"), has_metrics, "{response}");
        }
    }

    #[test]
    fn addresses_are_loopback_unless_they_name_a_host() {
        let address = |text| listen_address(text).map(|address| address.to_string()).ok();
        assert_eq!(address("9187").as_deref(), Some("127.0.0.1:9187"));
        assert_eq!(address(":0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(address("0.0.0.0:9187").as_deref(), Some("0.0.0.0:9187"));
        assert_eq!(address("[::1]:9187").as_deref(), Some("[::1]:9187"));
        assert_eq!(address("70000"), None);
        assert_eq!(address(""), None);
    }

    /// Sends `request` to a responder and reads to the end.
    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // A refused request may be reset once its answer is sent.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_responder_answers_past_silent_and_endless_clients() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = recorder(&[]).unwrap();
        metrics::with_local_recorder(&recorder, || telemetry::rows_read(3));
        let server = tokio::spawn(serve(listener, recorder.handle()));
        let mut silent = Vec::new();
        for _ in 0..METRICS_CONNECTIONS_MAX - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let endless = vec![b'a'; METRICS_REQUEST_BYTES_MAX + 1];
        assert!(ask(address, &endless).await.starts_with("HTTP/1.1 431 "));
        let scraped = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(scraped.contains("outhaul_rows_read_total 3"), "{scraped}");
        server.abort();
    }
}
