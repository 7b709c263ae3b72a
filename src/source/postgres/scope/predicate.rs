//! A scope as one condition.

use chrono::NaiveDate;

use super::error::ScopeError;
use super::literal::{literal, of_type};
use super::type_name::{Family, SqlType};
use crate::base::text::moment::written_day;
use crate::model::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, TenantScope};
use crate::source::postgres::plan::clocks::special::is_special_time;
use crate::source::postgres::plan::{check_expression, check_predicate, placeholders};
use crate::source::postgres::session::identifier;

/// The most characters of a pattern.
pub(super) const LIKE_CHARACTERS_MAX: usize = 200;

/// The most signs `%` in a pattern: each may be tried at every place of a text.
pub(super) const LIKE_WILDCARDS_MAX: usize = 10;

/// What stands for the tenant in the operator's condition.
const TENANT: &str = "{tenant}";

/// The condition that all rows of a scope fulfil, and no others; `None` where there is none.
///
/// # Errors
/// A tenant that is empty, and whatever cannot be made SQL.
pub(crate) fn predicate(scope: &RowScope) -> Result<Option<String>, ScopeError> {
    let tenant = scope.tenant.as_ref().map(tenant).transpose()?;
    let conditions = scope.conditions.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<String> = tenant.into_iter().chain(conditions).map(|condition| format!("({condition})")).collect();
    Ok((!all.is_empty()).then(|| all.join("\n  AND ")))
}

/// A condition that no row fulfils, with a tenant who is nobody in it.
///
/// # Errors
/// As [`predicate`].
pub(crate) fn without_rows(scope: Option<&TenantScope>) -> Result<String, ScopeError> {
    let Some(scope) = scope else { return Ok("false".to_owned()) };
    let sql_type = SqlType::parse(&scope.type_name)?.sql;
    Ok(format!("({}) AND false", filled(scope, &format!("NULL::{sql_type}"))?))
}

/// The operator's condition with the tenant's value in it.
fn tenant(scope: &TenantScope) -> Result<String, ScopeError> {
    if scope.tenant.trim().is_empty() {
        return Err(ScopeError::NoTenant);
    }
    filled(scope, &of_type(&scope.tenant, &SqlType::parse(&scope.type_name)?)?)
}

fn filled(scope: &TenantScope, value: &str) -> Result<String, ScopeError> {
    check_predicate(&scope.template)?;
    let places = placeholders(&scope.template, TENANT)?;
    if places.is_empty() {
        return Err(ScopeError::NoPlaceholder);
    }
    let (mut sql, mut at) = ("\n".to_owned(), 0);
    for place in places {
        sql.push_str(&scope.template[at..place]);
        // In parentheses: behind another string it would go on with that one.
        sql.extend(["(", value, ")"]);
        at = place + TENANT.len();
    }
    sql.push_str(&scope.template[at..]);
    sql.push('\n');
    Ok(sql)
}

fn condition(ScopeCondition { column, test }: &ScopeCondition) -> Result<String, ScopeError> {
    let side = Side::of(column)?;
    Ok(match test {
        ScopeTest::Equal(value) => side.compared("=", value)?,
        ScopeTest::NotEqual(value) => side.compared("<>", value)?,
        ScopeTest::Less(value) => side.compared("<", value)?,
        ScopeTest::LessOrEqual(value) => side.compared("<=", value)?,
        ScopeTest::Greater(value) => side.compared(">", value)?,
        ScopeTest::GreaterOrEqual(value) => side.compared(">=", value)?,
        ScopeTest::In(values) if values.is_empty() => "false".to_owned(),
        ScopeTest::In(values) if side.sql_type.is_array() => {
            // An array of arrays is one array.
            let each = values.iter().map(|value| side.compared("=", value)).collect::<Result<Vec<_>, _>>()?;
            each.join(" OR ")
        }
        ScopeTest::In(values) => {
            let values = values.iter().map(|value| side.value(value)).collect::<Result<Vec<_>, _>>()?;
            format!("{} {} ANY (ARRAY[{}])", side.operand, side.operator("="), values.join(", "))
        }
        ScopeTest::Between(from, to) => both(&side.compared(">=", from)?, &side.compared("<=", to)?),
        // Beside a plain NULL no operator is looked for, and a composite value whose fields are NULL is none.
        ScopeTest::IsNull => format!("{} IS NOT DISTINCT FROM NULL", side.operand),
        ScopeTest::IsNotNull => format!("{} IS DISTINCT FROM NULL", side.operand),
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
/// [`ScopeError::Text`].
pub(crate) fn operand(column: &ScopeColumn) -> Result<String, ScopeError> {
    match &column.sql {
        Some(sql) => {
            check_expression(&column.name, sql)?;
            Ok(format!("(\n{sql}\n)"))
        }
        None if column.name.contains('\0') => Err(ScopeError::Nul),
        None => Ok(identifier(&column.name)),
    }
}

/// The first moment of the bucket that a column's value falls into.
///
/// # Errors
/// [`ScopeError::NoDays`] where it holds no dates.
pub(crate) fn bucketed(column: &ScopeColumn, unit: BucketUnit) -> Result<String, ScopeError> {
    let Side { operand, sql_type, .. } = Side::of(column)?;
    let unit = word(unit);
    Ok(match sql_type.family {
        Family::Date => {
            format!("pg_catalog.date_trunc('{unit}', {operand}::pg_catalog.timestamp)::pg_catalog.date")
        }
        Family::Timestamp => format!("pg_catalog.date_trunc('{unit}', {operand})"),
        Family::TimestampTz => format!("pg_catalog.date_trunc('{unit}', {operand}, 'UTC')"),
        _ => return Err(ScopeError::NoDays(column.name.clone())),
    })
}

fn word(unit: BucketUnit) -> &'static str {
    match unit {
        BucketUnit::Hour => "hour",
        BucketUnit::Day => "day",
        BucketUnit::Week => "week",
        BucketUnit::Month => "month",
        BucketUnit::Quarter => "quarter",
        BucketUnit::Year => "year",
    }
}

/// How long a bucket is. One of hours over days is as long as a day.
fn length(unit: BucketUnit, family: Family) -> &'static str {
    match unit {
        BucketUnit::Hour if family != Family::Date => "1 hour",
        BucketUnit::Hour | BucketUnit::Day => "1 day",
        BucketUnit::Week => "7 days",
        BucketUnit::Month => "1 mon",
        BucketUnit::Quarter => "3 mons",
        BucketUnit::Year => "1 year",
    }
}

/// A column, and how its values are compared.
struct Side<'a> {
    column: &'a ScopeColumn,
    operand: String,
    sql_type: SqlType,
}

