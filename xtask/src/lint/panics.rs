//! Where exit handling could panic: a look at the linked hypervisor, not at its source.
//!
//! From the roots, the functions that handle VM exits, every call and jump in the machine code is
//! followed, and every function whose address is taken. A function of ours that can be reached so
//! and leads into one of the compiler's panics (bounds, overflow, `unwrap`, allocation) is shown.
//! Libraries that are linked in are listed with the reason why their panics cannot be reached.
//! Calls through tables in data are not followed: they are those that format the log.
//!
//! Where a panic comes from the debugging information says, down to functions that were inlined. The
//! compiler may have made one of several calls that are alike; that one has no line any more, and
//! is told by the `Location` that it hands over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use crate::build;
use crate::symbols::Functions;
use crate::workspace::Workspace;

/// Where exits are handled; every function below one of these paths.
const ROOTS: &[&str] = &[
    "vmm_core::vcpu::run::",
    "vmm_core::exit::",
    "vmm_core::hypercall::",
];

/// Functions at which exit handling ends, and why.
const ENDS: &[(&str, &str)] = &[
    (
        "vmm_core::start::reap",
        "the end of a domain, between turns",
    ),
    (
        "vmm_core::domain::build::",
        "the start of a domain, between turns",
    ),
    ("vmm_core::start::quit", "the end of the run"),
    (
        "core::fmt::",
        "formats the log, of numbers and names without a width that they could exceed",
    ),
];

/// Libraries whose code may hold panics, by themselves or inlined into ours, and why none of them
/// can happen.
const LIBRARIES: &[(&str, &str)] = &[
    (
        "iced_x86::",
        "is given fifteen bytes and decodes without a panic for any of them",
    ),
    (
        "spin::",
        "a lock has fewer readers than it can count, as each is a pCPU's or a domain's, and no \
         initialiser of a `Once` panics",
    ),
];

/// The project's own assertion: the one panic that exit handling may lead to.
const ASSERTION: &str = "invariant::broken";

/// What a panic begins with.
const PANICS: &[&str] = &[
    "core::panicking::",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_",
    "core::slice::copy_from_slice_impl::",
    "core::str::slice_error_fail",
    "core::cell::panic_",
    "alloc::alloc::handle_alloc_error",
    "alloc::raw_vec::handle_error",
    "alloc::raw_vec::capacity_overflow",
];

/// Code of the language's libraries: it panics on behalf of who calls it.
const STANDARD: &[&str] = &["core::", "alloc::"];

/// Types of the language itself, whose methods are in those libraries. Slices and pointers as well.
const PRIMITIVE: &[&str] = &[
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "str",
    "bool", "char", "[", "&", "*", "(",
];

/// How many instructions before a call are looked at for what it hands over.
const BEFORE_CALL: usize = 4;

/// Builds the hypervisor, and finds the panics that exit handling can reach in it: a line for each
/// place that leads into one.
pub(super) fn problems(ws: &Workspace) -> Result<Vec<String>> {
    let path = &build::hypervisor(ws)?.debug;
    let program = fs::read(path).context("reading the hypervisor")?;
    let functions = Functions::read_in_full(&program)?;
    let graph = Graph::new(&functions, &code(&program)?);
    let image = Image::of(&program)?;
    let lines = Loader::new(path)
        .map_err(|error| anyhow!("debugging information of {}: {error}", path.display()))?;
    Ok(check(&graph, ROOTS, &|site| {
        let mut place = Place::find(&lines, site.at)?;
        if place.line.ends_with(":0")
            && let Some(location) = site.handed.iter().rev().find_map(|at| image.location(*at))
        {
            place.line = location;
        }
        Some(place)
    }))
}

/// Whose source an instruction comes from: the innermost inlined function that is no part of the
/// language's libraries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    function: String,
    line: String,
}

impl Place {
    fn find(lines: &Loader, site: u64) -> Option<Self> {
        let mut frames = lines.find_frames(site).ok()?;
        let mut found = None;
        while let Ok(Some(frame)) = frames.next() {
            let Some(name) = frame.function else { continue };
            let function = format!("{:#}", rustc_demangle::demangle(&name.raw_name().ok()?));
            let standard = is_standard(&function);
            let function = path_of(&function).to_owned();
            let line = frame.location.map_or_else(String::new, |at| {
                let file = at.file.unwrap_or_default();
                format!("{file}:{}", at.line.unwrap_or_default())
            });
            found = Some(Self { function, line });
            if !standard {
                break;
            }
        }
        found
    }
}

