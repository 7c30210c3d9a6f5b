//! Random calls of three domains, in any order, with ends in between, against a model that knows
//! nothing but sets: who has mapped what of whom. Guests keep to no rule about their entries.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use abi::Gfn;
use abi::grant_table::{flags, status, v1};
use calls::Choice;
use vmm_core::grant::ops::{Side, Span};
use vmm_core::grant::testing::{Dom, RAM};

use crate::Input;

const GREFS: u32 = 4;
const FIRST: u32 = 8;
const HOLE: u64 = 0x4000;
/// Where grants are mapped.
const PLACES: core::ops::Range<u64> = HOLE..HOLE + 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    Grant {
        by: usize,
        to: usize,
        gref: u32,
        gfn: u32,
        readonly: bool,
    },
    Scribble {
        by: usize,
        gref: u32,
        header: u32,
    },
    Map {
        by: usize,
        of: usize,
        gref: u32,
        at: u64,
        write: bool,
    },
    Unmap {
        by: usize,
        handle: u32,
        at: u64,
    },
    Copy {
        by: usize,
        of: usize,
        gref: u32,
        out: bool,
    },
    Balloon {
        by: usize,
        gfn: u64,
    },
    Die {
        who: usize,
    },
}

fn step(input: &mut Input<'_>) -> Step {
    let (by, of) = (input.index(3), input.index(3));
    let gref = FIRST + input.below(GREFS);
    let at = PLACES.start + u64::from(input.below(6));
    match input.below(27) {
        0..=5 => Step::Grant {
            by,
            to: of,
            gref,
            gfn: input.below(9),
            readonly: input.flip(),
        },
        6..=7 => Step::Scribble {
            by,
            gref,
            header: u32::from_le_bytes(input.bytes()),
        },
        8..=15 => Step::Map {
            by,
            of,
            gref,
            at,
            write: input.flip(),
        },
        16..=21 => Step::Unmap {
            by,
            handle: input.below(8),
            at,
        },
        22..=24 => Step::Copy {
            by,
            of,
            gref,
            out: input.flip(),
        },
        25 => Step::Balloon {
            by,
            gfn: u64::from(input.below(8)),
        },
        _ => Step::Die { who: by },
    }
}

/// A mapping in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    of: usize,
    gref: u32,
    at: u64,
    write: bool,
    /// What the page's first word says: pages are told apart by it.
    mark: u64,
}

struct World {
    doms: Vec<Dom>,
    alive: [bool; 3],
    mapped: [BTreeMap<u32, Mapped>; 3],
}

impl World {
    fn new() -> Self {
        let doms: Vec<Dom> = (0..3).map(|_| Dom::new()).collect();
        for dom in &doms {
            for gfn in 0..RAM {
                dom.write(gfn, mark(dom, gfn));
            }
        }
        Self {
            doms,
            alive: [true; 3],
            mapped: [const { BTreeMap::new() }; 3],
        }
    }

    /// The domains that can be found by their ids.
    fn living(&self) -> Vec<&Dom> {
        let living = self.doms.iter().zip(self.alive);
        living
            .filter(|(_, alive)| *alive)
            .map(|(dom, _)| dom)
            .collect()
    }

    fn uses(&self, of: usize, gref: u32) -> Vec<(usize, Mapped)> {
        let all = self.mapped.iter().enumerate();
        all.flat_map(|(by, mapped)| mapped.values().map(move |m| (by, *m)))
            .filter(|(_, m)| m.of == of && m.gref == gref)
            .collect()
    }

    /// What the entry says now, if it allows anything: to whom, which frame, and whether to
    /// write.
    fn entry(&self, of: usize, gref: u32) -> (u16, u16, u32) {
        let at = gref as usize * v1::ENTRY_SIZE;
        let entries = &self.doms[of].entries;
        (
            entries.u16(at).load(SeqCst),
            entries.u16(at + 2).load(SeqCst),
            entries.u32(at + 4).load(SeqCst),
        )
    }

