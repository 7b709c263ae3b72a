//! What stands at a destination before a run reads anything.

use bytes::Bytes;

use super::build::{is_source, output_schema, partition_columns, source_key};
use super::error::ManifestError;
use super::model::{FormatRecord, Manifest};
use super::placement::Placement;
use crate::base::cpu::on_rayon;
use crate::model::{FormatOptions, OnExisting, OutputRules, Plan, SourceIdentity};
use crate::store::{Destination, Version};

/// A manifest that stands at a destination.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Existing {
    pub(crate) manifest: Manifest,
    /// Which content it was read from: what a replacement depends on.
    pub(crate) version: Version,
    pub(crate) url: String,
}

/// What a run that is about to start is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StartDecision {
    /// Nothing is there: run, and commit by creating the manifest.
    Nothing,
    /// The run with the id that was given has committed: once planned, compare by [`Existing::same_request`], report,
    /// and exit as it did.
    SameRun(Box<Existing>),
    /// `--on-existing skip`: report it.
    Skip(Box<Existing>),
    /// `--on-existing replace`: run, and commit by replacing this one.
    Replace(Box<Existing>),
}

/// Reads the manifest that stands at a destination; `None` where there is none.
///
/// # Errors
/// [`ManifestError::Look`] where the destination does not answer, [`ManifestError::Decode`] where what is there is no
/// manifest that this build can read.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn look(destination: &Destination, placement: &Placement) -> Result<Option<Existing>, ManifestError> {
    let path = placement.manifest_path();
    let Some(small) = destination.read(&path).await.map_err(ManifestError::Look)? else { return Ok(None) };
    let url = destination.object_url(&path);
    let manifest = decode(small.bytes, &url).await?;
    Ok(Some(Existing { manifest, version: small.version, url }))
}

/// Looks at the destination, and decides.
///
/// `given_run_id` is the id of `--run-id`, where it was given: a retry of a run that has committed is reported whatever
/// `on_existing` says.
///
/// # Errors
/// As [`look`]; [`ManifestError::Taken`] where `on_existing` is `fail` and somebody's manifest stands;
/// [`ManifestError::Occupied`] where the single file is there without a manifest and is not to be replaced.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn before_run(
    destination: &Destination,
    placement: &Placement,
    on_existing: OnExisting,
    given_run_id: Option<&str>,
) -> Result<StartDecision, ManifestError> {
    let Some(existing) = look(destination, placement).await? else {
        if let (Placement::Single { name }, OnExisting::Fail | OnExisting::Skip) = (placement, on_existing)
            && destination.head(name).await.map_err(ManifestError::Look)?.is_some()
        {
            return Err(ManifestError::Occupied { object: destination.object_url(name) });
        }
        return Ok(StartDecision::Nothing);
    };
    let existing = Box::new(existing);
    if given_run_id == Some(existing.manifest.run_id.as_str()) {
        return Ok(StartDecision::SameRun(existing));
    }
    match on_existing {
        OnExisting::Fail => Err(ManifestError::Taken { object: existing.url, run_id: existing.manifest.run_id }),
        OnExisting::Skip => Ok(StartDecision::Skip(existing)),
        OnExisting::Replace => Ok(StartDecision::Replace(existing)),
    }
}

