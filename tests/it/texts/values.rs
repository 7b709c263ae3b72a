//! Values of the types that travel in binary form: random ones as their send functions would make them, for COPY to take
//! in, and the edges as literals.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// A type with its values.
pub(crate) struct Type {
    /// As a column is declared.
    pub(crate) name: &'static str,
    /// Literals of its edges.
    pub(crate) edges: &'static [&'static str],
    /// A random value in binary form.
    random: fn(&mut StdRng) -> Vec<u8>,
}

/// All of them.
pub(crate) const TYPES: &[Type] = &[
    Type { name: "bool", edges: &["t", "f"], random: |random| vec![random.random_range(0..2)] },
    Type { name: "int2", edges: &["-32768", "32767", "0"], random: |random| spread(random)[..2].to_vec() },
    Type { name: "int4", edges: &["-2147483648", "2147483647"], random: |random| spread(random)[..4].to_vec() },
    Type {
        name: "int8",
        edges: &["-9223372036854775808", "9223372036854775807"],
        random: |random| spread(random).to_vec(),
    },
    Type { name: "oid", edges: &["0", "4294967295"], random: |random| spread(random)[..4].to_vec() },
    Type { name: "xid", edges: &["0", "4294967295"], random: |random| spread(random)[..4].to_vec() },
    Type { name: "cid", edges: &["0", "4294967295"], random: |random| spread(random)[..4].to_vec() },
    Type { name: "xid8", edges: &["0", "18446744073709551615"], random: |random| spread(random).to_vec() },
    Type {
        name: "float4",
        edges: &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "1e-45",
            "3.4028235e38",
            "1.1754944e-38",
            "999999",
            "1e6",
            "0.0001",
            "1e-5",
            "16777216",
        ],
        random: |random| single(random).to_be_bytes().to_vec(),
    },
    Type {
        name: "float8",
        edges: &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "5e-324",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "1e23",
            "1e15",
            "999999999999999",
            "0.0001",
            "1e-5",
            "0.1",
            "9007199254740993",
        ],
        random: |random| double(random).to_be_bytes().to_vec(),
    },
    Type {
        name: "numeric",
        edges: &["NaN", "Infinity", "-Infinity", "0", "0.00", "1e131071", "1e-16383", "-0.0001", "9999.9999", "10000"],
        random: numeric,
    },
    Type {
        name: "\"char\"",
        edges: &["", "\\001", "\\177", "\\200", "\\377", "\""],
        random: |random| vec![random.random()],
    },
    Type {
        name: "tid",
        edges: &["(0,0)", "(4294967295,65535)"],
        random: |random| [&spread(random)[..4], &spread(random)[..2]].concat(),
    },
    Type {
        name: "date",
        edges: &[
            "4714-11-24 BC",
            "0001-12-31 BC",
            "0001-01-01",
            "9999-12-31",
            "10000-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "2000-02-29",
            "1900-02-28",
        ],
        random: |random| day(random).to_be_bytes().to_vec(),
    },
    Type {
        name: "time",
        edges: &["00:00", "24:00", "23:59:59.999999", "00:00:00.1"],
        random: |random| time(random).to_be_bytes().to_vec(),
    },
    Type {
        name: "timetz",
        edges: &["00:00+00", "24:00-15:59:59", "12:00+15:59:59", "01:02:03.004+05:30", "00:00-00:00:01", "00:00+00:01"],
        random: |random| [&time(random).to_be_bytes()[..], &zone(random).to_be_bytes()].concat(),
    },
    Type { name: "timestamp", edges: MOMENTS, random: |random| moment(random).to_be_bytes().to_vec() },
    Type { name: "timestamptz", edges: MOMENTS, random: |random| moment(random).to_be_bytes().to_vec() },
    Type {
        name: "interval",
        edges: &[
            "0",
            "1 us",
            "-1 us",
            "1 mon",
            "-1 mon",
            "1 year",
            "-1 year",
            "1 year -1 mon",
            "13 mons -1 day 1 us",
            "-13 mons 1 day -1 us",
            "-1 day 24:00:00",
            "1 day 99:59:59.999999",
            "100:00:00",
            "-100:00:00.1",
            "9223372036854775807 us",
            "-9223372036854775808 us",
            "2147483647 mons",
            "-2147483648 mons",
            "2147483647 days",
            "-2147483648 days",
            "-1 mon 1 day",
            "1 mon -1 day 1 us",
        ],
        random: |random| [&spread(random)[..], &spread(random)[..4], &spread(random)[..4]].concat(),
    },
    Type { name: "uuid", edges: &["00000000-0000-0000-0000-000000000000"], random: |random| bytes(random, 16) },
    Type {
        name: "inet",
        edges: &[
            "0.0.0.0",
            "0.0.0.0/0",
            "255.255.255.255",
            "1.2.3.4/31",
            "::",
            "::/0",
            "::1",
            "::1/127",
            "::ffff:0:0/96",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "::1:2",
            "1::",
            "1:0:0:2::/63",
            "0:1:0:1:0:1:0:1",
            "0:0:1::1",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:0:8",
            "::ffff:0:1.2.3.4",
            "fe80::1/64",
            "1:0:0:2:0:0:0:3",
        ],
        random: |random| address(random, false),
    },
    Type {
        name: "cidr",
        edges: &["0.0.0.0/0", "1.2.3.4/32", "10.0.0.0/8", "::/0", "::/128", "2001:db8::/32", "::1.2.3.4/128"],
        random: |random| address(random, true),
    },
    Type { name: "macaddr", edges: &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"], random: |random| bytes(random, 6) },
    Type { name: "macaddr8", edges: &["08:00:2b:01:02:03:04:ff"], random: |random| bytes(random, 8) },
    Type { name: "bit(11)", edges: &["00000000000", "11111111111"], random: |random| bits(random, 11) },
    Type {
        name: "varbit",
        edges: &["", "0", "1", "10000000", "111111111"],
        random: |random| {
            let count = random.random_range(0..40);
            bits(random, count)
        },
    },
    Type {
        name: "point",
        edges: &["(0,-0)", "(NaN,Infinity)", "(-Infinity,1e300)"],
        random: |random| doubles(random, 2),
    },
    Type { name: "lseg", edges: &["[(1,2),(3,4)]", "[(NaN,0),(0,NaN)]"], random: |random| doubles(random, 4) },
    Type { name: "box", edges: &["(1,2),(3,4)", "(3,2),(1,4)"], random: |random| doubles(random, 4) },
    Type {
        name: "path",
        edges: &["[(0,0)]", "((0,0),(1,2))", "[(0,0),(1,2)]"],
        random: |random| [vec![random.random_range(0..2)], points(random)].concat(),
    },
    Type { name: "polygon", edges: &["((0,0))", "((1,2),(3,4),(5,6))"], random: points },
    Type {
        name: "line",
        edges: &["{1,0,-0}", "{-1,2.5,Infinity}"],
        random: |random| [&1.5_f64.to_be_bytes()[..], &doubles(random, 2)].concat(),
    },
    Type {
        name: "circle",
        edges: &["<(0,0),0>", "<(1,NaN),Infinity>"],
        random: |random| [&doubles(random, 2)[..], &double(random).abs().to_be_bytes()].concat(),
    },
    Type {
        name: "pg_lsn",
        edges: &["0/0", "FFFFFFFF/FFFFFFFF", "0/A", "10/0"],
        random: |random| spread(random).to_vec(),
    },
    Type {
        name: "jsonpath",
        edges: &["$", "strict $.a[*] ? (@ > 1)", "$.\"a b\".size()"],
        random: |random| picked(random, &["\u{1}$.a", "\u{1}$[1 to 3]"]),
    },
    Type {
        name: "jsonb",
        edges: &["null", "[1, 2.50, \"é\"]", "{}"],
        random: |random| picked(random, &["\u{1}{\"b\":1,\"a\":[]}", "\u{1}1e2"]),
    },
    Type {
        name: "json",
        edges: &["null", "[1,   2.50]"],
        random: |random| picked(random, &["{\"b\":1, \"a\":[]}", "1e2"]),
    },
    Type {
        name: "xml",
        edges: &[
            "",
            "a<b/>c",
            "<?xml version=\"1.0\" standalone=\"yes\"?>\n<a/>",
            "<?xml version=\"1.1\" encoding=\"UTF-8\"?><a>ü</a>",
        ],
        random: |random| picked(random, &["<a/>", "ü"]),
    },
    Type {
        name: "bytea",
        edges: &["\\x", "\\x00ff5c"],
        random: |random| {
            let length = random.random_range(0..20);
            bytes(random, length)
        },
    },
    Type {
        name: "text",
        edges: &["", "\\", "\"a\"", "a,b", "null", "a\r\nb", "\\."],
        random: |random| picked(random, &["ü", "😀", "a b", "\""]),
    },
    Type { name: "char(5)", edges: &["", "abcde", " a", "ü"], random: |random| picked(random, &["ab   ", "     "]) },
    Type { name: "name", edges: &["", "\"a\""], random: |random| picked(random, &["a", "ü"]) },
];

