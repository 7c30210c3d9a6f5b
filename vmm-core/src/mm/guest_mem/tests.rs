//! Guest memory over the test arena: every paging mode against tables built here, and walks over
//! hostile tables.

#![expect(clippy::arithmetic_side_effects, reason = "constants of the tests")]

use std::vec;
use std::vec::Vec;

use abi::DomId;
use proptest::prelude::*;

use super::*;
use crate::mm::p2m::{Backing, Limits, PageKind, Perms};
use crate::mm::testing;

const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;

const PG: u64 = 1 << 31;
const WP: u64 = 1 << 16;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const LMA: u64 = 1 << 10;
const NXE: u64 = 1 << 11;

/// Pages of RAM of the test domains.
const PAGES: u64 = 64;
/// Where the tests put their root table.
const ROOT: u64 = 0x1000;

fn p2m() -> P2m {
    testing::init();
    let limits = Limits {
        address_bits: 46,
        large: true,
        giant: false,
        table_frames: u32::MAX,
    };
    let mut p2m = P2m::new(DomId(7), limits).expect("a root");
    p2m.populate(Gfn::new(0), PAGES, Backing::OnTouch)
        .expect("room");
    p2m
}

/// 4-level or 5-level paging with everything enabled.
fn long(cr4: u64) -> Linear {
    Linear::new(PG | WP | 1, ROOT, PAE | cr4, LMA | NXE, 0).with_address_bits(46)
}

/// Copies bytes in as a hypercall does.
fn copy_in<const N: usize>(
    memory: &GuestMemory<'_>,
    linear: &Linear,
    at: Gva,
) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    memory.read_linear(linear, at, &mut bytes, Access::READ)?;
    Ok(bytes)
}

fn poke(memory: &GuestMemory<'_>, gpa: u64, entry: u64) {
    memory
        .write_gpa(Gpa::new(gpa), &entry.to_le_bytes())
        .expect("memory");
}

fn peek(memory: &GuestMemory<'_>, gpa: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read_gpa(Gpa::new(gpa), &mut bytes).expect("memory");
    u64::from_le_bytes(bytes)
}

/// Builds 4-level tables at `ROOT` for one page; the rights go into the leaf.
fn map4(memory: &GuestMemory<'_>, gva: u64, leaf: u64) {
    let index = |shift: u32| (gva >> shift & 0x1ff) * 8;
    poke(memory, ROOT + index(39), 0x2000 | P | W | U);
    poke(memory, 0x2000 + index(30), 0x3000 | P | W | U);
    poke(memory, 0x3000 + index(21), 0x4000 | P | W | U);
    poke(memory, 0x4000 + index(12), leaf);
}

fn page_fault(address: u64, code: u32) -> AccessError {
    AccessError::Fault(GuestFault::Pf {
        address: Gva::new(address),
        code,
    })
}

/// Where a 64-bit kernel finds one byte the short way.
fn short<'a>(
    memory: &GuestMemory<'a>,
    cr4: u64,
    at: u64,
    access: Access,
) -> Option<(Window<'a>, usize)> {
    let kernel = Kernel {
        cr3: ROOT,
        cr4,
        efer: LMA | NXE,
    };
    memory.kernel_window(Gva::new(at), 1, access, || kernel)
}

/// Tables at [`ROOT`] with a page of each size: 0x5000 is at 0x9000, large pages are at 0.
fn map_all_sizes(memory: &GuestMemory<'_>) {
    let all = P | W | A | D;
    poke(memory, ROOT, 0x2000 | all);
    poke(memory, 0x2000, 0x3000 | all);
    poke(memory, 0x2008, PS | all);
    poke(memory, 0x3000, 0x4000 | all);
    poke(memory, 0x3008, PS | all);
    poke(memory, 0x4000 + 8 * 5, 0x9000 | all);
}

