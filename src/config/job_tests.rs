use std::path::Path;
use std::sync::Arc;

use super::job::{JobChoice, JobFile, schema, shared};
use super::{ConfigErrors, Environment};
use crate::export::job::JobRequest;
use crate::model::{Format, ListedRelation, OnError, ReadableRows, RelationKind, SplitWay, Target};

const URL: &str = "postgres://me@db/shop";

fn listed(names: &[(&str, &str)]) -> Vec<ListedRelation> {
    let relation = |(schema, name): &(&str, &str)| ListedRelation {
        table: format!("{schema}.{name}"),
        schema: (*schema).to_owned(),
        name: (*name).to_owned(),
        kind: RelationKind::Table,
        part_of: None,
        tables: 1,
        estimated_rows: None,
        bytes: None,
        key: Vec::new(),
        split: SplitWay::Blocks,
        readable: ReadableRows::All,
    };
    names.iter().map(relation).collect()
}

fn with(text: &str, variables: &[(&str, &str)], choice: &JobChoice) -> Result<JobRequest, ConfigErrors> {
    let environment = Environment::of(variables.iter().copied(), [("/job.toml", text)]);
    let file = JobFile::read(Path::new("/job.toml"), &environment)?;
    let flags = vec![("from", vec![URL.to_owned()])];
    let source = file.source(flags.clone(), &environment)?;
    let all = listed(&[("public", "orders"), ("public", "items"), ("public", "tmp_1"), ("hr", "people")]);
    let job = file.job(&flags, &environment, &Arc::clone(&source), &all, choice)?.0;
    assert!(job.exports.iter().all(|export| Arc::ptr_eq(&export.request.source, &source)));
    assert!(job.exports.iter().all(|export| export.request.commit.run_id == job.run_id));
    Ok(job)
}

fn job(text: &str) -> Result<JobRequest, ConfigErrors> {
    with(text, &[], &JobChoice::default())
}

fn places(job: &JobRequest) -> Vec<(String, String)> {
    let place = |target: &Target| match target {
        Target::Destination(to) => to.clone(),
        Target::Stream { .. } => "-".to_owned(),
    };
    job.exports.iter().map(|export| (export.name.clone(), place(&export.request.commit.target))).collect()
}

fn mistakes(result: Result<JobRequest, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|error| format!("{} ({})", error.what, error.hint)).collect()
}

#[test]
fn exports_have_the_defaults_their_own_settings_and_none_that_they_unset() {
    let job = job("on_error = 'stop'\n[defaults]\nto = 's3://lake/{date}/{schema}/{table}'\ndate = 2026-11-28\n\
        format = 'csv'\ncsv_delimiter = ';'\nwhere = 'id > 7'\nmax_rows = 10\n\
        [[export]]\ntable = 'public.orders'\n\
        [[export]]\ntable = 'hr.people'\nunset = ['where', 'csv_delimiter']\nformat = 'ndjson'\nmax_rows = 5\n\
        [[export]]\nname = 'totals'\nquery = 'select 1 as one'\nto = 's3://lake/totals'\n")
    .unwrap();
    assert_eq!((job.root.as_str(), job.on_error), ("s3://lake", OnError::Stop));
    let expected = [
        ("public.orders", "s3://lake/2026-11-28/public/orders"),
        ("hr.people", "s3://lake/2026-11-28/hr/people"),
        ("totals", "s3://lake/totals"),
    ];
    assert_eq!(places(&job), expected.map(|(name, to)| (name.to_owned(), to.to_owned())));
    let [orders, people, totals] = job.exports.as_slice() else { panic!("{:?}", places(&job)) };
    let rows =
        |export: &crate::export::job::JobExport| export.request.work.cap.as_ref().unwrap().max_rows.unwrap().get();
    assert_eq!((orders.request.format.csv.delimiter, rows(orders), rows(people), rows(totals)), (b';', 10, 5, 10));
    assert_eq!((people.request.format.format, people.request.shape.predicate.as_deref()), (Format::Ndjson, None));
    assert_eq!(orders.request.shape.predicate.as_deref(), Some("id > 7"));
}

