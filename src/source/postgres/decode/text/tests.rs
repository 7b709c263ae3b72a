use super::*;

/// What the send functions of PostgreSQL 15 and 18 make of a value, and what its output function does.
pub(in crate::source::postgres::decode) const TEXTS: &[(u32, &str, &str)] = &[
    (oid::BOOL, "01", "t"),
    (oid::BOOL, "00", "f"),
    (oid::INT2, "8000", "-32768"),
    (oid::INT4, "7fffffff", "2147483647"),
    (oid::INT8, "8000000000000000", "-9223372036854775808"),
    (oid::OID, "ffffffff", "4294967295"),
    (oid::XID, "ffffffff", "4294967295"),
    (oid::CID, "00000007", "7"),
    (oid::XID8, "ffffffffffffffff", "18446744073709551615"),
    (oid::FLOAT4, "00000001", "1e-45"),
    (oid::FLOAT8, "430c6bf526340000", "1e+15"),
    (oid::NUMERIC, "000300014000000204d2162e2328", "-12345678.90"),
    (oid::CHAR, "00", ""),
    (oid::CHAR, "71", "q"),
    (oid::CHAR, "ff", r"\377"),
    (oid::CHAR, "80", r"\200"),
    (oid::TID, "ffffffffffff", "(4294967295,65535)"),
    (oid::DATE, "ffda97a7", "4714-11-24 BC"),
    (oid::DATE, "7fda970c", "5874897-12-31"),
    (oid::DATE, "7fffffff", "infinity"),
    (oid::TIME, "000000141dd76000", "24:00:00"),
    (oid::TIME, "0000000a8be4ca60", "12:34:56.7"),
    (oid::TIMETZ, "0000000a8be602e0ffffb2a8", "12:34:56.78+05:30"),
    (oid::TIMETZ, "00000000000000000000e0ff", "00:00:00-15:59:59"),
    (oid::TIMETZ, "000000141dd7600000000000", "24:00:00+00"),
    (oid::TIMETZ, "00000000dde878c000007080", "01:02:03-08"),
    (oid::TIMESTAMP, "fd0f7cc1411fa000", "4714-11-24 00:00:00 BC"),
    (oid::TIMESTAMP, "7fffff5bb3b29fff", "294276-12-31 23:59:59.999999"),
    (oid::TIMESTAMPTZ, "8000000000000000", "-infinity"),
    (oid::TIMESTAMPTZ, "ff1af9e8fb4e7120", "0044-03-15 12:00:00.5+00 BC"),
    (oid::UUID, "101112131415161718191a1b1c1d1e1f", "10111213-1415-1617-1819-1a1b1c1d1e1f"),
    (oid::INET, "020800040a010203", "10.1.2.3/8"),
    (oid::INET, "02200004c0a80001", "192.168.0.1"),
    (oid::INET, "0380001000000000000000000000000000000001", "::1"),
    (oid::INET, "0380001000000000000000000000ffff01020304", "::ffff:1.2.3.4"),
    (oid::INET, "033f001000010000000000020000000000000000", "1:0:0:2::/63"),
    (oid::INET, "0380001000010002000300040005000600070000", "1:2:3:4:5:6:7:0"),
    (oid::INET, "0380001000000001000000000000000000000000", "0:1::"),
    (oid::CIDR, "020801040a000000", "10.0.0.0/8"),
    (oid::CIDR, "0220010401020304", "1.2.3.4/32"),
    (oid::CIDR, "0300011000000000000000000000000000000000", "::/0"),
    (oid::CIDR, "0380011020010db8000000000000000000000000", "2001:db8::/128"),
    (oid::MACADDR, "08002b01020f", "08:00:2b:01:02:0f"),
    (oid::MACADDR8, "08002b01020304ff", "08:00:2b:01:02:03:04:ff"),
    (oid::BIT, "00000003a0", "101"),
    (oid::VARBIT, "00000000", ""),
    (oid::VARBIT, "0000000aaac0", "1010101011"),
    (oid::POINT, "3ff8000000000000c000000000000000", "(1.5,-2)"),
    (oid::LSEG, "3ff0000000000000400000000000000040080000000000004010000000000000", "[(1,2),(3,4)]"),
    (oid::PATH, "0000000002000000000000000000000000000000003ff00000000000004000000000000000", "[(0,0),(1,2)]"),
    (oid::PATH, "0100000002000000000000000000000000000000003ff00000000000004000000000000000", "((0,0),(1,2))"),
    (oid::BOX, "400800000000000040100000000000003ff00000000000004000000000000000", "(3,4),(1,2)"),
    (
        oid::POLYGON,
        "000000033ff000000000000040000000000000004008000000000000401000000000000040140000000000004018000000000000",
        "((1,2),(3,4),(5,6))",
    ),
    (oid::LINE, "3ff000000000000040000000000000004008000000000000", "{1,2,3}"),
    (oid::CIRCLE, "3ff000000000000040000000000000004008000000000000", "<(1,2),3>"),
    (oid::PG_LSN, "00000016b374d848", "16/B374D848"),
    (oid::PG_LSN, "0000000000000000", "0/0"),
    (oid::JSONPATH, "01242e2261225b2a5d3f2840203e203129", r#"$."a"[*]?(@ > 1)"#),
    (oid::JSONB, "015b312c206e756c6c5d", "[1, null]"),
    (oid::JSON, "5b312c6e756c6c5d", "[1,null]"),
    (oid::XML, "3c612f3e", "<a/>"),
    (oid::BYTEA, "00ff", r"\x00ff"),
    (oid::TEXT, "6772c3bcc39f65", "grüße"),
    (oid::BPCHAR, "612020", "a  "),
    (oid::NAME, "6e", "n"),
    (oid::INTERVAL, "00000001b81ee600ffffffff00000000", "-1 days +02:03:04"),
    (oid::INTERVAL, "0000000000000000000000000000000e", "1 year 2 mons"),
    (oid::INTERVAL, "00000000000000000000000000000001", "1 mon"),
    (oid::INTERVAL, "00000000000000000000000000000000", "00:00:00"),
    (oid::INTERVAL, "fffffffc9368357800000003fffffff2", "-1 years -2 mons +3 days -04:05:06.789"),
    (oid::INTERVAL, "80000000000000000000000000000000", "-2562047788:00:54.775808"),
    (oid::INTERVAL, "00000053d1ac10010000000000000000", "100:00:00.000001"),
    (oid::INTERVAL, "00000000000000000000000080000000", "-178956970 years -8 mons"),
    (oid::INTERVAL, "00000053d19ccdc00000000100000000", "1 day 99:59:59"),
    // PostgreSQL 17 and later.
    (oid::INTERVAL, "7fffffffffffffff7fffffff7fffffff", "infinity"),
    (oid::INTERVAL, "80000000000000008000000080000000", "-infinity"),
];

pub(in crate::source::postgres::decode) fn bytes(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn text(oid: u32, wire: &[u8]) -> Result<String, Problem> {
    // What stood there before stays.
    let mut out = b"before".to_vec();
    text_writer(oid).unwrap()(wire, &mut out)?;
    Ok(String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned())
}

#[test]
fn every_type_is_written_as_its_output_function_does() {
    for &(oid, wire, expected) in TEXTS {
        assert_eq!(text(oid, &bytes(wire)).as_deref(), Ok(expected), "type {oid}, {wire}");
    }
}

#[test]
fn a_value_that_is_cut_or_goes_on_is_an_error() {
    let copied = [oid::JSONPATH, oid::JSONB, oid::JSON, oid::XML, oid::BYTEA, oid::TEXT, oid::BPCHAR, oid::NAME];
    for &(oid, wire, _) in TEXTS.iter().filter(|(oid, ..)| !copied.contains(oid)) {
        let wire = bytes(wire);
        for cut in 0..wire.len() {
            assert!(text(oid, &wire[..cut]).is_err(), "type {oid}, {wire:?} cut to {cut}");
        }
        assert!(text(oid, &[&wire[..], &[0]].concat()).is_err(), "type {oid}, {wire:?} goes on");
    }
}

#[test]
fn what_no_send_function_makes_is_an_error() {
    for (oid, wire) in [
        (oid::BOOL, "02"),
        (oid::DATE, "ffda97a6"),
        (oid::DATE, "7fda970d"),
        (oid::TIME, "ffffffffffffffff"),
        (oid::TIME, "000000141dd76001"),
        (oid::TIMETZ, "00000000000000000000e100"),
        (oid::TIMETZ, "000000000000000080000000"),
        (oid::TIMESTAMP, "fd0f7cc1411f9fff"),
        (oid::TIMESTAMPTZ, "7fffff5bb3b2a000"),
        (oid::JSONB, "025b5d"),
        (oid::JSONPATH, ""),
        (oid::INET, "022100040a010203"),
        (oid::INET, "042000040a010203"),
        (oid::INET, "032000040a010203"),
        (oid::INET, "022001040a010203"),
        (oid::INET, "022000030a010203"),
        (oid::CIDR, "022000040a010203"),
        (oid::BIT, "ffffffff"),
        (oid::BIT, "800000000000"),
        (oid::PATH, "0200000000"),
        (oid::PATH, "00ffffffff"),
        (oid::POLYGON, "00000001"),
        (oid::NUMERIC, "00000000100000000000"),
    ] {
        assert!(text(oid, &bytes(wire)).is_err(), "type {oid}, {wire}: {:?}", text(oid, &bytes(wire)));
    }
}

#[test]
fn types_without_a_text_of_their_own_have_no_writer() {
    for oid in [0, oid::MONEY, 3614, 16_385] {
        assert!(text_writer(oid).is_none());
    }
}
