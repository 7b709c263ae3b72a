//! String constants of SQL: what the server makes of the characters between their quotes.

/// What stands for other characters in a string constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `$$…$$`: nothing.
    Dollar,
    /// `'…'`: two quotes, for one.
    Plain,
    /// `E'…'`: a backslash too.
    Backslash,
    /// `U&'…'`: this character too, before the number of another.
    Unicode(char),
}

/// A string constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constant {
    /// What stands between its quotes.
    pub(super) written: String,
    pub(super) form: Form,
}

impl Constant {
    /// The text that the server reads.
    pub(super) fn content(&self) -> String {
        match self.form {
            Form::Dollar => self.written.clone(),
            Form::Plain => self.written.replace("''", "'"),
            Form::Backslash => backslashed(&self.written),
            Form::Unicode(escape) => numbered(&self.written.replace("''", "'"), escape),
        }
    }
}

fn backslashed(written: &str) -> String {
    let mut content = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\\' => rest = escaped(rest, &mut content),
            '\'' => match rest.strip_prefix('\'') {
                Some(after) => {
                    content.push('\'');
                    rest = after;
                }
                None => rest = continued(rest),
            },
            _ => content.push(letter),
        }
    }
    content
}

/// Reads what follows a backslash; gives what is left.
fn escaped<'a>(rest: &'a str, content: &mut String) -> &'a str {
    let Some(letter) = rest.chars().next() else { return rest };
    let after = &rest[letter.len_utf8()..];
    let (digits, radix, most) = match letter {
        'x' => (after, 16, 2),
        'u' => (after, 16, 4),
        'U' => (after, 16, 8),
        '0'..='7' => (rest, 8, 3),
        _ => {
            content.push(match letter {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'f' => '\u{c}',
                'b' => '\u{8}',
                other => other,
            });
            return after;
        }
    };
    let length = digits.bytes().take(most).take_while(|digit| char::from(*digit).is_digit(radix)).count();
    content.push(character(&digits[..length], radix));
    &digits[length..]
}

/// What follows the quotes between two lines of one constant: blanks, comments, and the quote of the next line.
fn continued(rest: &str) -> &str {
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
        match rest.strip_prefix("--") {
            Some(comment) => rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]),
            None => return rest.strip_prefix('\'').unwrap_or(rest),
        }
    }
}

fn numbered(written: &str, escape: char) -> String {
    let mut content = String::with_capacity(written.len());
    let mut pieces = written.split(escape);
    content.push_str(pieces.next().unwrap_or_default());
    while let Some(piece) = pieces.next() {
        let (digits, length) = piece.strip_prefix('+').map_or((piece, 4), |digits| (digits, 6));
        if let (Some(number), Some(after)) = (digits.get(..length), digits.get(length..)) {
            content.push(character(number, 16));
            content.push_str(after);
        } else {
            // The escape character twice stands for itself.
            content.push(escape);
            content.push_str(pieces.next().unwrap_or_default());
        }
    }
    content
}

fn character(digits: &str, radix: u32) -> char {
    u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_the_server_reads_them() {
        for (written, form, content) in [
            ("it''s \\x6e", Form::Plain, "it's \\x6e"),
            ("it''s", Form::Dollar, "it''s"),
            ("\\x6eow\\x6", Form::Backslash, "now\u{6}"),
            ("n\\157w\\u0021\\U00000041\\q\\\\\\'''", Form::Backslash, "now!Aq\\''"),
            ("to' -- it's\n\t'd\\141y", Form::Backslash, "today"),
            ("a\\", Form::Backslash, "a"),
            ("\\006eow\\\\ \\+00006E''", Form::Unicode('\\'), "now\\ n'"),
            ("n!006fw\\", Form::Unicode('!'), "now\\"),
            ("nz006fw", Form::Unicode('z'), "now"),
            ("\\d800", Form::Unicode('\\'), "\u{fffd}"),
        ] {
            let constant = Constant { written: written.to_owned(), form };
            assert_eq!(constant.content(), content, "{written}");
        }
    }
}
