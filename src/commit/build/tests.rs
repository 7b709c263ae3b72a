use super::*;
use crate::commit::test_data::{facts, format, heap_plan, manifest, object_url, plan, receipts};
use crate::model::Compression;

fn build_with(plan: &Plan, receipts: &[PartitionReceipt], stats: ManifestStats) -> Result<Manifest, ManifestError> {
    let format = format(Format::Csv, Compression::None);
    build(facts(plan, &format, stats), receipts, object_url)
}

fn without_partition_2(mut receipts: Vec<PartitionReceipt>) -> Vec<PartitionReceipt> {
    receipts.retain(|receipt| receipt.partition != 2);
    receipts
}

#[test]
fn parts_stand_in_output_order_whatever_order_receipts_came_in() {
    let order: Vec<_> = manifest().parts.iter().map(|part| (part.partition, part.roll, part.rows.unwrap())).collect();
    assert_eq!(order, [(0, 0, 6), (1, 0, 3), (1, 1, 1), (2, 0, 2)]);
    assert_eq!(manifest().totals, Totals { parts: 4, rows: Some(12), bytes: 1_000 + 1_001 + 1_001 + 1_002 });
}

#[test]
fn i3_a_row_read_but_in_no_part_stops_the_commit() {
    let mut receipts = receipts();
    receipts[1].read = AmountRead::Rows(7);
    let error = build_with(&plan(), &receipts, ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::RowCount { partition: 0, read: 7, written: 6 }), "{error}");
}

#[test]
fn i3_a_byte_of_the_source_that_is_in_no_part_stops_the_commit() {
    let plan = Plan { content: PlannedContent::Bytes, cap: CapPlan::none(), columns: Vec::new(), ..plan() };
    let of_bytes = |bytes| {
        let mut receipts = receipts();
        for receipt in &mut receipts {
            receipt.parts.iter_mut().for_each(|part| part.rows = None);
            receipt.read = AmountRead::Bytes(receipt.parts.iter().map(|part| part.object.bytes).sum());
        }
        receipts[1].read = AmountRead::Bytes(bytes);
        receipts
    };
    let manifest = build_with(&plan, &of_bytes(1_000), ManifestStats::Safe).unwrap();
    assert_eq!((manifest.totals.rows, manifest.row_cap.max_rows), (None, None));
    let error = build_with(&plan, &of_bytes(1_001), ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::ByteCount { partition: 0, read: 1_001, written: 1_000 }), "{error}");
    for (plan, receipts) in [(&plan, receipts()), (&heap_plan(), of_bytes(1_000))] {
        let error = build_with(plan, &receipts, ManifestStats::Safe).unwrap_err();
        assert!(matches!(error, ManifestError::Content { .. } | ManifestError::Receipts { .. }), "{error}");
    }
}

