//! Aligned columns of text.

use std::fmt::{self, Write as _};

use super::printable;

/// Rows whose columns are as wide as their widest cells, with two spaces between them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<TableRow>,
    /// Columns whose cells end together.
    right: Vec<usize>,
    /// Whether lines begin at the margin, and not two spaces in.
    flush: bool,
}

#[derive(Debug)]
enum TableRow {
    Cells(Vec<String>),
    /// A line that counts for no column.
    Line(String),
}

impl TableRow {
    fn cell(&self, column: usize) -> Option<&str> {
        match self {
            Self::Cells(cells) => cells.get(column).map(String::as_str),
            Self::Line(_) => None,
        }
    }
}

impl Table {
    /// One whose lines begin at the margin.
    pub(crate) fn flush() -> Self {
        Self { flush: true, ..Self::default() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| printable::line(&cell).into_owned());
        self.rows.push(TableRow::Cells(cells.collect()));
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.rows.push(TableRow::Line(printable::line(line).into_owned()));
    }

    /// Aligns the cells of a column by their ends.
    pub(crate) fn right(&mut self, column: usize) -> &mut Self {
        self.right.push(column);
        self
    }

    /// The width of each column.
    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        loop {
            let cells = self.rows.iter().filter_map(|row| row.cell(widths.len()));
            let Some(width) = cells.map(printable::width).max() else { return widths };
            widths.push(width);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (number, row) in self.rows.iter().enumerate() {
            let end = if number + 1 < self.rows.len() { "\n" } else { "" };
            let cells = match row {
                TableRow::Cells(cells) => cells,
                TableRow::Line(line) => {
                    write!(f, "{line}{end}")?;
                    continue;
                }
            };
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let gap = if self.flush && column == 0 { "" } else { "  " };
                // A column of nothing takes no room.
                match (self.right.contains(&column), *width) {
                    (_, 0) => {}
                    (true, width) => {
                        let before = width.saturating_sub(printable::width(cell));
                        write!(line, "{gap}{:before$}{cell}", "")?;
                    }
                    (false, width) => write!(line, "{gap}{}", printable::padded(cell, width))?,
                }
            }
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}
