//! What a person's text says by itself: how many statements it is, in which format it wants its answer, which settings it
//! changes, and whether it can stand between parentheses of ours. ClickHouse's own tokens, and no grammar beyond them.

use std::ops::Range;

use super::super::{SourceError, SourceFault};

/// One token that is neither a space nor a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SqlToken {
    /// A name or a keyword.
    Word(String),
    /// A name in quotes.
    Quoted(String),
    /// A string or a heredoc.
    Text,
    Number(String),
    Open(char),
    Close(char),
    /// Anything else.
    Sign(char),
}

impl SqlToken {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

/// What a statement says of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatementSays {
    /// The format behind its last FORMAT.
    pub format: Option<String>,
    /// The names of the settings at its end, before and behind FORMAT.
    pub settings: Vec<String>,
    /// The text, up to its last token that is no semicolon.
    end: usize,
}

impl StatementSays {
    /// Whether there is nothing but spaces and comments.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }
}

/// Settings that a statement may not have: each lets an answer be short, or have an error among its rows, as if it were
/// whole.
const REFUSED: [&str; 3] =
    ["http_write_exception_in_output_format", "partial_result_on_first_cancel", "skip_unavailable_shards"];

/// Reads one whole statement.
///
/// # Errors
/// It is not one, or it has what no statement may have here.
pub(crate) fn statement(text: &str) -> Result<StatementSays, String> {
    let tokens = tokens(text)?;
    let end = tokens.iter().rposition(|(token, _)| *token != SqlToken::Sign(';')).map_or(0, |at| at + 1);
    let end_of_text = end.checked_sub(1).and_then(|at| tokens.get(at)).map_or(0, |(_, end)| *end);
    let tokens: Vec<SqlToken> = tokens.into_iter().take(end).map(|(token, _)| token).collect();
    let depths = depths(&tokens)?;
    if tokens.contains(&SqlToken::Sign(';')) {
        return Err("it has more than one statement".to_owned());
    }
    refuse(&tokens, &depths)?;
    let top = |at: usize| depths.get(at) == Some(&0);
    let mut says = StatementSays { end: end_of_text, ..StatementSays::default() };
    let mut before = tokens.len();
    for at in (1..tokens.len()).rev().filter(|at| top(*at)) {
        let Some((format, settings)) = format_at(&tokens, at) else { continue };
        let second = at.checked_sub(2).filter(|second| *second > 0 && top(*second));
        if second.is_some_and(|second| tokens.get(second).is_some_and(|token| token.is_word("FORMAT"))) {
            return Err("it has two FORMATs".to_owned());
        }
        (says.format, says.settings, before) = (Some(format), settings, at);
        break;
    }
    let clause = (1..before).rev().filter(|at| top(*at)).find_map(|at| {
        tokens.get(at).filter(|token| token.is_word("SETTINGS"))?;
        settings_of(tokens.get(at + 1..before)?)
    });
    says.settings.splice(0..0, clause.unwrap_or_default());
    Ok(says)
}

/// A text that can stand between parentheses on lines of its own, without the semicolon at its end.
///
/// # Errors
/// [`SourceFault::Usage`]: it cannot. `what` is the flag that it is of.
pub(crate) fn check<'a>(what: &str, text: &'a str) -> Result<&'a str, SourceError> {
    let usage = |why: String| SourceError::new(SourceFault::Usage, format!("{what}: {why}"));
    let says = statement(text).map_err(usage)?;
    if says.is_empty() {
        return Err(usage("it is empty".to_owned()));
    }
    match says.format {
        Some(format) => Err(usage(format!("it has FORMAT {format}, which cannot stand here")).with_hint(
            "without FORMAT outhaul writes the rows itself; with it, and `--format source`, ClickHouse does",
        )),
        None => Ok(text.get(..says.end).unwrap_or(text)),
    }
}

