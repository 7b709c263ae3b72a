use std::num::NonZeroU32;
use std::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::model::{CapPlan, Carrier, ColumnStatistics, KeyRange};
use crate::source::postgres::plan::split::{capped_slices, key_slices, number_partitions};
use crate::source::postgres::plan::{ColumnFacts, Comparison, LeafFacts, Operators, PgType, TypeKind};

mod evaluate;

use Direction::{Asc, Desc};

fn pg_type(name: &str) -> PgType {
    PgType { oid: 23, base_oid: 23, typmod: None, name: name.into(), kind: TypeKind::Base }
}

fn key(name: &str, type_name: &str, direction: Direction, nullable: bool) -> PgKeyColumn {
    let comparison = Comparison { value_type: type_name.into(), ..Comparison::default() };
    PgKeyColumn { name: name.into(), pg_type: pg_type(type_name), direction, nullable, comparison }
}

fn citext(name: &str, direction: Direction, nullable: bool) -> PgKeyColumn {
    let mut column = key(name, "ext.citext", direction, nullable);
    column.comparison.operators = operators_of("ext");
    column
}

fn operators_of(schema: &str) -> Operators {
    let [less, less_or_equal, equal, greater_or_equal, greater] =
        ["<", "<=", "=", ">=", ">"].map(|name| format!("{schema}.{name}"));
    Operators { less, less_or_equal, equal, greater_or_equal, greater }
}

fn value(texts: &[Option<&str>]) -> KeyValue {
    texts.iter().map(|text| text.map(str::to_owned)).collect()
}

fn column_plan(origin: ColumnOrigin, wire: Wire) -> PgColumn {
    let mut column = PgColumn::plain("out", pg_type("int"), wire, Carrier::Text);
    column.output.origin = origin;
    column
}

/// A plan over `"S"."t"` (known as `"t"`) with one leaf of another name.
fn plan(key: Vec<PgKeyColumn>, predicate: Option<&str>) -> PgPlan {
    PgPlan {
        locks: crate::source::postgres::plan::LockUse::default(),
        watermark: None,
        delta: None,
        row_key: Vec::new(),
        relation: RelationFacts {
            kind: RelationKind::PartitionedTable,
            sql_name: "\"S\".\"t\"".into(),
            alias: "\"t\"".into(),
            display_name: Some("S.t".into()),
            columns: Vec::new(),
            leaves: vec![LeafFacts {
                oid: 1,
                sql_name: "\"S\".\"t_1\"".into(),
                blocks: 9,
                block_size: 8192,
                ctid_ranges: true,
                relations: 1,
            }],
            estimated_rows: None,
            unique_key: None,
            row_security: false,
            reading: crate::source::postgres::plan::ReadingFacts::default(),
        },
        predicate: predicate.map(str::to_owned),
        now: None,
        one_statement: None,
        columns: vec![column_plan(ColumnOrigin::Column("a".into()), Wire::Binary)],
        key,
        cap: CapPlan::none(),
        together: Vec::new(),
        partitions: Vec::new(),
    }
}

fn partition(slice: Slice, ordered: bool) -> PgPartition {
    PgPartition { number: 0, slice, ordered, row_limit: None }
}

fn keys(lower: Bound<KeyValue>, upper: Bound<KeyValue>) -> Slice {
    Slice::Keys(KeyRange { lower, upper })
}

#[test]
fn several_leaves_are_read_by_one_statement_in_their_order() {
    let mut plan = plan(vec![], Some("t.a > 1"));
    plan.relation.leaves.push(LeafFacts { sql_name: "\"S\".\"t_2\"".into(), ..plan.relation.leaves[0].clone() });
    let both = Slice::Leaves { from: 0, to: 2 };
    assert_eq!(
        select(&plan, &partition(both.clone(), false), &["\"k\"".to_owned()], None),
        "SELECT \"a\", \"k\"\nFROM ONLY \"S\".\"t_1\" AS \"t\"\nWHERE (\nt.a > 1\n)\nUNION ALL\n\
         SELECT \"a\", \"k\"\nFROM ONLY \"S\".\"t_2\" AS \"t\"\nWHERE (\nt.a > 1\n)"
    );
    plan.predicate = None;
    let one_each = "SELECT 1\nFROM ONLY \"S\".\"t_1\" AS \"t\"\nUNION ALL\nSELECT 1\nFROM ONLY \"S\".\"t_2\" AS \"t\"";
    assert_eq!(count(&plan, &both, None), format!("SELECT pg_catalog.count(*) FROM (\n{one_each}\n) AS counted"));
    assert_eq!(
        count_leaves(&plan, 1..2, NonZeroU64::MIN),
        "SELECT leaf::pg_catalog.int8, pg_catalog.count(*) FROM (\nSELECT 1 AS leaf FROM ONLY \"S\".\"t_2\" AS \"t\"\n\
         LIMIT 1) AS counted GROUP BY leaf ORDER BY leaf"
    );
}

