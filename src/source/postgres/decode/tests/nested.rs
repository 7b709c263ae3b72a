//! Nested values, from bytes of PostgreSQL 15 (`COPY (SELECT …) TO STDOUT (FORMAT binary)`).

use arrow::array::{ListArray, MapArray, StructArray};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::model::{Member, OnUnrepresentable};
use crate::source::postgres::plan::{Attribute, ExtensionType, RowKeyColumn};

pub(super) fn base(oid: u32) -> PgType {
    PgType { oid, base_oid: oid, typmod: None, name: format!("type {oid}"), kind: TypeKind::Base }
}

pub(super) fn with_kind(oid: u32, kind: TypeKind) -> PgType {
    PgType { kind, ..base(oid) }
}

pub(super) fn array(element: PgType) -> PgType {
    with_kind(90_000, TypeKind::Array(Box::new(element)))
}

pub(super) fn composite(oid: u32, attributes: Vec<(&str, PgType)>) -> PgType {
    let attribute = |(name, pg_type): (&str, PgType)| Attribute { name: name.to_owned(), pg_type };
    with_kind(oid, TypeKind::Composite(attributes.into_iter().map(attribute).collect()))
}

fn list(element: Carrier) -> Carrier {
    Carrier::List(Arc::new(element))
}

fn members(members: Vec<(&str, Carrier)>) -> Carrier {
    let member = |(name, carrier): (&str, Carrier)| Member { name: name.to_owned(), carrier, nullable: true };
    Carrier::Struct(members.into_iter().map(member).collect())
}

fn range(bound: &Carrier) -> Carrier {
    let member =
        |name: &str, carrier: &Carrier, nullable| Member { name: name.to_owned(), carrier: carrier.clone(), nullable };
    let flag = |name: &str| member(name, &Carrier::Bool, false);
    let bounds = [member("lower", bound, true), member("upper", bound, true)];
    Carrier::Struct(bounds.into_iter().chain(["lower_inc", "upper_inc", "empty"].map(flag)).collect())
}

fn nested(pg_type: PgType, carrier: Carrier) -> PgColumn {
    PgColumn { pg_type, ..binary(0, carrier) }
}

fn pair() -> (PgType, Carrier) {
    (
        composite(16_518, vec![("a", base(23)), ("b", base(25))]),
        members(vec![("a", Carrier::Int32), ("b", Carrier::Text)]),
    )
}

fn hstore() -> PgType {
    with_kind(16_389, TypeKind::Extension(ExtensionType::Hstore))
}

fn ints() -> PgColumn {
    nested(array(base(23)), list(Carrier::Int32))
}

fn shown(array: &dyn Array, row: usize) -> String {
    array_value_to_string(array, row).unwrap()
}

