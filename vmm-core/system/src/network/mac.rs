//! The address of a network interface.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

use crate::CRC32;

/// The 48-bit address of a network interface, or of a group of them (IEEE 802, "EUI-48").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All interfaces of a network.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of a domain's interface that names none: the same whenever the domain has this
    /// name, and most likely no other's. Locally administered, so no hardware has it.
    #[must_use]
    pub fn derived(domain: &str, interface: u8) -> Self {
        let mut digest = CRC32.digest();
        digest.update(domain.as_bytes());
        digest.update(&[0, interface]);
        let [a, b, c, d] = digest.finalize().to_be_bytes();
        Self([0x02, 0x54, a, b, c, d])
    }

    /// True for the address of a group, the broadcast address among them.
    #[must_use]
    pub const fn is_group(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// True for an address that an interface can have: of no group, and not all zeros.
    #[must_use]
    pub const fn is_station(self) -> bool {
        !self.is_group() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no address: six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMacAddr;

impl FromStr for MacAddr {
    type Err = NoMacAddr;

    fn from_str(text: &str) -> Result<Self, NoMacAddr> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(NoMacAddr)?;
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !digits {
                return Err(NoMacAddr);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NoMacAddr)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(NoMacAddr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MacAddr;
    use alloc::string::ToString;

    #[test]
    fn text_and_address_belong_together() {
        let mac: MacAddr = "02:0a:FF:00:00:1c".parse().unwrap();
        assert_eq!(mac, MacAddr([2, 10, 255, 0, 0, 0x1c]));
        assert_eq!(mac.to_string(), "02:0a:ff:00:00:1c");
        for bad in [
            "",
            "02:0a:ff:00:00",
            "02:0a:ff:00:00:1c:",
            "02:0a:ff:00:00:1c:00",
            "02-0a-ff-00-00-1c",
            "+2:0a:ff:00:00:1c",
            "2:0a:ff:00:00:1c",
            "gg:0a:ff:00:00:1c",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_addresses_stay_and_differ() {
        let mac = MacAddr::derived("web", 0);
        assert_eq!(mac, MacAddr::derived("web", 0));
        assert!(mac.is_station());
        for (domain, interface) in [("web", 1), ("db", 0), ("", 0)] {
            assert_ne!(mac, MacAddr::derived(domain, interface));
        }
    }

    #[test]
    fn groups_are_no_stations() {
        assert!(MacAddr::BROADCAST.is_group() && !MacAddr::BROADCAST.is_station());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_group());
        assert!(MacAddr([2, 0, 0, 0, 0, 0]).is_station());
        assert!(!MacAddr([0; 6]).is_station());
    }
}
