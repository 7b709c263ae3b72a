use super::*;

fn found(kind: RelationKind, may_select: bool) -> CatalogRelation {
    CatalogRelation { oid: 1, kind, schema: "S".into(), name: "t".into(), may_select, tables: 1, branches: false }
}

fn shape(relation: RelationRequest) -> ShapeOptions {
    ShapeOptions {
        relation,
        columns: None,
        expressions: vec![],
        renames: vec![],
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    }
}

fn table() -> ShapeOptions {
    shape(RelationRequest::Table("S.t".into()))
}

#[test]
fn a_table_that_lock_table_may_take_needs_no_statement() {
    for kind in [RelationKind::Table, RelationKind::PartitionedTable] {
        assert_eq!(statements(&table(), Some(&found(kind, true)), ""), [""; 0]);
    }
}

#[test]
fn what_lock_table_may_not_take_is_planned_with_all_that_is_read() {
    let all = ["SELECT \"t\".* FROM \"S\".\"t\" AS \"t\""];
    for kind in [RelationKind::View, RelationKind::MaterializedView, RelationKind::ForeignTable] {
        assert_eq!(statements(&table(), Some(&found(kind, true)), ""), all);
        // Fewer columns could let the planner leave a joined table out.
        let some = ShapeOptions { columns: Some(vec!["a".into()]), ..table() };
        assert_eq!(statements(&some, Some(&found(kind, true)), ""), all);
    }
    let query = shape(RelationRequest::Query("TABLE x -- y".into()));
    assert_eq!(statements(&query, None, ""), ["SELECT query.* FROM (\nTABLE x -- y\n) AS query"]);
    let granted = ShapeOptions { columns: Some(vec!["a".into(), "b\"c".into()]), ..table() };
    assert_eq!(
        statements(&granted, Some(&found(RelationKind::Table, false)), ""),
        ["SELECT \"a\", \"b\"\"c\" FROM \"S\".\"t\" AS \"t\""]
    );
}

#[test]
fn a_predicate_plans_no_partition_out_of_the_locks() {
    let filtered = ShapeOptions {
        predicate: Some("t.d < 5 -- recent".into()),
        expressions: vec![("x".into(), "(SELECT max(y) FROM o)".into())],
        ..table()
    };
    let second = "SELECT (\n(SELECT max(y) FROM o)\n) FROM \"S\".\"t\" AS \"t\" WHERE (\nt.d < 5 -- recent\n)";
    assert_eq!(statements(&filtered, Some(&found(RelationKind::Table, true)), ""), [second]);
    assert_eq!(
        statements(&filtered, Some(&found(RelationKind::View, true)), ""),
        ["SELECT \"t\".* FROM \"S\".\"t\" AS \"t\"", second]
    );
}
