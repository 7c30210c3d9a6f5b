"""`tessera grants`: the entries of a domain's grant table, and who uses them."""

import struct

import gdb

from . import domains, rust, target
from .command import Inspector, table

LAYOUTS = {"V1": struct.Struct("<HHI"), "V2": struct.Struct("<HHxxxxQ")}
TYPES = {0: "invalid", 1: "access", 2: "transfer", 3: "transitive"}
FLAGS = ((2, "readonly"), (3, "reading"), (4, "writing"))
CHUNK = 64
"""Entries whose uses are kept together (vmm-core/src/grant/active.rs)."""


class _Uses:
    """Who uses the entries, as the hypervisor counts it."""

    def __init__(self, active):
        chunks = (rust.option(chunk) for chunk in rust.vec(rust.get(active, "chunks")))
        self.chunks = [chunk if chunk is None else rust.vec(chunk) for chunk in chunks]

    def of(self, ref):
        """Readers and writers of an entry, or None."""
        chunk = self.chunks[ref // CHUNK] if ref // CHUNK < len(self.chunks) else None
        if chunk is None:
            return None
        one = chunk[ref % CHUNK]
        readers, writers = rust.number(one, "readers"), rust.number(one, "writers")
        return f"{readers} read, {writers} write" if readers or writers else None


class Grants(Inspector):
    """Shows the grants of a domain: every entry of its table that is valid or used.

Usage: tessera grants DOMAIN
Entries are the guest's memory: what it grants to whom. Uses are the hypervisor's own count of those
who have the page mapped or copy it."""

    name, usage, least, most = "grants", "DOMAIN", 1, 1

    def show(self, domain):
        grants = rust.peel(rust.get(domains.find(domain), "grants"))
        version, _ = rust.variant(rust.get(grants, "version"))
        layout, uses = LAYOUTS[version], _Uses(rust.get(grants, "active"))
        frames = rust.vec(rust.get(grants, "frames"))
        rows = []
        for index, frame in enumerate(frames[:rust.number(grants, "count")]):
            page = rust.option(rust.get(frame, "page"))
            if page is None:
                continue
            content = target.read_physical(rust.number(page, "mfn") << 12, 4096)
            for slot, (flags, to, gfn) in enumerate(layout.iter_unpack(content)):
                ref = index * (4096 // layout.size) + slot
                used = uses.of(ref)
                if flags or used:
                    words = [name for bit, name in FLAGS if flags >> bit & 1]
                    rows.append([
                        ref, TYPES[flags & 3], f"d{to}", f"{gfn:#x}", " ".join(words) or "-",
                        used or "-",
                    ])
        count = rust.number(grants, "count")
        gdb.write(f"{version}, {count} of at most {len(frames)} frames, {len(rows)} entries\n")
        if rows:
            table(["ref", "type", "to", "gfn", "flags", "uses"], rows)


def register():
    """Defines the command."""
    Grants()
