use super::*;
use crate::model::RelationRequest;

fn shape(columns: Option<&[&str]>) -> ShapeOptions {
    ShapeOptions {
        relation: RelationRequest::Table("t".to_owned()),
        columns: columns.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        expressions: Vec::new(),
        renames: Vec::new(),
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    }
}

fn policies(columns: &[(&str, ColumnChoice)]) -> PolicyOptions {
    PolicyOptions {
        preset: Preset::Postgres,
        default: Policies::default(),
        columns: columns.iter().map(|(name, choice)| ((*name).to_owned(), *choice)).collect(),
        duplicate_columns: DuplicateColumns::Error,
    }
}

fn described() -> Vec<ChColumnFacts> {
    let column = |name: &str, type_name: &str, hidden| ChColumnFacts {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        hidden,
        alias: None,
    };
    vec![column("id", "UInt64", false), column("word", "Nullable(String)", false), column("day", "Date", true)]
}

fn names(shape: &ShapeOptions, format: Format, policies: &PolicyOptions) -> Result<Vec<String>, String> {
    let extra = [ChColumnFacts { name: "e".to_owned(), type_name: "Float64".to_owned(), hidden: false, alias: None }];
    let extra = if shape.expressions.is_empty() { &[][..] } else { &extra[..] };
    let made = columns(&described(), shape, extra, &ChColumnRules { format, policies });
    made.map(|columns| columns.into_iter().map(|column| column.output.name).collect())
        .map_err(|error| error.to_string())
}

#[test]
fn columns_that_select_leaves_out_come_where_they_are_named() {
    let plain = policies(&[]);
    assert_eq!(names(&shape(None), Format::Csv, &plain).unwrap(), ["id", "word"]);
    assert_eq!(names(&shape(Some(&["day", "id"])), Format::Csv, &plain).unwrap(), ["day", "id"]);
    let mut with_more = shape(Some(&["e", "id"]));
    with_more.expressions = vec![("e".to_owned(), "id / 2".to_owned())];
    with_more.renames = vec![("id".to_owned(), "number".to_owned())];
    assert_eq!(names(&with_more, Format::Csv, &plain).unwrap(), ["e", "number"]);
}

#[test]
fn mistakes_in_names_are_told() {
    let plain = policies(&[]);
    let told = |shape: &ShapeOptions| names(shape, Format::Csv, &plain).unwrap_err();
    assert_eq!(told(&shape(Some(&["idd"]))), "--columns: there is no column \"idd\"");
    assert_eq!(told(&shape(Some(&["id", "id"]))), "--columns: column \"id\" is named twice");
    let renames = vec![("id".to_owned(), "word".to_owned())];
    assert_eq!(told(&ShapeOptions { renames, ..shape(None) }), "two output columns are called \"word\"");
    let none = names(&shape(None), Format::Csv, &policies(&[("x", ColumnChoice::Bytes)])).unwrap_err();
    assert_eq!(none, "--column-policy: there is no column \"x\"");
}

#[test]
fn a_choice_that_a_type_does_not_have_is_refused() {
    let refused = names(&shape(None), Format::Csv, &policies(&[("id", ColumnChoice::Bytes)])).unwrap_err();
    assert!(refused.contains("a column of type UInt64 has no such choice"), "{refused}");
    let chosen = policies(&[("word", ColumnChoice::Bytes)]);
    let rules = ChColumnRules { format: Format::Parquet, policies: &chosen };
    let made = columns(&described(), &shape(None), &[], &rules).unwrap();
    assert_eq!(made[1].output.carrier, Carrier::Bytes);
    assert_eq!((made[1].output.policy.as_str(), made[1].output.rewritten), ("bytes", true));
}

#[test]
fn a_type_that_is_not_known_is_an_error_with_a_way_out() {
    let strange =
        [ChColumnFacts { name: "q".to_owned(), type_name: "Quantum(3)".to_owned(), hidden: false, alias: None }];
    let plain = policies(&[]);
    let rules = ChColumnRules { format: Format::Csv, policies: &plain };
    let error = columns(&strange, &shape(None), &[], &rules).unwrap_err();
    assert_eq!(error.to_string(), "column \"q\" is of type Quantum(3): this version of outhaul does not know the type");
    assert!(error.hint.unwrap().contains("toString"));
}
