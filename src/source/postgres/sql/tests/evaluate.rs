//! Evaluates the conditions that `sql` writes, over rows of integers, with SQL's three truth values: so that their
//! meaning is tested, and not only their text.

use crate::source::postgres::plan::PgKeyColumn;

/// Whether `sql` is true, false or unknown (`None`) of a row whose fields are the key's columns.
pub(super) fn holds(sql: &str, key: &[PgKeyColumn], row: &[Option<i32>]) -> Option<bool> {
    let mut parser = Parser { rest: sql, key, row };
    let value = parser.any_of();
    assert_eq!(parser.rest, "", "left over of {sql}");
    value
}

struct Parser<'a> {
    rest: &'a str,
    key: &'a [PgKeyColumn],
    row: &'a [Option<i32>],
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn any_of(&mut self) -> Option<bool> {
        let mut value = self.all_of();
        while self.eat(" OR ") {
            value = match (value, self.all_of()) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
        }
        value
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut value = self.one();
        while self.eat(" AND ") {
            value = match (value, self.one()) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        value
    }

    fn one(&mut self) -> Option<bool> {
        if self.eat("false") {
            return Some(false);
        }
        let is_row = self.rest.starts_with("(\"") && self.rest[4..].starts_with(", ");
        if self.rest.starts_with('(') && !is_row {
            assert!(self.eat("("));
            let value = self.any_of();
            assert!(self.eat(")"), "unclosed before {}", self.rest);
            return value;
        }
        let left = self.operand(is_row);
        if self.eat(" IS NOT DISTINCT FROM NULL") {
            return Some(left[0].is_none());
        }
        if self.eat(" IS DISTINCT FROM NULL") {
            return Some(left[0].is_some());
        }
        let operator = self.operator();
        let right = self.operand(is_row);
        for (a, b) in left.iter().zip(&right) {
            let ordering = (*a)?.cmp(&(*b)?);
            if ordering.is_ne() {
                return Some(match operator {
                    "<" | "<=" => ordering.is_lt(),
                    ">" | ">=" => ordering.is_gt(),
                    _ => false,
                });
            }
        }
        Some(matches!(operator, "<=" | ">=" | "="))
    }

    fn operator(&mut self) -> &'static str {
        assert!(self.eat(" OPERATOR(pg_catalog.") || self.eat(" OPERATOR(ext."), "no operator: {}", self.rest);
        let operator = ["<=", ">=", "<", ">", "="].into_iter().find(|operator| self.eat(operator)).unwrap();
        assert!(self.eat(") "));
        operator
    }

    fn operand(&mut self, is_row: bool) -> Vec<Option<i32>> {
        if !is_row {
            return vec![self.scalar()];
        }
        assert!(self.eat("("));
        let mut values = vec![self.scalar()];
        while self.eat(", ") {
            values.push(self.scalar());
        }
        assert!(self.eat(")"));
        values
    }

    fn scalar(&mut self) -> Option<i32> {
        if self.eat("\"") {
            let (name, rest) = self.rest.split_once('"').unwrap();
            self.rest = rest;
            let place = self.key.iter().position(|column| column.name == name).unwrap();
            return self.row[place];
        }
        assert!(self.eat("'"), "no operand: {}", self.rest);
        let (digits, rest) = self.rest.split_once("'::").unwrap();
        self.rest = rest.strip_prefix("int").or_else(|| rest.strip_prefix("ext.citext")).unwrap();
        Some(digits.parse().unwrap())
    }
}
