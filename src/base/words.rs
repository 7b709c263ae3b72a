//! Counts with their nouns, for people.

use std::fmt::Display;

/// `1 row`, `2 rows`.
pub(crate) fn counted<T: Display + PartialEq + From<u8> + Copy>(number: T, noun: &str) -> String {
    format!("{number} {}", plural(number, noun))
}

/// The noun behind a count: `row`, `rows`.
pub(crate) fn plural<T: PartialEq + From<u8> + Copy>(number: T, noun: &str) -> String {
    let ending = if number == T::from(1) { "" } else { "s" };
    format!("{noun}{ending}")
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
