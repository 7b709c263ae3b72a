//! `outhaul ls`: what a source has that could be exported.

use clap::ArgMatches;
use serde::Serialize;

use super::printable;
use super::table::Table;
use super::{CommandContext, args, exit, human};
use crate::base::glob;
use crate::config;
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind, ListedRelation, ReadableRows, RelationKind, SplitWay};

/// The width that everybody has.
const WIDTH: usize = 80;

/// A key is shown so wide at least, where there is one so wide.
const KEY_WIDTH_MIN: usize = 10;

pub(super) async fn ls(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let source = match config::load_connection(args::flags(matches), &context.environment) {
        Ok(source) => source,
        Err(errors) => return context.refuse(&errors),
    };
    context.start_logs(context.screen.looks());
    let listing = async {
        let no_catalog = || ExportError::new(ExportErrorKind::Usage, "this source does not tell what it has");
        Ok::<_, ExportError>(source.list().ok_or_else(no_catalog)?.await?)
    };
    let listed = context.unless_stopped("stopped while listing", listing).await;
    let chosen = listed.and_then(|listed| choose(listed, matches.get_one::<String>("pattern").map(String::as_str)));
    match chosen {
        Ok(chosen) => context.answer(|| text(&chosen), &ListedJson::new(&chosen)),
        Err(error) => context.fail(&error),
    }
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct ListedJson<'a> {
    schema_version: u32,
    exit_code: u8,
    relations: &'a [ListedRelation],
    retryable: bool,
}

impl<'a> ListedJson<'a> {
    fn new(relations: &'a [ListedRelation]) -> Self {
        Self { schema_version: 1, exit_code: exit::COMPLETE, relations, retryable: false }
    }
}

/// The relations that a pattern means. A partition is in its table's line, and has one of its own only where it is named.
///
/// # Errors
/// None matches.
fn choose(mut listed: Vec<ListedRelation>, pattern: Option<&str>) -> Result<Vec<ListedRelation>, ExportError> {
    let Some(pattern) = pattern else {
        listed.retain(|relation| relation.part_of.is_none());
        return Ok(listed);
    };
    let written = pattern.replace('"', "");
    let several = glob::is_pattern(&written);
    listed.retain(|relation| {
        let whole = format!("{}.{}", relation.schema, relation.name);
        let means = glob::matches(&written, &relation.name) || written.contains('.') && glob::matches(&written, &whole);
        means && !(several && relation.part_of.is_some())
    });
    if listed.is_empty() {
        return Err(ExportError::new(ExportErrorKind::SourceMissing, format!("no relation is named {pattern}"))
            .with_code(ErrorCode::RelationMissing)
            .with_hint("`outhaul ls` without a pattern shows all; * stands for any characters, as in 'sales.*'"));
    }
    Ok(listed)
}

