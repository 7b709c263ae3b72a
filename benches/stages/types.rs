//! Tables of one column, for each type that matters.

use outhaul::source::postgres::plan::{ColumnFacts, PgType, TypeKind};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::samples::{self, NUMERIC_15_2, Table};

/// Several read buffers of the narrowest rows.
pub(crate) const ROWS: u64 = 65_536;

/// A type, and values of it as the server sends them.
pub(crate) struct Type {
    pub(crate) name: &'static str,
    oid: u32,
    typmod: Option<i32>,
    /// Every tenth value, in no order.
    nulls: bool,
    value: fn(&mut StdRng) -> Vec<u8>,
}

impl Type {
    const fn new(name: &'static str, oid: u32, value: fn(&mut StdRng) -> Vec<u8>) -> Self {
        Self { name, oid, typmod: None, nulls: false, value }
    }

    const fn with_nulls(self) -> Self {
        Self { nulls: true, ..self }
    }

    pub(crate) fn table(&self, rows: u64) -> Table {
        let pg_type = |oid, kind| PgType { oid, base_oid: oid, typmod: self.typmod, name: self.name.to_owned(), kind };
        let pg_type = match self.oid {
            INT4_ARRAY => pg_type(INT4_ARRAY, TypeKind::Array(Box::new(pg_type(INT4, TypeKind::Base)))),
            oid => pg_type(oid, TypeKind::Base),
        };
        let facts = ColumnFacts { not_null: false, ..samples::column("value", pg_type) };
        let mut random = StdRng::seed_from_u64(u64::from(self.oid));
        let value = |_| {
            let null = self.nulls && random.random_ratio(1, 10);
            vec![(!null).then(|| (self.value)(&mut random))]
        };
        Table::new(vec![facts], (0..rows).map(value))
    }
}

const INT4: u32 = 23;
const INT4_ARRAY: u32 = 1007;

pub(crate) const TYPES: [Type; 16] = [
    Type::new("bool", 16, |random| vec![u8::from(random.random::<bool>())]),
    Type::new("int4", INT4, |random| random.random_range(-100_000..1_000_000_i32).to_be_bytes().into()),
    Type::new("int8", 20, int8),
    Type::new("int8, 10 % null", 20, int8).with_nulls(),
    Type::new("float8", 701, |random| random.random_range(-1e6..1e6_f64).to_be_bytes().into()),
    Type { typmod: Some(NUMERIC_15_2), ..Type::new("numeric(15,2)", 1700, amount) },
    Type::new("text of 5 bytes", 25, |random| samples::about(random, 5)),
    Type::new("text of 25 bytes", 25, |random| samples::about(random, 25)),
    Type::new("text of 25 bytes, 10 % null", 25, |random| samples::about(random, 25)).with_nulls(),
    Type::new("text of 200 bytes", 25, |random| samples::about(random, 200)),
    Type::new("date", 1082, |random| random.random_range(5_000..9_500_i32).to_be_bytes().into()),
    Type::new("timestamptz", 1184, |random| {
        random.random_range(473_385_600_000_000..820_454_400_000_000_i64).to_be_bytes().into()
    }),
    Type::new("uuid", 2950, |random| random.random::<u128>().to_be_bytes().into()),
    Type::new("jsonb", 3802, jsonb),
    Type::new("bytea", 17, |random| {
        let mut bytes = vec![0; random.random_range(16..=48)];
        random.fill_bytes(&mut bytes);
        bytes
    }),
    Type::new("int4[]", INT4_ARRAY, int4_array),
];

/// Text that CSV has to quote.
pub(crate) const QUOTED: Type = Type::new("text to be quoted", 25, |random| {
    let (some, more) = (samples::about(random, 10), samples::about(random, 10));
    [some.as_slice(), b", \"", more.as_slice(), b"\""].concat()
});

fn int8(random: &mut StdRng) -> Vec<u8> {
    random.random_range(-1_000_000..10_000_000_000_i64).to_be_bytes().into()
}

fn amount(random: &mut StdRng) -> Vec<u8> {
    samples::numeric(random.random_range(0..100_000_000))
}

/// Version 1, then the text that `jsonb` prints.
fn jsonb(random: &mut StdRng) -> Vec<u8> {
    let words = String::from_utf8(samples::about(random, 20)).unwrap();
    let (id, price) = (random.random_range(0..1_000_000), random.random_range(100..10_000));
    format!("\u{1}{{\"id\": {id}, \"name\": \"{words}\", \"tags\": [\"new\", \"red\"], \"price\": {price}.5}}").into()
}

/// `array_send`: dimensions, whether there are NULLs, the element's type, length and lower bound, then the elements.
fn int4_array(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(1..=8_i32);
    let mut bytes = [1, 0, 23, length, 1].map(i32::to_be_bytes).concat();
    for _ in 0..length {
        bytes.extend(4_i32.to_be_bytes());
        bytes.extend(random.random_range(0..100_000_i32).to_be_bytes());
    }
    bytes
}
