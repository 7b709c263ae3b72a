//! Patterns over names, as a shell has them for files.

/// Whether `name` is what `pattern` means: `*` stands for any characters, `?` for one. Capitals do not count.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    // Places of the pattern that what was read so far can stand at.
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    let skip_stars = |places: &mut Vec<bool>| {
        for (place, letter) in pattern.iter().enumerate() {
            if places[place] && *letter == '*' {
                places[place + 1] = true;
            }
        }
    };
    skip_stars(&mut places);
    for letter in name.to_lowercase().chars() {
        let mut next = vec![false; pattern.len() + 1];
        for (place, wanted) in pattern.iter().enumerate().filter(|(place, _)| places[*place]) {
            match wanted {
                '*' => next[place] = true,
                '?' => next[place + 1] = true,
                wanted if *wanted == letter => next[place + 1] = true,
                _ => {}
            }
        }
        skip_stars(&mut next);
        places = next;
    }
    places[pattern.len()]
}

/// Whether `name` is one that somebody means who chooses among several: a name without `*` and `?` is that very name, since
/// `orders` and `Orders` may both be there.
pub(crate) fn means(pattern: &str, name: &str) -> bool {
    if is_pattern(pattern) { matches(pattern, name) } else { pattern == name }
}

/// Whether `pattern` may mean more than one name.
pub(crate) fn is_pattern(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("orders", "Orders", true),
            ("order", "orders", false),
            ("order?", "orders", true),
            ("order?", "order", false),
            ("*", "", true),
            ("o*r*s", "orders", true),
            ("o*r*s", "orders2", false),
            ("**s", "orders", true),
            ("", "x", false),
            ("*a*a*a*a*a*a*a*a*b", &"a".repeat(500), false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(means("order*", "Orders") && means("Orders", "Orders") && !means("orders", "Orders"));
        assert!(is_pattern("a*") && !is_pattern("a.b"));
    }
}