#[test]
fn every_kind_of_slice_has_its_statement() {
    let tid = |block, offset| Some(TupleId { block, offset });
    let one = || vec![key("k", "int", Asc, true)];
    let two = || vec![key("k", "int", Desc, true), key("id", "int", Asc, false)];
    let whole = "SELECT \"a\"\nFROM \"S\".\"t\" AS \"t\"";
    for (key, slice, ordered, expected) in [
        (vec![], Slice::Whole, false, whole.to_owned()),
        (one(), Slice::Whole, true, format!("{whole}\nORDER BY \"t\".\"k\"")),
        (two(), Slice::Whole, true, format!("{whole}\nORDER BY \"t\".\"k\" DESC NULLS LAST, \"t\".\"id\"")),
        (one(), Slice::NullKeys, false, format!("{whole}\nWHERE \"k\" IS NOT DISTINCT FROM NULL")),
        (
            vec![],
            Slice::Heap { leaf: 0, from: None, to: None },
            false,
            "SELECT \"a\"\nFROM ONLY \"S\".\"t_1\" AS \"t\"".to_owned(),
        ),
        (
            vec![],
            Slice::Heap { leaf: 0, from: tid(3, 0), to: tid(7, 2) },
            false,
            "SELECT \"a\"\nFROM ONLY \"S\".\"t_1\" AS \"t\"\n\
             WHERE ctid OPERATOR(pg_catalog.>=) pg_catalog.current_setting('outhaul.from')::pg_catalog.tid\n  \
             AND ctid OPERATOR(pg_catalog.<) pg_catalog.current_setting('outhaul.to')::pg_catalog.tid"
                .to_owned(),
        ),
        (
            one(),
            keys(Bound::Included(value(&[Some("1")])), Bound::Excluded(value(&[Some("5")]))),
            false,
            format!(
                "{whole}\nWHERE \"k\" OPERATOR(pg_catalog.>=) '1'::int\n  AND \"k\" OPERATOR(pg_catalog.<) '5'::int"
            ),
        ),
        (
            one(),
            keys(Bound::Included(value(&[Some("1")])), Bound::Excluded(value(&[None]))),
            false,
            format!("{whole}\nWHERE \"k\" OPERATOR(pg_catalog.>=) '1'::int\n  AND ((\"k\" IS DISTINCT FROM NULL))"),
        ),
        (one(), keys(Bound::Unbounded, Bound::Unbounded), false, whole.to_owned()),
    ] {
        let plan = plan(key, None);
        assert_eq!(select(&plan, &partition(slice.clone(), ordered), &[], None), expected, "{slice:?}");
    }
}

#[test]
fn ranges_of_blocks_have_their_bounds_in_settings_or_in_the_count_itself() {
    let tid = |block, offset| Some(TupleId { block, offset });
    let heap = |from, to| Slice::Heap { leaf: 0, from, to };
    let set = |from: &str, to: &str| {
        Some(format!(
            "SELECT pg_catalog.set_config('outhaul.from', '{from}', true), \
             pg_catalog.set_config('outhaul.to', '{to}', true)"
        ))
    };
    for (slice, expected) in [
        (heap(tid(3, 0), tid(7, 2)), set("(3,0)", "(7,2)")),
        (heap(None, tid(7, 0)), set("(0,0)", "(7,0)")),
        (heap(tid(7, 0), None), set("(7,0)", "(4294967295,65535)")),
        (heap(None, None), None),
        (Slice::Whole, None),
        (Slice::NullKeys, None),
    ] {
        assert_eq!(set_bounds(&slice), expected, "{slice:?}");
    }
    let counted = count(&plan(Vec::new(), None), &heap(tid(3, 0), tid(7, 2)), None);
    assert!(
        counted.contains(
            "WHERE ctid OPERATOR(pg_catalog.>=) '(3,0)'::pg_catalog.tid\n  \
             AND ctid OPERATOR(pg_catalog.<) '(7,2)'::pg_catalog.tid"
        ),
        "{counted}"
    );
}

