//! Whatever the bytes, each decoder makes a value or an error of them: never a panic, never another number of rows.

mod types;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::Array as _;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::column::ColumnDecoder;
use super::loops::FieldColumn;
use super::text::tests::TEXTS;
use super::text::text_writer;
use super::values::TakeError;
use super::wkb::append_iso_wkb;
use super::wkb::tests::{GEOMETRIES, bytes};
use super::{BatchDecoder, DecodeError};
use crate::model::Carrier;
use crate::source::postgres::frame::fuzz::{CASES, arbitrary, mutate, seeded};
use crate::source::postgres::frame::wire::{Row, message, opening, payload};
use crate::source::postgres::frame::{Field, FieldTable, Framer};
use crate::source::postgres::plan::oid;
use crate::source::postgres::plan::{PgColumn, PgType};

/// Every fourth case is arbitrary, the others are one of `valid`, damaged or not.
fn next(random: &mut StdRng, oid: u32, valid: &[Vec<u8>], value: &mut Vec<u8>) {
    if valid.is_empty() || random.random_range(0..4) == 0 {
        arbitrary(random, value);
    } else {
        value.clear();
        value.extend_from_slice(&valid[random.random_range(0..valid.len())]);
        mutate(random, value);
    }
    // A numeric of 100,000 digits takes as long as a thousand others: a few of them will do.
    if let ([_, _, weight, ..], oid::NUMERIC, 1..) = (value.as_mut_slice(), oid, random.random_range(0..200)) {
        *weight = if *weight < 0x80 { 0 } else { 0xFF };
    }
}

/// Values that are decoded one by one.
const CHUNK: usize = 1000;

/// Of so many chunks, the good values of one are decoded together, too.
const TOGETHER: usize = 8;

#[test]
fn every_decoder_of_a_scalar_type_decodes_or_refuses() {
    all_decoders(&types::scalars());
}

#[test]
fn every_decoder_of_a_nested_type_decodes_or_refuses() {
    all_decoders(&types::nested());
}

fn all_decoders(types: &[PgType]) {
    let random = &mut seeded();
    let mut seen = HashSet::new();
    for pg_type in types {
        let started = Instant::now();
        let plans = types::plans(pg_type, &mut seen);
        let valid = types::valid(pg_type);
        let mut decoded = vec![0; plans.len()];
        for chunk in 0..CASES / CHUNK {
            let values = Values::new(random, pg_type, &valid);
            for (plan, decoded) in plans.iter().zip(&mut decoded) {
                let good = values.alone(plan);
                *decoded += good.len();
                if chunk % TOGETHER == 0 {
                    values.together(random, plan, &good);
                }
            }
        }
        println!("{}: {} decoders, {:?}", pg_type.name, plans.len(), started.elapsed());
        for (plan, decoded) in plans.iter().zip(decoded) {
            assert!(valid.is_empty() || decoded > CASES / 20, "{}: {decoded}", way(plan));
        }
    }
}

fn way(plan: &PgColumn) -> String {
    format!("{} as {:?} into {:?} ({})", plan.pg_type.name, plan.wire, plan.output.carrier, plan.output.policy)
}

/// Values one behind the other; a few are NULL.
struct Values {
    input: Vec<u8>,
    fields: Vec<Field>,
}

impl Values {
    fn new(random: &mut StdRng, pg_type: &PgType, valid: &[Vec<u8>]) -> Self {
        let (mut input, mut value) = (Vec::new(), Vec::new());
        let fields = (0..CHUNK).map(|_| {
            if random.random_range(0..16) == 0 {
                return Field::ABSENT;
            }
            next(random, pg_type.base_oid, valid, &mut value);
            let field = Field::at(u32::try_from(input.len()).unwrap(), u32::try_from(value.len()).unwrap());
            input.extend_from_slice(&value);
            field
        });
        Self { fields: fields.collect(), input }
    }

    /// Decodes each value on its own: which are good.
    fn alone(&self, plan: &PgColumn) -> Vec<usize> {
        let fresh = || ColumnDecoder::new(plan).unwrap_or_else(|| panic!("{}: no decoder", way(plan)));
        let text = holds_text(&plan.output.carrier);
        let (mut column, mut collected) = (fresh(), 0);
        let mut good = Vec::new();
        for (index, field) in self.fields.iter().enumerate() {
            let cells = FieldColumn { input: &self.input, fields: std::slice::from_ref(field), columns: 1, column: 0 };
            if let Err(failure) = column.append(&cells) {
                assert_eq!(failure.row, 0, "{}", way(plan));
                (column, collected) = (fresh(), 0);
                continue;
            }
            collected += 1;
            // Text is looked at when it is taken.
            let doubtful = text && field.bytes(&self.input).is_some_and(|bytes| !bytes.is_ascii());
            if doubtful || column.bytes() > 1 << 20 || index + 1 == self.fields.len() {
                match column.take() {
                    Ok((array, changed)) => {
                        assert_eq!(array.len(), collected, "{}", way(plan));
                        assert!(plan.output.carrier.is_nested() || changed <= collected as u64, "{}", way(plan));
                    }
                    Err(TakeError::Row(row)) => {
                        assert_eq!(row, collected - 1, "{}", way(plan));
                        (column, collected) = (fresh(), 0);
                        continue;
                    }
                    Err(TakeError::Arrow(error)) => panic!("{}: {error}", way(plan)),
                }
                collected = 0;
            }
            good.push(index);
        }
        good
    }

