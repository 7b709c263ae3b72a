//! The surface of PostgreSQL's SQL: just enough to know which brackets and semicolons are code.
//!
//! It follows the server's `scan.l` with `standard_conforming_strings = on`, which every session must therefore set.

use super::error::SqlFlaw;

/// Bytes of a name (`NAMEDATALEN` less the byte that ends it); the server leaves out what is beyond them.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// A piece of SQL that is neither white space nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A key word or an unquoted name.
    Word,
    /// `(` or `[`.
    Open(char),
    /// `)` or `]`.
    Close(char),
    /// `;`
    Semicolon,
    /// A string, a quoted name, a number, or a character of an operator.
    Other,
}

/// A token and the bytes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Where a text cannot be cut into tokens, as a byte offset, and why.
pub(super) type Misfit = (usize, SqlFlaw);

/// Cuts a text into tokens; ends at the first misfit.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0 }
    }

    /// The next token, or `None` at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<Lexeme>, Misfit> {
        self.skip_blanks()?;
        let start = self.at;
        let Some(&first) = self.text.get(start) else {
            return Ok(None);
        };
        self.at += 1;
        let token = match first {
            b'(' | b'[' => Token::Open(char::from(first)),
            b')' | b']' => Token::Close(char::from(first)),
            b';' => Token::Semicolon,
            b'\'' => self.string(start, Escapes::None)?,
            b'"' => self.quoted_name(start)?,
            b'$' => self.dollar(start)?,
            _ if starts_name(first) => self.word_or_prefixed(start)?,
            _ => Token::Other,
        };
        Ok(Some(Lexeme { token, start, end: self.at }))
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn looking_at(&self, what: &[u8]) -> bool {
        self.text.get(self.at..).is_some_and(|rest| rest.starts_with(what))
    }

    fn skip_blanks(&mut self) -> Result<(), Misfit> {
        loop {
            if self.looking_at(b"--") {
                self.skip_line_comment();
            } else if self.looking_at(b"/*") {
                self.skip_block_comment()?;
            } else if self.peek(0).is_some_and(is_blank) {
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn skip_line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| !is_newline(byte)) {
            self.at += 1;
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) -> Result<(), Misfit> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            if self.looking_at(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.looking_at(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.at < self.text.len() {
                self.at += 1;
            } else {
                return Err((start, SqlFlaw::OpenComment));
            }
        }
    }

    /// A name, unless it is the prefix of a string: `E'…'`, `N'…'`, `B'…'`, `X'…'`, `U&'…'`, `U&"…"`.
    fn word_or_prefixed(&mut self, start: usize) -> Result<Token, Misfit> {
        while self.peek(0).is_some_and(continues_name) {
            self.at += 1;
        }
        if self.at - start > 1 {
            return Ok(Token::Word);
        }
        match self.text[start].to_ascii_lowercase() {
            b'e' if self.looking_at(b"'") => {
                self.at += 1;
                self.string(start, Escapes::Backslash)
            }
            b'n' | b'b' | b'x' if self.looking_at(b"'") => {
                self.at += 1;
                self.string(start, Escapes::None)
            }
            b'u' if self.looking_at(b"&'") => {
                self.at += 2;
                self.string(start, Escapes::None)
            }
            b'u' if self.looking_at(b"&\"") => {
                self.at += 2;
                self.quoted_name(start)
            }
            _ => Ok(Token::Word),
        }
    }

    /// The rest of a string whose opening quote has been read.
    fn string(&mut self, start: usize, escapes: Escapes) -> Result<Token, Misfit> {
        loop {
            match self.peek(0) {
                None => return Err((start, SqlFlaw::OpenString)),
                Some(b'\\') if escapes == Escapes::Backslash => self.at += 2,
                Some(b'\'') if self.peek(1) == Some(b'\'') => self.at += 2,
                Some(b'\'') => {
                    self.at += 1;
                    // Only an E'…' has to care: the continuation keeps its backslashes.
                    match self.continuation() {
                        Some(resumed) if escapes == Escapes::Backslash => self.at = resumed,
                        _ => return Ok(Token::Other),
                    }
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Two strings with a line end between them are one. Gives the offset after the second one's opening quote.
    fn continuation(&self) -> Option<usize> {
        let mut ahead = Self { text: self.text, at: self.at };
        let mut lines = 0_usize;
        loop {
            match ahead.peek(0)? {
                b'\'' if lines > 0 => return Some(ahead.at + 1),
                byte if is_newline(byte) => {
                    lines += 1;
                    ahead.at += 1;
                }
                byte if is_blank(byte) => ahead.at += 1,
                _ if ahead.looking_at(b"--") => ahead.skip_line_comment(),
                _ => return None,
            }
        }
    }

    /// The rest of a quoted name whose opening quote has been read.
    fn quoted_name(&mut self, start: usize) -> Result<Token, Misfit> {
        loop {
            match self.peek(0) {
                None => return Err((start, SqlFlaw::OpenName)),
                Some(b'"') if self.peek(1) == Some(b'"') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Token::Other);
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// After a `$`: a dollar-quoted string, or else just the sign (of a parameter, say).
    fn dollar(&mut self, start: usize) -> Result<Token, Misfit> {
        let mut tag_end = self.at;
        if self.peek(0).is_some_and(starts_name) {
            while self.text.get(tag_end).is_some_and(|byte| continues_name(*byte) && *byte != b'$') {
                tag_end += 1;
            }
        }
        if self.text.get(tag_end) != Some(&b'$') {
            return Ok(Token::Other);
        }
        let delimiter = &self.text[start..=tag_end];
        let body = tag_end + 1;
        let length = self.text[body..].windows(delimiter.len()).position(|window| window == delimiter);
        match length {
            Some(length) => {
                self.at = body + length + delimiter.len();
                Ok(Token::Other)
            }
            None => Err((start, SqlFlaw::OpenDollarQuote(String::from_utf8_lossy(delimiter).into_owned()))),
        }
    }
}

/// Whether a backslash takes the next character's meaning away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// PostgreSQL's white space. Vertical tab is an error to servers before 16, so it can split nothing there.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Every byte outside ASCII is a letter to PostgreSQL.
fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn continues_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}
