//! The texts of keys, byte for byte: a `SQL_ASCII` database holds bytes that are not UTF-8, and a key that is not the one
//! that was read would lose rows or repeat them.
//!
//! A byte that belongs to no character stands as one of the last 128 characters of Unicode, which are for private use; such
//! a character itself stands as its bytes, so that no two texts share a form.

use std::fmt::Write;

/// The character of byte 0; only bytes from 0x80 on have one.
const BYTES: u32 = 0x10_FF00;

/// Takes the bytes of a text as they are stored.
pub(crate) fn kept(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match byte(letter) {
                None => text.push(letter),
                Some(_) => text.extend(letter.encode_utf8(&mut [0; 4]).bytes().filter_map(mark)),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(mark));
    }
    text
}

/// The text for people, with U+FFFD for each byte that belongs to no character.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|letter| byte(letter).map_or(letter, |_| char::REPLACEMENT_CHARACTER)).collect()
}

/// A string literal that stands for the bytes; none where all of them are characters, and any literal does.
pub(crate) fn literal(text: &str) -> Option<String> {
    if !text.chars().any(|letter| byte(letter).is_some()) {
        return None;
    }
    let mut literal = String::with_capacity(text.len() + 4);
    literal.push_str("E'");
    for letter in text.chars() {
        match (byte(letter), letter) {
            // Writing to a string cannot fail.
            (Some(byte), _) => drop(write!(literal, "\\x{byte:02x}")),
            (None, '\'' | '\\') => literal.extend([letter, letter]),
            (None, _) => literal.push(letter),
        }
    }
    literal.push('\'');
    Some(literal)
}

fn mark(byte: u8) -> Option<char> {
    char::from_u32(BYTES + u32::from(byte)).filter(|_| !byte.is_ascii())
}

fn byte(letter: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(letter).checked_sub(BYTES)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_character_is_kept_as_its_byte() {
        let text = kept(b"caf\xe9 \xc3\xa9\\'");
        assert_eq!(shown(&text), "caf\u{fffd} é\\'");
        assert_eq!(literal(&text).as_deref(), Some(r"E'caf\xe9 é\\'''"));
        assert_eq!((kept("é".as_bytes()), literal("é'")), ("é".to_owned(), None));
        assert_eq!(literal(&kept("\u{10ff80}".as_bytes())).as_deref(), Some(r"E'\xf4\x8f\xbe\x80'"));
    }

    /// What the server makes of it.
    fn stored(text: &str) -> Vec<u8> {
        let mut letter = [0; 4];
        let of = |c: char| byte(c).map_or_else(|| c.encode_utf8(&mut letter).as_bytes().to_vec(), |byte| vec![byte]);
        text.chars().flat_map(of).collect()
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(stored(&kept(&bytes)), bytes);
        }

        #[test]
        fn any_text_comes_back(text in "[\u{10ff70}-\u{10ffff}a\u{e9}]{0,9}") {
            prop_assert_eq!(stored(&kept(text.as_bytes())), text.as_bytes());
        }
    }
}