/// What is loaded, by address.
#[derive(Debug)]
struct Image<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Image<'a> {
    fn of(program: &'a [u8]) -> Result<Self> {
        let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(program)?;
        let segments = file.segments().context("no segments")?;
        let loaded = segments.iter().filter(|s| s.p_type == elf::abi::PT_LOAD);
        let parts = loaded.map(|s| Ok((s.p_vaddr, file.segment_data(&s)?)));
        Ok(Self(parts.collect::<Result<_>>()?))
    }

    fn bytes(&self, at: u64, len: usize) -> Option<&'a [u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(len)?)
        })
    }

    /// The file and line of a `core::panic::Location`, if one is there: the address and length of
    /// the file's name, line and column.
    fn location(&self, at: u64) -> Option<String> {
        let word = |index: u64| self.bytes(at.checked_add(8 * index)?, 8)?.first_chunk();
        let [name, len] = [0, 1].map(|index| word(index).copied().map(u64::from_le_bytes));
        let line = u32::from_le_bytes(*word(2)?.first_chunk()?);
        let len = usize::try_from(len?).ok().filter(|len| *len < 1024)?;
        let name = std::str::from_utf8(self.bytes(name?, len)?).ok()?;
        name.ends_with(".rs").then(|| format!("{name}:{line}"))
    }
}

/// The machine code and its address.
fn code(program: &[u8]) -> Result<(u64, &[u8])> {
    let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(program)?;
    let text = file
        .section_header_by_name(".text")?
        .context("no section .text")?;
    let (bytes, _) = file.section_data(&text)?;
    Ok((text.sh_addr, bytes))
}

/// Which function leads to which, by name, and by which instructions.
#[derive(Debug, Default)]
struct Graph(BTreeMap<String, BTreeMap<String, Vec<Site>>>);

/// An instruction that leads to another function.
#[derive(Debug, Clone, Default)]
struct Site {
    at: u64,
    /// Constants that the instructions before it load.
    handed: Vec<u64>,
}

impl Graph {
    fn new(functions: &Functions, (address, bytes): &(u64, &[u8])) -> Self {
        let mut graph = Self::default();
        let end = address + bytes.len() as u64;
        let mut decoder = Decoder::with_ip(64, bytes, *address, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut loaded = VecDeque::new();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let Some(from) = functions.at(instruction.ip()) else {
                continue;
            };
            graph.0.entry(from.to_owned()).or_default();
            loaded.push_back(constant(&instruction));
            if loaded.len() > BEFORE_CALL {
                loaded.pop_front();
            }
            let Some(target) = target(&instruction).filter(|t| (*address..end).contains(t)) else {
                continue;
            };
            if let Some(to) = functions.at(target)
                && to != from
            {
                graph
                    .0
                    .entry(from.to_owned())
                    .or_default()
                    .entry(to.to_owned())
                    .or_default()
                    .push(Site {
                        at: instruction.ip(),
                        handed: loaded.iter().flatten().copied().collect(),
                    });
            }
        }
        graph
    }
}

/// Where an instruction leads, or whose address it takes.
fn target(instruction: &Instruction) -> Option<u64> {
    if instruction.op0_kind() == OpKind::NearBranch64 {
        Some(instruction.near_branch_target())
    } else if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
        Some(instruction.ip_rel_memory_address())
    } else {
        None
    }
}

/// The constant that an instruction loads, if it does.
fn constant(instruction: &Instruction) -> Option<u64> {
    match instruction.op1_kind() {
        OpKind::Immediate32to64 | OpKind::Immediate64 | OpKind::Immediate32 => {
            Some(instruction.immediate(1))
        }
        OpKind::Memory if instruction.mnemonic() == Mnemonic::Lea => target(instruction),
        _ => None,
    }
}

/// True for a function of the language's libraries, be it a method of a type of the language.
fn is_standard(function: &str) -> bool {
    let path = path_of(function);
    let of_primitive = path != function && begins(path, PRIMITIVE);
    let of_trait = path.split_once(" as ").map(|(_, of_trait)| of_trait);
    begins(path, STANDARD) || of_primitive && of_trait.is_none_or(|name| begins(name, STANDARD))
}

/// A method's path as that of a function: `<a::B<C>>::d` begins with `a::B` as well.
fn path_of(function: &str) -> &str {
    function.trim_start_matches('<')
}

/// True for a function, or a method of a type, below one of these paths.
fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|start| path_of(name).starts_with(start))
}

