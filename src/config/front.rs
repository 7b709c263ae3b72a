//! What people see of a command, as the options for people say.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::telemetry::LogFormat;
use crate::model::StdinRule;

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

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorKind {
    /// On a terminal that takes it, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What people see; nothing of it changes what is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontOptions {
    /// Progress on standard error.
    pub progress: ProgressKind,
    /// The end report.
    pub report: ReportKind,
    /// Where the JSON report is written too.
    pub report_file: Option<PathBuf>,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// Whether what people read has colours.
    pub color: ColorKind,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
    /// What the metrics are told apart by: the relation, and the destination as it was written.
    pub labels: Vec<(&'static str, String)>,
    /// Whether rows go to standard output, which then carries nothing else.
    pub to_stdout: bool,
    /// Whether anything says where to write, which a plan can do without.
    pub has_target: bool,
    /// Whether the first rows are asked for and nothing else (`--limit`), so that others are not missed.
    pub limited: bool,
    /// `--stdin`: what the end of standard input means; by what it is unless given.
    pub stdin: Option<StdinRule>,
}