#[test]
fn every_planned_partition_has_exactly_one_receipt() {
    let twice = [receipts(), receipts()[..1].to_vec()].concat();
    let mut stray = receipts();
    stray[0].partition = 9;
    let mut twice_for_another = receipts();
    twice_for_another[2].partition = 0;
    let cases = [
        ("none for the last", without_partition_2(receipts()), (2, 0, 1)),
        ("none for the first", receipts().into_iter().filter(|receipt| receipt.partition != 0).collect(), (0, 0, 1)),
        ("none at all", Vec::new(), (0, 0, 1)),
        ("two for the last", twice, (2, 2, 1)),
        ("two for the first, none for the middle", twice_for_another, (0, 2, 1)),
        ("one that was not planned", stray, (9, 1, 0)),
    ];
    for (case, receipts, wanted) in cases {
        match build_with(&plan(), &receipts, ManifestStats::Safe) {
            Err(ManifestError::Receipts { partition, found, expected }) => {
                assert_eq!((partition, found, expected), wanted, "{case}");
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_roll_and_a_name_given_twice_are_refused() {
    let mut gap = receipts();
    gap[2].parts[1].roll = 2;
    let error = build_with(&plan(), &gap, ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::Rolls { partition: 1, roll: 1 }), "{error}");

    let mut same = receipts();
    same[0].parts[0].object.path = same[1].parts[0].object.path.clone();
    let error = build_with(&plan(), &same, ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::DuplicatePath { .. }), "{error}");
}

#[test]
fn an_empty_relation_has_one_part_not_none() {
    let mut receipts = without_partition_2(receipts());
    for receipt in &mut receipts {
        receipt.parts.clear();
        receipt.read = AmountRead::Rows(0);
    }
    let error = build_with(&heap_plan(), &receipts, ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::NoParts), "{error}");
}

#[test]
fn i7_truncated_means_exactly_the_cap_and_complete_at_most_the_cap() {
    let cases = [
        ("truncated at the cap", 12, true, Ok(RunStatus::Truncated)),
        ("truncated, but rows are missing", 13, true, Err(())),
        ("truncated, but there are more", 11, true, Err(())),
        ("exactly the cap, and nothing beyond", 12, false, Ok(RunStatus::Complete)),
        ("below the cap", 13, false, Ok(RunStatus::Complete)),
        ("above a cap that was to hold all", 11, false, Err(())),
    ];
    for (case, cap, truncated, wanted) in cases {
        let mut plan = plan();
        plan.cap.max_rows = std::num::NonZeroU64::new(cap);
        plan.cap.truncated = truncated;
        let status = build_with(&plan, &receipts(), ManifestStats::Safe).map(|manifest| manifest.status);
        assert_eq!(status.map_err(|error| assert!(matches!(error, ManifestError::Cap { .. }))), wanted, "{case}");
    }
    let mut uncapped = plan();
    uncapped.cap.max_rows = None;
    assert!(build_with(&uncapped, &receipts(), ManifestStats::Safe).is_err(), "truncated without a cap");
}

#[test]
fn a_run_without_a_cap_knows_exactly_how_many_rows_there_are() {
    let manifest = build_with(&heap_plan(), &without_partition_2(receipts()), ManifestStats::Safe).unwrap();
    assert_eq!(manifest.row_cap.available, RowsAvailable::Exact(10));
    assert_eq!((manifest.status, manifest.row_cap.order), (RunStatus::Complete, RowOrder::Physical));
    let PartRange::Heap { leaf, to: Some(to), from: None } = &manifest.parts[0].range else {
        panic!("{:?}", manifest.parts[0].range)
    };
    assert_eq!((leaf.as_str(), to.block), ("public.orders", 500));
}

#[test]
fn i9_text_is_shown_only_where_all_is_asked_for() {
    let shown = |stats| build_with(&plan(), &receipts(), stats).unwrap();
    let column = |manifest: &Manifest, name: &str| {
        manifest.parts[0].columns.iter().find(|column| column.name == name).map(|column| column.min.clone())
    };

    let safe = shown(ManifestStats::Safe);
    assert_eq!(column(&safe, "id"), Some(Some("1".into())));
    assert_eq!(column(&safe, "comment"), Some(None));
    assert_eq!(column(&safe, "address"), Some(None));
    assert_eq!(safe.parts[0].columns[3].nulls, 2);

    let all = shown(ManifestStats::All);
    assert_eq!(column(&all, "comment"), Some(Some("a secret".into())));

    let none = shown(ManifestStats::None);
    assert!(none.parts.iter().all(|part| part.columns.is_empty()));
    assert_eq!((&none.parts[0].range, &none.row_cap.boundary), (&PartRange::KeysWithheld, &None));
}

#[test]
fn i9_one_text_column_withholds_the_whole_key() {
    let mut plan = plan();
    plan.key[0].may_show = false;
    let safe = build_with(&plan, &receipts(), ManifestStats::Safe).unwrap();
    assert_eq!((&safe.parts[0].range, &safe.row_cap.boundary), (&PartRange::KeysWithheld, &None));
    let all = build_with(&plan, &receipts(), ManifestStats::All).unwrap();
    assert!(matches!(&all.parts[0].range, PartRange::Keys(_)) && all.row_cap.boundary.is_some());
}

#[test]
fn sums_beyond_64_bits_are_an_error() {
    let mut receipts = receipts();
    receipts[0].parts[0].object.bytes = u64::MAX;
    let error = build_with(&plan(), &receipts, ManifestStats::Safe).unwrap_err();
    assert!(matches!(error, ManifestError::Overflow { what: "bytes" }), "{error}");
}
