//! Log records as sentences, for who has asked for no more than warnings: they stand among what the command says.

use std::error::Error;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::base::voice;

/// `warning: an attempt failed: connection reset (attempt=1)`.
#[derive(Debug)]
pub(super) struct Prose;

impl<S, N> FormatEvent<S, N> for Prose
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut told = Told::default();
        event.record(&mut told);
        let (word, color) = match *event.metadata().level() {
            Level::ERROR => ("error:", "\u{1b}[1;31m"),
            Level::WARN => ("warning:", "\u{1b}[33m"),
            _ => ("note:", "\u{1b}[2m"),
        };
        if writer.has_ansi_escapes() {
            write!(writer, "{color}{word}\u{1b}[0m {}", told.message)?;
        } else {
            write!(writer, "{word} {}", told.message)?;
        }
        writer.write_str(&told.cause)?;
        if !told.facts.is_empty() {
            write!(writer, " ({})", told.facts)?;
        }
        writer.write_char('\n')
    }
}

/// What a record says.
#[derive(Debug, Default)]
struct Told {
    message: String,
    cause: String,
    facts: String,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Control characters of others would move the cursor.
        let plain: String = value.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        self.record_debug(field, &format_args!("{plain}"));
    }

    fn record_error(&mut self, _: &Field, value: &(dyn Error + 'static)) {
        self.cause.push_str(": ");
        self.cause.push_str(&voice::sentence(&value.to_string(), value.source(), false));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        // A sentence with its cause in it.
        if field.name() == "error" {
            // Writing to a string cannot fail.
            let _ = write!(self.cause, ": {value:?}");
            return;
        }
        let between = if self.facts.is_empty() { "" } else { ", " };
        let _ = write!(self.facts, "{between}{}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_reads_as_a_sentence() {
        for (color, expected) in [
            (false, "warning: it was settled: no way (staged=8, run_id=abc)\n"),
            (true, "\u{1b}[33mwarning:\u{1b}[0m it was settled: no way (staged=8, run_id=abc)\n"),
        ] {
            let kept = Kept::default();
            let writer = {
                let kept = kept.clone();
                move || kept.clone()
            };
            let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(color).event_format(Prose);
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                let error = std::io::Error::other("no\u{1b} way");
                tracing::warn!(error = &error as &dyn Error, staged = 8, run_id = "abc", "it was settled");
            });
            assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), expected);
        }
    }
}
