//! What a person reads before the first export: `-h` in one screen, `--help` in groups, `help TOPIC` from the files of
//! `config/`, completions, manual pages and the version.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use super::screen::stdout_line;
use crate::config::options::OPTIONS;

/// The commands in the order in which they are met, and what they are for.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Export", &["export", "plan", "run", "serve", "pull", "demo"]),
    ("Look and learn", &["ls", "show", "verify", "ddl", "help", "completions"]),
    ("After a failure", &["resume", "clean", "keep"]),
];

/// Pages beside the help of the commands, as they stand in `config/`.
const TOPICS: [(&str, &str); 8] = [
    ("types", include_str!("../../config/types.md")),
    ("connecting", include_str!("../../config/connecting.md")),
    ("clickhouse", include_str!("../../config/clickhouse.md")),
    ("output", include_str!("../../config/output.md")),
    ("jobs", include_str!("../../config/jobs.md")),
    ("schedulers", include_str!("../../config/schedulers.md")),
    ("exit-codes", include_str!("../../config/exit-codes.md")),
    ("recipes", include_str!("../../config/recipes.md")),
];

/// The commonest uses.
const USES: &str = "\
Common uses:
  outhaul export orders --to orders.csv             one CSV file
  outhaul export orders --to ./orders               a folder of Parquet, read in parallel
  outhaul export --query 'select id, total from orders' --format ndjson --to - | head";

const POINTERS: &str = "\
help TOPIC: options, types, connecting, clickhouse, output, jobs, schedulers, exit-codes, recipes.";

/// The options that `export -h` shows.
const COMMON: [&str; 8] = ["from", "table", "query", "to", "format", "where", "columns", "readers"];

/// Carries out `help`, `completions` and `man`; nothing for any other command.
pub(super) fn shown(name: &str, matches: &ArgMatches, command: &mut Command) -> Option<Result<(), String>> {
    let word = |id: &str| matches.get_one::<String>(id).map(String::as_str);
    Some(match name {
        "help" => page(word("topic"), command).map(|text| stdout_line(text.trim_end())),
        "completions" => completions(word("shell").unwrap_or_default(), command),
        "man" => manual(word("topic"), command),
        _ => return None,
    })
}

/// Adds what is for people: pages, groups, completions, the version.
pub(super) fn dressed(command: Command) -> Command {
    let help = Command::new("help")
        .about("Show the help of a command or a topic")
        .arg(Arg::new("topic").value_name("COMMAND|TOPIC").help("a command, or one of the topics"));
    let completions = Command::new("completions").about("Print completions for bash, zsh or fish").arg(
        Arg::new("shell").value_name("SHELL").required(true).value_parser(["bash", "zsh", "fish"]).help("the shell"),
    );
    let man = Command::new("man")
        .about("Print a manual page")
        .hide(true)
        .arg(Arg::new("topic").value_name("COMMAND").help("a command; the program itself unless given"));
    let command = command
        .long_version(long_version())
        .disable_help_subcommand(true)
        .subcommand(help)
        .subcommand(completions)
        .subcommand(man);
    let groups = groups(&command);
    command.help_template(format!("{{about}}\n\n{groups}{USES}\n{POINTERS}\n"))
}

/// The commands by group, a line each.
fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let _ = about.map(|about| writeln!(text, "  {name:<12} {about}"));
        }
    }
    text
}

/// The one screen of `outhaul export -h` and `outhaul plan -h`; nothing where clap's own help is to be shown.
pub(super) fn short(arguments: &[OsString], command: &Command) -> Option<String> {
    let name = arguments.get(1)?.to_str().filter(|name| ["export", "plan"].contains(name))?;
    let wants_short = arguments.iter().any(|argument| argument == "-h");
    if !wants_short || arguments.iter().any(|argument| argument == "--help") {
        return None;
    }
    let command = command.find_subcommand(name)?;
    let mut text = format!("{}\n\nUsage: outhaul {name} [TABLE] --to DEST [OPTIONS]\n\n", command.get_about()?);
    for key in COMMON {
        let argument = command.get_arguments().find(|argument| argument.get_id() == key)?;
        let short = argument.get_short().map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = argument.get_value_names().and_then(<[_]>::first).map_or("", |value| value.as_str());
        let flag = format!("--{} {value}", argument.get_long()?);
        let help = argument.get_help()?.to_string();
        let help = [": ", ";", " [", ", quoted", " (."]
            .iter()
            .fold(help.as_str(), |help, end| help.split(end).next().unwrap_or(help));
        let _ = writeln!(text, "  {short}{flag:<20} {help}");
    }
    let _ = write!(text, "\n{USES}\n\n--help shows all options.\n{POINTERS}");
    Some(text)
}

/// `outhaul help`, `outhaul help export`, `outhaul help types`; what is wrong where there is no such page.
fn page(topic: Option<&str>, command: &mut Command) -> Result<String, String> {
    let Some(topic) = topic else { return Ok(command.render_long_help().to_string()) };
    if topic == "options" {
        return page(Some("export"), command);
    }
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| *name == topic) {
        return Ok(plain(text));
    }
    let known: Vec<String> = names(command).into_iter().chain(topics()).collect();
    command.build();
    match command.find_subcommand_mut(topic) {
        Some(found) => Ok(found.render_long_help().to_string()),
        None => Err(format!("there is no help on {topic}: choose {}", known.join(", "))),
    }
}

