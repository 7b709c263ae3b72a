//! The command line's shape, made from the table of options.

use clap::builder::{PossibleValuesParser, Styles, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{pull, worker_args};
use crate::config::job::of_run;
use crate::config::options::{Arity, OPTIONS, OptionInfo, by_key, of_connection, of_keep, of_resume};
use crate::config::raw::{default_entry, default_of};
use crate::config::service::ServiceRole;
use crate::describe::ddl::dbt::DBT;
use crate::describe::ddl::{Dialect, TableName};

/// Rows that `outhaul demo` makes at most: about 100 GB of private tables.
const DEMO_ROWS_MAX: u64 = 1_000_000_000;

const EXAMPLES: &str = "\
Examples:
  outhaul export --from postgres://me@localhost/shop --table public.orders --to ./orders
  outhaul export --from env:SHOP_URL --table orders --to s3://lake/orders/{date}/ --readers 8
  outhaul export --table orders --where \"created_at >= date '2026-01-01'\" --columns id,amount \\
      --format csv --compression zstd --to ./orders-2026
  outhaul export --query 'select id, total from orders' --key id --format ndjson --to - | head

Exit codes: 0 complete, 3 truncated by a cap, 2 usage, 10-16 source, 20-23 destination, 130 and 143 stopped.
A key of config/default.toml, its flag and its variable share one name: part_size, --part-size, OUTHAUL_PART_SIZE.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  outhaul verify s3://lake/orders/                       sizes, and the checksums that the store keeps
  outhaul verify ./orders --read-data                    every byte and every value
  outhaul verify ./orders --against-source --from env:SHOP_URL

Without --from, --against-source connects as `outhaul export` does: DATABASE_URL, PG* variables, ~/.pgpass.
It runs the query and the predicate that the manifest holds, in a read-only transaction.
Exit codes: 0 verified, 30 something differs, 2 usage, 10-16 source, 20-21 destination.";

const RESUME_EXAMPLES: &str = "\
Examples:
  outhaul resume s3://lake/orders/2026-11-21/ --from env:SHOP_URL
  outhaul resume ./orders --from postgres://me@localhost/shop

Partitions that were uploaded whole are not read again. The rest is read under the run's own snapshot, which must still
be held: by --keep-snapshot of the export, or by `outhaul keep`. A run that is alive is not touched without --take-over.
Exit codes: those of `outhaul export`; 22 where the run is alive, 12 where nobody holds the snapshot any more, 2 where
there is no run.";

const RUN_HELP: &str = "\
Examples:
  outhaul run nightly.toml --from env:SHOP_URL
  outhaul run nightly.toml --only 'public.*' --dry-run
  outhaul run nightly.toml --run-id 2026-11-28 --report json

config/job.example.toml shows a job file. Each export has its own folder and its own manifest; the run's record is
ROOT/_runs/RUN-ID.json. The same command with the same --run-id is the retry: what has committed stays.
Exit code: the gravest of the exports', 3 only if all others are 0 or 3.";

const LS_HELP: &str = "\
Examples:
  outhaul ls --from postgres://me@localhost/shop
  outhaul ls 'sales.*' --from env:SHOP_URL --json

Without --from it connects as `outhaul export` does: DATABASE_URL, PG* variables, ~/.pgpass. It reads the catalog alone.
A partition is counted in its table's line, and has one of its own where it is named.
Exit codes: 0, 13 where nothing has such a name, 2 usage, 10-16 source.";

const SHOW_HELP: &str = "\
Reads the manifest and the records of runs, and no part. Finds a single file by itself.
Exit codes: 0 something is there, 30 nothing is, 2 usage, 20-21 destination.";

const CLEAN_HELP: &str = "\
Removes uploads, staged files and records of runs that died, and parts that no manifest names. A run that died after its
manifest is finished instead. A run that is alive is left alone, and so is all that no journal names.
Needs the right to delete (config/s3-cleaner-policy.json).
DEST may be the root of a job: then the destinations of all its runs are cleaned.";

const SERVE_HELP: &str = "\
config/service.example.toml shows every key; config/service.md says what is answered.
Ends with SIGINT or SIGTERM: no new requests, ten seconds for the streams, then they break off.
Exit codes: 0 stopped by a signal, 2 usage or configuration.";

const KEEP_HELP: &str = "\
Waits for the run at DEST to begin, imports its snapshot and holds it, with its locks, until the run has ended or is
cleaned away, a session has waited too long for the locks, or the time is up. Ends at once where the export is finished.
The root of a job whose exports wait for workers is a DEST too: the snapshot of all of them is held.
Exit codes: 0 the run ended, 12 the snapshot is gone, 16 gave way or the time was up.";

pub(crate) fn command() -> Command {
    Command::new("outhaul")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Parallel, partitioned bulk export from PostgreSQL: one snapshot, one true manifest")
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_options(
            Command::new("export")
                .about("Export a table or a query and commit it with one manifest")
                .after_help(EXAMPLES)
                .arg(dry_run("only show what would be read and written, as `outhaul plan` does")),
        ))
        .subcommand(with_options(
            Command::new("plan")
                .about("Show what an export would read and write; reads no rows")
                .after_help("Takes the options of `outhaul export`; --report json prints the plan as JSON."),
        ))
        .subcommand(run())
        .subcommand(pull::flags::command())
        .subcommand(worker_args::command())
        .subcommand(resume())
        .subcommand(clean())
        .subcommand(verify())
        .subcommand(ls())
        .subcommand(show())
        .subcommand(ddl())
        .subcommand(keep())
        .subcommand(serve())
        .subcommand(demo())
}

