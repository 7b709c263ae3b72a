//! Every type, thousands of generated rows of it, each value compared with PostgreSQL's own in every format: as a column,
//! in arrays, under domains of domains, and all of them as the attributes of one composite (`every_type.sql`).

use std::collections::BTreeSet;

use crate::support::differential::equal_but;
use crate::support::pg::{both, pg};

const EVERY_TYPE: &str = include_str!("../support/every_type.sql");

/// Of the tables that Parquet's own types cannot hold.
const UNREPRESENTABLE: u32 = 12;

#[tokio::test]
async fn every_value_of_every_type_is_postgresql_s_own() {
    // Between -1 and 1; told with a failure, and to be chosen.
    let seed = std::env::var("OUTHAUL_TEST_SEED").unwrap_or_else(|_| "0.25".to_owned());
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!("set outhaul.seed = '{seed}'")).await;
        pg.batch(EVERY_TYPE).await;
        let found = equal_but(&pg, &[], &format!("OUTHAUL_TEST_SEED={seed}")).await;
        let expected: BTreeSet<String> =
            (0..UNREPRESENTABLE).map(|n| format!("text parquet \"public\".\"unrepresentable_{n}\"")).collect();
        assert_eq!(found, expected, "PostgreSQL {version}, OUTHAUL_TEST_SEED={seed}");
    }
}
