//! Options that make no sense together. What nobody gave contradicts nothing; a switch turned off is not given.

use super::ConfigError;
use super::options::{Arity, Given, by_key};
use super::raw::{Origin, Raw, Setting};
use super::value;
use crate::base::words::counted;
use crate::model::{
    Compression, ConsistencyChoice, Format, Preset, RowCap, ServerSideEncryption, SourceKind, SourceProfile, Workers,
};
use crate::source::Source;

/// Tags of one object, at S3.
const OBJECT_TAGS_MAX: usize = 10;

/// What makes this export one ordered stream of bytes, if anything does.
pub(super) fn one_stream(raw: &Raw) -> Option<String> {
    let found = Contradictions { raw, errors: Vec::new() };
    if found.is("to", "-") {
        Some("--to -".to_owned())
    } else if found.asked_for("single_file") {
        Some(found.single_file())
    } else {
        None
    }
}

pub(super) fn find(
    raw: &Raw,
    given: &Given,
    compression: Option<Compression>,
    cap: Option<&RowCap>,
    source: Option<&dyn Source>,
) -> Vec<ConfigError> {
    let mut found = Contradictions { raw, errors: Vec::new() };
    found.relation();
    if let Some(format) = given.format {
        found.format(format);
        found.csv(format, given);
        if let (Some(compression), Some(preset)) = (compression, given.preset) {
            found.preset(format, compression, preset);
        }
    }
    found.work(given, cap);
    found.folders(given);
    found.errors.extend(of_workers(raw, given));
    if given.workers == Some(Workers::External) {
        found.external();
    }
    found.protection(given);
    match source.map(Source::kind) {
        Some(SourceKind::Clickhouse) => found.clickhouse(given),
        Some(_) => found.not_clickhouse(),
        None => {}
    }
    found.objects(given);
    found.incremental();
    found.commit();
    found.errors
}

/// What has no meaning without workers of others.
pub(super) fn of_workers(raw: &Raw, given: &Given) -> Vec<ConfigError> {
    let mut found = Contradictions { raw, errors: Vec::new() };
    if given.workers == Some(Workers::Own) {
        found.refuse(&["max_workers", "stdin"], "without --workers external", "add that, or leave it out");
    }
    found.errors
}

struct Contradictions<'a> {
    raw: &'a Raw,
    errors: Vec<ConfigError>,
}

