use proptest::prelude::*;

use super::super::lexer;
use super::error::ChScopeError;
use super::*;
use crate::model::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, TenantScope};

fn column(type_name: &str) -> ScopeColumn {
    ScopeColumn { name: "c".to_owned(), type_name: type_name.to_owned(), ..ScopeColumn::default() }
}

fn one(type_name: &str, test: ScopeTest) -> Result<String, ChScopeError> {
    let scope = RowScope { conditions: vec![ScopeCondition { column: column(type_name), test }], tenant: None };
    predicate(&scope).map(Option::unwrap_or_default)
}

fn equal(type_name: &str, value: &str) -> Result<String, ChScopeError> {
    one(type_name, ScopeTest::Equal(value.to_owned()))
}

fn of_tenant(template: &str, type_name: &str, tenant: &str) -> Result<String, ChScopeError> {
    let [template, type_name, tenant] = [template, type_name, tenant].map(str::to_owned);
    predicate(&RowScope { conditions: Vec::new(), tenant: Some(TenantScope { template, type_name, tenant }) })
        .map(Option::unwrap_or_default)
}

#[test]
fn a_value_is_exactly_what_its_column_holds_or_nothing() {
    for (type_name, value, sql) in [
        ("UInt8", "255", "CAST('255' AS UInt8)"),
        ("LowCardinality(Nullable(Int8))", "-128", "CAST('-128' AS Int8)"),
        ("Int8", "-0", "CAST('0' AS Int8)"),
        ("UInt64", "0018446744073709551615", "CAST('18446744073709551615' AS UInt64)"),
        ("Int64", "-9223372036854775808", "CAST('-9223372036854775808' AS Int64)"),
        (
            "UInt128",
            "340282366920938463463374607431768211455",
            "CAST('340282366920938463463374607431768211455' AS UInt128)",
        ),
        ("Decimal(10, 2)", "-00012.340", "CAST('-12.34' AS Decimal(10, 2))"),
        ("Decimal(4, 4)", "0.5", "CAST('0.5' AS Decimal(4, 4))"),
        ("Float64", "0.1", "reinterpretAsFloat64(toUInt64(4591870180066957722))"),
        ("Float32", "1e0", "reinterpretAsFloat32(toUInt32(1065353216))"),
        ("Bool", "true", "true"),
        ("String", "it's \\", "'it\\'s \\\\'"),
        ("Date", "2026-01-31", "toDate('2026-01-31')"),
        ("Nullable(Date32)", "2026-01-31", "toDate32('2026-01-31')"),
        ("DateTime", "2026-01-31T12:00:00+01:00", "toDateTime(1769857200, 'UTC')"),
        ("DateTime64(3)", "2026-01-31 11:00:00.5", "fromUnixTimestamp64Micro(toInt64('1769857200500000'), 'UTC')"),
        ("UUID", "00000000-0000-0000-0000-00000000000A", "toUUID('00000000-0000-0000-0000-00000000000a')"),
        ("IPv4", "127.0.0.1", "toIPv4('127.0.0.1')"),
        ("IPv6", "127.0.0.1", "toIPv6('::ffff:127.0.0.1')"),
    ] {
        assert_eq!(equal(type_name, value), Ok(format!("(`c` = {sql})")), "{type_name} {value}");
    }
    for (type_name, value) in [
        // What the server itself would make another value of.
        ("UInt8", "256"),
        ("UInt8", "-1"),
        ("Int8", "-129"),
        ("UInt64", "18446744073709551660"),
        ("Int64", "9223372036854775808"),
        ("Int256", "57896044618658097711785492504343953926634992332820282019728792003956564819968"),
        ("UInt8", "1.0"),
        ("UInt8", ""),
        ("UInt8", "0x1"),
        ("UInt8", " 1"),
        ("UInt8", "'1'"),
        ("UInt8", "1) OR (1=1"),
        ("Decimal(4, 1)", "1.24"),
        ("Decimal(4, 1)", "1000"),
        ("Decimal(4, 1)", "1e2"),
        ("Decimal(4, 1)", ".5"),
        ("Float64", "1)"),
        ("Float64", "0x1p3"),
        ("Bool", "yes"),
        ("Date", "now"),
        ("Date", "2026-02-30"),
        ("Date", "1899-12-31"),
        ("Date", "2026-01-31T00:00:00"),
        ("DateTime", "today"),
        ("DateTime", "2026-01-31 24:00:00"),
        ("DateTime", "2026-01-31 1:00:00"),
        ("DateTime", "2026-01-31 12:00:00 Europe/Berlin"),
        ("DateTime", "2026-01-31 12:00:00+99:00"),
        ("DateTime64(9)", "2300-01-01"),
        ("UUID", "0"),
        ("IPv4", "1.2.3"),
        ("String", "a\0b"),
        ("Array(UInt8)", "[1]"),
        ("JSON", "{}"),
        ("Quantum", "1"),
    ] {
        assert!(equal(type_name, value).is_err(), "{type_name} {value:?}: {:?}", equal(type_name, value));
    }
}

