use crate::model::Carrier::{
    Bool, Bytes, Decimal128, Float32, Float64, Int16, Int32, Int64, Json, NumberText, PgDate, PgTime, PgTimestamp,
    PgTimestampTz, Text, Timestamp, Uuid,
};

use super::*;
use crate::source::postgres::plan::testing::{column, relation};
use crate::source::postgres::plan::type_mapping::TypeMapping;
use crate::source::{SourceError, SourceFault};
use std::sync::Arc;

use crate::model::{Carrier, Precision, RelationRequest};
use crate::source::postgres::plan::{Attribute, ExtensionType, TypeKind, Wire};

const FORMATS: [Format; 3] = [Format::Parquet, Format::Csv, Format::Ndjson];

fn shape() -> ShapeOptions {
    ShapeOptions {
        relation: RelationRequest::Table("t".into()),
        columns: None,
        expressions: Vec::new(),
        renames: Vec::new(),
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    }
}

fn options() -> PolicyOptions {
    PolicyOptions {
        preset: Preset::Postgres,
        default: Policies::default(),
        columns: Vec::new(),
        duplicate_columns: DuplicateColumns::Error,
    }
}

const SERVER: ServerTypes = ServerTypes { sql_ascii: false, money_scale: 2, infinite_intervals: true };

fn terms(format: Format) -> Terms {
    Terms { format, preset: Preset::Postgres, policies: Policies::default(), server: SERVER }
}

fn strings<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(left, right)| (left.to_owned(), right.to_owned())).to_vec()
}

fn facts() -> RelationFacts {
    relation(vec![column("id", oid::INT8, true), column("name", oid::TEXT, false), column("at", oid::DATE, false)])
}

fn plan(shape: &ShapeOptions) -> Result<Vec<PgColumn>, PlanError> {
    let described: Vec<ColumnFacts> =
        shape.expressions.iter().map(|(name, _)| column(name, oid::INT4, false)).collect();
    columns(&facts(), shape, &described, &ColumnRules { format: Format::Csv, policies: &options(), server: SERVER })
}

fn names(shape: &ShapeOptions) -> Vec<String> {
    plan(shape).unwrap().into_iter().map(|column| column.output.name).collect()
}

#[test]
fn catalog_order_by_default_and_the_given_order_otherwise() {
    assert_eq!(names(&shape()), ["id", "name", "at"]);
    assert_eq!(names(&ShapeOptions { columns: Some(strings(["at", "id"])), ..shape() }), ["at", "id"]);
}

#[test]
fn expressions_follow_and_renames_apply_to_columns() {
    let shape = ShapeOptions {
        columns: Some(strings(["name", "id"])),
        expressions: pairs([("twice", "id * 2"), ("name", "upper(name)")]),
        renames: pairs([("name", "label")]),
        ..shape()
    };
    let plans = plan(&shape).unwrap();
    let shown: Vec<(&str, &ColumnOrigin)> =
        plans.iter().map(|plan| (plan.output.name.as_str(), &plan.output.origin)).collect();
    assert_eq!(
        shown,
        [
            ("label", &ColumnOrigin::Column("name".into())),
            ("id", &ColumnOrigin::Column("id".into())),
            ("twice", &ColumnOrigin::Expression("id * 2".into())),
            ("name", &ColumnOrigin::Expression("upper(name)".into())),
        ]
    );
    assert_eq!(plans.iter().map(|plan| plan.output.nullable).collect::<Vec<_>>(), [true, false, true, true]);
}

#[test]
fn an_expression_may_be_all_there_is() {
    let shape = ShapeOptions { columns: Some(Vec::new()), expressions: pairs([("n", "count(*)")]), ..shape() };
    assert_eq!(names(&shape), ["n"]);
}

#[test]
fn names_can_be_exchanged() {
    let shape = ShapeOptions { renames: pairs([("id", "name"), ("name", "id")]), ..shape() };
    assert_eq!(names(&shape), ["name", "id", "at"]);
}

#[track_caller]
fn refused(shape: &ShapeOptions, message: &str) {
    let error = plan(shape).unwrap_err().whole();
    assert!(error.starts_with(message), "{error}");
}

#[test]
fn columns_that_make_no_sense_are_refused() {
    for (names, message) in [
        (
            strings(["id", "nmae"]),
            "--columns: there is no column \"nmae\"; did you mean \"name\"? The columns are id, name, at",
        ),
        (strings(["id", "id"]), "--columns: column \"id\" is named twice"),
        (Vec::new(), "public.t has no column to export"),
    ] {
        refused(&ShapeOptions { columns: Some(names), ..shape() }, message);
    }
}

