//! Which IP addresses may be contacted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not part of the public internet, from the IANA special-purpose address registry, and an
/// address that leads to the platform from every machine of Azure.
const FORBIDDEN_V4: [(Ipv4Addr, u32, &str); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "carrier-grade NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "cloud metadata"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Forbidden IPv6 networks within 2000::/3, the public range.
const FORBIDDEN_V6: [(Ipv6Addr, u32, &str); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "Teredo or reserved"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];

/// Where clouds give their machines settings and credentials: Amazon, Google, Azure and others; Amazon's containers;
/// Azure's platform; Alibaba; Oracle; Tencent.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(169, 254, 0, 23),
];
/// The same in IPv6: Amazon's machines and containers; Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
/// Names of the same services. A name that only points to them is refused by its address.
const METADATA_NAMES: [&str; 11] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.com",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "rancher-metadata",
];

/// Whether the address leads to the metadata of a cloud, which may hold credentials.
pub fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => METADATA_V6.contains(&ip) || embedded_v4(ip).is_some_and(|ip| METADATA_V4.contains(&ip)),
    }
}

/// Why a host name is forbidden, whatever its address; nothing for a name that may be public.
pub fn forbidden_name(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_below = |known: &&str| {
        let rest = name.len().checked_sub(known.len()).and_then(|at| name.get(at..).map(|end| (at, end)));
        rest.is_some_and(|(at, end)| end.eq_ignore_ascii_case(known) && (at == 0 || name.as_bytes()[at - 1] == b'.'))
    };
    // A single word is no domain of others.
    let is_metadata = METADATA_NAMES
        .iter()
        .any(|known| if known.contains('.') { is_below(known) } else { name.eq_ignore_ascii_case(known) });
    is_metadata.then_some("cloud metadata")
}

/// Why an address is forbidden, in a few words; nothing for a public address.
pub fn forbidden(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => forbidden_v4(ip),
        IpAddr::V6(ip) => forbidden_v6(ip),
    }
}

fn forbidden_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let inside = |(net, bits, _): &&(Ipv4Addr, u32, &str)| (ip.to_bits() ^ net.to_bits()) >> (32 - bits) == 0;
    FORBIDDEN_V4.iter().find(inside).map(|(_, _, why)| *why)
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if let Some(embedded) = embedded_v4(ip) {
        return forbidden_v4(embedded);
    }
    if ip.segments()[0] & 0xe000 != 0x2000 {
        return Some(if ip.is_loopback() { "loopback" } else { "not public" });
    }
    let inside = |(net, bits, _): &&(Ipv6Addr, u32, &str)| (ip.to_bits() ^ net.to_bits()) >> (128 - bits) == 0;
    FORBIDDEN_V6.iter().find(inside).map(|(_, _, why)| *why)
}

/// The IPv4 address inside an IPv6 address: IPv4-mapped (`::ffff:0:0/96`), or NAT64 (`64:ff9b::/96`, RFC 6052), through
/// which an IPv6-only cluster reaches IPv4 hosts.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = matches!(ip.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _]);
    ip.to_ipv4_mapped().or_else(|| nat64.then(|| Ipv4Addr::from_bits(ip.to_bits() as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_forbidden() {
        let bad = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:53aa::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for text in bad {
            assert!(forbidden(text.parse().unwrap()).is_some(), "{text}");
        }
    }

    #[test]
    fn metadata_of_clouds_is_recognised() {
        for text in [
            "169.254.169.254",
            "168.63.129.16",
            "::ffff:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(is_metadata(text.parse().unwrap()), "{text}");
        }
        assert!(!is_metadata("127.0.0.1".parse().unwrap()) && !is_metadata("::1".parse().unwrap()));
        for name in ["metadata.google.internal", "Metadata.Google.Internal.", "x.metadata.google.internal", "metadata"]
        {
            assert!(forbidden_name(name).is_some(), "{name}");
        }
        for name in ["google.internal", "mymetadata.goog", "metadata.example.org", "", "émetadata.goog", "a.metadata"]
        {
            assert_eq!(forbidden_name(name), None, "{name}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        let good = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "2001:4860:4860::8888",
            "2400:cb00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        for text in good {
            assert_eq!(forbidden(text.parse().unwrap()), None, "{text}");
        }
    }
}