/// The names of the commands.
pub(crate) fn names(command: &Command) -> Vec<String> {
    command.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

fn verify() -> Command {
    let mut command = Command::new("verify")
        .about("Check that a destination holds exactly what its manifest says; exit 30 if not")
        .after_help(VERIFY_EXAMPLES)
        .arg(dest())
        .arg(
            Arg::new("read_data")
                .long("read-data")
                .action(ArgAction::SetTrue)
                .help("read every part again: checksum, schema, row count, NULLs, least and greatest values"),
        )
        .arg(single_file())
        .arg(Arg::new("against_source").long("against-source").action(ArgAction::SetTrue).help(
            "count the rows again in PostgreSQL: under the run's snapshot while it is held, else as they are now",
        ))
        .arg(report())
        .args(report_file());
    command = command.args(env_file());
    for option in of_connection() {
        // A config file alone connects to nothing.
        command = command.arg(argument(option).help_heading("With --against-source").requires("against_source"));
    }
    command.args(looks()).args(common())
}

fn ls() -> Command {
    let mut command = Command::new("ls")
        .about("List the tables and views that could be exported")
        .after_help(LS_HELP)
        .arg(Arg::new("pattern").value_name("PATTERN").help("only these: a name, or a schema and a name, with * and ?"))
        .arg(report())
        .arg(json())
        .args(env_file());
    for option in of_connection() {
        command = command.arg(argument(option));
    }
    command.next_help_heading("For people").args(looks()).args(common())
}

fn show() -> Command {
    Command::new("show")
        .about("Show what an export holds, who is at work there, and what died there")
        .after_help(SHOW_HELP)
        .arg(dest())
        .arg(single_file())
        .arg(report())
        .arg(json())
        .args(env_file())
        .args(looks())
        .args(common())
}

fn ddl() -> Command {
    Command::new("ddl")
        .about("Print the SQL with which another engine reads an export")
        .arg(dest())
        .arg(
            Arg::new("dialect")
                .long("dialect")
                .value_name("ENGINE")
                .required(true)
                .value_parser(PossibleValuesParser::new(Dialect::ALL.map(Dialect::name).into_iter().chain([DBT])))
                .help("whose SQL; dbt: its sources"),
        )
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("SCHEMA.TABLE")
                .value_parser(TableName::parse)
                .help("the table's or view's name; the relation's own unless given"),
        )
        .args(env_file())
        .args(looks())
        .args(common())
}

fn dest() -> Arg {
    Arg::new("dest").value_name("DEST").required(true).help("the destination, as given to export")
}

fn single_file() -> Arg {
    Arg::new("single_file")
        .long("single-file")
        .action(ArgAction::SetTrue)
        .help("DEST is the one file of a --single-file export")
}

fn resume() -> Command {
    let mut command = Command::new("resume")
        .about("Go on with a run that died, or with a whole job by its root")
        .after_help(RESUME_EXAMPLES)
        .arg(dest())
        .arg(single_file())
        .arg(Arg::new("allow_mixed_snapshot").long("allow-mixed-snapshot").action(ArgAction::SetTrue).help(
            "where the run's snapshot is gone, read the rest of a run that is split by key under a new one",
        ))
        .arg(Arg::new("unfinished").long("unfinished").action(ArgAction::SetTrue).help(
            "where no run is unfinished, end with 2 instead of reporting the export that stands: a script begins one then",
        ))
        .arg(Arg::new("take_over").long("take-over").action(ArgAction::SetTrue).help(
            "go on with the run although its process is alive, or is on another machine and may be; that process ends",
        ))
        .args(env_file());
    for option in of_resume() {
        let argument = argument(option);
        // What a new run does by default is not what this one did.
        let own = format!("{} [default: as many as the run had]", option.help);
        command = command.arg(if option.key == "readers" { argument.help(own) } else { argument });
    }
    command.next_help_heading("For people").args(common())
}

