//! Which columns are written, under which names, and how each one's type is mapped.

use std::collections::{HashMap, HashSet};

use super::error::PlanError;
use super::extremes::ordered;
use super::members::{self, Reach, reaches};
use super::numbered;
use super::oid;
use super::type_mapping::{
    self, ServerTypes, Terms, TypeMapping, is_free_text, map_type, text_varies, values_are_safe,
};
use super::words::{may_null, words};
use crate::model::{
    CharPadding, ColumnChoice, ColumnOrigin, ColumnPlan, DuplicateColumns, Format, InvalidUtf8, JsonLargeNumbers,
    JsonNan, Nested, OnUnrepresentable, Policies, PolicyOptions, Preset, ShapeOptions, TimestampPrecision,
    UnconstrainedNumeric,
};
use crate::source::postgres::plan::{ColumnFacts, PgColumn, PgType, RelationFacts, Wire};

/// What column plans depend on besides the relation.
#[derive(Debug, Clone, Copy)]
pub struct ColumnRules<'a> {
    /// The file format.
    pub format: Format,
    /// Preset and policies.
    pub policies: &'a PolicyOptions,
    /// What types depend on at the server.
    pub server: ServerTypes,
}

/// Decides the output columns: `--columns` in the order given (else all, in catalog order), then the `--column`
/// expressions in theirs, all under the names that `--rename` leaves them. An expression that `--columns` names stands
/// there.
///
/// `expressions` are the types of the request's `--column` expressions as the server described them, in the same
/// order; their `name` is not used. `--rename` is for the relation's columns: an expression is named where it is given.
///
/// # Errors
/// A name that is unknown, given twice or taken; nothing to write; expressions that were not all described.
pub fn columns(
    facts: &RelationFacts,
    shape: &ShapeOptions,
    expressions: &[ColumnFacts],
    rules: &ColumnRules<'_>,
) -> Result<Vec<PgColumn>, PlanError> {
    if expressions.len() != shape.expressions.len() {
        return Err(PlanError::ExpressionsDescribed { given: shape.expressions.len(), described: expressions.len() });
    }
    let of_relation = shape.relation_columns();
    let selected = select(facts, of_relation.as_deref())?;
    let renamed = renames(facts, &selected, &shape.renames)?;
    let called_by =
        |column: &ColumnFacts| renamed.get(column.name.as_str()).copied().unwrap_or(&column.name).to_owned();
    let mut names = OutputNames { taken: HashSet::new(), wanted: HashSet::new(), rules };
    names.wanted = selected.iter().map(|(_, column)| names.folded(&called_by(column))).collect();
    let mut plans = Vec::with_capacity(selected.len() + expressions.len());
    let called = facts.column_aliases();
    for (place, column) in selected {
        let wanted = renamed.get(column.name.as_str()).copied().unwrap_or(&column.name);
        let name = names.take(wanted)?;
        let mut plan = column_plan(name, wanted, ColumnOrigin::Column(called[place].clone()), column, rules)?;
        plan.output.shared_name = (called[place] != column.name).then(|| column.name.clone());
        plans.push(plan);
    }
    let taken_by_columns = names.taken.clone();
    for ((name, expression), described) in shape.expressions.iter().zip(expressions) {
        if name.is_empty() {
            return Err(PlanError::EmptyName { flag: "--column", example: "name=expression" });
        }
        if taken_by_columns.contains(&names.folded(name)) {
            return Err(PlanError::NameTaken { name: name.clone() });
        }
        let taken = names.take(name)?;
        plans.push(column_plan(taken, name, ColumnOrigin::Expression(expression.clone()), described, rules)?);
    }
    if plans.is_empty() {
        let relation = facts.display_name.clone().unwrap_or_else(|| "the query".to_owned());
        return Err(PlanError::NoColumns { relation });
    }
    for (name, _) in &rules.policies.columns {
        if !plans.iter().any(|plan| plan.output.name == *name) {
            let known = plans.iter().map(|plan| plan.output.name.as_str());
            return Err(PlanError::unknown_column("--column-policy", name, known));
        }
    }
    Ok(in_order(shape, plans))
}