fn check(graph: &Graph, roots: &[&str], place: &dyn Fn(&Site) -> Option<Place>) -> Vec<String> {
    let ends: Vec<_> = ENDS.iter().map(|(name, _)| *name).collect();
    let libraries: Vec<_> = LIBRARIES.iter().map(|(name, _)| *name).collect();
    let mut reached: BTreeMap<&str, Option<&str>> = graph
        .0
        .keys()
        .filter(|name| begins(name, roots))
        .map(|name| (name.as_str(), None))
        .collect();
    let mut problems = Vec::new();
    if reached.is_empty() {
        return vec![format!("no function of {roots:?} is there")];
    }
    let mut open: Vec<&str> = reached.keys().copied().collect();
    while let Some(from) = open.pop() {
        if begins(from, &ends) || begins(from, &libraries) {
            continue;
        }
        for (to, sites) in graph.0.get(from).into_iter().flatten() {
            if to == ASSERTION {
                continue;
            }
            if begins(to, PANICS) {
                let places: BTreeSet<_> = sites.iter().map(place).collect();
                let way = way(&reached, from);
                for place in places {
                    let Some(at) = place else {
                        problems.push(format!("{from} leads to {to} ({way})"));
                        continue;
                    };
                    if !begins(&at.function, &libraries) && !is_in(&at.line, &libraries) {
                        let Place { function, line } = at;
                        problems.push(format!("{line}: {function} leads to {to} ({way})"));
                    }
                }
            } else if !reached.contains_key(to.as_str()) {
                reached.insert(to, Some(from));
                open.push(to);
            }
        }
    }
    problems.sort();
    problems
}

/// True for a line in the source of one of these libraries.
fn is_in(line: &str, libraries: &[&str]) -> bool {
    libraries.iter().any(|library| {
        let package = library.trim_end_matches("::").replace('_', "-");
        line.starts_with('/') && line.contains(&format!("/{package}-"))
    })
}

/// How a function is reached.
fn way(reached: &BTreeMap<&str, Option<&str>>, name: &str) -> String {
    let mut way = vec![name];
    let mut at = name;
    while let Some(Some(from)) = reached.get(at) {
        way.push(from);
        at = from;
    }
    way.reverse();
    way.join(" > ")
}

