//! Counts with their nouns, for people.

use std::fmt::Display;

/// Names that an error lists before it says how many more there are: a screenful.
pub(crate) const NAMES_IN_ERROR_MAX: usize = 40;

/// `1 row`, `2 rows`.
pub(crate) fn counted<T: Display + PartialEq + From<u8> + Copy>(number: T, noun: &str) -> String {
    format!("{number} {}", plural(number, noun))
}

/// The noun behind a count: `row`, `rows`.
pub(crate) fn plural<T: PartialEq + From<u8> + Copy>(number: T, noun: &str) -> String {
    let ending = if number == T::from(1) { "" } else { "s" };
    format!("{noun}{ending}")
}

/// The first of some names, and how many more there are.
pub(crate) fn first_of<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_IN_ERROR_MAX).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A key value as people read it, for example `7`, `(7, NULL)`.
pub(crate) fn key_words(value: &[Option<String>]) -> String {
    let values: Vec<&str> = value.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    tuple_words(&values)
}

/// Values as a tuple; a single one by itself.
pub(crate) fn tuple_words(values: &[&str]) -> String {
    match values {
        [one] => (*one).to_owned(),
        several => format!("({})", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_nothing_else_is() {
        assert_eq!(
            [counted(0_u64, "row"), counted(1_usize, "row"), counted(21_i64, "row")],
            ["0 rows", "1 row", "21 rows"]
        );
    }
}