/// Columns of the relation, then expressions, put where `--columns` names them.
fn in_order(shape: &ShapeOptions, plans: Vec<PgColumn>) -> Vec<PgColumn> {
    let Some(names) = &shape.columns else { return plans };
    let renamed = |name: &String| shape.renames.iter().any(|(old, _)| old == name);
    let expression = |name: &String| shape.expressions.iter().position(|(of, _)| of == name).filter(|_| !renamed(name));
    let (mut of_relation, selected) = (0_usize, names.iter().filter(|name| expression(name).is_none()).count());
    let mut places: Vec<usize> = Vec::with_capacity(plans.len());
    for name in names {
        let place = if let Some(nth) = expression(name) {
            selected + nth
        } else {
            of_relation += 1;
            of_relation - 1
        };
        places.push(place);
    }
    places.extend((0..plans.len()).filter(|place| !places.contains(place)).collect::<Vec<_>>());
    places.into_iter().filter_map(|place| plans.get(place).cloned()).collect()
}

/// A name as the preset's readers compare it: Athena and Redshift do not tell `A` from `a`.
fn folded(name: &str, preset: Preset) -> String {
    match preset {
        Preset::Postgres => name.to_owned(),
        Preset::Athena | Preset::Spectrum => name.to_lowercase(),
    }
}

/// The output names given so far.
struct OutputNames<'a> {
    taken: HashSet<String>,
    /// What the relation's columns are called by themselves: no number makes another of it.
    wanted: HashSet<String>,
    rules: &'a ColumnRules<'a>,
}

impl OutputNames<'_> {
    /// The name as readers compare it.
    fn folded(&self, name: &str) -> String {
        folded(name, self.rules.policies.preset)
    }

    /// The name, or the next free one made of it.
    fn take(&mut self, name: &str) -> Result<String, PlanError> {
        if self.taken.insert(self.folded(name)) {
            return Ok(name.to_owned());
        }
        if self.rules.policies.duplicate_columns == DuplicateColumns::Error {
            return Err(PlanError::DuplicateName { name: name.to_owned() });
        }
        Ok(numbered(name, |next| {
            let folded = self.folded(&next);
            !self.wanted.contains(&folded) && self.taken.insert(folded)
        }))
    }
}

/// The relation's columns that are exported, in output order, each with its place in the relation.
fn select<'a>(facts: &'a RelationFacts, names: Option<&[String]>) -> Result<Vec<(usize, &'a ColumnFacts)>, PlanError> {
    let Some(names) = names else {
        return Ok(facts.columns.iter().enumerate().collect());
    };
    let mut seen = HashSet::new();
    names
        .iter()
        .map(|name| {
            if !seen.insert(name) {
                return Err(PlanError::RepeatedColumn { flag: "--columns", name: name.clone() });
            }
            let column = facts.column("--columns", name)?;
            let place = facts.columns.iter().position(|other| other.name == column.name).unwrap_or_default();
            Ok((place, column))
        })
        .collect()
}

/// Old name to new name, each old one selected.
fn renames<'a>(
    facts: &RelationFacts,
    selected: &[(usize, &ColumnFacts)],
    renames: &'a [(String, String)],
) -> Result<HashMap<&'a str, &'a str>, PlanError> {
    let mut by_old = HashMap::new();
    for (old, new) in renames {
        if !selected.iter().any(|(_, column)| column.name == *old) {
            facts.column("--rename", old)?;
            return Err(PlanError::RenameNotSelected { name: old.clone() });
        }
        if new.is_empty() {
            return Err(PlanError::EmptyName { flag: "--rename", example: "old=new" });
        }
        if by_old.insert(old.as_str(), new.as_str()).is_some() {
            return Err(PlanError::RepeatedColumn { flag: "--rename", name: old.clone() });
        }
    }
    Ok(by_old)
}

