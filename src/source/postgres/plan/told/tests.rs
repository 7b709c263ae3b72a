use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Bound;

use super::*;
use crate::cli::plan_view::{PARTITIONS_SHOWN_MAX, PlanView, range_words};
use crate::config::{Environment, load};
use crate::model::{CapPlan, Carrier, Direction, Format, RelationKind, RowOrder, RowsAvailable, TupleId};
use crate::source::postgres::plan::split::number_partitions;
use crate::source::postgres::plan::testing::{column, relation};
use crate::source::postgres::plan::{Comparison, PgColumn, RelationFacts, Wire};

fn request(readers: usize, read_mode: ReadMode) -> ReadRequest {
    let words = [("from", "postgres://me@db/shop"), ("table", "t"), ("to", "out")];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    let mut request = load(flags, &Environment::of([], []), true).unwrap().0.read_request();
    request.work.readers = NonZeroUsize::new(readers).unwrap();
    request.work.read_mode = read_mode;
    request
}

fn told(plan: &PgPlan, readers: usize, read_mode: ReadMode) -> Plan {
    plan.told(&request(readers, read_mode)).unwrap()
}

fn text(plan: &PgPlan, readers: usize, read_mode: ReadMode) -> String {
    PlanView::new(&told(plan, readers, read_mode), Format::Csv).to_string()
}

fn plan() -> PgPlan {
    let mut facts = relation(vec![column("id", 20, true), column("span", 1186, false)]);
    facts.leaves[0].blocks = 1280;
    facts.estimated_rows = Some(1_234_567);
    let mut id = PgColumn::plain("id", facts.columns[0].pg_type.clone(), Wire::Binary, Carrier::Int64);
    id.output.nullable = false;
    let mut span = PgColumn::plain("span", facts.columns[1].pg_type.clone(), Wire::OutputText, Carrier::Text);
    span.output.note = Some("sent as its output text".to_owned());
    let columns = vec![id, span];
    let slices = vec![
        Slice::Heap { leaf: 0, from: None, to: Some(TupleId { block: 640, offset: 0 }) },
        Slice::Heap { leaf: 0, from: Some(TupleId { block: 640, offset: 0 }), to: None },
    ];
    PgPlan {
        locks: crate::source::postgres::plan::LockUse::default(),
        watermark: None,
        delta: None,
        row_key: Vec::new(),
        relation: facts,
        predicate: Some("id > 5\nand true".into()),
        now: None,
        one_statement: None,
        columns,
        key: Vec::new(),
        cap: CapPlan::none(),
        together: Vec::new(),
        partitions: number_partitions(slices, false, None).unwrap(),
    }
}

fn key(names: &[&str]) -> Vec<PgKeyColumn> {
    let key_column = |name: &&str| PgKeyColumn {
        name: (*name).to_owned(),
        pg_type: column(name, 20, true).pg_type,
        direction: Direction::Desc,
        nullable: *name == "a",
        comparison: Comparison::default(),
    };
    names.iter().map(key_column).collect()
}

