//! `[[webhook]]`: who is told how exports end, and which addresses he may have.

use std::net::IpAddr;

use super::build::Builder;
use super::file::WebhookEntry;
use super::secrets::WebhookSecret;
use crate::base::http::HttpServer;

/// What there is to tell.
pub(crate) const EVENTS: [&str; 3] = [READY, "export.failed", "export.expired"];

/// What has a link in it.
const READY: &str = "export.ready";

/// One receiver.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What it is called in records.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What its messages are signed with, each with all of them: a receiver may know one alone.
    pub secrets: Vec<WebhookSecret>,
    /// What it is told.
    pub events: Vec<String>,
    /// The addresses that it may have; `None` is any.
    pub allow: Option<Vec<Network>>,
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.parse().ok()?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self { first, bits })
    }

    /// Whether every address is one of them.
    pub(crate) const fn is_everybody(self) -> bool {
        self.bits == 0
    }

    /// Whether an address is one of them. An IPv4 address in the clothes of IPv6 is the IPv4 address.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl Builder<'_> {
    /// Proxies, by their addresses. A list of everybody would believe everybody.
    pub(super) fn proxies(&mut self, texts: &[String]) -> Vec<Network> {
        let networks = texts.iter().map(|text| Network::parse(text).filter(|network| !network.is_everybody()));
        let networks: Option<Vec<Network>> = networks.collect();
        if networks.is_none() {
            let hint = "write the addresses of your proxies, or networks as in \"10.0.0.0/8\"";
            self.wrong("trusted_proxies", hint);
        }
        networks.unwrap_or_default()
    }

    pub(super) fn webhooks(&mut self, entries: Vec<WebhookEntry>, has_public_url: bool) -> Vec<Webhook> {
        let mut hooks: Vec<Webhook> = Vec::new();
        for entry in entries {
            let place = format!("webhook {:?}", entry.name);
            if !super::build::is_word(&entry.name) || hooks.iter().any(|hook| hook.name == entry.name) {
                self.wrong(format!("{place}: each has a name of its own"), "use letters, digits, _ and -");
            }
            if let Err(why) = HttpServer::parse(&entry.url) {
                self.wrong(format!("{place}: url: {why}"), "write it as in https://app.example.com/hooks/exports");
            }
            let events = entry.events.unwrap_or_else(|| EVENTS.map(str::to_owned).to_vec());
            if events.is_empty() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
                self.wrong(format!("{place}: events"), format!("they are {}", EVENTS.join(", ")));
            }
            if !has_public_url && events.iter().any(|event| event == READY) {
                self.warnings.push(format!(
                    "{place}: {READY} has a download_url without a host, as there is no public_url: say where callers reach \
                     the service, as in public_url = \"https://exports.example.com\""
                ));
            }
            let allow = entry.allow.map(|texts| {
                let networks: Vec<Network> = texts.iter().filter_map(|text| Network::parse(text)).collect();
                if networks.len() != texts.len() || texts.is_empty() {
                    self.wrong(format!("{place}: allow"), "write addresses, or networks as in \"10.0.0.0/8\"");
                }
                networks
            });
            let secrets = self.webhook_secrets(&place, entry.secret.as_ref(), entry.secret_file.as_deref());
            hooks.push(Webhook { name: entry.name, url: entry.url, secrets, events, allow });
        }
        hooks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_addresses() {
        let has = |network: &str, address: &str| Network::parse(network).unwrap().has(address.parse().unwrap());
        for (network, address) in [
            ("10.0.0.0/8", "10.255.1.2"),
            ("10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("127.0.0.0/8", "::ffff:7f00:1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::1", "::1"),
        ] {
            assert!(has(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:7f00:1"),
            ("10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::/0", "::ffff:7f00:1"),
            ("2001:db8::/33", "2001:db8:8000::"),
        ] {
            assert!(!has(network, address), "{network} {address}");
        }
        assert!(
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "host", "10.0.0.0/-1"]
                .iter()
                .all(|text| Network::parse(text).is_none())
        );
    }
}
