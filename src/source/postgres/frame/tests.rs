use crate::source::SourceFault;
use proptest::prelude::*;

use super::wire::{HEADER, Row, cuts, ending, message, opening, payload, pieces, row_bytes, rows, stream, stream_cut};
use super::*;

/// What a whole COPY came to.
#[derive(Debug, PartialEq)]
struct Read {
    rows: Vec<Row>,
    confirmed: u64,
    notices: u64,
}

/// Does what the reader does: appends what arrives, frames while something is whole, keeps the rest.
fn read(columns: u16, arrivals: &[&[u8]], max_rows: usize) -> Result<Read, FrameError> {
    let mut framer = Framer::new(columns);
    let mut fields = FieldTable::default();
    let mut buffer = Vec::new();
    let mut rows = Vec::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        buffer.extend_from_slice(arrival);
        loop {
            let step = framer.frame(&mut buffer, &mut fields, max_rows)?;
            assert!(fields.rows() <= max_rows.max(1));
            for row in 0..fields.rows() {
                let values =
                    (0..usize::from(columns)).map(|column| fields.get(&buffer, row, column).map(<[u8]>::to_vec));
                rows.push(values.collect());
            }
            buffer.drain(..step.consumed);
            match step.state {
                FrameState::NeedMore => {
                    assert!(framer.needed_bytes() > buffer.len());
                    break;
                }
                FrameState::Full => assert!(fields.rows() > 0),
                FrameState::Ready => {
                    assert_eq!(framer.rows(), rows.len() as u64);
                    assert!(buffer.is_empty() && index + 1 == arrivals.len());
                    return Ok(Read { rows, confirmed: framer.rows(), notices: framer.notices() });
                }
            }
        }
    }
    Err(framer.closed())
}

fn read_whole(columns: u16, stream: &[u8]) -> Result<Read, FrameError> {
    read(columns, &[stream], usize::MAX)
}

#[expect(clippy::unnecessary_wraps, reason = "a field of a row, which may be NULL")]
fn value(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

/// `ErrorResponse` as PostgreSQL 15 sends it.
fn error_response() -> Vec<u8> {
    message(b'E', b"SFEHLER\0VERROR\0C22012\0Mdivision by zero\0Dthe detail\0Hthe hint\0Wthe context\0Fint.c\0\0")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..crate::regressions::kept() })]

    #[test]
    fn the_result_is_independent_of_network_and_message_cuts(
        (columns, rows) in (1_usize..6).prop_flat_map(|columns| (Just(columns), rows(columns, 12))),
        message_cuts in cuts(),
        network_cuts in cuts(),
        max_rows in 1_usize..20,
    ) {
        let columns = u16::try_from(columns).unwrap();
        let natural = read_whole(columns, &stream(columns, &rows)).unwrap();
        prop_assert_eq!(&natural.rows, &rows);
        let cut = stream_cut(columns, &rows, &message_cuts);
        let read = read(columns, &pieces(&cut, &network_cuts), max_rows).unwrap();
        prop_assert_eq!(read, natural);
    }

    #[test]
    fn a_stream_that_breaks_off_is_never_complete(
        rows in rows(3, 6),
        message_cuts in cuts(),
        keep in 0.0_f64..1.0,
    ) {
        let stream = stream_cut(3, &rows, &message_cuts);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small stream")]
        let kept = (stream.len() as f64 * keep) as usize;
        let error = read_whole(3, &stream[..kept.min(stream.len() - 1)]).unwrap_err();
        prop_assert!(matches!(error, FrameError::Closed { .. }), "{}", error);
    }
}

#[test]
fn one_column_and_1600_columns_and_no_rows() {
    for columns in [0_u16, 1, 1600] {
        let width = usize::from(columns);
        let some: Row = (0..width).map(|column| (column % 3 != 0).then(|| vec![7; column % 5])).collect();
        for rows in [vec![], vec![some.clone()], vec![some.clone(), vec![None; width], some]] {
            for cut in [1, 7, 5000] {
                let stream = stream_cut(columns, &rows, &[cut]);
                let read = read(columns, &pieces(&stream, &[4096]), 2).unwrap();
                assert_eq!(read.rows, rows);
            }
        }
    }
}

