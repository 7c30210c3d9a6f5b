//! The networks of a host and the interfaces of its domains, as plain data with its limits.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::{Action, MacAddr, Rule, UplinkConfig};
use crate::config::{DomainConfig, MAX_NAME, is_valid_name};

/// The most networks of one host.
pub const MAX_NETWORKS: usize = 256;
/// The most interfaces of one domain.
pub const MAX_VIFS: usize = 16;
/// The most rules of one interface.
pub const MAX_RULES: usize = 256;
/// The most addresses that an interface may use besides its own.
pub const MAX_MORE_ADDRESSES: u16 = 1024;
/// The lowest and the highest rate of an interface, in bytes a second: 8 kbit/s to 100 Gbit/s.
pub const MIN_RATE: u64 = 1000;
/// See [`MIN_RATE`].
pub const MAX_RATE: u64 = 12_500_000_000;
/// The least burst, in bytes: the longest frame, or it could never be sent.
pub const MIN_BURST: u64 = 1 << 16;
/// The largest burst.
pub const MAX_BURST: u64 = 1 << 32;

/// A network: its interfaces hear each other, and nobody else but those behind its uplink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The name, for people.
    pub name: String,
    /// Its way to the world outside.
    pub uplink: Option<UplinkConfig>,
}

impl NetworkConfig {
    /// A network without an uplink.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name, uplink: None }
    }
}

/// An interface of a domain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VifConfig {
    /// The network's place in the list of networks.
    pub network: u16,
    /// Its address.
    pub mac: MacAddr,
    /// How many addresses the guest may use besides, as one that bridges does.
    pub more_addresses: u16,
    /// How much the guest may send.
    pub rate: Option<Rate>,
    /// The packet filter; the first rule that fits decides.
    pub rules: Vec<Rule>,
    /// What becomes of a packet that fits no rule.
    pub otherwise: Action,
}

/// How much in how much time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes a second, in the long run.
    pub bytes_per_second: u64,
    /// Bytes at once, after a pause.
    pub burst: u64,
}

impl Rate {
    /// True when the numbers are within their limits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (MIN_RATE..=MAX_RATE).contains(&self.bytes_per_second)
            && (MIN_BURST..=MAX_BURST).contains(&self.burst)
    }
}

impl VifConfig {
    /// An interface of a domain, by its number, with nothing but the defaults.
    #[must_use]
    pub fn new(network: u16, domain: &str, number: u8) -> Self {
        Self {
            network,
            mac: MacAddr::derived(domain, number),
            more_addresses: 0,
            rate: None,
            rules: Vec::new(),
            otherwise: Action::Allow,
        }
    }

    fn mistake(&self, networks: usize) -> Option<String> {
        if usize::from(self.network) >= networks {
            let network = self.network;
            return Some(format!(
                "is on network {network}, and there are {networks}: name one that is"
            ));
        }
        if !self.mac.is_station() {
            return Some(format!(
                "has the address {}, which is of a group: give it one of its own",
                self.mac
            ));
        }
        if self.more_addresses > MAX_MORE_ADDRESSES {
            return Some(format!(
                "may use {} more addresses: at most {MAX_MORE_ADDRESSES} can be",
                self.more_addresses
            ));
        }
        bounds_mistake(self.rate, &self.rules)
    }
}

/// Cause and remedy of a mistake in what may pass.
fn bounds_mistake(rate: Option<Rate>, rules: &[Rule]) -> Option<String> {
    if rate.is_some_and(|rate| !rate.is_valid()) {
        return Some(format!(
            "has a rate or a burst that cannot be: give it {MIN_RATE} to {MAX_RATE} bytes a \
             second and {MIN_BURST} to {MAX_BURST} bytes at once"
        ));
    }
    if rules.len() > MAX_RULES {
        let count = rules.len();
        return Some(format!("has {count} rules: at most {MAX_RULES} fit"));
    }
    let bad = rules.iter().position(|rule| !rule.is_valid())?;
    Some(format!(
        "has a rule {bad} that fits nothing: correct its addresses or ports"
    ))
}

