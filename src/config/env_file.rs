//! `--env-file`: variables as `docker run --env-file` reads them, one `NAME=VALUE` a line, the value as it stands.

use std::path::Path;

use super::{ConfigError, Environment};

/// The variables of a file, in its order. No error repeats a line: it may be a secret.
///
/// # Errors
/// The file cannot be read, or a line of it is no variable; all such lines are told.
pub(crate) fn read(environment: &Environment, file: &Path) -> Result<Vec<(String, String)>, Vec<ConfigError>> {
    let text = environment.read(file).map_err(|error| {
        let what = format!("reading the environment file {}: {error}", file.display());
        vec![ConfigError::new(what, "check the name given to --env-file")]
    })?;
    let (mut variables, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if is_name(name) && !value.contains('\0') => {
                variables.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let what = format!("{}:{}: not a variable", file.display(), index + 1);
                errors.push(ConfigError::new(what, "write NAME=VALUE, without blanks around the = and without export"));
            }
        }
    }
    if errors.is_empty() { Ok(variables) } else { Err(errors) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        let environment = Environment::of([], [("/e", text)]);
        read(&environment, Path::new("/e")).map_err(|errors| errors.into_iter().map(|error| error.what).collect())
    }

    #[test]
    fn variables_stand_as_docker_reads_them() {
        let text = "\u{feff}# no\n\nA=1\r\n  B= two words #not a comment \nC=\nD='quoted'\nE=a=b\nA=2";
        let expected =
            [("A", "1"), ("B", " two words #not a comment "), ("C", ""), ("D", "'quoted'"), ("E", "a=b"), ("A", "2")];
        assert_eq!(of(text).unwrap(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn other_lines_are_told_by_number_and_not_repeated() {
        let errors = of("A=1\ncanary\nexport B=canary\n=canary\nC =canary\nD=1\0").unwrap_err();
        assert_eq!(errors, [2, 3, 4, 5, 6].map(|line| format!("/e:{line}: not a variable")));
        let missing = read(&Environment::of([], []), Path::new("/no")).unwrap_err();
        assert!(missing[0].what.starts_with("reading the environment file /no: "), "{missing:?}");
    }
}
