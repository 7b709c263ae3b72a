//! What stands behind views and policies, by the oids in the trees that the server keeps of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::source::SourceError;
use crate::source::postgres::catalog::{query, value};
use crate::source::postgres::closed::closed;
use crate::source::postgres::connect::Session;
use crate::source::postgres::plan::clocks::special::{holds_special_time, is_special_time};

/// What views and policies are made of.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
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
        t.tree ~ '\\{(COERCEVIAIO|TABLEFUNC|JSONEXPR) '::text \
    FROM trees t JOIN pg_catalog.pg_class c ON c.oid = t.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY n.nspname, c.relname";

/// The parts of a tree that matter: functions, operators, constants of varying length, and what picks rows. A name in a
/// tree has its blanks and brackets escaped, so that none can look like one of them.
const PARTS: &str = r"(:(?:funcid|opfuncid|aggfnoid|winfnoid|opno|eqop|sortop) [1-9]\d*|:opnos \(o[ \d]*\)|:hasWindowFuncs true|:hasDistinctOn true|:limitCount (?!<)|:limitOffset (?!<)|\{SQLVALUEFUNCTION :op \d+|\{TABLESAMPLECLAUSE|\{CONST :consttype \d+ :consttypmod -?\d+ :constcollid \d+ :constlen (?:-1|-2|64) [^{}]*)";

/// Types whose values hold nothing but one text: `name`, `text`, `json`, `xml`, `unknown`, `char(n)`, `varchar`, `cstring`.
const TEXTS: [u32; 8] = [19, 25, 114, 142, 705, 1042, 1043, 2275];

/// Functions that read the members of a row from the texts in a JSON document: `json[b]_to_record[set]`,
/// `json[b]_populate_record[set]` and `jsonb_populate_record_valid`.
const READ_RECORDS: [u32; 9] = [3204, 3205, 3209, 3475, 3490, 3491, 3960, 3961, 6338];

/// Bytes of the length in front of a value of a type without a fixed one.
const LENGTH_BYTES: usize = 4;

/// The time by the clock that a constant in a tree may be read as, for people. A tree has the constant byte by byte:
/// `{CONST :consttype 25 … :constvalue 7 [ 28 0 0 0 110 111 119 ]`. The server's own way to print a view looks for
/// operators on the search path.
fn special_time(part: &str) -> Option<String> {
    let constant = part.strip_prefix("{CONST :consttype ")?;
    let type_oid: u32 = constant.split(' ').next()?.parse().ok()?;
    let (facts, numbers) = constant.split_once('[')?;
    // Bytes are printed with a sign on some machines.
    let byte = |number: &str| number.parse::<i16>().ok().map(|number| number.to_le_bytes()[0]);
    let length = if facts.contains(":constlen -1 ") { LENGTH_BYTES } else { 0 };
    let bytes: Vec<u8> = numbers.split_ascii_whitespace().filter_map(byte).skip(length).collect();
    if !TEXTS.contains(&type_oid) {
        return holds_special_time(&bytes).then(|| "a time by the clock within a constant".to_owned());
    }
    let text = String::from_utf8_lossy(&bytes);
    is_special_time(&text).then(|| format!("the time '{}'", text.trim_end_matches('\0')))
}

impl Dependencies {
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
            for part in parts.iter().filter(|part| !part.starts_with("{CONST ")) {
                found.take(part, &place);
            }
            // A text is read as a time only where something takes values by their text forms.
            let reads_texts = value(&row, 4)? || parts.iter().any(|part| reads_records(part));
            if reads_texts && let Some(what) = parts.iter().find_map(|part| special_time(part)) {
                found.picks_rows.get_or_insert((what, place));
            }
        }
        Ok(found)
    }

    fn take(&mut self, part: &str, place: &str) {
        let numbers: BTreeSet<u32> = numbers(part).collect();
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

fn numbers(part: &str) -> impl Iterator<Item = u32> {
    part.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

fn reads_records(part: &str) -> bool {
    part.starts_with(":funcid ") && numbers(part).any(|oid| READ_RECORDS.contains(&oid))
}

#[cfg(test)]
mod tests {
    use super::special_time;

    #[test]
    fn a_constant_is_read_byte_by_byte() {
        for (part, seen) in [
            (
                "25 :consttypmod -1 :constcollid 100 :constlen -1 :constisnull false :constvalue 7 [ 28 0 0 0 110 111 119 ]",
                "the time 'now'",
            ),
            (
                "19 :consttypmod -1 :constcollid 950 :constlen 64 :constisnull false :constvalue 5 [ 110 79 119 0 0 ]",
                "the time 'nOw'",
            ),
            (
                "3802 :consttypmod -1 :constcollid 0 :constlen -1 :constvalue 21 [ 84 0 0 0 1 0 0 32 2 0 0 -128 3 0 0 0 97 116 110 111 119 ]",
                "a time by the clock within a constant",
            ),
        ] {
            assert_eq!(special_time(&format!("{{CONST :consttype {part}")).as_deref(), Some(seen), "{part}");
        }
        for part in [
            "{CONST :consttype 25 :constlen -1 :constvalue 8 [ 32 0 0 0 110 -61 -74 119 ]",
            "{CONST :consttype 25 :constlen -1 :constisnull true :constvalue <>",
            ":funcid 12",
        ] {
            assert_eq!(special_time(part), None, "{part}");
        }
    }
}
