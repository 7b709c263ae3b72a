//! Writes a local file block by block, past the page cache where that is known to pay.
//!
//! A part is read by nobody while it is written, and is synced before the run commits, so the page cache only copies it:
//! 2 GB of new file cost 4.5 s of system time through the cache and 0.14 s past it (ext4, blocks of 2 MiB; 0.40 s with
//! 1 MiB). It also leaves the cache to the database, where that is on the same host.
//!
//! Blocks that are full go out with `O_DIRECT` (open(2), "`O_DIRECT`"), which asks for memory, offset and length in
//! multiples of the device's logical block: [`DIRECT_ALIGN_BYTES`] covers all in use. The tail, and with it every
//! file that never fills a block, goes through the cache. A file system that refuses gets its file through the cache
//! from the very byte it refused.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::base::failpoint;

/// Bytes that a local staged file takes at once, at least. Past the page cache 2 GB in blocks of 2 MiB cost 0.14 s of
/// system time, in blocks of 1 MiB or less 0.4 s, and the hand-overs to rayon and to a blocking thread do not show. A part
/// has two.
pub(crate) const LOCAL_BLOCK_BYTES: usize = 2 << 20;

/// What such a block has room for beyond that: the text of one batch, which ends it. More makes it grow.
const LOCAL_BLOCK_ROOM_BYTES: usize = 2 << 20;

/// What memory, offset and length of a write past the page cache are multiples of: no device in use has larger logical
/// blocks.
const DIRECT_ALIGN_BYTES: usize = 4096;

/// Bytes gathered in aligned memory, [`LOCAL_BLOCK_BYTES`] or more when full.
pub(crate) struct AlignedBuffer {
    /// What was gathered, from `start` on, which is aligned.
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    pub(crate) fn new() -> Self {
        Self::with_capacity(LOCAL_BLOCK_BYTES + LOCAL_BLOCK_ROOM_BYTES)
    }

    fn with_capacity(bytes: usize) -> Self {
        // Pages of new memory cost nothing until they are touched.
        let mut memory: Vec<u8> = Vec::with_capacity(bytes.saturating_add(DIRECT_ALIGN_BYTES));
        // The offset may be unknown in theory; a block that is not aligned is refused and goes through the cache.
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES).min(DIRECT_ALIGN_BYTES);
        memory.resize(start, 0);
        Self { memory, start }
    }

    /// Takes as much of `bytes` as fits. True once the block is full.
    pub(crate) fn fill(&mut self, bytes: &mut Bytes) -> bool {
        let count = bytes.len().min(LOCAL_BLOCK_BYTES.saturating_sub(self.bytes().len()));
        self.memory.extend_from_slice(&bytes.split_to(count));
        self.is_full()
    }

    /// The memory itself, for bytes to be appended; and what [`Self::of`] makes it a block again with.
    pub(crate) fn into_memory(self) -> (Vec<u8>, usize) {
        (self.memory, self.start)
    }

    /// A block of memory that was one, and has grown; copied where it lies elsewhere now.
    pub(crate) fn of(memory: Vec<u8>, start: usize) -> Self {
        if memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES) == start {
            return Self { memory, start };
        }
        let bytes = &memory[start..];
        let mut block = Self::with_capacity(bytes.len() + LOCAL_BLOCK_ROOM_BYTES);
        block.memory.extend_from_slice(bytes);
        block
    }

    /// Takes what a full block has beyond the last multiple of [`DIRECT_ALIGN_BYTES`] off.
    pub(crate) fn split_tail(&mut self) -> Bytes {
        let bytes = self.bytes().len();
        let kept = if self.is_full() { bytes - bytes % DIRECT_ALIGN_BYTES } else { bytes };
        Bytes::from(self.memory.split_off(self.start + kept))
    }

    pub(crate) fn clear(&mut self) {
        // What huge rows took goes back.
        if self.memory.capacity() > 2 * (LOCAL_BLOCK_BYTES + LOCAL_BLOCK_ROOM_BYTES) {
            *self = Self::new();
        }
        self.memory.truncate(self.start);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes().len() >= LOCAL_BLOCK_BYTES
    }
}

/// Without the bytes, which are row values.
impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

