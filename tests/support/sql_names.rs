//! A reader of SQL that finds what a search path could redirect: operators, functions, types and relations without a
//! schema, and what finds an operator without naming it.

use std::collections::BTreeSet;

/// What finds its operator on the search path, whatever is written.
const BANNED: [&str; 9] = ["IN", "BETWEEN", "NULLIF", "USING", "NATURAL", "LIKE", "ILIKE", "SIMILAR", "OVERLAPS"];

/// What may stand before a parenthesis and is no function of a schema.
const SYNTAX: [&str; 1] = ["extract"];

/// The built-in things that statements name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// `pg_catalog.NAME(`
    pub functions: BTreeSet<String>,
    /// `::pg_catalog.NAME`
    pub types: BTreeSet<String>,
    /// All others.
    pub relations: BTreeSet<String>,
    /// `OPERATOR(pg_catalog.NAME)`
    pub operators: BTreeSet<String>,
}

impl Named {
    /// Adds what a statement names, and gives what in it could be redirected. Nobody else's text may stand in it.
    pub(crate) fn read(&mut self, statement: &str) -> Vec<String> {
        let tokens = tokens(statement);
        let mut problems = Vec::new();
        if matches!(tokens.first(), Some(&"BEGIN" | &"COMMIT" | &"ROLLBACK" | &"SAVEPOINT" | &"RELEASE" | &"SET")) {
            return problems;
        }
        let own = own_names(&tokens);
        let at = |place: usize| tokens.get(place).copied().unwrap_or_default();
        for (place, token) in tokens.iter().enumerate() {
            let before = |back: usize| place.checked_sub(back).map_or("", at);
            let problem = match *token {
                "pg_catalog" => {
                    self.add(before(1), at(place + 2), at(place + 3));
                    None
                }
                "::" if at(place + 2) != "." => Some("a type"),
                "CASE" if at(place + 1) != "WHEN" => Some("a simple CASE"),
                "FROM" if before(1) == "DISTINCT" => (at(place + 1) != "NULL").then_some("IS DISTINCT FROM a value"),
                "FROM" | "JOIN" | "ONLY" | "TABLE" => {
                    let next = at(place + 1);
                    let fine = next == "(" || is_keyword(next) || at(place + 2) == "." || own.contains(next);
                    (!fine).then_some("a relation")
                }
                "IN" if at(place + 1) == "ACCESS" => None,
                _ if BANNED.contains(token) => Some("a banned word"),
                "*" if matches!(before(1), "(" | "." | "," | "SELECT") => None,
                _ if is_operator(token) && (before(1) != "." || before(3) != "(" || before(4) != "OPERATOR") => {
                    Some("an operator")
                }
                "(" => {
                    let name = before(1);
                    let function = is_name(name) && !is_keyword(name) && before(2) != "." && !SYNTAX.contains(&name);
                    let alias = matches!(before(2), "AS" | "WITH" | "RECURSIVE") || own.contains(name);
                    (function && !alias).then_some("a function")
                }
                _ => None,
            };
            if let Some(problem) = problem {
                let around = &tokens[place.saturating_sub(4)..tokens.len().min(place + 5)];
                problems.push(format!("{problem} at {} in {statement}", around.join(" ")));
            }
        }
        problems
    }

    fn add(&mut self, before: &str, name: &str, after: &str) {
        let name = name.trim_matches('"').to_owned();
        match (before, after) {
            ("::", _) => self.types.insert(name),
            (_, "(") => self.functions.insert(name),
            _ if is_operator(&name) => self.operators.insert(name),
            _ => self.relations.insert(name),
        };
    }
}

/// The names of common table expressions, which come before every relation.
fn own_names<'a>(tokens: &[&'a str]) -> BTreeSet<&'a str> {
    let mut own = BTreeSet::new();
    for (place, window) in tokens.windows(3).enumerate() {
        let [before, name, after] = *window else { continue };
        let begins = matches!(before, "WITH" | "RECURSIVE" | ",") && is_name(name) && !is_keyword(name);
        let rest = &tokens[place + 2..];
        // `name AS (`, or `name(columns) AS (`.
        let rest = match (after, rest.iter().position(|token| *token == ")")) {
            ("(", Some(end)) => &rest[end + 1..],
            _ => rest,
        };
        if begins && matches!(rest, ["AS", "(", ..] | ["AS", "MATERIALIZED", "(", ..]) {
            own.insert(name);
        }
    }
    own
}

/// Cuts SQL into tokens; a string is one, and so is a quoted name.
fn tokens(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let run = |of: fn(char) -> bool| rest.find(|next| !of(next)).unwrap_or(rest.len());
        let length = match first {
            '\'' | '"' => {
                let mut end = 1;
                while !rest[end..].starts_with(first) || rest[end + 1..].starts_with(first) {
                    end +=
                        if rest[end..].starts_with(first) { 2 } else { rest[end..].chars().next().unwrap().len_utf8() };
                }
                end + 1
            }
            ':' if rest.starts_with("::") => 2,
            _ if is_operator_character(first) => run(is_operator_character),
            _ if is_name_character(first) => run(is_name_character),
            _ => first.len_utf8(),
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

fn is_operator_character(character: char) -> bool {
    "+-*/<>=~!@#%^&|`?".contains(character)
}

fn is_operator(token: &str) -> bool {
    token.starts_with(is_operator_character)
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_name(token: &str) -> bool {
    token.starts_with(is_name_character)
}

/// Our statements write keywords in capitals, and nothing else.
fn is_keyword(token: &str) -> bool {
    token.len() > 1 && token.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Statements of one message, which may hold several.
pub(crate) fn statements(message: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut quoted = None;
    for character in message.chars() {
        match (quoted, character) {
            (None, ';') => {
                statements.push(String::new());
                continue;
            }
            (None, '\'' | '"') => quoted = Some(character),
            (Some(open), _) if open == character => quoted = None,
            _ => {}
        }
        statements.last_mut().unwrap().push(character);
    }
    statements.into_iter().map(|statement| statement.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[test]
fn what_a_search_path_could_redirect_is_found() {
    let problems = |sql: &str| Named::default().read(sql);
    for fine in [
        "SELECT a.x, pg_catalog.count(*) FROM pg_catalog.pg_class AS a WHERE a.b OPERATOR(pg_catalog.=) ANY ('{1}')",
        "WITH RECURSIVE t(x) AS (SELECT 1), u AS (SELECT 2) SELECT * FROM t JOIN u ON true WHERE x IS DISTINCT FROM NULL",
        "COPY (\nSELECT \"a = b\"::pg_catalog.\"char\" FROM ONLY \"s\".\"t\" AS \"t\"\n) TO STDOUT (FORMAT binary)",
        "LOCK TABLE \"s\".\"t\" IN ACCESS SHARE MODE NOWAIT",
        "SELECT extract(epoch FROM pg_catalog.now()), p.x FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS p(x)",
    ] {
        assert_eq!(problems(fine), [""; 0], "{fine}");
    }
    for redirected in [
        "SELECT a = b",
        "SELECT - a",
        "SELECT count(*)",
        "SELECT a::text",
        "SELECT FROM pg_class",
        "SELECT FROM ONLY t",
        "SELECT FROM a.b JOIN pg_class ON true",
        "SELECT a IN (1)",
        "SELECT CASE a WHEN 1 THEN 2 END",
        "SELECT a IS DISTINCT FROM b",
        "SELECT a OPERATOR(=) b",
        "LOCK TABLE t IN ACCESS SHARE MODE",
    ] {
        assert_eq!(problems(redirected).len(), 1, "{redirected}: {:?}", problems(redirected));
    }
}