const INTS: &str = "00000001000000010000001700000003000000010000000400000001ffffffff00000004ffffffff";
const SQUARE: &str = concat!(
    "000000020000000000000017000000020000000100000002000000010000000400000001000000040000000200000004000000030000",
    "000400000004"
);
const FROM_ZERO: &str = "00000001000000000000001700000002000000000000000400000001000000040000000 2";

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn nested_values_come_as_postgresql_sent_them() {
    let (pair_type, pair_carrier) = pair();
    let outer =
        composite(16_521, vec![("p", pair_type.clone()), ("xs", with_kind(1005, TypeKind::Array(Box::new(base(21)))))]);
    let outer_carrier = members(vec![("p", pair_carrier.clone()), ("xs", list(Carrier::Int16))]);
    let int_range = with_kind(3904, TypeKind::Range(Box::new(base(23))));
    let num_range = with_kind(3906, TypeKind::Range(Box::new(base(1700))));
    let multirange = with_kind(4451, TypeKind::Multirange(Box::new(base(23))));
    let vector = |kind| with_kind(70_000, TypeKind::Extension(kind));
    let cases = [
        (array(base(23)), list(Carrier::Int32), INTS, "[1, , -1]"),
        (array(base(23)), list(Carrier::Int32), "000000000000000000000017", "[]"),
        (
            array(base(25)),
            list(Carrier::Text),
            "0000000100000001000000190000000300000001000000016100000000ffffffff",
            "[a, , ]",
        ),
        (pair_type.clone(), pair_carrier.clone(), "00000002000000170000000400000007000000190000000178", "{a: 7, b: x}"),
        (pair_type.clone(), pair_carrier.clone(), "0000000200000017ffffffff00000019ffffffff", "{a: , b: }"),
        (
            outer.clone(),
            outer_carrier.clone(),
            concat!(
                "00000002000040860000001900000002000000170000000400000001000000190000000161000003ed00000020000000010000",
                "0000000000150000000200000001000000020001000000020002"
            ),
            "{p: {a: 1, b: a}, xs: [1, 2]}",
        ),
        (outer, outer_carrier, "0000000200004086ffffffff000003edffffffff", "{p: , xs: }"),
        (
            array(pair_type),
            list(pair_carrier),
            concat!(
                "00000001000000010000408600000003000000010000001900000002000000170000000400000001000000190000000161ffff",
                "ffff000000150000000200000017ffffffff000000190000000162"
            ),
            "[{a: 1, b: a}, , {a: , b: b}]",
        ),
        (
            int_range.clone(),
            range(&Carrier::Int32),
            "020000000400000001000000040000000a",
            "{lower: 1, upper: 10, lower_inc: true, upper_inc: false, empty: false}",
        ),
        (
            int_range.clone(),
            range(&Carrier::Int32),
            "01",
            "{lower: , upper: , lower_inc: false, upper_inc: false, empty: true}",
        ),
        (
            num_range.clone(),
            range(&Carrier::NumberText),
            "0c0000000a00010000000000000005",
            "{lower: , upper: 5, lower_inc: false, upper_inc: true, empty: false}",
        ),
        (
            num_range,
            range(&Carrier::NumberText),
            "18",
            "{lower: , upper: , lower_inc: false, upper_inc: false, empty: false}",
        ),
        (
            multirange.clone(),
            list(range(&Carrier::Int32)),
            "00000002000000110200000004000000010000000400000003000000110200000004000000050000000400000007",
            "[{lower: 1, upper: 3, lower_inc: true, upper_inc: false, empty: false}, \
             {lower: 5, upper: 7, lower_inc: true, upper_inc: false, empty: false}]",
        ),
        (multirange, list(range(&Carrier::Int32)), "00000000", "[]"),
        (hstore(), Carrier::Map, "0000000200000001610000000131000000016 2ffffffff", "{a: 1, b: }"),
        (hstore(), Carrier::Map, "00000000", "{}"),
        (
            array(PgType { oid: 16_389, ..hstore() }),
            list(Carrier::Map),
            "00000001000000000000400500000001000000010000000e0000000100000001610000000131",
            "[{a: 1}]",
        ),
        (
            array(int_range),
            list(range(&Carrier::Int32)),
            "000000010000000000000f4000000002000000010000001102000000040000000100000004000000030000000101",
            "[{lower: 1, upper: 3, lower_inc: true, upper_inc: false, empty: false}, \
             {lower: , upper: , lower_inc: false, upper_inc: false, empty: true}]",
        ),
        // By pgvector's vector_send and halfvec_send: the dimension, two bytes unused, then the floats.
        (vector(ExtensionType::Vector), list(Carrier::Float32), "000200003f800000c0200000", "[1.0, -2.5]"),
        (vector(ExtensionType::Halfvec), list(Carrier::Float32), "000300003c00c1000001", "[1.0, -2.5, 5.9604645e-8]"),
    ];
    for (pg_type, carrier, wire, expected) in cases {
        let plan = nested(pg_type, carrier);
        let wire = hex(&wire.replace(' ', ""));
        // A NULL before, between and behind: what belongs to one row stays in it.
        let rows = [vec![None], vec![Some(wire.clone())], vec![None], vec![Some(wire)], vec![None]];
        let batch = decode_rows(vec![plan.clone()], &rows).unwrap();
        let found = batch.column(0);
        assert_eq!(found.data_type(), &plan.output.carrier.data_type());
        assert_eq!(found.null_count(), 3, "{expected}");
        assert_eq!((shown(found, 1), shown(found, 3)), (expected.to_owned(), expected.to_owned()));
    }
}

