//! The names and patterns of `--protect` over all exports of a run: some may be meant for one of its tables alone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::error::ExportError;
use super::job::relation;
use super::request::ExportRequest;
use super::run::Run;
use crate::base::words::counted;
use crate::model::{
    AbsentColumn, ColumnPlan, ExportErrorKind, Plan, ProtectOptions, ProtectRule, ReadRequest, WorkOptions,
};
use crate::source::Reading;

/// Columns and what is to protect them, of one export.
#[derive(Clone, Copy)]
pub(super) struct NamedColumns<'a> {
    pub(super) protect: Option<&'a ProtectOptions>,
    pub(super) columns: &'a [ColumnPlan],
}

/// A rule by its name, and by what tells rules of different places in a job file apart.
type RuleName<'a> = (AbsentColumn, &'a str);

/// [`check`] for exports that are planned under one moment: those at `places` among the runs, in the order of their relations.
/// `beside` are those of the job that are not among the runs; `None` where only the process that began the run knew them, and
/// has checked the names over all.
///
/// # Errors
/// As [`check`], and where a column is gone that was there when the run began.
pub(super) async fn check_planned(
    runs: &[&Run],
    places: impl Iterator<Item = usize>,
    reading: &dyn Reading,
    beside: Option<&[ExportRequest]>,
) -> Result<(), ExportError> {
    let relations: BTreeMap<usize, usize> = places.enumerate().map(|(relation, place)| (place, relation)).collect();
    let plans: Vec<Option<Arc<Plan>>> =
        (0..runs.len()).map(|place| relations.get(&place).and_then(|relation| reading.plan(*relation))).collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for ((place, run), plan) in runs.iter().enumerate().zip(&plans) {
        let began_with = run.protectable.get().map(Vec::as_slice);
        if let (Some(plan), Some(before)) = (plan, began_with) {
            still_there(&run.request, before, &plan.columns)?;
        }
        let columns = plan.as_ref().map(|plan| plan.columns.as_slice());
        match columns.or(began_with.filter(|_| !relations.contains_key(&place))) {
            Some(columns) => known.push(NamedColumns { protect: run.request.commit.protect.as_ref(), columns }),
            None => unknown.push(&run.request),
        }
    }
    if let Some(beside) = beside {
        return check(&known, unknown.into_iter().chain(beside)).await;
    }
    tell_of_idle(known);
    Ok(())
}

/// Refuses a run that goes on where a rule was for a column that is called otherwise now, or is gone.
fn still_there(request: &ExportRequest, before: &[ColumnPlan], now: &[ColumnPlan]) -> Result<(), ExportError> {
    let rules = request.commit.protect.iter().flat_map(|protect| &protect.rules);
    let mut gone = rules.filter(|rule| !rule.pattern && rule.is_for_some(before) && !rule.is_for_some(now));
    let Some(rule) = gone.next() else { return Ok(()) };
    let message = format!(
        "--protect names the column {:?}, which {} had when the run began, and has no more",
        rule.name,
        relation(request)
    );
    Err(ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("name the column in the job file as it is called now, or begin a run with another --run-id"))
}

/// [`tell_of_idle`] of exports that were planned one by one and have ended.
pub(super) fn tell_of_ended(runs: &[&Run]) {
    let of_run = |run: &&Run| {
        let columns = run.protectable.get().cloned();
        (run.request.commit.protect.clone(), columns)
    };
    let all: Vec<_> = runs.iter().map(of_run).collect();
    let named = all.iter().map(|(protect, columns)| NamedColumns {
        protect: protect.as_ref(),
        columns: columns.as_deref().unwrap_or_default(),
    });
    tell_of_idle(named);
}

/// Tells of patterns that are for no column of any of the exports, once.
pub(super) fn tell_of_idle<'a>(exports: impl IntoIterator<Item = NamedColumns<'a>>) {
    let idle = idle(exports);
    let patterns: Vec<&str> =
        idle.into_iter().filter(|(absent, _)| *absent == AbsentColumn::Told).map(|(_, name)| name).collect();
    if !patterns.is_empty() {
        tracing::warn!(patterns = patterns.join(", "), "--protect-file: no column has such a name");
    }
}

impl<'a> NamedColumns<'a> {
    /// Those of a request and its plan.
    pub(super) fn of(request: &'a ExportRequest, plan: &'a Plan) -> Self {
        Self { protect: request.commit.protect.as_ref(), columns: &plan.columns }
    }
}

/// The rules that are for no column of any export that has them.
fn idle<'a>(exports: impl IntoIterator<Item = NamedColumns<'a>>) -> BTreeSet<RuleName<'a>> {
    let mut rules: BTreeMap<RuleName<'a>, bool> = BTreeMap::new();
    for NamedColumns { protect, columns } in exports {
        for rule in protect.into_iter().flat_map(|protect| &protect.rules) {
            *rules.entry((rule.absent, &rule.name)).or_default() |= rule.is_for_some(columns);
        }
    }
    rules.into_iter().filter_map(|(rule, found)| (!found).then_some(rule)).collect()
}

