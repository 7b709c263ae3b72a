//! The flags of `outhaul worker`.

use clap::{Arg, ArgAction, Command};

use super::args::{argument, common, env_file};
use crate::config::options::of_worker;
use crate::config::raw::default_entry;

const WORKER_HELP: &str = "\
Examples:
  outhaul worker --destination s3://lake/orders/ --shard 0/8 --from env:SHOP_URL
  outhaul worker --destination s3://lake/orders/ --shard auto --shards 8      in each pod of an Indexed Job
  outhaul worker --destination s3://lake/orders/ --run-id ID --epoch 1 --plan-sha256 HASH --partitions 7,12

Reads partitions of the run that `outhaul export --workers external` holds together at DEST, or `outhaul run` at the root of
its job: under its snapshot, on the same server. Prints a line of JSON for each receipt, and one where it fails. Run again it reads only what has no receipt.
Exit codes: 0 all are there, 143 stopped, 22 the run has gone on without it, 16 no run wants workers, 2 another plan or
version; else those of `outhaul export`. Worth another try: 11, 21 and 143. config/cluster.md says more.";

pub(super) fn command() -> Command {
    let fence = ["run_id", "epoch", "plan_sha256"];
    let of_run = |id: &'static str, long: &'static str, value: &'static str| {
        let others: Vec<&str> = fence.into_iter().filter(|other| *other != id).collect();
        Arg::new(id).long(long).value_name(value).requires_all(others)
    };
    let number = |id: &'static str, value: &'static str| {
        Arg::new(id).long(id).value_name(value).value_parser(clap::value_parser!(u32))
    };
    let mut command = Command::new("worker")
        .about("Read some partitions of a run with --workers external")
        // Programs run it; the short help has room for what people do.
        .hide(true)
        .after_help(WORKER_HELP)
        .arg(Arg::new("destination").long("destination").value_name("DEST").required(true).help("where the run writes"))
        .arg(
            of_run("run_id", "run-id", "ID")
                .help("the run, as its line `ready` has it; whichever is there unless given"),
        )
        .arg(of_run("epoch", "epoch", "N").value_parser(clap::value_parser!(u64)).help("its epoch, from the same line"))
        .arg(of_run("plan_sha256", "plan-sha256", "HASH").help("the SHA-256 of its plan, from the same line"))
        .arg(
            // An option of an export has the name too, and is another thing.
            Arg::new("numbers")
                .long("partitions")
                .value_name("[EXPORT:]N,N")
                .action(ArgAction::Append)
                .required_unless_present("shard")
                .conflicts_with_all(["shard", "shards"])
                .requires_all(fence)
                .help("read these partitions; of a job those of an export, by its number or its name"),
        )
        .arg(
            Arg::new("shard").long("shard").value_name("I/N|auto").help(
                "read the Ith of N shares, from 0; auto takes the index that Kubernetes, AWS Batch or Slurm gives",
            ),
        )
        .arg(number("shards", "N").requires("shard").help("with --shard auto: how many workers there are"))
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("DURATION")
                .default_value(default_entry("worker", "wait").unwrap_or_default())
                .value_parser(crate::config::duration)
                .help("wait so long for a run that wants workers"),
        )
        .args(env_file());
    for option in of_worker() {
        command = command.arg(argument(option));
    }
    command.next_help_heading("For people").args(common())
}