#[test]
fn peoples_sql_stands_on_lines_of_its_own_in_parentheses() {
    let mut plan = plan(vec![key("k", "int", Asc, false)], Some("a > 1 -- why"));
    plan.columns = vec![
        column_plan(ColumnOrigin::Column("sel\"ect".into()), Wire::OutputText),
        column_plan(ColumnOrigin::Expression("a + 1 -- one".into()), Wire::Binary),
        column_plan(ColumnOrigin::Expression("b -- two".into()), Wire::OutputText),
        column_plan(ColumnOrigin::Expression("c".into()), Wire::JsonText),
    ];
    let limited = PgPartition { row_limit: NonZeroU64::new(7), ..partition(Slice::Whole, true) };
    let after = value(&[Some("it's")]);
    assert_eq!(
        select(&plan, &limited, &["\"k\"::pg_catalog.text".to_owned()], Some(&after)),
        "SELECT CASE WHEN \"sel\"\"ect\" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', \"sel\"\"ect\") END, \
         (\na + 1 -- one\n), \
         (SELECT CASE WHEN outhaul_e.v IS DISTINCT FROM NULL THEN pg_catalog.format('%s', outhaul_e.v) END \
         FROM (SELECT (\nb -- two\n) AS v OFFSET 0) AS outhaul_e), \
         pg_catalog.to_json((\nc\n))::pg_catalog.text, \"k\"::pg_catalog.text\n\
         FROM \"S\".\"t\" AS \"t\"\nWHERE (\na > 1 -- why\n)\n  AND \"k\" OPERATOR(pg_catalog.>) 'it''s'::int\n\
         ORDER BY \"t\".\"k\"\nLIMIT 7"
    );
    plan.relation = RelationFacts {
        kind: RelationKind::Query,
        sql_name: "TABLE x -- y".into(),
        alias: "query".into(),
        ..plan.relation
    };
    assert_eq!(relation(&plan.relation), "(\nTABLE x -- y\n) AS query");
    let twice: Vec<ColumnFacts> = ["a", "a", "a_2"]
        .map(|name| ColumnFacts {
            name: name.into(),
            pg_type: pg_type("int"),
            not_null: false,
            comparison: Some(Comparison::default()),
            byte_ordered: false,
            bytes_equal: true,
            statistics: ColumnStatistics::default(),
        })
        .to_vec();
    plan.relation.columns = twice;
    assert_eq!(relation(&plan.relation), "(\nTABLE x -- y\n) AS query(\"a\", \"a_3\", \"a_2\")");
    assert_eq!(copy("TABLE x"), "COPY (\nTABLE x\n) TO STDOUT (FORMAT binary)");
}

#[test]
fn planning_asks_for_chosen_rows_and_no_more() {
    let plan = plan(vec![key("k", "pg_catalog.int4", Desc, true), key("id", "s.id", Asc, false)], Some("a"));
    assert_eq!(
        rows_by_key(&plan, 11, &[5, 10, 11]),
        "SELECT place, k0::pg_catalog.text, CASE WHEN k1 IS DISTINCT FROM NULL THEN pg_catalog.format('%s', k1) END \
         FROM (SELECT k0, k1, pg_catalog.row_number() OVER () AS place FROM (\n\
         SELECT \"k\" AS k0, \"id\" AS k1 FROM \"S\".\"t\" AS \"t\" WHERE (\na\n) \
         ORDER BY \"t\".\"k\" DESC NULLS LAST, \"t\".\"id\" LIMIT 11\n) AS ordered) AS numbered \
         WHERE place OPERATOR(pg_catalog.=) ANY ('{5, 10, 11}'::pg_catalog.int8[]) ORDER BY place"
    );
    assert_eq!(
        count_up_to(&plan, "x", NonZeroU64::MIN),
        "SELECT pg_catalog.count(*) FROM (SELECT FROM x WHERE (\na\n) LIMIT 1) AS counted"
    );
}

#[test]
fn one_not_null_column_is_a_plain_comparison() {
    let key = [key("id", "bigint", Asc, false)];
    assert_eq!(beyond(&key, &value(&[Some("7")]), Edge::After), "\"id\" OPERATOR(pg_catalog.>) '7'::bigint");
    assert_eq!(beyond(&key, &value(&[Some("7")]), Edge::UpTo), "\"id\" OPERATOR(pg_catalog.<=) '7'::bigint");
}