fn value(values: &[&str]) -> KeyValue {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

#[test]
fn the_text_form() {
    let text = text(&plan(), 4, ReadMode::Copy);
    let expected = "\
relation    public.t, table, about 1,234,567 rows, 10.00 MiB of heap
where       id > 5
            and true
cap         none
read        COPY under one snapshot, 4 readers, 7 connections at most
cache       block ranges may evict up to 10.00 MiB of what the server has cached
            (--source-profile gentle reads each table in one pass, in a ring of 256 KiB)

columns     2
  name  type             sent as      held as  if a value does not fit  note
  id    type20 not null  binary       int64    lossless
  span  type1186         output text  text     lossless                 sent as its output text

partitions  2
      0  blocks 0 to 639 of public.t
      1  blocks from 640 on of public.t
";
    assert_eq!(text, expected);
}

#[test]
fn foreign_tables_are_of_the_moment_of_each_statement() {
    let mut plan = plan();
    assert_eq!(told(&plan, 4, ReadMode::Copy).read.consistency, ConsistencyMode::SingleSnapshot);
    plan.relation.reading.foreign = vec!["far.t".into()];
    let view = told(&plan, 4, ReadMode::Copy);
    assert_eq!(view.read.consistency, ConsistencyMode::Foreign);
    assert!(view.read.note.as_ref().is_some_and(|note| note.starts_with("2 statements read the foreign tables far.t")));
    let text = text(&plan, 4, ReadMode::Copy);
    assert!(text.contains("read        COPY, foreign tables at the moment of each statement, 4 readers"), "{text}");
    let page_size = NonZeroU64::MIN;
    assert_eq!(told(&plan, 1, ReadMode::Keyset { page_size }).read.consistency, ConsistencyMode::Keyset);
    plan.partitions.truncate(1);
    let note = told(&plan, 4, ReadMode::Copy).read.note;
    assert!(note.is_some_and(|note| note.starts_with("one statement reads the foreign tables far.t")));
}

#[test]
fn the_text_form_of_a_truncated_query() {
    let mut plan = plan();
    plan.relation = RelationFacts {
        kind: RelationKind::Query,
        sql_name: "select 1\nas a".into(),
        display_name: None,
        leaves: Vec::new(),
        estimated_rows: None,
        ..plan.relation
    };
    plan.predicate = None;
    plan.key = key(&["a", "b"]);
    plan.cap = CapPlan {
        tier: Some("free".into()),
        max_rows: NonZeroU64::new(10_000),
        truncated: true,
        order: RowOrder::Key,
        boundary: Some(vec![Some("7".into()), None]),
        available: RowsAvailable::AtLeast(10_001),
        by_reading: false,
    };
    let keys = Slice::Keys(KeyRange { lower: Bound::Unbounded, upper: Bound::Included(value(&["7", "8"])) });
    plan.partitions = number_partitions(vec![keys], true, NonZeroU64::new(10_000)).unwrap();
    let page_size = NonZeroU64::new(5000).unwrap();
    let text = text(&plan, 1, ReadMode::Keyset { page_size });
    let head = "\
relation    query
            select 1
            as a
key         a desc (NULLs last), b desc
cap         10,000 rows (tier free): truncated to the first 10,000 in key order, up to and including (7, NULL)
read        keyset pages of 5,000 rows, no common snapshot, 1 reader, 2 connections at most
";
    assert!(text.starts_with(head), "{text}");
    assert!(text.ends_with("      0  (a, b) through (7, 8), at most 10,000 rows, in key order\n"), "{text}");
}

#[test]
fn many_partitions_are_cut_for_people_only() {
    let mut plan = plan();
    plan.partitions = number_partitions(vec![Slice::Whole; PARTITIONS_SHOWN_MAX + 2], false, None).unwrap();
    let plan = told(&plan, 4, ReadMode::Copy);
    let view = PlanView::new(&plan, Format::Csv);
    assert!(view.to_string().ends_with("  and 2 more; --report json shows all\n"));
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(json["partitions"].as_array().unwrap().len(), PARTITIONS_SHOWN_MAX + 2);
}

#[test]
fn the_json_form() {
    let plan = told(&plan(), 4, ReadMode::Copy);
    let json = serde_json::to_value(PlanView::new(&plan, Format::Parquet)).unwrap();
    assert_eq!(json["format"], "outhaul.plan");
    assert_eq!(json["plan_version"], 1);
    assert_eq!(json["relation"]["kind"], "table");
    assert_eq!(json["relation"]["heap_bytes"], 1280 * 8192);
    assert_eq!(
        json["read"],
        serde_json::json!({
            "mode": "copy", "consistency": "single_snapshot", "page_size": null, "readers": 4, "peak_connections": 7,
            "source_profile": "balanced", "may_evict_bytes": 1280 * 8192,
            "locks": {"way": "before_snapshot", "at_most": 0, "lock_table": 0, "readers": null}
        })
    );
    assert_eq!(json["output"], "parquet");
    assert_eq!(
        json["columns"][0],
        serde_json::json!({
            "name": "id", "from": {"column": "id"}, "pg_type": "type20", "wire": "binary", "carrier": "int64",
            "arrow_type": "Int64", "nullable": false, "policy": "lossless", "note": null
        })
    );
    assert_eq!(
        json["partitions"][1],
        serde_json::json!({
            "number": 1, "range": "blocks from 640 on of public.t", "ordered": false, "row_limit": null
        })
    );
}

#[test]
fn connections_at_the_busiest_moment() {
    let keyset = ReadMode::Keyset { page_size: NonZeroU64::MIN };
    for (readers, mode, peak) in [(1, ReadMode::Copy, 2), (2, ReadMode::Copy, 5), (1, keyset, 2), (8, keyset, 9)] {
        assert_eq!(told(&plan(), readers, mode).read.peak_connections, peak, "{readers} {mode:?}");
    }
    for (readers, peak) in [(1, 5), (4, 8)] {
        let request = ReadRequest { keep: true, ..request(readers, ReadMode::Copy) };
        let read = plan().told(&request).unwrap().read;
        assert_eq!(read.peak_connections, peak, "{readers} and a keeper beyond the run");
    }
}

#[test]
fn locks_in_words() {
    use crate::source::postgres::plan::{LockUse, LockWay};
    let locks = LockUse { way: LockWay::LeafByLeaf, at_most: 1599, lock_table: 6400, readers: None };
    let text = text(&PgPlan { locks, ..plan() }, 4, ReadMode::Copy);
    let line = "locks       1,599 at most, a few tables at a time, each compared with the snapshot; the server has room for 6,400";
    assert!(text.lines().any(|written| written == line), "{text}");
}

fn slice_words(slice: &Slice, leaves: &[LeafFacts], key: &[PgKeyColumn]) -> String {
    let key: Vec<KeyColumn> = key.iter().map(key_column).collect();
    range_words(&part_range(slice, leaves).unwrap(), &key)
}

#[test]
fn ranges_in_words() {
    let mut leaves = plan().relation.leaves;
    leaves.push(LeafFacts { sql_name: "public.u".into(), ..leaves[0].clone() });
    let both = slice_words(&Slice::Leaves { from: 0, to: 2 }, &leaves, &[]);
    assert_eq!(both, "all of 2 tables, public.t to public.u");
    let at = |block, offset| Some(TupleId { block, offset });
    let heap = |from, to| slice_words(&Slice::Heap { leaf: 0, from, to }, &leaves, &[]);
    assert_eq!(heap(None, None), "all of public.t");
    assert_eq!(heap(at(5, 0), at(9, 8)), "blocks 5 to 9 (to row 7) of public.t");
    assert_eq!(heap(at(5, 0), at(9, 0)), "blocks 5 to 8 of public.t");
    assert_eq!(slice_words(&Slice::Whole, &leaves, &[]), "all rows");
    assert_eq!(slice_words(&Slice::NullKeys, &leaves, &key(&["a"])), "a is NULL");
    let keys = |lower, upper| slice_words(&Slice::Keys(KeyRange { lower, upper }), &leaves, &key(&["a", "b"]));
    let (one, two) = (value(&["1"]), value(&["2", "x"]));
    assert_eq!(keys(Bound::Unbounded, Bound::Unbounded), "every (a, b)");
    assert_eq!(keys(Bound::Included(one.clone()), Bound::Unbounded), "a from 1 on");
    assert_eq!(keys(Bound::Unbounded, Bound::Excluded(one)), "a to before 1");
    assert_eq!(keys(Bound::Excluded(two.clone()), Bound::Included(two)), "(a, b) after (2, x) through (2, x)");
    assert_eq!(keys(Bound::Unbounded, Bound::Excluded(vec![None])), "a to before NULL");
}