fn names(command: &Command) -> Vec<String> {
    command.get_subcommands().filter(|one| !one.is_hide_set()).map(|one| one.get_name().to_owned()).collect()
}

fn topics() -> impl Iterator<Item = String> {
    std::iter::once("options").chain(TOPICS.map(|(name, _)| name)).map(str::to_owned)
}

/// Markdown as it is read in a terminal: without comments, and links as their texts.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    for line in markdown.lines().filter(|line| !line.starts_with("<!--")) {
        let mut rest = line;
        while let Some((before, link)) = rest.split_once('[') {
            match link.split_once("](").and_then(|(label, target)| Some((label, target.split_once(')')?))) {
                Some((label, (_, after))) if !label.contains(['[', ']']) => {
                    text.push_str(before);
                    text.push_str(label);
                    rest = after;
                }
                _ => {
                    text.push_str(before);
                    text.push('[');
                    rest = link;
                }
            }
        }
        text.push_str(rest);
        text.push('\n');
    }
    text
}

/// The completions for a shell, on standard output.
fn completions(shell: &str, command: &mut Command) -> Result<(), String> {
    let shell: Shell = shell.parse()?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut with_words(command.clone()), "outhaul", &mut script);
    stdout_line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

/// The command with the words that each option's value may be, and those of `help`: a shell would offer files.
fn with_words(mut command: Command) -> Command {
    let pages: Vec<String> = names(&command).into_iter().chain(topics()).collect();
    let words = OPTIONS.iter().map(|option| (option.key, option.words())).chain([("topic", pages)]);
    for (key, words) in words.filter(|(_, words)| !words.is_empty()) {
        for subcommand in command.get_subcommands_mut() {
            if subcommand.get_arguments().any(|argument| argument.get_id() == key) {
                let words = PossibleValuesParser::new(words.clone());
                *subcommand = std::mem::take(subcommand).mut_arg(key, |argument| argument.value_parser(words));
            }
        }
    }
    command
}

/// The manual page of the program, or of one command.
fn manual(name: Option<&str>, command: &mut Command) -> Result<(), String> {
    command.build();
    let page = match name {
        None => command.clone(),
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| format!("there is no command {name}"))?,
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(|error| format!("making the manual page: {error}"))?;
    stdout_line(String::from_utf8_lossy(&roff).trim_end());
    Ok(())
}

/// The version with what it was built of: the commit where the build says it, the target, the features.
fn long_version() -> String {
    let commit = option_env!("OUTHAUL_COMMIT").unwrap_or("unknown");
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let target = format!("{}-{}-{libc}", std::env::consts::ARCH, std::env::consts::OS);
    let features: Vec<&str> = [("bench", cfg!(feature = "bench")), ("failpoints", cfg!(feature = "failpoints"))]
        .into_iter()
        .filter_map(|(name, is_on)| is_on.then_some(name))
        .collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!("{} (commit {commit}, {target}, features: {features})", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn whole() -> Command {
        dressed(args::command())
    }

    fn lines(text: &str) -> usize {
        text.trim_end().lines().count()
    }

    #[test]
    fn the_short_help_fits_a_screen() {
        let top = whole().render_help().to_string();
        assert!(
            lines(&top) <= 25 && top.lines().all(|line| line.chars().count() <= 100),
            "{} lines: {top}",
            lines(&top)
        );
        for name in ["export", "plan"] {
            let arguments = ["outhaul", name, "-h"].map(OsString::from);
            let text = short(&arguments, &whole()).unwrap();
            assert!(lines(&text) <= 25 && text.lines().all(|line| line.chars().count() <= 116), "{text}");
            assert_eq!(short(&["outhaul", name, "--help"].map(OsString::from), &whole()), None);
        }
    }

    #[test]
    fn every_command_stands_in_one_group() {
        let mut grouped: Vec<String> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned())).collect();
        let mut all = names(&whole());
        grouped.sort_unstable();
        all.sort_unstable();
        assert_eq!(grouped, all);
    }

    #[test]
    fn every_topic_and_every_command_has_a_page_and_nothing_else_does() {
        for name in names(&whole()).into_iter().chain(topics()) {
            let text = page(Some(&name), &mut whole()).unwrap();
            assert!(lines(&text) > 3, "{name}: {text}");
            assert!(!text.contains("](") && !text.contains("<!--"), "{name}: {text}");
        }
        assert!(page(Some("nothing"), &mut whole()).unwrap_err().contains("types"));
    }

    #[test]
    fn completions_offer_the_words_of_an_option_and_the_topics() {
        let command = with_words(whole());
        let offered = |name: &str, key: &str| {
            let argument = command.find_subcommand(name).unwrap().get_arguments().find(|a| a.get_id() == key).unwrap();
            argument.get_possible_values().iter().map(|word| word.get_name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(offered("export", "format"), ["parquet", "csv", "ndjson", "json", "jsonl", "tsv", "source"]);
        assert_eq!(offered("plan", "on_existing"), ["fail", "skip", "replace"]);
        assert!(offered("help", "topic").contains(&"recipes".to_owned()));
        assert!(offered("export", "to").is_empty());
    }

    #[test]
    fn the_version_names_its_build() {
        let version = whole().render_long_version();
        assert!(
            version.contains("commit ") && version.contains("-linux-") && version.contains("features"),
            "{version}"
        );
        assert!(!whole().render_version().contains("commit"));
    }
}