#[test]
fn expressions_that_make_no_sense_are_refused() {
    let taken =
        "--column or --partition-by name: a column of this name is exported already; leave it out with --columns";
    for (expressions, message) in [
        (pairs([("name", "upper(name)"), ("n", "1")]), taken),
        (pairs([("n", "1"), ("n", "2")]), "two output columns are called \"n\""),
        (pairs([("", "1"), ("n", "2")]), "--column: the output column's name is empty"),
    ] {
        refused(&ShapeOptions { expressions, ..shape() }, message);
    }
    let renames = pairs([("name", "label")]);
    let expressions = pairs([("label", "1")]);
    refused(
        &ShapeOptions { expressions, renames, ..shape() },
        "--column or --partition-by label: a column of this name",
    );
}

#[test]
fn renames_that_make_no_sense_are_refused() {
    for (renames, message) in [
        (pairs([("ID", "x")]), "--rename: there is no column \"ID\"; did you mean \"id\"?"),
        (pairs([("id", "")]), "--rename: the output column's name is empty"),
        (pairs([("id", "at")]), "two output columns are called \"at\""),
    ] {
        refused(&ShapeOptions { renames, ..shape() }, message);
    }
    let twice = pairs([("id", "a"), ("id", "b")]);
    refused(&ShapeOptions { renames: twice, ..shape() }, "--rename: column \"id\" is named twice");
    let shape = ShapeOptions { columns: Some(strings(["id"])), renames: pairs([("name", "x")]), ..shape() };
    refused(&shape, "--rename: column \"name\" is not among --columns");
}

#[test]
fn an_expression_that_is_named_among_the_columns_stands_there() {
    let shape = ShapeOptions {
        columns: Some(strings(["twice", "id", "name"])),
        expressions: pairs([("last", "1"), ("name", "upper(name)"), ("twice", "id * 2")]),
        ..shape()
    };
    let plans = plan(&shape).unwrap();
    let shown: Vec<&str> = plans.iter().map(|plan| plan.output.name.as_str()).collect();
    assert_eq!(shown, ["twice", "id", "name", "last"]);
    assert_eq!(plans[2].output.origin, ColumnOrigin::Expression("upper(name)".into()));
}

#[test]
fn every_expression_must_be_described() {
    let shape = ShapeOptions { expressions: pairs([("n", "1")]), ..shape() };
    let error =
        columns(&facts(), &shape, &[], &ColumnRules { format: Format::Csv, policies: &options(), server: SERVER })
            .unwrap_err();
    assert_eq!(SourceError::from(error).fault, SourceFault::Protocol);
}

/// Wire and carrier of a column of the type in Parquet, CSV and NDJSON.
fn type_mappings(pg_type: &PgType) -> [(Wire, Carrier); 3] {
    FORMATS.map(|format| {
        let TypeMapping { wire, carrier, .. } = map_type(pg_type, &terms(format));
        (wire, carrier)
    })
}

#[test]
fn types_with_a_decoder_are_sent_in_binary() {
    for (oid, carriers) in [
        (oid::BOOL, [Bool, Bool, Bool]),
        (oid::INT2, [Int16, Int16, Int16]),
        (oid::INT4, [Int32, Int32, Int32]),
        (oid::INT8, [Int64, Int64, Int64]),
        (oid::FLOAT4, [Float32, Float32, Float32]),
        (oid::FLOAT8, [Float64, Float64, Float64]),
        (oid::NUMERIC, [NumberText, NumberText, NumberText]),
        (oid::TEXT, [Text, Text, Text]),
        (oid::VARCHAR, [Text, Text, Text]),
        (oid::BPCHAR, [Text, Text, Text]),
        (oid::NAME, [Text, Text, Text]),
        (oid::BYTEA, [Bytes, Bytes, Bytes]),
        (oid::UUID, [Uuid, Uuid, Uuid]),
        (oid::JSON, [Json, Json, Json]),
        (oid::JSONB, [Json, Json, Json]),
        (oid::DATE, [Carrier::Date32, PgDate, PgDate]),
        (oid::TIME, [Carrier::Time64, PgTime, PgTime]),
        (oid::TIMESTAMP, [Timestamp { unit: Precision::Micros, utc: false }, PgTimestamp, PgTimestamp]),
        (oid::TIMESTAMPTZ, [Timestamp { unit: Precision::Micros, utc: true }, PgTimestampTz, PgTimestampTz]),
    ] {
        let expected = carriers.map(|carrier| (Wire::Binary, carrier));
        assert_eq!(type_mappings(&column("c", oid, true).pg_type), expected, "oid {oid}");
        // A domain is mapped as its base type.
        let domain = PgType { oid: 99_999, ..column("c", oid, true).pg_type };
        assert_eq!(type_mappings(&domain), expected, "domain over {oid}");
    }
}

