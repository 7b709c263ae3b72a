//! Statements of ours that no search path can redirect.
//!
//! PostgreSQL looks for an operator, a function, a type or a relation without a schema along the search path of the
//! session. Whoever may create one there that fits its operands better than the server's own decides what the statement
//! means, and has a function run with the rights of the exporting role (CVE-2018-1058). The path cannot be changed for
//! our statements, because people's predicates and queries stand in them and are to mean what they mean in a session.
//!
//! So functions and relations are written with their schema. An operator with its schema is hard to read
//! (`OPERATOR(pg_catalog.=)`), and so [`closed`] writes it.

/// A statement of ours, without anybody else's text in it, with `pg_catalog` in front of every operator and of every
/// type that is cast to.
///
/// Operators with a schema all bind alike: tighter than a comparison, looser than `+`. Where two different ones meet,
/// parentheses have to stand. `IN`, `BETWEEN`, `NULLIF`, `CASE x WHEN`, `USING`, `NATURAL` and `IS DISTINCT FROM` (but for
/// a plain `NULL` behind it) find their operator on the search path, and no schema can be given with them.
pub(crate) fn closed(sql: &str) -> String {
    let mut closed = String::with_capacity(sql.len().saturating_mul(2));
    let mut rest = sql;
    let mut open = Open::default();
    // The last token that is neither white space nor part of the next one.
    let mut before = "";
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(length(rest, first));
        match token {
            "::" => {
                closed.push_str("::");
                if !has_schema(after) {
                    closed.push_str("pg_catalog.");
                }
            }
            "*" if matches!(before, "(" | "." | "," | "SELECT") => closed.push('*'),
            _ if is_operator(first) => {
                open.operator(token, sql);
                closed.push_str("OPERATOR(pg_catalog.");
                closed.push_str(token);
                closed.push(')');
            }
            _ => {
                open.token(token);
                closed.push_str(token);
            }
        }
        if !token.trim().is_empty() {
            before = token;
        }
        rest = after;
    }
    closed
}

/// The operator that has been seen last in each of the open brackets, with nothing behind it that ends its right side.
#[derive(Debug)]
struct Open<'a>(Vec<Option<&'a str>>);

impl Default for Open<'_> {
    fn default() -> Self {
        Self(vec![None])
    }
}

impl<'a> Open<'a> {
    fn operator(&mut self, operator: &'a str, sql: &str) {
        if let Some(last) = self.0.last_mut() {
            debug_assert!(
                last.is_none_or(|last| last == operator),
                "parentheses are missing around {operator} in {sql}"
            );
            *last = Some(operator);
        }
    }

    fn token(&mut self, token: &str) {
        match token {
            "(" | "[" => self.0.push(None),
            ")" | "]" => drop(self.0.pop()),
            _ if token == "," || token.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                if let Some(last) = self.0.last_mut() {
                    *last = None;
                }
            }
            _ => {}
        }
    }
}

/// Bytes of the token that `rest` begins with.
fn length(rest: &str, first: char) -> usize {
    let run = |of: fn(char) -> bool| rest.find(|next| !of(next)).unwrap_or(rest.len());
    match first {
        '\'' | '"' => quoted(rest, first),
        ':' if rest.starts_with("::") => 2,
        _ if is_operator(first) => run(is_operator),
        _ if is_word(first) => run(is_word),
        _ => first.len_utf8(),
    }
}

/// Bytes up to the quote that ends what `rest` begins with. A doubled one stands for itself.
fn quoted(rest: &str, quote: char) -> usize {
    let mut end = 1;
    while let Some(next) = rest[end..].find(quote) {
        end += next + 1;
        if !rest[end..].starts_with(quote) {
            return end;
        }
        end += 1;
    }
    rest.len()
}

fn is_operator(character: char) -> bool {
    "+-*/<>=~!@#%^&|`?".contains(character)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

/// Whether a name is written with its schema.
fn has_schema(name: &str) -> bool {
    let first = name.chars().next().unwrap_or(' ');
    name[length(name, first).min(name.len())..].starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::closed;

    #[test]
    fn operators_and_types_get_their_schema() {
        for (written, sent) in [
            ("a = $1 AND b <> 'x = y'", "a OPERATOR(pg_catalog.=) $1 AND b OPERATOR(pg_catalog.<>) 'x = y'"),
            ("a || ' ' || b", "a OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) b"),
            ("\"a=b\"::text::\"char\"", "\"a=b\"::pg_catalog.text::pg_catalog.\"char\""),
            ("x::\"s\"\"q\".\"t\"[]", "x::\"s\"\"q\".\"t\"[]"),
            ("$1::oid[], x::s.t, y::\"s\".\"t\"[]", "$1::pg_catalog.oid[], x::s.t, y::\"s\".\"t\"[]"),
            (
                "a = ANY (SELECT x FROM y) OR (b * 2) > c[k - 1]",
                "a OPERATOR(pg_catalog.=) ANY (SELECT x FROM y) OR (b OPERATOR(pg_catalog.*) 2) \
                 OPERATOR(pg_catalog.>) c[k OPERATOR(pg_catalog.-) 1]",
            ),
            ("SELECT *, t.*, pg_catalog.count(*)", "SELECT *, t.*, pg_catalog.count(*)"),
            ("a !~* 'it''s = \"x\"'", "a OPERATOR(pg_catalog.!~*) 'it''s = \"x\"'"),
        ] {
            assert_eq!(closed(written), sent);
        }
    }

    #[test]
    #[should_panic(expected = "parentheses are missing")]
    fn two_operators_side_by_side_would_bind_in_another_way() {
        closed("SELECT a = b || c");
    }
}
