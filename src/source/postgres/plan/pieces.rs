//! A text of SQL as the pieces that the server's scanner makes of it, with the names and constants that they stand for.

use super::constant::{Constant, Form};
use super::lexer::{Lexer, NAME_BYTES_MAX, Token};

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// A key word or a name without quotes, in lower case.
    Word(String),
    /// A name in double quotes, without them; `None` where it is written in Unicode escapes.
    Quoted(Option<String>),
    /// A string constant.
    Text(Constant),
    /// `(` or `[`.
    Open,
    /// `)` or `]`.
    Close,
    /// A character of an operator, a digit, a comma, a dot, …
    Symbol(char),
}

/// A piece and the bytes it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: PieceKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Piece {
    /// Whether it is this key word.
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, PieceKind::Word(found) if found == word)
    }

    pub(super) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == PieceKind::Symbol(symbol)
    }

    /// The name that it is, as the server folds it.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.kind {
            PieceKind::Word(name) | PieceKind::Quoted(Some(name)) => Some(name),
            _ => None,
        }
    }
}

fn truncated(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// The pieces of a text; those before the first misfit, where it has one.
pub(super) fn pieces(text: &str) -> Vec<Piece> {
    let mut lexer = Lexer::new(text);
    let mut pieces: Vec<Piece> = Vec::new();
    while let Ok(Some(lexeme)) = lexer.next() {
        let slice = &text[lexeme.start..lexeme.end];
        let kind = match lexeme.token {
            Token::Word => PieceKind::Word(truncated(&slice.to_ascii_lowercase())),
            Token::Open(_) => PieceKind::Open,
            Token::Close(_) => PieceKind::Close,
            Token::Semicolon => PieceKind::Symbol(';'),
            Token::Other => other(slice),
        };
        // Constants side by side are one constant that goes on in the next line.
        if let (PieceKind::Text(next), Some(Piece { kind: PieceKind::Text(last), end, .. })) =
            (&kind, pieces.last_mut())
        {
            last.written.push_str(&next.written);
            *end = lexeme.end;
            continue;
        }
        if let PieceKind::Text(constant) = &kind
            && takes_escape(&mut pieces, &constant.written, lexeme.end)
        {
            continue;
        }
        pieces.push(Piece { kind, start: lexeme.start, end: lexeme.end });
    }
    pieces
}

/// Takes `UESCAPE 'c'` into the constant that it stands behind.
fn takes_escape(pieces: &mut Vec<Piece>, written: &str, until: usize) -> bool {
    let mut letters = written.chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else { return false };
    let [.., Piece { kind: PieceKind::Text(constant), end, .. }, word] = pieces.as_mut_slice() else { return false };
    let Form::Unicode(escape) = &mut constant.form else { return false };
    if !word.is_word("uescape") {
        return false;
    }
    (*escape, *end) = (letter, until);
    pieces.pop();
    true
}

fn other(slice: &str) -> PieceKind {
    let first = slice.chars().next().unwrap_or(' ');
    let within = |prefix: usize| slice.get(prefix..slice.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let text = |prefix, form| PieceKind::Text(Constant { written: within(prefix), form });
    match first.to_ascii_lowercase() {
        '\'' => text(1, Form::Plain),
        '"' => PieceKind::Quoted(Some(truncated(&within(1).replace("\"\"", "\"")))),
        '$' if slice.len() > 1 => {
            let tag = slice[1..].find('$').map_or(slice.len(), |end| end + 2);
            let written = slice.get(tag..slice.len().saturating_sub(tag)).unwrap_or_default().to_owned();
            PieceKind::Text(Constant { written, form: Form::Dollar })
        }
        'e' if slice.len() > 2 => text(2, Form::Backslash),
        'n' if slice.len() > 2 => text(2, Form::Plain),
        'u' if slice.ends_with('\'') => text(3, Form::Unicode('\\')),
        'u' if slice.ends_with('"') => PieceKind::Quoted(None),
        // Bits, which are no text.
        'b' | 'x' if slice.len() > 2 => PieceKind::Symbol('0'),
        _ => PieceKind::Symbol(first),
    }
}