impl<'a> Side<'a> {
    fn of(column: &'a ScopeColumn) -> Result<Self, ScopeError> {
        let (operand, sql_type) = (operand(column)?, SqlType::parse(&column.type_name)?);
        let cut = sql_type.family == Family::AsText;
        Ok(Self { column, operand: if cut { format!("{operand}::pg_catalog.text") } else { operand }, sql_type })
    }

    fn value(&self, text: &str) -> Result<String, ScopeError> {
        if self.column.holds_times && is_special_time(text) {
            return Err(ScopeError::Clock(self.column.name.clone()));
        }
        of_type(text, &self.sql_type)
    }

    fn operator(&self, sign: &str) -> String {
        let schema = self.column.operators.as_deref().unwrap_or("pg_catalog");
        format!("OPERATOR({}.{sign})", identifier(schema))
    }

    fn compared(&self, sign: &str, value: &str) -> Result<String, ScopeError> {
        Ok(format!("{} {} {}", self.operand, self.operator(sign), self.value(value)?))
    }

    fn like(&self, pattern: &str) -> Result<String, ScopeError> {
        let wildcards = pattern.matches('%').count();
        if pattern.chars().count() > LIKE_CHARACTERS_MAX || wildcards > LIKE_WILDCARDS_MAX {
            return Err(ScopeError::Pattern);
        }
        let closing = pattern.chars().rev().take_while(|character| *character == '\\').count();
        if closing % 2 == 1 {
            return Err(ScopeError::OpenPattern);
        }
        let pattern = literal(pattern, "text")?;
        Ok(format!("{}::pg_catalog.text OPERATOR(pg_catalog.~~) {pattern}", self.operand))
    }

    /// Rows between two days, all of both in it.
    fn days(&self, from: Option<&str>, to: Option<&str>) -> Result<String, ScopeError> {
        let family = self.sql_type.family;
        if !matches!(family, Family::Date | Family::Timestamp | Family::TimestampTz) {
            return Err(ScopeError::NoDays(self.column.name.clone()));
        }
        let (sign, later) = if family == Family::Date { ("<=", 0) } else { ("<", 1) };
        let from = from.map(|day| midnight(day, 0, family)).transpose()?.map(|day| self.after(">=", &day));
        let to = to.map(|day| midnight(day, later, family)).transpose()?.map(|day| self.after(sign, &day));
        match (from, to) {
            (Some(from), Some(to)) => Ok(both(&from, &to)),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (None, None) => Err(ScopeError::NoRange),
        }
    }

    fn after(&self, sign: &str, moment: &str) -> String {
        format!("{} OPERATOR(pg_catalog.{sign}) {moment}", self.operand)
    }

    /// Rows from the first moment of a bucket up to the next one's.
    fn bucket(&self, unit: BucketUnit, start: &str) -> Result<String, ScopeError> {
        let first = self.value(start)?;
        if start.trim_start_matches('-') == "infinity" {
            return Ok(self.after("=", &first));
        }
        let length = format!("'{}'::pg_catalog.interval", length(unit, self.sql_type.family));
        let next = match self.sql_type.family {
            Family::Date => {
                format!("({first}::pg_catalog.timestamp OPERATOR(pg_catalog.+) {length})::pg_catalog.date")
            }
            Family::Timestamp => format!("({first} OPERATOR(pg_catalog.+) {length})"),
            // Months and days of a moment are those of the session's time zone, but of a timestamp they are days.
            Family::TimestampTz => format!(
                "pg_catalog.timezone('UTC', pg_catalog.timezone('UTC', {first}) OPERATOR(pg_catalog.+) {length})"
            ),
            _ => return Err(ScopeError::NoDays(self.column.name.clone())),
        };
        Ok(both(&self.after(">=", &first), &self.after("<", &next)))
    }
}

/// The first moment of a day, so many days later, in UTC.
fn midnight(day: &str, later: u64, family: Family) -> Result<String, ScopeError> {
    let day = written_day(day).ok_or(ScopeError::Day)?;
    // There is no year 0 in SQL.
    let day = day.checked_add_days(chrono::Days::new(later)).filter(|_| day >= FIRST_DAY).ok_or(ScopeError::Day)?;
    let day = day.format("%Y-%m-%d").to_string();
    Ok(match family {
        Family::Date => format!("'{day}'::pg_catalog.date"),
        Family::TimestampTz => format!("'{day} 00:00:00+00'::pg_catalog.timestamptz"),
        _ => format!("'{day} 00:00:00'::pg_catalog.timestamp"),
    })
}

const FIRST_DAY: NaiveDate = match NaiveDate::from_ymd_opt(1, 1, 1) {
    Some(day) => day,
    None => NaiveDate::MIN,
};