#[test]
fn the_short_way_reaches_pages_of_every_size() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    map_all_sizes(&memory);
    let found = |at: u64, access| {
        cache.look_anew();
        short(&memory, PAE, at, access)
    };
    let at = |gpa: u64| {
        let page = memory.page(Gpa::new(gpa).gfn()).expect("RAM");
        Some((page, Gpa::new(gpa).page_offset()))
    };
    assert_eq!(found(0x5123, Access::WRITE), at(0x9123));
    assert_eq!(found(0x20_6789, Access::WRITE), at(0x6789));
    assert_eq!(found(0x4000_7654, Access::READ), at(0x7654));
    assert_eq!(found(0x6000, Access::READ), None);
    assert_eq!(found(1 << 47, Access::READ), None);
    poke(&memory, 0x4000 + 8 * 5, 0x9000 | P | W | A);
    assert_eq!(found(0x5123, Access::WRITE), None, "to be made dirty");
    assert_eq!(found(0x5123, Access::READ), at(0x9123));
    poke(&memory, 0x4000 + 8 * 5, 0x9000 | P | A | D | NX);
    assert_eq!(found(0x5123, Access::WRITE), None);
    assert_eq!(found(0x5123, Access::EXECUTE), None);
    assert_eq!(found(0x5123, Access::READ), at(0x9123));
    poke(&memory, 0x3008, 0x2000 | PS | P | W | A | D);
    assert_eq!(found(0x20_6789, Access::READ), None, "a reserved bit");
}

#[test]
fn a_way_may_begin_in_another_root_table() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    map_all_sizes(&memory);
    let other = 0x6000;
    let found = |cr3| {
        cache.look_anew();
        let kernel = Kernel {
            cr3,
            cr4: PAE,
            efer: LMA | NXE,
        };
        memory
            .kernel_window(Gva::new(0x5123), 1, Access::READ, || kernel)
            .is_some()
    };
    assert!(found(ROOT));
    assert!(!found(other), "no entry");
    assert!(found(ROOT));
    poke(&memory, other, peek(&memory, ROOT));
    assert!(found(other) && found(ROOT));
    poke(&memory, ROOT, 0);
    assert!(found(other) && !found(ROOT));
    assert!(!found(1 << 40), "no memory");
}

/// Looks at what was found for an address.
type Check<'c> = &'c dyn Fn(u64, Option<(Window<'_>, usize)>);

#[test]
fn a_way_that_is_known_is_gone_only_while_it_is_the_same() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let accesses = [Access::READ, Access::WRITE, Access::EXECUTE];
    let pages = [0x5123, 0x20_6789, 0x4000_7654];
    let entries = [ROOT, 0x2000, 0x2008, 0x3000, 0x3008, 0x4000 + 8 * 5];
    let changes = [P, W, A, D, NX, U, 0xa000];
    for (entry, change) in entries.iter().flat_map(|e| changes.map(|c| (*e, c))) {
        map_all_sizes(&memory);
        for (access, cr4) in accesses.iter().flat_map(|a| [(*a, PAE), (*a, PAE | SMAP)]) {
            let all = |memory: &GuestMemory<'_>, check: Check<'_>| {
                for at in pages {
                    check(at, short(memory, cr4, at, access));
                }
            };
            all(&memory, &|_, _| ());
            let good = peek(&memory, entry);
            poke(&memory, entry, good ^ change);
            cache.look_anew();
            all(&memory, &|at, found| {
                let fresh = PageCache::new();
                let anew = GuestMemory::new(&p2m, &fresh);
                let expected = short(&anew, cr4, at, access);
                assert_eq!(found, expected, "{at:#x} {entry:#x} {change:#x} {access:?}");
            });
            poke(&memory, entry, good);
            cache.look_anew();
        }
    }
}

#[test]
fn a_way_is_forgotten_with_each_page_of_it() {
    let other = 0x6000;
    for gone in [ROOT, 0x2000, 0x3000, 0x4000, other, 0x9000, 0xa000] {
        let (mut p2m, cache) = (p2m(), PageCache::new());
        let find = |memory: &GuestMemory<'_>, cr3, at: u64| {
            let kernel = Kernel {
                cr3,
                cr4: PAE,
                efer: LMA | NXE,
            };
            let found = memory.kernel_window(Gva::new(at), 1, Access::READ, || kernel);
            found.map(|(page, offset)| (page.word64(0).as_ptr(), offset))
        };
        let memory = GuestMemory::new(&p2m, &cache);
        map_all_sizes(&memory);
        poke(&memory, other, peek(&memory, ROOT));
        for cr3 in [ROOT, other] {
            cache.look_anew();
            assert!(find(&memory, cr3, 0x5123).is_some());
        }
        assert!(find(&memory, other, 0x4000_7654).is_some());
        drop(memory);
        p2m.remove(Gpa::new(gone).gfn()).expect("RAM").done();
        // In the same look: nothing but the page that went makes the way another one.
        let fresh = PageCache::new();
        for at in [0x5123, 0x4000_7654] {
            let found = find(&GuestMemory::new(&p2m, &cache), other, at);
            let expected = find(&GuestMemory::new(&p2m, &fresh), other, at);
            assert_eq!(found, expected, "{at:#x} without {gone:#x}");
        }
    }
}

