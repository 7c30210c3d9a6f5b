//! Random sequences of requests against a model: a map from paths to values, of which a
//! transaction takes a copy.

use abi::xs_wire::kind;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::{begin, end, read, store, word, write};
use crate::Store;

#[derive(Clone, Debug)]
enum Step {
    Write(bool, usize, u8),
    Mkdir(bool, usize),
    Remove(bool, usize),
    Read(bool, usize),
    List(bool, usize),
    Begin,
    End(bool),
}

const PATHS: &[&str] = &[
    "a", "a/b", "a/b/c", "a/b/d", "a-b", "a/e", "f", "f/g", "f/g/h/i", "j",
];

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        4 => (any::<bool>(), path.clone(), any::<u8>()).prop_map(|(t, p, v)| Step::Write(t, p, v)),
        1 => (any::<bool>(), path.clone()).prop_map(|(t, p)| Step::Mkdir(t, p)),
        2 => (any::<bool>(), path.clone()).prop_map(|(t, p)| Step::Remove(t, p)),
        3 => (any::<bool>(), path.clone()).prop_map(|(t, p)| Step::Read(t, p)),
        2 => (any::<bool>(), path).prop_map(|(t, p)| Step::List(t, p)),
        2 => Just(Step::Begin),
        2 => any::<bool>().prop_map(Step::End),
    ]
}

type Map = BTreeMap<String, String>;

/// A domain's view: paths relative to its home, which is always there.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(Map);

impl Model {
    fn parents(path: &str) -> impl Iterator<Item = &str> {
        path.match_indices('/').map(|(at, _)| &path[..at])
    }

    fn write(&mut self, path: &str, value: &str) {
        for above in Self::parents(path) {
            self.0.entry(above.to_string()).or_default();
        }
        self.0.insert(path.to_string(), value.to_string());
    }

    fn mkdir(&mut self, path: &str) {
        if !self.0.contains_key(path) {
            self.write(path, "");
        }
    }

    fn remove(&mut self, path: &str) {
        let below = std::format!("{path}/");
        self.0
            .retain(|key, _| key != path && !key.starts_with(&below));
    }

    /// Whether the node or the one above is there.
    fn knows(&self, path: &str) -> bool {
        let above = path.rsplit_once('/').map(|(above, _)| above);
        self.0.contains_key(path) || above.is_none_or(|above| self.0.contains_key(above))
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(_, path, value) => self.write(PATHS[*path], &value.to_string()),
            Step::Mkdir(_, path) => self.mkdir(PATHS[*path]),
            Step::Remove(_, path) => self.remove(PATHS[*path]),
            Step::Read(..) | Step::List(..) | Step::Begin | Step::End(_) => {}
        }
    }

    fn list(&self, path: &str) -> Option<Vec<String>> {
        self.0.get(path)?;
        let below = std::format!("{path}/");
        let names = self.0.keys().filter_map(|key| key.strip_prefix(&below));
        Some(
            names
                .filter(|name| !name.contains('/'))
                .map(String::from)
                .collect(),
        )
    }
}

/// The open transaction.
#[derive(Debug)]
struct Open {
    id: u32,
    /// Something was changed outside of it.
    disturbed: bool,
    /// As it sees it, if nobody else changes anything.
    within: Model,
    log: Vec<Step>,
}

/// Everything in the domain's home.
fn dump(store: &mut Store) -> Model {
    let mut model = Model::default();
    let mut todo: Vec<String> = list(store, 0, "/local/domain/1").unwrap();
    while let Some(path) = todo.pop() {
        let value = read(store, 1, 0, &path).unwrap();
        model.0.insert(path.clone(), value);
        for name in list(store, 0, &path).unwrap() {
            todo.push(std::format!("{path}/{name}"));
        }
    }
    model
}

fn list(store: &mut Store, tx: u32, path: &str) -> Option<Vec<String>> {
    let names = word(store, 1, kind::DIRECTORY, tx, path).ok()?;
    let mut names: Vec<_> = names.split_terminator('\0').map(String::from).collect();
    names.sort();
    Some(names)
}

