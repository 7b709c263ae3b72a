//! What stands behind views and policies, by the oids in the trees that the server keeps of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::plan::clocks;
use crate::source::postgres::catalog::{query, value};
use crate::source::postgres::closed::closed;
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
            SELECT m[1]::oid AS oid FROM pg_catalog.pg_rewrite r \
                    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class \
                        AND v.relkind = 'v'::\"char\", \
                    LATERAL pg_catalog.regexp_matches(r.ev_action::text, ':relid (\\d+)', 'g') AS m \
                WHERE r.ev_class = behind.oid \
                    AND r.rulename = '_RETURN'::name \
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = behind.oid \
            UNION ALL SELECT m[1]::oid FROM pg_catalog.pg_policy p, \
                    LATERAL pg_catalog.regexp_matches(p.polqual::text, ':relid (\\d+)', 'g') AS m \
                WHERE $2 AND p.polrelid = behind.oid) AS next), \
    trees AS ( \
        SELECT b.oid, r.ev_action::text AS tree, false AS policy \
            FROM behind b JOIN pg_catalog.pg_rewrite r ON r.ev_class = b.oid \
                AND r.rulename = '_RETURN'::name \
            JOIN pg_catalog.pg_class c ON c.oid = b.oid \
                AND c.relkind = 'v'::\"char\" \
        UNION ALL SELECT b.oid, p.polqual::text, true \
            FROM behind b JOIN pg_catalog.pg_policy p ON p.polrelid = b.oid \
            JOIN pg_catalog.pg_class c ON c.oid = b.oid \
            WHERE $2 AND c.relrowsecurity AND p.polqual IS NOT NULL) \
    SELECT t.policy, n.nspname::text, c.relname::text, \
        ARRAY(SELECT DISTINCT m[1] FROM pg_catalog.regexp_matches(t.tree, 'PARTS', 'g') AS m), \
        pg_catalog.strpos(t.tree, '{COERCEVIAIO') > 0 \
    FROM trees t JOIN pg_catalog.pg_class c ON c.oid = t.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY n.nspname, c.relname";

/// The parts of a tree that matter: functions, operators, constants of text, and what picks rows. A name in a tree has its blanks and
/// brackets escaped, so that none can look like one of them.
const PARTS: &str = r"(:(?:funcid|opfuncid|aggfnoid|winfnoid|opno|eqop|sortop) [1-9]\d*|:opnos \(o[ \d]*\)|:hasWindowFuncs true|:hasDistinctOn true|:limitCount (?!<)|:limitOffset (?!<)|\{SQLVALUEFUNCTION :op \d+|\{TABLESAMPLECLAUSE|\{CONST :consttype (?:25|1042|1043) [^{}]*)";

/// Bytes of the length in front of a value of a type without a fixed one.
const LENGTH_BYTES: usize = 4;

/// The text of a constant in a tree, which has it byte by byte: `{CONST … :constvalue 7 [ 28 0 0 0 110 111 119 ]`. The
/// server's own way to print a view looks for operators on the search path.
fn constant(part: &str) -> Option<String> {
    let value = part.strip_prefix("{CONST ")?;
    let numbers = value.split_once('[').map_or("", |(_, numbers)| numbers);
    // Bytes are printed with a sign on some machines.
    let byte = |number: &str| number.parse::<i16>().ok().map(|number| number.to_le_bytes()[0]);
    let bytes: Vec<u8> = numbers.split_ascii_whitespace().filter_map(byte).skip(LENGTH_BYTES).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl Behind {
    /// Looks behind relations; behind tables only for policies, and for these only where they may apply.
    pub(super) async fn of(session: &Session, relations: &[u32], policies: bool) -> Result<Self, SourceError> {
        let sql = closed(&TREES.replace("PARTS", PARTS));
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&relations, Type::OID_ARRAY), (&policies, Type::BOOL)];
        let mut found = Self::default();
        for row in query(session, "looking behind the views", &sql, &parameters).await? {
            let kind = if value(&row, 0)? { "a policy of" } else { "view" };
            let place = format!("{kind} {}.{}", value::<&str>(&row, 1)?, value::<&str>(&row, 2)?);
            let parts: Vec<&str> = value(&row, 3)?;
            // A text is read as a time where it is cast by the types' text forms.
            let casts: bool = value(&row, 4)?;
            for part in parts {
                if let Some(text) = constant(part) {
                    if casts && clocks::tells_time(&text) {
                        found.picks_rows.get_or_insert_with(|| (format!("the time '{text}'"), place.clone()));
                    }
                } else {
                    found.take(part, &place);
                }
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

#[cfg(test)]
mod tests {
    use super::constant;

    #[test]
    fn a_constant_is_read_byte_by_byte() {
        let part = "{CONST :consttype 25 :consttypmod -1 :constlen -1 :constisnull false :constvalue 8 [ 32 0 0 0 110 -61 -74 119 ]";
        assert_eq!(constant(part).as_deref(), Some("n\u{f6}w"));
        assert_eq!(constant("{CONST :consttype 25 :constisnull true :constvalue <>").as_deref(), Some(""));
        assert_eq!(constant(":funcid 12"), None);
    }
}