#[test]
fn physical_copies_cross_pages_and_stop_at_holes() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let data: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
    memory.write_gpa(Gpa::new(0x5ffd), &data).expect("RAM");
    let mut back = vec![0; data.len()];
    memory.read_gpa(Gpa::new(0x5ffd), &mut back).expect("RAM");
    assert_eq!(back, data);

    let end = PAGES << 12;
    let mut two = [0; 2];
    assert_eq!(
        memory.read_gpa(Gpa::new(end - 1), &mut two),
        Err(Errno::Efault)
    );
    assert_eq!(
        memory.write_gpa(Gpa::new(end - 1), &two),
        Err(Errno::Efault)
    );
    assert_eq!(memory.read_gpa(Gpa::new(end - 2), &mut two), Ok(()));
    for hostile in [end, 1 << 46, 1 << 52, u64::MAX, u64::MAX - 1] {
        assert_eq!(
            memory.read_gpa(Gpa::new(hostile), &mut two),
            Err(Errno::Efault)
        );
        assert_eq!(
            memory.write_gpa(Gpa::new(hostile), &two),
            Err(Errno::Efault)
        );
        assert_eq!(memory.read_gpa(Gpa::new(hostile), &mut []), Ok(()));
    }
}

#[test]
fn read_only_pages_are_read_but_not_written() {
    let mut p2m = p2m();
    let page = testing::page(crate::mm::frame::Owner::Hypervisor);
    page.write(0, &[1, 2, 3]);
    let gfn = Gfn::new(0x1_0000);
    p2m.insert_page(gfn, page, PageKind::Foreign, Perms::READ)
        .expect("placed")
        .done();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let mut bytes = [0; 3];
    memory.read_gpa(gfn.gpa(), &mut bytes).expect("readable");
    assert_eq!(bytes, [1, 2, 3]);
    assert_eq!(memory.write_gpa(gfn.gpa(), &bytes), Err(Errno::Efault));

    map4(&memory, 0x7000, gfn.gpa().raw() | P | W);
    let at = Gva::new(0x7001);
    assert_eq!(copy_in(&memory, &long(0), at), Ok(0x0302_u16.to_le_bytes()));
    let refused = memory.write_linear(&long(0), at, &bytes);
    assert_eq!(
        refused,
        Err(AccessError::NotMemory(Gpa::new(gfn.gpa().raw() + 1)))
    );
}

#[test]
fn no_paging_takes_the_low_half() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let flat = Linear::new(1, 0, 0, 0, 0);
    memory
        .write_linear(&flat, Gva::new(0x9000), &0x1234_u32.to_le_bytes())
        .expect("RAM");
    assert_eq!(
        copy_in(&memory, &flat, Gva::new(0xffff_0000_0000_9000)),
        Ok(0x1234_u32.to_le_bytes())
    );
    assert_eq!(
        copy_in::<4>(&memory, &flat, Gva::new(0x4000_0000)),
        Err(Errno::Efault)
    );
}