#[test]
fn an_enum_is_its_label() {
    let label = PgType { kind: TypeKind::Enum, ..column("c", 70_000, true).pg_type };
    assert_eq!(type_mappings(&label), [(Wire::Binary, Text), (Wire::Binary, Text), (Wire::Binary, Text)]);
}

#[test]
fn text_of_the_server_is_made_here_where_its_binary_form_is_known() {
    // interval, inet, "char", timetz, xml
    for oid in [1186, 869, 18, 1266, 142] {
        assert_eq!(
            type_mappings(&column("c", oid, true).pg_type),
            [(Wire::Binary, Text), (Wire::Binary, Text), (Wire::Binary, Text)],
            "oid {oid}"
        );
    }
}

#[test]
fn the_rest_is_sent_as_text() {
    // regclass, tsvector, aclitem, a type nobody knows
    for oid in [2205, 3614, 1033, 99_999] {
        assert_eq!(
            type_mappings(&column("c", oid, true).pg_type),
            [(Wire::OutputText, Text), (Wire::OutputText, Text), (Wire::JsonText, Json)],
            "oid {oid}"
        );
    }
}

#[test]
fn an_oid_is_a_number_but_in_json() {
    for oid in [oid::OID, oid::XID, oid::CID] {
        let expected = [(Wire::Binary, Int64), (Wire::Binary, Int64), (Wire::Binary, Text)];
        assert_eq!(type_mappings(&column("c", oid, true).pg_type), expected, "oid {oid}");
    }
}

#[test]
fn a_numeric_is_a_decimal_in_parquet_where_one_can_hold_it() {
    let typmod = |precision: i32, scale: i32| Some(((precision << 16) | (scale & 0x7ff)) + 4);
    for (typmod, carrier, note) in [
        (typmod(12, 2), Decimal128 { precision: 12, scale: 2 }, None),
        (typmod(38, 38), Decimal128 { precision: 38, scale: 38 }, None),
        (typmod(1, 0), Decimal128 { precision: 1, scale: 0 }, None),
        (typmod(39, 2), NumberText, Some("more than 38 digits")),
        (typmod(1000, 500), NumberText, Some("more than 38 digits")),
        (typmod(5, -2), Decimal128 { precision: 7, scale: 0 }, None),
        (typmod(5, -1000), NumberText, Some("more than 38 digits")),
        (typmod(3, 5), Decimal128 { precision: 5, scale: 5 }, None),
        (typmod(3, 1000), NumberText, Some("more than 38 digits")),
        (None, NumberText, Some("without precision")),
        (Some(-1), NumberText, Some("without precision")),
        (Some(i32::MIN), NumberText, Some("without precision")),
    ] {
        let pg_type = PgType { typmod, ..column("c", oid::NUMERIC, true).pg_type };
        let mapping = map_type(&pg_type, &terms(Format::Parquet));
        assert_eq!((mapping.wire, mapping.carrier), (Wire::Binary, carrier), "{typmod:?}");
        assert_eq!(mapping.note.is_some(), note.is_some(), "{typmod:?}");
        let words = mapping.note.unwrap_or_default();
        assert!(words.contains(note.unwrap_or_default()), "{words:?}");
        assert_eq!(super::map_type(&pg_type, &terms(Format::Csv)).carrier, NumberText);
    }
}

