use super::*;
use crate::model::{Policies, Preset};
use crate::source::postgres::plan::Attribute;
use crate::source::postgres::plan::testing::column;
use crate::source::postgres::plan::type_mapping::{ServerTypes, map_type};

fn of(oid: u32) -> PgType {
    column("c", oid, true).pg_type
}

fn made(kind: TypeKind) -> PgType {
    PgType { kind, ..of(70_000) }
}

fn array(element: PgType) -> PgType {
    made(TypeKind::Array(Box::new(element)))
}

fn range(bound: PgType) -> PgType {
    made(TypeKind::Range(Box::new(bound)))
}

fn composite(attributes: &[(&str, PgType)]) -> PgType {
    let attribute = |(name, pg_type): &(&str, PgType)| Attribute { name: (*name).to_owned(), pg_type: pg_type.clone() };
    made(TypeKind::Composite(attributes.iter().map(attribute).collect()))
}

fn note(pg_type: &PgType, format: Format, preset: Preset, policies: Policies, sql_ascii: bool) -> String {
    let server = ServerTypes { sql_ascii, money_scale: 2, infinite_intervals: true };
    map_type(pg_type, &Terms { format, preset, policies, server }).note.unwrap_or_default()
}

fn plain(pg_type: &PgType, format: Format) -> String {
    note(pg_type, format, Preset::Postgres, Policies::default(), false)
}

#[test]
fn members_have_the_notes_that_columns_have() {
    let padded = "padded with blanks to its length, as stored";
    for format in [Format::Parquet, Format::Csv, Format::Ndjson] {
        let said = plain(&array(of(oid::BPCHAR)), format);
        assert!(said.ends_with(&format!("in each element: {padded}")), "{said}");
        let said = plain(&array(composite(&[("f", of(oid::INT4)), ("c", of(oid::BPCHAR))])), format);
        assert!(said.ends_with(&format!("in [].c: {padded}")), "{said}");
    }
    let many: Vec<(String, PgType)> = (0..5).map(|n| (format!("n{n}"), of(oid::NUMERIC))).collect();
    let many: Vec<(&str, PgType)> = many.iter().map(|(name, pg_type)| (name.as_str(), pg_type.clone())).collect();
    let said = plain(&composite(&many), Format::Parquet);
    assert_eq!(said, "in n0, n1, n2 and 2 more: numeric without precision and scale is written as text");
    let said = plain(&composite(&[("i", array(of(oid::INTERVAL))), ("z", of(oid::TIMETZ))]), Format::Parquet);
    assert!(said.contains("in i[]: written as text: Parquet's own interval") && said.contains("in z: "), "{said}");
    let said = plain(&range(of(oid::NUMERIC)), Format::Parquet);
    assert!(said.starts_with("in bounds: numeric without"), "{said}");
    let said = note(&array(of(oid::UUID)), Format::Parquet, Preset::Athena, Policies::default(), false);
    assert_eq!(said, "in each element: written as text: the type cannot be read there");
    assert_eq!(plain(&array(of(oid::INT4)), Format::Parquet), "");
}

#[test]
fn lists_of_uuids_are_what_pandas_cannot_read() {
    let uuids = || array(of(oid::UUID));
    for pg_type in [uuids(), composite(&[("u", uuids())]), array(composite(&[("u", uuids())]))] {
        assert!(plain(&pg_type, Format::Parquet).contains("pandas cannot read a list of uuids"), "{pg_type:?}");
        assert!(!plain(&pg_type, Format::Ndjson).contains("pandas"), "{pg_type:?}");
    }
    for pg_type in [of(oid::UUID), composite(&[("u", of(oid::UUID))]), array(composite(&[("u", of(oid::UUID))]))] {
        assert_eq!(plain(&pg_type, Format::Parquet), "", "{pg_type:?}");
    }
}

#[test]
fn a_choice_that_does_not_reach_a_part_says_so() {
    let chosen = Policies {
        char_padding: CharPadding::Trim,
        json_nan: JsonNan::Null,
        invalid_utf8: InvalidUtf8::Bytes,
        ..Policies::default()
    };
    let said = |pg_type: &PgType, format| note(pg_type, format, Preset::Postgres, chosen, true);
    let hstore = || made(TypeKind::Extension(ExtensionType::Hstore));
    for (pg_type, format, flags) in [
        (range(of(oid::NUMERIC)), Format::Ndjson, "--json-nan does not reach"),
        (array(range(of(oid::FLOAT8))), Format::Ndjson, "--json-nan does not reach"),
        (range(of(oid::BPCHAR)), Format::Csv, "--char-padding and --invalid-utf8 bytes do not reach"),
        (of(oid::RECORD), Format::Parquet, "--char-padding and --invalid-utf8 bytes do not reach"),
        (composite(&[("h", hstore())]), Format::Ndjson, "--invalid-utf8 bytes does not reach"),
        (hstore(), Format::Parquet, "--invalid-utf8 bytes does not reach"),
    ] {
        let said = said(&pg_type, format);
        assert!(said.contains(flags), "{pg_type:?}: {said}");
    }
    for (pg_type, format) in [
        (range(of(oid::NUMERIC)), Format::Csv),
        (range(of(oid::BPCHAR)), Format::Parquet),
        (range(of(oid::INT4)), Format::Ndjson),
        (array(composite(&[("c", of(oid::BPCHAR)), ("f", of(oid::FLOAT4))])), Format::Ndjson),
    ] {
        let said = said(&pg_type, format);
        assert!(!said.contains("reach"), "{pg_type:?}: {said}");
    }
}

#[test]
fn members_that_readers_take_for_one_are_found_and_numbered() {
    let fold = |name: &str| name.to_lowercase();
    let pair = composite(&[("a", of(oid::INT4)), ("A", of(oid::INT4)), ("a_2", of(oid::INT4))]);
    assert_eq!(double_member(&array(pair.clone()), &fold), Some("A".to_owned()));
    assert_eq!(double_member(&composite(&[("x", of(oid::INT4)), ("y", pair.clone())]), &fold), Some("A".to_owned()));
    assert_eq!(double_member(&pair, &str::to_owned), None);
    let member = |name: &str| Member { name: name.to_owned(), carrier: Carrier::Int32, nullable: true };
    let carrier = Carrier::List(Arc::new(Carrier::Struct(["a", "A", "a_2"].map(member).into())));
    let Carrier::List(element) = numbered_members(&carrier, &fold) else { panic!("a list stays one") };
    let Carrier::Struct(members) = element.as_ref() else { panic!("a struct stays one") };
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["a", "A_3", "a_2"]);
}