const MOMENTS: &[&str] = &[
    "4714-11-24 00:00:00+00 BC",
    "0044-03-15 12:00:00.5+00 BC",
    "0001-01-01 00:00:00+00",
    "1999-12-31 23:59:59.999999+00",
    "2000-01-01 00:00:00+00",
    "2024-02-29 12:00:00.000001+00",
    "9999-12-31 23:59:59.9+00",
    "10000-01-01 00:00:00+00",
    "294276-12-31 23:59:59.999999+00",
    "infinity",
    "-infinity",
];

/// A COPY payload of so many rows: a number from `first` on, then one value of every type, a tenth of them NULL.
pub(crate) fn payload(random: &mut StdRng, first: i32, rows: i32) -> Vec<u8> {
    let mut payload = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let field = |payload: &mut Vec<u8>, value: &[u8]| {
        payload.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
        payload.extend(value);
    };
    for id in first..first + rows {
        payload.extend(i16::try_from(TYPES.len() + 1).unwrap().to_be_bytes());
        field(&mut payload, &id.to_be_bytes());
        for of in TYPES {
            if random.random_range(0..10) == 0 {
                payload.extend((-1_i32).to_be_bytes());
            } else {
                field(&mut payload, &(of.random)(random));
            }
        }
    }
    payload.extend((-1_i16).to_be_bytes());
    payload
}

