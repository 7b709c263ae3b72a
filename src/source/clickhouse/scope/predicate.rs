//! A scope as one condition.

use super::super::lexer;
use super::super::names::{self, quoted};
use super::super::types::ChType;
use super::error::ChScopeError;
use super::literal::{ScopeType, literal};
use super::moment::{FIRST_DAY, LAST_DAY, day_literal, end_of_bucket, holds, is_short, moment_literal};
use crate::base::failpoint;
use crate::base::text::moment::{written_day, written_moment};
use crate::model::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, TenantScope};

/// The most characters of a pattern.
pub(super) const LIKE_CHARACTERS_MAX: usize = 200;

/// The most signs `%` in a pattern: each may be tried at every place of a text.
pub(super) const LIKE_WILDCARDS_MAX: usize = 10;

/// What stands for the tenant in the operator's condition.
const TENANT: &str = "tenant";

/// Ends a condition that no row fulfils.
const NO_ROWS: &str = "\nAND 0";

/// No row.
const NONE: &str = "0";

/// The condition that all rows of a scope fulfil, and no others; `None` where there is none.
///
/// # Errors
/// A tenant that is empty, and whatever cannot be made SQL.
pub(crate) fn predicate(scope: &RowScope) -> Result<Option<String>, ChScopeError> {
    let tenant = scope.tenant.as_ref().map(tenant).transpose()?;
    let conditions = scope.conditions.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<String> = tenant.into_iter().chain(conditions).map(|condition| format!("({condition})")).collect();
    Ok((!all.is_empty()).then(|| all.join("\n  AND ")))
}

/// A condition that no row fulfils, and in which the tenant's column is compared with a tenant.
///
/// # Errors
/// As [`predicate`].
pub(crate) fn without_rows(scope: Option<&TenantScope>) -> Result<String, ChScopeError> {
    let Some(scope) = scope else { return Ok(NONE.to_owned()) };
    let of = tenant_type(scope)?;
    Ok(format!("({}){NO_ROWS}", filled(scope, of.sample(), &of)?))
}

/// The same without what makes it a condition of no rows, by which the server compares types.
pub(crate) fn trial(without_rows: &str) -> Option<&str> {
    without_rows.strip_suffix(NO_ROWS)
}

/// The operator's condition with the tenant's value in it.
fn tenant(scope: &TenantScope) -> Result<String, ChScopeError> {
    if scope.tenant.trim().is_empty() {
        return Err(ChScopeError::NoTenant);
    }
    filled(scope, &scope.tenant, &tenant_type(scope)?)
}

fn tenant_type(scope: &TenantScope) -> Result<ScopeType, ChScopeError> {
    let known = ScopeType::parse(&scope.type_name).filter(ScopeType::is_scalar);
    known.ok_or_else(|| ChScopeError::TenantType(scope.type_name.clone()))
}

fn filled(scope: &TenantScope, value: &str, of: &ScopeType) -> Result<String, ChScopeError> {
    let flaw = |why: crate::source::SourceError| ChScopeError::Text(why.message);
    let template = lexer::check("the tenant's condition", &scope.template).map_err(flaw)?;
    let places = lexer::placeholders(template, TENANT).map_err(ChScopeError::Text)?;
    if places.is_empty() {
        return Err(ChScopeError::NoPlaceholder);
    }
    // A constant text would be read as whatever stands beside it: 2^64 + 44 is 44 to a column of UInt64. A text of a column
    // is compared with texts alone.
    let literal = literal(value, of, TENANT)?;
    let value =
        if failpoint::off("typed_tenant") { format!("({literal})") } else { format!("(materialize({literal}))") };
    let (mut sql, mut at) = ("\n".to_owned(), 0);
    for place in places {
        sql.push_str(template.get(at..place.start).unwrap_or_default());
        sql.push_str(&value);
        at = place.end;
    }
    sql.push_str(template.get(at..).unwrap_or_default());
    sql.push('\n');
    Ok(sql)
}