/// A new file that grows by blocks. Everything here blocks the thread.
#[derive(Debug)]
pub(crate) struct BlockFile {
    file: File,
    offset: u64,
    cache: Cache,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// No full block has come yet.
    Undecided,
    /// `O_DIRECT` is set.
    Bypassed,
    Used,
}

impl BlockFile {
    pub(crate) fn new(file: File) -> Self {
        Self { file, offset: 0, cache: Cache::Undecided }
    }

    /// Appends a block without a tail. Only the last one may be less than full: after it the file takes no more past the
    /// cache.
    ///
    /// # Errors
    /// Of the operating system; the file then holds a beginning of what was written.
    pub(crate) fn append(&mut self, block: &AlignedBuffer) -> io::Result<()> {
        match (self.cache, block.is_full()) {
            (Cache::Undecided, true) if system::bypass_pays(&self.file) => {
                let set = system::set_bypass(&self.file, true);
                self.cache = if set.is_ok() { Cache::Bypassed } else { Cache::Used };
            }
            (Cache::Undecided, true) => self.cache = Cache::Used,
            (Cache::Bypassed, false) => self.use_cache()?,
            _ => {}
        }
        let mut rest = block.bytes();
        while !rest.is_empty() {
            match self.file.write_at(rest, self.offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.offset += u64::try_from(count).map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // How EINVAL and EOPNOTSUPP are told: nothing of this call was written.
                Err(error)
                    if self.cache == Cache::Bypassed
                        && matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
                {
                    self.use_cache()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every byte and the length are durable after this, written past the cache or not: the device has a cache too.
    pub(crate) fn sync(&self) -> io::Result<()> {
        failpoint::count("fsync");
        self.file.sync_all()
    }

    fn use_cache(&mut self) -> io::Result<()> {
        system::set_bypass(&self.file, false)?;
        self.cache = Cache::Used;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstatfs};

    /// The file systems where it is known to be a plain gain, by statfs(2). Others accept the flag and then copy all the
    /// same (btrfs with checksums, tmpfs, many network and FUSE file systems), or turn each block into a round trip.
    pub(super) fn bypass_pays(file: &File) -> bool {
        // EXT4_SUPER_MAGIC, of ext2 and ext3 too, and XFS_SUPER_MAGIC.
        fstatfs(file).is_ok_and(|stat| matches!(stat.f_type, 0xef53 | 0x5846_5342))
    }

    pub(super) fn set_bypass(file: &File, on: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(file)?;
        flags.set(OFlags::DIRECT, on);
        Ok(fcntl_setfl(file, flags)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::File;
    use std::io;

    pub(super) fn bypass_pays(_: &File) -> bool {
        false
    }

    #[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
    pub(super) fn set_bypass(_: &File, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = LOCAL_BLOCK_BYTES;

    fn content(len: usize, seed: u64) -> Bytes {
        let mut state = seed | 1;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }

    /// Writes as a sink does, with the pieces copied into the block or its memory lent for them: the cache's part before
    /// the tail, if a block was filled, and at the end.
    fn write(file: File, pieces: &[Bytes], lent: bool) -> (Option<Cache>, BlockFile) {
        let (mut file, mut block, mut before_tail) = (BlockFile::new(file), AlignedBuffer::new(), None);
        for piece in pieces {
            let mut piece = piece.clone();
            loop {
                let full = if lent {
                    let (mut memory, start) = block.into_memory();
                    memory.extend_from_slice(&piece.split_off(0));
                    block = AlignedBuffer::of(memory, start);
                    block.is_full()
                } else {
                    block.fill(&mut piece)
                };
                if !full {
                    break;
                }
                let mut tail = block.split_tail();
                assert_eq!(block.bytes().as_ptr().align_offset(DIRECT_ALIGN_BYTES), 0);
                file.append(&block).unwrap();
                assert_eq!(flag_is_set(&file.file), file.cache == Cache::Bypassed);
                before_tail = Some(file.cache);
                block.clear();
                block.fill(&mut tail);
            }
        }
        file.append(&block).unwrap();
        file.sync().unwrap();
        (before_tail, file)
    }

    #[cfg(target_os = "linux")]
    fn flag_is_set(file: &File) -> bool {
        rustix::fs::fcntl_getfl(file).unwrap().contains(rustix::fs::OFlags::DIRECT)
    }

    #[cfg(not(target_os = "linux"))]
    fn flag_is_set(_: &File) -> bool {
        false
    }

    /// What a full block is to do in this folder, by the word of `stat`.
    fn expected(folder: &Path) -> Cache {
        if !cfg!(target_os = "linux") {
            return Cache::Used;
        }
        let stat = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output().unwrap();
        assert!(stat.status.success(), "{stat:?}");
        match String::from_utf8(stat.stdout).unwrap().trim() {
            "ext2/ext3" | "xfs" => Cache::Bypassed,
            _ => Cache::Used,
        }
    }

    fn check(folder: &Path, pieces: &[Bytes]) {
        for lent in [false, true] {
            check_way(folder, pieces, lent);
        }
    }

    fn check_way(folder: &Path, pieces: &[Bytes], lent: bool) {
        let path = folder.join("part");
        let (before_tail, file) = write(File::create(&path).unwrap(), pieces, lent);
        let whole = pieces.concat();
        let fills = whole.len() >= BLOCK;
        assert_eq!(before_tail, fills.then(|| expected(folder)));
        if !whole.len().is_multiple_of(BLOCK) {
            assert_ne!(file.cache, Cache::Bypassed, "the tail went past the cache");
        }
        assert_eq!(file.offset, whole.len() as u64);
        assert!(std::fs::read(&path).unwrap() == whole, "other bytes came back of {}", whole.len());
    }

    fn near(base: usize) -> impl Strategy<Value = usize> {
        (0_usize..=8, 0_usize..=2).prop_map(move |(off, side)| match side {
            0 => base.saturating_sub(off),
            1 => base + off,
            _ => base,
        })
    }

    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![
            0_usize..20_000,
            (0_usize..5).prop_flat_map(|pages| near(pages * DIRECT_ALIGN_BYTES)),
            (1_usize..=2).prop_flat_map(|blocks| near(blocks * BLOCK)),
            (0_usize..BLOCK).prop_map(|under| BLOCK - under),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..crate::regressions::kept() })]
        #[test]
        fn the_file_is_what_was_written(lengths in prop::collection::vec(length(), 0..5), seed in any::<u64>()) {
            let folder = tempfile::tempdir().unwrap();
            let pieces: Vec<Bytes> =
                (seed..).zip(&lengths).map(|(seed, &length)| content(length, seed)).collect();
            check(folder.path(), &pieces);
        }
    }

    #[test]
    fn lengths_around_the_boundaries() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, 4095, 4096, 4097, BLOCK - 4096, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 4096, 3 * BLOCK + 77]
        {
            check(folder.path(), &[content(length, 7)]);
        }
    }

    #[test]
    fn memory_files_go_through_the_cache() {
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
            assert!(!Path::new("/dev/shm").is_dir(), "/dev/shm is there and cannot be used");
            return;
        };
        assert_eq!(expected(folder.path()), Cache::Used);
        check(folder.path(), &[content(2 * BLOCK + 5, 7)]);
    }

    /// Memory at an odd address is refused wherever the flag is set, here in the middle of a file.
    #[test]
    fn a_refused_block_goes_through_the_cache_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let (first, second) = (content(BLOCK, 7), content(BLOCK, 8));
        let block_of = |bytes: &Bytes| {
            let mut block = AlignedBuffer::new();
            assert!(block.fill(&mut bytes.clone()));
            block
        };
        let mut file = BlockFile::new(File::create(&path).unwrap());
        file.append(&block_of(&first)).unwrap();
        assert_eq!(file.cache, expected(folder.path()));
        // One byte aside: full, and not aligned.
        let mut aside = block_of(&second);
        aside.memory.insert(0, 0);
        aside.start += 1;
        file.append(&aside).unwrap();
        assert_eq!((file.cache, flag_is_set(&file.file)), (Cache::Used, false));
        file.append(&block_of(&first)).unwrap();
        assert_eq!(file.cache, Cache::Used, "once refused, always through the cache");
        assert!(std::fs::read(&path).unwrap() == [&first[..], &second, &first].concat());
    }

    #[test]
    fn blocks_are_aligned_and_keep_their_bytes_to_themselves() {
        let mut block = AlignedBuffer::new();
        block.fill(&mut Bytes::from_static(b"secret"));
        assert_eq!(block.bytes().as_ptr().align_offset(DIRECT_ALIGN_BYTES), 0);
        assert_eq!(format!("{block:?}"), "AlignedBuffer { len: 6, .. }");
    }
}
