//! Object names: pure, and injective in (partition, roll, attempt).

use serde::Serialize;

/// Where parts stand below the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Under `data/`.
    Nested,
    /// Directly under the destination.
    Flat,
}

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
        let Self { partition, roll, attempt } = self;
        let folder = match layout {
            Layout::Nested => "data/",
            Layout::Flat => "",
        };
        format!("{folder}part-{partition:05}-{roll:03}-{attempt:08x}.{extension}")
    }
}
