//! The clocks in a text of SQL: what tells when the transaction or the statement began, which is another time in each
//! session.

pub(crate) mod special;

use chrono::{DateTime, Utc};

use self::special::is_special_time;
use super::pieces::{Piece, PieceKind, pieces};

/// Functions without arguments; all the same time to a session that runs one statement in its transaction.
const FUNCTIONS: [&str; 3] = ["now", "transaction_timestamp", "statement_timestamp"];

/// Key words, and the type of each.
const WORDS: [(&str, &str); 5] = [
    ("current_date", "date"),
    ("current_time", "timetz"),
    ("current_timestamp", "timestamptz"),
    ("localtime", "time"),
    ("localtimestamp", "timestamp"),
];

/// A clock that is asked in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    /// Its name, which names the output column too.
    name: String,
    /// The type of its value.
    type_name: &'static str,
    /// The digits of its precision, where one is given.
    precision: Option<String>,
    /// Whether the search path decides what it is.
    by_path: bool,
    /// Whether the text around it may take its name from it.
    names_column: bool,
    start: usize,
    end: usize,
}

/// The clocks of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clocks {
    calls: Vec<Call>,
    /// A constant that is read as a time, as it is written.
    constant: Option<String>,
}

impl Clocks {
    /// Finds them.
    pub(crate) fn of(text: &str) -> Self {
        let pieces = pieces(text);
        let mut found = Self { constant: special_constant(&pieces, text), ..Self::default() };
        let mut context = Context::default();
        for at in 0..pieces.len() {
            context.see(&pieces, at);
            found.calls.extend(call(&pieces, at, text, context.names_column(&pieces, at)));
        }
        found
    }

    /// One that each session answers for itself, in words.
    pub(crate) fn first(&self) -> Option<String> {
        let constant = self.constant.as_ref().map(|text| format!("the time {text}"));
        constant.or_else(|| self.calls.first().map(|call| format!("the clock {}", call.name)))
    }

    /// Whether a literal can stand in place of each.
    pub(crate) fn can_be_fixed(&self) -> bool {
        !self.calls.is_empty() && self.constant.is_none()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.constant.is_none()
    }

    /// Names of functions that the search path must find in `pg_catalog`.
    pub(crate) fn by_path(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter(|call| call.by_path).map(|call| call.name.as_str())
    }
}

/// The text with a literal of the moment `at` in place of each clock. Sessions have UTC as their time zone.
pub(crate) fn fix(text: &str, at: DateTime<Utc>) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut done = 0;
    for call in Clocks::of(text).calls {
        fixed.push_str(&text[done..call.start]);
        fixed.push_str(&literal(&call, at));
        done = call.end;
    }
    fixed.push_str(&text[done..]);
    fixed
}

fn literal(call: &Call, at: DateTime<Utc>) -> String {
    let written = match call.type_name {
        "date" => "%Y-%m-%d",
        "time" => "%H:%M:%S%.6f",
        "timetz" => "%H:%M:%S%.6f+00",
        "timestamp" => "%Y-%m-%d %H:%M:%S%.6f",
        _ => "%Y-%m-%d %H:%M:%S%.6f+00",
    };
    let precision = call.precision.as_ref().map_or(String::new(), |digits| format!("({digits})"));
    let cast = format!("CAST('{}' AS pg_catalog.{}{precision})", at.format(written), call.type_name);
    // A cast would name an output column by its type.
    if call.names_column { format!("(SELECT {cast} AS \"{}\")", call.name) } else { cast }
}