#[test]
fn what_is_no_list_is_named_or_made_null() {
    for (wire, value) in
        [(SQUARE, "an array of several dimensions"), (FROM_ZERO, "an array whose indexes do not begin at 1")]
    {
        let wire = hex(&wire.replace(' ', ""));
        let rows = [vec![Some(hex(INTS))], vec![Some(wire)], vec![None], vec![Some(hex(INTS))]];
        let error = decode_rows(vec![ints()], &rows).unwrap_err();
        assert!(
            error.whole().contains(&format!("row 2 of the partition: {value} cannot be written as a list")),
            "{error}"
        );
        assert_eq!(error.fault(), SourceFault::Data);

        let mut plan = ints();
        plan.output.policies.on_unrepresentable = OnUnrepresentable::Null;
        let batch = decode_batch(vec![plan], &rows).unwrap();
        let found: Vec<String> = (0..4).map(|row| shown(batch.rows.column(0), row)).collect();
        assert_eq!(found, ["[1, , -1]", "", "", "[1, , -1]"]);
        assert_eq!(batch.rows.column(0).null_count(), 2);
        assert_eq!(*batch.changed, [1]);
    }
}

#[test]
fn the_innermost_place_that_can_be_null_is() {
    // ARRAY[1.5, 'NaN', NULL]::numeric(12,2)[]
    let numbers =
        hex("0000000100000001000006a400000003000000010000000c0002000000000002000113880000000800000000c0000000ffffffff");
    // '[2000-01-01,infinity)'::daterange
    let days = hex("02000000040000000000000004 7fffffff".replace(' ', "").as_str());
    let plans = vec![
        nested(array(base(1700)), list(DECIMAL)),
        nested(with_kind(3912, TypeKind::Range(Box::new(base(1082)))), range(&Carrier::Date32)),
    ];
    let rows = [vec![Some(numbers.clone()), None], vec![None, Some(days.clone())], vec![Some(numbers), Some(days)]];
    let error = decode_rows(plans.clone(), &rows).unwrap_err().whole();
    assert!(error.contains("row 1 of the partition: NaN cannot be written as decimal(12,2)"), "{error}");
    let error = decode_rows(vec![plans[1].clone()], &rows.clone().map(|row| vec![row[1].clone()])).unwrap_err().whole();
    assert!(error.contains("row 2 of the partition: infinity cannot be written as a Parquet date"), "{error}");

    let plans: Vec<_> = plans
        .into_iter()
        .map(|mut plan| {
            plan.output.policies.on_unrepresentable = OnUnrepresentable::Null;
            plan
        })
        .collect();
    let batch = decode_batch(plans, &rows).unwrap();
    assert_eq!(shown(batch.rows.column(0), 2), "[1.50, , ]");
    assert_eq!(
        shown(batch.rows.column(1), 2),
        "{lower: 2000-01-01, upper: , lower_inc: true, upper_inc: false, empty: false}"
    );
    assert_eq!(*batch.changed, [2, 2]);
}

#[test]
fn broken_nested_values_are_a_protocol_fault() {
    let (pair_type, pair_carrier) = pair();
    let pair = || nested(pair_type.clone(), pair_carrier.clone());
    let range = || nested(with_kind(3904, TypeKind::Range(Box::new(base(23)))), range(&Carrier::Int32));
    let map = || nested(hstore(), Carrier::Map);
    let cases = [
        (ints(), ""),
        (ints(), "0000000000000000"),
        (ints(), "00000000000000000000001 4"),
        (ints(), "00000007000000000000001700000001000000010000000400000001"),
        (ints(), "ffffffff0000000000000017"),
        (ints(), "000000010000000000000017ffffffff00000001"),
        (ints(), "000000010000000000000017000000020000000100000004000000 01"),
        (ints(), "0000000100000000000000177fffffff00000001"),
        (ints(), "000000010000000000000017000000010000000100000003000001"),
        (ints(), "00000001000000000000001700000001000000010000000400000001 00"),
        (ints(), "000000010000000000000017000000010000000 1fffffffe"),
        (pair(), "00000001000000170000000400000007"),
        (pair(), "00000002000000190000000400000007000000190000000178"),
        (pair(), "000000020000001700000004000000070000001900000002 78"),
        (range(), ""),
        (range(), "02000000040000000100000004000000"),
        (range(), "02ffffffff000000040000000a"),
        (range(), "0100"),
        (map(), "00000001ffffffff0000000131"),
        (map(), "0000000100000001 61"),
        (map(), "80000000"),
    ];
    for (plan, wire) in cases {
        let wire = hex(&wire.replace(' ', ""));
        let error = decode_rows(vec![plan], &[vec![None], vec![Some(wire.clone())]]).unwrap_err();
        assert_eq!(error.fault(), SourceFault::Protocol, "{wire:02x?}: {error}");
        assert!(error.whole().contains("row 2 of the partition"), "{error}");
    }
}