/// Cause and remedy of a mistake in the uplink of a network, given the networks before it.
fn uplink_mistake(network: &NetworkConfig, before: &[NetworkConfig]) -> Option<String> {
    let uplink = network.uplink.as_ref()?;
    let name = &network.name;
    if !uplink.nic.is_valid() {
        return Some(format!(
            "the uplink of network `{name}` cannot be {}: name a network card",
            uplink.nic
        ));
    }
    if let Some(text) = bounds_mistake(uplink.rate, &uplink.rules) {
        return Some(format!("the uplink of network `{name}` {text}"));
    }
    let has_it = |other: &&NetworkConfig| {
        let other = other.uplink.as_ref();
        other.is_some_and(|other| other.nic == uplink.nic)
    };
    let other = before.iter().find(has_it)?;
    Some(format!(
        "networks `{}` and `{name}` have the same uplink, {}: give each its own network card",
        other.name, uplink.nic
    ))
}

/// Cause and remedy of a mistake in the networks and who is on them.
pub(crate) fn mistake(networks: &[NetworkConfig], domains: &[DomainConfig]) -> Option<String> {
    if networks.len() > MAX_NETWORKS {
        return Some(format!(
            "the host has {} networks: at most {MAX_NETWORKS} fit",
            networks.len()
        ));
    }
    for (index, network) in networks.iter().enumerate() {
        let name = &network.name;
        if !is_valid_name(name) {
            return Some(format!(
                "network name {name:?} is no good: use 1 to {MAX_NAME} letters, digits, '-', '_', \
                 '.'"
            ));
        }
        if networks.iter().take(index).any(|other| other.name == *name) {
            return Some(format!(
                "two networks are called `{name}`: give each its own name"
            ));
        }
        let before = networks.get(..index).unwrap_or_default();
        if let Some(text) = uplink_mistake(network, before) {
            return Some(text);
        }
    }
    let mut used = Vec::new();
    for domain in domains {
        if domain.vifs.len() > MAX_VIFS {
            return Some(format!(
                "domain `{}` has {} interfaces: at most {MAX_VIFS} fit",
                domain.name,
                domain.vifs.len()
            ));
        }
        for (number, vif) in domain.vifs.iter().enumerate() {
            let who = format!("interface {number} of domain `{}`", domain.name);
            if let Some(text) = vif.mistake(networks.len()) {
                return Some(format!("{who} {text}"));
            }
            used.push((vif.network, vif.mac, who));
        }
    }
    used.sort_unstable_by_key(|(network, mac, _)| (*network, *mac));
    let twice = used
        .array_windows()
        .find(|[one, other]| (one.0, one.1) == (other.0, other.1));
    let [(_, mac, one), (.., other)] = twice?;
    Some(format!(
        "{one} and {other} are on the same network and have the address {mac}: give each its own"
    ))
}

#[cfg(test)]
mod tests {
    use super::{NetworkConfig, Rate, VifConfig, mistake};
    use crate::config::{DomainConfig, FileId, MemoryBacking, OnReboot};
    use crate::network::{MacAddr, Nic, Prefix, Rule, UplinkConfig};
    use crate::quotas::Quotas;
    use crate::share::Share;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn domain(name: &str, vifs: Vec<VifConfig>) -> DomainConfig {
        DomainConfig {
            name: name.into(),
            kernel: FileId(0),
            initrd: None,
            cmdline: String::new(),
            memory_pages: 1024,
            vcpus: 1,
            affinity: None,
            quotas: Quotas::usual(1, 1024),
            share: Share::default(),
            backing: MemoryBacking::OnTouch,
            on_reboot: OnReboot::Restart,
            disks: Vec::new(),
            vifs,
        }
    }

