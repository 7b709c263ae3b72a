//! Who reads which partition, without a word between the workers: all know the plan, and each its index.

use std::cmp::Reverse;

use crate::export::error::ExportError;
use crate::model::{ExportErrorKind, ExportShare, PartRange, Partition, Plan, WeighedPartition, WorkerShare};

/// A worker's place among those that read a run, as schedulers give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// The variable that has the index.
    pub variable: &'static str,
    /// Whose it is.
    pub scheduler: &'static str,
}

/// By which variables `--shard auto` knows its index.
const INDEXES: [Indexed; 3] = [
    Indexed { variable: "JOB_COMPLETION_INDEX", scheduler: "a Kubernetes Indexed Job" },
    Indexed { variable: "AWS_BATCH_JOB_ARRAY_INDEX", scheduler: "an AWS Batch array job" },
    Indexed { variable: "SLURM_ARRAY_TASK_ID", scheduler: "a Slurm array job" },
];

/// What `--shard TEXT --shards N` asks for; `variable` reads the environment.
///
/// # Errors
/// What would be right.
pub fn shard(
    text: &str,
    shards: Option<u32>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<WorkerShare, String> {
    let (index, of) = if text == "auto" {
        let of = shards.ok_or("--shard auto needs --shards N, the number of workers")?;
        (index(variable)?, of)
    } else {
        let (index, of) = text.split_once('/').ok_or("--shard takes auto, or i/n as 0/8 for the first of eight")?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("--shard: {text:?} is no number"));
        let of = number(of)?;
        if shards.is_some_and(|shards| shards != of) {
            return Err(format!("--shard {text} and --shards differ: leave --shards out"));
        }
        (number(index)?, of)
    };
    if index >= of {
        return Err(format!("shard {index} of {of} is none: shards are counted from 0"));
    }
    Ok(WorkerShare::Shard { index, of })
}

/// What `--partitions TEXT` asks for, given once or more often: numbers, or numbers of the exports of a job, as `2:7,12`.
///
/// # Errors
/// What would be right.
pub fn partitions(texts: &[String]) -> Result<WorkerShare, String> {
    let (mut alone, mut shares) = (Vec::new(), Vec::<ExportShare>::new());
    for text in texts {
        // What follows an export goes on with it, as far as the text goes.
        let mut export: Option<&str> = None;
        for term in text.split(',') {
            let (of, number) = term.rsplit_once(':').map_or((export, term), |(of, number)| (Some(of), number));
            export = of;
            let number: u32 = number
                .trim()
                .parse()
                .map_err(|_| format!("--partitions: {term:?} is no partition; 7,12 or EXPORT:7,12 is wanted"))?;
            match (of, shares.last_mut()) {
                (None, _) => alone.push(number),
                (Some(of), Some(last)) if last.export == of => last.partitions.push(number),
                (Some(of), _) => shares.push(ExportShare { export: of.to_owned(), partitions: vec![number] }),
            }
        }
    }
    match (alone.is_empty(), shares.is_empty()) {
        (_, true) => Ok(WorkerShare::Partitions(alone)),
        (true, false) => Ok(WorkerShare::OfExports(shares)),
        (false, false) => {
            Err("--partitions: some have an export in front and some have none; write EXPORT:7,12".to_owned())
        }
    }
}

fn index(variable: impl Fn(&str) -> Option<String>) -> Result<u32, String> {
    let found = INDEXES.into_iter().find_map(|known| Some((known, variable(known.variable)?)));
    let Some((known, text)) = found else {
        let names = INDEXES.map(|known| format!("{} ({})", known.variable, known.scheduler)).join(", ");
        return Err(format!("--shard auto finds no index: none of {names} is set; give --shard i/n"));
    };
    text.parse().map_err(|_| format!("{} is {text:?}, and no number", known.variable))
}

/// The partitions of a plan with their weights, the heaviest first.
pub(super) fn weighed(plan: &Plan) -> Vec<WeighedPartition> {
    weigh(&plan.partitions, plan.relation.estimated_bytes)
}

