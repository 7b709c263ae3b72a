//! Tables as the server sends them: made once, from a fixed seed.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use outhaul::bench::{CopyReader, Row, copy_stream};
use outhaul::model::{
    ColumnPlan, ColumnStatistics, DuplicateColumns, Format, Policies, PolicyOptions, Preset, RelationKind,
    RelationRequest, ShapeOptions,
};
use outhaul::source::postgres::plan::{
    self, ColumnFacts, ColumnRules, Comparison, PgColumn, PgType, ReadingFacts, RelationFacts, ServerTypes, TypeKind,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// `atttypmod` of `numeric(15,2)`.
pub(crate) const NUMERIC_15_2: i32 = (15 << 16 | 2) + 4;

/// A table and the COPY of it.
pub(crate) struct Table {
    columns: Vec<ColumnFacts>,
    pub(crate) stream: Vec<u8>,
    pub(crate) rows: u64,
}

impl Table {
    pub(crate) fn new(columns: Vec<ColumnFacts>, rows: impl Iterator<Item = Row>) -> Self {
        let mut count = 0;
        let stream = copy_stream(u16::try_from(columns.len()).unwrap(), rows.inspect(|_| count += 1));
        Self { columns, stream, rows: count }
    }

    pub(crate) fn width(&self) -> u16 {
        u16::try_from(self.columns.len()).unwrap()
    }

    /// How an export with default options writes it.
    pub(crate) fn plan(&self, format: Format) -> Arc<[PgColumn]> {
        let facts = RelationFacts {
            kind: RelationKind::Table,
            sql_name: "public.t".to_owned(),
            alias: "t".to_owned(),
            display_name: Some("public.t".to_owned()),
            columns: self.columns.clone(),
            leaves: Vec::new(),
            estimated_rows: Some(self.rows),
            unique_key: None,
            row_security: false,
            reading: ReadingFacts::default(),
        };
        let shape = ShapeOptions {
            relation: RelationRequest::Table("t".to_owned()),
            columns: None,
            expressions: Vec::new(),
            renames: Vec::new(),
            predicate: None,
            key: None,
            allow_rls: false,
            scoped: None,
        };
        let policies = PolicyOptions {
            preset: Preset::Postgres,
            default: Policies::default(),
            columns: Vec::new(),
            duplicate_columns: DuplicateColumns::Error,
        };
        let server = ServerTypes { sql_ascii: false, money_scale: 2, infinite_intervals: true };
        plan::columns(&facts, &shape, &[], &ColumnRules { format, policies: &policies, server }).unwrap().into()
    }

    /// The batches that the source makes of it.
    pub(crate) fn batches(&self, columns: &Arc<[PgColumn]>) -> Vec<RecordBatch> {
        let mut batches = Vec::new();
        CopyReader::decoding(columns).unwrap().read(&self.stream, |batch| batches.push(batch)).unwrap();
        batches
    }
}

/// What an encoder knows of the columns.
pub(crate) fn outputs(columns: &[PgColumn]) -> Arc<[ColumnPlan]> {
    columns.iter().map(|column| column.output.clone()).collect()
}

/// A NOT NULL column without statistics.
pub(crate) fn column(name: &str, pg_type: PgType) -> ColumnFacts {
    ColumnFacts {
        name: name.to_owned(),
        pg_type,
        not_null: true,
        comparison: Some(Comparison::default()),
        byte_ordered: false,
        bytes_equal: true,
        statistics: ColumnStatistics::default(),
    }
}

/// A column of lineitem, with what `pg_stats` says of it at scale factor 1.
fn of(name: &str, oid: u32, typmod: Option<i32>, n_distinct: f32, correlation: f32, avg_width: i32) -> ColumnFacts {
    let pg_type = PgType { oid, base_oid: oid, typmod, name: name.to_owned(), kind: TypeKind::Base };
    let statistics =
        ColumnStatistics { n_distinct: Some(n_distinct), correlation: Some(correlation), avg_width: Some(avg_width) };
    ColumnFacts { statistics, ..column(name, pg_type) }
}

/// Two numbers a row: hardly anything but lengths.
pub(crate) fn narrow(rows: u64) -> Table {
    let columns = ["a", "b"].map(|name| of(name, 20, None, -1.0, 1.0, 8)).into();
    let value = |number: u64| Some(number.to_be_bytes().to_vec());
    Table::new(columns, (0..rows).map(|row| vec![value(row), value(row * 7)]))
}

/// As `scripts/tpch` loads it: an id, then TPC-H's 16 columns with their distributions.
pub(crate) fn lineitem(rows: u64) -> Table {
    const NUMERIC: Option<i32> = Some(NUMERIC_15_2);
    let columns = vec![
        of("id", 20, None, -1.0, 1.0, 8),
        of("l_orderkey", 20, None, -0.25, 1.0, 8),
        of("l_partkey", 23, None, 196_000.0, 0.0, 4),
        of("l_suppkey", 23, None, 10_000.0, 0.0, 4),
        of("l_linenumber", 23, None, 7.0, 0.17, 4),
        of("l_quantity", 1700, NUMERIC, 50.0, 0.02, 5),
        of("l_extendedprice", 1700, NUMERIC, 620_000.0, 0.0, 8),
        of("l_discount", 1700, NUMERIC, 11.0, 0.09, 4),
        of("l_tax", 1700, NUMERIC, 9.0, 0.11, 4),
        of("l_returnflag", 1042, Some(5), 3.0, 0.38, 2),
        of("l_linestatus", 1042, Some(5), 2.0, 0.5, 2),
        of("l_shipdate", 1082, None, 2_526.0, 0.0, 4),
        of("l_commitdate", 1082, None, 2_466.0, 0.0, 4),
        of("l_receiptdate", 1082, None, 2_554.0, 0.0, 4),
        of("l_shipinstruct", 1042, Some(29), 4.0, 0.25, 26),
        of("l_shipmode", 1042, Some(14), 7.0, 0.14, 11),
        of("l_comment", 1043, Some(48), -0.6, 0.0, 27),
    ];
    let mut random = StdRng::seed_from_u64(1);
    let mut order = Order { number: 0, lines: 0, line: 0, date: 0 };
    Table::new(columns, (0..rows).map(|row| order.next_line(row, &mut random)))
}

/// The order whose lines come next: 1 to 7 of them, days apart.
struct Order {
    number: u64,
    lines: i32,
    line: i32,
    /// Days since 2000-01-01.
    date: i32,
}

impl Order {
    fn next_line(&mut self, row: u64, random: &mut StdRng) -> Row {
        if self.line == self.lines {
            *self = Self {
                number: self.number + 1,
                lines: random.random_range(1..=7),
                line: 0,
                date: random.random_range(-2_922..-517),
            };
        }
        self.line += 1;
        let part = random.random_range(1..=200_000_u32);
        let quantity = random.random_range(1..=50_u64);
        let ship = self.date + random.random_range(1..=121);
        let receipt = ship + random.random_range(1..=30);
        // Deliveries up to 1995-06-17 are in the past.
        let flag = if receipt > -1_659 { "N" } else { ["A", "R"].choose(random).unwrap() };
        let instruct = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"].choose(random).unwrap();
        let mode = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"].choose(random).unwrap();
        let comment_bytes = random.random_range(10..=43);
        [
            (row + 1).to_be_bytes().into(),
            // 8 of 32 order keys are used.
            (self.number / 8 * 32 + self.number % 8).to_be_bytes().into(),
            part.to_be_bytes().into(),
            random.random_range(1..=10_000_u32).to_be_bytes().into(),
            self.line.to_be_bytes().into(),
            numeric(quantity * 100),
            numeric(quantity * u64::from(90_000 + part / 10 % 20_001 + part % 1_000 * 100)),
            numeric(random.random_range(0..=10)),
            numeric(random.random_range(0..=8)),
            flag.into(),
            if ship > -1_659 { "O" } else { "F" }.into(),
            ship.to_be_bytes().into(),
            (self.date + random.random_range(30..=90)).to_be_bytes().into(),
            receipt.to_be_bytes().into(),
            format!("{instruct:25}").into(),
            format!("{mode:10}").into(),
            text(random, comment_bytes),
        ]
        .map(Some)
        .into()
    }
}

/// `numeric_send` of so many hundredths with a scale of 2: groups of four decimal digits, none of them zero at an end.
pub(crate) fn numeric(hundredths: u64) -> Vec<u8> {
    let mut rest = hundredths / 100;
    let mut groups = vec![hundredths % 100 * 100];
    while rest > 0 {
        groups.push(rest % 10_000);
        rest /= 10_000;
    }
    let weight = if hundredths == 0 { 0 } else { i16::try_from(groups.len()).unwrap() - 2 };
    groups.reverse();
    let used = groups.len() - groups.iter().rev().take_while(|group| **group == 0).count();
    let mut bytes = u16::try_from(used).unwrap().to_be_bytes().to_vec();
    bytes.extend(weight.to_be_bytes());
    bytes.extend([0, 0, 0, 2]);
    bytes.extend(groups[..used].iter().flat_map(|group| u16::try_from(*group).unwrap().to_be_bytes()));
    bytes
}

/// Words of about so many bytes: half as many at least, half as many again at most.
pub(crate) fn about(random: &mut StdRng, bytes: usize) -> Vec<u8> {
    let bytes = random.random_range(bytes.div_ceil(2)..=bytes + bytes / 2);
    text(random, bytes)
}

/// Words of TPC-H's comments, the last one cut.
fn text(random: &mut StdRng, bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 32] = [
        "foxes",
        "ideas",
        "theodolites",
        "pinto beans",
        "instructions",
        "dependencies",
        "excuses",
        "platelets",
        "asymptotes",
        "courts",
        "dolphins",
        "multipliers",
        "sleep",
        "wake",
        "are",
        "cajole",
        "haggle",
        "nag",
        "use",
        "boost",
        "furious",
        "sly",
        "careful",
        "blithe",
        "quick",
        "fluffily",
        "quietly",
        "ruthlessly",
        "above",
        "the",
        "among",
        "packages",
    ];
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(WORDS.choose(random).unwrap());
        text.push(' ');
    }
    text.truncate(bytes);
    text.into()
}
