//! `key=value` folders: a destination under one is a partition of a table that other exports add to.

use super::Script;

/// What the folders of a destination say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folders<'a> {
    /// The table's own folder, in front of the first of them, with a slash at its end.
    pub(super) root: &'a str,
    /// Keys and values, from the outside in; empty where the destination is no partition.
    pub(super) pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Folders<'a> {
    /// Reads them off a URL with a slash at its end.
    pub(super) fn of(url: &'a str) -> Self {
        let start = url.find("://").map_or(0, |at| at + 3);
        let mut found = Self { root: url, pairs: Vec::new() };
        let mut at = start;
        for (depth, segment) in url[start..].split('/').enumerate() {
            // The first is the bucket.
            let pair = segment.split_once('=').filter(|(key, value)| depth > 0 && !key.is_empty() && !value.is_empty());
            if let Some(pair) = pair {
                if found.pairs.is_empty() {
                    found.root = &url[..at];
                }
                found.pairs.push(pair);
            }
            at += segment.len() + 1;
        }
        found
    }

    /// Whether a column's name is that of a key, which then stands for it.
    pub(super) fn has_key(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// A key that occurs twice makes no table.
    pub(super) fn refuse(&self, script: &mut Script) {
        for (at, (key, _)) in self.pairs.iter().enumerate() {
            let again = self.pairs[..at].iter().any(|(other, _)| other.eq_ignore_ascii_case(key));
            script.refuse(again, format!("the destination's path has the partition key {key:?} twice"));
        }
    }

    /// The partition columns, all of one type.
    pub(super) fn keys(&self, quote: fn(&str) -> String, data_type: &str) -> String {
        self.pairs.iter().map(|(key, _)| format!("{} {data_type}", quote(key))).collect::<Vec<_>>().join(", ")
    }

    /// The partition that the destination is.
    pub(super) fn values(&self, quote: fn(&str) -> String, literal: fn(&str) -> String) -> String {
        let pair = |(key, value): &(&str, &str)| format!("{} = {}", quote(key), literal(value));
        self.pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_off_a_url() {
        for (url, root, pairs) in [
            ("s3://b/orders/", "s3://b/orders/", &[][..]),
            ("s3://b/orders/dt=2026-11-21/", "s3://b/orders/", &[("dt", "2026-11-21")]),
            ("s3://b/o/y=2026/m=11/run-7/", "s3://b/o/", &[("y", "2026"), ("m", "11")]),
            ("s3://b/x=1/", "s3://b/", &[("x", "1")]),
            ("s3://a=b/x/", "s3://a=b/x/", &[]),
            ("s3://b/=1/x=/", "s3://b/=1/x=/", &[]),
            ("s3://b/x=1=2/", "s3://b/", &[("x", "1=2")]),
        ] {
            assert_eq!(Folders::of(url), Folders { root, pairs: pairs.to_vec() }, "{url}");
        }
        let mut script = Script::default();
        Folders::of("s3://b/x=1/X=2/").refuse(&mut script);
        assert_eq!(script.refusals.len(), 1);
        assert!(Folders::of("s3://b/dt=1/").has_key("DT"));
    }
}