#[cfg(test)]
mod tests {
    use super::{Functions, Graph, Image, Place, Site, check, is_standard, path_of, target};
    use iced_x86::{Decoder, DecoderOptions};

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to) in edges {
            let to = (*to).to_owned();
            let sites = graph.0.entry((*from).to_owned()).or_default();
            sites.entry(to).or_default().push(Site::default());
        }
        graph
    }

    #[test]
    fn a_panic_is_found_with_the_way_to_it() {
        let graph = graph(&[
            ("r::handle", "a::b"),
            ("a::b", "core::panicking::panic_bounds_check"),
            ("other", "core::panicking::panic"),
        ]);
        assert_eq!(
            check(&graph, &["r::"], &|_| None),
            ["a::b leads to core::panicking::panic_bounds_check (r::handle > a::b)"]
        );
    }

    #[test]
    fn a_panic_is_found_in_machine_code() {
        let name = |at: u64, name: &str| (at, name.to_owned());
        let functions = Functions::from([
            name(0x1000, "r::handle"),
            name(0x1008, "a::b"),
            name(0x1018, "core::panicking::panic_fmt"),
            name(0x1019, "invariant::broken"),
        ]);
        let mut bytes = vec![0x90; 0x20];
        // r::handle: call a::b
        bytes[..5].copy_from_slice(&[0xe8, 3, 0, 0, 0]);
        // a::b: mov rdx, 0x12345; jmp invariant::broken; call core::panicking::panic_fmt
        bytes[8..15].copy_from_slice(&[0x48, 0xc7, 0xc2, 0x45, 0x23, 1, 0]);
        bytes[15..17].copy_from_slice(&[0xeb, 8]);
        bytes[17..22].copy_from_slice(&[0xe8, 2, 0, 0, 0]);
        let graph = Graph::new(&functions, &(0x1000, &bytes));
        let found = |site: &Site| {
            assert_eq!((site.at, &site.handed[..]), (0x1011, &[0x12345][..]));
            None
        };
        assert_eq!(
            check(&graph, &["r::"], &found),
            ["a::b leads to core::panicking::panic_fmt (r::handle > a::b)"]
        );
        // Without that call there is none.
        bytes[17..22].fill(0x90);
        let graph = Graph::new(&functions, &(0x1000, &bytes));
        assert!(check(&graph, &["r::"], &|_| None).is_empty());
    }

    #[test]
    fn the_named_assertion_is_no_problem_and_what_only_looks_like_it_is_one() {
        let graph = graph(&[
            ("r::handle", "invariant::broken"),
            ("invariant::broken", "core::panicking::panic_fmt"),
            ("r::handle", "invariant::broken_too"),
            ("invariant::broken_too", "core::panicking::panic_fmt"),
        ]);
        let problems = check(&graph, &["r::"], &|_| None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("invariant::broken_too"));
    }

    #[test]
    fn what_is_no_exit_handling_ends_the_search() {
        let graph = graph(&[
            ("r::handle", "vmm_core::start::quit"),
            ("vmm_core::start::quit", "core::panicking::panic_fmt"),
            ("r::handle", "core::fmt::write"),
            ("core::fmt::write", "core::panicking::panic_fmt"),
        ]);
        assert!(check(&graph, &["r::"], &|_| None).is_empty());
    }

    #[test]
    fn a_panic_of_a_listed_library_is_no_problem_wherever_it_is_inlined() {
        let graph = graph(&[("r::handle", "core::panicking::panic_fmt")]);
        let at = |function: &str| {
            let place = Place {
                function: path_of(function).into(),
                line: "a.rs:7".into(),
            };
            check(&graph, &["r::"], &|_| Some(place.clone()))
        };
        assert!(at("<spin::rwlock::RwLock<u8>>::acquire_reader").is_empty());
        assert_eq!(
            at("<m::Word>::index"),
            ["a.rs:7: m::Word>::index leads to core::panicking::panic_fmt (r::handle)"]
        );
    }

    #[test]
    fn a_merged_panic_is_of_the_library_whose_source_it_names() {
        let graph = graph(&[("r::handle", "core::panicking::panic_fmt")]);
        let at = |line: &str| {
            let place = Place {
                function: "r::handle".into(),
                line: line.into(),
            };
            check(&graph, &["r::"], &|_| Some(place.clone())).len()
        };
        assert_eq!(at("/cargo/registry/spin-0.12.3/src/rwlock.rs:5"), 0);
        assert_eq!(at("/cargo/registry/spinning-0.12.3/src/rwlock.rs:5"), 1);
        assert_eq!(at("spin-lock/src/lib.rs:5"), 1);
    }

    #[test]
    fn a_location_is_read_where_it_is() {
        let mut bytes = vec![0; 64];
        bytes[8..16].copy_from_slice(&0x1030_u64.to_le_bytes());
        bytes[16] = 6;
        bytes[24] = 77;
        bytes[0x30..0x36].copy_from_slice(b"a/b.rs");
        let image = Image(vec![(0x1000, &bytes)]);
        assert_eq!(image.location(0x1008).as_deref(), Some("a/b.rs:77"));
        assert_eq!(image.location(0x1010), None);
        assert_eq!(image.location(0x103c), None);
        assert_eq!(image.location(1), None);
    }

    #[test]
    fn the_languages_own_code_is_told_from_ours() {
        for name in [
            "core::option::Option<a::B>::map",
            "<core::option::Option<a::B>>::map",
            "<u64 as core::iter::range::Step>::forward",
            "<[a::B] as core::ops::index::Index<usize>>::index",
            "<[u8]>::split_at",
            "<str>::rsplit_once::<char>",
        ] {
            assert!(is_standard(name), "{name}");
        }
        for name in [
            "a::b",
            "<a::B as core::ops::index::Index<usize>>::index",
            "<u64 as a::Sum>::plus",
            "<[u8] as a::Sum>::plus",
        ] {
            assert!(!is_standard(name), "{name}");
        }
    }

    #[test]
    fn roots_that_are_not_there_are_a_problem() {
        assert_eq!(check(&graph(&[("a", "b")]), &["r::"], &|_| None).len(), 1);
    }

    #[test]
    fn calls_jumps_and_addresses_lead_somewhere() {
        let decode = |bytes: &[u8]| {
            target(&Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode())
        };
        assert_eq!(decode(&[0xe8, 0x10, 0, 0, 0]), Some(0x1015));
        assert_eq!(decode(&[0xe9, 0x10, 0, 0, 0]), Some(0x1015));
        assert_eq!(decode(&[0x74, 0x10]), Some(0x1012));
        assert_eq!(decode(&[0x48, 0x8d, 0x05, 0x10, 0, 0, 0]), Some(0x1017));
        assert_eq!(decode(&[0xc3]), None);
        assert_eq!(decode(&[0x48, 0x89, 0xc3]), None);
    }
}