#[test]
fn four_levels_set_accessed_and_dirty() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let gva = 0xffff_8123_4567_8000_u64;
    map4(&memory, gva, 0x6000 | P | W);
    let leaf = 0x4000 + (gva >> 12 & 0x1ff) * 8;
    poke(&memory, 0x6010, 0xabcd);
    assert_eq!(
        copy_in(&memory, &long(0), Gva::new(gva + 0x10)),
        Ok(0xabcd_u64.to_le_bytes())
    );
    assert_eq!(peek(&memory, leaf), 0x6000 | P | W | A);
    memory
        .write_linear(&long(0), Gva::new(gva + 0x10), &1_u64.to_le_bytes())
        .expect("writable");
    assert_eq!(peek(&memory, 0x6010), 1);
    assert_eq!(peek(&memory, leaf), 0x6000 | P | W | A | D);
    assert_eq!(
        peek(&memory, ROOT + (gva >> 39 & 0x1ff) * 8),
        0x2000 | P | W | U | A
    );
}

#[test]
fn non_canonical_addresses_are_general_protection() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let refused = Err(AccessError::Fault(GuestFault::GP0));
    for at in [
        0x0000_8000_0000_0000,
        0xffff_7fff_ffff_ffff,
        0x1000_0000_0000_0000,
    ] {
        assert_eq!(
            long(0).translate(&memory, Gva::new(at), Access::READ),
            refused
        );
    }
    // With five levels the hole is higher up.
    let at = Gva::new(0x0000_8000_0000_0000);
    assert_eq!(
        long(LA57).translate(&memory, at, Access::READ),
        Err(page_fault(at.raw(), 0))
    );
    let at = Gva::new(0x0100_0000_0000_0000);
    assert_eq!(long(LA57).translate(&memory, at, Access::READ), refused);
}

#[test]
fn five_levels_walk_one_more() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let gva = 0x0012_3456_789a_b000_u64;
    let index = |shift: u32| (gva >> shift & 0x1ff) * 8;
    poke(&memory, ROOT + index(48), 0x2000 | P | W);
    poke(&memory, 0x2000 + index(39), 0x3000 | P | W);
    poke(&memory, 0x3000 + index(30), 0x4000 | P | W);
    poke(&memory, 0x4000 + index(21), 0x5000 | P | W);
    poke(&memory, 0x5000 + index(12), 0x6000 | P | W);
    let gpa = long(LA57).translate(&memory, Gva::new(gva + 5), Access::READ);
    assert_eq!(gpa, Ok(Gpa::new(0x6005)));
}

#[test]
fn large_pages_of_each_size() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    poke(&memory, ROOT, 0x2000 | P);
    poke(&memory, 0x2000, 0x3000 | P);
    poke(&memory, 0x2008, 0x8000_0000 | P | PS);
    poke(&memory, 0x3008, 0x40_0000 | P | PS);
    let to = |gva| long(0).translate(&memory, Gva::new(gva), Access::READ);
    assert_eq!(to(0x20_1234), Ok(Gpa::new(0x40_1234)));
    assert_eq!(to(0x7234_5678), Ok(Gpa::new(0xb234_5678)));
    // PAT of a large page is bit 12; the address bits above it are reserved.
    poke(&memory, 0x3008, 0x40_1000 | P | PS);
    assert_eq!(to(0x20_1234), Ok(Gpa::new(0x40_1234)));
    poke(&memory, 0x3008, 0x40_2000 | P | PS);
    assert_eq!(to(0x20_1234), Err(page_fault(0x20_1234, 0b1001)));
    poke(&memory, 0x2008, 0xa000_0000 | P | PS);
    assert_eq!(to(0x4000_0000), Err(page_fault(0x4000_0000, 0b1001)));
}

