"""`tessera ept`: walks a domain's extended page tables for one address."""

import gdb

from . import domains, rust, target
from .command import Inspector, number
from .errors import Problem

ADDRESS = 0x000F_FFFF_FFFF_F000
MEMORY_TYPES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB"}
LEVELS = ["PT", "PD", "PDPT", "PML4"]
SIZES = ["4 KiB", "2 MiB", "1 GiB"]


def permissions(entry):
    """`rwx` with a dash for each that is missing."""
    return "".join(c if entry >> i & 1 else "-" for i, c in enumerate("rwx"))


def leaf(entry):
    """What the bits of an entry that maps a page say. SDM 3C, "EPT Translation Mechanism"."""
    kinds = {f.enumval: f.name for f in gdb.lookup_type("vmm_core::mm::p2m::PageKind").fields()}
    tag = entry >> 52 & 31
    kind = kinds.get(tag, f"tag {tag}").split("::")[-1]
    flags = [name for bit, name in ((6, "ignore-PAT"), (8, "accessed"), (9, "dirty"))
             if entry >> bit & 1]
    type_ = MEMORY_TYPES.get(entry >> 3 & 7, f"type {entry >> 3 & 7}")
    return " ".join([permissions(entry), type_, kind, *flags])


class Ept(Inspector):
    """Walks a domain's extended page tables for a guest-physical address.

Usage: tessera ept DOMAIN GPA
Shows the entry of each level, and what the last one says: permissions, memory type, the kind of
page (Ram, Shared, Foreign), and the host-physical address. RAM that the guest has not touched yet
has a frame but no permissions."""

    name, usage, least, most = "ept", "DOMAIN GPA", 2, 2

    def show(self, domain, gpa):
        gpa = number(gpa, "an address")
        if gpa >= 1 << 48:
            raise Problem(f"{gpa:#x}: four levels translate 48 bits")
        found = domains.find(domain)
        table = rust.number(found, "p2m", "ept", "root") << 12
        for level in (3, 2, 1, 0):
            index = gpa >> 12 + 9 * level & 511
            entry = target.word_physical(table + 8 * index)
            gdb.write(f"{LEVELS[level]:4}  {table:#014x}[{index:3}] = {entry:#018x}  ")
            if entry == 0:
                gdb.write("empty\n")
                gdb.write(f"{gpa:#x} is a hole\n")
                return
            if level == 0 or (level < 3 and entry & 0x80):
                size = 1 << 12 + 9 * level
                hpa = (entry & ADDRESS & ~(size - 1)) | gpa & (size - 1)
                gdb.write(f"{leaf(entry)}\n")
                present = "" if entry & 7 else ", not present until touched"
                gdb.write(f"{gpa:#x} -> {hpa:#x} in a page of {SIZES[level]}{present}\n")
                return
            gdb.write(f"table, {entry >> 52 & 0x3FF} slots in use\n")
            table = entry & ADDRESS


def register():
    """Defines the command."""
    Ept()