#[test]
fn a_descending_column_turns_the_operator() {
    let key = [key("id", "bigint", Desc, false)];
    assert_eq!(beyond(&key, &value(&[Some("7")]), Edge::After), "\"id\" OPERATOR(pg_catalog.<) '7'::bigint");
}

#[test]
fn a_composite_key_is_a_row_comparison_and_mixed_directions_are_not() {
    let plain = [key("a", "int", Asc, false), key("b", "int", Asc, false)];
    let v = value(&[Some("1"), Some("2")]);
    assert_eq!(beyond(&plain, &v, Edge::From), "(\"a\", \"b\") OPERATOR(pg_catalog.>=) ('1'::int, '2'::int)");
    let mixed = [key("a", "int", Asc, false), key("b", "int", Desc, false)];
    assert_eq!(
        beyond(&mixed, &v, Edge::After),
        "(\"a\" OPERATOR(pg_catalog.>=) '1'::int AND ((\"a\" OPERATOR(pg_catalog.>) '1'::int) \
         OR (\"a\" OPERATOR(pg_catalog.=) '1'::int AND \"b\" OPERATOR(pg_catalog.<) '2'::int)))"
    );
}

#[test]
fn nulls_are_last_in_every_comparison_and_a_composite_of_nulls_is_none() {
    let nullable = [key("a", "int", Asc, true)];
    assert_eq!(
        beyond(&nullable, &value(&[Some("1")]), Edge::After),
        "(((\"a\" OPERATOR(pg_catalog.>) '1'::int OR \"a\" IS NOT DISTINCT FROM NULL)))"
    );
    assert_eq!(beyond(&nullable, &value(&[None]), Edge::After), "false");
    assert_eq!(
        beyond(&nullable, &value(&[None]), Edge::UpTo),
        "((\"a\" IS DISTINCT FROM NULL) OR (\"a\" IS NOT DISTINCT FROM NULL))"
    );
}

#[test]
fn operators_are_those_that_the_type_sorts_by() {
    let one = [citext("k", Asc, false)];
    assert_eq!(beyond(&one, &value(&[Some("a")]), Edge::After), "\"k\" OPERATOR(ext.>) 'a'::ext.citext");
    // A row comparison has one operator name for all columns, and `ext` has none for int.
    let two = [citext("k", Asc, false), key("id", "int", Asc, false)];
    assert_eq!(
        beyond(&two, &value(&[Some("a"), Some("1")]), Edge::UpTo),
        "(\"k\" OPERATOR(ext.<=) 'a'::ext.citext AND ((\"k\" OPERATOR(ext.<) 'a'::ext.citext) \
         OR (\"k\" OPERATOR(ext.=) 'a'::ext.citext AND \"id\" OPERATOR(pg_catalog.<) '1'::int) \
         OR (\"k\" OPERATOR(ext.=) 'a'::ext.citext AND \"id\" OPERATOR(pg_catalog.=) '1'::int)))"
    );
    // Nor may the names be taken for granted: what sorts `|<|` may have a `<` of another meaning beside it.
    let mut odd = key("k", "s.odd", Desc, false);
    odd.comparison.operators = Operators { less: "s.|<|".into(), equal: "s.|=|".into(), ..operators_of("s") };
    let both = [odd.clone(), PgKeyColumn { name: "l".into(), ..odd }];
    assert_eq!(
        beyond(&both, &value(&[Some("a"), Some("b")]), Edge::After),
        "(\"k\", \"l\") OPERATOR(s.|<|) ('a'::s.odd, 'b'::s.odd)"
    );
}

#[test]
fn bounds_of_a_domain_are_cast_to_what_is_under_it() {
    let mut even = key("k", "even", Asc, false);
    even.comparison.value_type = "pg_catalog.int4".into();
    assert_eq!(
        beyond(&[even], &value(&[Some("3")]), Edge::Before),
        "\"k\" OPERATOR(pg_catalog.<) '3'::pg_catalog.int4"
    );
    // Of operators that are not built in there may be others for the domain itself.
    let mut name = citext("k", Asc, false);
    name.comparison.read_as = Some("ext.citext".into());
    let value = value(&[Some("a")]);
    assert_eq!(
        beyond(std::slice::from_ref(&name), &value, Edge::Before),
        "\"k\"::ext.citext OPERATOR(ext.<) 'a'::ext.citext"
    );
    name.comparison.value_type = "s.like_citext".into();
    assert_eq!(
        beyond(&[name], &value, Edge::Before),
        "\"k\"::ext.citext OPERATOR(ext.<) 'a'::s.like_citext::ext.citext"
    );
}