#[test]
fn thirty_two_bit_paging_with_and_without_pse() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let poke32 = |gpa, entry: u32| {
        memory
            .write_gpa(Gpa::new(gpa), &entry.to_le_bytes())
            .expect("memory");
    };
    let with = |cr4| Linear::new(PG | 1, ROOT, cr4, 0, 0).with_address_bits(40);
    poke32(ROOT + 4, 0x2000 | 3);
    poke32(0x2000 + 8, 0x6000 | 3);
    let gva = 1 << 22 | 2 << 12 | 0x123;
    let gpa = with(0).translate(&memory, Gva::new(gva), Access::WRITE);
    assert_eq!(gpa, Ok(Gpa::new(0x6123)));
    assert_eq!(peek(&memory, 0x2008), 0x6000 | P | W | A | D);
    assert_eq!(peek(&memory, ROOT) >> 32, 0x2000 | P | W | A);
    // The upper half of the address does not count.
    let gpa = with(0).translate(&memory, Gva::new(gva | 0xf << 32), Access::READ);
    assert_eq!(gpa, Ok(Gpa::new(0x6123)));

    // 4 MiB at 0x56_0080_0000, by PSE-36; without PSE bit 7 means nothing, and the table
    // is where no memory answers.
    poke32(ROOT + 4, 0x0080_0000 | 0x56 << 13 | 0x80 | 3);
    let gpa = with(PSE).translate(&memory, Gva::new(gva), Access::READ);
    assert_eq!(gpa, Ok(Gpa::new(0x56_0080_2123)));
    assert_eq!(
        with(0).translate(&memory, Gva::new(gva), Access::READ),
        Ok(Gpa::new(0xffff_f123))
    );
    poke32(ROOT + 4, 0x0080_0000 | 1 << 21 | 0x80 | 3);
    let gpa = with(PSE).translate(&memory, Gva::new(gva), Access::READ);
    assert_eq!(gpa, Err(page_fault(gva, 0b1001)));
    let narrow = with(PSE).with_address_bits(36);
    poke32(ROOT + 4, 0x0080_0000 | 0x10 << 13 | 0x80 | 3);
    assert_eq!(
        narrow.translate(&memory, Gva::new(gva), Access::READ),
        Err(page_fault(gva, 0b1001))
    );
}

#[test]
fn pae_paging_has_a_short_top_level() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let pae = Linear::new(PG | WP | 1, ROOT + 0x20, PAE, NXE, 0).with_address_bits(46);
    let gva = 3 << 30 | 1 << 21 | 4 << 12 | 0x10;
    poke(&memory, ROOT + 0x20 + 24, 0x2000 | P);
    poke(&memory, 0x2008, 0x3000 | P | W);
    poke(&memory, 0x3020, 0x6000 | P | W | NX);
    assert_eq!(
        pae.translate(&memory, Gva::new(gva), Access::WRITE),
        Ok(Gpa::new(0x6010))
    );
    // The top entry is left alone; the others get their flags.
    assert_eq!(peek(&memory, ROOT + 0x20 + 24), 0x2000 | P);
    assert_eq!(peek(&memory, 0x2008), 0x3000 | P | W | A);
    assert_eq!(peek(&memory, 0x3020), 0x6000 | P | W | NX | A | D);
    let fetch = pae.translate(&memory, Gva::new(gva), Access::EXECUTE);
    assert_eq!(fetch, Err(page_fault(gva, 0b1_0001)));
    // W and U are reserved at the top, and so are bits 62:52 everywhere.
    poke(&memory, ROOT + 0x20 + 24, 0x2000 | P | W);
    assert_eq!(
        pae.translate(&memory, Gva::new(gva), Access::READ),
        Err(page_fault(gva, 0b1001))
    );
    poke(&memory, ROOT + 0x20 + 24, 0x2000 | P);
    poke(&memory, 0x3020, 0x6000 | P | 1 << 52);
    assert_eq!(
        pae.translate(&memory, Gva::new(gva), Access::READ),
        Err(page_fault(gva, 0b1001))
    );
}

