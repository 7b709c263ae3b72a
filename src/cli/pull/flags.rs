//! The command line of `outhaul pull`.

use clap::{Arg, ArgAction, Command};

use super::super::args::{common, env_file, json, looks, report, report_file};

const PULL_HELP: &str = "\
Examples:
  export OUTHAUL_API_KEY=…
  outhaul pull https://data.example.com --dataset orders -o orders.csv
  outhaul pull https://data.example.com --dataset orders --columns id,total --filter 'status=new' -o - | head

Rows go to FILE.partial, which becomes FILE once the service's receipt agrees in status, rows and checksum.
The API key comes from OUTHAUL_API_KEY, --api-key-file or --api-key-command.
Exit codes: 0 complete, 3 truncated by the key's cap, 2 usage, 10 refused, 11 broken off or not proved to be whole,
13 no such dataset, 14 no rows, 16 try later, 20-23 the file, 30 the rows are not what the receipt says.";

/// The command's shape.
pub(crate) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name.replace('_', "-")).value_name(value).help(help)
    };
    let several = |name: &'static str, value, help| one(name, value, help).action(ArgAction::Append);
    Command::new("pull")
        .about("Download rows from a service (outhaul serve), checked, whole or not at all")
        .after_help(PULL_HELP)
        .arg(Arg::new("url").value_name("URL").required(true).help("the service's address, without /v1"))
        .arg(one("dataset", "NAME", "the dataset").required(true))
        .arg(one("analysis", "NAME", "the analysis that --bucket-key is of").requires("bucket_key"))
        .arg(one("bucket_key", "KEY", "only the rows of this bucket").requires("analysis").allow_hyphen_values(true))
        .arg(several("columns", "NAMES", "the columns, in this order, separated by commas"))
        .arg(several("filter", "FILTER", "only rows such as 'status=new'; all of several must hold"))
        .arg(one("date_from", "DAY", "only rows of this day and later"))
        .arg(one("date_to", "DAY", "only rows of this day and earlier"))
        .arg(several("order_by", "COLUMN[:desc]", "the order of the rows"))
        .arg(
            one("format", "ndjson|csv", "the format [default: csv for a file named so, else ndjson]")
                .value_parser(["ndjson", "csv"]),
        )
        .arg(Arg::new("output").short('o').long("output").value_name("FILE|-").required(true).help("where the rows go"))
        .arg(
            one("on_existing", "fail|replace", "where FILE is there already [default: fail]")
                .value_parser(["fail", "replace"]),
        )
        .arg(Arg::new("allow_empty").long("allow-empty").action(ArgAction::SetTrue).help("no rows are an answer"))
        .arg(
            Arg::new("allow_truncated")
                .long("allow-truncated")
                .action(ArgAction::SetTrue)
                .help("exit 0 and not 3 where the cap of the key cut rows off"),
        )
        .arg(one("api_key_file", "FILE", "the API key is the first line of this file"))
        .arg(one("api_key_command", "COMMAND", "this command prints the API key").conflicts_with("api_key_file"))
        .arg(report())
        .args(report_file())
        .arg(json())
        .args(env_file())
        .args(looks())
        .args(common())
}