#[test]
fn a_tenant_stands_where_the_condition_has_it_and_nowhere_else() {
    let sql = of_tenant("customer = {tenant} -- '{tenant}' \"{tenant}\"", "", "a'c").unwrap();
    assert_eq!(sql, "(\ncustomer = (materialize('a\\'c'))\n)");
    let sql = of_tenant("a = {tenant} AND note != '{tenant}'", "UInt64", "7").unwrap();
    assert_eq!(sql, "(\na = (materialize(CAST('7' AS UInt64))) AND note != '{tenant}'\n)");
    for (template, type_name, tenant) in [
        ("customer = {tenant}", "", ""),
        ("customer = {tenant}", "", " \n"),
        ("customer = 'x{tenant}'", "", "a"),
        ("customer = { tenant }", "", "a"),
        ("customer = {tenant:String}", "", "a"),
        ("customer = 1", "", "a"),
        ("customer = {tenant}) OR (1", "", "a"),
        ("customer = {tenant}; SELECT 1", "", "a"),
        ("customer = {tenant}", "bigint", "1"),
        ("customer = {tenant}", "Array(String)", "['a']"),
        ("customer = {tenant}", "UInt64", "18446744073709551660"),
        ("customer = {tenant}", "UInt64", "1 OR 1"),
    ] {
        assert!(of_tenant(template, type_name, tenant).is_err(), "{template} {type_name} {tenant:?}");
    }
    let scope = |template: &str, type_name: &str| TenantScope {
        template: template.to_owned(),
        type_name: type_name.to_owned(),
        tenant: String::new(),
    };
    let none = without_rows(Some(&scope("customer = {tenant}", ""))).unwrap();
    assert_eq!(none, "(\ncustomer = (materialize('-'))\n)\nAND 0");
    assert_eq!(trial(&none), Some("(\ncustomer = (materialize('-'))\n)"));
    assert_eq!((without_rows(None).unwrap().as_str(), trial("0")), ("0", None));
    assert!(without_rows(Some(&scope("customer = 1", ""))).is_err());
}

#[test]
fn days_that_the_server_does_not_have_bound_nothing() {
    let days = |type_name: &str, from: Option<&str>, to: Option<&str>| {
        one(type_name, ScopeTest::DateRange { from: from.map(str::to_owned), to: to.map(str::to_owned) })
    };
    let is = |found: Result<String, ChScopeError>, sql: &str| assert_eq!(found, Ok(format!("({sql})")));
    is(
        days("Date", Some("2026-01-01"), Some("2026-01-31")),
        "(`c` >= toDate('2026-01-01')) AND (`c` <= toDate('2026-01-31'))",
    );
    is(days("DateTime", None, Some("1970-01-01")), "(`c` < toDateTime(86400, 'UTC'))");
    is(days("DateTime64(3)", Some("0001-01-01"), Some("9999-12-31")), "isNotNull(`c`)");
    is(days("Date32", Some("2300-01-01"), None), "0");
    is(days("Date32", None, Some("1899-12-31")), "0");
    assert_eq!(days("String", Some("2026-01-01"), None), Err(ChScopeError::NoDays("c".to_owned())));
    assert_eq!(days("Date", None, None), Err(ChScopeError::NoRange));
    assert_eq!(days("Date", Some("yesterday"), None), Err(ChScopeError::Day));
    let bucket =
        |type_name: &str, unit, start: &str| one(type_name, ScopeTest::Bucket { unit, start: start.to_owned() });
    is(
        bucket("DateTime", BucketUnit::Month, "2026-01-01 00:00:00"),
        "(`c` >= toDateTime(1767225600, 'UTC')) AND (`c` < toDateTime(1769904000, 'UTC'))",
    );
    is(bucket("Date32", BucketUnit::Year, "2299-01-01"), "(`c` >= toDate32('2299-01-01'))");
    is(
        bucket("Date", BucketUnit::Hour, "2026-01-01"),
        "(`c` >= toDate('2026-01-01')) AND (`c` < toDate('2026-01-02'))",
    );
}