fn run() -> Command {
    let names = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name("NAMES").value_delimiter(',').action(ArgAction::Append).help(help)
    };
    let mut command = Command::new("run")
        .about("Export all that a job file names, under one snapshot")
        .after_help(RUN_HELP)
        .arg(Arg::new("job").value_name("JOB.toml").required_unless_present("schema").help("what is exported"))
        .arg(names("only", "only these exports: names, with * and ?"))
        .arg(names("except", "all exports but these"))
        .arg(dry_run("only show what would be read"))
        .arg(Arg::new("schema").long("schema").action(ArgAction::SetTrue).help("print the JSON Schema of a job file"));
    for option in of_run() {
        command = command.arg(argument(option));
    }
    command.next_help_heading("For people").args(common())
}

fn clean() -> Command {
    Command::new("clean")
        .about("Remove what dead runs left at a destination, and nothing else")
        .after_help(CLEAN_HELP)
        .arg(dest())
        .arg(single_file())
        .arg(dry_run("only show what would be removed"))
        .arg(report())
        .args(report_file())
        .args(env_file())
        .args(looks())
        .args(common())
}

fn keep() -> Command {
    let mut command = Command::new("keep")
        .about("Hold a run's snapshot in the foreground, so that it outlives the run")
        .after_help(KEEP_HELP)
        .arg(dest().required_unless_present("handed_over").required(false))
        .arg(single_file())
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("DURATION")
                .default_value(default_entry("keep", "for").unwrap_or_default())
                .value_parser(crate::config::duration)
                .help("hold it so long at most"),
        )
        .arg(
            Arg::new("run_id")
                .long("run-id")
                .value_name("ID")
                .help("the run; the one that is at work at DEST unless given"),
        )
        .arg(Arg::new("handed_over").long("handed-over").action(ArgAction::SetTrue).hide(true))
        .args(env_file());
    for option in of_keep() {
        command = command.arg(argument(option));
    }
    command.next_help_heading("For people").args(looks()).args(common())
}

fn serve() -> Command {
    Command::new("serve")
        .about("Serve rows over HTTP, as a file declares them")
        .after_help(SERVE_HELP)
        .arg(Arg::new("config").long("config").value_name("FILE").required(true).help("what is served, and to whom"))
        .arg(
            Arg::new("role")
                .long("role")
                .value_name("ROLE")
                .value_parser(PossibleValuesParser::new(ServiceRole::ALL.map(|(name, _)| name)).map(|name| {
                    ServiceRole::ALL
                        .into_iter()
                        .find(|(known, _)| *known == name)
                        .map(|(_, role)| role)
                        .unwrap_or_default()
                }))
                .help("what this process does: all, api (answers callers) or worker (runs jobs)"),
        )
        .arg(Arg::new("check").long("check").action(ArgAction::SetTrue).help("only check the file"))
        .args(env_file())
        .args(looks())
        .args(common())
}

fn demo() -> Command {
    Command::new("demo")
        .about("A private PostgreSQL, a million rows, an export, a verify: nothing to set up")
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("N")
                .default_value(default_entry("demo", "rows").unwrap_or_default())
                .value_parser(clap::value_parser!(u64).range(1..=DEMO_ROWS_MAX))
                .help("rows to generate"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .default_value(default_entry("demo", "dir").unwrap_or_default())
                .help("where the server's files and the export go"),
        )
        .arg(
            Arg::new("serve")
                .long("serve")
                .action(ArgAction::SetTrue)
                .help("serve the rows over HTTP, as `outhaul serve` does, until Ctrl-C"),
        )
        .arg(
            report().requires("serve").help("with --serve: text, or one JSON line that says where and with which keys"),
        )
        .args(looks())
        .args(common())
}

/// For the commands that have none of the options for people.
pub(super) fn looks() -> impl Iterator<Item = Arg> {
    ["color", "log_format"].into_iter().filter_map(by_key).map(argument)
}