/// The wire form of an array with these elements.
fn array_wire(element: u32, values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let count = i32::try_from(values.len()).unwrap();
    let mut bytes =
        [1_i32.to_be_bytes(), 0_i32.to_be_bytes(), element.to_be_bytes(), count.to_be_bytes(), 1_i32.to_be_bytes()]
            .concat();
    for value in values {
        match value {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(value);
            }
        }
    }
    bytes
}

#[test]
fn long_lists_pass_the_pending_fields_and_keep_their_rows() {
    let values = |from: i32, count: i32| -> Vec<Option<Vec<u8>>> {
        (from..from + count).map(|value| (value % 7 != 0).then(|| value.to_be_bytes().to_vec())).collect()
    };
    let counts = [0, 1, 4095, 4096, 4097, 3, 20_000, 0, 5];
    let rows: Vec<Row> = counts.iter().map(|&count| vec![Some(array_wire(23, &values(count, count)))]).collect();
    let batch = decode_rows(vec![ints()], &rows).unwrap();
    let lists: &ListArray = batch.column(0).as_list();
    for (row, &count) in counts.iter().enumerate() {
        let expected: Int32Array = (count..2 * count).map(|value| (value % 7 != 0).then_some(value)).collect();
        assert_eq!(lists.value(row).as_ref(), &expected as &dyn Array, "row {row}");
    }
    // An element that is broken is found at its row, before or behind a flush.
    for (broken, place) in [(2, 0), (2, 4094), (4, 4096), (5, 2), (6, 19_999), (8, 4)] {
        let mut rows = rows.clone();
        let mut elements = values(counts[broken], counts[broken]);
        elements[place] = Some(vec![1, 2, 3]);
        rows[broken] = vec![Some(array_wire(23, &elements))];
        let error = decode_rows(vec![ints()], &rows).unwrap_err().whole();
        assert!(error.contains(&format!("row {} of the partition: 3 bytes where", broken + 1)), "{error}");
    }
}

#[test]
fn text_within_lists_and_maps_is_valid_utf8() {
    let texts = nested(array(base(25)), list(Carrier::Text));
    let bad = vec![Some(b"ok".to_vec()), Some(b"\xff".to_vec())];
    let good = vec![None, Some("ü".into())];
    let rows = [
        vec![Some(array_wire(25, &good))],
        vec![None],
        vec![Some(array_wire(25, &bad))],
        vec![Some(array_wire(25, &good))],
    ];
    let error = decode_rows(vec![texts.clone()], &rows).unwrap_err();
    assert!(error.whole().contains("row 3 of the partition: text that is not valid UTF-8"), "{error}");
    assert_eq!(error.fault(), SourceFault::Data);
    let mut texts = texts;
    texts.output.policies.invalid_utf8 = crate::model::InvalidUtf8::Replace;
    let batch = decode_batch(vec![texts], &rows).unwrap();
    assert_eq!(shown(batch.rows.column(0), 2), "[ok, \u{fffd}]");
    assert_eq!(*batch.changed, [1]);

    let map = nested(hstore(), Carrier::Map);
    let rows =
        [vec![Some(hex("00000000"))], vec![Some(hex("000000010000000161000000 01ff".replace(' ', "").as_str()))]];
    let error = decode_rows(vec![map], &rows).unwrap_err();
    assert!(error.whole().contains("row 2 of the partition: text that"), "{error}");
}