fn column_plan(
    name: String,
    wanted: &str,
    origin: ColumnOrigin,
    facts: &ColumnFacts,
    rules: &ColumnRules<'_>,
) -> Result<PgColumn, PlanError> {
    let mut policies = rules.policies.default;
    let choices = rules.policies.columns.iter().filter(|(column, _)| *column == name);
    for (_, choice) in choices {
        choice.apply(&mut policies, &name, &facts.pg_type, rules)?;
    }
    if rules.format != Format::Ndjson {
        // Other formats have NaN and the infinities, also in a column whose other values become NULL.
        policies.json_nan = JsonNan::String;
    }
    if !rules.server.sql_ascii {
        // Every other database has checked its text.
        policies.invalid_utf8 = InvalidUtf8::Error;
    }
    let terms = Terms { format: rules.format, preset: rules.policies.preset, policies, server: rules.server };
    let mapping = with_distinct_members(map_type(&facts.pg_type, &terms), (&name, &origin), &facts.pg_type, rules)?;
    let renamed = (name != wanted).then(|| format!("a second column {wanted:?}"));
    let output = ColumnPlan {
        policy: words(&facts.pg_type, &mapping, &terms),
        nullable: !facts.not_null || may_null(&mapping, &terms),
        name,
        origin,
        shared_name: None,
        text_varies: text_varies(&facts.pg_type, &mapping),
        type_name: facts.pg_type.name.clone(),
        sent_as: mapping.wire.word().to_owned(),
        ordered: ordered(facts, &mapping.carrier, &policies),
        may_show: values_are_safe(&facts.pg_type),
        // Of a column that is written raw although others are guarded, somebody vouches that it holds no formulas.
        free_text: is_free_text(&facts.pg_type, &mapping.carrier)
            && policies.formula_guard == rules.policies.default.formula_guard,
        carrier: mapping.carrier,
        policies,
        rewritten: mapping.rewritten.is_some(),
        note: match (renamed, mapping.note) {
            (Some(renamed), Some(note)) => Some(format!("{renamed}; {note}")),
            (renamed, note) => renamed.or(note),
        },
        statistics: facts.statistics,
    };
    Ok(PgColumn { output, pg_type: facts.pg_type.clone(), wire: mapping.wire })
}

/// Refuses or numbers members of one composite whose names readers take for one, as columns of one name are. What is
/// text to its readers has no members.
fn with_distinct_members(
    mapping: TypeMapping,
    (column, origin): (&str, &ColumnOrigin),
    pg_type: &PgType,
    rules: &ColumnRules<'_>,
) -> Result<TypeMapping, PlanError> {
    let structured = match rules.format {
        Format::Parquet => mapping.carrier.is_nested(),
        Format::Ndjson => mapping.wire == Wire::JsonText,
        Format::Csv | Format::Source => false,
    };
    let fold = |name: &str| folded(name, rules.policies.preset);
    let Some(member) = members::double_member(pg_type, &fold).filter(|_| structured) else { return Ok(mapping) };
    let column = column.to_owned();
    match (rules.format, rules.policies.duplicate_columns) {
        (Format::Parquet, DuplicateColumns::Suffix) => {
            let note = format!("a second member {member:?} has a number behind its name");
            let note = mapping.note.map_or(note.clone(), |said| format!("{note}; {said}"));
            Ok(TypeMapping { carrier: members::numbered_members(&mapping.carrier, &fold), note: Some(note), ..mapping })
        }
        (Format::Parquet, DuplicateColumns::Error) => Err(PlanError::DuplicateMember { column, member }),
        _ => {
            let sql = match origin {
                ColumnOrigin::Column(name) => format!("\"{}\"", name.replace('"', "\"\"")),
                ColumnOrigin::Expression(_) => "(EXPRESSION)".to_owned(),
            };
            Err(PlanError::DuplicateJsonMember { column, sql, member })
        }
    }
}

impl ColumnChoice {
    /// Makes the choice for one column.
    ///
    /// # Errors
    /// [`PlanError::ColumnPolicy`] where the column's type has no such choice in this format.
    fn apply(
        self,
        policies: &mut Policies,
        column: &str,
        pg_type: &PgType,
        rules: &ColumnRules<'_>,
    ) -> Result<(), PlanError> {
        let takes = Takes::of(pg_type, rules);
        let fits = match self {
            Self::Error => takes.value_errors || takes.replace || takes.json_nan || takes.timestamp,
            Self::Null => takes.value_errors || takes.json_nan,
            Self::Text => takes.as_text || takes.nested,
            Self::Decimal { precision, .. } => {
                takes.numeric && (precision <= 38 || rules.policies.preset == Preset::Postgres)
            }
            Self::Double => takes.numeric,
            Self::Keep | Self::Trim => takes.char,
            Self::Replace => takes.replace,
            Self::Bytes => takes.bytes,
            Self::Number | Self::String => takes.json_number,
            Self::Json => takes.nested,
            Self::Round => takes.timestamp,
            Self::Raw => takes.raw,
        };
        if !fits {
            return Err(PlanError::ColumnPolicy {
                column: column.to_owned(),
                choice: self.to_string(),
                pg_type: pg_type.name.clone(),
                takes: takes.words(),
            });
        }
        match self {
            Self::Error => {
                policies.on_unrepresentable = OnUnrepresentable::Error;
                policies.invalid_utf8 = InvalidUtf8::Error;
                if rules.format == Format::Ndjson {
                    policies.json_nan = JsonNan::Error;
                }
                if policies.timestamp_precision == TimestampPrecision::Millis {
                    policies.timestamp_precision = TimestampPrecision::MillisExact;
                }
            }
            Self::Null => {
                policies.on_unrepresentable = OnUnrepresentable::Null;
                if rules.format == Format::Ndjson {
                    policies.json_nan = JsonNan::Null;
                }
            }
            Self::Text if rules.format == Format::Parquet => policies.as_text = true,
            Self::Text => policies.nested = Nested::Native,
            Self::Decimal { precision, scale } => {
                policies.unconstrained_numeric = UnconstrainedNumeric::Decimal { precision, scale };
            }
            Self::Double => policies.unconstrained_numeric = UnconstrainedNumeric::Double,
            Self::Keep => policies.char_padding = CharPadding::Keep,
            Self::Trim => policies.char_padding = CharPadding::Trim,
            Self::Replace => policies.invalid_utf8 = InvalidUtf8::Replace,
            Self::Bytes => policies.invalid_utf8 = InvalidUtf8::Bytes,
            Self::Number => policies.json_large_numbers = JsonLargeNumbers::Number,
            Self::String => policies.json_large_numbers = JsonLargeNumbers::String,
            Self::Json => policies.nested = Nested::Json,
            Self::Round => policies.timestamp_precision = TimestampPrecision::Millis,
            Self::Raw => policies.formula_guard = false,
        }
        Ok(())
    }
}