#[test]
fn rows_larger_than_a_read_stay_linear_in_time_and_memory() {
    let large = vec![Some(vec![b'x'; 3_000_000]), None, value("end")];
    let rows = vec![vec![value("a"), value(""), None], large, vec![None, None, None]];
    // In messages of a few bytes each, so that gaps have to be closed now and then.
    for cut in [3, 1000, 10_000_000] {
        let stream = stream_cut(3, &rows, &[cut]);
        let mut framer = Framer::new(3);
        let mut fields = FieldTable::default();
        let (mut buffer, mut moved, mut largest, mut seen) = (Vec::new(), 0, 0, 0);
        for arrival in pieces(&stream, &[50_000]) {
            buffer.extend_from_slice(arrival);
            largest = largest.max(buffer.len());
            let step = framer.frame(&mut buffer, &mut fields, 100).unwrap();
            seen += fields.rows();
            if step.consumed > 0 {
                moved += buffer.len() - step.consumed;
                buffer.drain(..step.consumed);
            }
        }
        assert_eq!(seen, 3);
        assert!(largest < 2 * 3_000_000 + 200_000, "cut {cut}: {largest}");
        assert!(moved < 2 * stream.len(), "cut {cut}: {moved}");
    }
}

#[test]
fn needed_bytes_is_known_as_soon_as_the_length_is() {
    let mut framer = Framer::new(1);
    let mut fields = FieldTable::default();
    let mut input = opening(1);
    let step = framer.frame(&mut input, &mut fields, 1).unwrap();
    assert_eq!((step.consumed, step.state), (input.len(), FrameState::NeedMore));
    assert_eq!(framer.needed_bytes(), 5);
    let mut input = message(b'd', &vec![0; 1_000_000])[..5].to_vec();
    let step = framer.frame(&mut input, &mut fields, 1).unwrap();
    assert_eq!((step.consumed, step.state), (0, FrameState::NeedMore));
    assert_eq!(framer.needed_bytes(), 1_000_005);
}

#[test]
fn a_full_table_is_continued_in_the_same_message() {
    let rows: Vec<Row> = (0..10).map(|i| vec![value(&i.to_string())]).collect();
    let stream = stream_cut(1, &rows, &[usize::MAX]);
    let read = read(1, &[&stream], 3).unwrap();
    assert_eq!(read.rows, rows);
    assert_eq!(super::tests::read(1, &[&stream], 0).unwrap().rows, rows);
}

#[test]
fn asynchronous_messages_may_stand_anywhere() {
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
    let row = row_bytes(&vec![value("abcdef")]);
    let parameter = message(b'S', b"TimeZone\0UTC\0");
    let stream = [
        notice.clone(),
        opening(1),
        message(b'd', HEADER),
        message(b'd', &row[..4]),
        notice.clone(),
        message(b'd', b""),
        message(b'd', &row[4..]),
        parameter,
        message(b'd', &(-1_i16).to_be_bytes()),
        notice,
        ending(1),
    ]
    .concat();
    for cut in 1..stream.len() {
        let read = read(1, &pieces(&stream, &[cut]), 9).unwrap();
        assert_eq!(read.rows, [vec![value("abcdef")]]);
        assert_eq!(read.notices, 3);
    }
}

