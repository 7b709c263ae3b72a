//! What people read: numbers with commas, binary units, seconds and minutes, and the words for values.

use std::time::Duration;

use indicatif::{FormattedDuration, HumanBytes, HumanCount};

use crate::base::words;
use crate::model::{Carrier, Compression, Format, Member, Precision};

/// `6,001,215`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `9,999`, `12.3 k`, `6.0 M`: for estimates.
pub(crate) fn about(number: u64) -> String {
    match number {
        0..10_000 => count(number),
        10_000..1_000_000 => format!("{:.1} k", float(number) / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", float(number) / 1e6),
        _ => format!("{:.1} G", float(number) / 1e9),
    }
}

/// `1.24 GiB`.
pub(crate) fn bytes(number: u64) -> String {
    HumanBytes(number).to_string()
}

/// `24 parts`, `1 part`.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    format!("{} {}", count(number), words::plural(number, noun))
}

/// `6 rows in 2 parts`; `2 parts` where nobody counts rows.
pub(crate) fn rows_in_parts(rows: Option<u64>, parts: u64) -> String {
    let rows = rows.map_or_else(String::new, |rows| format!("{} in ", plural(rows, "row")));
    format!("{rows}{}", plural(parts, "part"))
}

/// `parquet, zstd 1`.
pub(crate) fn format(format: Format, compression: Compression) -> String {
    let name = match format {
        Format::Parquet => "parquet",
        Format::Csv => "csv",
        Format::Ndjson => "ndjson",
        Format::Source => "the source's own",
    };
    match compression {
        Compression::None => name.to_owned(),
        Compression::Snappy => format!("{name}, snappy"),
        Compression::Lz4 => format!("{name}, lz4"),
        Compression::Zstd(level) => format!("{name}, zstd {level}"),
        Compression::Gzip(level) => format!("{name}, gzip {level}"),
    }
}

/// So many per second, to whole numbers; zero where no time has passed.
pub(crate) fn per_second(number: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { whole(float(number) / seconds) } else { 0 }
}

/// `0.25 s`, `12.5 s`, then `00:03:20`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        clock(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// `00:03:20`.
pub(crate) fn clock(duration: Duration) -> String {
    FormattedDuration(duration).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits; never computed with further")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what a display wants"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// The form that a column's values have in the output.
pub(super) fn carrier(of: &Carrier) -> String {
    let words = match of {
        Carrier::Decimal128 { precision, scale } | Carrier::Decimal256 { precision, scale } => {
            return format!("decimal({precision},{scale})");
        }
        Carrier::List(element) => return format!("list of {}", carrier(element)),
        Carrier::Struct(members) => {
            let member = |member: &Member| format!("{} {}", member.name, carrier(&member.carrier));
            return format!("struct({})", members.iter().map(member).collect::<Vec<_>>().join(", "));
        }
        Carrier::Timestamp { unit: Precision::Millis, utc: false } => "timestamp in milliseconds",
        Carrier::Timestamp { unit: Precision::Millis, utc: true } => "timestamp in UTC, in milliseconds",
        Carrier::Map => "map of text",
        Carrier::Bool => "bool",
        Carrier::Int16 => "int16",
        Carrier::Int32 => "int32",
        Carrier::Int64 => "int64",
        Carrier::Float32 => "float32",
        Carrier::Float64 => "float64",
        Carrier::NumberText | Carrier::Text => "text",
        Carrier::Json => "JSON",
        Carrier::Bytes => "bytes",
        Carrier::Uuid => "uuid",
        Carrier::PgDate | Carrier::Date32 => "date",
        Carrier::PgTime | Carrier::Time64 => "time",
        Carrier::PgTimestamp | Carrier::Timestamp { unit: Precision::Micros, utc: false } => "timestamp",
        Carrier::PgTimestampTz | Carrier::Timestamp { unit: Precision::Micros, utc: true } => "timestamp in UTC",
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(6_001_215), "6,001,215");
        assert_eq!([9_999, 10_000, 6_001_215, 4_294_967_296].map(about), ["9,999", "10.0 k", "6.0 M", "4.3 G"]);
        assert_eq!(bytes(301_989_888), "288.00 MiB");
        assert_eq!(plural(1, "part"), "1 part");
        assert_eq!(plural(0, "row"), "0 rows");
        assert_eq!(per_second(100, 0.0), 0);
        assert_eq!(per_second(100, 8.0), 13);
        assert_eq!(seconds(0.254), "0.25 s");
        assert_eq!(seconds(12.54), "12.5 s");
        assert_eq!(seconds(200.0), "00:03:20");
        assert_eq!(whole(-1.0), 0);
        assert_eq!(whole(f64::INFINITY), u64::MAX);
    }
}
