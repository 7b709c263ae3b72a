//! Checksums of an object: bytes a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use outhaul::bench::checksums;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const BYTES: usize = 1 << 20;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut bytes = vec![0; BYTES];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(u64::try_from(BYTES).unwrap()));
    for (name, sha256) in [("crc64nvme", false), ("crc64nvme and sha256", true)] {
        group.bench_function(name, |bencher| bencher.iter(|| checksums(black_box(&bytes), sha256)));
    }
    group.finish();
}