#[test]
fn patterns_and_sets_mean_what_they_say() {
    let like = |pattern: &str| one("String", ScopeTest::Like(pattern.to_owned()));
    assert_eq!(like("50\\%_\\x\\\\%"), Ok("(`c` LIKE '50\\\\%_x\\\\\\\\%')".to_owned()));
    assert_eq!(like("a\\"), Err(ChScopeError::OpenPattern));
    assert_eq!(like(&"%".repeat(11)), Err(ChScopeError::Pattern));
    assert_eq!(like(&"a".repeat(201)), Err(ChScopeError::Pattern));
    let of = |type_name: &str, values: &[&str]| {
        one(type_name, ScopeTest::In(values.iter().map(|value| (*value).to_owned()).collect()))
    };
    assert_eq!(of("UInt8", &[]), Ok("(0)".to_owned()));
    assert_eq!(of("String", &["a", "b'"]), Ok("(`c` IN ('a', 'b\\''))".to_owned()));
    assert_eq!(of("Enum8('a' = 1)", &["a", "z"]), Ok("(toString(`c`) IN ('a', 'z'))".to_owned()));
    // What the column cannot hold would become something else in a set, and an equality may be made one.
    assert_eq!(
        of("DateTime", &["1970-01-01 00:00:01.5", "1970-01-01", "2106-02-07 06:28:16"]),
        Ok("(`c` IN (toDateTime(0, 'UTC')))".to_owned())
    );
    for (type_name, value) in [
        ("Date", "1950-01-31"),
        ("Date", "2149-06-07"),
        ("DateTime", "2106-02-07T06:28:16Z"),
        ("DateTime", "1969-12-31T23:59:59Z"),
        ("DateTime", "2026-01-31T00:00:00.000001Z"),
        ("DateTime64(3)", "2026-01-31T00:00:00.0001Z"),
    ] {
        assert_eq!(equal(type_name, value), Ok("(0)".to_owned()), "{type_name} {value}");
        assert_eq!(of(type_name, &[value, value]), Ok("(0)".to_owned()));
        assert_eq!(one(type_name, ScopeTest::NotEqual(value.to_owned())), Ok("(isNotNull(`c`))".to_owned()));
    }
    assert_eq!(
        one("DateTime", ScopeTest::Less("2106-02-07T06:28:16Z".to_owned())),
        Ok("(`c` < fromUnixTimestamp64Micro(toInt64('4294967296000000'), 'UTC'))".to_owned())
    );
    assert_eq!(equal("Float64", "NaN"), Ok("(isNaN(`c`))".to_owned()));
    assert_eq!(one("Float64", ScopeTest::Less("nan".to_owned())), Err(ChScopeError::NotOrdered));
    let made = ScopeColumn { sql: Some("a + 1 -- more".to_owned()), ..column("Int64") };
    let scope = |column| RowScope {
        conditions: vec![ScopeCondition { column, test: ScopeTest::Equal("2".to_owned()) }],
        tenant: None,
    };
    assert_eq!(predicate(&scope(made)), Ok(Some("((\na + 1\n) = CAST('2' AS Int64))".to_owned())));
    for sql in ["a) OR (1", "a; SELECT 1", ""] {
        let made = ScopeColumn { sql: Some(sql.to_owned()), ..column("Int64") };
        assert!(predicate(&scope(made)).is_err(), "{sql}");
    }
    let named = ScopeColumn { name: "a`b".to_owned(), ..column("Int64") };
    assert_eq!(predicate(&scope(named)), Ok(Some("(`a\\`b` = CAST('2' AS Int64))".to_owned())));
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    /// Whatever a caller writes, for whichever type: it is refused, or it is one condition, which ends where ours does.
    #[test]
    fn any_text_is_refused_or_one_condition(
        type_name in prop::sample::select(vec![
            "String", "UInt8", "Int64", "Float64", "Decimal(10, 2)", "Date", "DateTime64(3)", "UUID", "IPv6", "Bool",
            "Enum8('a' = 1)", "LowCardinality(Nullable(String))",
        ]),
        text in prop_oneof![
            ".{0,30}",
            "[0-9'\\\\ .:TZe+-]{0,30}",
            "[a'\"`\\\\()\\[\\]{};/*#\n$-]{0,12}",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2})?)?",
        ],
    ) {
        let tests = [
            ScopeTest::Equal(text.clone()),
            ScopeTest::NotEqual(text.clone()),
            ScopeTest::Less(text.clone()),
            ScopeTest::In(vec![text.clone(), text.clone()]),
            ScopeTest::Between(text.clone(), text.clone()),
            ScopeTest::Like(text.clone()),
            ScopeTest::DateRange { from: Some(text.clone()), to: None },
            ScopeTest::Bucket { unit: BucketUnit::Month, start: text.clone() },
        ];
        let conditions = tests.into_iter().map(|test| one(type_name, test));
        for sql in conditions.chain([of_tenant("tenant = {tenant}", type_name, &text)]).flatten() {
            prop_assert_eq!(lexer::check("--where", &sql).ok(), Some(sql.as_str()), "{}", sql);
            // The caller's text stands in quotes alone.
            let bare = lexer::statement(&sql).map(|says| says.format);
            prop_assert_eq!(bare, Ok(None));
        }
    }
}
