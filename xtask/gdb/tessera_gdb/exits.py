"""`tessera exits`: how often a vCPU left its guest, and why."""

import gdb

from . import domains, rust, sources
from .command import Inspector, table


class Exits(Inspector):
    """Shows a vCPU's exits: how many of each reason.

Usage: tessera exits VCPU"""

    name, usage, least, most = "exits", "VCPU", 1, 1

    def show(self, vcpu):
        _, found = domains.find_vcpu(vcpu)
        counts = rust.array(rust.get(found, "context", "cpu", "stats", "counts"))
        rows = [
            [sources.exit_reasons().get(reason, reason), int(count)]
            for reason, count in enumerate(counts) if int(count)
        ]
        rows.sort(key=lambda row: -row[1])
        gdb.write(f"{sum(row[1] for row in rows)} exits\n")
        table(["reason", "count"], rows)


def register():
    """Defines the command."""
    Exits()
