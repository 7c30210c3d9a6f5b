//! The network cards behind which the world outside is.

use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use super::{Action, MacAddr, Rate, Rule};

/// The way from a network to the world outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UplinkConfig {
    /// The network card, which belongs to this network.
    pub nic: Nic,
    /// How much may go out.
    pub rate: Option<Rate>,
    /// The packet filter, in its directions as guests see them; the first rule that fits decides.
    pub rules: Vec<Rule>,
    /// What becomes of a packet that fits no rule.
    pub otherwise: Action,
}

impl UplinkConfig {
    /// An uplink with nothing but the defaults.
    #[must_use]
    pub const fn new(nic: Nic) -> Self {
        Self {
            nic,
            rate: None,
            rules: Vec::new(),
            otherwise: Action::Allow,
        }
    }
}

/// Which network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Nic {
    /// The first that is found and that no network names otherwise.
    First,
    /// The one with this address.
    Address(MacAddr),
    /// The one at this place.
    Pci(PciAddress),
}

/// Where a function of a PCI device is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PciAddress {
    /// The segment ("domain" in Linux).
    pub segment: u16,
    /// The bus.
    pub bus: u8,
    /// The device, below 32.
    pub device: u8,
    /// The function, below 8.
    pub function: u8,
}

impl Nic {
    /// Reads `first`, an address such as `52:54:00:12:34:56`, or a place such as `00:03.0` or
    /// `0000:00:03.0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let nic = match text {
            "first" => Self::First,
            _ => match text.parse() {
                Ok(address) => Self::Address(address),
                Err(_) => Self::Pci(PciAddress::parse(text)?),
            },
        };
        nic.is_valid().then_some(nic)
    }

    /// True for one that a card can have.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        match self {
            Self::First => true,
            Self::Address(address) => address.is_station(),
            Self::Pci(place) => place.device < 32 && place.function < 8,
        }
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Address(address) => address.fmt(f),
            Self::Pci(place) => place.fmt(f),
        }
    }
}

impl PciAddress {
    fn parse(text: &str) -> Option<Self> {
        let (rest, function) = text.split_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (segment, bus) = rest.split_once(':').unwrap_or(("0", rest));
        let number = |text: &str, most: usize| {
            let is_good = (1..=most).contains(&text.len())
                && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_good
                .then(|| u16::from_str_radix(text, 16).ok())
                .flatten()
        };
        let small = |text: &str, most| u8::try_from(number(text, most)?).ok();
        Some(Self {
            segment: number(segment, 4)?,
            bus: small(bus, 2)?,
            device: small(device, 2)?,
            function: small(function, 1)?,
        })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Nic, PciAddress};
    use alloc::string::ToString;

    #[test]
    fn cards_are_named_in_three_ways() {
        assert_eq!(Nic::parse("first"), Some(Nic::First));
        let card = Nic::parse("52:54:00:12:34:56").unwrap();
        assert_eq!(card.to_string(), "52:54:00:12:34:56");
        let place = PciAddress {
            segment: 0,
            bus: 0,
            device: 3,
            function: 0,
        };
        assert_eq!(Nic::parse("00:03.0"), Some(Nic::Pci(place)));
        assert_eq!(Nic::parse("0000:00:03.0"), Some(Nic::Pci(place)));
        let place = Nic::parse("1a2b:ff:1f.7").unwrap();
        assert_eq!(place.to_string(), "1a2b:ff:1f.7");
        for bad in [
            "",
            "second",
            "eth0",
            "00:20.0",
            "00:03.8",
            "00:03",
            "03.0",
            "100:03.0",
            "00:003.0",
            "0:0:0:3.0",
            "00:+3.0",
            "00:03.",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(Nic::parse(bad), None, "{bad}");
        }
    }
}
