//! The names and patterns of `--protect` over all exports of a run: some may be meant for one of its tables alone.

use std::collections::BTreeMap;

use super::error::ExportError;
use super::request::ExportRequest;
use super::run::Run;
use crate::base::words::counted;
use crate::model::{AbsentColumn, ColumnPlan, ExportErrorKind, Plan, ProtectOptions, ProtectRule};
use crate::source::Reading;

/// Columns and what is to protect them, of one export.
pub(super) struct NamedColumns<'a> {
    pub(super) protect: Option<&'a ProtectOptions>,
    /// `None` where nobody knows them: the export has ended, or cannot be planned.
    pub(super) columns: Option<&'a [ColumnPlan]>,
}

/// What is known of a rule.
#[derive(Default)]
struct RuleFound {
    found: bool,
    /// An export has it whose columns nobody knows.
    unsure: bool,
}

/// [`check`] for exports that are planned under one moment: those at `places` among the runs, in the order of their relations.
///
/// # Errors
/// As [`check`].
pub(super) fn check_planned(
    runs: &[&Run],
    places: impl Iterator<Item = usize>,
    reading: &dyn Reading,
    more: bool,
) -> Result<(), ExportError> {
    let planned = places.enumerate().filter_map(|(relation, place)| Some((*runs.get(place)?, reading.plan(relation))));
    let planned: Vec<_> = planned.collect();
    check(planned.iter().map(|(run, plan)| NamedColumns::of(&run.request, plan.as_deref())), more)
}

/// Tells of what is for no column, of exports that were planned one by one and have ended.
pub(super) fn tell_of_idle(runs: &[&Run]) {
    let of_run = |run: &&Run| {
        let columns = run.protectable.get().cloned();
        (run.request.commit.protect.clone(), columns)
    };
    let all: Vec<_> = runs.iter().map(of_run).collect();
    let named =
        all.iter().map(|(protect, columns)| NamedColumns { protect: protect.as_ref(), columns: columns.as_deref() });
    // What is to be refused was, by each export.
    let _ = check(named, true);
}

impl<'a> NamedColumns<'a> {
    /// Those of a request and its plan.
    pub(super) fn of(request: &'a ExportRequest, plan: Option<&'a Plan>) -> Self {
        Self { protect: request.commit.protect.as_ref(), columns: plan.map(|plan| plan.columns.as_slice()) }
    }
}

/// Refuses a name that every export lacks which has the rule, and tells of whatever else is for no column, once. With
/// `more` there are exports of the run that are not among these.
///
/// # Errors
/// [`ExportErrorKind::Usage`].
pub(super) fn check<'a>(exports: impl IntoIterator<Item = NamedColumns<'a>>, more: bool) -> Result<(), ExportError> {
    let mut rules: BTreeMap<(AbsentColumn, &str, bool), RuleFound> = BTreeMap::new();
    for NamedColumns { protect, columns } in exports {
        for rule in protect.into_iter().flat_map(|protect| &protect.rules) {
            let ProtectRule { name, pattern, absent, .. } = rule;
            let seen = rules.entry((*absent, name, *pattern)).or_default();
            seen.found |= columns.is_some_and(|columns| rule.is_for_some(columns));
            seen.unsure |= columns.is_none();
        }
    }
    let (mut refused, mut told) = (Vec::new(), Vec::new());
    for ((absent, name, pattern), RuleFound { found, unsure }) in rules {
        match absent {
            _ if found => {}
            // Its export is refused by itself.
            AbsentColumn::Refused => {}
            AbsentColumn::RefusedByAll(_) if !unsure && !more => refused.push(format!("{name:?}")),
            AbsentColumn::RefusedByAll(_) | AbsentColumn::Told => told.push((name, pattern)),
        }
    }
    if !refused.is_empty() {
        let message =
            format!("--protect names {} that no export has: {}", counted(refused.len(), "column"), refused.join(", "));
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint(
            "name a column as it is called in the output of one of the exports; a pattern of --protect-file may match none",
        ));
    }
    let names = |patterns: bool| {
        let of_kind = told.iter().filter(|(_, pattern)| *pattern == patterns).map(|(name, _)| *name);
        let names = of_kind.collect::<Vec<&str>>().join(", ");
        (!names.is_empty()).then_some(names)
    };
    if let Some(patterns) = names(true) {
        tracing::warn!(patterns, "--protect-file: no column has such a name");
    }
    if let Some(names) = names(false) {
        tracing::warn!(names, "--protect: no column has this name in what is read now");
    }
    Ok(())
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

    #[test]
    fn a_name_is_refused_where_no_export_has_it() {
        let (all, other) = (AbsentColumn::RefusedByAll(0), AbsentColumn::RefusedByAll(1));
        let [id, email] = ["id", "email"].map(|name| [column(name, Carrier::Text)]);
        for (exports, more, refused) in [
            (vec![(all, Some(&id)), (all, Some(&email))], false, false),
            (vec![(all, Some(&id)), (all, Some(&id))], false, true),
            // Who is to be refused by himself is.
            (vec![(AbsentColumn::Refused, Some(&id))], false, false),
            (vec![(AbsentColumn::Told, Some(&id))], false, false),
            // Another place in the job file has a name of its own.
            (vec![(all, Some(&id)), (other, Some(&email))], false, true),
            // Nobody knows what the third would have had.
            (vec![(all, Some(&id)), (all, None)], false, false),
            (vec![(all, Some(&id))], true, false),
        ] {
            let rules: Vec<_> = exports.iter().map(|(absent, _)| rule("email", *absent)).collect();
            let named = exports.iter().zip(&rules).map(|((_, columns), protect)| NamedColumns {
                protect: Some(protect),
                columns: columns.map(<[ColumnPlan; 1]>::as_slice),
            });
            assert_eq!(check(named, more).is_err(), refused, "{exports:?} {more}");
        }
    }
}
