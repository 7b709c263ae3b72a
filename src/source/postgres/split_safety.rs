//! Whether the rows of a request may be read by several statements: only where all of them together give what the one
//! statement gives that a person would have typed.
//!
//! Views and policies are judged by the trees that the server keeps of them; what a person wrote by the names in it, of
//! which all functions and operators in the database count. Labels (IMMUTABLE) are believed.

mod dependencies;
mod harmless;

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use self::dependencies::Dependencies;
use self::harmless::{is_harmless, is_row_by_row};
use super::catalog::{CatalogRelation, TreeNode, query, value};
use super::closed::closed;
use super::connect::Session;
use crate::base::failpoint;
use crate::model::{RelationKind, RelationRequest, ShapeOptions};
use crate::source::SourceError;
use crate::source::postgres::plan::mentions::Mentions;
use crate::source::postgres::plan::oid;

/// Whether the rows may be split, and what keeps them together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SplitSafety {
    /// Why one statement must read all rows, for people.
    pub(crate) one_statement: Option<String>,
    /// Why each statement has other rows, where every row is still decided by itself: split they are one possible
    /// outcome, but what a cap counts is not what is read.
    pub(crate) row_set_varies: Option<String>,
    /// The functions and the operators that views and policies behind the request call.
    pub(crate) calls: (Vec<u32>, Vec<u32>),
}

/// Looks at all that is behind a request, under the session's snapshot.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn of(
    session: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
    tree: &[TreeNode],
) -> Result<SplitSafety, SourceError> {
    if failpoint::off("volatility") {
        return Ok(SplitSafety::default());
    }
    let texts = WrittenTexts::of(shape);
    let mut safety = SplitSafety { one_statement: texts.picks_rows(), ..SplitSafety::default() };
    if safety.one_statement.is_some() {
        return Ok(safety);
    }
    let mut relations = texts.relations(session).await?;
    let row_security = session.allows_rls() && tree.iter().any(|node| node.row_security);
    relations.extend(found.filter(|found| found.kind == RelationKind::View || row_security).map(|found| found.oid));
    let behind = match relations.as_slice() {
        [] => Dependencies::default(),
        relations => Dependencies::of(session, relations, session.allows_rls()).await?,
    };
    safety.calls = (behind.functions.keys().copied().collect(), behind.operators.keys().copied().collect());
    if let Some((what, place)) = &behind.picks_rows {
        safety.one_statement = Some(differs(what, place));
        return Ok(safety);
    }
    for function in functions(session, &texts.all, found.map(|found| found.oid), &behind).await? {
        // Every transaction of such a run has the settings that its policies read.
        if session.terms().has_settings() && function.schema == "pg_catalog" && function.name == "current_setting" {
            continue;
        }
        texts.judge(&function, &behind, &mut safety);
    }
    Ok(safety)
}

fn differs(what: &str, place: &str) -> String {
    format!("{what} in {place} may give each statement something else")
}

/// A text that a person wrote, and what it is called.
#[derive(Debug)]
struct Written {
    place: String,
    mentions: Mentions,
    /// Whether it decides on whole statements' rows rather than on each row by itself.
    strict: bool,
    /// Whether it decides which rows there are.
    selects: bool,
}

/// How the predicate is called.
const WHERE: &str = "--where";

/// All that a person wrote.
#[derive(Debug)]
struct WrittenTexts {
    written: Vec<Written>,
    /// What all of them name.
    all: Mentions,
}

impl WrittenTexts {
    fn of(shape: &ShapeOptions) -> Self {
        let mut written = Vec::new();
        let mut add = |place: String, text: &str, query: bool, selects: bool| {
            let mentions = Mentions::of(text);
            let strict = query || mentions.statement;
            written.push(Written { place, mentions, strict, selects });
        };
        if let RelationRequest::Query(text) = &shape.relation {
            add("the query".to_owned(), text, true, true);
        }
        if let Some(text) = &shape.predicate {
            add(WHERE.to_owned(), text, false, true);
        }
        for (name, text) in &shape.expressions {
            add(format!("--column {name}"), text, false, false);
        }
        if let Some(scoped) = &shape.scoped {
            // What a caller looks for is a value, and no clock: `title = 'Buy now'`.
            let predicate = written.iter_mut().filter(|text| text.place == WHERE);
            let picks_rows = scoped.texts.iter().find_map(|text| Mentions::of(text).picks_rows);
            predicate.for_each(|text| text.mentions.picks_rows.clone_from(&picks_rows));
        }
        let mut all = Mentions::default();
        for text in &written {
            all.extend(text.mentions.clone());
        }
        Self { written, all }
    }