/// For the commands that have no other option of an export but read a destination, whose credentials the file may have.
pub(super) fn env_file() -> Option<Arg> {
    by_key("env_file").map(argument)
}

pub(super) fn report_file() -> Option<Arg> {
    by_key("report_file").map(argument)
}

pub(super) fn report() -> Arg {
    Arg::new("report")
        .long("report")
        .value_name("text|json")
        .value_parser(["text", "json"])
        .help("the end report: text, or one JSON line")
}

pub(super) fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("the same as --report json")
}

pub(super) fn common() -> [Arg; 2] {
    [
        Arg::new("verbose")
            .short('v')
            .long("verbose")
            .action(ArgAction::Count)
            .help("more log lines; twice for still more"),
        Arg::new("quiet")
            .short('q')
            .long("quiet")
            .action(ArgAction::SetTrue)
            .conflicts_with("verbose")
            .help("no log lines but errors, no progress"),
    ]
}

fn dry_run(help: &'static str) -> Arg {
    Arg::new("dry_run").long("dry-run").action(ArgAction::SetTrue).help(help)
}

fn with_options(mut command: Command) -> Command {
    let table = Arg::new("relation").value_name("TABLE").conflicts_with_all(["table", "query"]);
    command = command.arg(table.help("the table, as --table has it"));
    for option in OPTIONS {
        command = command.arg(argument(option));
    }
    command.next_help_heading("For people").args(common())
}

pub(super) fn argument(option: &OptionInfo) -> Arg {
    let default = shown_default(option).map_or(String::new(), |default| format!(" [default: {default}]"));
    let argument = Arg::new(option.key)
        .short(option.short)
        .long(option.flag())
        .visible_aliases(option.aliases)
        .help(format!("{}{default}", option.help))
        .help_heading(option.heading.title())
        // One is a wrong value, and told by its option.
        .allow_negative_numbers(option.arity != Arity::Switch);
    match option.arity {
        Arity::Switch => argument.action(ArgAction::SetTrue),
        Arity::One => argument.value_name(option.value).action(ArgAction::Set).allow_hyphen_values(option.hyphens),
        Arity::Many => argument.value_name(option.value).action(ArgAction::Append),
    }
}

/// A default as the help shows it; nothing for switches that are off.
fn shown_default(option: &OptionInfo) -> Option<String> {
    match default_of(option)? {
        _ if option.arity == Arity::Switch => None,
        text if text.is_empty() => Some("\"\"".to_owned()),
        text => Some(text),
    }
}