/// Numbers of all magnitudes and both signs: their first bytes are what a shorter type takes.
fn spread(random: &mut StdRng) -> [u8; 8] {
    let value = random.random::<i64>() >> random.random_range(0..64);
    // So that the first bytes of a small number are no zeros.
    if random.random() { value.to_be_bytes() } else { value.to_be_bytes().map(u8::reverse_bits) }
}

fn bytes(random: &mut StdRng, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    random.fill_bytes(&mut bytes);
    bytes
}

fn picked(random: &mut StdRng, texts: &[&str]) -> Vec<u8> {
    texts[random.random_range(0..texts.len())].as_bytes().to_vec()
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "any float will do")]
fn single(random: &mut StdRng) -> f32 {
    match random.random_range(0..3) {
        0 => f32::from_bits(random.random()),
        1 => (random.random_range(-9_999_999_i32..9_999_999) as f32) / 10_f32.powi(random.random_range(0..12)),
        _ => (random.random_range(-100_f64..90.0)).exp() as f32,
    }
}

#[expect(clippy::cast_precision_loss, reason = "any float will do")]
fn double(random: &mut StdRng) -> f64 {
    match random.random_range(0..3) {
        0 => f64::from_bits(random.random()),
        1 => (random.random::<i64>() >> random.random_range(0..64)) as f64 / 10_f64.powi(random.random_range(0..20)),
        _ => 2_f64.powi(random.random_range(-1074..1024)),
    }
}