fn text(listed: &[ListedRelation]) -> String {
    if listed.is_empty() {
        return "there is no table and no view".to_owned();
    }
    let head = ["table", "kind", "rows", "size", "key", "split", "readable"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(listed.iter().map(cells)).collect();
    let natural = |column: usize| rows.iter().map(|row| printable::width(&row[column])).max().unwrap_or(0);
    // Two spaces between columns; what the others leave is for name and key, and the name comes first.
    let others: usize = [1, 2, 3, 5, 6].into_iter().map(|column| natural(column) + 2).sum();
    let room = WIDTH.saturating_sub(others + 2);
    let least_key = natural(4).min(KEY_WIDTH_MIN);
    let name_width = natural(0).min(room.saturating_sub(least_key));
    let key_width = room.saturating_sub(name_width);
    let mut table = Table::flush();
    table.right(2).right(3);
    for [name, kind, rows, size, key, split, readable] in rows {
        let rest = [kind, rows, size, shortened(&key, key_width), split, readable];
        if printable::width(&name) > name_width {
            // A name is there to be copied.
            table.line(&name);
            table.row(std::iter::once(" ".repeat(name_width)).chain(rest));
        } else {
            table.row(std::iter::once(printable::padded(&name, name_width)).chain(rest));
        }
    }
    let count = human::plural(u64::try_from(listed.len()).unwrap_or(u64::MAX), "relation");
    format!("{table}\n{count}; rows are the source's estimates")
}

fn cells(relation: &ListedRelation) -> [String; 7] {
    let tables = u64::try_from(relation.tables).unwrap_or(u64::MAX);
    let kind = match relation.kind {
        RelationKind::PartitionedTable => human::plural(tables, "table"),
        RelationKind::Table if tables > 1 => human::plural(tables, "table"),
        RelationKind::Table => "table".to_owned(),
        RelationKind::View => "view".to_owned(),
        RelationKind::MaterializedView => "mat. view".to_owned(),
        RelationKind::ForeignTable => "foreign".to_owned(),
        RelationKind::Query => "query".to_owned(),
    };
    let split = match relation.split {
        SplitWay::Blocks => "blocks",
        SplitWay::Tables => "tables",
        SplitWay::Key => "key",
        SplitWay::OnePartition => "no",
    };
    let readable = match relation.readable {
        ReadableRows::All => "yes",
        ReadableRows::SomeColumns => "columns",
        ReadableRows::SomeRows => "rows",
        ReadableRows::None => "no",
    };
    [
        printable::line(&relation.table).into_owned(),
        kind,
        relation.estimated_rows.map_or_else(|| "?".to_owned(), human::about),
        relation.bytes.map_or_else(|| "-".to_owned(), human::bytes),
        if relation.key.is_empty() { "-".to_owned() } else { relation.key.join(", ") },
        split.to_owned(),
        readable.to_owned(),
    ]
}

/// The beginning of a text that is wider than `width`.
fn shortened(text: &str, width: usize) -> String {
    if printable::width(text) <= width {
        return text.to_owned();
    }
    let kept = printable::beginning(text, width.saturating_sub(1));
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden::check;

    fn relation(name: &str, kind: RelationKind) -> ListedRelation {
        ListedRelation {
            table: format!("public.{name}"),
            schema: "public".into(),
            name: name.into(),
            kind,
            part_of: None,
            tables: 1,
            estimated_rows: Some(6_001_215),
            bytes: Some(1_240_000_000),
            key: vec!["id".into()],
            split: SplitWay::Blocks,
            readable: ReadableRows::All,
        }
    }

    fn samples() -> Vec<ListedRelation> {
        let stores_nothing = |name, kind| ListedRelation {
            tables: 0,
            estimated_rows: None,
            bytes: None,
            key: Vec::new(),
            split: SplitWay::OnePartition,
            ..relation(name, kind)
        };
        let keyed = |name: &str, key: &[&str]| ListedRelation {
            key: key.iter().map(|column| (*column).to_owned()).collect(),
            ..relation(name, RelationKind::Table)
        };
        vec![
            relation("lineitem", RelationKind::Table),
            ListedRelation { tables: 480, ..relation("events", RelationKind::PartitionedTable) },
            ListedRelation { part_of: Some("public.events".into()), ..relation("events_2026_01", RelationKind::Table) },
            ListedRelation { readable: ReadableRows::None, ..stores_nothing("totals", RelationKind::View) },
            ListedRelation { tables: 1, ..stores_nothing("elsewhere", RelationKind::ForeignTable) },
            ListedRelation {
                split: SplitWay::Key,
                readable: ReadableRows::SomeRows,
                estimated_rows: Some(9_999),
                ..keyed("tenants", &["tenant_id", "customer_number", "line"])
            },
            ListedRelation {
                readable: ReadableRows::SomeColumns,
                estimated_rows: None,
                bytes: Some(0),
                ..relation("a_name_that_somebody_thought_would_say_everything", RelationKind::MaterializedView)
            },
        ]
    }

    #[test]
    fn a_listing_fits_a_narrow_terminal_and_cuts_no_name() {
        let text = text(&choose(samples(), None).unwrap());
        check("ls/listing.txt", &format!("{text}\n"));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(text.contains("public.a_name_that_somebody_thought_would_say_everything\n"));
        assert!(!text.contains("events_2026_01"), "{text}");
        let short = super::text(&[relation("t", RelationKind::Table)]);
        check("ls/one.txt", &format!("{short}\n"));
    }

    #[test]
    fn a_pattern_chooses() {
        let chosen = |pattern: &str| {
            choose(samples(), Some(pattern))
                .map(|chosen| chosen.into_iter().map(|relation| relation.name).collect::<Vec<_>>())
                .map_err(|error| error.message)
        };
        assert_eq!(chosen("events*").unwrap(), ["events"]);
        assert_eq!(chosen("events_2026_01").unwrap(), ["events_2026_01"]);
        assert_eq!(chosen("PUBLIC.t*").unwrap(), ["totals", "tenants"]);
        assert_eq!(chosen("\"public\".\"totals\"").unwrap(), ["totals"]);
        assert_eq!(chosen("other.*").unwrap_err(), "no relation is named other.*");
    }
}
