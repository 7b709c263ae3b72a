//! Object names: pure, and injective in (partition, roll, attempt).

use crate::model::Layout;

/// The identity of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartName {
    /// The partition's number.
    pub partition: u32,
    /// 0 for the partition's first part, then 1, 2, … as it rolls.
    pub roll: u32,
    /// The attempt's random id.
    pub attempt: u32,
}

impl PartName {
    /// The path relative to the destination: `data/part-00017-000-9f3a2b1c.parquet`.
    pub fn path(self, layout: Layout, extension: &str) -> String {
        self.path_in(layout, "", extension)
    }

    /// The same within `folders`, each of which ends in a slash: `data/dt=2026-11-28/part-00017-000-9f3a2b1c.parquet`.
    pub fn path_in(self, layout: Layout, folders: &str, extension: &str) -> String {
        let Self { partition, roll, attempt } = self;
        let folder = match layout {
            Layout::Nested => "data/",
            Layout::Flat => "",
        };
        format!("{folder}{folders}part-{partition:05}-{roll:03}-{attempt:08x}.{extension}")
    }

    /// The identity in a path that [`PartName::path_in`] made; `None` for any other path.
    pub fn parse(path: &str) -> Option<Self> {
        let mut name = path.strip_prefix("data/").unwrap_or(path);
        while let Some((folder, rest)) = name.split_once('/') {
            // Nothing else makes folders.
            folder.contains('=').then_some(())?;
            name = rest;
        }
        let name = name.strip_prefix("part-")?;
        let (name, _) = name.split_once('.')?;
        let mut numbers = name.split('-');
        let (partition, roll, attempt) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let name = Self {
            partition: partition.parse().ok()?,
            roll: roll.parse().ok()?,
            attempt: u32::from_str_radix(attempt, 16).ok()?,
        };
        numbers.next().is_none().then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_made() {
        for name in [
            PartName { partition: 0, roll: 0, attempt: 0 },
            PartName { partition: 123_456, roll: 1_000, attempt: u32::MAX },
        ] {
            for (layout, folders) in [Layout::Nested, Layout::Flat].into_iter().zip(["", "dt=1/c=part-0/"]) {
                assert_eq!(PartName::parse(&name.path(layout, "csv.gz")), Some(name));
                assert_eq!(PartName::parse(&name.path_in(layout, folders, "csv.gz")), Some(name));
            }
        }
        for other in [
            "data/part-1.csv",
            "part-x-0-0.csv",
            "data/part-1-2-3-4.csv",
            "_manifest.json",
            "other/part-1-2-3.csv",
            "data/x/part-1-2-3.csv",
        ] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
