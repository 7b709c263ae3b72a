//! Which relation may have been meant by a name that stands for none.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::blame::shown;
use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use crate::source::SourceError;

/// Names that are compared: a catalog may have more, and guessing is worth no waiting.
const CANDIDATES_MAX: i64 = 20_000;

/// Names that are offered.
const OFFERED_MAX: usize = 3;

/// The relations that the role can read and whose names are most like the one that was given; what `parse_ident` makes of it
/// comes with each. Those of the search path come first, the shortest way to a name before others.
const CANDIDATES: &str = "SELECT n.nspname::text, c.relname::text, \
        n.nspname = ANY (pg_catalog.current_schemas(false)), p.parts \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, \
        pg_catalog.parse_ident($1) AS p(parts) \
    WHERE c.relkind = ANY ('{r,p,v,m,f}') AND c.relpersistence <> 't' AND NOT c.relispartition \
        AND n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema']) \
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
        AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT')) \
    ORDER BY pg_catalog.abs(pg_catalog.length(c.relname::text) - pg_catalog.length($1)), n.nspname, c.relname \
    LIMIT $2";

/// What to do about a table of `--table` that does not exist, where another may have been meant.
///
/// # Errors
/// The session is lost, or the name is none.
pub(super) async fn of_flag(session: &Session, name: &str) -> Result<Option<String>, SourceError> {
    Ok(offer(&like(session, name).await?, Known::in_shell))
}

/// The same for a table that a query names.
///
/// # Errors
/// As [`of_flag`].
pub(super) async fn in_sql(session: &Session, name: &str) -> Result<Option<String>, SourceError> {
    Ok(offer(&like(session, name).await?, Known::written))
}

async fn like(session: &Session, name: &str) -> Result<Vec<Known>, SourceError> {
    let sql = closed(CANDIDATES);
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&name, Type::TEXT), (&CANDIDATES_MAX, Type::INT8)];
    let rows = query(session, &format!("looking for names like {name}"), &sql, &parameters).await?;
    let found: Result<Vec<Known>, SourceError> = rows.iter().map(Known::of).collect();
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    Ok(near(&value::<Vec<String>>(row, 3)?, found?))
}

/// A relation that may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    schema: String,
    name: String,
    in_path: bool,
}

impl Known {
    fn of(row: &Row) -> Result<Self, SourceError> {
        Ok(Self { schema: value(row, 0)?, name: value(row, 1)?, in_path: value(row, 2)? })
    }

    fn written(&self) -> String {
        format!("{}.{}", shown(&self.schema), shown(&self.name))
    }

    /// As a shell takes it.
    fn in_shell(&self) -> String {
        let name = self.written();
        if name.contains('"') { format!("'{}'", name.replace('\'', r"'\''")) } else { name }
    }
}

/// Those that are near enough, the nearest first.
fn near(wanted: &[String], known: Vec<Known>) -> Vec<Known> {
    let Some((name, schema)) = wanted.split_last() else { return Vec::new() };
    let schema = schema.last();
    let mut scored: Vec<((usize, usize, bool, bool), Known)> = Vec::new();
    for known in known {
        let (Some(of_name), Some(of_schema)) =
            (distance(name, &known.name), schema.map_or(Some(0), |schema| schema_distance(schema, &known, name)))
        else {
            continue;
        };
        scored.push(((of_name + of_schema, of_name, !known.in_path, known.name != *name), known));
    }
    scored.sort_by_key(|(score, _)| *score);
    // Beside a name that is right but for its case or schema, others are none.
    let best = scored.first().map(|((total, ..), _)| *total);
    scored.retain(|((total, ..), _)| Some(*total) == best);
    scored.into_iter().map(|(_, known)| known).take(OFFERED_MAX).collect()
}

/// How many letters are wrong, letter case apart; nothing where it is another name. One letter in four may be wrong.
fn distance(wanted: &str, known: &str) -> Option<usize> {
    let (wanted, known) = (wanted.to_lowercase(), known.to_lowercase());
    let wrong = strsim::damerau_levenshtein(&wanted, &known);
    (wrong <= wanted.chars().count() / 4 + usize::from(wanted.chars().count() > 2)).then_some(wrong)
}

/// The same for the schema; a table of exactly the name may be in any.
fn schema_distance(wanted: &str, known: &Known, name: &str) -> Option<usize> {
    match distance(wanted, &known.schema) {
        Some(wrong) => Some(wrong),
        None => (known.name == name).then_some(wanted.chars().count()),
    }
}

fn offer(near: &[Known], written: fn(&Known) -> String) -> Option<String> {
    let names: Vec<String> = near.iter().map(written).collect();
    match names.as_slice() {
        [] => None,
        [only] => Some(format!("did you mean {only}?")),
        [first @ .., last] => Some(format!("did you mean {} or {last}?", first.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(wanted: &str) -> Option<String> {
        let known = [
            ("public", "lineitem", true),
            ("public", "Orders", true),
            ("sales", "invoices", false),
            ("hr", "people", false),
            ("public", "t1", true),
            ("public", "t2", true),
            ("public", "customer", true),
            ("archive", "customer", false),
        ];
        let known = known.map(|(schema, name, in_path)| Known { schema: schema.into(), name: name.into(), in_path });
        let wanted: Vec<String> = wanted.split('.').map(str::to_owned).collect();
        offer(&near(&wanted, known.to_vec()), Known::in_shell)
    }

    #[test]
    fn what_was_meant_is_offered_as_a_shell_takes_it() {
        for (wanted, expected) in [
            ("lineitm", Some("did you mean public.lineitem?")),
            ("public.lineitme", Some("did you mean public.lineitem?")),
            ("pubic.lineitem", Some("did you mean public.lineitem?")),
            ("orders", Some("did you mean 'public.\"Orders\"'?")),
            ("invoices", Some("did you mean sales.invoices?")),
            ("public.invoices", Some("did you mean sales.invoices?")),
            ("hr.peple", Some("did you mean hr.people?")),
            ("custmer", Some("did you mean public.customer or archive.customer?")),
            ("nothing_like_it", None),
            ("x", None),
        ] {
            assert_eq!(offered(wanted).as_deref(), expected, "{wanted}");
        }
    }
}