/// The options of an export that a command takes and that were given as flags, as config key and values.
pub(crate) fn flags(matches: &ArgMatches) -> Vec<(&'static str, Vec<String>)> {
    let given = |option: &&OptionInfo| {
        // The command may not take it.
        let flag = matches.try_contains_id(option.key).unwrap_or(false);
        flag && matches.value_source(option.key) == Some(ValueSource::CommandLine)
    };
    let values = |option: &OptionInfo| match option.arity {
        Arity::Switch => vec!["true".to_owned()],
        Arity::One | Arity::Many => matches.get_many::<String>(option.key).into_iter().flatten().cloned().collect(),
    };
    let table = matches.try_get_one::<String>("relation").ok().flatten().map(|table| ("table", vec![table.clone()]));
    OPTIONS.iter().filter(given).map(|option| (option.key, values(option))).chain(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that follow a flag in a sentence about it.
    const SENTENCE: [&str; 13] =
        ["is", "has", "are", "and", "or", "asks", "names", "in", "of", "writes", "reads", "gives", "needs"];

    /// The sources outside tests: what they name may be printed, but for the properties of a style sheet.
    fn sources(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.to_str().unwrap().contains("tests") && !path.ends_with("console.css") {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
                // A string that goes on in the next line.
                let joined: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
                found.push((path.display().to_string(), joined.concat()));
            }
        }
    }

    /// Each flag in a hint, and each value of a choice behind it: `--flag word` and `--flag one|another`.
    #[test]
    fn every_flag_that_is_named_anywhere_exists() {
        let command = command();
        let commands: Vec<&Command> = std::iter::once(&command).chain(command.get_subcommands()).collect();
        let ours: Vec<&str> =
            commands.iter().flat_map(|command| command.get_arguments()).filter_map(clap::Arg::get_long).collect();
        // Of other programs, and of examples of mistakes.
        let others = ["help", "version", "flag", "yes", "serve", "exact", "show-progress", "profile"];
        let mut texts = Vec::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let mut seen = 0;
        for (path, text) in &texts {
            for (at, _) in text.match_indices("--") {
                let rule = text[at + 2..].starts_with('-');
                if rule || text[..at].ends_with(|c: char| c.is_alphanumeric() || "-<!".contains(c)) {
                    continue;
                }
                let rest = &text[at + 2..];
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).unwrap_or(0);
                let (flag, rest) = rest.split_at(end);
                if flag.is_empty()
                    || others.contains(&flag)
                    || path.contains("/demo/")
                    || path.ends_with("aws_profile.rs")
                {
                    continue;
                }
                assert!(ours.contains(&flag), "{path}: there is no --{flag}");
                seen += 1;
                let Some(option) = by_key(&flag.replace('-', "_")) else { continue };
                let (true, Some(rest)) = (option.value.contains('|'), rest.strip_prefix(' ')) else { continue };
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || "-|".contains(c))).unwrap_or(rest.len());
                let words: Vec<&str> = rest[..end].split('|').filter(|word| !SENTENCE.contains(word)).collect();
                for word in words.into_iter().filter(|word| !word.is_empty()) {
                    let known =
                        option.value.split('|').any(|choice| choice == word) || option.value.contains("DURATION");
                    assert!(known, "{path}: --{flag} does not take {word}");
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    fn given(line: &[&str]) -> Vec<(&'static str, Vec<String>)> {
        let matches = command().try_get_matches_from(["outhaul", "export"].iter().chain(line)).unwrap();
        flags(matches.subcommand().unwrap().1)
    }

    #[test]
    fn flags_are_kept_as_written() {
        let sorted = |line: &[&str]| {
            let mut flags = given(line);
            flags.sort_unstable();
            flags
        };
        assert_eq!(sorted(&["orders", "-o", "x.csv"]), sorted(&["-t", "orders", "--to", "x.csv"]));
        for with in ["--table=t", "--query=select 1"] {
            assert!(command().try_get_matches_from(["outhaul", "export", "orders", with]).is_err(), "{with}");
        }
        let line = ["--to", "-", "-j", "8", "--column", "a=-b", "--column", "c=d", "--csv-bom", "--where", "-1 < x"];
        let mut flags = given(&line);
        flags.sort_unstable();
        let expected = [
            ("column", vec!["a=-b", "c=d"]),
            ("csv_bom", vec!["true"]),
            ("readers", vec!["8"]),
            ("to", vec!["-"]),
            ("where", vec!["-1 < x"]),
        ];
        assert_eq!(flags, expected.map(|(key, values)| (key, values.into_iter().map(str::to_owned).collect())));
    }

    #[test]
    fn an_option_may_have_other_flags() {
        let mut row = *by_key("readers").unwrap();
        (row.short, row.aliases) = (Some('R'), &["with"]);
        for flag in ["--readers", "--with", "-R"] {
            let command = Command::new("outhaul").arg(argument(&row));
            let matches = command.try_get_matches_from(["outhaul", flag, "8"]).unwrap();
            assert_eq!(flags(&matches), [("readers", vec!["8".to_owned()])], "{flag}");
        }
    }

    #[test]
    fn help_shows_what_works_with_its_default_and_hides_the_rest() {
        let mut whole = command();
        let export = whole.find_subcommand_mut("export").unwrap();
        let help = export.render_long_help().to_string();
        for option in OPTIONS {
            let flag = format!("--{}", option.flag());
            let shown = help.lines().any(|line| line.split_whitespace().any(|word| word == flag));
            assert!(shown, "{flag}");
            let text = export.get_arguments().find(|argument| argument.get_id() == option.key).unwrap().get_help();
            let default = shown_default(option).map(|default| format!("[default: {default}]"));
            assert!(default.is_none_or(|default| text.unwrap().to_string().ends_with(&default)), "{flag}");
        }
    }

    #[test]
    fn resume_reads_with_as_many_as_the_run_had() {
        let mut whole = command();
        let help = whole.find_subcommand_mut("resume").unwrap().render_long_help().to_string();
        assert!(help.contains("[default: as many as the run had]") && !help.contains("[default: 4]"), "{help}");
    }

    #[test]
    fn the_demo_has_defaults() {
        let matches = command().try_get_matches_from(["outhaul", "demo"]).unwrap();
        let matches = matches.subcommand().unwrap().1;
        assert_eq!(matches.get_one::<u64>("rows"), Some(&1_000_000));
        assert_eq!(matches.get_one::<String>("dir").unwrap(), "outhaul-demo");
    }
}
