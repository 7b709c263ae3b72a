//! Checks of the SQL that people write, so that it can stand inside our statement and end nowhere but where we say.
//!
//! A predicate or expression is sent as `(`, a line end, the text, a line end, `)`. The line ends are why a text may
//! end in a `--` comment: without them the comment would swallow our closing parenthesis. Only the server knows
//! whether the text means anything.

use super::error::{PlanError, SqlFlaw};
use super::lexer::{Lexeme, Lexer, Misfit, Token};

/// Checks `--where`.
///
/// # Errors
/// Where brackets do not match, a string, name or comment stays open, or a semicolon, a parameter or NUL stands in the text.
pub fn check_predicate(text: &str) -> Result<(), PlanError> {
    check_enclosed("--where".to_owned(), text)
}

/// Checks the expression of `--column name=expression`.
///
/// # Errors
/// As [`check_predicate`].
pub fn check_expression(name: &str, text: &str) -> Result<(), PlanError> {
    check_enclosed(format!("--column {name}"), text)
}

/// Where `placeholder`, a word in braces, stands in a condition as code: not in a string, a quoted name or a comment.
///
/// # Errors
/// As [`check_predicate`].
pub(crate) fn placeholders(text: &str, placeholder: &str) -> Result<Vec<usize>, PlanError> {
    let mut lexer = Lexer::new(text);
    let mut places = Vec::new();
    loop {
        let lexeme = lexer.next().map_err(|(at, flaw)| locate("--where".to_owned(), text, at, flaw))?;
        let Some(Lexeme { token, start, .. }) = lexeme else { return Ok(places) };
        if token == Token::Other && text.get(start..).is_some_and(|rest| rest.starts_with(placeholder)) {
            places.push(start);
        }
    }
}

/// Checks `--query`, and gives it back without the semicolon that may end it and without white space around it.
///
/// # Errors
/// As [`check_predicate`]; and where the text does not start with SELECT, WITH, VALUES or TABLE, parentheses before
/// them allowed.
pub fn check_query(text: &str) -> Result<String, PlanError> {
    let located = |(at, flaw)| locate("--query".to_owned(), text, at, flaw);
    let statement = scan(text, Semicolons::AtEnd).map_err(located)?;
    let first = statement.first_word.map(|word| &text[word.start..word.end]);
    let is_query = first
        .is_some_and(|word| ["select", "with", "values", "table"].iter().any(|start| word.eq_ignore_ascii_case(start)));
    if !is_query {
        return Err(located((statement.first, SqlFlaw::NotAQuery)));
    }
    Ok(text[..statement.end].trim().to_owned())
}

fn check_enclosed(what: String, text: &str) -> Result<(), PlanError> {
    match scan(text, Semicolons::Nowhere) {
        Ok(_) => Ok(()),
        Err((at, flaw)) => Err(locate(what, text, at, flaw)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Semicolons {
    Nowhere,
    /// With nothing but white space and comments behind it.
    AtEnd,
}

/// What is known of a text that passed.
#[derive(Debug)]
struct Scanned {
    /// Where its first token starts.
    first: usize,
    /// Its first token but for opening parentheses, if that is a word.
    first_word: Option<Lexeme>,
    /// Where the semicolon that ends it stands, or the text's end.
    end: usize,
}

fn scan(text: &str, semicolons: Semicolons) -> Result<Scanned, Misfit> {
    if let Some(at) = text.find('\0') {
        return Err((at, SqlFlaw::Nul));
    }
    let mut lexer = Lexer::new(text);
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut first = None;
    let mut first_inner = None;
    let mut ended = None;
    while let Some(lexeme) = lexer.next()? {
        let at = lexeme.start;
        if let (Some(end), true) = (ended, lexeme.token != Token::Semicolon) {
            return Err((end, SqlFlaw::Semicolon));
        }
        match lexeme.token {
            Token::Semicolon if semicolons == Semicolons::AtEnd && open.is_empty() && first.is_some() => {
                ended = ended.or(Some(at));
                continue;
            }
            Token::Semicolon => return Err((at, SqlFlaw::Semicolon)),
            Token::Open(bracket) => open.push((at, bracket)),
            Token::Close(bracket) => close(&mut open, at, bracket)?,
            // COPY and the cursor have none, and the server tells of them as of a connection that broke.
            Token::Other if is_parameter(&text[at..]) => return Err((at, SqlFlaw::Parameter)),
            Token::Word | Token::Other => {}
        }
        first = first.or(Some(at));
        if lexeme.token != Token::Open('(') {
            first_inner = first_inner.or(Some(lexeme));
        }
    }
    if let Some((at, bracket)) = open.pop() {
        return Err((at, SqlFlaw::NeverClosed(bracket)));
    }
    let Some(first) = first else {
        return Err((0, SqlFlaw::Empty));
    };
    Ok(Scanned {
        first,
        first_word: first_inner.filter(|lexeme| lexeme.token == Token::Word),
        end: ended.unwrap_or(text.len()),
    })
}

fn is_parameter(rest: &str) -> bool {
    rest.strip_prefix('$').is_some_and(|rest| rest.starts_with(|character: char| character.is_ascii_digit()))
}

fn close(open: &mut Vec<(usize, char)>, at: usize, found: char) -> Result<(), Misfit> {
    let expected = match open.pop() {
        None => return Err((at, SqlFlaw::ClosesNothing(found))),
        Some((_, '(')) => ')',
        Some(_) => ']',
    };
    if found == expected { Ok(()) } else { Err((at, SqlFlaw::ClosesOther { found, expected })) }
}

fn locate(what: String, text: &str, at: usize, flaw: SqlFlaw) -> PlanError {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PlanError::Sql {
        what,
        line: before.matches('\n').count() + 1,
        character: before[line_start..].chars().count() + 1,
        flaw,
    }
}

#[cfg(test)]
mod tests;
