//! Blocks of addresses, as settings and headers write them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// `10.0.0.0/8`, `::1`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address or block of addresses; write 10.1.2.3 or 10.0.0.0/8")]
pub struct BadNetwork(String);

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits), |p| p.parse().map_err(|_| bad()))?;
        if prefix_bits > bits {
            return Err(bad());
        }
        Ok(Self { address, prefix_bits })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix_bits,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix_bits,
            _ => false,
        }
    }
}

/// An address in a header, with or without a port.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn blocks_contain_their_addresses() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "9.9.9.9") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::2") && !contains("2001:db8::/32", "2001:db9::"));
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/", "10.0.0/8", "::1/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_come_with_and_without_ports() {
        for text in ["10.1.2.3", " 10.1.2.3:99 "] {
            assert_eq!(address(text), Some(IpAddr::from([10, 1, 2, 3])), "{text}");
        }
        for text in ["::1", "[::1]", "[::1]:99"] {
            assert_eq!(address(text), Some("::1".parse().expect("address")), "{text}");
        }
        assert_eq!(address("unknown"), None);
    }
}