/// Refuses a name that no export has which has the rule, and tells of patterns that are for no column. The source is asked
/// for the columns of `unknown` exports where the others lack a name: what is not known to be of another table may be the
/// old name of a column that is published now.
///
/// # Errors
/// [`ExportErrorKind::Usage`]; where the source does not tell the columns of an export, its reason.
pub(super) async fn check<'a>(
    known: &[NamedColumns<'a>],
    unknown: impl Iterator<Item = &'a ExportRequest>,
) -> Result<(), ExportError> {
    // An export refuses by itself what it alone must have.
    let shared = |(absent, _): &RuleName<'_>| matches!(absent, AbsentColumn::RefusedByAll(_));
    let mut missing: BTreeSet<RuleName<'_>> = idle(known.iter().copied()).into_iter().filter(shared).collect();
    let mut why = None;
    if !missing.is_empty() {
        let has_one = |request: &&ExportRequest| rules_of(request).any(|rule| missing.contains(&of_rule(rule)));
        let asked: Vec<&ExportRequest> = unknown.filter(has_one).collect();
        for (request, plan) in asked.iter().zip(plans_of(&asked).await) {
            match plan {
                Ok(plan) => {
                    for rule in rules_of(request).filter(|rule| rule.is_for_some(&plan.columns)) {
                        missing.remove(&of_rule(rule));
                    }
                }
                Err(error) => why = why.or(Some((relation(request), error))),
            }
        }
    }
    if missing.is_empty() {
        tell_of_idle(known.iter().copied());
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|(_, name)| format!("{name:?}")).collect();
    let (columns, names) = (counted(names.len(), "column"), names.join(", "));
    Err(match why {
        None => {
            let message = format!("--protect names {columns} that no export has: {names}");
            ExportError::new(ExportErrorKind::Usage, message).with_hint(
                "name a column as it is called in the output of one of the exports; a pattern of --protect-file may match none",
            )
        }
        Some((relation, error)) => {
            let (kind, error) = (error.kind, error.sentence());
            let message = format!(
                "--protect names {columns} that no export is known to have: {names}; the columns of {relation} are not known: {error}"
            );
            ExportError::new(kind, message).with_hint(
                "mend that export, or name the column in the `protect` of its own [[export]]; a pattern of --protect-file may match none",
            )
        }
    })
}

fn rules_of(request: &ExportRequest) -> impl Iterator<Item = &ProtectRule> {
    request.commit.protect.iter().flat_map(|protect| &protect.rules)
}

fn of_rule(rule: &ProtectRule) -> RuleName<'_> {
    (rule.absent, &rule.name)
}

/// The plans of exports that are not to be read now, by sessions that are let go.
async fn plans_of(requests: &[&ExportRequest]) -> Vec<Result<Arc<Plan>, ExportError>> {
    let checked: Vec<Result<ReadRequest, ExportError>> = requests.iter().map(|request| of_columns(request)).collect();
    let asked: Vec<ReadRequest> = checked.iter().filter_map(|asked| asked.as_ref().ok().cloned()).collect();
    let (Some(first), false) = (requests.first(), asked.is_empty()) else {
        return checked.into_iter().map(|checked| Err(checked.err().unwrap_or_else(no_plan))).collect();
    };
    let begun = first.source.begin(asked).await.map_err(|error| first.told(error));
    let mut relations = 0..;
    let plan_of = |(checked, request): (Result<ReadRequest, ExportError>, &&ExportRequest)| {
        checked?;
        let relation = relations.next().ok_or_else(no_plan)?;
        let reading = begun.as_ref().map_err(ExportError::again)?;
        let why = || reading.refused(relation).map_or_else(no_plan, |error| request.told(error));
        reading.plan(relation).ok_or_else(why)
    };
    checked.into_iter().zip(requests).map(plan_of).collect()
}

/// What the source is asked for where the columns of an export are all that is wanted.
fn of_columns(request: &ExportRequest) -> Result<ReadRequest, ExportError> {
    let mut asked = ReadRequest { keep: false, watermark: None, ..request.read_request() };
    request.source.check(&mut asked.shape)?;
    asked.work = WorkOptions { readers: NonZeroUsize::MIN, cap: None, ..asked.work };
    Ok(asked)
}

fn no_plan() -> ExportError {
    ExportError::internal("the source planned nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples::column;
    use crate::model::{Carrier, Protection};

    fn rule(name: &str, absent: AbsentColumn) -> ProtectOptions {
        let (pattern, how) = (absent == AbsentColumn::Told, Protection::Drop);
        let rules = vec![ProtectRule { name: name.to_owned(), pattern, how, absent }];
        ProtectOptions { rules, ..ProtectOptions::default() }
    }

    #[tokio::test]
    async fn a_name_is_refused_where_no_export_has_it() {
        let (all, other) = (AbsentColumn::RefusedByAll(0), AbsentColumn::RefusedByAll(1));
        let [id, email] = ["id", "email"].map(|name| [column(name, Carrier::Text)]);
        for (exports, refused) in [
            (vec![(all, &id), (all, &email)], false),
            (vec![(all, &id), (all, &id)], true),
            (vec![(all, &id)], true),
            // Who is to be refused by himself is.
            (vec![(AbsentColumn::Refused, &id)], false),
            (vec![(AbsentColumn::Told, &id)], false),
            // Another place in the job file has a name of its own.
            (vec![(all, &id), (other, &email)], true),
        ] {
            let rules: Vec<_> = exports.iter().map(|(absent, _)| rule("email", *absent)).collect();
            let named = exports.iter().zip(&rules);
            let named: Vec<_> = named
                .map(|((_, columns), protect)| NamedColumns { protect: Some(protect), columns: *columns })
                .collect();
            assert_eq!(check(&named, std::iter::empty()).await.is_err(), refused, "{exports:?}");
        }
    }
}
