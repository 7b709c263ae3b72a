//! What people see of a run: settings that change nothing of what is exported.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::typed::Reader;
use crate::telemetry::exporter::listen_address;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum ProgressKind {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// `--report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum ReportKind {
    Text,
    Json,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum LogFormat {
    Text,
    Json,
}

/// What people see; nothing of it changes what is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontOptions {
    /// Progress on standard error.
    pub progress: ProgressKind,
    /// The end report.
    pub report: ReportKind,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
    /// Whether rows go to standard output, which then carries nothing else.
    pub to_stdout: bool,
}

impl Reader<'_> {
    pub(super) fn front(&mut self) -> FrontOptions {
        use ProgressKind::{Auto, Bar, Json, None, Plain};
        let kinds = [("auto", Auto), ("bar", Bar), ("plain", Plain), ("json", Json), ("none", None)];
        FrontOptions {
            progress: self.choice("progress", &kinds, Auto),
            report: self.choice("report", &[("text", ReportKind::Text), ("json", ReportKind::Json)], ReportKind::Text),
            log_format: self.choice(
                "log_format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                LogFormat::Text,
            ),
            metrics_listen: self.optional("metrics_listen", listen_address),
            metrics_file: self.optional("metrics_file", |text| Ok(PathBuf::from(text))),
            to_stdout: self.raw.get("to").is_some_and(|setting| setting.values == ["-"]),
        }
    }
}
