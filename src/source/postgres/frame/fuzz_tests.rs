use rand::RngExt as _;

use super::fuzz::{CASES, arbitrary, mutate, seeded};
use super::wire::{Row, pieces, stream_cut};
use super::*;

/// Arbitrary and slightly wrong streams, in messages and arrivals of any length: an error or a confirmed count, never a
/// panic, never anything in between.
#[test]
fn any_stream_is_an_error_or_a_confirmed_count() {
    let random = &mut seeded();
    let mut fields = FieldTable::default();
    let (mut bytes, mut buffer) = (Vec::new(), Vec::new());
    let (mut complete, mut broken) = (0, 0);
    for case in 0..CASES {
        let columns = random.random_range(0..4_u16);
        if case % 4 == 0 {
            let tags = b"12nHdcCZENSATD";
            arbitrary(random, &mut bytes);
            bytes.splice(..0, [tags[random.random_range(0..tags.len())], 0, 0, 0]);
        } else {
            let rows: Vec<Row> = (0..random.random_range(0..3))
                .map(|_| (0..columns).map(|_| random.random::<bool>().then(|| vec![random.random()])).collect())
                .collect();
            bytes = stream_cut(columns, &rows, &[random.random_range(1..40)]);
            mutate(random, &mut bytes);
        }
        let mut framer = Framer::new(columns);
        let mut rows = 0;
        buffer.clear();
        'stream: for arrival in pieces(&bytes, &[random.random_range(1..200)]) {
            buffer.extend_from_slice(arrival);
            loop {
                let Ok(step) = framer.frame(&mut buffer, &mut fields, 2) else {
                    broken += 1;
                    break 'stream;
                };
                for field in fields.fields() {
                    assert!(field.is_null() || field.bytes(&buffer).is_some());
                }
                rows += fields.rows() as u64;
                buffer.drain(..step.consumed);
                match step.state {
                    FrameState::NeedMore => {
                        assert!(framer.needed_bytes() > buffer.len(), "it would never go on");
                        break;
                    }
                    FrameState::Full => assert!(fields.rows() > 0),
                    FrameState::Ready => {
                        assert_eq!(framer.rows(), rows);
                        assert!(tags(&bytes).any(|count| count == rows), "{rows} rows of {bytes:?}");
                        complete += 1;
                        break 'stream;
                    }
                }
            }
        }
    }
    println!("{complete} complete, {broken} broken");
    assert!(complete > CASES / 100 && broken > CASES / 4, "{complete} complete, {broken} broken");
}

/// All that looks like a COPY's command tag: the counts in them.
fn tags(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let tags = bytes.windows(6).enumerate().filter(|(_, window)| window.starts_with(b"COPY "));
    tags.filter_map(|(at, _)| {
        let digits = bytes[at + 5..].split(|byte| *byte == 0).next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}
