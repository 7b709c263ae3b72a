//! Which tables a pattern of a job means, and which of its exports are wanted.

use crate::base::glob;
use crate::config::ConfigError;
use crate::config::options::nearest;
use crate::export::job::JobExport;
use crate::export::request::ExportRequest;
use crate::model::ListedRelation;

/// Which exports of a job are wanted, by patterns of their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobChoice {
    /// These; all where there are none.
    pub(crate) only: Vec<String>,
    /// But not these.
    pub(crate) except: Vec<String>,
}

/// Whether a table is one that a name or a pattern means.
pub(super) fn means(pattern: &str, relation: &ListedRelation) -> bool {
    glob::means(pattern, &name_for(pattern, relation))
}

/// The name of a table as a pattern has it: with its schema where that has one.
fn name_for(pattern: &str, relation: &ListedRelation) -> String {
    if pattern.contains('.') { format!("{}.{}", relation.schema, relation.name) } else { relation.name.clone() }
}

/// Refuses a name of `except` that no table has and one nearly has: what it stands for would go out. Where none is near, the
/// table is gone, and the others are exported.
pub(super) fn all_there(except: &[String], pattern: &str, meant: &[&ListedRelation]) -> Result<(), (String, String)> {
    let is_idle = |except: &&String| !glob::is_pattern(except) && !meant.iter().any(|relation| means(except, relation));
    for except in except.iter().filter(is_idle) {
        let names: Vec<String> = meant.iter().map(|relation| name_for(except, relation)).collect();
        let known = || names.iter().map(String::as_str);
        let what = format!("except names {except:?}, which is no table that {pattern:?} means");
        let near = known().find(|name| name.eq_ignore_ascii_case(except)).or_else(|| nearest(except, known()));
        if let Some(near) = near {
            return Err((what, format!("did you mean {near}? Capitals count where there is no * or ?")));
        }
        tracing::warn!("{what}: take it out of except, or correct it");
    }
    Ok(())
}

/// Those that are wanted, and what the others ask for.
pub(super) fn chosen(
    exports: Vec<(JobExport, String)>,
    choice: &JobChoice,
) -> Result<(Vec<JobExport>, Vec<ExportRequest>), Vec<ConfigError>> {
    let means = |pattern: &String, name: &str| glob::means(pattern, name);
    let idle = |flag: &str, patterns: &[String]| {
        let idle = patterns.iter().filter(|pattern| !exports.iter().any(|(export, _)| means(pattern, &export.name)));
        idle.map(|pattern| ConfigError::new(format!("--{flag} {pattern}: no export is called so"), known(&exports)))
            .collect::<Vec<_>>()
    };
    let mut errors = idle("only", &choice.only);
    errors.extend(idle("except", &choice.except));
    let wanted = |name: &str| {
        (choice.only.is_empty() || choice.only.iter().any(|pattern| means(pattern, name)))
            && !choice.except.iter().any(|pattern| means(pattern, name))
    };
    let any = exports.iter().any(|(export, _)| wanted(&export.name));
    if !any && !exports.is_empty() && errors.is_empty() {
        errors.push(ConfigError::new("--only and --except leave no export", known(&exports)));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let (chosen, others): (Vec<_>, Vec<_>) =
        exports.into_iter().map(|(export, _)| export).partition(|export| wanted(&export.name));
    Ok((chosen, others.into_iter().map(|export| export.request).collect()))
}

fn known(exports: &[(JobExport, String)]) -> String {
    let names: Vec<&str> = exports.iter().map(|(export, _)| export.name.as_str()).collect();
    format!("the exports are {}", names.join(", "))
}