#[test]
fn only_carriers_that_cannot_hold_everything_need_a_policy() {
    let facts = relation(vec![
        column("a", oid::DATE, true),
        column("b", oid::TIME, true),
        column("c", oid::TIMESTAMPTZ, true),
        column("d", oid::FLOAT8, true),
        ColumnFacts {
            pg_type: PgType { typmod: Some((12 << 16) + 4), ..column("e", oid::NUMERIC, true).pg_type },
            ..column("e", oid::NUMERIC, true)
        },
    ]);
    let policies = |format| {
        let plans =
            columns(&facts, &shape(), &[], &ColumnRules { format, policies: &options(), server: SERVER }).unwrap();
        plans.into_iter().map(|plan| plan.output.policy).collect::<Vec<_>>()
    };
    assert_eq!(policies(Format::Parquet), ["error", "error", "error", "lossless", "error"]);
    assert_eq!(policies(Format::Csv), ["lossless"; 5]);
    assert_eq!(policies(Format::Ndjson), ["lossless"; 5]);
}

/// What a column of this type becomes under these choices.
fn planned(
    pg_type: PgType,
    format: Format,
    preset: Preset,
    change: impl FnOnce(&mut PolicyOptions),
) -> Result<PgColumn, PlanError> {
    let facts = relation(vec![ColumnFacts { pg_type, ..column("c", oid::INT4, true) }]);
    let mut policies = PolicyOptions { preset, ..options() };
    change(&mut policies);
    let plans = columns(&facts, &shape(), &[], &ColumnRules { format, policies: &policies, server: SERVER })?;
    Ok(plans.into_iter().next().unwrap())
}

fn of(oid: u32) -> PgType {
    column("c", oid, true).pg_type
}

fn made(kind: TypeKind) -> PgType {
    PgType { kind, ..of(70_000) }
}

fn array_of(element: PgType) -> PgType {
    made(TypeKind::Array(Box::new(element)))
}

fn composite_of(types: impl IntoIterator<Item = PgType>) -> PgType {
    let attributes = types.into_iter().map(|pg_type| Attribute { name: "x".into(), pg_type });
    made(TypeKind::Composite(attributes.collect()))
}

fn list_of(element: Carrier) -> Carrier {
    Carrier::List(Arc::new(element))
}

#[test]
fn nested_types_are_typed_in_parquet_and_the_servers_own_in_text() {
    let range = made(TypeKind::Range(Box::new(of(oid::INT4))));
    for pg_type in [
        array_of(of(oid::TEXT)),
        composite_of([of(oid::INT4), array_of(of(oid::DATE))]),
        range.clone(),
        made(TypeKind::Multirange(Box::new(of(oid::NUMERIC)))),
        made(TypeKind::Extension(ExtensionType::Hstore)),
        made(TypeKind::Extension(ExtensionType::Vector)),
    ] {
        let parquet = planned(pg_type.clone(), Format::Parquet, Preset::Postgres, |_| {}).unwrap();
        assert!(parquet.output.carrier.is_nested() && parquet.wire == Wire::Binary, "{parquet:?}");
        let csv = planned(pg_type.clone(), Format::Csv, Preset::Postgres, |_| {}).unwrap();
        assert_eq!((csv.wire, csv.output.carrier), (Wire::OutputText, Text));
        let ndjson = planned(pg_type, Format::Ndjson, Preset::Postgres, |_| {}).unwrap();
        assert_eq!((ndjson.wire, ndjson.output.carrier), (Wire::JsonText, Json));
    }
    let Carrier::Struct(members) = planned(range, Format::Parquet, Preset::Postgres, |_| {}).unwrap().output.carrier
    else {
        panic!("a range is a struct");
    };
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["lower", "upper", "lower_inc", "upper_inc", "empty"]);
}

#[test]
fn one_part_that_is_not_known_makes_the_whole_value_text() {
    for pg_type in [
        array_of(of(3614)),
        composite_of([of(oid::INT4), of(3614)]),
        composite_of([]),
        made(TypeKind::Range(Box::new(of(3614)))),
    ] {
        let plan = planned(pg_type, Format::Parquet, Preset::Postgres, |_| {}).unwrap();
        assert_eq!((plan.wire, plan.output.carrier), (Wire::OutputText, Text));
    }
}

