//! Settings that make no sense together. Defaults contradict nothing: only what somebody wrote counts.

use super::ConfigError;
use super::typed::Reader;
use crate::encode::{Format, FormatOptions};
use crate::export::request::{CommitOptions, ReadMode, Target, WorkOptions};

const CSV_ONLY: [&str; 6] = ["csv_header", "csv_delimiter", "csv_null", "csv_newline", "csv_bom", "csv_formula_guard"];
const PARQUET_ONLY: [&str; 2] = ["row_group_rows", "row_group_bytes"];
const DESTINATION_ONLY: [&str; 4] = ["single_file", "on_existing", "layout", "visibility"];

impl Reader<'_> {
    pub(super) fn contradictions(&mut self, format: &FormatOptions, work: &WorkOptions, commit: &CommitOptions) {
        self.of_format(format);
        self.of_work(work, commit);
        self.of_destination(commit);
    }

    fn of_format(&mut self, format: &FormatOptions) {
        if format.format != Format::Csv {
            for key in CSV_ONLY {
                self.refuse(key, "is given, and the format is not CSV", "add --format csv, or leave it out");
            }
        } else if format.csv.null.as_bytes().contains(&format.csv.delimiter) {
            self.errors.push(ConfigError::new("--csv-null holds the delimiter", "choose another text or delimiter"));
        }
        if format.format != Format::Parquet {
            for key in PARQUET_ONLY {
                self.refuse(key, "is given, and the format is not Parquet", "leave it out");
            }
        }
    }

    fn of_work(&mut self, work: &WorkOptions, commit: &CommitOptions) {
        if work.read_mode == ReadMode::Copy {
            let hint = "add --read-mode keyset, or leave it out";
            self.refuse("page_size", "is given without --read-mode keyset", hint);
        }
        let one_file = commit.single_file || matches!(commit.target, Target::Stdout { .. });
        if one_file && work.partitions.is_some_and(|partitions| partitions.get() > 1) {
            self.refuse("partitions", "asks for more than one, and one file is one partition", "leave it out");
        }
        let cap = work.cap.as_ref().and_then(|cap| cap.max_rows);
        if let (Some(least), Some(most)) = (work.min_rows, cap)
            && least > most
        {
            let hint = "lower it, or raise --max-rows or the tier";
            self.refuse("min_rows", &format!("asks for more rows than the cap of {most} lets through"), hint);
        }
    }

    fn of_destination(&mut self, commit: &CommitOptions) {
        match &commit.target {
            Target::Stdout { .. } => {
                for key in DESTINATION_ONLY {
                    self.refuse(key, "has no meaning with --to -", "leave it out");
                }
            }
            Target::Destination(_) => {
                let hint = "leave it out: a destination has its manifest at _manifest.json";
                self.refuse("manifest", "is given without --to -", hint);
                if commit.single_file {
                    for key in ["layout", "visibility"] {
                        self.refuse(key, "has no meaning with --single-file", "leave it out");
                    }
                }
            }
        }
        let placed = self.raw.get("to").is_some_and(|setting| setting.values.iter().any(|to| to.contains("{date}")));
        if !placed {
            self.refuse("date", "is given, and --to has no {date}", "put {date} into --to, or leave it out");
        }
    }

    /// Complains of a setting that somebody wrote.
    fn refuse(&mut self, key: &str, why: &str, hint: &str) {
        if let Some(setting) = self.raw.given(key) {
            // A switch that is off asks for nothing.
            if setting.values != ["false"] {
                self.errors.push(ConfigError::new(format!("{} {why}", setting.origin.name(key)), hint));
            }
        }
    }
}