proptest! {
    #[test]
    fn the_store_is_a_map_and_a_transaction_all_or_nothing(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut store = store();
        let mut outside = Model::default();
        let mut open: Option<Open> = None;
        for step in steps {
            let opened = open.as_ref().map_or(0, |tx| tx.id);
            // A transaction sees what others change until it touches it.
            let stale = open.as_ref().is_some_and(|tx| tx.disturbed);
            let tx = |inside: bool| if inside { opened } else { 0 };
            match step {
                Step::Begin => {
                    if open.is_none() {
                        open = Some(Open {
                            id: begin(&mut store, 1),
                            disturbed: false,
                            within: outside.clone(),
                            log: Vec::new(),
                        });
                    }
                }
                Step::End(commit) => {
                    if let Some(tx) = open.take() {
                        match end(&mut store, 1, tx.id, commit) {
                            // As if it had happened at this moment.
                            Ok(()) if commit => tx.log.iter().for_each(|step| outside.apply(step)),
                            Ok(()) => {}
                            Err(error) => {
                                prop_assert_eq!(error, "EAGAIN");
                                prop_assert!(tx.disturbed, "nobody else changed anything");
                            }
                        }
                    }
                }
                Step::Write(inside, path, value) => {
                    let value = value.to_string();
                    let id = tx(inside);
                    write(&mut store, 1, id, PATHS[path], &value).unwrap();
                    model(&mut outside, &mut open, &step).apply(&step);
                }
                Step::Mkdir(inside, path) => {
                    let id = tx(inside);
                    word(&mut store, 1, kind::MKDIR, id, PATHS[path]).unwrap();
                    model(&mut outside, &mut open, &step).apply(&step);
                }
                Step::Remove(inside, path) => {
                    let id = tx(inside);
                    let done = word(&mut store, 1, kind::RM, id, PATHS[path]).is_ok();
                    let model = model(&mut outside, &mut open, &step);
                    let known = model.knows(PATHS[path]);
                    model.apply(&step);
                    if !(id != 0 && stale) {
                        prop_assert_eq!(done, known);
                    }
                }
                Step::Read(inside, path) => {
                    let id = tx(inside);
                    let found = read(&mut store, 1, id, PATHS[path]).ok();
                    let expected = model(&mut outside, &mut open, &step).0.get(PATHS[path]).cloned();
                    if !(id != 0 && stale) {
                        prop_assert_eq!(found, expected);
                    }
                }
                Step::List(inside, path) => {
                    let id = tx(inside);
                    let found = list(&mut store, id, PATHS[path]);
                    let expected = model(&mut outside, &mut open, &step).list(PATHS[path]);
                    if !(id != 0 && stale) {
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
        if let Some(tx) = open {
            end(&mut store, 1, tx.id, false).unwrap();
        }
        prop_assert_eq!(dump(&mut store), outside.clone());
        // What is counted is what is there: the home and its nodes.
        let usage = store.connection(abi::DomId(1)).unwrap().usage;
        prop_assert_eq!(usage.nodes as usize, outside.0.len().saturating_add(1));
        store.control().remove("/local/domain/1");
        let usage = store.connection(abi::DomId(1)).unwrap().usage;
        prop_assert_eq!((usage.nodes, usage.memory()), (0, 0));
    }

    /// No bytes make the store panic, and every request gets exactly one reply.
    #[test]
    fn any_request_gets_one_reply(
        requests in proptest::collection::vec(
            (0u32..24, 0u32..3, proptest::collection::vec(prop_oneof![
                Just(0u8), Just(b'/'), Just(b'a'), Just(b'T'), Just(b'n'), Just(b'1'), any::<u8>(),
            ], 0..24)),
            1..40,
        )
    ) {
        let mut store = store();
        for (kind, tx, body) in requests {
            super::send(&mut store, 1, kind, tx, &body);
            let replies = super::take(&mut store, 1)
                .iter()
                .filter(|(kind, _)| *kind != kind::WATCH_EVENT)
                .count();
            prop_assert_eq!(replies, 1);
        }
    }
}

/// The model that a step is about; a transaction remembers the step.
fn model<'a>(outside: &'a mut Model, open: &'a mut Option<Open>, step: &Step) -> &'a mut Model {
    let (Step::Write(inside, ..)
    | Step::Mkdir(inside, _)
    | Step::Remove(inside, _)
    | Step::Read(inside, _)
    | Step::List(inside, _)
    | Step::End(inside)) = *step
    else {
        return outside;
    };
    let Some(tx) = open else { return outside };
    if inside {
        tx.log.push(step.clone());
        &mut tx.within
    } else {
        tx.disturbed |= !matches!(step, Step::Read(..) | Step::List(..));
        outside
    }
}