#[test]
fn presets_keep_to_what_their_readers_take() {
    for (preset, unit) in [(Preset::Athena, Precision::Millis), (Preset::Spectrum, Precision::Micros)] {
        let precise = |policies: &mut PolicyOptions| {
            if unit == Precision::Millis {
                policies.default.timestamp_precision = TimestampPrecision::Millis;
            }
        };
        for (pg_type, carrier) in [
            (of(oid::UUID), Text),
            (of(oid::TIME), Text),
            (array_of(of(oid::UUID)), list_of(Text)),
            (of(oid::TIMESTAMP), Timestamp { unit, utc: false }),
            (of(oid::TIMESTAMPTZ), Timestamp { unit, utc: true }),
            (array_of(of(oid::INT4)), list_of(Int32)),
            (of(oid::INT2), Int16),
        ] {
            let plan = planned(pg_type, Format::Parquet, preset, precise).unwrap();
            assert_eq!((plan.wire, plan.output.carrier), (Wire::Binary, carrier), "{preset:?}");
        }
        // A list in a list, by way of a composite.
        let deep = array_of(composite_of([array_of(of(oid::INT4))]));
        let plan = planned(deep, Format::Parquet, preset, precise).unwrap();
        assert_eq!((plan.wire, plan.output.carrier), (Wire::JsonText, Json));
        let error = planned(of(oid::NUMERIC), Format::Parquet, preset, |policies| {
            policies.columns = vec![("c".into(), ColumnChoice::Decimal { precision: 39, scale: 2 })];
        });
        assert!(matches!(error, Err(PlanError::ColumnPolicy { .. })), "{error:?}");
    }
}

#[test]
fn unrepresentable_values_decide_on_carrier_and_nullability() {
    let numeric = || PgType { typmod: Some((12 << 16) + 2 + 4), ..of(oid::NUMERIC) };
    let choose = |choice| move |policies: &mut PolicyOptions| policies.default.on_unrepresentable = choice;
    let with = |pg_type, choice| planned(pg_type, Format::Parquet, Preset::Postgres, choose(choice)).unwrap();
    for (pg_type, as_text) in [
        (numeric(), (Wire::Binary, NumberText)),
        (of(oid::DATE), (Wire::Binary, Text)),
        (of(oid::TIME), (Wire::Binary, Text)),
        (of(oid::TIMESTAMPTZ), (Wire::Binary, Text)),
        (array_of(of(oid::INT4)), (Wire::OutputText, Text)),
        (composite_of([of(oid::DATE)]), (Wire::OutputText, Text)),
    ] {
        let error = with(pg_type.clone(), OnUnrepresentable::Error);
        assert_eq!(
            (error.output.policy.as_str(), error.output.nullable, error.output.rewritten),
            ("error", false, false)
        );
        let null = with(pg_type.clone(), OnUnrepresentable::Null);
        assert_eq!((null.output.policy.as_str(), null.output.nullable, null.output.rewritten), ("null", true, false));
        assert_eq!(null.output.carrier, error.output.carrier);
        let text = with(pg_type, OnUnrepresentable::Text);
        assert_eq!((text.output.policy.as_str(), text.output.nullable, text.output.rewritten), ("text", false, true));
        assert_eq!((text.wire, text.output.carrier), as_text);
    }
    for pg_type in [of(oid::INT4), of(oid::TEXT), of(oid::FLOAT8), composite_of([of(oid::INT4)])] {
        let text = with(pg_type, OnUnrepresentable::Text);
        assert_eq!((text.output.policy.as_str(), text.output.rewritten), ("lossless", false));
    }
}

#[test]
fn a_raw_column_has_no_guard_where_the_others_have_one() {
    let plan = |oid, choices: Vec<(std::string::String, ColumnChoice)>| {
        planned(of(oid), Format::Csv, Preset::Postgres, |policies| {
            policies.default.formula_guard = true;
            policies.columns = choices;
        })
    };
    let guarded = plan(oid::TEXT, Vec::new()).unwrap().output;
    let raw = plan(oid::TEXT, vec![("c".into(), ColumnChoice::Raw)]).unwrap().output;
    assert_eq!((guarded.free_text, guarded.policy.as_str()), (true, "guard"));
    assert_eq!((raw.free_text, raw.policy.as_str()), (false, "lossless"));
    // There is nothing to say of a number, and nothing wrong with saying it.
    assert!(plan(oid::INT4, vec![("c".into(), ColumnChoice::Raw)]).is_ok());
    let unguarded = planned(of(oid::TEXT), Format::Csv, Preset::Postgres, |policies| {
        policies.columns = vec![("c".into(), ColumnChoice::Raw)];
    });
    assert!(unguarded.is_err(), "without the guard it is a mistake");
}

