//! Which card is which network's uplink.

use alloc::vec::Vec;
use system::network::{NetworkConfig, Nic};

use super::card::NetworkCard;

/// The card of each network that has one; says of the others that are to have one why not. Cards
/// that are named go before the first that is not.
pub(super) fn assign(
    networks: &[NetworkConfig],
    cards: &[&'static dyn NetworkCard],
) -> Vec<Option<&'static dyn NetworkCard>> {
    let mut takers: Vec<Option<usize>> = cards.iter().map(|_| None).collect();
    for is_named in [true, false] {
        for (number, network) in networks.iter().enumerate() {
            let Some(nic) = network.uplink.as_ref().map(|uplink| uplink.nic) else {
                continue;
            };
            if is_named != (nic == Nic::First) {
                take(&mut takers, number, networks, cards, nic);
            }
        }
    }
    let of = |number| {
        let found = takers.iter().position(|taker| *taker == Some(number))?;
        cards.get(found).copied()
    };
    (0..networks.len()).map(of).collect()
}

/// Finds a network's card.
fn take(
    takers: &mut [Option<usize>],
    number: usize,
    networks: &[NetworkConfig],
    cards: &[&'static dyn NetworkCard],
    nic: Nic,
) {
    let name = |number: usize| {
        networks
            .get(number)
            .map_or("", |network| network.name.as_str())
    };
    let fits = |card: &dyn NetworkCard| match nic {
        Nic::First => true,
        Nic::Address(address) => card.address() == address,
        Nic::Pci(place) => card.place() == place,
    };
    let fitting = takers
        .iter_mut()
        .zip(cards)
        .filter(|(_, card)| fits(**card));
    let mut other = None;
    for (taker, _) in fitting {
        match *taker {
            None => {
                *taker = Some(number);
                return;
            }
            Some(first) => other = Some(first),
        }
    }
    let name_of = name(number);
    match other {
        Some(other) if nic != Nic::First => log::warn!(
            "network {name_of}: its network card {nic} is that of network {}: it goes on without \
             an uplink",
            name(other)
        ),
        _ => log::warn!(
            "network {name_of}: no network card that has a driver here is {nic}: it goes on \
             without an uplink"
        ),
    }
}