impl Contradictions<'_> {
    fn asked_for(&self, key: &str) -> bool {
        let is_switch = by_key(key).is_some_and(|option| option.arity == Arity::Switch);
        let is_off = |text: &String| is_switch && value::switch(text) == Ok(false);
        self.raw.given(key).is_some_and(|setting| !setting.values.iter().any(is_off))
    }

    fn is(&self, key: &str, word: &str) -> bool {
        self.raw.given(key).is_some_and(|setting| setting.values == [word])
    }

    /// What makes it one file, in words.
    fn single_file(&self) -> String {
        let is_implied = |setting: &&Setting| matches!(setting.origin, Origin::Implied(_));
        let name = self.raw.given("single_file").filter(is_implied).and(self.raw.given("to"));
        name.map_or_else(|| "--single-file".to_owned(), |to| format!("--to {}", to.values.join(" ")))
    }

    /// An option that is given, beside something it has no meaning with.
    fn refuse(&mut self, keys: &[&str], beside: &str, hint: &str) {
        for key in keys {
            let Some(setting) = self.raw.given(key).filter(|_| self.asked_for(key)) else { continue };
            // What implies it is told of instead.
            if matches!(setting.origin, Origin::Implied(_)) {
                continue;
            }
            let place = setting.origin.to_string();
            let flag = format!("--{}", key.replace('_', "-"));
            let name = if place == flag { place } else { format!("{place}: {flag}") };
            self.errors.push(ConfigError::new(format!("{name} has no meaning {beside}"), hint));
        }
    }

    fn relation(&mut self) {
        if let (Some(table), Some(query)) = (self.raw.get("table"), self.raw.get("query")) {
            let places = format!("({} and {})", table.origin, query.origin);
            let what = format!("--table and --query are both given {places}");
            self.errors.push(ConfigError::new(what, "give exactly one of --table NAME and --query SQL"));
        }
    }

    fn csv(&mut self, format: Format, given: &Given) {
        let held = |(null, delimiter): (&String, u8)| null.as_bytes().contains(&delimiter);
        if format == Format::Csv && given.csv_null.as_ref().zip(given.csv_delimiter).is_some_and(held) {
            self.errors.push(ConfigError::new("--csv-null holds the delimiter", "choose another text or delimiter"));
        }
    }

    fn format(&mut self, format: Format) {
        if format != Format::Csv {
            let keys = [
                "csv_header",
                "csv_delimiter",
                "csv_null",
                "csv_newline",
                "csv_bom",
                "csv_formula_guard",
                "csv_nested",
            ];
            self.refuse(&keys, "where the format is not CSV", "add --format csv, or leave it out");
        }
        if format != Format::Parquet {
            let keys = ["row_group_rows", "row_group_bytes", "unconstrained_numeric", "timestamp_precision"];
            self.refuse(&keys, "where the format is not Parquet", "leave it out");
        }
        if format != Format::Source {
            self.refuse(&["keep_partial"], "where the format is not source", "leave it out");
        }
        if format != Format::Ndjson {
            self.refuse(&["json_large_numbers", "json_nan"], "where the format is not NDJSON", "leave it out");
        }
    }

    /// What the preset's readers do not take.
    fn preset(&mut self, format: Format, compression: Compression, preset: Preset) {
        let (name, codecs): (_, &[&str]) = match (preset, format) {
            (Preset::Postgres, _) => return,
            (Preset::Athena, Format::Parquet) => ("athena", &["none", "snappy", "zstd", "gzip"]),
            (Preset::Athena, _) => ("athena", &["none", "zstd", "gzip"]),
            (Preset::Spectrum, Format::Parquet) => ("spectrum", &["none", "snappy", "gzip"]),
            (Preset::Spectrum, _) => ("spectrum", &["none", "gzip"]),
        };
        if format == Format::Csv {
            let what = format!("--preset {name} with --format csv");
            let hint = "its CSV readers tell no NULL from an empty string and split values at line breaks: use --format \
                parquet or ndjson; for Redshift's COPY, CSV with --preset postgres is right";
            self.errors.push(ConfigError::new(what, hint));
            return;
        }
        let codec = compression.name();
        if !codecs.contains(&codec) {
            let what = format!("--compression {codec} with --preset {name}, which does not read it");
            self.errors.push(ConfigError::new(what, format!("one of {} is wanted", codecs.join(", "))));
        }
    }

    fn work(&mut self, given: &Given, cap: Option<&RowCap>) {
        if given.tier.is_some() && given.max_rows.is_some() {
            self.errors.push(ConfigError::new("--tier and --max-rows are both given", "give one of them"));
        }
        self.refuse_limit();
        let keyset = self.is("read_mode", "keyset");
        if keyset {
            self.refuse(&["keep_snapshot"], "with --read-mode keyset, which has no snapshot", "leave it out");
        } else {
            self.refuse(&["page_size"], "without --read-mode keyset", "add that, or leave it out");
        }
        if given.source_profile == Some(SourceProfile::Gentle) && !self.is("partitions", "1") {
            let beside = "with --source-profile gentle, which reads each table in one pass";
            self.refuse(&["partitions"], beside, "leave it out, or take --source-profile balanced");
        }
        if keyset {
            let keys = ["yield_to_ddl", "max_snapshot_age"];
            self.refuse(&keys, "with --read-mode keyset, which holds neither locks nor a snapshot", "leave it out");
        }
        if let Some(stream) = one_stream(self.raw) {
            // More readers or a part size are bounds that one stream keeps; partitions would be a promise it breaks.
            if !self.is("partitions", "1") {
                self.refuse(&["partitions"], &format!("above 1 with {stream}, which is one stream"), "leave it out");
            }
        }
        let most = cap.and_then(|cap| cap.max_rows);
        if let (Some(min), Some(most)) = (given.min_rows, most)
            && min > most
        {
            let what = format!("--min-rows {min} can never be met under a cap of {}", counted(most.get(), "row"));
            self.errors.push(ConfigError::new(what, "lower the one or raise the other"));
        }
    }

    /// What only a process that reads for itself can do.
    fn external(&mut self) {
        let hint = "leave --workers external out";
        if let Some(stream) = one_stream(self.raw) {
            self.refuse(&["workers"], &format!("with {stream}, which one process writes"), hint);
        }
        if self.is("visibility", "as-written") {
            self.refuse(&["workers"], "with --visibility as-written: parts appear at the commit", hint);
        }
        if self.is("read_mode", "keyset") {
            self.refuse(&["workers"], "with --read-mode keyset, which has no snapshot to share", hint);
        }
        if self.is("format", "source") {
            self.refuse(&["workers"], "with --format source, whose one file one process writes", hint);
        }
    }

    fn incremental(&mut self) {
        if self.raw.get("watermark").is_none() {
            if !self.raw.in_job {
                self.refuse(
                    &["look_back", "since", "on_schema_change"],
                    "without --watermark",
                    "add that, or leave it out",
                );
            }
            return;
        }
        if self.is("read_mode", "keyset") {
            let hint = "leave one of them out: only a snapshot tells new rows from old ones";
            self.refuse(&["watermark"], "with --read-mode keyset", hint);
        }
        if self.is("manifest_stats", "none") {
            let hint = "leave one of them out: the manifest says how far the export has come";
            self.refuse(&["watermark"], "with --manifest-stats none", hint);
        }
        if self.is("to", "-") && self.raw.get("manifest").is_none() {
            let hint = "add --manifest FILE: the next export goes on from it";
            self.refuse(&["watermark"], "with --to - and without a manifest", hint);
        }
    }

    /// What only PostgreSQL has, and what makes one statement of a read that is to be several.
    fn clickhouse(&mut self, given: &Given) {
        let keys = [
            "allow_rls",
            "char_padding",
            "keep_snapshot",
            "max_replay_lag",
            "max_snapshot_age",
            "page_size",
            "source_profile",
            "unconstrained_numeric",
            "watermark",
            "yield_to_ddl",
        ];
        self.refuse(&keys, "where the rows are in ClickHouse", "leave it out");
        if self.is("read_mode", "keyset") {
            self.refuse(&["read_mode"], "where the rows are in ClickHouse", "leave it out");
        }
        if let Some(choice) = given.consistency {
            self.consistency(choice);
        }
    }

    /// What only ClickHouse has.
    fn not_clickhouse(&mut self) {
        self.refuse(&["consistency"], "where the rows are not in ClickHouse", "leave it out");
        let Some(setting) = self.raw.get("table") else { return };
        for why in setting.values.iter().filter_map(|name| value::whole_name(name).err()) {
            let what = format!("{}: {why}", setting.origin);
            self.errors.push(ConfigError::new(what, "write the name that the table has"));
        }
    }

    fn consistency(&mut self, choice: ConsistencyChoice) {
        let one = self.is("partitions", "1");
        if choice == ConsistencyChoice::SingleStatement {
            if !one {
                self.refuse(&["partitions"], "above 1 with --consistency single_statement", "leave one of them out");
            }
            return;
        }
        let stream = one_stream(self.raw);
        let beside = match (stream, one) {
            (Some(stream), _) => Some(format!("with {stream}, which is one statement")),
            (None, true) => Some("with --partitions 1, which is one statement".to_owned()),
            (None, false) if self.raw.given("query").is_some() => Some("with --query, which has no parts".to_owned()),
            (None, false) if self.raw.given("key").is_some() => Some("with --key, which splits by ranges".to_owned()),
            (None, false) => {
                let caps = ["max_rows", "limit"].into_iter().find(|cap| self.raw.given(cap).is_some());
                caps.map(|cap| format!("with --{}, which is one statement", cap.replace('_', "-")))
            }
        };
        if let Some(beside) = beside {
            self.refuse(&["consistency"], &beside, "leave one of them out");
        }
    }

    fn protection(&mut self, given: &Given) {
        if given.format == Some(Format::Source) {
            let keys = ["protect", "protect_file", "protect_key_file", "protect_key_command"];
            let beside = "with --format source, whose rows nobody reads";
            self.refuse(&keys, beside, "choose parquet, csv or ndjson; a query then has no FORMAT at its end");
        }
    }

    fn folders(&mut self, given: &Given) {
        if self.raw.given("partition_by").is_none() {
            let keys = ["keep_partition_columns", "open_parts"];
            self.refuse(&keys, "without --partition-by", "add that, or leave it out");
            return;
        }
        self.errors.extend(given.folder_mistakes());
        if let Some(stream) = one_stream(self.raw) {
            let hint = "leave it out, or name a folder for the parts";
            self.refuse(&["partition_by"], &format!("with {stream}, which is one object"), hint);
        }
        if given.format == Some(Format::Source) {
            let beside = "with --format source, whose rows nobody reads";
            self.refuse(&["partition_by"], beside, "choose parquet, csv or ndjson");
        }
    }

    fn refuse_limit(&mut self) {
        for other in ["max_rows", "tier"] {
            if self.raw.given("limit").is_some() && self.raw.given(other).is_some() {
                let what = format!("--limit and --{} are both given", other.replace('_', "-"));
                self.errors
                    .push(ConfigError::new(what, "give one of them: --limit N is --max-rows N --allow-truncated"));
            }
        }
    }

    fn objects(&mut self, given: &Given) {
        use ServerSideEncryption::{Kms, KmsTwice};
        if !matches!(given.sse, Some(Kms | KmsTwice)) {
            self.refuse(&["sse_kms_key_id", "sse_bucket_key"], "without --sse aws:kms", "add that, or leave it out");
        } else if given.sse == Some(KmsTwice) {
            self.refuse(&["sse_bucket_key"], "with --sse aws:kms:dsse, which has no such key", "leave it out");
        }
        let tags = self.raw.given("object_tag").map_or_else(Vec::new, |setting| setting.values.clone());
        let mut names: Vec<&str> = tags.iter().filter_map(|tag| Some(tag.split_once('=')?.0)).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find_map(|pair| (pair.first() == pair.last()).then_some(pair)?.first()) {
            self.errors.push(ConfigError::new(format!("--object-tag {twice} is given twice"), "give it once"));
        }
        if names.len() > OBJECT_TAGS_MAX {
            let what = format!("--object-tag is given {} times", names.len());
            self.errors.push(ConfigError::new(what, format!("an object has at most {OBJECT_TAGS_MAX} tags")));
        }
    }

    fn commit(&mut self) {
        if self.is("on_signal", "keep") && self.raw.get("keep_snapshot").is_none() {
            let what = "--on-signal keep without --keep-snapshot: what is kept could not be gone on with";
            self.errors.push(ConfigError::new(what, "add --keep-snapshot, or leave it out"));
        }
        if self.is("to", "-") {
            let keys = [
                "single_file",
                "on_existing",
                "layout",
                "visibility",
                "upload_chunk_size",
                "upload_concurrency",
                "keep_snapshot",
                "on_signal",
                "sse",
                "sse_kms_key_id",
                "sse_bucket_key",
                "storage_class",
                "object_tag",
            ];
            self.refuse(&keys, "with --to -", "leave it out");
            return;
        }
        let hint = "leave it out: a destination has its manifest at _manifest.json";
        self.refuse(&["manifest"], "without --to -", hint);
        if self.asked_for("single_file") {
            self.refuse(&["layout", "visibility"], &format!("with {}", self.single_file()), "leave it out");
            let is_folder = |to: &String| to.ends_with('/');
            // Where another option asks for the file, that one has told of it.
            let asked = self.raw.get("single_file").is_some_and(|one| !matches!(one.origin, Origin::Implied(_)));
            if asked && self.raw.get("to").is_some_and(|setting| setting.values.iter().any(is_folder)) {
                let what = "--single-file writes a file, and --to names a folder";
                self.errors.push(ConfigError::new(what, "end --to in the file's name"));
            }
        }
    }
}