#[test]
fn a_choice_for_one_column_is_for_that_one_and_must_fit_it() {
    use ColumnChoice::{Bytes, Decimal, Double, Error, Json, Null, Replace, Round, String, Text as AsText, Trim};
    let timestamp = || of(oid::TIMESTAMP);
    let fits: [(PgType, Format, ColumnChoice, &str); 10] = [
        (of(oid::NUMERIC), Format::Parquet, Decimal { precision: 50, scale: 3 }, "error"),
        (of(oid::NUMERIC), Format::Parquet, Double, "double"),
        (of(oid::BPCHAR), Format::Csv, Trim, "trim"),
        (of(oid::INT4), Format::Parquet, AsText, "text"),
        (array_of(of(oid::INT4)), Format::Csv, Json, "json"),
        (array_of(of(oid::INT4)), Format::Parquet, Json, "json"),
        (timestamp(), Format::Parquet, Null, "null"),
        (timestamp(), Format::Parquet, Round, "error, round"),
        (of(oid::FLOAT8), Format::Ndjson, Error, "error"),
        (of(oid::INT8), Format::Ndjson, String, "string"),
    ];
    for (pg_type, format, choice, words) in fits {
        let plan = planned(pg_type, format, Preset::Postgres, |policies| {
            policies.columns = vec![("c".into(), choice)];
        })
        .unwrap();
        assert_eq!(plan.output.policy, words, "{choice}");
    }
    for (oid, format, choice) in [
        (oid::INT4, Format::Parquet, Null),
        (oid::INT4, Format::Csv, AsText),
        (oid::TEXT, Format::Csv, Trim),
        (oid::DATE, Format::Csv, Null),
        (oid::BYTEA, Format::Parquet, Replace),
        (oid::UUID, Format::Parquet, Bytes),
        (oid::INT8, Format::Csv, String),
        (oid::DATE, Format::Parquet, Round),
    ] {
        let error = planned(of(oid), format, Preset::Postgres, |policies| {
            policies.columns = vec![("c".into(), choice)];
        })
        .unwrap_err();
        assert!(error.to_string().contains(&format!("--column-policy c={choice}:")), "{error}");
    }
    let error = planned(of(oid::INT4), Format::Csv, Preset::Postgres, |policies| {
        policies.columns = vec![("d".into(), Null)];
    })
    .unwrap_err();
    assert!(error.to_string().starts_with("--column-policy: there is no column \"d\""), "{error}");
}

#[test]
fn text_of_an_unchecked_database_has_its_own_policy() {
    let server = ServerTypes { sql_ascii: true, money_scale: 2, infinite_intervals: true };
    let facts = relation(vec![column("c", oid::TEXT, false), column("n", oid::INT4, false)]);
    for (choice, carrier, words) in [
        (InvalidUtf8::Error, Text, "error"),
        (InvalidUtf8::Replace, Text, "replace"),
        (InvalidUtf8::Bytes, Bytes, "bytes"),
    ] {
        let policies = PolicyOptions { default: Policies { invalid_utf8: choice, ..Policies::default() }, ..options() };
        for format in FORMATS {
            let rules = ColumnRules { format, policies: &policies, server };
            let plans = columns(&facts, &shape(), &[], &rules).unwrap();
            assert_eq!((&plans[0].output.carrier, plans[0].output.policy.as_str()), (&carrier, words));
            assert_eq!(plans[1].output.policy, "lossless");
            // Elsewhere the server vouches for its text.
            let plans = columns(&facts, &shape(), &[], &ColumnRules { server: SERVER, ..rules }).unwrap();
            assert_eq!((&plans[0].output.carrier, plans[0].output.policy.as_str()), (&Text, "lossless"));
        }
    }
}

#[test]
fn names_that_come_twice_are_refused_or_numbered() {
    let facts = relation(["a", "A", "a", "a_2"].map(|name| column(name, oid::INT4, true)).to_vec());
    let planned = |preset, duplicate_columns| {
        let policies = PolicyOptions { preset, duplicate_columns, ..options() };
        let rules = ColumnRules { format: Format::Parquet, policies: &policies, server: SERVER };
        columns(&facts, &shape(), &[], &rules)
    };
    assert_eq!(planned(Preset::Postgres, DuplicateColumns::Error), Err(PlanError::DuplicateName { name: "a".into() }));
    let names = |preset| -> Vec<(String, bool)> {
        let plans = planned(preset, DuplicateColumns::Suffix).unwrap();
        plans.into_iter().map(|plan| (plan.output.name, plan.output.note.is_some())).collect()
    };
    let owned = |names: [(&str, bool); 4]| names.map(|(name, noted)| (name.to_owned(), noted)).to_vec();
    assert_eq!(names(Preset::Postgres), owned([("a", false), ("A", false), ("a_3", true), ("a_2", false)]));
    // Athena does not tell A from a.
    assert_eq!(names(Preset::Athena), owned([("a", false), ("A_3", true), ("a_4", true), ("a_2", false)]));
}