#[test]
fn access_rights_follow_the_manual() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let at = Gva::new(0x7000);
    let check = |leaf: u64, linear: Linear, access| {
        map4(&memory, at.raw(), 0x6000 | P | leaf);
        match linear.translate(&memory, at, access) {
            Ok(_) => None,
            Err(AccessError::Fault(GuestFault::Pf { code, .. })) => Some(code),
            Err(other) => panic!("{other:?}"),
        }
    };
    let regs = |cr0, cr4, cpl| Linear::new(PG | 1 | cr0, ROOT, PAE | cr4, LMA | NXE, cpl);
    let (read, write, fetch) = (Access::READ, Access::WRITE, Access::EXECUTE);
    // User accesses need user pages; supervisors take both.
    assert_eq!(check(W, regs(WP, 0, 3), read), Some(0b101));
    assert_eq!(check(U, regs(WP, 0, 3), read), None);
    assert_eq!(check(U, regs(WP, 0, 3), write), Some(0b111));
    assert_eq!(check(W, regs(WP, 0, 0), read), None);
    assert_eq!(check(U, regs(WP, 0, 0), read), None);
    assert_eq!(check(W, regs(WP, 0, 3), read | Access::IMPLICIT), None);
    // CR0.WP binds the supervisor only when set.
    assert_eq!(check(0, regs(WP, 0, 0), write), Some(0b11));
    assert_eq!(check(0, regs(0, 0, 0), write), None);
    assert_eq!(check(U, regs(0, 0, 3), write), Some(0b111));
    // NX and SMEP.
    assert_eq!(check(NX, regs(WP, 0, 0), fetch), Some(0b1_0001));
    assert_eq!(check(NX, regs(WP, 0, 0), read), None);
    assert_eq!(check(U, regs(WP, SMEP, 0), fetch), Some(0b1_0001));
    assert_eq!(check(U, regs(WP, SMEP, 3), fetch), None);
    assert_eq!(check(U, regs(WP, SMEP, 0), read), None);
    // SMAP only where asked for, and not with AC.
    assert_eq!(check(U, regs(WP, SMAP, 0), read), None);
    assert_eq!(
        check(U, regs(WP, SMAP, 0).with_smap(false), read),
        Some(0b1)
    );
    assert_eq!(check(U, regs(WP, SMAP, 0).with_smap(true), read), None);
    assert_eq!(check(0, regs(WP, SMAP, 0).with_smap(false), read), None);
    let implicit = read | Access::IMPLICIT;
    assert_eq!(
        check(U, regs(WP, SMAP, 3).with_smap(true), implicit),
        Some(0b1)
    );
    // A right missing at any level is missing; NX without EFER.NXE is reserved.
    map4(&memory, at.raw(), 0x6000 | P | W | U);
    poke(&memory, 0x3000, 0x4000 | P | U);
    assert_eq!(
        regs(WP, 0, 0).translate(&memory, at, write),
        Err(page_fault(at.raw(), 0b11))
    );
    let no_nx = Linear::new(PG | 1, ROOT, PAE, LMA, 0);
    assert_eq!(no_nx.translate(&memory, at, read), Ok(Gpa::new(0x6000)));
    poke(&memory, 0x3000, 0x4000 | P | NX);
    assert_eq!(
        no_nx.translate(&memory, at, read),
        Err(page_fault(at.raw(), 0b1001))
    );
    // Refused accesses leave no dirty flag behind.
    assert_eq!(check(0, regs(WP, 0, 0), write), Some(0b11));
    assert_eq!(peek(&memory, 0x4038) & D, 0);
}

