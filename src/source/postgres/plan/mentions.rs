//! What a text of SQL names: whatever it may call, by the names alone. Which of several functions of a name is meant
//! is for the server to say, so all of them count.

use std::collections::BTreeSet;

use super::clocks::Clocks;
use super::pieces::{Piece, PieceKind, pieces};

/// Key words that stand for operators, or may.
const WORDS_OF_OPERATORS: [&str; 9] =
    ["between", "case", "distinct", "ilike", "in", "like", "natural", "nullif", "using"];

/// What is said of a name whose letters nobody knows.
pub(super) const ESCAPED_NAME: &str = "a name in Unicode escapes";

/// The operators that they stand for.
const OPERATORS_OF_WORDS: [&str; 10] = ["=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*"];

/// What a text names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// Names before an opening bracket, as the server folds them.
    pub(crate) calls: BTreeSet<String>,
    /// All names and key words.
    pub(crate) names: BTreeSet<String>,
    /// Operators.
    pub(crate) operators: BTreeSet<String>,
    /// Whether a statement is in it.
    pub(crate) statement: bool,
    /// Why it cannot be split, where the text itself says so.
    pub(crate) picks_rows: Option<String>,
}

impl Mentions {
    /// Reads them from a text.
    pub(crate) fn of(text: &str) -> Self {
        let pieces = pieces(text);
        let mut found = Self { operators: operators(&pieces), picks_rows: Clocks::of(text).first(), ..Self::default() };
        for (at, piece) in pieces.iter().enumerate() {
            if piece.kind == PieceKind::Quoted(None) {
                found.picks_rows.get_or_insert_with(|| ESCAPED_NAME.to_owned());
            }
            let Some(name) = piece.name() else { continue };
            if pieces.get(at + 1).is_some_and(|next| next.kind == PieceKind::Open) {
                found.calls.insert(name.to_owned());
            }
            found.names.insert(name.to_owned());
            if let PieceKind::Word(word) = &piece.kind {
                if WORDS_OF_OPERATORS.contains(&word.as_str()) {
                    found.operators.extend(OPERATORS_OF_WORDS.map(str::to_owned));
                }
                found.statement |= matches!(word.as_str(), "select" | "values" | "table" | "with");
                if let Some(construct) = construct(&pieces, at, word) {
                    found.picks_rows.get_or_insert_with(|| construct.to_owned());
                }
            }
        }
        found
    }

    /// Takes in what another text names.
    pub(crate) fn extend(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.names.extend(other.names);
        self.operators.extend(other.operators);
        self.statement |= other.statement;
        if self.picks_rows.is_none() {
            self.picks_rows = other.picks_rows;
        }
    }
}

/// The construct that a key word begins, where each statement would pick rows by it anew.
fn construct(pieces: &[Piece], at: usize, word: &str) -> Option<&'static str> {
    let before = at.checked_sub(1).and_then(|place| pieces.get(place));
    if before.is_some_and(|before| before.is_word("as") || before.is_symbol('.')) {
        return None;
    }
    let next = pieces.get(at + 1);
    match word {
        "limit" => Some("LIMIT"),
        "offset" => Some("OFFSET"),
        "fetch" => Some("FETCH"),
        "tablesample" => Some("TABLESAMPLE"),
        "over" if before.is_some_and(|before| before.kind == PieceKind::Close) => Some("a window function"),
        "distinct" if next.is_some_and(|next| next.is_word("on")) => Some("DISTINCT ON"),
        _ => None,
    }
}

/// Runs of operator characters, cut as the server's scanner cuts them.
fn operators(pieces: &[Piece]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (mut run, mut end) = (String::new(), 0);
    for piece in pieces {
        let symbol = match piece.kind {
            PieceKind::Symbol(symbol) if "+-*/<>=~!@#%^&|`?".contains(symbol) => Some(symbol),
            _ => None,
        };
        if !run.is_empty() && (symbol.is_none() || piece.start != end) {
            note(&mut found, &run);
            run.clear();
        }
        run.extend(symbol);
        end = piece.end;
    }
    note(&mut found, &run);
    found
}

/// A `+` or `-` ends an operator only where a character of it says that it is none of standard SQL.
fn note(found: &mut BTreeSet<String>, run: &str) {
    if run.is_empty() {
        return;
    }
    found.insert(run.to_owned());
    if !run.contains(|symbol| "~!@#%^&|`?".contains(symbol)) {
        let cut = run.trim_end_matches(['+', '-']);
        found.extend([cut, "+", "-"].into_iter().filter(|operator| !operator.is_empty()).map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_before_brackets_are_calls() {
        let found =
            Mentions::of("a.Left(\"My Fn\" (1), 'no(1)') || x.rnd and /* n( */ b in (1) and \"q\" = $$ z(1) $$");
        for name in ["left", "My Fn", "in"] {
            assert!(found.calls.contains(name), "{name}: {found:?}");
        }
        for name in ["no", "n", "z", "rnd", "a"] {
            assert!(!found.calls.contains(name), "{name}: {found:?}");
        }
        assert!(found.names.contains("rnd") && found.operators.contains("||"), "{found:?}");
        assert!(!found.statement && found.picks_rows.is_none(), "{found:?}");
    }

    #[test]
    fn operators_are_cut_as_the_server_cuts_them() {
        let found = operators(&pieces("a <-1 and b ===  c and d @-@ e and f +/**/- g and h*-2"));
        for operator in ["<", "===", "@-@", "+", "-", "*"] {
            assert!(found.contains(operator), "{operator}: {found:?}");
        }
    }

    #[test]
    fn what_picks_rows_is_seen() {
        for (text, what) in [
            ("id in (select id from t limit 5)", "LIMIT"),
            ("select id from t offset 1 rows", "OFFSET"),
            ("select id from t fetch first row only", "FETCH"),
            ("select id from t tablesample system (1)", "TABLESAMPLE"),
            ("select row_number() over () from t", "a window function"),
            ("select sum(id) over w from t window w as ()", "a window function"),
            ("select distinct on (id) id from t", "DISTINCT ON"),
            ("select current_date", "the clock current_date"),
            ("select U&\"\\0072andom\"()", "a name in Unicode escapes"),
        ] {
            assert_eq!(Mentions::of(text).picks_rows.as_deref(), Some(what), "{text}");
        }
        for text in ["select t.limit, 1 as offset, over, distinct_on from t", "a is distinct from 1 and over > 1"] {
            assert_eq!(Mentions::of(text).picks_rows, None, "{text}");
        }
    }
}