/// Where `{name}` stands in a text, outside of quotes and comments.
///
/// # Errors
/// The text cannot be taken apart.
pub(crate) fn placeholders(text: &str, name: &str) -> Result<Vec<Range<usize>>, String> {
    let tokens = tokens(text)?;
    let written = format!("{{{name}}}");
    let place = |three: &[(SqlToken, usize)]| match three {
        [(SqlToken::Open('{'), open), (word, _), (SqlToken::Close('}'), end)] if word.is_word(name) => {
            let place = open.checked_sub(1)?..*end;
            (text.get(place.clone()) == Some(written.as_str())).then_some(place)
        }
        _ => None,
    };
    Ok(tokens.windows(3).filter_map(place).collect())
}

/// What no statement may have.
fn refuse(tokens: &[SqlToken], depths: &[usize]) -> Result<(), String> {
    let mut settings = false;
    for (at, pair) in tokens.windows(2).enumerate() {
        let [token, next] = pair else { continue };
        settings |= token.is_word("SETTINGS");
        if depths.get(at) == Some(&0) && token.is_word("INTO") && next.is_word("OUTFILE") {
            return Err("INTO OUTFILE writes to a file of the server's client: leave it out".to_owned());
        }
        let name = token.name().unwrap_or_default().to_ascii_lowercase();
        let refused = name.contains("overflow_mode") || REFUSED.contains(&name.as_str());
        let is_off = tokens.get(at + 2) == Some(&SqlToken::Number("0".to_owned()));
        // Switched off they leave nothing out.
        if settings && refused && *next == SqlToken::Sign('=') && !(is_off && REFUSED.contains(&name.as_str())) {
            return Err(format!("it sets {name}, with which an answer may be short and look whole: leave it out"));
        }
    }
    Ok(())
}

/// The format and the settings behind it, where the token at `at` begins a FORMAT that ends the statement.
fn format_at(tokens: &[SqlToken], at: usize) -> Option<(String, Vec<String>)> {
    tokens.get(at).filter(|token| token.is_word("FORMAT"))?;
    // A column of that name.
    if at.checked_sub(1).and_then(|before| tokens.get(before)) == Some(&SqlToken::Sign('.')) {
        return None;
    }
    let format = tokens.get(at + 1)?.name()?.to_owned();
    let settings = match tokens.get(at + 2) {
        None => Vec::new(),
        Some(next) if next.is_word("SETTINGS") => settings_of(tokens.get(at + 3..)?)?,
        Some(_) => return None,
    };
    Some((format, settings))
}

/// The names of `a = 1, b.c = 'x'`, where that is all.
fn settings_of(tokens: &[SqlToken]) -> Option<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), tokens);
    loop {
        let (first, mut tail) = rest.split_first()?;
        let mut name = first.name()?.to_owned();
        while let [SqlToken::Sign('.'), next, behind @ ..] = tail {
            name = format!("{name}.{}", next.name()?);
            tail = behind;
        }
        let [SqlToken::Sign('='), behind @ ..] = tail else { return None };
        names.push(name);
        rest = after_value(behind)?;
        match rest {
            [] => return Some(names),
            [SqlToken::Sign(','), behind @ ..] => rest = behind,
            _ => return None,
        }
    }
}

/// What follows a setting's value.
fn after_value(tokens: &[SqlToken]) -> Option<&[SqlToken]> {
    let unsigned = match tokens {
        [SqlToken::Sign('-' | '+'), rest @ ..] => rest,
        _ => tokens,
    };
    match unsigned.split_first()? {
        (SqlToken::Open(_), rest) => {
            let mut depth = 1_usize;
            for (at, token) in rest.iter().enumerate() {
                match token {
                    SqlToken::Open(_) => depth += 1,
                    SqlToken::Close(_) => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return rest.get(at + 1..);
                }
            }
            None
        }
        (SqlToken::Text | SqlToken::Number(_) | SqlToken::Word(_), rest) => Some(rest),
        _ => None,
    }
}

