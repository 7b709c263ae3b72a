use super::*;

fn node(oid: u32, relkind: &str) -> TreeNode {
    TreeNode {
        oid,
        relkind: relkind.into(),
        may_select: true,
        row_security: false,
        virtual_columns: false,
        only_hides: false,
        place: catalog::TreePlace::Leaf,
        facts: LeafFacts {
            oid,
            sql_name: format!("n{oid}"),
            blocks: 1,
            block_size: 8192,
            ctid_ranges: true,
            relations: 1,
        },
        reltuples: 0.0,
    }
}

fn leaf_oids(kind: RelationKind, tree: &[TreeNode]) -> Vec<u32> {
    let found = CatalogRelation {
        oid: 1,
        kind,
        schema: "S".into(),
        name: "t".into(),
        may_select: true,
        tables: 1,
        branches: false,
    };
    leaves(&found, tree).iter().map(|leaf| leaf.oid).collect()
}

#[test]
fn leaves_are_read_directly_only_where_that_gives_the_parents_rows() {
    let tree = || vec![node(1, "p"), node(2, "r"), node(3, "p"), node(4, "r")];
    assert_eq!(leaf_oids(RelationKind::PartitionedTable, &tree()), [2, 4]);
    assert_eq!(leaf_oids(RelationKind::Table, &[node(1, "r"), node(2, "r")]), [1, 2], "a parent has rows of its own");
    assert_eq!(leaf_oids(RelationKind::MaterializedView, &[node(1, "m")]), [1]);
    for kind in [RelationKind::View, RelationKind::ForeignTable] {
        assert_eq!(leaf_oids(kind, &[node(1, "r")]), [0; 0]);
    }
    let changes: [fn(&mut TreeNode); 5] = [
        |node| node.may_select = false,
        |node| node.row_security = true,
        |node| node.relkind = "f".into(),
        |node| node.virtual_columns = true,
        |node| node.only_hides = true,
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let mut tree = tree();
        change(&mut tree[3]);
        assert_eq!(leaf_oids(RelationKind::PartitionedTable, &tree), [0; 0], "change {which}");
    }
    let mut alone = node(1, "r");
    alone.virtual_columns = true;
    assert_eq!(leaf_oids(RelationKind::Table, &[alone]), [1]);
    let mut chunk = node(1, "r");
    chunk.only_hides = true;
    assert_eq!(leaf_oids(RelationKind::Table, &[chunk]), [0; 0]);
}