#[test]
fn a_tilde_is_the_home_directory_of_all_that_a_job_writes() {
    let (night, load) = ("to = '~/night/{table}'\n", "to = '~/night/{table}/load={run_id}'\nwatermark = 'ts'\n");
    let table = "[[export]]\ntable = 'orders'\n";
    let (here, choice) = ([("HOME", "/h/me/")], JobChoice::default());
    for (text, root, to, state) in [
        (format!("[defaults]\n{night}{table}"), "/h/me/night", "/h/me/night/orders", None),
        (format!("{table}{night}"), "/h/me/night", "/h/me/night/orders", None),
        (format!("root = '~/r'\n{table}{night}"), "/h/me/r", "/h/me/night/orders", None),
        (format!("root = '~'\n{table}to = '/x/orders'\n"), "/h/me", "/x/orders", None),
        (
            format!("[defaults]\nrun_id = 'n'\n{table}{load}"),
            "/h/me/night",
            "/h/me/night/orders/load=n",
            Some("/h/me/night/_state"),
        ),
        (
            format!("state = '~/s'\n[defaults]\nrun_id = 'n'\n{table}{load}"),
            "/h/me/night",
            "/h/me/night/orders/load=n",
            Some("/h/me/s"),
        ),
    ] {
        let job = with(&text, &here, &choice).unwrap();
        assert_eq!((job.root.as_str(), places(&job)[0].1.as_str()), (root, to), "{text}");
        let incremental = job.exports[0].request.incremental.as_ref();
        let folder = incremental.and_then(|options| options.state.as_ref()).map(|place| place.folder.as_str());
        assert_eq!(folder, state, "{text}");
    }
    for (text, place) in [
        (format!("root = '~/r'\n{table}to = '/x/orders'\n"), "/job.toml:1:1"),
        (format!("[defaults]\n{night}{table}"), "/job.toml:2:1"),
    ] {
        let expected = format!("{place} begins with ~, and HOME is not set (write the whole path)");
        assert_eq!(mistakes(job(&text)), [expected], "{text}");
    }
}

#[test]
fn a_pattern_means_all_tables_but_those_it_leaves_out() {
    let text = "[[export]]\ntable = 'public.*'\nexcept = 'tmp_*'\nto = './out/{table}'\n";
    let all = [("public.orders", "./out/public.orders"), ("public.items", "./out/public.items")];
    let all = all.map(|(name, to)| (name.to_owned(), to.to_owned()));
    let job = job(text).unwrap();
    assert_eq!((places(&job), job.root.as_str()), (all.to_vec(), "./out"));
    let only = |only: &[&str], except: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        with(text, &[], &JobChoice { only: list(only), except: list(except) })
    };
    assert_eq!(places(&only(&["*.items"], &[]).unwrap()), all[1..]);
    assert_eq!(places(&only(&[], &["public.items"]).unwrap()), all[..1]);
    let known = "the exports are public.orders, public.items";
    assert_eq!(mistakes(only(&["item"], &[])), [format!("--only item: no export is called so ({known})")]);
    assert_eq!(mistakes(only(&[], &["*"])), [format!("--only and --except leave no export ({known})")]);
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    let table = "[[export]]\ntable = 'a'\nto = 'x/{table}'\n";
    for (text, expected) in [
        ("", "/job.toml: there is no [[export]]"),
        ("x = 1\n", "/job.toml:1:1: unknown key \"x\""),
        ("readers = 1\n", "/job.toml:1:1: unknown key \"readers\" (write readers under [defaults] or [[export]])"),
        ("on_error = 'wait'\n", "/job.toml:1:1: on_error is continue or stop"),
        ("snapshot = 'table'\n", "/job.toml:1:1: snapshot is run or export"),
        ("[defaults]\ntable = 'a'\n", "/job.toml:2:1: a job has no table"),
        ("[defaults]\nmanifest = 'm.json'\n", "/job.toml:2:1: a job has no manifest"),
        (&format!("[defaults]\non_signal = 'keep'\n{table}"), "--on-signal keep without --keep-snapshot"),
        ("[defaults]\nfromat = 'csv'\n", "/job.toml:2:1: unknown key \"fromat\" (did you mean format?)"),
        ("[[export]]\ntable = 'a'\nreaders = 2\n", "/job.toml:3:1: readers is the whole run's"),
        ("[[export]]\ntable = 'a'\nexcept = 'b'\n", "except has no meaning beside one table"),
        ("[[export]]\ntable = 'a*'\nname = 'b'\n", "name has no meaning beside a pattern"),
        ("[[export]]\ntable = 'a'\nunset = 'readers'\n", "/job.toml:3:1: unset names \"readers\""),
        ("[[export]]\ntable = 'no*'\nto = 'x/{table}'\n", "table = \"no*\" means no table"),
        ("[[export]]\ntable = 'a'\nto = '-'\n", "a job cannot write to standard output"),
        ("[[export]]\ntable = 'a'\nto = 'x'\n[[export]]\ntable = 'b'\nto = './y'\n", "no folder in common"),
        (&format!("{table}{table}"), "two exports are called a"),
        ("[[export]]\ntable = 'a'\nto = 'x/y'\n[[export]]\ntable = 'b'\nto = 'x/y/b/'\n", "write to the same place"),
        (&format!("root = 'x/{{table}}'\n{table}"), "has a placeholder"),
        (&format!("[defaults]\nformat = 'cvs'\n{table}{}", table.replace("'a'", "'b'")), "did you mean csv?"),
    ] {
        let told = mistakes(job(text));
        assert!(told.iter().any(|line| line.contains(expected)), "{text}: {told:?}");
        assert!(told.iter().all(|line| told.iter().filter(|other| *other == line).count() == 1), "{told:?}");
    }
    let told = mistakes(with(table, &[("OUTHAUL_TABLE", "t"), ("OUTHAUL_READERS", "2")], &JobChoice::default()));
    let expected =
        "environment variable OUTHAUL_TABLE has no meaning for a job (unset it, and write table in the job file)";
    assert_eq!(told, [expected]);
}