/// A row's key and the key's shape: how many columns, which directions, which can be NULL.
type Row = Vec<Option<i32>>;

fn shapes() -> impl Strategy<Value = (Vec<PgKeyColumn>, Vec<Row>)> {
    prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..4).prop_flat_map(|shape| {
        let key: Vec<PgKeyColumn> = shape
            .iter()
            .zip(["a", "b", "c"])
            .map(|((desc, nullable, other), name)| {
                let direction = if *desc { Desc } else { Asc };
                if *other { citext(name, direction, *nullable) } else { key(name, "int", direction, *nullable) }
            })
            .collect();
        let field =
            |nullable: bool| if nullable { prop::option::of(0..4).boxed() } else { (0..4).prop_map(Some).boxed() };
        let row: Vec<_> = shape.iter().map(|(_, nullable, _)| field(*nullable)).collect();
        (Just(key), prop::collection::vec(row, 0..40))
    })
}

fn order(key: &[PgKeyColumn], a: &Row, b: &Row) -> std::cmp::Ordering {
    let fields = key.iter().zip(a.iter().zip(b)).map(|(column, (a, b))| match (a, b) {
        (None, b) => b.is_some().cmp(&false),
        (_, None) => std::cmp::Ordering::Less,
        (Some(a), Some(b)) if column.direction == Asc => a.cmp(b),
        (Some(a), Some(b)) => b.cmp(a),
    });
    fields.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

fn texts(row: &[Option<i32>]) -> KeyValue {
    row.iter().map(|field| field.map(|field| field.to_string())).collect()
}

/// How many partitions of `plan` a row falls into.
fn homes(plan: &PgPlan, row: &Row) -> usize {
    plan.partitions
        .iter()
        .filter(|partition| {
            conditions(plan, &partition.slice).iter().all(|sql| evaluate::holds(sql, &plan.key, row) == Some(true))
        })
        .count()
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    /// I4: whatever the bounds, every row is in exactly one partition, rows with NULL keys included.
    #[test]
    fn i4_key_partitions_are_disjoint_and_cover((key, rows) in shapes(), picks in prop::collection::vec(0..4, 0..4)) {
        let mut picks: Vec<Row> = picks.into_iter().map(|pick| vec![Some(pick)]).collect();
        picks.sort_by(|a, b| order(&key[..1], a, b));
        picks.dedup();
        let bounds = picks.iter().map(|pick| texts(pick)).collect();
        let mut plan = plan(key, None);
        let slices = key_slices(bounds, plan.key[0].nullable);
        plan.partitions = number_partitions(slices, false, None).unwrap();
        for row in &rows {
            prop_assert_eq!(homes(&plan, row), 1, "{:?} in {:?}", row, plan.partitions);
        }
    }

    /// I7: the first N rows are in exactly one partition each, the others in none.
    #[test]
    fn i7_capped_partitions_hold_the_first_rows_and_no_others((key, mut rows) in shapes(), cap in 1..30_usize, parts in 1..5_u32) {
        rows.sort_by(|a, b| order(&key, a, b));
        rows.dedup();
        let points = crate::source::postgres::plan::split::row_split_points(cap as u64, NonZeroU32::new(parts).unwrap());
        let at = |place: u64| rows.get(usize::try_from(place).unwrap() - 1).map(|row| texts(row));
        let splits = points.into_iter().filter_map(at).collect();
        let boundary = at(cap as u64).filter(|_| rows.len() > cap);
        let mut plan = plan(key, None);
        plan.partitions = number_partitions(capped_slices(splits, boundary), true, None).unwrap();
        for (place, row) in rows.iter().enumerate() {
            prop_assert_eq!(homes(&plan, row), usize::from(place < cap), "{:?} in {:?}", row, plan.partitions);
        }
    }

    /// A page begins where the last one ended.
    #[test]
    fn pages_follow_each_other((key, mut rows) in shapes(), size in 1..9_usize) {
        rows.sort_by(|a, b| order(&key, a, b));
        rows.dedup();
        for (place, row) in rows.iter().enumerate().step_by(size) {
            let after = beyond(&key, &texts(row), Edge::After);
            for (other, candidate) in rows.iter().enumerate() {
                let found = evaluate::holds(&after, &key, candidate) == Some(true);
                prop_assert_eq!(found, other > place, "{:?} after {:?}: {}", candidate, row, after);
            }
        }
    }
}
