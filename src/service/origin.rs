//! Where a request comes from: the address that is connected or, behind a proxy that the operator trusts, the one that it
//! says it was connected by.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::base::failpoint;
use crate::config::service::Network;

/// The address of whoever asks. `X-Forwarded-For` is a list to which each proxy appends the address that connected to it,
/// and what the client wrote stands in front: the last one that is no proxy of ours is as far as it can be believed.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let ours =
        |address: IpAddr| trusted.iter().any(|network| network.has(address)) || failpoint::off("trusted_proxies");
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for hop in hops {
        if !ours(client) {
            break;
        }
        // What is no address was not written by a proxy of ours.
        let Some(address) = address_of(hop.trim()) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address, which some proxies write with its port.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_address_is_believed_as_far_as_those_who_say_it() {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].map(|text| Network::parse(text).unwrap());
        for (peer, lines, expected) in [
            // Nobody who is not listed is heard.
            ("9.9.9.9", &["1.1.1.1"][..], "9.9.9.9"),
            ("9.9.9.9", &["127.0.0.1"], "9.9.9.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:127.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            // What the client wrote stands in front of what the proxy saw.
            ("127.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("127.0.0.1", &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            ("127.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.7"], "1.1.1.1"),
            ("127.0.0.1", &["10.0.0.9, 10.0.0.7"], "10.0.0.9"),
            ("127.0.0.1", &["6.6.6.6, unknown, 10.0.0.7"], "10.0.0.7"),
            ("127.0.0.1", &["6.6.6.6, "], "127.0.0.1"),
            ("2001:db8::1", &["[2a00::5]:1234"], "2a00::5"),
            ("2001:db8::1", &["[2a00::5]"], "2a00::5"),
            ("127.0.0.1", &["1.1.1.1:80"], "1.1.1.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            let found = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
        let peer = "127.0.0.1".parse().unwrap();
        assert_eq!(client_address(peer, &headers, &[]), peer, "nobody is trusted unless it is said");
    }
}
