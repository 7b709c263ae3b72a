//! `inet`, `cidr`, `macaddr` and `macaddr8`.

use super::{exactly, hex};
use crate::base::text::number;
use crate::source::postgres::decode::Problem;

/// Families by PostgreSQL's own count (`utils/inet.h`), the same on every platform.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// An address, with its netmask where that is not the whole of it.
pub(super) fn inet(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    address(bytes, out, false)
}

/// A network, always with its netmask.
pub(super) fn cidr(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    address(bytes, out, true)
}

/// Family, bits of the netmask, whether it is a `cidr`, bytes of the address, the address.
fn address(bytes: &[u8], out: &mut Vec<u8>, network: bool) -> Result<(), Problem> {
    let malformed = || Problem::Malformed("address of an unknown kind");
    let (&[family, bits, is_network, length], address) = bytes.split_first_chunk().ok_or_else(malformed)?;
    if is_network != u8::from(network) || usize::from(length) != address.len() {
        return Err(malformed());
    }
    let all = match (family, address.len()) {
        (IPV4, 4) => 32,
        (IPV6, 16) => 128,
        _ => return Err(malformed()),
    };
    if bits > all {
        return Err(Problem::Malformed("address with an impossible netmask"));
    }
    if family == IPV4 {
        dotted(address, out);
    } else {
        colons(address, out);
    }
    if network || bits < all {
        out.push(b'/');
        number::integer(out, bits);
    }
    Ok(())
}

fn dotted(address: &[u8], out: &mut Vec<u8>) {
    for (index, &byte) in address.iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number::integer(out, byte);
    }
}

/// As `inet_net_ntop_ipv6` (`inet_net_ntop.c`): the first of the longest runs of at least two zero words is `::`, and an
/// address behind six zero words, or five and `ffff`, is dotted.
fn colons(address: &[u8], out: &mut Vec<u8>) {
    let words: Vec<u16> = address.as_chunks().0.iter().map(|&word| u16::from_be_bytes(word)).collect();
    let (mut zeros, mut from) = (0..0, 0);
    for (index, &word) in words.iter().enumerate() {
        if word != 0 {
            from = index + 1;
        } else if index + 1 - from > zeros.len().max(1) {
            zeros = from..index + 1;
        }
    }
    for (index, &word) in words.iter().enumerate() {
        if zeros.contains(&index) {
            if index == zeros.start {
                out.push(b':');
            }
            continue;
        }
        if index > 0 {
            out.push(b':');
        }
        if index == 6 && (zeros == (0..6) || zeros == (0..5) && words[5] == 0xFFFF) {
            dotted(&address[12..], out);
            return;
        }
        hex(out, u32::from(word), b"0123456789abcdef");
    }
    if !zeros.is_empty() && zeros.end == words.len() {
        out.push(b':');
    }
}

/// `N` bytes as pairs of hex digits.
pub(super) fn mac<const N: usize>(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    for (index, byte) in exactly::<N>(bytes)?.into_iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        out.extend(number::hex(byte));
    }
    Ok(())
}