/// What a choice reaches is the whole of a value that is decoded, and elements and attributes of one that is printed.
#[test]
fn a_choice_for_a_nested_column_must_fit_a_part_of_it() {
    use ColumnChoice::{Bytes, Double, Error, Null, Replace, Round, Trim};
    let range = |bound| made(TypeKind::Range(Box::new(bound)));
    let hstore = || made(TypeKind::Extension(ExtensionType::Hstore));
    // tsvector has no decoder, so that a composite with one is text in Parquet too.
    let printed = |part| composite_of([part, of(3614)]);
    let choose = |pg_type: &PgType, format, choice| {
        planned(pg_type.clone(), format, Preset::Postgres, |policies| policies.columns = vec![("c".into(), choice)])
    };
    for (pg_type, format, choice, words) in [
        (array_of(of(oid::FLOAT8)), Format::Ndjson, Null, "null"),
        (composite_of([of(oid::INT4), of(oid::NUMERIC)]), Format::Ndjson, Error, "error"),
        (array_of(of(oid::BPCHAR)), Format::Csv, Trim, "trim"),
        (printed(of(oid::BPCHAR)), Format::Parquet, Trim, "trim"),
        (range(of(oid::BPCHAR)), Format::Parquet, Trim, "trim"),
        (array_of(of(oid::NUMERIC)), Format::Parquet, Double, "error, double"),
        (range(of(oid::TIMESTAMP)), Format::Parquet, Round, "error, round"),
        // Of a database that checks its text there is nothing to say.
        (array_of(of(oid::TEXT)), Format::Csv, Bytes, "lossless"),
        (hstore(), Format::Csv, Replace, "lossless"),
    ] {
        let plan = choose(&pg_type, format, choice).unwrap();
        assert_eq!(plan.output.policy, words, "{pg_type:?} {choice}");
        assert!(!plan.output.rewritten);
    }
    for (pg_type, format, choice) in [
        (range(of(oid::FLOAT8)), Format::Ndjson, Null),
        (array_of(of(oid::INT4)), Format::Ndjson, Error),
        (of(oid::RECORD), Format::Ndjson, Null),
        (range(of(oid::BPCHAR)), Format::Csv, Trim),
        (printed(of(oid::NUMERIC)), Format::Parquet, Double),
        (printed(of(oid::TIMESTAMP)), Format::Parquet, Round),
        (printed(of(oid::DATE)), Format::Parquet, Null),
        (hstore(), Format::Parquet, Bytes),
        (array_of(of(oid::INT4)), Format::Csv, Replace),
    ] {
        let error = choose(&pg_type, format, choice).unwrap_err();
        assert!(matches!(error, PlanError::ColumnPolicy { .. }), "{pg_type:?} {choice}: {error}");
    }
}

/// A choice for what a column's type cannot hold does not touch what it can: NaN in a text column of Parquet.
#[test]
fn nan_in_json_is_a_matter_of_ndjson_only() {
    for choice in [ColumnChoice::Null, ColumnChoice::Error] {
        let options = PolicyOptions { columns: vec![("n".to_owned(), choice)], ..options() };
        let chosen = |format| {
            let rules = ColumnRules { format, policies: &options, server: SERVER };
            let facts = relation(vec![column("n", oid::NUMERIC, false)]);
            columns(&facts, &shape(), &[], &rules).unwrap().remove(0).output.policies.json_nan
        };
        assert_eq!(chosen(Format::Parquet), JsonNan::String);
        assert_ne!(chosen(Format::Ndjson), JsonNan::String);
    }
}

#[test]
fn intervals_of_old_servers_are_the_servers_own_text() {
    let server = ServerTypes { infinite_intervals: false, ..SERVER };
    for (format, wire) in FORMATS.into_iter().zip([Wire::OutputText, Wire::OutputText, Wire::JsonText]) {
        let terms = Terms { server, ..terms(format) };
        assert_eq!(map_type(&of(oid::INTERVAL), &terms).wire, wire);
        assert_eq!(map_type(&of(oid::INTERVAL), &self::terms(format)).wire, Wire::Binary);
    }
}