#[test]
fn a_header_extension_is_skipped_and_unknown_formats_are_refused() {
    let body = |flags: u32, extension: i32, tail: &[u8]| {
        let payload =
            [&HEADER[..11], &flags.to_be_bytes(), &extension.to_be_bytes(), tail, &(-1_i16).to_be_bytes()].concat();
        let messages: Vec<u8> = pieces(&payload, &[2]).iter().flat_map(|piece| message(b'd', piece)).collect();
        read_whole(1, &[opening(1), messages, ending(0)].concat())
    };
    assert_eq!(body(0, 3, b"abc").unwrap().rows.len(), 0);
    assert_eq!(body(0xFFFF, 0, b"").unwrap().rows.len(), 0);
    for (flags, extension) in [(1 << 16, 0), (1 << 31, 0), (0, -1), (0, i32::MAX)] {
        let error = body(flags, extension, b"").unwrap_err();
        assert!(matches!(error, FrameError::PayloadHeader { .. }), "{error}");
    }
}

#[test]
fn a_server_error_ends_in_ready_wherever_it_comes() {
    let row = row_bytes(&vec![value("abcdef")]);
    let places = [
        vec![],
        opening(1),
        [opening(1), message(b'd', HEADER)].concat(),
        [opening(1), message(b'd', HEADER), message(b'd', &row)].concat(),
        [opening(1), message(b'd', HEADER), message(b'd', &row[..7])].concat(),
    ];
    for place in places {
        let stream = [place, error_response(), message(b'Z', b"E")].concat();
        let error = read_whole(1, &stream).unwrap_err();
        assert!(error.fault().is_none());
        let FrameError::Server { error, reusable } = error else {
            panic!("{error}");
        };
        assert!(reusable);
        assert_eq!(
            *error,
            ErrorResponse {
                severity: "ERROR".into(),
                sqlstate: "22012".into(),
                message: "division by zero".into(),
                detail: Some("the detail".into()),
                hint: Some("the hint".into()),
                context: Some("the context".into()),
                character: None,
            }
        );
        assert_eq!(error.to_string(), "ERROR: division by zero (SQLSTATE 22012)");
        // FATAL: the connection is closed instead.
        let error = read_whole(1, &stream[..stream.len() - 6]).unwrap_err();
        assert!(matches!(error, FrameError::Server { reusable: false, .. }), "{error}");
        let beyond = [stream, message(b'N', b"\0")].concat();
        let error = read_whole(1, &beyond).unwrap_err();
        assert!(matches!(error, FrameError::Server { reusable: false, .. }), "{error}");
    }
}

#[test]
fn a_spent_framer_refuses_to_go_on() {
    let mut framer = Framer::new(1);
    let mut fields = FieldTable::default();
    assert!(framer.frame(&mut message(b'Q', b""), &mut fields, 1).is_err());
    for input in [&mut [][..], &mut opening(1)] {
        let error = framer.frame(input, &mut fields, 1).unwrap_err();
        assert!(matches!(error, FrameError::Misuse(_)), "{error}");
    }
}