    /// What mapping is to answer: the mark of the page, or the status.
    fn expect_map(
        &self,
        by: usize,
        of: usize,
        gref: u32,
        at: u64,
        write: bool,
    ) -> Result<u64, i16> {
        if !self.alive[of] {
            return Err(status::BAD_DOMAIN);
        }
        let (entry_flags, domid, gfn) = self.entry(of, gref);
        let uses = self.uses(of, gref);
        let mark = if let Some((user, first)) = uses.first() {
            if *user != by {
                return Err(status::GENERAL_ERROR);
            }
            let new_right = write && !uses.iter().any(|(_, m)| m.write);
            if new_right && entry_flags & flags::READONLY != 0 {
                return Err(status::GENERAL_ERROR);
            }
            first.mark
        } else {
            let kind = entry_flags & (flags::TYPE_MASK | flags::SUB_PAGE);
            let allowed = kind == flags::PERMIT_ACCESS && domid == self.doms[by].id.0;
            if !allowed || (write && entry_flags & flags::READONLY != 0) {
                return Err(status::GENERAL_ERROR);
            }
            let own = (u64::from(gfn) < RAM).then(|| self.doms[of].read(gfn.into()));
            own.flatten().ok_or(status::BAD_PAGE)?
        };
        let taken = self.mapped[by].values().any(|m| m.at == at);
        if taken {
            Err(status::GENERAL_ERROR)
        } else {
            Ok(mark)
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant {
                by,
                to,
                gref,
                gfn,
                readonly,
            } if self.alive[by] => {
                self.doms[by].grant(gref, self.doms[to].id, gfn, readonly);
            }
            Step::Scribble { by, gref, header } if self.alive[by] => {
                let at = gref as usize * v1::ENTRY_SIZE;
                self.doms[by].entries.u32(at).store(header, SeqCst);
            }
            Step::Map {
                by,
                of,
                gref,
                at,
                write,
            } if self.alive[by] => {
                let expected = self.expect_map(by, of, gref, at, write);
                let got = self.doms[by].map(&self.doms[of], gref, at, write);
                assert_eq!(got.map(|_| ()), expected.map(|_| ()));
                if let (Ok(handle), Ok(mark)) = (got, expected) {
                    let mapped = Mapped {
                        of,
                        gref,
                        at,
                        write,
                        mark,
                    };
                    assert_eq!(self.mapped[by].insert(handle, mapped), None);
                }
            }
            Step::Unmap { by, handle, at } if self.alive[by] => {
                let expected = match self.mapped[by].get(&handle) {
                    None => Err(status::BAD_HANDLE),
                    Some(mapped) if mapped.at != at => Err(status::GENERAL_ERROR),
                    Some(_) => Ok(()),
                };
                let got = self.doms[by].unmap(&self.living(), handle, at);
                assert_eq!(got, expected);
                if got.is_ok() {
                    self.mapped[by].remove(&handle);
                }
            }
            Step::Copy { by, of, gref, out } if self.alive[by] => self.copy(by, of, gref, out),
            Step::Balloon { by, gfn } if self.alive[by] => {
                if let Ok(flush) = self.doms[by].party().p2m.write().remove(Gfn::new(gfn)) {
                    flush.done();
                }
            }
            Step::Die { who } if self.alive[who] => {
                self.alive[who] = false;
                self.doms[who].die(&self.living());
                self.mapped[who].clear();
            }
            _ => {}
        }
    }

    /// A copy that changes nothing: what it answers must fit what a mapping would be answered.
    fn copy(&self, by: usize, of: usize, gref: u32, out: bool) {
        let (own, grant) = (Side::Frame(Gfn::new(0)), self.doms[of].side(gref));
        let span = Span {
            source: 8,
            dest: 8,
            length: 8,
        };
        let (source, dest) = if out { (own, grant) } else { (grant, own) };
        let got = self.doms[by].copy(source, dest, span);
        let mut expected = self.expect_map(by, of, gref, u64::MAX, out).map(|_| ());
        let (entry_flags, ..) = self.entry(of, gref);
        let sub_page = entry_flags & flags::SUB_PAGE != 0;
        let own_there = self.doms[by].read(0).is_some();
        if expected.is_ok() && !own_there {
            expected = Err(status::BAD_PAGE);
        }
        // Version 1 knows no parts of pages, and only a mapping minds the flag. Which side is
        // looked at first decides between two statuses.
        if !sub_page && own_there {
            assert_eq!(got, expected);
        }
    }

    fn check(&self) {
        for (by, mapped) in self.mapped.iter().enumerate() {
            if self.alive[by] {
                assert_eq!(self.doms[by].mappings() as usize, mapped.len());
            }
            for m in mapped.values() {
                assert_eq!(
                    self.doms[by].read(m.at),
                    Some(m.mark),
                    "the page of the first use"
                );
                let writable = self.doms[by].write(m.at, m.mark);
                assert_eq!(writable, m.write);
            }
            let gone = PLACES.filter(|at| mapped.values().all(|m| m.at != *at));
            for at in gone {
                assert_eq!(self.doms[by].read(at), None, "nothing is mapped there");
            }
        }
        for (of, dom) in self
            .doms
            .iter()
            .enumerate()
            .filter(|(of, _)| self.alive[*of])
        {
            let used = (FIRST..FIRST + GREFS).filter(|gref| !self.uses(of, *gref).is_empty());
            assert_eq!(dom.busy() as usize, used.count());
        }
    }

    /// Ends all, in the order given: then nothing is left of anybody's memory.
    fn end(mut self, order: [usize; 3]) {
        for who in order {
            self.step(Step::Die { who });
            self.check();
        }
        assert_eq!([0, 1, 2].map(|who: usize| self.doms[who].owned()), [0; 3]);
    }
}

fn mark(dom: &Dom, gfn: u64) -> u64 {
    u64::from(dom.id.0) << 32 | 1 << 20 | gfn
}

/// Operations of one world at most: what domains there are end sooner or later.
const MOST: u64 = 120;

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let mut done = 0;
    while !input.is_empty() {
        let mut world = World::new();
        let before = done;
        while !input.is_empty() && done - before < MOST {
            world.step(step(input));
            world.check();
            done += 1;
        }
        const ORDERS: [[usize; 3]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        world.end(ORDERS[input.index(ORDERS.len())]);
    }
    done
}