/// Which choices a column takes in this format.
#[expect(clippy::struct_excessive_bools, reason = "one for each family of choices")]
#[derive(Debug)]
struct Takes {
    value_errors: bool,
    as_text: bool,
    numeric: bool,
    char: bool,
    replace: bool,
    bytes: bool,
    json_number: bool,
    json_nan: bool,
    nested: bool,
    timestamp: bool,
    raw: bool,
}

impl Takes {
    fn of(pg_type: &PgType, rules: &ColumnRules<'_>) -> Self {
        let parquet = rules.format == Format::Parquet;
        let ndjson = rules.format == Format::Ndjson;
        let base = pg_type.base_oid;
        let nested = type_mapping::is_nested(pg_type);
        let numeric = base == oid::NUMERIC;
        let timed = matches!(base, oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ);
        let (preset, policies) = (rules.policies.preset, Policies::default());
        let reach =
            Reach::of(&map_type(pg_type, &Terms { format: rules.format, preset, policies, server: rules.server }));
        // Of a value that is the server's text in Parquet too, no part has a type of Parquet's.
        let typed = parquet && reach == Reach::Decoded;
        let wide = |part: &PgType| {
            let digits = type_mapping::numeric_digits(part.typmod);
            part.base_oid == oid::NUMERIC && digits.is_none_or(|(precision, _)| precision > 38)
        };
        let stamp = |part: &PgType| matches!(part.base_oid, oid::TIMESTAMP | oid::TIMESTAMPTZ);
        Self {
            value_errors: typed && (numeric || timed || nested),
            as_text: parquet,
            numeric: typed && reaches(pg_type, reach, &wide),
            char: reaches(pg_type, reach, &members::is_padded),
            replace: type_mapping::is_text(pg_type) || nested && members::holds_text(pg_type),
            bytes: reaches(pg_type, reach, &type_mapping::is_text),
            json_number: ndjson && (numeric || nested || matches!(base, oid::INT8 | oid::JSON | oid::JSONB)),
            json_nan: ndjson && reaches(pg_type, reach, &members::is_number),
            nested: nested && !ndjson,
            timestamp: typed && reaches(pg_type, reach, &stamp),
            raw: rules.format == Format::Csv && rules.policies.default.formula_guard,
        }
    }

    /// The choices as a person writes them.
    fn words(&self) -> String {
        let all = [
            ("error", self.value_errors || self.replace || self.json_nan),
            ("null", self.value_errors || self.json_nan),
            ("text", self.as_text || self.nested),
            ("json", self.nested),
            ("decimal(P,S)", self.numeric),
            ("double", self.numeric),
            ("keep", self.char),
            ("trim", self.char),
            ("replace", self.replace),
            ("bytes", self.bytes),
            ("number", self.json_number),
            ("string", self.json_number),
            ("round", self.timestamp),
            ("raw", self.raw),
        ];
        let words: Vec<&str> = all.iter().filter(|(_, takes)| *takes).map(|(word, _)| *word).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

#[cfg(test)]
mod tests;