    fn picks_rows(&self) -> Option<String> {
        self.written.iter().find_map(|text| Some(differs(text.mentions.picks_rows.as_ref()?, &text.place)))
    }

    /// Views that a statement in a text may name, and tables whose policies may apply to it.
    async fn relations(&self, session: &Session) -> Result<Vec<u32>, SourceError> {
        let names: BTreeSet<&str> = self
            .written
            .iter()
            .filter(|text| text.strict)
            .flat_map(|text| text.mentions.names.iter().map(String::as_str))
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = names.into_iter().collect();
        // The session has planned the statement, and has a lock on all that it reads: an alias or a column that is called
        // like some view is none.
        let sql = "SELECT c.oid FROM pg_catalog.pg_class c \
            WHERE c.relname::text = ANY ($1) \
                AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation = c.oid \
                    AND l.pid = pg_catalog.pg_backend_pid() \
                    AND l.locktype = 'relation'::text AND l.granted) \
                AND (c.relkind = 'v'::\"char\" OR $2 AND c.relrowsecurity)";
        let policies = session.allows_rls();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&names, Type::TEXT_ARRAY), (&policies, Type::BOOL)];
        let rows = query(session, "looking for views in the statement", &closed(sql), &parameters).await?;
        rows.iter().map(|row| value(row, 0)).collect()
    }

    /// What a function that is not IMMUTABLE means for the rows.
    fn judge(&self, function: &Function, behind: &Dependencies, safety: &mut SplitSafety) {
        let Function { schema, name, volatility, varying_default, source } = function;
        if is_harmless(schema, name, volatility) && !varying_default {
            return;
        }
        // What an aggregate, a cast or a default calls may be in any text.
        let named = self.written.iter().any(|text| text.mentions.calls.contains(name));
        let callers = || self.written.iter().filter(|text| !named || text.mentions.calls.contains(name));
        let place = match source {
            FunctionUse::Function(oid) => behind.functions.get(oid).map(String::as_str),
            FunctionUse::Operator(oid) => behind.operators.get(oid).map(String::as_str),
            // An extension's, by a setting that all sessions share: `%` of pg_trgm would keep every `id % 2` whole.
            FunctionUse::Written { in_c: true } if volatility == "s" && !varying_default => return,
            FunctionUse::Written { .. } | FunctionUse::Cast(_) => self.written.first().map(|text| text.place.as_str()),
            FunctionUse::Text => {
                if is_row_by_row(schema, name) && callers().all(|text| !text.strict) {
                    if let Some(text) = callers().find(|text| text.selects) {
                        safety.row_set_varies = Some(differs(&format!("{name}()"), &text.place));
                    }
                    return;
                }
                callers().next().map(|text| text.place.as_str())
            }
        };
        let what = match schema.as_str() {
            "pg_catalog" => format!("{name}()"),
            _ if *varying_default => format!("{schema}.{name}(), whose default asks a clock or casts a text,"),
            _ => format!("{schema}.{name}(), which is not labelled IMMUTABLE,"),
        };
        let what = match source {
            FunctionUse::Cast(cast) => format!("{cast} by {what}"),
            _ => what,
        };
        safety.one_statement.get_or_insert_with(|| differs(&what, place.unwrap_or("the statement")));
    }
}

/// A function that is not IMMUTABLE, or whose defaults are not.
#[derive(Debug)]
struct Function {
    schema: String,
    name: String,
    /// `i`, `s` or `v`.
    volatility: String,
    /// Whether the default of an argument asks a clock, or reads a text as a value.
    varying_default: bool,
    source: FunctionUse,
}