/// How many brackets are open at each token.
fn depths(tokens: &[SqlToken]) -> Result<Vec<usize>, String> {
    let mut open = Vec::new();
    let mut depths = Vec::with_capacity(tokens.len());
    for token in tokens {
        match token {
            SqlToken::Open(bracket) => {
                depths.push(open.len());
                open.push(match bracket {
                    '(' => ')',
                    '[' => ']',
                    _ => '}',
                });
            }
            SqlToken::Close(bracket) => {
                if open.pop() != Some(*bracket) {
                    return Err(format!("its {bracket} closes nothing"));
                }
                depths.push(open.len());
            }
            _ => depths.push(open.len()),
        }
    }
    match open.last() {
        Some(bracket) => Err(format!("a {bracket} is missing")),
        None => Ok(depths),
    }
}

/// The names and key words of a text, and `*` where it is there; none where it cannot be read, which is told elsewhere.
pub(super) fn names(text: &str) -> Vec<String> {
    let tokens = tokens(text).unwrap_or_default();
    let name = |token: &SqlToken| match token {
        SqlToken::Sign('*') => Some("*".to_owned()),
        token => token.name().map(str::to_owned),
    };
    tokens.iter().filter_map(|(token, _)| name(token)).collect()
}

/// The names that stand before a bracket, whatever spaces, quotes and comments are about them; none where the text cannot be read.
pub(super) fn calls(text: &str) -> Vec<String> {
    let tokens = tokens(text).unwrap_or_default();
    let call = |pair: &[(SqlToken, usize)]| match pair {
        [(called, _), (SqlToken::Open('('), _)] => called.name().map(str::to_owned),
        _ => None,
    };
    tokens.windows(2).filter_map(call).collect()
}

/// The tokens, each with the byte at which it ends.
fn tokens(text: &str) -> Result<Vec<(SqlToken, usize)>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let behind = rest.get(character.len_utf8()..).unwrap_or_default();
        let token;
        (token, rest) = match character {
            _ if character.is_whitespace() || character == '\u{feff}' => (None, behind),
            '\0' => return Err("it has a NUL character".to_owned()),
            '-' if behind.starts_with('-') => (None, behind_line(behind)),
            '#' if behind.starts_with([' ', '!']) => (None, behind_line(behind)),
            '/' if behind.starts_with('*') => {
                let end = behind.get(1..).and_then(|comment| comment.split_once("*/"));
                (None, end.ok_or("a comment has no end")?.1)
            }
            '\'' => (Some(SqlToken::Text), quoted(behind, '\'')?.1),
            // Word processors write these, and the server takes them.
            '‘' => (Some(SqlToken::Text), behind.split_once('’').ok_or("a string has no end")?.1),
            '“' => named(behind.split_once('”').ok_or("a quoted name has no end")?),
            '"' | '`' => {
                let (name, rest) = quoted(behind, character)?;
                (Some(SqlToken::Quoted(name)), rest)
            }
            '$' => dollar(rest)?,
            '(' | '[' | '{' => (Some(SqlToken::Open(character)), behind),
            ')' | ']' | '}' => (Some(SqlToken::Close(character)), behind),
            '0'..='9' => number(rest),
            _ if is_of_word(character) => word(rest),
            _ => (Some(SqlToken::Sign(character)), behind),
        };
        tokens.extend(token.map(|token| (token, text.len() - rest.len())));
    }
    Ok(tokens)
}

