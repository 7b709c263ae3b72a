use arrow::array::{BinaryArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;

use super::*;
use crate::model::{Carrier, ColumnOrigin, ColumnStatistics, Policies};

fn plan(name: &str, carrier: Carrier) -> ColumnPlan {
    ColumnPlan {
        name: name.to_owned(),
        origin: ColumnOrigin::Column(name.to_owned()),
        type_name: "UInt8".to_owned(),
        sent_as: "arrow".to_owned(),
        carrier,
        nullable: false,
        policies: Policies::default(),
        policy: "lossless".to_owned(),
        ordered: true,
        may_show: true,
        free_text: false,
        rewritten: false,
        text_varies: false,
        shared_name: None,
        note: None,
        statistics: ColumnStatistics::default(),
    }
}

fn columns() -> Arc<[ColumnPlan]> {
    Arc::from([plan("a", Carrier::Int16), plan("b", Carrier::Text)])
}

/// Two batches, as a server sends them.
fn stream() -> Vec<u8> {
    let fields = vec![Field::new("a", DataType::UInt8, false), Field::new("b", DataType::Binary, false)];
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for first in [1_u8, 3] {
        let numbers = UInt8Array::from(vec![first, first + 1]);
        let texts = BinaryArray::from_iter_values([b"x", b"y"]);
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers), Arc::new(texts)]).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn rows(pieces: &[&[u8]]) -> Result<usize, ArrowDecodeError> {
    let mut rows = ArrowRows::new(columns());
    let mut count = 0;
    for piece in pieces {
        let batches = rows.take(vec![Bytes::copy_from_slice(piece)])?;
        count += batches.iter().map(|batch| batch.rows.num_rows()).sum::<usize>();
    }
    rows.finish().map(|()| count)
}

#[test]
fn a_stream_is_whole_with_its_end_and_at_no_other_place() {
    let stream = stream();
    assert_eq!(rows(&[&stream]).unwrap(), 4);
    let ones: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(rows(&ones).unwrap(), 4);
    for cut in 0..stream.len() {
        let error = rows(&[&stream[..cut]]).unwrap_err();
        assert!(matches!(error, ArrowDecodeError::NoEnd), "cut at {cut}: {error:?}");
    }
}

#[test]
fn nothing_may_follow_the_end() {
    let stream = stream();
    for more in [&b"\0"[..], b"Code: 395. DB::Exception: no"] {
        let error = rows(&[&stream, more]).unwrap_err();
        assert!(matches!(error, ArrowDecodeError::BehindEnd), "{error:?}");
        let together = [&stream, more].concat();
        assert!(matches!(rows(&[&together]), Err(ArrowDecodeError::BehindEnd)));
    }
}

#[test]
fn other_bytes_are_refused() {
    assert!(matches!(rows(&[b"a,b\n1,2\n1,2\n"]), Err(ArrowDecodeError::Stream(_) | ArrowDecodeError::NoEnd)));
    let mut decoder = ArrowRows::new(Arc::from([plan("a", Carrier::Int16)]));
    let error = decoder.take(vec![stream().into()]).unwrap_err();
    assert!(matches!(error, ArrowDecodeError::Convert(ConvertError::Columns { found: 2, wanted: 1 })), "{error:?}");
}

#[test]
fn a_large_batch_comes_in_pieces() {
    let schema =
        Arc::new(Schema::new(vec![Field::new("a", DataType::UInt8, false), Field::new("b", DataType::Binary, false)]));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    let texts = BinaryArray::from_iter_values((0..4_000).map(|_| [b'x'; 1_000]));
    let numbers = UInt8Array::from(vec![7_u8; 4_000]);
    writer
        .write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers), Arc::new(texts)]).unwrap())
        .unwrap();
    writer.finish().unwrap();
    let stream = writer.into_inner().unwrap();
    let batches = ArrowRows::new(columns()).take(vec![stream.into()]).unwrap();
    assert!(batches.len() > 4, "{}", batches.len());
    assert_eq!(batches.iter().map(|batch| batch.rows.num_rows()).sum::<usize>(), 4_000);
}
