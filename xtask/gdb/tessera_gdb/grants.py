"""`tessera grants`: the entries of a domain's grant table."""

import struct

import gdb

from . import domains, rust, target
from .command import Inspector, table

ENTRY = struct.Struct("<HHI")
TYPES = {0: "invalid", 1: "access", 2: "transfer", 3: "transitive"}
FLAGS = ((2, "readonly"), (3, "reading"), (4, "writing"))


class Grants(Inspector):
    """Shows the grants of a domain: every entry of its table that is not empty.

Usage: tessera grants DOMAIN
Entries are the guest's memory (version 1): what it grants to whom, and whether the hypervisor has
marked it in use."""

    name, usage, least, most = "grants", "DOMAIN", 1, 1

    def show(self, domain):
        grants = rust.get(domains.find(domain), "grants")
        frames = rust.vec(rust.get(grants, "frames"))
        rows = []
        for index, frame in enumerate(frames):
            mfn = rust.number(frame, "page", "mfn")
            for slot, entry in enumerate(ENTRY.iter_unpack(target.read_physical(mfn << 12, 4096))):
                flags, to, gfn = entry
                if flags or gfn:
                    words = [name for bit, name in FLAGS if flags >> bit & 1]
                    rows.append([
                        index * 512 + slot, TYPES[flags & 3], f"d{to}", f"{gfn:#x}",
                        " ".join(words) or "-",
                    ])
        limit = rust.number(grants, "max_frames")
        gdb.write(f"{len(frames)} of at most {limit} frames, {len(rows)} entries in use\n")
        if rows:
            table(["ref", "type", "to", "gfn", "flags"], rows)


def register():
    """Defines the command."""
    Grants()