#[test]
fn text_within_nested_values_is_found_while_the_key_is_known() {
    let id = RowKeyColumn { name: "id".into(), pg_type: base(21), place: None, shown: true };
    let (pair_type, pair_carrier) = pair();
    let pair_wire = [
        &2_i32.to_be_bytes()[..],
        &23_u32.to_be_bytes(),
        &4_i32.to_be_bytes(),
        &7_i32.to_be_bytes(),
        &25_u32.to_be_bytes(),
        &1_i32.to_be_bytes(),
        b"\xff",
    ]
    .concat();
    let texts = array_wire(25, &[Some(b"ok".to_vec()), Some(b"\xff".to_vec())]);
    for (plan, wire) in [
        (nested(array(base(25)), list(Carrier::Text)), texts),
        (nested(pair_type.clone(), pair_carrier.clone()), pair_wire.clone()),
        (nested(array(pair_type), list(pair_carrier)), array_wire(16_518, &[None, Some(pair_wire)])),
    ] {
        let columns = vec![plan];
        let key = RowKey::new(&columns, std::slice::from_ref(&id));
        let rows: [Row; 2] = [vec![None, Some(vec![0, 1])], vec![Some(wire), Some(vec![0, 2])]];
        let mut input = [opening(2), message(b'd', &payload(&rows))].concat();
        let mut fields = FieldTable::default();
        Framer::new(2).frame(&mut input, &mut fields, usize::MAX).unwrap();
        let mut decoder = BatchDecoder::new(&Arc::from(columns)).unwrap().with_row_key(key);
        let error = decoder.decode(&input, &fields, 0).unwrap_err().whole();
        assert!(error.contains("row with id = 2: text that is not valid UTF-8"), "{error}");
    }
}

#[test]
fn nested_values_count_for_the_batch_s_bytes() {
    let mut decoder = BatchDecoder::new(&Arc::from(vec![ints()])).unwrap();
    let elements: Vec<Option<Vec<u8>>> = vec![Some(vec![0; 4]); 100_000];
    let some: Vec<Row> = vec![vec![Some(array_wire(23, &elements))]; 12];
    let mut input = [opening(1), message(b'd', &payload(&some))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    assert_eq!(decoder.decode(&input, &fields, 0).unwrap(), 12);
    assert!(decoder.bytes() >= 12 * 400_000 && decoder.is_full());
    let batch = decoder.take_batch().unwrap().rows;
    assert_eq!(batch.column(0).as_list::<i32>().values().len(), 1_200_000);
    assert!(decoder.bytes() < 100, "{}", decoder.bytes());
}

#[test]
fn numbers_that_grow_in_lists_do_not_pass_the_offsets() {
    // 1e131071: 14 bytes with its length, 131,072 as text. All rows together would pass 2 GiB.
    let number = Some(hex("00017fff0000000003e8"));
    let list_of = |count| vec![Some(array_wire(1700, &vec![number.clone(); count]))];
    let plan = nested(array(base(1700)), list(Carrier::NumberText));
    let mut decoder = BatchDecoder::new(&Arc::from(vec![plan])).unwrap();
    let some: Vec<Row> = vec![list_of(1), list_of(600), list_of(600), list_of(2), list_of(0)];
    let mut input = [opening(1), message(b'd', &payload(&some))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    let (mut next, mut rows) = (0, Vec::new());
    while next < fields.rows() || decoder.rows() > 0 {
        next = decoder.decode(&input, &fields, next).unwrap();
        rows.push(decoder.take_batch().unwrap().rows.num_rows());
    }
    assert_eq!(rows, [2, 1, 2]);
}

#[test]
fn empty_batches_of_nested_columns_have_their_types() {
    let (pair_type, pair_carrier) = pair();
    let plans = vec![ints(), nested(pair_type, pair_carrier), nested(hstore(), Carrier::Map)];
    let batch = decode_rows(plans, &[]).unwrap();
    assert_eq!(batch.num_rows(), 0);
    let _: (&ListArray, &StructArray, &MapArray) =
        (batch.column(0).as_list(), batch.column(1).as_struct(), batch.column(2).as_map());
}
