//! Aligned columns of text.

use std::fmt::{self, Write as _};

/// Rows whose columns are as wide as their widest cells, each line two spaces in.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells end together.
    right: Vec<usize>,
}

impl Table {
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Aligns the cells of a column by their ends.
    pub(crate) fn right(&mut self, column: usize) -> &mut Self {
        self.right.push(column);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // A column of nothing takes no room.
                match (self.right.contains(&column), *width) {
                    (_, 0) => {}
                    (true, width) => write!(line, "  {cell:>width$}")?,
                    (false, width) => write!(line, "  {cell:width$}")?,
                }
            }
            let end = if number + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}
