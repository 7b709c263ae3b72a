//! The checksums of an object, as its bytes go by.

use crc_fast::{CrcAlgorithm, Digest};
use sha2::{Digest as _, Sha256};

use crate::base::text::number::hex_text;

/// CRC64NVME always, SHA-256 where asked for.
#[derive(Debug, Clone)]
pub(crate) struct Checksums {
    crc: Digest,
    sha256: Option<Sha256>,
}

impl Checksums {
    pub(crate) fn new(sha256: bool) -> Self {
        Self { crc: Digest::new(CrcAlgorithm::Crc64Nvme), sha256: sha256.then(Sha256::new) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// The CRC64NVME, and the SHA-256 in hex.
    pub(crate) fn finish(self) -> (u64, Option<String>) {
        (self.crc.finalize(), self.sha256.map(|sha256| hex_text(&sha256.finalize())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        let mut checksums = Checksums::new(true);
        checksums.update(b"1234");
        checksums.update(b"56789");
        let (crc, sha256) = checksums.finish();
        assert_eq!(crc, 0xae8b_1486_0a79_9888);
        assert_eq!(sha256.as_deref(), Some("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"));
        assert_eq!(Checksums::new(false).finish(), (0, None));
    }
}
