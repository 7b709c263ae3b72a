use proptest::prelude::*;

use super::*;

fn flaw(result: Result<(), PlanError>) -> Option<SqlFlaw> {
    match result {
        Ok(()) => None,
        Err(PlanError::Sql { flaw, .. }) => Some(flaw),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn predicates_that_stay_inside_their_parentheses_pass() {
    for text in [
        "a = 1",
        "a = ')' and b in (1, 2)",
        "a = 'it''s (' or a = '\\'",
        r"a = E'\')' and (b)",
        r"a = e'\\' and b = ')'",
        "a = E'x'\n  '\\')' and b",
        "a = E'x' -- c\n -- d\r '\\')' and b",
        "a = 'x'\n'\\'",
        "a = E'x' 'y\\'",
        "a = U&'\\0041)' and U&\"(\" = 1",
        "a = N'(' or b = B'01' or c = X'1F'",
        "\"a)\"\"(\" = 1",
        "a = $$ ) ' \" ; -- $$",
        "a = $t$ $$ ) $ $T$ $t$",
        "a = $t$x$b$t$",
        "a$$b = 1 and c$x$ = 2",
        "a -- ) comment\n = 1",
        "a /* ) /* ( */ ; */ = 1",
        "a */* ) */ b = 1",
        "a = 1 -- an open comment",
        "a[1] = any(array[(1), b[2]])",
        "größe > 5 and 数 = '（'",
        "a @> '{}' and b ? 'x' and c - -1 > 0 and d / 2 = 1",
        "1e5 < a and 1.5e-3 < a",
        "a = '$1' and \"$1\" = 2 and a$1 = 3 -- $1",
        "a = $$ $1 $$ and b = $t$ $1 $t$ /* $1 */",
    ] {
        assert_eq!(flaw(check_predicate(text)), None, "{text:?}");
    }
}

#[test]
fn predicates_that_could_end_elsewhere_are_refused() {
    use SqlFlaw::*;
    let dollars = |tag: &str| OpenDollarQuote(tag.to_owned());
    for (text, expected) in [
        ("", Empty),
        (" \n\t", Empty),
        ("-- nothing", Empty),
        ("/* nothing */", Empty),
        ("a = 1) or (true", ClosesNothing(')')),
        ("a] = b[1", ClosesNothing(']')),
        ("a = b[(1])", ClosesOther { found: ']', expected: ')' }),
        ("a = (b[1)]", ClosesOther { found: ')', expected: ']' }),
        ("(a = 1", NeverClosed('(')),
        ("a[1 = 2", NeverClosed('[')),
        ("a = 'x", OpenString),
        ("a = '", OpenString),
        ("a = 'x''", OpenString),
        (r"a = E'\'", OpenString),
        (r"a = E'\", OpenString),
        ("a = E'x'\n'\\'", OpenString),
        ("\"a = 1", OpenName),
        ("a = $$ x", dollars("$$")),
        ("a = $t$ x $T$", dollars("$t$")),
        ("a = $ü$ x $$", dollars("$ü$")),
        ("a = 1$$ x", dollars("$$")),
        ("a /* x", OpenComment),
        ("a /* /* x */", OpenComment),
        ("a /*/", OpenComment),
        ("a = $1", Parameter),
        ("a = any($2::int[])", Parameter),
        ("a = 'x$1' and b = $12", Parameter),
        ("a = $1$ x $1$", Parameter),
        ("a = 1;", Semicolon),
        ("a = (1; 2)", Semicolon),
        ("; a", Semicolon),
        ("a = '\0'", Nul),
    ] {
        assert_eq!(flaw(check_predicate(text)), Some(expected), "{text:?}");
    }
}

#[test]
fn a_carriage_return_ends_a_comment() {
    assert_eq!(flaw(check_predicate("a -- x\r) or (b")), Some(SqlFlaw::ClosesNothing(')')));
}

#[test]
fn errors_say_where_and_what_to_do() {
    let error = check_predicate("größe = 1 and\n  (b))").unwrap_err();
    assert_eq!(error.whole(), "--where, line 2, character 6: ')' closes nothing; remove it, or open it before");
    let error = check_expression("total", "'ü' || 'x").unwrap_err();
    assert!(error.to_string().starts_with("--column total, line 1, character 8: this string is not closed"), "{error}");
    assert_eq!(crate::source::SourceError::from(error).fault, crate::source::SourceFault::Usage);
}

#[test]
fn a_query_loses_its_last_semicolon_and_nothing_else() {
    for (text, expected) in [
        ("select 1", "select 1"),
        (" SELECT 1 ;\n", "SELECT 1"),
        ("select 1 ; -- done", "select 1"),
        ("select 1;; /* ; */ ;", "select 1"),
        ("select ';' -- ;", "select ';' -- ;"),
        ("With x as (select 1) table x;", "With x as (select 1) table x"),
        ("values (1), (2)", "values (1), (2)"),
        ("/* c */ table t", "/* c */ table t"),
        ("((select 1) union (select 2))", "((select 1) union (select 2))"),
        ("select(1)", "select(1)"),
    ] {
        assert_eq!(check_query(text).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn what_is_not_one_query_is_refused() {
    use SqlFlaw::*;
    for (text, expected) in [
        ("", Empty),
        (";", Semicolon),
        ("select 1; select 2", Semicolon),
        ("select 1; drop table t;", Semicolon),
        ("select (1; )", Semicolon),
        ("delete from t", NotAQuery),
        ("selects 1", NotAQuery),
        ("'select' 1", NotAQuery),
        ("\"select\" 1", NotAQuery),
        ("(1)", NotAQuery),
        ("[select]", NotAQuery),
        ("select 1)", ClosesNothing(')')),
        ("select 'x", OpenString),
    ] {
        assert_eq!(flaw(check_query(text).map(drop)), Some(expected), "{text:?}");
    }
}

/// Texts made of what could confuse a lexer.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        8 => prop::sample::select(vec![
            "(", ")", "[", "]", "'", "''", "E'", "e", "U&'", "U&\"", "u", "&", "\"", "\\", "\\'", "$", "$$", "$a$",
            "$b$", "a", "b1", "1", "-", "--", "/", "*", "/*", "*/", "\n", "\r", " ", ";", "é", "x'", "or", "=",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

/// Where the parenthesis that opens a text is closed, and whether all of the text is tokens.
fn closes_first(text: &str) -> (Option<usize>, bool) {
    let mut lexer = Lexer::new(text);
    let mut depth = 0_u32;
    let mut closed_at = None;
    loop {
        match lexer.next() {
            Ok(Some(lexeme)) => match lexeme.token {
                Token::Open('(') => depth += 1,
                Token::Close(')') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        closed_at = closed_at.or(Some(lexeme.start));
                    }
                }
                _ => {}
            },
            Ok(None) => return (closed_at, true),
            Err(_) => return (closed_at, false),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..crate::regressions::kept() })]

    #[test]
    fn our_parenthesis_is_closed_by_ours(text in fragments()) {
        if check_predicate(&text).is_ok() {
            let whole = format!("(\n{text}\n) AND 'x'");
            prop_assert_eq!(closes_first(&whole), (Some(text.len() + 3), true), "{:?}", whole);
        }
    }

    #[test]
    fn an_accepted_query_is_one_statement(text in fragments()) {
        if let Ok(query) = check_query(&format!("select {text}")) {
            prop_assert_eq!(flaw(check_predicate(&query)), None);
            let whole = format!("(\n{query}\n) q");
            prop_assert_eq!(closes_first(&whole), (Some(query.len() + 3), true), "{:?}", whole);
        }
    }

    #[test]
    fn nothing_makes_the_checks_panic(text in any::<String>()) {
        let _ = check_predicate(&text);
        let _ = check_query(&text);
    }
}