fn doubles(random: &mut StdRng, count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| double(random).to_be_bytes()).collect()
}

fn points(random: &mut StdRng) -> Vec<u8> {
    let count = random.random_range(1..5_usize);
    [&u32::try_from(count).unwrap().to_be_bytes()[..], &doubles(random, 2 * count)].concat()
}

fn numeric(random: &mut StdRng) -> Vec<u8> {
    let groups = random.random_range(0..8_u16);
    let mut value = groups.to_be_bytes().to_vec();
    value.extend(random.random_range(-6_i16..9).to_be_bytes());
    value.extend(if random.random() { [0x40, 0] } else { [0, 0] });
    value.extend(random.random_range(0..30_u16).to_be_bytes());
    value.extend((0..groups).flat_map(|_| match random.random_range(0..4) {
        0 => [0, 0],
        1 => 9999_u16.to_be_bytes(),
        _ => random.random_range(0..10_000_u16).to_be_bytes(),
    }));
    value
}

fn day(random: &mut StdRng) -> i32 {
    match random.random_range(0..3) {
        0 => random.random_range(-2_451_545..2_145_031_949),
        1 => random.random_range(-2_451_545..3_000_000),
        _ => random.random_range(-40_000..40_000),
    }
}

/// Whole seconds, and less.
fn rounded(random: &mut StdRng, micros: i64) -> i64 {
    let unit = 10_i64.pow(random.random_range(0..7));
    micros / unit * unit
}

fn time(random: &mut StdRng) -> i64 {
    let micros = random.random_range(0..=86_400_000_000);
    rounded(random, micros)
}

fn moment(random: &mut StdRng) -> i64 {
    let micros = match random.random_range(0..3) {
        0 => random.random_range(-211_813_488_000_000_000..9_223_371_331_200_000_000),
        1 => random.random_range(-211_813_488_000_000_000..300_000_000_000_000_000),
        _ => random.random_range(-3_000_000_000_000_000..3_000_000_000_000_000),
    };
    rounded(random, micros)
}

fn zone(random: &mut StdRng) -> i32 {
    let unit = [1, 60, 900, 3600][random.random_range(0..4)];
    random.random_range(-57_599..57_600) / unit * unit
}

fn bits(random: &mut StdRng, count: usize) -> Vec<u8> {
    let mut value = u32::try_from(count).unwrap().to_be_bytes().to_vec();
    value.extend(bytes(random, count.div_ceil(8)));
    value
}

/// Words of zeros are frequent, so that all the ways to shorten an address occur.
fn address(random: &mut StdRng, network: bool) -> Vec<u8> {
    let (family, length) = if random.random_range(0..4) == 0 { (2, 4) } else { (3, 16_usize) };
    let all = u8::try_from(8 * length).unwrap();
    let bits = if random.random() { all } else { random.random_range(0..=all) };
    let mut address: Vec<u8> = (0..length / 2)
        .flat_map(|_| match random.random_range(0..8) {
            0..4 => [0, 0],
            4 => [0xFF, 0xFF],
            5 => [0, random.random_range(0..20)],
            _ => random.random(),
        })
        .collect();
    if network {
        for (index, byte) in address.iter_mut().enumerate() {
            let kept = usize::from(bits).saturating_sub(8 * index).min(8);
            *byte &= u8::try_from(0xFF_u16 << (8 - kept) & 0xFF).unwrap();
        }
    }
    [vec![family, bits, u8::from(network), u8::try_from(length).unwrap()], address].concat()
}
