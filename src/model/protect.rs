//! `--protect`: columns whose values leave the source only hashed, masked, as NULL or not at all.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Carrier, ColumnPlan, CredentialCommand, FolderOptions, Plan, PlannedContent, Precision};
use crate::base::glob;

/// What is written instead of a column's values. A later one is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// Text with `x` for letters and `0` for digits; all other characters stay.
    Mask,
    /// HMAC-SHA-256 of the value's text under a key, as 64 hexadecimal digits.
    Hash,
    /// NULL.
    Null,
    /// Nothing: the files do not have the column.
    Drop,
}

impl Protection {
    /// The word of the flag.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Hash => "hash",
            Self::Null => "null",
            Self::Drop => "drop",
        }
    }
}

/// Which columns a protection is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectRule {
    /// An output column, or a pattern of such with `*` and `?`.
    pub name: String,
    /// Whether it is a pattern.
    pub pattern: bool,
    /// What is written instead.
    pub how: Protection,
    /// What it means that no column has such a name.
    #[serde(default)]
    pub absent: AbsentColumn,
}

/// What it means that a rule is for no column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsentColumn {
    /// The export is refused.
    #[default]
    Refused,
    /// The run is refused where it is so for every export that has the rule; the number tells rules of different places in
    /// a job file apart.
    RefusedByAll(usize),
    /// Somebody is told where it is so for every export of the run.
    Told,
}

/// Where the key of hashes is found, for a process that goes on with a run that another one began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectKeyPlace {
    /// The file that has it.
    pub file: Option<PathBuf>,
    /// The command that prints it.
    pub command: Option<CredentialCommand>,
}

/// All that protects the columns of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectOptions {
    /// Exact names, and patterns.
    pub rules: Vec<ProtectRule>,
    /// The file that has the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The command that prints the key; no record has it.
    #[serde(skip)]
    pub key_command: Option<CredentialCommand>,
}

/// Why columns cannot be protected as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectMisfit {
    /// The source makes the bytes, and they have no columns.
    #[error("--protect is for columns, and the source's own FORMAT gives none")]
    Bytes,
    /// An exact name that no column has.
    #[error("--protect names the column {0:?}, which the export does not have")]
    Unknown(String),
    /// Its values order or split the rows, and would stand in the manifest.
    #[error("column {0:?} is protected, and the rows are ordered or split by it")]
    Key(String),
    /// Its values would be names of folders.
    #[error("column {0:?} is protected, and --partition-by makes folders of its values")]
    Folder(String),
    /// A type that has no such protection.
    #[error("column {name:?} of type {type_name} cannot be protected by {how}")]
    Type {
        /// The column.
        name: String,
        /// Its type at the source.
        type_name: String,
        /// The word of the protection.
        how: &'static str,
    },
    /// The files would have no columns.
    #[error("--protect drops every column that the files would have")]
    NothingLeft,
}

impl ProtectMisfit {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bytes => "take the FORMAT away from the query, or leave --protect and --protect-file out",
            Self::Unknown(_) => {
                "name a column as it is called in the output; a pattern of --protect-file may match none"
            }
            Self::Key(_) => "choose another --key, or leave the order to the source: no cap and no --read-mode keyset",
            Self::Folder(_) => "protect another column, or make folders of another one",
            Self::Type { how: "mask", .. } => "mask is for text: take hash, null or drop",
            Self::Type { .. } => "take null or drop, or --column with an expression that makes a text of it",
            Self::NothingLeft => "leave one column",
        }
    }
}

impl ProtectOptions {
    /// What protects a column of the output: by its own name or, where it is a column of the source under another one, by that
    /// of the source; the strictest.
    pub fn of(&self, column: &ColumnPlan) -> Option<Protection> {
        names(column).filter_map(|name| self.of_name(name)).max()
    }

    /// A rule of exactly the name, else the strictest pattern.
    pub(crate) fn of_name(&self, name: &str) -> Option<Protection> {
        let exact = self.rules.iter().filter(|rule| !rule.pattern && rule.name == name).map(|rule| rule.how).max();
        let patterns = self.rules.iter().filter(|rule| rule.pattern && glob::matches(&rule.name, name));
        exact.or_else(|| patterns.map(|rule| rule.how).max())
    }

    /// Whether the values of a column of the source may be shown to nobody, by its own name or that of the output.
    pub fn hides(&self, source_column: &str, columns: &[ColumnPlan]) -> bool {
        let is_it = |column: &&ColumnPlan| column.origin.column() == Some(source_column);
        self.of_name(source_column).is_some() || columns.iter().filter(is_it).any(|column| self.of(column).is_some())
    }

    /// Whether values are hashed, for which there must be a key.
    pub fn hashes(&self) -> bool {
        self.rules.iter().any(|rule| rule.how == Protection::Hash)
    }