#[test]
fn protection_keys_guard_user_pages_only() {
    const NO_ACCESS: u32 = 1;
    const NO_WRITE: u32 = 2;
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let at = Gva::new(0x7000);
    // The page has key 5, and so PKRU's bits 11:10.
    let check = |leaf: u64, cr0: u64, cpl, rights: u32, access| {
        map4(&memory, at.raw(), 0x6000 | P | leaf | 5 << 59);
        let linear =
            Linear::new(PG | 1 | cr0, ROOT, PAE, LMA | NXE, cpl).with_protection_keys(rights << 10);
        match linear.translate(&memory, at, access) {
            Ok(_) => None,
            Err(AccessError::Fault(GuestFault::Pf { code, .. })) => Some(code),
            Err(other) => panic!("{other:?}"),
        }
    };
    let (read, write, fetch) = (Access::READ, Access::WRITE, Access::EXECUTE);
    assert_eq!(check(U | W, WP, 3, NO_ACCESS, read), Some(0b10_0101));
    assert_eq!(check(U | W, WP, 0, NO_ACCESS, read), Some(0b10_0001));
    assert_eq!(check(U | W, WP, 3, NO_ACCESS, fetch), None);
    assert_eq!(check(W, WP, 0, NO_ACCESS, read), None);
    assert_eq!(check(U | W, WP, 3, NO_WRITE, read), None);
    assert_eq!(check(U | W, WP, 3, NO_WRITE, write), Some(0b10_0111));
    assert_eq!(check(U | W, WP, 0, NO_WRITE, write), Some(0b10_0011));
    // Without CR0.WP a supervisor writes what it likes, but not what nobody may access.
    assert_eq!(check(U | W, 0, 0, NO_WRITE, write), None);
    assert_eq!(check(U | W, 0, 0, NO_ACCESS, write), Some(0b10_0011));
    // What the page tables deny is denied by them, and other keys are other pages'.
    assert_eq!(check(U, WP, 3, NO_WRITE, write), Some(0b111));
    assert_eq!(check(U | W, WP, 3, NO_ACCESS << 2, read), None);
    // PAE paging has no keys: there the bits are reserved or ignored.
    let pae = Linear::new(PG | 1, ROOT, PAE, NXE, 0).with_protection_keys(u32::MAX);
    map4(&memory, at.raw(), 0x6000 | P | U);
    let denied = page_fault(at.raw(), 0b10_0001);
    assert_ne!(pae.translate(&memory, at, read), Err(denied));
}

#[test]
fn copies_over_two_pages_are_all_or_nothing() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    map4(&memory, 0x7000, 0x6000 | P | W);
    map4(&memory, 0x8000, 0x9000 | P | W);
    let at = Gva::new(0x7ffc);
    memory
        .write_linear(&long(0), at, &0x1122_3344_5566_7788_u64.to_le_bytes())
        .expect("writable");
    assert_eq!(peek(&memory, 0x6ff8) >> 32, 0x5566_7788);
    assert_eq!(peek(&memory, 0x9000), 0x1122_3344);
    assert_eq!(
        copy_in(&memory, &long(0), at),
        Ok(0x1122_3344_5566_7788_u64.to_le_bytes())
    );
    // The second page is not writable: the first stays as it is, and the fault names the second.
    poke(&memory, 0x4040, 0x9000 | P);
    let refused = memory.write_linear(&long(0), at, &[0; 8]);
    assert_eq!(refused, Err(page_fault(0x8000, 0b11)));
    assert_eq!(
        copy_in(&memory, &long(0), at),
        Ok(0x1122_3344_5566_7788_u64.to_le_bytes())
    );
    // Many pages.
    map4(&memory, 0x9000, 0xa000 | P | W);
    let data = [0x5a; 0x2100];
    let from = Gva::new(0x7f00);
    assert_eq!(
        memory.write_linear(&long(0), from, &data),
        Err(page_fault(0x8000, 0b11))
    );
    poke(&memory, 0x4040, 0x9000 | P | W);
    memory
        .write_linear(&long(0), from, &data)
        .expect("writable");
    let mut back = [0; 0x2100];
    memory
        .read_linear(&long(0), from, &mut back, Access::READ)
        .expect("readable");
    assert_eq!(back, data);
    assert_eq!(
        memory.read_linear(&long(0), Gva::new(1 << 63), &mut [], Access::READ),
        Ok(())
    );
}

