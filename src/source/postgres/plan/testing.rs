//! Facts for the tests of this stage.

use crate::model::{ColumnStatistics, RelationKind};
use crate::source::postgres::plan::{ColumnFacts, Comparison, LeafFacts, PgType, RelationFacts, TypeKind, oid};

/// A column of a built-in type without a modifier.
pub(super) fn column(name: &str, oid: u32, not_null: bool) -> ColumnFacts {
    ColumnFacts {
        name: name.to_owned(),
        pg_type: PgType { oid, base_oid: oid, typmod: None, name: format!("type{oid}"), kind: TypeKind::Base },
        not_null,
        comparison: Some(Comparison::default()),
        byte_ordered: false,
        bytes_equal: true,
        statistics: ColumnStatistics::default(),
    }
}

/// `public.t`, an empty heap without a unique key.
pub(super) fn relation(columns: Vec<ColumnFacts>) -> RelationFacts {
    RelationFacts {
        kind: RelationKind::Table,
        sql_name: "public.t".to_owned(),
        alias: "t".to_owned(),
        display_name: Some("public.t".to_owned()),
        columns,
        leaves: vec![LeafFacts {
            oid: oid::FIRST_NORMAL,
            sql_name: "public.t".to_owned(),
            blocks: 0,
            block_size: 8192,
            ctid_ranges: true,
            relations: 1,
        }],
        estimated_rows: None,
        unique_key: None,
        row_security: false,
        reading: crate::source::postgres::plan::ReadingFacts::default(),
    }
}