    /// The same where the key is found elsewhere, if anything is said of it.
    #[must_use]
    pub fn with_key_at(self, ProtectKeyPlace { file, command }: ProtectKeyPlace) -> Self {
        if file.is_none() && command.is_none() {
            return self;
        }
        Self { key_file: file, key_command: command, ..self }
    }

    /// The same, whatever the other exports of its run are: by that alone two of them are told apart.
    #[must_use]
    pub fn of_one_export(&self) -> Self {
        let mut alone = self.clone();
        alone.rules.iter_mut().for_each(|rule| rule.absent = AbsentColumn::Refused);
        alone
    }

    /// Refuses what cannot be protected so.
    ///
    /// # Errors
    /// [`ProtectMisfit`].
    pub fn check(&self, plan: &Plan, folders: Option<&FolderOptions>) -> Result<(), ProtectMisfit> {
        if plan.content == PlannedContent::Bytes {
            return Err(ProtectMisfit::Bytes);
        }
        let columns = &plan.columns;
        let refused = self.rules.iter().filter(|rule| rule.absent == AbsentColumn::Refused);
        if let Some(rule) = refused.into_iter().find(|rule| !rule.is_for_some(columns)) {
            return Err(ProtectMisfit::Unknown(rule.name.clone()));
        }
        if let Some(key) = plan.key.iter().find(|key| self.hides(&key.name, columns)) {
            return Err(ProtectMisfit::Key(key.name.clone()));
        }
        let of_folders = folders.into_iter().flat_map(|folders| &folders.columns);
        let protected = |name: &&String| columns.iter().any(|it| it.name == **name && self.of(it).is_some());
        if let Some(name) = of_folders.into_iter().find(protected) {
            return Err(ProtectMisfit::Folder(name.clone()));
        }
        for column in columns {
            let fits = match self.of(column) {
                None | Some(Protection::Null | Protection::Drop) => true,
                Some(Protection::Mask) => column.carrier == Carrier::Text,
                Some(Protection::Hash) => has_text(column),
            };
            if let (false, Some(how)) = (fits, self.of(column)) {
                let (name, type_name) = (column.name.clone(), column.type_name.clone());
                return Err(ProtectMisfit::Type { name, type_name, how: how.word() });
            }
        }
        let in_folders = |column: &ColumnPlan| folders.is_some_and(|it| !it.keep && it.columns.contains(&column.name));
        let left_out = |column: &ColumnPlan| in_folders(column) || self.of(column) == Some(Protection::Drop);
        if !columns.is_empty() && columns.iter().all(left_out) {
            return Err(ProtectMisfit::NothingLeft);
        }
        Ok(())
    }

    /// A column as the files have it; `None` where they do not.
    pub fn written(&self, column: &ColumnPlan) -> Option<ColumnPlan> {
        let Some(how) = self.of(column) else { return Some(column.clone()) };
        let hidden = ColumnPlan {
            ordered: false,
            may_show: false,
            statistics: super::ColumnStatistics::default(),
            policy: how.word().to_owned(),
            rewritten: false,
            ..column.clone()
        };
        match how {
            Protection::Drop => None,
            Protection::Mask => Some(hidden),
            Protection::Null => Some(ColumnPlan { nullable: true, ..hidden }),
            Protection::Hash => {
                let type_name = "text".to_owned();
                Some(ColumnPlan { carrier: Carrier::Text, type_name, free_text: false, ..hidden })
            }
        }
    }
}

impl ProtectRule {
    /// Whether one of the columns has such a name.
    pub fn is_for_some(&self, columns: &[ColumnPlan]) -> bool {
        columns.iter().any(|column| names(column).any(|name| self.is_for(name)))
    }

    fn is_for(&self, name: &str) -> bool {
        if self.pattern { glob::matches(&self.name, name) } else { self.name == name }
    }
}

/// What a column is called in the output and at the source.
fn names(column: &ColumnPlan) -> impl Iterator<Item = &str> {
    let others = column.origin.column().into_iter().chain(column.shared_name.as_deref());
    std::iter::once(column.name.as_str()).chain(others)
}

/// Whether a value has one text that all formats agree on.
fn has_text(ColumnPlan { carrier, type_name, text_varies, .. }: &ColumnPlan) -> bool {
    let rounded = matches!(carrier, Carrier::Timestamp { unit: Precision::Millis, .. });
    // NDJSON has texts of other types as JSON, with quotes.
    let of_one_format = *carrier == Carrier::Json && !type_name.to_ascii_lowercase().starts_with("json");
    let varies = *text_varies || of_one_format;
    !carrier.is_nested() && !rounded && !varies && !matches!(carrier, Carrier::Decimal256 { .. })
}
