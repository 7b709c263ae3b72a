use super::options::OPTIONS;
use super::raw::DEFAULTS;
use super::*;

#[test]
fn every_option_is_named_once_in_the_defaults_or_has_none() {
    // Below stand the tables, of which those of the presets name some options again.
    let settings = DEFAULTS.split("\n[by_format]").next().unwrap();
    for option in OPTIONS {
        let named = settings.lines().filter(|line| line.split(" =").next() == Some(option.key)).count();
        assert_eq!(named, usize::from(default_of(option).is_some()), "{}", option.key);
    }
}

#[test]
fn the_options_table_has_a_row_for_each_option() {
    let table = options_markdown();
    assert_eq!(table.lines().count(), OPTIONS.len() + 2);
    assert!(
        table.contains("| `-j` `--readers` | `OUTHAUL_READERS` | `4` | connections that read at the same time |\n")
    );
    assert!(table.contains("| `--csv-null` | `OUTHAUL_CSV_NULL` | `\"\"` |"), "{table}");
    for line in table.lines() {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
    }
}

#[test]
fn the_example_file_is_right() {
    let file = include_str!("../../config/export.example.toml");
    let environment = Environment::of([("WAREHOUSE_URL", "postgres://u:p@db.example/w")], [("/e.toml", file)]);
    let (request, _) = load(vec![("config", vec!["/e.toml".to_owned()])], &environment, true).unwrap();
    assert_eq!(request.work.readers.get(), 8);
    let file = file.replace("# [tiers]\n# trial", "[tiers]\ntrial");
    let environment = Environment::of([("WAREHOUSE_URL", "postgres://u:p@db.example/w")], [("/e.toml", file.as_str())]);
    let trial = vec![("config", vec!["/e.toml".to_owned()]), ("tier", vec!["trial".to_owned()])];
    let (request, _) = load(trial, &environment, true).unwrap();
    assert_eq!(request.work.cap.unwrap().max_rows.unwrap().get(), 1_000);
}

#[test]
fn no_debug_of_the_environment_shows_a_value() {
    let environment = Environment::of([("PGPASSWORD", "canary")], [("/h/.pgpass", "*:*:*:*:canary")]);
    let shown = format!("{environment:?}");
    assert!(shown.contains("PGPASSWORD") && !shown.contains("canary"), "{shown}");
}
