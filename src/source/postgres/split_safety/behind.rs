//! What stands behind views and policies, by the oids in the trees that the server keeps of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::plan::clocks::Clocks;
use crate::source::postgres::catalog::{query, value};
use crate::source::postgres::connect::Session;
use crate::source::postgres::error::SourceError;

/// What views and policies are made of.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Functions, each with a place where it is called.
    pub(super) functions: BTreeMap<u32, String>,
    /// Operators, each with a place where it stands.
    pub(super) operators: BTreeMap<u32, String>,
    /// What picks rows anew in each statement, and where; the first that was found.
    pub(super) picks_rows: Option<(String, String)>,
}

/// The last of the kinds of `SQLVALUEFUNCTION` that tells the time (`SVFOP_LOCALTIMESTAMP_N` in `primnodes.h`); those
/// beyond it tell user, role, database and schema.
const LAST_CLOCK: u32 = 8;

/// The relations behind `$1`, with the trees of their rules and, where `$2`, of their policies; a table ends the search,
/// a materialized view too.
const TREES: &str = "WITH RECURSIVE behind(oid) AS ( \
        SELECT r.oid FROM pg_catalog.unnest($1) AS r(oid) \
        UNION SELECT next.oid FROM behind, LATERAL ( \
            SELECT m[1]::pg_catalog.oid AS oid FROM pg_catalog.pg_rewrite r \
                    JOIN pg_catalog.pg_class v ON v.oid OPERATOR(pg_catalog.=) r.ev_class \
                        AND v.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog.\"char\", \
                    LATERAL pg_catalog.regexp_matches(r.ev_action::pg_catalog.text, ':relid (\\d+)', 'g') AS m \
                WHERE r.ev_class OPERATOR(pg_catalog.=) behind.oid \
                    AND r.rulename OPERATOR(pg_catalog.=) '_RETURN'::pg_catalog.name \
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) behind.oid \
            UNION ALL SELECT m[1]::pg_catalog.oid FROM pg_catalog.pg_policy p, \
                    LATERAL pg_catalog.regexp_matches(p.polqual::pg_catalog.text, ':relid (\\d+)', 'g') AS m \
                WHERE $2 AND p.polrelid OPERATOR(pg_catalog.=) behind.oid) AS next), \
    trees AS ( \
        SELECT b.oid, r.ev_action::pg_catalog.text AS tree, pg_catalog.pg_get_viewdef(b.oid) AS text, false AS policy \
            FROM behind b JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) b.oid \
                AND r.rulename OPERATOR(pg_catalog.=) '_RETURN'::pg_catalog.name \
            JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.oid \
                AND c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog.\"char\" \
        UNION ALL SELECT b.oid, p.polqual::pg_catalog.text, pg_catalog.pg_get_expr(p.polqual, p.polrelid), true \
            FROM behind b JOIN pg_catalog.pg_policy p ON p.polrelid OPERATOR(pg_catalog.=) b.oid \
            JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.oid \
            WHERE $2 AND c.relrowsecurity AND p.polqual IS NOT NULL) \
    SELECT t.policy, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
        ARRAY(SELECT DISTINCT m[1] FROM pg_catalog.regexp_matches(t.tree, 'PARTS', 'g') AS m), \
        CASE WHEN pg_catalog.strpos(t.tree, '{COERCEVIAIO') OPERATOR(pg_catalog.>) 0 THEN t.text END \
    FROM trees t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace ORDER BY n.nspname, c.relname";

/// The parts of a tree that matter: functions, operators, and what picks rows. A name in a tree has its blanks and
/// brackets escaped, so that none can look like one of them.
const PARTS: &str = r"(:(?:funcid|opfuncid|aggfnoid|winfnoid|opno|eqop|sortop) [1-9]\d*|:opnos \(o[ \d]*\)|:hasWindowFuncs true|:hasDistinctOn true|:limitCount (?!<)|:limitOffset (?!<)|\{SQLVALUEFUNCTION :op \d+|\{TABLESAMPLECLAUSE)";

impl Behind {
    /// Looks behind relations; behind tables only for policies, and for these only where they may apply.
    pub(super) async fn of(session: &Session, relations: &[u32], policies: bool) -> Result<Self, SourceError> {
        let sql = TREES.replace("PARTS", PARTS);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&relations, Type::OID_ARRAY), (&policies, Type::BOOL)];
        let mut found = Self::default();
        for row in query(session, "looking behind the views", &sql, &parameters).await? {
            let kind = if value(&row, 0)? { "a policy of" } else { "view" };
            let place = format!("{kind} {}.{}", value::<&str>(&row, 1)?, value::<&str>(&row, 2)?);
            let parts: Vec<&str> = value(&row, 3)?;
            for part in parts {
                found.take(part, &place);
            }
            let text: Option<&str> = value(&row, 4)?;
            if let Some(clock) = text.and_then(|text| Clocks::of(text).first()) {
                found.picks_rows.get_or_insert((clock, place));
            }
        }
        Ok(found)
    }

    fn take(&mut self, part: &str, place: &str) {
        let numbers: BTreeSet<u32> =
            part.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
        let mut picks = |what: &str| {
            self.picks_rows.get_or_insert_with(|| (what.to_owned(), place.to_owned()));
        };
        match part.split_ascii_whitespace().next().unwrap_or_default() {
            ":hasWindowFuncs" => picks("a window function"),
            ":hasDistinctOn" => picks("DISTINCT ON"),
            ":limitCount" => picks("LIMIT"),
            ":limitOffset" => picks("OFFSET"),
            "{TABLESAMPLECLAUSE" => picks("TABLESAMPLE"),
            "{SQLVALUEFUNCTION" if numbers.iter().all(|kind| *kind <= LAST_CLOCK) => picks("a clock (current_date, …)"),
            ":opno" | ":opnos" | ":eqop" | ":sortop" => {
                self.operators.extend(numbers.into_iter().map(|oid| (oid, place.to_owned())));
            }
            ":funcid" | ":opfuncid" | ":aggfnoid" | ":winfnoid" => {
                self.functions.extend(numbers.into_iter().map(|oid| (oid, place.to_owned())));
            }
            _ => {}
        }
    }
}