fn condition(ScopeCondition { column, test }: &ScopeCondition) -> Result<String, ChScopeError> {
    let side = ChSide::of(column)?;
    Ok(match test {
        ScopeTest::Equal(value) => side.compared("=", value)?,
        ScopeTest::NotEqual(value) => side.compared("!=", value)?,
        ScopeTest::Less(value) => side.compared("<", value)?,
        ScopeTest::LessOrEqual(value) => side.compared("<=", value)?,
        ScopeTest::Greater(value) => side.compared(">", value)?,
        ScopeTest::GreaterOrEqual(value) => side.compared(">=", value)?,
        ScopeTest::In(values) if values.is_empty() => NONE.to_owned(),
        ScopeTest::In(values) => side.among(values)?,
        ScopeTest::Between(from, to) => both(&side.compared(">=", from)?, &side.compared("<=", to)?),
        ScopeTest::IsNull => format!("isNull({})", side.operand),
        ScopeTest::IsNotNull => format!("isNotNull({})", side.operand),
        ScopeTest::Like(pattern) => side.like(pattern)?,
        ScopeTest::DateRange { from, to } => side.days(from.as_deref(), to.as_deref())?,
        ScopeTest::Bucket { unit, start } => side.bucket(*unit, start)?,
    })
}

fn both(one: &str, other: &str) -> String {
    format!("({one}) AND ({other})")
}

/// A column as it stands in SQL: its name, or the operator's expression.
///
/// # Errors
/// [`ChScopeError::Text`].
pub(super) fn operand(column: &ScopeColumn) -> Result<String, ChScopeError> {
    match &column.sql {
        Some(sql) => {
            let sql =
                lexer::check(&format!("column {}", column.name), sql).map_err(|why| ChScopeError::Text(why.message))?;
            Ok(format!("(\n{sql}\n)"))
        }
        None if column.name.contains('\0') => Err(ChScopeError::Nul),
        None => Ok(quoted(&column.name)),
    }
}

/// A column, and how its values are compared.
pub(super) struct ChSide<'a> {
    column: &'a ScopeColumn,
    pub(super) operand: String,
    pub(super) of: ScopeType,
}

impl<'a> ChSide<'a> {
    pub(super) fn of(column: &'a ScopeColumn) -> Result<Self, ChScopeError> {
        let not_chosen =
            || ChScopeError::NotChosen { column: column.name.clone(), type_name: column.type_name.clone() };
        let of = ScopeType::parse(&column.type_name).ok_or_else(not_chosen)?;
        let operand = operand(column)?;
        // The names of an enum, and not its numbers; one that it does not have is no row.
        let operand = if of.ch_type == ChType::Enum { format!("toString({operand})") } else { operand };
        Ok(Self { column, operand, of })
    }

    fn value(&self, text: &str) -> Result<String, ChScopeError> {
        literal(text, &self.of, &self.column.name)
    }

    /// Whether a value is one of the type's kind that no column of it holds. Such a one is no row's, and must not reach the
    /// server as a member of a set, nor as an equality, which it makes a set of: there it becomes a value of the column.
    fn is_nobodys(&self, value: &str) -> bool {
        let day = || written_day(value);
        let moment = || written_moment(value);
        match self.of.ch_type {
            ChType::Date => !self.of.is_long() && day().is_some_and(|day| !is_short(day)),
            ChType::DateTime => moment().is_some_and(|moment| !holds(moment, None)),
            ChType::DateTime64 { scale } => moment().is_some_and(|moment| !holds(moment, Some(scale))),
            _ => false,
        }
    }

    fn compared(&self, sign: &str, value: &str) -> Result<String, ChScopeError> {
        let literal = self.value(value)?;
        match sign {
            "=" if self.is_nobodys(value) => return Ok(NONE.to_owned()),
            "!=" if self.is_nobodys(value) => return Ok(format!("isNotNull({})", self.operand)),
            _ => {}
        }
        if self.of.is_float() && value.to_ascii_lowercase().ends_with("nan") {
            return match sign {
                "=" => Ok(format!("isNaN({})", self.operand)),
                "!=" => Ok(format!("NOT isNaN({})", self.operand)),
                _ => Err(ChScopeError::NotOrdered),
            };
        }
        Ok(format!("{} {sign} {literal}", self.operand))
    }

    fn among(&self, values: &[String]) -> Result<String, ChScopeError> {
        let literals =
            values.iter().map(|value| Ok((value, self.value(value)?))).collect::<Result<Vec<_>, ChScopeError>>()?;
        let held: Vec<(&String, String)> = literals.into_iter().filter(|(value, _)| !self.is_nobodys(value)).collect();
        if held.is_empty() {
            return Ok(NONE.to_owned());
        }
        // The members of a set take the column's type.
        if self.of.is_float() || matches!(self.of.ch_type, ChType::DateTime64 { .. }) {
            let each = held.iter().map(|(value, _)| self.compared("=", value)).collect::<Result<Vec<_>, _>>()?;
            return Ok(each.join(" OR "));
        }
        let set: Vec<String> = held.into_iter().map(|(_, literal)| literal).collect();
        Ok(format!("{} IN ({})", self.operand, set.join(", ")))
    }

