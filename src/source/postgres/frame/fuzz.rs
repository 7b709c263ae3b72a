//! What the fuzz tests of the framer and of the decoders share: a seed that can be given again, and broken bytes.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Cases for each target.
pub(crate) const CASES: usize = 1_000_000;

/// A generator whose seed is printed, and taken from `OUTHAUL_TEST_SEED` where that is set.
pub(crate) fn seeded() -> StdRng {
    let seed = std::env::var("OUTHAUL_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("OUTHAUL_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Bytes that mean nothing, or next to nothing.
pub(crate) fn arbitrary(random: &mut StdRng, bytes: &mut Vec<u8>) {
    let length = [0, 1, 2, 3, 4, 6, 8, 8, 9, 10, 12, 16, 16, 20, 24, 32, 60][random.random_range(0..17)];
    bytes.resize(length, 0);
    random.fill_bytes(bytes);
    if random.random() {
        // Small numbers, as lengths, counts and flags are.
        for byte in bytes {
            *byte = if *byte < 0xC0 { 0 } else { *byte & 0x0F };
        }
    }
}

/// Damages bytes in up to three places: a byte, a number, a part that is gone, twice there, or out of nowhere.
pub(crate) fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(0..4) {
        let place = random.random_range(0..=bytes.len());
        let end = (place + random.random_range(1..9)).min(bytes.len());
        match random.random_range(0..8) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => bytes.extend_from_within(place..end),
            3 => bytes.insert(place, random.random()),
            4 => {
                let numbers = [0, 1, 2, 7, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF_u32, random.random()];
                let number = numbers[random.random_range(0..numbers.len())].to_be_bytes();
                bytes.iter_mut().skip(place).zip(number).for_each(|(byte, new)| *byte = new);
            }
            5 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << random.random_range(0..8)),
            _ => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte = random.random()),
        }
    }
}