#[test]
fn a_32_bit_address_space_wraps() {
    let p2m = p2m();
    let cache = PageCache::new();
    let memory = GuestMemory::new(&p2m, &cache);
    let poke32 = |gpa, entry: u32| {
        memory
            .write_gpa(Gpa::new(gpa), &entry.to_le_bytes())
            .expect("memory");
    };
    poke32(ROOT + 4 * 1023, 0x2000 | 3);
    poke32(0x2000 + 4 * 1023, 0x6000 | 3);
    poke32(ROOT, 0x3000 | 3);
    poke32(0x3000, 0x9000 | 3);
    let linear = Linear::new(PG | 1, ROOT, 0, 0, 0);
    memory
        .write_linear(&linear, Gva::new(0xffff_fffe), &[1, 2, 3, 4])
        .expect("mapped");
    assert_eq!(peek(&memory, 0x6ff8) >> 48, 0x0201);
    assert_eq!(peek(&memory, 0x9000) & 0xffff, 0x0403);
}

/// An entry that likes to point into RAM, with any flags.
fn entries() -> impl Strategy<Value = u64> {
    let frame = prop_oneof![4 => 0..PAGES, 1 => any::<u64>()];
    let flags = prop_oneof![3 => Just(P | W | U), 1 => 0_u64..0x1000];
    (frame, flags, prop_oneof![8 => Just(0), 1 => any::<u64>()])
        .prop_map(|(frame, flags, noise)| (frame << 12 | flags) ^ (noise & 0xfff0_0000_0000_0fff))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn hostile_tables_never_break_the_walk(
        table in proptest::collection::vec(entries(), 97),
        cr3 in prop_oneof![(0_u64..4).prop_map(|page| page << 12), any::<u64>()],
        cr0 in any::<u64>(),
        cr4 in any::<u64>(),
        efer in any::<u64>(),
        cpl in 0_u8..4,
        accesses in proptest::collection::vec((any::<u64>(), 0_u8..16), 16),
        len in 0_usize..9000,
    ) {
        let p2m = p2m();
        let cache = PageCache::new();
        let memory = GuestMemory::new(&p2m, &cache);
        let bytes: Vec<u8> = table.iter().cycle().take(512 * 4).flat_map(|entry| entry.to_le_bytes()).collect();
        memory.write_gpa(Gpa::new(0), &bytes).expect("RAM");
        let mut buffer = vec![0; len];
        for paging in [cr0, cr0 | PG, cr0 & !PG] {
            let linear = Linear::new(paging, cr3, cr4, efer, cpl)
                .with_address_bits(46)
                .with_smap(cr4 & 1 != 0)
                .with_protection_keys(crate::bits::low32(efer >> 20));
            for (gva, access) in &accesses {
                let at = Gva::new(*gva);
                let canonical = Gva::new((*gva).cast_signed().wrapping_shl(16).wrapping_shr(16).cast_unsigned());
                let access = Access::from_bits_retain(*access);
                for at in [at, canonical] {
                    if let Ok(gpa) = linear.translate(&memory, at, access) {
                        prop_assert_eq!(gpa.page_offset(), at.page_offset());
                        // What translates once does so again, to the same place.
                        prop_assert_eq!(linear.translate(&memory, at, access), Ok(gpa));
                    }
                    let _ = memory.read_linear(&linear, at, &mut buffer, access);
                    // The short way finds what the long one does, or nothing.
                    let long = Linear::new(PG | WP | 1, cr3, cr4 & !LA57 | PAE, efer | LMA, 0);
                    cache.look_anew();
                    let kernel = || Kernel { cr3, cr4, efer };
                    if let Some(found) = memory.kernel_window(at, 1, access, kernel) {
                        let gpa = long.translate(&memory, at, access).expect("it is there");
                        let page = memory.page(gpa.gfn()).expect("RAM");
                        prop_assert_eq!(found, (page, gpa.page_offset()));
                    }
                }
            }
        }
        let linear = Linear::new(cr0 | PG, cr3, cr4, efer, cpl);
        let _ = memory.write_linear(&linear, Gva::new(accesses[0].0), &buffer);
    }
}