fn weigh(partitions: &[Partition], bytes: Option<u64>) -> Vec<WeighedPartition> {
    // Rows or blocks: a source counts all of its partitions in the same.
    let sizes: Vec<Option<u64>> =
        partitions.iter().map(|partition| partition.counted_rows.or_else(|| blocks(partition))).collect();
    let known: Vec<u64> = sizes.iter().flatten().copied().collect();
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).max(1);
    // What is not known is supposed to be as large as what is.
    let mean = (known.iter().sum::<u64>() / count(known.len())).max(1);
    let sizes: Vec<u64> = sizes.into_iter().map(|size| size.unwrap_or(mean).max(1)).collect();
    let all: u64 = sizes.iter().sum::<u64>().max(1);
    let bytes = bytes.unwrap_or(0);
    let mut weighed: Vec<WeighedPartition> = partitions
        .iter()
        .zip(sizes)
        .map(|(partition, size)| {
            let share = u128::from(bytes) * u128::from(size) / u128::from(all);
            WeighedPartition { number: partition.number, weight: u64::try_from(share).unwrap_or(u64::MAX).max(1) }
        })
        .collect();
    weighed.sort_by_key(|partition| (Reverse(partition.weight), partition.number));
    weighed
}

/// How many blocks a partition has, where both of its ends are known.
fn blocks(partition: &Partition) -> Option<u64> {
    match &partition.range {
        PartRange::Heap { from, to: Some(to), .. } => {
            let first = from.map_or(0, |from| from.block);
            Some(u64::from(to.block.saturating_sub(first)))
        }
        _ => None,
    }
}

/// The partitions of a share, in the order in which they are read.
///
/// # Errors
/// [`ExportErrorKind::Usage`] where the plan has no such partition.
pub(super) fn numbers(share: &WorkerShare, plan: &Plan) -> Result<Vec<u32>, ExportError> {
    match share {
        WorkerShare::Partitions(asked) => {
            let mut numbers = Vec::new();
            for number in asked {
                if !plan.partitions.iter().any(|partition| partition.number == *number) {
                    let message = format!("the plan has no partition {number}: it has {}", plan.partitions.len());
                    return Err(ExportError::new(ExportErrorKind::Usage, message)
                        .with_hint("--partitions takes the numbers of the line `ready`"));
                }
                if !numbers.contains(number) {
                    numbers.push(*number);
                }
            }
            Ok(numbers)
        }
        WorkerShare::Shard { index, of } => {
            Ok(dealt(&weighed(plan), *index, *of).map(|partition| partition.number).collect())
        }
        WorkerShare::OfExports(_) => Err(ExportError::new(
            ExportErrorKind::Usage,
            "the run is of one export, whose partitions have no export in front",
        )
        .with_hint("--partitions 7,12 names partitions of it")),
    }
}