#[test]
fn the_root_is_what_all_destinations_share_before_the_tables() {
    for (destinations, expected) in [
        (vec!["s3://lake/night/{schema}/{table}"], Some("s3://lake/night")),
        (vec!["s3://lake/a/{table}", "s3://lake/b/{table}"], Some("s3://lake")),
        (vec!["s3://one/{table}", "s3://other/{table}"], None),
        (vec!["/data/{table}.csv", "/data/x"], Some("/data")),
        (vec!["/a", "/b"], None),
        (vec!["out/{table}", "out/sub/{table}"], Some("out")),
        (vec!["{table}"], None),
        (vec!["file:///a", "file:///b"], None),
    ] {
        let found = shared(destinations.iter().map(|to| (*to).to_owned()));
        assert_eq!(found.as_deref(), expected, "{destinations:?}");
    }
}

#[test]
fn the_example_is_what_the_schema_and_the_reader_take() {
    let text = include_str!("../../config/job.example.toml");
    let value: serde_json::Value = toml::from_str(text).unwrap();
    let validator = jsonschema::options().build(&schema::schema()).unwrap();
    let problems: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let wrong: serde_json::Value = toml::from_str(&text.replace("[defaults]", "[defaults]\nfromat = 'csv'")).unwrap();
    assert!(!validator.is_valid(&wrong));
    let environment = Environment::of([], [("/job.toml", text)]);
    let file = JobFile::read(Path::new("/job.toml"), &environment).unwrap();
    assert!(file.source(vec![("from", vec![URL.to_owned()])], &environment).is_ok());
}

#[test]
fn an_option_below_the_tiers_of_a_job_is_refused() {
    let text = "[[export]]\ntable = 'orders'\nto = '/lake/orders'\n[tiers]\ntrial = 500\nmax_rows = 1\nwhere = 'id = 1'\n\
        protect = ['ssn=null']\ntiny = 'some'\n";
    let mistakes = mistakes(job(text));
    for (line, what) in [
        (6, "max_rows stands below [tiers] (put it above [tiers]"),
        (7, "where stands below [tiers]"),
        (8, "protect stands below [tiers]"),
        (9, "tier tiny is no number of rows"),
    ] {
        let expected = format!("/job.toml:{line}:1: {what}");
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(&expected)), "{expected}: {mistakes:?}");
    }
    assert_eq!(mistakes.len(), 4, "{mistakes:?}");
}

#[test]
fn a_name_of_except_is_that_very_table_and_one_that_is_there() {
    let of = |except: &str| {
        let text = format!("[[export]]\ntable = 'public.*'\nexcept = [{except}]\nto = '/lake/{{table}}'\n");
        let environment = Environment::of([], [("/job.toml", text.as_str())]);
        let file = JobFile::read(Path::new("/job.toml"), &environment).unwrap();
        let flags = vec![("from", vec![URL.to_owned()])];
        let source = file.source(flags.clone(), &environment).unwrap();
        let all = listed(&[("public", "orders"), ("public", "Orders"), ("public", "tmp_1")]);
        file.job(&flags, &environment, &source, &all, &JobChoice::default())
            .map(|(job, _)| job.exports.into_iter().map(|export| export.name).collect::<Vec<_>>())
    };
    assert_eq!(of("'orders'").unwrap(), ["public.Orders", "public.tmp_1"]);
    assert_eq!(of("'public.Orders', 'TMP_*', 'old_*'").unwrap(), ["public.orders"]);
    for except in ["ORDERS", "ordrs"] {
        let errors = of(&format!("'{except}'")).unwrap_err().to_string();
        let told = errors.contains(&format!("except names \"{except}\"")) && errors.contains("did you mean orders?");
        assert!(told, "{errors}");
    }
    // A table that was dropped keeps no other one from its export.
    assert_eq!(of("'x.y', 'orders'").unwrap(), ["public.Orders", "public.tmp_1"]);
}