    fn like(&self, pattern: &str) -> Result<String, ChScopeError> {
        let wildcards = pattern.matches('%').count();
        if pattern.chars().count() > LIKE_CHARACTERS_MAX || wildcards > LIKE_WILDCARDS_MAX {
            return Err(ChScopeError::Pattern);
        }
        if pattern.contains('\0') {
            return Err(ChScopeError::Nul);
        }
        if !self.of.is_scalar() {
            return Err(ChScopeError::NotChosen {
                column: self.column.name.clone(),
                type_name: self.column.type_name.clone(),
            });
        }
        // A backslash takes the meaning from whatever follows, and not only from what has one.
        let (mut plain, mut letters) = (String::new(), pattern.chars());
        while let Some(letter) = letters.next() {
            let (escaped, letter) = match letter {
                '\\' => (true, letters.next().ok_or(ChScopeError::OpenPattern)?),
                other => (false, other),
            };
            if escaped && matches!(letter, '%' | '_' | '\\') {
                plain.push('\\');
            }
            plain.push(letter);
        }
        let text = match self.of.ch_type {
            ChType::Text | ChType::Enum => self.operand.clone(),
            _ => format!("toString({})", self.operand),
        };
        Ok(format!("{text} LIKE {}", names::literal(&plain)))
    }

    fn no_days(&self) -> ChScopeError {
        ChScopeError::NoDays(self.column.name.clone())
    }

    /// Rows between two days, all of both in it.
    fn days(&self, from: Option<&str>, to: Option<&str>) -> Result<String, ChScopeError> {
        if !self.of.has_days() {
            return Err(self.no_days());
        }
        let day = |text: &str| written_day(text).ok_or(ChScopeError::Day);
        let (from, to) = (from.map(day).transpose()?, to.map(day).transpose()?);
        if from.is_none() && to.is_none() {
            return Err(ChScopeError::NoRange);
        }
        if from.is_some_and(|day| day > LAST_DAY) || to.is_some_and(|day| day < FIRST_DAY) {
            return Ok(NONE.to_owned());
        }
        // Days that the server does not have are beyond all that a column holds.
        let from = from.filter(|day| *day > FIRST_DAY);
        let to = to.filter(|day| *day < LAST_DAY);
        let conditions = if self.of.has_moments() {
            let midnight = |day: chrono::NaiveDate| moment_literal(day.and_time(chrono::NaiveTime::MIN));
            let next = to.and_then(|day| day.succ_opt());
            [(">=", from.and_then(midnight)), ("<", next.and_then(midnight))]
        } else {
            let day = |day| day_literal(day, self.of.is_long());
            [(">=", from.and_then(day)), ("<=", to.and_then(day))]
        };
        Ok(self.all(conditions))
    }

    fn all(&self, conditions: [(&str, Option<String>); 2]) -> String {
        let conditions = conditions.into_iter().filter_map(|(sign, value)| Some((sign, value?)));
        let mut found: Vec<String> =
            conditions.map(|(sign, value)| format!("({} {sign} {value})", self.operand)).collect();
        if found.is_empty() {
            found.push(format!("isNotNull({})", self.operand));
        }
        found.join(" AND ")
    }

    /// Rows from the first moment of a bucket up to the next one's.
    fn bucket(&self, unit: BucketUnit, start: &str) -> Result<String, ChScopeError> {
        if !self.of.has_days() {
            return Err(self.no_days());
        }
        let first = written_moment(start).ok_or(ChScopeError::Moment)?;
        let moments = self.of.has_moments();
        // One of hours over days is as long as a day.
        let unit = if !moments && unit == BucketUnit::Hour { BucketUnit::Day } else { unit };
        let next = end_of_bucket(first, unit).filter(|next| next.date() <= LAST_DAY);
        let literal = |moment: chrono::NaiveDateTime| {
            if moments { moment_literal(moment) } else { day_literal(moment.date(), self.of.is_long()) }
        };
        let from = literal(first).ok_or(ChScopeError::Moment)?;
        Ok(self.all([(">=", Some(from)), ("<", next.and_then(literal))]))
    }
}