impl Existing {
    /// Whether this manifest is of the request that is planned now: what was read, from which database, by which predicate
    /// and key, with which columns, format and cap. How the work was split may differ. `differs` are fields of the request
    /// that are not the plan's, with whether they differ.
    ///
    /// # Errors
    /// [`ManifestError::OtherRequest`] names the fields that differ.
    pub(crate) fn same_request(
        &self,
        plan: &Plan,
        format: &FormatOptions,
        rules: OutputRules<'_>,
        differs: Vec<(&'static str, bool)>,
    ) -> Result<(), ManifestError> {
        let Manifest { source, row_cap, schema, partition_by, .. } = &self.manifest;
        let columns = output_schema(plan, rules, format.format, &source.kind);
        // What a run counts is not part of the request.
        let asked = schema.iter().cloned().map(|mut column| {
            column.policy_count = None;
            column
        });
        let is_other = |now: &SourceIdentity| source.identity.as_ref().is_some_and(|then| then.is_other(now));
        let of_plan = [
            ("the database of --from", plan.relation.identity.as_ref().is_some_and(is_other)),
            ("--table or --query", !is_source(&source.name, plan)),
            ("--where", source.predicate != plan.relation.predicate),
            ("--allow-rls", source.row_security != plan.relation.row_security),
            ("--key", source.key != source_key(&plan.key)),
            ("the columns", !columns.into_iter().eq(asked)),
            ("--partition-by", *partition_by != partition_columns(plan, rules, format.format, &source.kind)),
            ("--format or its options", self.manifest.format != FormatRecord::from(format)),
            ("--max-rows or --tier", (&row_cap.tier, row_cap.max_rows) != (&plan.cap.tier, plan.cap.max_rows)),
        ];
        let fields: Vec<_> =
            of_plan.into_iter().chain(differs).filter_map(|(field, differs)| differs.then_some(field)).collect();
        if fields.is_empty() {
            return Ok(());
        }
        Err(ManifestError::OtherRequest { object: self.url.clone(), run_id: self.manifest.run_id.clone(), fields })
    }
}

/// Parses a manifest away from the async threads: 100,000 parts take a second.
pub(super) async fn decode(bytes: Bytes, url: &str) -> Result<Manifest, ManifestError> {
    let manifest = on_rayon(move || Manifest::from_json(&bytes)).await?;
    manifest.map_err(|source| ManifestError::Decode { object: url.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::commit::test_data::{format, manifest, memory, plan};
    use crate::model::{Compression, FolderOptions, Format};

    async fn with_manifest(name: &str) -> Destination {
        let destination = memory(name);
        let json = manifest().to_json().unwrap();
        destination.put("_manifest.json", json.into(), "application/json").await.unwrap();
        destination
    }

    #[tokio::test]
    async fn each_choice_meets_a_standing_manifest_in_its_way() {
        let destination = with_manifest("each-choice").await;
        let run_id = manifest().run_id;
        let before = async |on_existing, run_id| before_run(&destination, &Placement::Parts, on_existing, run_id).await;

        let error = before(OnExisting::Fail, None).await.unwrap_err();
        assert!(matches!(&error, ManifestError::Taken { run_id, .. } if *run_id == manifest().run_id), "{error}");
        assert!(matches!(before(OnExisting::Fail, Some("other")).await, Err(ManifestError::Taken { .. })));
        assert!(matches!(before(OnExisting::Skip, None).await, Ok(StartDecision::Skip(_))));
        assert!(matches!(before(OnExisting::Replace, Some("other")).await, Ok(StartDecision::Replace(_))));
        for on_existing in [OnExisting::Fail, OnExisting::Skip, OnExisting::Replace] {
            let standing = before(on_existing, Some(&run_id)).await.unwrap();
            assert!(matches!(standing, StartDecision::SameRun(_)), "{on_existing:?}: {standing:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_destination_is_free_and_a_broken_manifest_is_not() {
        let destination = memory("empty-or-broken");
        let before = async || before_run(&destination, &Placement::Parts, OnExisting::Replace, None).await;
        assert_eq!(before().await.unwrap(), StartDecision::Nothing);
        destination.put("_manifest.json", "{".into(), "application/json").await.unwrap();
        assert!(matches!(before().await, Err(ManifestError::Decode { .. })));
    }

    #[tokio::test]
    async fn a_single_file_never_overwrites_a_file_unasked() {
        let destination = memory("single-occupied");
        destination.put("orders.csv", "somebody's".into(), "text/csv").await.unwrap();
        let single = Placement::Single { name: "orders.csv".into() };
        for on_existing in [OnExisting::Fail, OnExisting::Skip] {
            let error = before_run(&destination, &single, on_existing, None).await.unwrap_err();
            assert!(matches!(error, ManifestError::Occupied { .. }), "{error}");
        }
        let standing = before_run(&destination, &single, OnExisting::Replace, None).await.unwrap();
        assert_eq!(standing, StartDecision::Nothing);
    }

    #[tokio::test]
    async fn the_same_request_is_told_from_another() {
        let destination = with_manifest("same-request").await;
        let existing = look(&destination, &Placement::Parts).await.unwrap().unwrap();
        let parquet = format(Format::Parquet, Compression::Zstd(1));
        existing.same_request(&plan(), &parquet, OutputRules::default(), Vec::new()).unwrap();

        let mut resplit = plan();
        resplit.partitions.clear();
        existing.same_request(&resplit, &parquet, OutputRules::default(), Vec::new()).unwrap();

        let differing = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            match existing.same_request(&plan, &parquet, OutputRules::default(), Vec::new()) {
                Err(ManifestError::OtherRequest { fields, .. }) => fields,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(differing(|plan| plan.relation.predicate = None), ["--where"]);
        assert_eq!(differing(|plan| plan.relation.name = Some("public.other".into())), ["--table or --query"]);
        assert_eq!(differing(|plan| plan.key.clear()), ["--key"]);
        assert_eq!(differing(|plan| plan.columns.truncate(1)), ["the columns"]);
        assert_eq!(differing(|plan| plan.cap.max_rows = None), ["--max-rows or --tier"]);
        let folders = FolderOptions { columns: vec!["address".into()], keep: true, open: NonZeroUsize::MIN };
        match existing.same_request(
            &plan(),
            &parquet,
            OutputRules { folders: Some(&folders), protect: None },
            Vec::new(),
        ) {
            Err(ManifestError::OtherRequest { fields, .. }) => assert_eq!(fields, ["--partition-by"]),
            other => panic!("{other:?}"),
        }
        let csv = format(Format::Csv, Compression::None);
        assert!(existing.same_request(&plan(), &csv, OutputRules::default(), Vec::new()).is_err());
    }
}
