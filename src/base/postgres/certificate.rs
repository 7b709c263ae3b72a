//! What the two certificates of a TLS connection are needed for: the server's binds the password's proof to the
//! connection, the client's shows who we are.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::settings::ClientCertificate;

/// The `tls-server-end-point` of a server's certificate: its hash by the function that signed it, SHA-256 in place of
/// MD5 and SHA-1 (RFC 5929, 4.1). `None` where the signature has no one such function, as with Ed25519.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// 1.2.840.113549.1.1.10, whose hash function is a parameter (RFC 4055, 3.1).
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// Signature algorithms (RFC 8017, A.2.4; RFC 5758, 3.2) and hash functions (RFC 4055, 2.1) as DER has their numbers.
const HASHES: [(&[u8], Hash); 15] = [
    // RSA with MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512: 1.2.840.113549.1.1.*
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e], Hash::Sha224),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], Hash::Sha384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], Hash::Sha512),
    // ECDSA with SHA-1, SHA-224, SHA-256, SHA-384, SHA-512: 1.2.840.10045.4.1 and 1.2.840.10045.4.3.*
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01], Hash::Sha224),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], Hash::Sha384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], Hash::Sha512),
    // The functions themselves, as parameters of RSA-PSS: SHA-256, SHA-384, SHA-512, SHA-224; 2.16.840.1.101.3.4.2.*
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01], Hash::Sha256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02], Hash::Sha384),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03], Hash::Sha512),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04], Hash::Sha224),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0] EXPLICIT`.
const FIRST_PARAMETER: u8 = 0xa0;

/// Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm, parameters }, signature }
/// (RFC 5280, 4.1).
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (number, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    let number = if number == RSA_PSS {
        let (parameters, _) = element(parameters, SEQUENCE)?;
        let Some((first, _)) = element(parameters, FIRST_PARAMETER) else {
            // SHA-1 unless given.
            return Some(Hash::Sha256);
        };
        element(element(first, SEQUENCE)?.0, OBJECT_IDENTIFIER)?.0
    } else {
        number
    };
    HASHES.iter().find(|(known, _)| *known == number).map(|(_, hash)| *hash)
}

/// The content of the DER element of this kind that stands first, and what follows it.
fn element(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // Four digits are 4 GiB, and no certificate's length has more.
        (digits.len() <= 4).then_some(())?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    (found == kind).then_some(())?;
    rest.split_at_checked(length)
}

/// Reads a client's certificate and key.
///
/// # Errors
/// A file cannot be read, holds nothing of use, or the key is open to others, by libpq's rules (`fe-secure-openssl.c`):
/// mode 0600 or less, or 0640 where root owns it.
pub(super) fn client(files: &ClientCertificate) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(&files.certificate, &error))?;
    if chain.is_empty() {
        return Err(failed(&files.certificate, &pem::Error::NoItemsFound));
    }
    check_mode(&files.key)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| failed(&files.key, &error))?;
    Ok((chain, key))
}

/// An error of reading PEM from a file.
pub(super) fn failed(file: &Path, error: &pem::Error) -> io::Error {
    let file = file.display();
    match error {
        pem::Error::NoItemsFound => {
            io::Error::other(format!("{file} holds nothing of use: PEM is wanted, keys without a passphrase"))
        }
        error => io::Error::other(format!("reading {file}: {error}")),
    }
}

fn check_mode(key: &Path) -> io::Result<()> {
    let shown = key.display();
    let facts = key.metadata().map_err(|error| io::Error::new(error.kind(), format!("reading {shown}: {error}")))?;
    let forbidden = if facts.uid() == 0 { 0o037 } else { 0o077 };
    if facts.mode() & forbidden != 0 {
        let text = format!("group or others can use the private key {shown}: run chmod 600 {shown}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A certificate made by openssl, as DER.
    fn made(key: &[&str], signed: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&[&["genpkey", "-out", "key"], key].concat());
        openssl(
            &[&["req", "-x509", "-key", "key", "-subj", "/CN=x", "-outform", "DER", "-out", "der"], signed].concat(),
        );
        std::fs::read(folder.path().join("der")).unwrap()
    }

    #[test]
    fn the_hash_is_the_signature_s() {
        let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let pss = ["-sigopt", "rsa_padding_mode:pss"];
        for (key, signed, hash) in [
            (&rsa[..], &["-sha1"][..], Some(Hash::Sha256)),
            (&rsa, &["-sha256"], Some(Hash::Sha256)),
            (&rsa, &["-sha384"], Some(Hash::Sha384)),
            (&rsa, &["-sha512"], Some(Hash::Sha512)),
            (&rsa, &[&["-sha1"], &pss[..]].concat(), Some(Hash::Sha256)),
            (&rsa, &[&["-sha384"], &pss[..]].concat(), Some(Hash::Sha384)),
            (&curve, &["-sha224"], Some(Hash::Sha224)),
            (&curve, &["-sha512"], Some(Hash::Sha512)),
            (&["-algorithm", "ED25519"], &[], None),
        ] {
            let certificate = made(key, signed);
            assert_eq!(signature_hash(&certificate), hash, "{key:?} {signed:?}");
            let length = hash.map(|hash| match hash {
                Hash::Sha224 => 28,
                Hash::Sha256 => 32,
                Hash::Sha384 => 48,
                Hash::Sha512 => 64,
            });
            assert_eq!(end_point(&certificate).map(|hash| hash.len()), length);
            for cut in 0..certificate.len().min(80) {
                assert_eq!(signature_hash(&certificate[..cut]), None, "cut at {cut}");
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = end_point(&bytes);
        }
    }
}