#[test]
fn whatever_breaks_the_protocol_is_an_error_and_not_a_count() {
    let two = vec![vec![value("a")], vec![value("b")]];
    let copying = |payload: &[u8]| [opening(1), message(b'd', HEADER), message(b'd', payload)].concat();
    let long = |tag: u8, length: i32| [&[tag][..], &length.to_be_bytes()].concat();
    let copy_out = |body: &[u8]| message(b'H', body);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "count too low",
            [opening(1), message(b'd', &payload(&two)), ending(1)].concat(),
            "sent 2 rows and says that it copied 1",
        ),
        (
            "count too high",
            [opening(1), message(b'd', &payload(&two)), ending(3)].concat(),
            "sent 2 rows and says that it copied 3",
        ),
        ("no trailer", [copying(&row_bytes(&two[0])), ending(1)].concat(), "without its trailer, after 1 row"),
        ("half a row", [copying(&row_bytes(&two[0])[..5]), ending(0)].concat(), "without its trailer, after 0 rows"),
        ("beyond the trailer", copying(b"\xff\xff\0"), "goes on after its trailer"),
        (
            "row after the trailer",
            [copying(b"\xff\xff"), message(b'd', &row_bytes(&two[0]))].concat(),
            "goes on after its trailer",
        ),
        ("other fields", copying(&row_bytes(&vec![None, None])), "row 1 has 2 fields where the COPY has 1"),
        ("negative fields", copying(&(-2_i16).to_be_bytes()), "row 1 has -2 fields"),
        ("negative length", copying(&[0, 1, 0xff, 0xff, 0xff, 0xfe]), "row 1, field 1: impossible length -2"),
        ("huge field", copying(&[0, 1, 0x7f, 0xff, 0xff, 0xff]), "row 1 takes more than"),
        ("no signature", [opening(1), message(b'd', b"PGCOPX")].concat(), "not the signature"),
        ("message too long", [opening(1), long(b'd', i32::MAX)].concat(), "impossible length of 2147483647"),
        ("message too short", [opening(1), long(b'd', 3)].concat(), "impossible length of 3"),
        ("message negative", [opening(1), long(b'd', -1)].concat(), "impossible length of -1"),
        ("control too long", [opening(1), long(b'c', 1 << 20)].concat(), "impossible length"),
        ("data first", message(b'd', HEADER), "unexpected message 'd' while waiting for the COPY to begin"),
        ("rows of a query", message(b'T', b""), "unexpected message 'T'"),
        ("ready too early", [opening(1), message(b'Z', b"T")].concat(), "unexpected message 'Z' while copying"),
        (
            "no status",
            [opening(1), message(b'd', &payload(&two)), ending(2)[..17].to_vec(), message(b'Z', b"X")].concat(),
            "no transaction status",
        ),
        (
            "other command",
            [opening(1), message(b'd', &payload(&[])), message(b'c', b""), message(b'C', b"SELECT 0\0")].concat(),
            "not the command tag",
        ),
        (
            "signed count",
            [opening(1), message(b'd', &payload(&[])), message(b'c', b""), message(b'C', b"COPY +0\0")].concat(),
            "not the command tag",
        ),
        ("text COPY", copy_out(&[0, 0, 1, 0, 0]), "not binary"),
        ("text column", copy_out(&[1, 0, 1, 0, 0]), "a column that is not binary"),
        ("other columns", copy_out(&[1, 0, 2, 0, 1, 0, 1]), "the COPY has 2 columns where the plan has 1"),
        ("negative columns", copy_out(&[1, 0xff, 0xff]), "has -1 columns"),
        ("missing codes", copy_out(&[1, 0, 1]), "one format code for each column"),
        ("short copy out", copy_out(&[1]), "too short"),
        ("endless error", message(b'E', b"SERROR\0"), "no end of its fields"),
        ("cut error", message(b'E', b"SERROR"), "a field without its end"),
    ];
    for (name, stream, expected) in cases {
        for cut in [1, usize::MAX] {
            let error = read(1, &pieces(&stream, &[cut]), 10).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(error.fault(), Some(SourceFault::Protocol), "{name}");
        }
    }
}

#[test]
fn a_field_beyond_its_message_is_never_framed() {
    // The length says 100, the payload ends after 3: what follows is not taken for the value.
    let payload = [&[0, 1, 0, 0, 0, 100][..], b"abc"].concat();
    let stream = [opening(1), message(b'd', HEADER), message(b'd', &payload), ending(1)].concat();
    let error = read_whole(1, &stream).unwrap_err();
    assert!(matches!(error, FrameError::Unfinished { rows: 0 }), "{error}");
}

#[test]
fn a_leftover_that_vanished_is_noticed() {
    let mut framer = Framer::new(1);
    let mut fields = FieldTable::default();
    let mut input = [opening(1), message(b'd', &HEADER[..9])].concat();
    let step = framer.frame(&mut input, &mut fields, 1).unwrap();
    assert!(step.consumed < input.len());
    let error = framer.frame(&mut [], &mut fields, 1).unwrap_err();
    assert!(matches!(error, FrameError::Misuse(_)), "{error}");
}