fn named<'a>((name, rest): (&str, &'a str)) -> (Option<SqlToken>, &'a str) {
    (Some(SqlToken::Quoted(name.to_owned())), rest)
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

fn word(text: &str) -> (Option<SqlToken>, &str) {
    let end = text.find(|character| !is_of_word(character)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (Some(SqlToken::Word(word.to_owned())), rest)
}

fn behind_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

fn number(text: &str) -> (Option<SqlToken>, &str) {
    let rest = behind_number(text);
    let digits = text.strip_suffix(rest).unwrap_or(text);
    (Some(SqlToken::Number(digits.to_owned())), rest)
}

/// `1.5e-7`, `0x1F`, `1_000`.
fn behind_number(text: &str) -> &str {
    let mut before = ' ';
    let end = text.find(|character: char| {
        let signed = matches!(character, '+' | '-') && matches!(before, 'e' | 'E') && !text.starts_with("0x");
        before = character;
        !(character.is_ascii_alphanumeric() || matches!(character, '_' | '.') || signed)
    });
    text.get(end.unwrap_or(text.len())..).unwrap_or_default()
}

/// `$tag$ … $tag$`, or a word.
fn dollar(text: &str) -> Result<(Option<SqlToken>, &str), String> {
    let inner = text.get(1..).unwrap_or_default();
    let length = inner.find(|character: char| !(character.is_alphanumeric() || character == '_'));
    let tag = length.and_then(|length| inner.split_at_checked(length)).filter(|(_, rest)| rest.starts_with('$'));
    match tag {
        Some((tag, rest)) => {
            let closing = format!("${tag}$");
            let content = rest.get(1..).unwrap_or_default();
            let (_, rest) = content.split_once(&closing).ok_or("a heredoc has no end")?;
            Ok((Some(SqlToken::Text), rest))
        }
        None => Ok(word(text)),
    }
}

/// What stands between quotes, the first of which is read: a backslash and a doubled quote take the next character with them.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut content = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            content.extend(characters.next().map(|(_, escaped)| escaped));
        } else if character == quote {
            let rest = text.get(at + quote.len_utf8()..).unwrap_or_default();
            if !rest.starts_with(quote) {
                return Ok((content, rest));
            }
            content.push(quote);
            characters.next();
        } else {
            content.push(character);
        }
    }
    Err(format!("a {quote} is missing"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        sql: String,
        format: Option<String>,
        settings: Option<Vec<String>>,
    }

    #[test]
    fn a_trailing_format_is_what_the_page_finds_too() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/cases/trailing_format.json")).unwrap();
        assert!(cases.len() > 70);
        for Case { sql, format, settings } in cases {
            let says = statement(&sql);
            assert_eq!(says.clone().ok().and_then(|says| says.format), format, "{sql}: {says:?}");
            if let Some(settings) = settings {
                assert_eq!(says.unwrap().settings, settings, "{sql}");
            }
        }
    }

    #[test]
    fn what_makes_short_answers_look_whole_is_refused() {
        for sql in [
            "SELECT 1 SETTINGS result_overflow_mode = 'break'",
            "SELECT 1 FORMAT CSV SETTINGS max_threads = 1, timeout_overflow_mode='break'",
            "SELECT * FROM (SELECT 1 SETTINGS `Read_Overflow_Mode` = 'break') FORMAT CSV",
            "SELECT 1 SETTINGS http_write_exception_in_output_format = 1 FORMAT JSON",
            "SELECT 1 SETTINGS skip_unavailable_shards = 1",
            "SELECT 1 SETTINGS skip_unavailable_shards = 0.5",
            "SELECT 1 INTO OUTFILE 'x' FORMAT CSV",
        ] {
            assert!(statement(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT a_overflow_mode = 1 FROM t",
            "SELECT 'SETTINGS result_overflow_mode=1'",
            "SELECT 1 AS into",
            "SELECT 1 FORMAT CSV SETTINGS skip_unavailable_shards = 0, max_threads = 1",
        ] {
            assert!(statement(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn a_text_between_parentheses_is_closed_and_alone() {
        assert_eq!(check("--query", "SELECT 1 ; -- the end").unwrap(), "SELECT 1");
        assert_eq!(check("--where", "a = ';' AND b IN (1, 2) -- )").unwrap(), "a = ';' AND b IN (1, 2)");
        for text in ["", "  ", ";", "1) OR (1", "a = '", "1; SELECT 2", "SELECT 1 FORMAT CSV", "a /* b"] {
            let error = check("--where", text).unwrap_err();
            assert!(error.fault == SourceFault::Usage && error.message.starts_with("--where: "), "{text}: {error}");
        }
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn no_text_is_too_much(text in "[a-z'\"`$();\\\\\\[{}\\]/*# \n=,.é‘’0-9-]{0,60}") {
            if let Ok(says) = statement(&text) {
                prop_assert!(text.is_char_boundary(says.end));
            }
        }
    }
}
