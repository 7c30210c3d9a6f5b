//! Random lives of a network against a plain list of who has which address.

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::vec::Vec;
use system::network::MacAddr;

use super::{frame, hearers, mac};
use crate::table::MAX_AGE;
use crate::{Destination, Network, PortId};

#[derive(Clone, Debug)]
enum Step {
    Attach { last: u8, limit: u16 },
    Detach { which: usize },
    Send { which: usize, source: u8, to: u8 },
    Wait { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let last = 0_u8..12;
    prop_oneof![
        2 => (last.clone(), 0_u16..4).prop_map(|(last, limit)| Step::Attach { last, limit }),
        1 => any::<usize>().prop_map(|which| Step::Detach { which }),
        9 => (any::<usize>(), last.clone(), last)
            .prop_map(|(which, source, to)| Step::Send { which, source, to }),
        1 => (1_u32..400).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

#[derive(Default)]
struct Model {
    ports: Vec<(PortId, MacAddr, u16)>,
    learned: Vec<(MacAddr, PortId, u32)>,
}

impl Model {
    fn owner(&self, address: MacAddr) -> Option<PortId> {
        let own = self.ports.iter().find(|(_, own, _)| *own == address);
        let learned = self.learned.iter().find(|(known, ..)| *known == address);
        own.map(|(id, ..)| *id).or(learned.map(|(_, id, _)| *id))
    }

    /// Whether a port may send as `source`; it does.
    fn sends(&mut self, id: PortId, source: MacAddr, now: u32) -> bool {
        let (_, own, limit) = *self.ports.iter().find(|(port, ..)| *port == id).unwrap();
        if source == own {
            return true;
        }
        let others = self.ports.iter().any(|(_, own, _)| *own == source);
        let held = self
            .learned
            .iter()
            .any(|(known, port, then)| *known == source && *port != id && now - then <= MAX_AGE);
        if limit == 0 || others || held {
            return false;
        }
        // What the port holds itself, fresh or old, it may go on using.
        if let Some(entry) = self
            .learned
            .iter_mut()
            .find(|(known, port, _)| *known == source && *port == id)
        {
            entry.2 = now;
            return true;
        }
        self.learned.retain(|(known, ..)| *known != source);
        let has = |learned: &[(MacAddr, PortId, u32)]| {
            learned.iter().filter(|(_, port, _)| *port == id).count()
        };
        if has(&self.learned) >= usize::from(limit) {
            self.learned
                .retain(|(_, port, then)| *port != id || now - then <= MAX_AGE);
        }
        if has(&self.learned) >= usize::from(limit) {
            return false;
        }
        self.learned.push((source, id, now));
        true
    }
}

proptest! {
    #[test]
    fn the_table_is_as_the_model(steps in proptest::collection::vec(step(), 1..200)) {
        let mut network = Network::new();
        let mut model = Model::default();
        let mut now = 1;
        for step in steps {
            match step {
                Step::Attach { last, limit } => {
                    let address = mac(last);
                    let taken = model.ports.iter().any(|(_, own, _)| *own == address);
                    let attached = network.attach(address, limit);
                    prop_assert_eq!(attached.is_err(), taken);
                    if let Ok(id) = attached {
                        model.learned.retain(|(known, ..)| *known != address);
                        model.ports.push((id, address, limit));
                    }
                }
                Step::Detach { which } if !model.ports.is_empty() => {
                    let (id, ..) = model.ports.swap_remove(which % model.ports.len());
                    model.learned.retain(|(_, port, _)| *port != id);
                    network.detach(id);
                }
                Step::Send { which, source, to } if !model.ports.is_empty() => {
                    let (id, ..) = model.ports[which % model.ports.len()];
                    let went = network.route(id, frame(mac(source), mac(to)), now);
                    prop_assert_eq!(went.is_ok(), model.sends(id, mac(source), now));
                    let owner = model.owner(mac(to));
                    match went {
                        Ok(Destination::Port(port)) => prop_assert_eq!(owner, Some(port)),
                        Ok(Destination::Nobody) => prop_assert_eq!(owner, Some(id)),
                        Ok(Destination::Hearers) => prop_assert_eq!(owner, None),
                        Err(_) => {}
                    }
                    let may_have = model.ports.iter().filter(|(port, _, limit)| {
                        *port != id && *limit > 0
                    });
                    let mut may_have: Vec<_> = may_have.map(|(port, ..)| *port).collect();
                    may_have.sort();
                    prop_assert_eq!(hearers(&network, id, mac(99)), may_have);
                }
                Step::Wait { seconds } => now += seconds,
                Step::Detach { .. } | Step::Send { .. } => {}
            }
            prop_assert!(network.addresses() <= model.ports.len() + model.learned.len());
        }
    }
}