/// How a function came to be looked at.
#[derive(Debug)]
enum FunctionUse {
    /// By a name in what a person wrote.
    Text,
    /// A tree calls it.
    Function(u32),
    /// An operator in a tree calls it.
    Operator(u32),
    /// A cast that a text may mean without naming it.
    Cast(String),
    /// An operator of a name in what a person wrote calls it; whether it is written in C.
    Written { in_c: bool },
}

/// The functions that are not IMMUTABLE among all that may be called: by name, as an attribute (of a row, of a domain
/// over one, of anything), by an operator, by a cast that needs no name, whose type is named or may have another name;
/// by oid behind views; what aggregates are made of; and what stands in the defaults of arguments.
///
/// A cast is only asked for from and to types that may occur: PostgreSQL's own, those of the columns, those that are named,
/// those that functions and operators of the names in the texts take and give, and what all of these are made of or make
/// (arrays, ranges). Nothing else in a text has a type.
const FUNCTIONS: &str = "WITH RECURSIVE occurring(oid) AS (( \
        SELECT c.reltype FROM pg_catalog.pg_class c \
            WHERE c.oid = $7 OR c.relname::text = ANY ($2) \
        UNION SELECT a.atttypid FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped \
            WHERE c.oid = $7 OR c.relname::text = ANY ($2) \
        UNION SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typname::text = ANY ($2) \
        UNION SELECT u.oid FROM pg_catalog.pg_proc p, LATERAL ( \
                SELECT p.prorettype AS oid \
                UNION ALL SELECT a.oid FROM pg_catalog.unnest(p.proargtypes::oid[]) AS a(oid) \
                UNION ALL SELECT a.oid FROM pg_catalog.unnest(p.proallargtypes) AS a(oid)) AS u \
            WHERE p.proname::text = ANY ($2) \
        UNION SELECT u.oid FROM pg_catalog.pg_operator o, \
                LATERAL (VALUES (o.oprleft), (o.oprright), (o.oprresult)) AS u(oid) \
            WHERE o.oprname::text = ANY ($3)) \
        UNION SELECT r.oid FROM occurring JOIN pg_catalog.pg_type t ON t.oid = occurring.oid CROSS JOIN LATERAL ( \
            SELECT u.oid FROM (VALUES (t.typbasetype), (t.typelem), (t.typarray)) AS u(oid) \
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                WHERE a.attrelid = t.typrelid AND NOT a.attisdropped \
            UNION ALL SELECT u.oid FROM pg_catalog.pg_range g, \
                    LATERAL (VALUES (g.rngtypid), (g.rngsubtype), (g.rngmultitypid)) AS u(oid) \
                WHERE g.rngtypid = t.oid OR g.rngsubtype = t.oid OR g.rngmultitypid = t.oid) AS r), \
    called(kind, source, oid) AS ( \
        SELECT 0, 0::oid, p.oid FROM pg_catalog.pg_proc p \
            WHERE p.proname::text = ANY ($1) \
        UNION SELECT 0, 0::oid, p.oid FROM pg_catalog.pg_proc p \
            JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0] \
                AND (t.typtype = 'c'::\"char\" OR t.typtype = 'd'::\"char\" \
                    OR t.typtype = 'p'::\"char\") \
            WHERE p.proname::text = ANY ($2) \
        UNION SELECT 3, 0::oid, o.oprcode::oid FROM pg_catalog.pg_operator o \
            WHERE o.oprname::text = ANY ($3) \
        UNION SELECT 4, c.oid, c.castfunc FROM pg_catalog.pg_cast c \
            JOIN pg_catalog.pg_type t ON t.oid = c.casttarget \
            JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc \
            WHERE $4 \
                AND (c.castsource < $8 \
                    OR EXISTS (SELECT FROM occurring o WHERE o.oid = c.castsource)) \
                AND (c.casttarget < $8 \
                    OR EXISTS (SELECT FROM occurring o WHERE o.oid = c.casttarget)) \
                AND (c.castcontext = 'i'::\"char\" \
                OR t.typname::text = ANY ($2) \
                OR p.pronamespace <> 'pg_catalog'::regnamespace::oid \
                    AND (t.typnamespace = 'pg_catalog'::regnamespace::oid \
                        OR EXISTS (SELECT FROM pg_catalog.pg_type d \
                            WHERE d.typtype = 'd'::\"char\" \
                                AND d.typname::text = ANY ($2)))) \
        UNION SELECT 1, f.oid, f.oid FROM pg_catalog.unnest($5) AS f(oid) \
        UNION SELECT 2, o.oid, o.oprcode::oid FROM pg_catalog.pg_operator o \
            WHERE o.oid = ANY ($6)), \
    parts AS (SELECT c.kind, c.source, c.oid FROM called c \
        UNION SELECT p.kind, p.source, part.oid FROM parts p, LATERAL ( \
            SELECT part.oid FROM pg_catalog.pg_aggregate a, \
                LATERAL (VALUES (a.aggtransfn::oid), (a.aggfinalfn::oid), \
                    (a.aggmtransfn::oid), (a.aggminvtransfn::oid), \
                    (a.aggmfinalfn::oid)) AS part(oid) \
                WHERE a.aggfnoid::oid = p.oid \
            UNION ALL SELECT m[1]::oid FROM pg_catalog.pg_proc f, \
                LATERAL pg_catalog.regexp_matches(f.proargdefaults::text, \
                    ':(?:funcid|opfuncid) ([1-9]\\d*)', 'g') AS m \
                WHERE f.oid = p.oid) AS part) \
    SELECT DISTINCT n.nspname <> 'pg_catalog'::name, n.nspname::text, p.proname::text, p.provolatile::text, \
        c.kind, c.source, l.lanname = 'c'::name, \
        (p.proargdefaults::text ~ '\\{(SQLVALUEFUNCTION :op [0-8]|COERCEVIAIO) '::text) IS TRUE, \
        pg_catalog.format_type(k.castsource, NULL), pg_catalog.format_type(k.casttarget, NULL) \
    FROM parts c JOIN pg_catalog.pg_proc p ON p.oid = c.oid \
    LEFT JOIN pg_catalog.pg_cast k ON c.kind = 4 AND k.oid = c.source \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    WHERE p.provolatile <> 'i'::\"char\" \
        OR p.proargdefaults::text ~ '\\{(SQLVALUEFUNCTION :op [0-8]|COERCEVIAIO) '::text \
    ORDER BY 5, 1, 2, 3, 6";