/// Every `of`th partition from the `index`th on, of those that come the heaviest first: the heaviest are on different workers.
pub(super) fn dealt<T>(weighed: &[T], index: u32, of: u32) -> impl Iterator<Item = &T> {
    let step = usize::try_from(of.max(1)).unwrap_or(usize::MAX);
    let skip = usize::try_from(index).unwrap_or(usize::MAX);
    weighed.iter().skip(skip).step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TupleId;

    fn of(text: &str, shards: Option<u32>, variables: &[(&str, &str)]) -> Result<WorkerShare, String> {
        let found =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        shard(text, shards, found)
    }

    fn heap(number: u32, from: u32, to: Option<u32>) -> Partition {
        let place = |block| TupleId { block, offset: 0 };
        let range = PartRange::Heap { leaf: "t".to_owned(), from: Some(place(from)), to: to.map(place) };
        Partition { number, range, ordered: false, row_limit: None, counted_rows: None }
    }

    #[test]
    fn the_heaviest_are_first_and_what_is_not_known_is_of_the_mean() {
        let partitions = [heap(0, 0, Some(10)), heap(1, 10, Some(40)), heap(2, 40, None)];
        let weight = |number, weight| WeighedPartition { number, weight };
        assert_eq!(weigh(&partitions, Some(6000)), [weight(1, 3000), weight(2, 2000), weight(0, 1000)]);
        let whole = [Partition { range: PartRange::Whole, ..heap(0, 0, None) }];
        assert_eq!(weigh(&whole, None), [weight(0, 1)]);
        let rows = |number, rows| Partition { number, counted_rows: Some(rows), ..whole[0].clone() };
        assert_eq!(
            weigh(&[rows(0, 10), rows(1, 30), rows(2, 0)], Some(4100)),
            [weight(1, 3000), weight(0, 1000), weight(2, 100)]
        );
        assert_eq!(weigh(&[], Some(7)), []);
    }

    #[test]
    fn every_partition_falls_to_one_shard() {
        let partitions: Vec<Partition> =
            (0..11).map(|number| heap(number, number * 10, Some(number * 17 + 1))).collect();
        let weighed = weigh(&partitions, Some(1 << 30));
        for of in 1..15 {
            let mut all: Vec<u32> =
                (0..of).flat_map(|index| dealt(&weighed, index, of)).map(|one| one.number).collect();
            all.sort_unstable();
            assert_eq!(all, (0..11).collect::<Vec<_>>(), "{of}");
        }
    }

    #[test]
    fn partitions_are_of_one_export_or_of_several() {
        let of = |texts: &[&str]| partitions(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let share = |export: &str, partitions: &[u32]| {
            let (export, partitions) = (export.to_owned(), partitions.to_vec());
            ExportShare { export, partitions }
        };
        assert_eq!(of(&["7,12", "3"]), Ok(WorkerShare::Partitions(vec![7, 12, 3])));
        let several = vec![share("2", &[7, 12]), share("public.a", &[0])];
        assert_eq!(of(&["2:7,12,public.a:0"]), Ok(WorkerShare::OfExports(several.clone())));
        assert_eq!(of(&["2:7,12", "public.a:0"]), Ok(WorkerShare::OfExports(several)));
        assert_eq!(of(&["a:b:3"]), Ok(WorkerShare::OfExports(vec![share("a:b", &[3])])));
        for (wrong, why) in [("2:x", "\"2:x\""), ("", "\"\""), ("1,a:2", "some have none")] {
            assert!(of(&[wrong]).unwrap_err().contains(why), "{wrong}");
        }
        // Each text stands for itself.
        assert!(of(&["2:7", "12"]).unwrap_err().contains("some have none"));
    }

    #[test]
    fn a_shard_is_named_or_told_by_the_scheduler() {
        let shard = |index, of| Ok(WorkerShare::Shard { index, of });
        assert_eq!(of("0/8", None, &[]), shard(0, 8));
        assert_eq!(of("7/8", Some(8), &[]), shard(7, 8));
        for variable in INDEXES {
            assert_eq!(of("auto", Some(3), &[(variable.variable, "2")]), shard(2, 3), "{variable:?}");
        }
        let refused = |text, shards, variables: &[(&str, &str)]| of(text, shards, variables).unwrap_err();
        assert!(refused("8/8", None, &[]).contains("counted from 0"));
        assert!(refused("0/0", None, &[]).contains("is none"));
        assert!(refused("x/8", None, &[]).contains("\"x\" is no number"));
        assert!(refused("8", None, &[]).contains("0/8"));
        assert!(refused("1/8", Some(9), &[]).contains("differ"));
        assert!(refused("auto", None, &[("JOB_COMPLETION_INDEX", "1")]).contains("--shards N"));
        assert!(refused("auto", Some(3), &[]).contains("AWS_BATCH_JOB_ARRAY_INDEX"));
        assert!(refused("auto", Some(3), &[("JOB_COMPLETION_INDEX", "one")]).contains("no number"));
        assert!(refused("auto", Some(3), &[("JOB_COMPLETION_INDEX", "3")]).contains("shard 3 of 3 is none"));
    }
}
