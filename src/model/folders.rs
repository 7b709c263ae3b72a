//! `--partition-by`: rows go into folders by the values of some columns, which readers take for columns of their own.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::{Carrier, ColumnPlan};

/// The columns by whose values rows go into folders, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderOptions {
    /// Their output names, from the outermost folder in.
    pub columns: Vec<String>,
    /// `--keep-partition-columns`: whether the files have them too.
    pub keep: bool,
    /// `--open-parts`: so many parts a reader writes at the same time.
    pub open: NonZeroUsize,
}

/// One folder of a part: a column, and the value that all rows of the part have there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FolderValue {
    /// The output column.
    pub column: String,
    /// The value as text: numbers in decimal digits, dates as `2026-11-28`, `true` and `false`; `None` is NULL.
    pub value: Option<String>,
}

/// Why rows cannot go into the folders that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderMisfit {
    /// No such column is written.
    #[error("--partition-by names the column {0:?}, which the export does not have")]
    Unknown(String),
    /// A type whose values make no good names.
    #[error(
        "--partition-by names the column {name:?} of type {type_name}, and folders are of text, integers, dates or booleans"
    )]
    Type {
        /// The column.
        name: String,
        /// Its type at the source.
        type_name: String,
    },
    /// Readers take the level for a column of the files, and its folders' names for that column's values.
    #[error(
        "--partition-by names folders {level:?}, and the files have a column {column:?}, which readers take for the same"
    )]
    Alike {
        /// The level of folders.
        level: String,
        /// The column of the files.
        column: String,
    },
    /// The files would have no columns.
    #[error("--partition-by takes every column out of the files")]
    NothingLeft,
}

impl FolderMisfit {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) => {
                "name a column as it is called in the output; --columns has to name it too, where it is given"
            }
            Self::Type { .. } => "write an expression: --partition-by \"dt=(created_at at time zone 'UTC')::date\"",
            Self::Alike { .. } => {
                "give one of the two another name: NAME=EXPRESSION for the folders, --rename for the column"
            }
            Self::NothingLeft => "export more columns, or add --keep-partition-columns",
        }
    }
}

/// Whether readers take two names for one: those of folders do not tell letter case.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

impl FolderOptions {
    /// Where its columns stand among `columns`, from the outermost folder in.
    ///
    /// # Errors
    /// [`FolderMisfit`].
    pub fn places(&self, columns: &[ColumnPlan]) -> Result<Vec<usize>, FolderMisfit> {
        let place = |name: &String| {
            let found = columns.iter().position(|column| column.name == *name);
            let place = found.ok_or_else(|| FolderMisfit::Unknown(name.clone()))?;
            let type_name = &columns[place].type_name;
            if makes_folders(&columns[place].carrier) {
                return Ok(place);
            }
            Err(FolderMisfit::Type { name: name.clone(), type_name: type_name.clone() })
        };
        let places = self.columns.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        if !self.keep && places.len() >= columns.len() {
            return Err(FolderMisfit::NothingLeft);
        }
        Ok(places)
    }

    /// Makes sure that no level of folders is called like a column of the files.
    ///
    /// # Errors
    /// [`FolderMisfit::Alike`].
    pub fn stand_apart<'a>(&self, written: impl Iterator<Item = &'a ColumnPlan>) -> Result<(), FolderMisfit> {
        for ColumnPlan { name: column, .. } in written {
            if let Some(level) = self.columns.iter().find(|level| *level != column && alike(level, column)) {
                return Err(FolderMisfit::Alike { level: level.clone(), column: column.clone() });
            }
        }
        Ok(())
    }

    /// Whether the files have a column of this name.
    pub fn writes(&self, name: &str) -> bool {
        self.keep || !self.columns.iter().any(|column| column == name)
    }
}

/// Whether values make names that are read back as what they were.
fn makes_folders(carrier: &Carrier) -> bool {
    matches!(
        carrier,
        Carrier::Bool
            | Carrier::Int16
            | Carrier::Int32
            | Carrier::Int64
            | Carrier::Text
            | Carrier::PgDate
            | Carrier::Date32
    )
}
