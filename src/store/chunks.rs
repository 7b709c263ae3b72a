//! Chunks of an upload: how large the nth is, and the buffer in which one gathers.
//!
//! S3 takes 10,000 chunks of 5 MiB to 5 GiB for one object, GCS the same, Azure 50,000. The size is not known when an
//! upload begins, so chunks grow: the first [`CHUNKS_A_STEP`] have the size asked for, the next as many twice that, and
//! so on. Any object up to 5 TiB stays below 9,000 chunks with every legal first size, and nearly
//! every object keeps to the first step (6.25 GiB at 8 MiB a chunk), where all chunks but the last are equal. Stores
//! that need equal chunks throughout (Cloudflare R2) take larger objects with a larger `--upload-chunk-size`.

use bytes::Bytes;
use object_store::{PutPayload, PutPayloadMut};

/// S3's smallest chunk but the last.
pub(crate) const UPLOAD_CHUNK_BYTES_MIN: usize = 5 * 1024 * 1024;

/// S3's largest chunk.
pub(crate) const UPLOAD_CHUNK_BYTES_MAX: usize = 5 << 30;

/// Chunks between two doublings.
const CHUNKS_A_STEP: usize = 800;

/// Pieces from this size on are kept as they are, smaller ones are copied together.
const PIECE_BYTES_MIN: usize = 16 * 1024;

/// The size of chunk `index` where the first was asked to have `first` bytes.
pub(super) fn chunk_bytes(first: usize, index: usize) -> usize {
    let doublings = u32::try_from(index / CHUNKS_A_STEP).unwrap_or(u32::MAX);
    let factor = 1_usize.checked_shl(doublings).unwrap_or(usize::MAX);
    first.max(UPLOAD_CHUNK_BYTES_MIN).saturating_mul(factor).min(UPLOAD_CHUNK_BYTES_MAX)
}

/// One chunk as it fills.
#[derive(Debug)]
pub(super) struct ChunkBuffer {
    payload: PutPayloadMut,
    size: usize,
}

impl ChunkBuffer {
    pub(super) fn new(size: usize) -> Self {
        Self { payload: PutPayloadMut::new().with_block_size(PIECE_BYTES_MIN), size }
    }

    /// Takes as much of `bytes` as fits. True once the chunk is full.
    pub(super) fn fill(&mut self, bytes: &mut Bytes) -> bool {
        let room = self.size - self.payload.content_length();
        let piece = bytes.split_to(room.min(bytes.len()));
        if piece.len() >= PIECE_BYTES_MIN {
            self.payload.push(piece);
        } else {
            self.payload.extend_from_slice(&piece);
        }
        self.payload.content_length() == self.size
    }

    pub(super) fn len(&self) -> usize {
        self.payload.content_length()
    }

    /// The chunk; the next one will have `size` bytes.
    pub(super) fn take(&mut self, size: usize) -> PutPayload {
        std::mem::replace(self, Self::new(size)).payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKS_MAX: usize = 9_000;

    const TIB: u64 = 1 << 40;

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn objects_up_to_5_tib_stay_below_the_limit(first in 1_usize..=(6 << 30)) {
            let total: u64 = (0..CHUNKS_MAX).map(|index| chunk_bytes(first, index) as u64).sum();
            prop_assert!(total >= 5 * TIB, "{CHUNKS_MAX} chunks hold only {total}");
        }

        #[test]
        fn sizes_are_legal_and_never_shrink(first in any::<usize>(), index in 0..20_000_usize) {
            let size = chunk_bytes(first, index);
            prop_assert!((UPLOAD_CHUNK_BYTES_MIN..=UPLOAD_CHUNK_BYTES_MAX).contains(&size));
            prop_assert!(chunk_bytes(first, index + 1) >= size);
        }

        #[test]
        fn gathering_neither_loses_nor_reorders(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..12),
            size in 1_usize..50_000,
        ) {
            let mut gather = ChunkBuffer::new(size);
            let mut chunks = Vec::new();
            for piece in &pieces {
                let mut piece = Bytes::from(piece.clone());
                while gather.fill(&mut piece) {
                    chunks.push(Bytes::from(gather.take(size)));
                }
            }
            prop_assert!(chunks.iter().all(|chunk| chunk.len() == size));
            if gather.len() > 0 {
                chunks.push(Bytes::from(gather.take(size)));
            }
            prop_assert_eq!(chunks.concat(), pieces.concat());
        }
    }

    #[test]
    fn one_file_of_1_tib_fits_10_000_chunks_of_the_default_size() {
        let (mut chunks, mut bytes) = (0, 0);
        while bytes < TIB {
            bytes += chunk_bytes(8 << 20, chunks) as u64;
            chunks += 1;
        }
        assert!(chunks < 10_000, "{chunks}");
        const { assert!(10_000 * (8_u64 << 20) < TIB, "chunks that do not grow would not do") };
    }

    #[test]
    fn the_first_step_is_equal() {
        assert!((0..CHUNKS_A_STEP).all(|index| chunk_bytes(8 << 20, index) == 8 << 20));
        assert_eq!(chunk_bytes(8 << 20, CHUNKS_A_STEP), 16 << 20);
        assert_eq!(chunk_bytes(1, 0), UPLOAD_CHUNK_BYTES_MIN);
    }
}
