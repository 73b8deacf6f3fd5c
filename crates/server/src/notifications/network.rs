//! Which addresses notifications may be sent to: public ones, and those of networks that are allowed.
//!
//! Endpoints are chosen by tenants, so that without this, a tenant could have the service post to whatever it can reach
//! and they cannot: the network behind it, its own host, the metadata service of its cloud (SSRF).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network by its first address and the length of its prefix, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

/// Not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    /// An address alone is the network of this address. Bits behind the prefix must be 0: a network that says more than
    /// it means is probably a mistake.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = width(first);
        let length = match length {
            None => most,
            Some(length) => length.parse().map_err(|_| NotANetwork)?,
        };
        let network = Self { first, length };
        let exact = length <= most && masked(bits(first), most, length) == bits(first);
        exact.then_some(network).ok_or(NotANetwork)
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Self {
        Self {
            first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            length,
        }
    }

    const fn v6(a: u16, b: u16, c: u16, length: u8) -> Self {
        Self {
            first: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)),
            length,
        }
    }

    /// Whether the address is one of it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let width = width(self.first);
        self.first.is_ipv4() == address.is_ipv4()
            && masked(bits(address), width, self.length) == bits(self.first)
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            u128::from_be_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
        }
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The bits of an address of this width, those behind the prefix cleared.
fn masked(bits: u128, width: u8, length: u8) -> u128 {
    let behind = u32::from(width.saturating_sub(length));
    let kept = u128::MAX.checked_shl(behind).unwrap_or(0);
    bits & kept
}

/// What is not public of IPv4 (IANA IPv4 Special-Purpose Address Registry), and one public address that is a metadata
/// service.
const REFUSED_V4: [Network; 16] = [
    // "This" network.
    Network::v4(0, 0, 0, 0, 8),
    // Private.
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 168, 0, 0, 16),
    // Carrier-grade NAT; also the metadata service of Alibaba Cloud.
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    // Link-local: the metadata services of AWS, Google Cloud, Azure and others.
    Network::v4(169, 254, 0, 0, 16),
    // IETF protocol assignments; also the metadata service of Oracle Cloud.
    Network::v4(192, 0, 0, 0, 24),
    // Documentation.
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    // Relays of 6to4.
    Network::v4(192, 88, 99, 0, 24),
    // Benchmarks.
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(224, 0, 0, 0, 4),
    // Reserved, and broadcast.
    Network::v4(240, 0, 0, 0, 4),
    // Azure's platform, which answers its virtual machines on a public address.
    Network::v4(168, 63, 129, 16, 32),
];

/// All that is public of IPv6 (IANA IPv6 Global Unicast Address Space).
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 0, 3);

/// What is not public of that (IANA IPv6 Special-Purpose Address Registry).
const REFUSED_V6: [Network; 4] = [
    // IETF protocol assignments: Teredo, benchmarks, ORCHID and more.
    Network::v6(0x2001, 0, 0, 23),
    // Documentation.
    Network::v6(0x2001, 0xdb8, 0, 32),
    Network::v6(0x3fff, 0, 0, 20),
    // 6to4: holds an IPv4 address, and leads to it over somebody's relay.
    Network::v6(0x2002, 0, 0, 16),
];

/// NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is reached.
const NAT64: Network = Network {
    first: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)),
    length: 96,
};

/// Networks that are allowed besides public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedNetworks(pub Vec<Network>);

impl AllowedNetworks {
    /// Whether notifications may be sent there. An IPv4 address within an IPv6 address is judged as what it is.
    pub fn allow(&self, address: IpAddr) -> bool {
        let real = reached(address);
        let named = |address| self.0.iter().any(|network| network.holds(address));
        named(real) || named(address) || is_public(real)
    }
}

/// The address that is reached in the end.
fn reached(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(mapped) = v6.to_ipv4_mapped() {
        return IpAddr::V4(mapped);
    }
    if NAT64.holds(address) {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    address
}

fn is_public(address: IpAddr) -> bool {
    let within = |refused: &[Network]| refused.iter().any(|network| network.holds(address));
    match address {
        IpAddr::V4(_) => !within(&REFUSED_V4),
        IpAddr::V6(_) => GLOBAL_V6.holds(address) && !within(&REFUSED_V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn allowed(networks: &[&str]) -> AllowedNetworks {
        let parsed = networks.iter().map(|text| text.parse().unwrap());
        AllowedNetworks(parsed.collect())
    }

    #[test]
    #[allow(clippy::too_many_lines)] // one table
    fn what_is_not_public_is_refused_however_it_is_written() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            // IPv6: unspecified, loopback, IPv4-compatible, unique local, link-local, multicast.
            "::",
            "::1",
            "::7f00:1",
            "::a00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            // Documentation, Teredo, ORCHID, discard.
            "2001:db8::1",
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "3fff::1",
            "100::1",
            // IPv4 within IPv6: mapped, NAT64 and its local form, 6to4, all of them to this host or its network.
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::10.1.2.3",
            "64:ff9b:1::10.0.0.1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2002:a9fe:a9fe::1",
            "2002:808:808::1",
        ] {
            assert!(!allowed(&[]).allow(address(refused)), "{refused}");
        }
    }

    #[test]
    fn what_is_public_is_allowed() {
        for good in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.17",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "2400::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(allowed(&[]).allow(address(good)), "{good}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_is_no_wider_than_it_says() {
        let ours = allowed(&["10.20.0.0/16", "fd12:3456::/32", "127.0.0.1"]);
        for good in [
            "10.20.0.1",
            "10.20.255.255",
            "fd12:3456::1",
            "127.0.0.1",
            "::ffff:10.20.0.1",
        ] {
            assert!(ours.allow(address(good)), "{good}");
        }
        for bad in [
            "10.21.0.1",
            "10.19.255.255",
            "fd12:3457::1",
            "127.0.0.2",
            "::1",
            "169.254.169.254",
        ] {
            assert!(!ours.allow(address(bad)), "{bad}");
        }
        assert!(allowed(&["0.0.0.0/0"]).allow(address("169.254.169.254")));
        assert!(!allowed(&["0.0.0.0/0"]).allow(address("fe80::1")));
    }

    #[test]
    fn networks_are_parsed_or_refused() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.168.1.7/32",
            "192.168.1.7",
            "::/0",
            "fd00::/8",
            "::1",
        ] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "fd00::/129",
            "fd00::1/8",
            "localhost",
            "10.0.0.0/",
            "10/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
    }
}
