//! `outhaul demo`: a private PostgreSQL, a million rows, a parallel export and a verify, with nothing to set up.

mod cluster;
mod programs;

use std::path::{Path, PathBuf};

use super::exit;
use super::human;
use super::report::ReportForm;
use super::session::Front;
use super::summary::{Failure, shell_word};
use crate::export::ExportError;
use crate::model::ExportErrorKind;
use cluster::Cluster;

/// The table the demo makes.
pub(crate) const TABLE: &str = "public.orders";

/// What is asked of the demo.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rows: u64,
    /// Whether its rows are served, and not exported.
    pub(crate) serve: bool,
    /// Where the export goes, below `export/`; made where it is missing.
    pub(crate) folder: PathBuf,
}

/// What the demo exports, for who carries the export out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The folder of the server's socket.
    pub(crate) socket: PathBuf,
    /// The port in the socket's name.
    pub(crate) port: u16,
    /// The role, which has no password: only the socket's owner and root reach it.
    pub(crate) user: &'static str,
    pub(crate) database: &'static str,
    pub(crate) to: PathBuf,
}

impl Job {
    /// What `--from` takes.
    pub(crate) fn from(&self) -> String {
        let host: String = self
            .socket
            .to_string_lossy()
            .chars()
            .map(|letter| match letter {
                '/' => "%2F".to_owned(),
                '%' => "%25".to_owned(),
                ' ' => "%20".to_owned(),
                '@' => "%40".to_owned(),
                ':' => "%3A".to_owned(),
                '?' => "%3F".to_owned(),
                '#' => "%23".to_owned(),
                plain => plain.to_string(),
            })
            .collect();
        format!("postgresql://{}@{host}:{}/{}", self.user, self.port, self.database)
    }
}

/// Makes the server and the rows, lets `work` export and verify them, and stops the server, whatever happens. Returns the
/// exit code: of `work`, where it came to that.
///
/// # Cancel safety
/// Not to be dropped; the first signal ends it within seconds, with everything stopped and removed.
pub(crate) async fn run(front: &Front, options: &Options, work: impl AsyncFnOnce(&Job) -> u8) -> u8 {
    match served(front, options, work).await {
        Ok(exit_code) => exit_code,
        Err(mut error) => {
            if let Some(stop) = front.signals.reason() {
                error = ExportError::new(stop.kind(), format!("the demo was stopped ({})", stop.name()));
            }
            front.fail(&Failure::early(&error))
        }
    }
}

async fn served(front: &Front, options: &Options, work: impl AsyncFnOnce(&Job) -> u8) -> Result<u8, ExportError> {
    // Nobody else would stop the server and remove its data.
    front.signals.heed_hangups().map_err(|error| ExportError::internal("listening to SIGHUP").with_source(error))?;
    let folder = made(&options.folder)?;
    let say = |text: &str| {
        if !front.quiet {
            front.screen.line(&format!("demo: {text}"));
        }
    };
    let cluster = Cluster::create(&folder, &front.signals).await?;
    say(&format!("private server from {}, data in {}", cluster.programs().display(), cluster.folder().display()));
    say(&format!("making {TABLE} with {}", human::plural(options.rows, "row")));
    cluster.fill(options.rows).await?;
    cluster.start().await?;
    let job = cluster.job(folder.join("export"));
    if !options.serve {
        let (from, to) = (shell_word(&job.from()), shell_word(&job.to.to_string_lossy()));
        say(&format!("outhaul export --from {from} --table {TABLE} --to {to} --on-existing replace"));
    }
    let exit_code = work(&job).await;
    cluster.close().await;
    if exit_code == exit::COMPLETE && !options.serve && front.reporter.form == ReportForm::Text && !front.quiet {
        let to = job.to.display();
        front.tell(&format!(
            "\nThe demo is done, and its server is gone. Look at\n  parts     {to}/data/\n  manifest  {to}/_manifest.json"
        ));
    }
    Ok(exit_code)
}

/// The folder, made and absolute.
fn made(folder: &Path) -> Result<PathBuf, ExportError> {
    let failed = |error| {
        ExportError::new(ExportErrorKind::Usage, format!("making the folder {}", folder.display())).with_source(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    folder.canonicalize().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_survives_odd_folders() {
        let job =
            Job { socket: "/tmp/a b:c@d".into(), port: 5432, user: "outhaul", database: "postgres", to: "/x".into() };
        assert_eq!(job.from(), "postgresql://outhaul@%2Ftmp%2Fa%20b%3Ac%40d:5432/postgres");
    }
}
