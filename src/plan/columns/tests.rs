use crate::plan::Carrier::{
    Bool, Bytes, Decimal128, Float32, Float64, Int16, Int32, Int64, Json, NumberText, PgDate, PgTime, PgTimestamp,
    PgTimestampTz, Text, Timestamp, Uuid,
};

use super::*;
use crate::plan::testing::{column, relation};
use crate::plan::travel::Travel;
use crate::plan::{Carrier, Precision, RelationRequest, TypeKind, Wire};

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

const SERVER: ServerTypes = ServerTypes { sql_ascii: false, money_scale: 2 };

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

fn plan(shape: &ShapeOptions) -> Result<Vec<ColumnPlan>, PlanError> {
    let described: Vec<ColumnFacts> =
        shape.expressions.iter().map(|(name, _)| column(name, oid::INT4, false)).collect();
    columns(&facts(), shape, &described, &ColumnRules { format: Format::Csv, policies: &options(), server: SERVER })
}

fn names(shape: &ShapeOptions) -> Vec<String> {
    plan(shape).unwrap().into_iter().map(|column| column.name).collect()
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
    let shown: Vec<(&str, &ColumnOrigin)> = plans.iter().map(|plan| (plan.name.as_str(), &plan.origin)).collect();
    assert_eq!(
        shown,
        [
            ("label", &ColumnOrigin::Column("name".into())),
            ("id", &ColumnOrigin::Column("id".into())),
            ("twice", &ColumnOrigin::Expression("id * 2".into())),
            ("name", &ColumnOrigin::Expression("upper(name)".into())),
        ]
    );
    assert_eq!(plans.iter().map(|plan| plan.nullable).collect::<Vec<_>>(), [true, false, true, true]);
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
    let error = plan(shape).unwrap_err().to_string();
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
    let taken = "--column name: a column of this name is exported already; leave it out with --columns";
    for (expressions, message) in [
        (pairs([("name", "upper(name)"), ("n", "1")]), taken),
        (pairs([("n", "1"), ("n", "2")]), "two output columns are called \"n\""),
        (pairs([("", "1"), ("n", "2")]), "--column: the output column's name is empty"),
    ] {
        refused(&ShapeOptions { expressions, ..shape() }, message);
    }
    let renames = pairs([("name", "label")]);
    let expressions = pairs([("label", "1")]);
    refused(&ShapeOptions { expressions, renames, ..shape() }, "--column label: a column of this name");
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
fn every_expression_must_be_described() {
    let shape = ShapeOptions { expressions: pairs([("n", "1")]), ..shape() };
    let error =
        columns(&facts(), &shape, &[], &ColumnRules { format: Format::Csv, policies: &options(), server: SERVER })
            .unwrap_err();
    assert_eq!(error.kind(), crate::export::ExportErrorKind::Internal);
}

/// Wire and carrier of a column of the type in Parquet, CSV and NDJSON.
fn travels(pg_type: &PgType) -> [(Wire, Carrier); 3] {
    FORMATS.map(|format| {
        let Travel { wire, carrier, .. } = travel(pg_type, &terms(format));
        (wire, carrier)
    })
}

#[test]
fn types_with_a_decoder_travel_in_binary() {
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
        assert_eq!(travels(&column("c", oid, true).pg_type), expected, "oid {oid}");
        // A domain over the type travels as the type does.
        let domain = PgType { oid: 99_999, ..column("c", oid, true).pg_type };
        assert_eq!(travels(&domain), expected, "domain over {oid}");
    }
}

#[test]
fn an_enum_is_its_label() {
    let label = PgType { kind: TypeKind::Enum, ..column("c", 70_000, true).pg_type };
    assert_eq!(travels(&label), [(Wire::Binary, Text), (Wire::Binary, Text), (Wire::Binary, Text)]);
}

#[test]
fn text_of_the_server_is_made_here_where_its_binary_form_is_known() {
    // interval, inet, "char", timetz, xml
    for oid in [1186, 869, 18, 1266, 142] {
        assert_eq!(
            travels(&column("c", oid, true).pg_type),
            [(Wire::Binary, Text), (Wire::Binary, Text), (Wire::Binary, Text)],
            "oid {oid}"
        );
    }
}

#[test]
fn the_rest_travels_as_text() {
    // regclass, tsvector, aclitem, a type nobody knows
    for oid in [2205, 3614, 1033, 99_999] {
        assert_eq!(
            travels(&column("c", oid, true).pg_type),
            [(Wire::OutputText, Text), (Wire::OutputText, Text), (Wire::JsonText, Json)],
            "oid {oid}"
        );
    }
}

#[test]
fn an_oid_is_a_number_but_in_json() {
    for oid in [oid::OID, oid::XID, oid::CID] {
        let expected = [(Wire::Binary, Int64), (Wire::Binary, Int64), (Wire::Binary, Text)];
        assert_eq!(travels(&column("c", oid, true).pg_type), expected, "oid {oid}");
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
        let travel = travel(&pg_type, &terms(Format::Parquet));
        assert_eq!((travel.wire, travel.carrier), (Wire::Binary, carrier), "{typmod:?}");
        assert_eq!(travel.note.is_some(), note.is_some(), "{typmod:?}");
        let words = travel.note.unwrap_or_default();
        assert!(words.contains(note.unwrap_or_default()), "{words:?}");
        assert_eq!(super::travel(&pg_type, &terms(Format::Csv)).carrier, NumberText);
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
        plans.into_iter().map(|plan| plan.policy).collect::<Vec<_>>()
    };
    assert_eq!(policies(Format::Parquet), ["error", "error", "error", "lossless", "error"]);
    assert_eq!(policies(Format::Csv), ["lossless"; 5]);
    assert_eq!(policies(Format::Ndjson), ["lossless"; 5]);
}