    fn text(networks: &[&str], change: impl FnOnce(&mut VifConfig)) -> String {
        let network = |name: &&str| NetworkConfig::new((*name).into());
        let networks: Vec<_> = networks.iter().map(network).collect();
        let mut vif = VifConfig::new(0, "b", 0);
        change(&mut vif);
        let one = domain("a", [VifConfig::new(0, "a", 0)].into());
        mistake(&networks, &[one, domain("b", [vif].into())]).unwrap_or_default()
    }

    fn of_vif(change: impl FnOnce(&mut VifConfig)) -> String {
        text(&["lan", "wan"], change)
    }

    #[test]
    fn each_mistake_is_named() {
        assert_eq!(of_vif(|_| ()), "");
        assert_eq!(
            text(&["lan", "lan"], |_| ()),
            "two networks are called `lan`: give each its own name"
        );
        assert!(text(&["a b"], |_| ()).starts_with("network name \"a b\" is no good"));
        assert!(text(&["lan"; 257], |_| ()).starts_with("the host has 257 networks"));
        assert_eq!(
            of_vif(|vif| vif.network = 2),
            "interface 0 of domain `b` is on network 2, and there are 2: name one that is"
        );
        assert!(of_vif(|vif| vif.mac = MacAddr::BROADCAST).contains("which is of a group"));
        let same = |vif: &mut VifConfig| vif.mac = MacAddr::derived("a", 0);
        assert!(of_vif(same).starts_with(
            "interface 0 of domain `a` and interface 0 of domain `b` are on the same network"
        ));
        let elsewhere =
            |vif: &mut VifConfig| (vif.network, vif.mac) = (1, MacAddr::derived("a", 0));
        assert_eq!(of_vif(elsewhere), "");
        assert!(of_vif(|vif| vif.more_addresses = 1025).contains("may use 1025 more addresses"));
        let rate = |bytes_per_second, burst| {
            of_vif(|vif| {
                vif.rate = Some(Rate {
                    bytes_per_second,
                    burst,
                });
            })
        };
        assert_eq!(rate(1000, 1 << 16), "");
        assert!(rate(999, 1 << 16).contains("has a rate or a burst that cannot be"));
        assert!(rate(1000, 1000).contains("has a rate or a burst that cannot be"));
        assert!(of_vif(|vif| vif.rules = [Rule::default(); 257].into()).contains("has 257 rules"));
        let address = "10.0.0.0".parse().unwrap();
        let source = Some(Prefix { address, bits: 33 });
        let rule = Rule {
            source,
            ..Rule::default()
        };
        assert!(of_vif(|vif| vif.rules = [Rule::default(), rule].into()).contains("has a rule 1"));
        let many = domain("c", alloc::vec![VifConfig::new(0, "c", 0); 17]);
        let one = [NetworkConfig::new("lan".into())];
        let told = mistake(&one, &[many]).unwrap();
        assert_eq!(told, "domain `c` has 17 interfaces: at most 16 fit");
    }

    #[test]
    fn each_mistake_in_an_uplink_is_named() {
        let network = |name: &str, nic| NetworkConfig {
            uplink: Some(UplinkConfig::new(nic)),
            ..NetworkConfig::new(name.into())
        };
        let told = |networks: &[NetworkConfig]| mistake(networks, &[]).unwrap_or_default();
        let first = network("lan", Nic::First);
        let card = Nic::parse("52:54:00:12:34:56").unwrap();
        assert_eq!(told(&[first.clone(), network("wan", card)]), "");
        assert_eq!(
            told(&[first.clone(), network("wan", Nic::First)]),
            "networks `lan` and `wan` have the same uplink, first: give each its own network card"
        );
        let none = Nic::Address(MacAddr::BROADCAST);
        assert!(told(&[network("lan", none)]).contains("cannot be ff:ff:ff:ff:ff:ff"));
        let mut limited = first;
        if let Some(uplink) = &mut limited.uplink {
            uplink.rules = [Rule::default(); 257].into();
        }
        assert!(told(&[limited]).starts_with("the uplink of network `lan` has 257 rules"));
    }
}
