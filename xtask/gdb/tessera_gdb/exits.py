"""`tessera exits`: how often a vCPU left its guest and why, and the last times one by one."""

import gdb

from . import domains, rust, sources
from .command import Inspector, number, table


class Exits(Inspector):
    """Shows a vCPU's exits: how many of each reason, and the last ones, the newest at the end.

Usage: tessera exits VCPU [COUNT]
Builds with the feature exit-trace keep the last 64 (`cargo xtask gdb` makes one); others count
only. RAX is the number of a hypercall; `after` is the time since the exit before, in TSC ticks."""

    name, usage, least, most = "exits", "VCPU [COUNT]", 1, 2

    def show(self, vcpu, count="16"):
        last = number(count, "a number of exits")
        _, found = domains.find_vcpu(vcpu)
        cpu = rust.get(found, "context", "cpu")
        counts = rust.array(rust.get(cpu, "stats", "counts"))
        rows = [[_reason(i), int(count)] for i, count in enumerate(counts) if int(count)]
        rows.sort(key=lambda row: -row[1])
        gdb.write(f"{sum(row[1] for row in rows)} exits\n")
        table(["reason", "count"], rows)
        ring = rust.option(rust.get(cpu, "trace", "__0"))
        if ring is None:
            gdb.write("the last ones are not kept (feature exit-trace)\n")
            return
        gdb.write("\n")
        table(["reason", "rip", "rax", "after"], _last(rust.follow(ring), last))


def _reason(raw):
    name = sources.exit_reasons().get(raw & 0xFFFF, str(raw & 0xFFFF))
    return f"{name} (failed entry)" if raw >> 31 else name


def _last(ring, count):
    exits, next_ = rust.array(rust.get(ring, "exits")), rust.number(ring, "next")
    in_order = [one for one in exits[next_:] + exits[:next_] if rust.number(one, "tsc")]
    before, rows = None, []
    for one in in_order:
        tsc = rust.number(one, "tsc")
        rows.append([
            _reason(rust.number(one, "reason")),
            f"{rust.number(one, 'rip'):#x}",
            f"{rust.number(one, 'rax'):#x}",
            "-" if before is None else tsc - before,
        ])
        before = tsc
    return rows[max(len(rows) - count, 0):]


def register():
    """Defines the command."""
    Exits()
