//! Whatever the bytes, each decoder makes a value or an error of them: never a panic, never another number of rows.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::text::tests::{TEXTS, bytes};
use super::text::text_writer;
use super::wkb::append_iso_wkb;
use super::wkb::tests::GEOMETRIES;
use crate::plan::oid;
use crate::source::postgres::frame::fuzz::{CASES, arbitrary, mutate, seeded};

/// Every fourth case is arbitrary, the others are one of `valid`, damaged or not.
fn next(random: &mut StdRng, valid: &[Vec<u8>], value: &mut Vec<u8>) {
    if valid.is_empty() || random.random_range(0..4) == 0 {
        return arbitrary(random, value);
    }
    value.clear();
    value.extend_from_slice(&valid[random.random_range(0..valid.len())]);
    mutate(random, value);
}

/// Values of a type as its send function makes them.
fn valid(of: u32) -> Vec<Vec<u8>> {
    TEXTS.iter().filter(|(oid, ..)| *oid == of).map(|(_, wire, _)| bytes(wire)).collect()
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
        let (writer, valid) = (text_writer(oid).unwrap(), valid(oid));
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
            next(random, &valid, &mut value);
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
    let valid: Vec<Vec<u8>> = GEOMETRIES.iter().map(|(_, extended, _)| super::wkb::tests::bytes(extended)).collect();
    let (mut value, mut out) = (Vec::new(), Vec::new());
    let mut turned = 0;
    for _ in 0..CASES {
        next(random, &valid, &mut value);
        out.clear();
        if append_iso_wkb(&value, &mut out).is_ok() {
            turned += 1;
            assert!(out.len() <= value.len(), "{value:x?} became {out:x?}");
        }
    }
    assert!(turned > CASES / 10, "{turned}");
}
