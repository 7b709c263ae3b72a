use super::*;
use crate::source::postgres::catalog::TreePlace;
use crate::source::postgres::plan::LeafFacts;

fn found(oid: u32, relkind: &str) -> RelationRow {
    let facts = LeafFacts {
        oid,
        sql_name: format!("t{oid}"),
        blocks: 10,
        block_size: 8192,
        ctid_ranges: matches!(relkind, "r" | "m"),
        relations: 1,
    };
    let node = TreeNode {
        oid,
        relkind: relkind.into(),
        may_select: true,
        row_security: false,
        virtual_columns: false,
        only_hides: false,
        place: TreePlace::Leaf,
        facts,
        reltuples: 100.0,
    };
    RelationRow {
        node,
        schema: "public".into(),
        name: format!("t{oid}"),
        large_bytes: 1000,
        key: vec!["id".into()],
        may_use_schema: true,
        may_read_a_column: true,
        is_partition: false,
    }
}

fn listed(found: &[RelationRow], edges: &[(u32, u32)]) -> Vec<ListedRelation> {
    let mut listed = Forest::new(found, edges).listed();
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    listed
}

#[test]
fn leaves_of_every_depth_are_summed_once() {
    let partition = |oid, relkind: &str| RelationRow { is_partition: true, ..found(oid, relkind) };
    let mut root = found(1, "p");
    root.node.facts.blocks = 0;
    root.node.reltuples = -1.0;
    let all = [root, partition(2, "p"), partition(3, "r"), partition(4, "r"), partition(5, "r")];
    let edges = [(1, 2), (1, 3), (2, 4), (2, 5), (99, 98), (1, 97)];
    let listed = listed(&all, &edges);
    let first = &listed[0];
    assert_eq!((first.tables, first.estimated_rows, first.bytes), (3, Some(300), Some(3 * (81_920 + 1000))));
    assert_eq!((first.split, &first.part_of), (SplitWay::Blocks, &None));
    assert_eq!((listed[1].tables, listed[1].part_of.as_deref()), (2, Some("public.t1")));
    assert_eq!(listed[4].part_of.as_deref(), Some("public.t2"));
}

#[test]
fn a_diamond_of_inheritance_is_counted_once_and_has_no_key() {
    let all = [found(1, "r"), found(2, "r"), found(3, "r"), found(4, "r")];
    let listed = listed(&all, &[(1, 2), (1, 3), (2, 4), (3, 4)]);
    assert_eq!((listed[0].tables, listed[0].estimated_rows), (4, Some(400)));
    assert!(listed[0].key.is_empty() && listed[0].part_of.is_none() && listed[1].part_of.is_none());
    assert_eq!(listed[3].key, ["id"]);
}

#[test]
fn what_cannot_be_read_leaf_by_leaf_is_split_by_its_key() {
    let split = |change: fn(&mut RelationRow)| {
        let mut all = [found(1, "p"), found(2, "r"), found(3, "r")];
        change(&mut all[1]);
        listed(&all, &[(1, 2), (1, 3)])[0].split
    };
    assert_eq!(split(|_| {}), SplitWay::Blocks);
    assert_eq!(split(|leaf| leaf.node.may_select = false), SplitWay::Key);
    assert_eq!(split(|leaf| leaf.node.row_security = true), SplitWay::Key);
    assert_eq!(split(|leaf| leaf.node.relkind = "f".into()), SplitWay::Key);
    assert_eq!(split(|leaf| leaf.node.virtual_columns = true), SplitWay::Key);
    let mut columnar = [found(1, "p"), found(2, "r"), found(3, "r")];
    for one in &mut columnar {
        one.node.facts.ctid_ranges = false;
    }
    assert_eq!(listed(&columnar, &[(1, 2), (1, 3)])[0].split, SplitWay::Tables);
    assert_eq!(listed(&columnar, &[])[1].split, SplitWay::OnePartition);
    let view = RelationRow { key: Vec::new(), ..found(1, "v") };
    let view = &listed(&[view], &[])[0];
    assert_eq!((view.split, view.estimated_rows, view.bytes, view.tables), (SplitWay::OnePartition, None, None, 0));
}

#[test]
fn rights_are_told_apart() {
    let rights = |change: fn(&mut RelationRow)| {
        let mut one = found(1, "r");
        change(&mut one);
        readable(&one)
    };
    assert_eq!(rights(|_| {}), ReadableRows::All);
    assert_eq!(rights(|one| one.node.row_security = true), ReadableRows::SomeRows);
    assert_eq!(rights(|one| one.node.may_select = false), ReadableRows::SomeColumns);
    assert_eq!(rights(|one| one.may_read_a_column = false), ReadableRows::None);
    assert_eq!(rights(|one| one.may_use_schema = false), ReadableRows::None);
}

#[test]
fn names_are_quoted_where_they_must_be() {
    for (name, written) in [
        ("orders", "orders"),
        ("_x9", "_x9"),
        ("Orders", "\"Orders\""),
        ("9x", "\"9x\""),
        ("a\"b", "\"a\"\"b\""),
        ("ü", "\"ü\""),
    ] {
        assert_eq!(plain(name), written);
    }
}