async fn functions(
    session: &Session,
    texts: &Mentions,
    relation: Option<u32>,
    behind: &Dependencies,
) -> Result<Vec<Function>, SourceError> {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<String>>();
    let (calls, names, operators) = (list(&texts.calls), list(&texts.names), list(&texts.operators));
    let written = !names.is_empty() || !operators.is_empty();
    let called: Vec<u32> = behind.functions.keys().copied().collect();
    let standing: Vec<u32> = behind.operators.keys().copied().collect();
    if !written && called.is_empty() && standing.is_empty() {
        return Ok(Vec::new());
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
        (&calls, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&operators, Type::TEXT_ARRAY),
        (&written, Type::BOOL),
        (&called, Type::OID_ARRAY),
        (&standing, Type::OID_ARRAY),
        (&relation, Type::OID),
        (&oid::FIRST_NORMAL, Type::OID),
    ];
    let rows = query(session, "asking what the statement may call", &closed(FUNCTIONS), &parameters).await?;
    rows.iter().map(function).collect()
}

fn function(row: &Row) -> Result<Function, SourceError> {
    let source = match value::<i32>(row, 4)? {
        1 => FunctionUse::Function(value(row, 5)?),
        2 => FunctionUse::Operator(value(row, 5)?),
        4 => FunctionUse::Cast(format!("the cast from {} to {}", value::<&str>(row, 8)?, value::<&str>(row, 9)?)),
        3 => FunctionUse::Written { in_c: value(row, 6)? },
        _ => FunctionUse::Text,
    };
    let (schema, name, volatility) = (value(row, 1)?, value(row, 2)?, value(row, 3)?);
    Ok(Function { schema, name, volatility, varying_default: value(row, 7)?, source })
}
