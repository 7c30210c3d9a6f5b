//! Random sequences of requests against a model: a map from paths to values, of which a
//! transaction takes a copy.

//!
//! And any bytes at all, which get one reply each.

use std::collections::BTreeMap;

use abi::xs_wire::kind;
use calls::Choice;
use xenstore::Store;
use xenstore::testing::{begin, end, read, send, store, take, usage, word, write};

use crate::Input;

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

fn step(input: &mut Input<'_>) -> Step {
    let (inside, path) = (input.flip(), input.index(PATHS.len()));
    match input.below(16) {
        0..=3 => Step::Write(inside, path, input.bytes::<1>()[0]),
        4 => Step::Mkdir(inside, path),
        5..=6 => Step::Remove(inside, path),
        7..=9 => Step::Read(inside, path),
        10..=11 => Step::List(inside, path),
        12..=13 => Step::Begin,
        _ => Step::End(inside),
    }
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

/// The store, and what it is to be like.
struct World {
    store: Store,
    outside: Model,
    open: Option<Open>,
}

impl World {
    fn new() -> Self {
        Self {
            store: store(),
            outside: Model::default(),
            open: None,
        }
    }

    fn step(&mut self, step: &Step) {
        let opened = self.open.as_ref().map_or(0, |tx| tx.id);
        // A transaction sees what others change until it touches it.
        let disturbed = self.open.as_ref().is_some_and(|tx| tx.disturbed);
        let tx = |inside: bool| if inside { opened } else { 0 };
        let known = |inside: bool| tx(inside) == 0 || !disturbed;
        let store = &mut self.store;
        match *step {
            Step::Begin => self.begin(),
            Step::End(commit) => self.end(commit),
            Step::Write(inside, path, value) => {
                let value = value.to_string();
                write(store, 1, tx(inside), PATHS[path], &value).unwrap();
                self.model(step).apply(step);
            }
            Step::Mkdir(inside, path) => {
                word(store, 1, kind::MKDIR, tx(inside), PATHS[path]).unwrap();
                self.model(step).apply(step);
            }
            Step::Remove(inside, path) => {
                let done = word(store, 1, kind::RM, tx(inside), PATHS[path]).is_ok();
                let model = self.model(step);
                let expected = model.knows(PATHS[path]);
                model.apply(step);
                assert!(!known(inside) || done == expected, "{step:?}");
            }
            Step::Read(inside, path) => {
                let found = read(store, 1, tx(inside), PATHS[path]).ok();
                let expected = self.model(step).0.get(PATHS[path]);
                assert!(!known(inside) || found.as_ref() == expected, "{step:?}");
            }
            Step::List(inside, path) => {
                let found = list(store, tx(inside), PATHS[path]);
                let expected = self.model(step).list(PATHS[path]);
                assert!(!known(inside) || found == expected, "{step:?}");
            }
        }
    }

    fn begin(&mut self) {
        if self.open.is_none() {
            self.open = Some(Open {
                id: begin(&mut self.store, 1),
                disturbed: false,
                within: self.outside.clone(),
                log: Vec::new(),
            });
        }
    }

    fn end(&mut self, commit: bool) {
        let Some(tx) = self.open.take() else { return };
        match end(&mut self.store, 1, tx.id, commit) {
            // As if it had happened at this moment.
            Ok(()) if commit => tx.log.iter().for_each(|step| self.outside.apply(step)),
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, "EAGAIN");
                assert!(tx.disturbed, "nobody else changed anything");
            }
        }
    }

    /// The model that a step is about; a transaction remembers the step.
    fn model(&mut self, step: &Step) -> &mut Model {
        let (Step::Write(inside, ..)
        | Step::Mkdir(inside, _)
        | Step::Remove(inside, _)
        | Step::Read(inside, _)
        | Step::List(inside, _)
        | Step::End(inside)) = *step
        else {
            return &mut self.outside;
        };
        let Some(tx) = &mut self.open else {
            return &mut self.outside;
        };
        if inside {
            tx.log.push(step.clone());
            &mut tx.within
        } else {
            tx.disturbed |= !matches!(step, Step::Read(..) | Step::List(..));
            &mut self.outside
        }
    }

    fn finish(mut self) {
        self.end(false);
        let store = &mut self.store;
        assert_eq!(dump(store), self.outside);
        // What is counted is what is there: the home and its nodes.
        assert_eq!(usage(store, 1).0 as usize, self.outside.0.len() + 1);
        store.control().remove("/local/domain/1");
        assert_eq!(usage(store, 1), (0, 0));
    }
}

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let mut done = 0;
    if input.flip() {
        let mut world = World::new();
        while !input.is_empty() {
            world.step(&step(input));
            done += 1;
        }
        world.finish();
    } else {
        let mut store = store();
        while !input.is_empty() {
            any_request(input, &mut store);
            done += 1;
        }
    }
    done
}

/// No bytes make the store panic, and every request gets exactly one reply.
fn any_request(input: &mut Input<'_>, store: &mut Store) {
    let (kind, tx) = (input.below(24), input.below(3));
    let body: Vec<u8> = (0..input.below(24))
        .map(|_| match input.below(8) {
            0 => input.bytes::<1>()[0],
            1 | 2 => 0,
            byte => b"/aTn1"[byte as usize - 3],
        })
        .collect();
    send(store, 1, kind, tx, &body);
    let replies = take(store, 1);
    let replies = replies
        .iter()
        .filter(|(sort, _)| *sort != kind::WATCH_EVENT);
    assert_eq!(replies.count(), 1, "{kind} {body:02x?}");
}