/// The clock that is asked at a piece.
fn call(pieces: &[Piece], at: usize, text: &str, names_column: bool) -> Option<Call> {
    let piece = pieces.get(at)?;
    let PieceKind::Word(name) = &piece.kind else { return None };
    let before = |back: usize| at.checked_sub(back).and_then(|place| pieces.get(place));
    if before(1).is_some_and(|before| before.is_word("as")) {
        return None;
    }
    let after_dot = before(1).is_some_and(|before| before.is_symbol('.'));
    let opens = |place: usize| pieces.get(place).is_some_and(|piece| piece.kind == PieceKind::Open);
    let closes = |place: usize| pieces.get(place).is_some_and(|piece| piece.kind == PieceKind::Close);
    let made = |type_name, precision, by_path, start, last: usize| {
        let end = pieces.get(last)?.end;
        Some(Call { name: name.clone(), type_name, precision, by_path, names_column, start, end })
    };
    if FUNCTIONS.contains(&name.as_str()) && opens(at + 1) && closes(at + 2) {
        let ours = before(2).is_some_and(|schema| schema.name() == Some("pg_catalog"))
            && !before(3).is_some_and(|before| before.is_symbol('.'));
        return match (after_dot, ours, before(2)) {
            (false, _, _) => made("timestamptz", None, true, piece.start, at + 2),
            (true, true, Some(schema)) => made("timestamptz", None, false, schema.start, at + 2),
            // Another schema's.
            _ => None,
        };
    }
    let (_, type_name) = WORDS.iter().find(|(word, _)| word == name)?;
    if after_dot {
        return None;
    }
    let digits = (at + 2..pieces.len())
        .take_while(|place| matches!(pieces[*place].kind, PieceKind::Symbol(digit) if digit.is_ascii_digit()));
    match digits.last() {
        Some(last) if *type_name != "date" && opens(at + 1) && closes(last + 1) => {
            let precision = text[pieces[at + 2].start..pieces[last].end].to_owned();
            made(type_name, Some(precision), false, piece.start, last + 1)
        }
        _ => made(type_name, None, false, piece.start, at),
    }
}

/// A constant that the server may read as a time by its clock, as it is written; alone or joined to others by `||`.
fn special_constant(pieces: &[Piece], text: &str) -> Option<String> {
    let mut joined: Option<(String, usize)> = None;
    let mut bars = 0;
    for (at, piece) in pieces.iter().enumerate() {
        let after_colon = at.checked_sub(1).is_some_and(|before| pieces[before].is_symbol(':'));
        match &piece.kind {
            // Brackets and casts may stand around what is joined.
            PieceKind::Open | PieceKind::Close | PieceKind::Symbol(':') => {}
            PieceKind::Word(_) | PieceKind::Quoted(_) if after_colon => {}
            PieceKind::Symbol('|') => bars += 1,
            PieceKind::Text(constant) => {
                let content = constant.content();
                let (whole, start) = match joined.take() {
                    Some((before, start)) if bars == 2 => (before + &content, start),
                    _ => (content.clone(), piece.start),
                };
                if is_special_time(&content) || is_special_time(&whole) {
                    return text.get(start..piece.end).map(str::to_owned);
                }
                (joined, bars) = (Some((whole, start)), 0);
            }
            _ => (joined, bars) = (None, 0),
        }
    }
    None
}

/// The clause of a statement that a piece stands in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Clause {
    /// The list after SELECT, whose expressions name columns.
    List,
    /// FROM, where a function names a table.
    From,
    #[default]
    Other,
}

/// Where a piece stands, bracket by bracket.
#[derive(Debug, Default)]
struct Context {
    clause: Clause,
    /// Whether the innermost brackets hold a statement.
    statement: bool,
    outer: Vec<(Clause, bool)>,
}

impl Context {
    fn see(&mut self, pieces: &[Piece], at: usize) {
        let before = at.checked_sub(1).and_then(|place| pieces.get(place));
        let follows = |word: &str| before.is_some_and(|before| before.is_word(word));
        let labelled = follows("as") || before.is_some_and(|before| before.is_symbol('.'));
        match pieces.get(at).map(|piece| &piece.kind) {
            Some(PieceKind::Open) => {
                self.outer.push((self.clause, self.statement));
                self.statement = false;
            }
            Some(PieceKind::Close) => (self.clause, self.statement) = self.outer.pop().unwrap_or_default(),
            Some(PieceKind::Word(word)) if !labelled => match word.as_str() {
                "select" => (self.clause, self.statement) = (Clause::List, true),
                "from" if self.statement && !follows("distinct") => self.clause = Clause::From,
                "group" if follows("within") => {}
                "where" | "group" | "having" | "window" | "order" | "limit" | "offset" | "fetch" | "for" | "union"
                | "intersect" | "except"
                    if self.statement =>
                {
                    self.clause = Clause::Other;
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn names_column(&self, pieces: &[Piece], at: usize) -> bool {
        match self.clause {
            Clause::List => true,
            Clause::Other => false,
            // As a table rather than in a condition.
            Clause::From => at.checked_sub(1).and_then(|place| pieces.get(place)).is_some_and(|before| {
                before.kind == PieceKind::Open
                    || before.is_symbol(',')
                    || before.is_symbol('.')
                    || ["from", "join", "lateral"].iter().any(|word| before.is_word(word))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