    /// Decodes all that are good at once, as they come from the server, then the same with a bad one among them.
    fn together(&self, random: &mut StdRng, plan: &PgColumn, good: &[usize]) {
        let value = |index: usize| vec![self.fields[index].bytes(&self.input).map(<[u8]>::to_vec)];
        let mut rows: Vec<Row> = good.iter().map(|&index| value(index)).collect();
        match through_batches(plan, &rows) {
            Ok(found) => assert_eq!(found, rows.len(), "{}", way(plan)),
            Err(error) => panic!("{}: {error}", way(plan)),
        }
        let Some(bad) = (0..self.fields.len()).find(|index| good.binary_search(index).is_err()) else { return };
        let place = random.random_range(0..=rows.len());
        rows.insert(place, value(bad));
        let error = through_batches(plan, &rows).expect_err("a bad value").to_string();
        assert!(
            error.contains(&format!("row {} of the partition: ", place + 1)),
            "{}, row {place}: {error}",
            way(plan)
        );
    }
}

fn holds_text(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Text | Carrier::Json | Carrier::Map => true,
        Carrier::List(element) => holds_text(element),
        Carrier::Struct(members) => members.iter().any(|member| holds_text(&member.carrier)),
        _ => false,
    }
}

/// How many rows of one column come out of framer and decoder; every array is checked in all its parts.
fn through_batches(plan: &PgColumn, rows: &[Row]) -> Result<usize, DecodeError> {
    let mut input = [opening(1), message(b'd', &payload(rows))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    assert_eq!(fields.rows(), rows.len());
    let mut decoder = BatchDecoder::new(&Arc::from([plan.clone()]))?;
    let (mut next, mut found, mut nulls) = (0, 0, 0);
    loop {
        let reached = decoder.decode(&input, &fields, next)?;
        let batch = decoder.take_batch()?;
        assert!(reached > next || rows.is_empty(), "{}: it would never end", way(plan));
        assert_eq!(batch.rows.num_rows(), reached - next, "{}", way(plan));
        let array = batch.rows.column(0);
        array.to_data().validate_full()?;
        nulls += array.null_count();
        found += array.len();
        next = reached;
        if next == fields.rows() {
            let absent = rows.iter().filter(|row| row[0].is_none()).count();
            assert!(
                if plan.output.policy.contains("null") { nulls >= absent } else { nulls == absent },
                "{}",
                way(plan)
            );
            return Ok(found);
        }
    }
}

#[test]
fn every_text_writer_writes_or_refuses() {
    /// An interval or an address in front, then eight characters for a bit's byte, or 25 for a float's eight.
    const LENGTH_MAX: fn(usize) -> usize = |bytes| 80 + 8 * bytes;
    const NUMERIC_MAX: usize = 1 + 131_072 + 1 + 0x3FFF;
    let random = &mut seeded();
    let (mut value, mut out) = (Vec::new(), Vec::new());
    let mut oids: Vec<u32> = TEXTS.iter().map(|(oid, ..)| *oid).collect();
    oids.extend([oid::VARCHAR, oid::UNKNOWN]);
    oids.dedup();
    for oid in oids {
        let (writer, valid) = (text_writer(oid).unwrap(), types::known(oid));
        let copied = matches!(
            oid,
            oid::TEXT
                | oid::VARCHAR
                | oid::BPCHAR
                | oid::NAME
                | oid::UNKNOWN
                | oid::JSON
                | oid::JSONB
                | oid::JSONPATH
                | oid::XML
        );
        let mut written = 0;
        for _ in 0..CASES {
            next(random, oid, &valid, &mut value);
            out.clear();
            if writer(&value, &mut out).is_ok() {
                written += 1;
                let most = if oid == oid::NUMERIC { NUMERIC_MAX } else { LENGTH_MAX(value.len()) };
                assert!(copied || out.is_ascii(), "type {oid}: {value:x?} became {out:x?}");
                assert!(out.len() <= most, "type {oid}: {value:x?} became {} bytes", out.len());
            }
        }
        assert!(written > CASES / 10, "type {oid}: {written}");
    }
}

#[test]
fn every_geometry_is_turned_or_refused() {
    let random = &mut seeded();
    let valid: Vec<Vec<u8>> = GEOMETRIES.iter().map(|(_, extended, _)| bytes(extended)).collect();
    let (mut value, mut out) = (Vec::new(), Vec::new());
    let mut turned = 0;
    for _ in 0..CASES {
        next(random, 0, &valid, &mut value);
        out.clear();
        if append_iso_wkb(&value, &mut out).is_ok() {
            turned += 1;
            assert!(out.len() <= value.len(), "{value:x?} became {out:x?}");
        }
    }
    assert!(turned > CASES / 10, "{turned}");
}
