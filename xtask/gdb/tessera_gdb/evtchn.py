"""`tessera evtchn`: the ports of a domain."""

import struct

import gdb

from . import domains, rust, target
from .command import Inspector, table

VIRQS = ["TIMER", "DEBUG", "CONSOLE", "DOM_EXC", "TBUF", "-", "DEBUGGER", "XENOPROF", "CON_RING",
         "PCPU_STATE", "MEM_EVENT", "ARGO", "ENOMEM", "XENPMU"]
PENDING, MASKED, LINKED = 1 << 31, 1 << 30, 1 << 29


def binding(port):
    """What a port is bound to; None for a free one."""
    state, inside = rust.variant(rust.get(port, "state"))
    if state == "Free":
        return None
    if state == "Unbound":
        return f"unbound, for d{rust.number(inside, 'remote')}"
    if state == "Interdomain":
        return f"d{rust.number(inside, 'dom')} port {rust.number(inside, 'port')}"
    if state == "Virq":
        number = rust.number(inside, "__0")
        return f"virq {VIRQS[number] if number < len(VIRQS) else number}"
    if state == "Service":
        return f"service {rust.variant(inside['__0'])[0]}"
    if state == "Device":
        inside = inside["__0"]
        return f"device {rust.number(inside, 'device')} queue {rust.number(inside, 'queue')}"
    return state.lower()


class TwoLevel:
    """Pending and mask bits in the shared page (`public/xen.h`, `struct shared_info`)."""

    def __init__(self, table_):
        width, _ = rust.variant(rust.get(table_, "width"))
        pending, mask, size = (2048, 2560, 512) if width == "Bits64" else (2048, 2176, 128)
        page = target.read_physical(rust.number(table_, "shared_info", "mfn") << 12, 4096)
        self.pending = int.from_bytes(page[pending:pending + size], "little")
        self.mask = int.from_bytes(page[mask:mask + size], "little")
        self.name = f"two-level, {width}"

    def flags(self, port):
        """What the guest's memory says of a port."""
        bits = [("pending", self.pending >> port & 1), ("masked", self.mask >> port & 1)]
        return " ".join(name for name, on in bits if on) or "-"


class Fifo:
    """Event words in the guest's event array (`public/event_channel.h`)."""

    name = "FIFO"

    def __init__(self, fifo):
        self.pages = [rust.number(page, "mfn") for page in rust.vec(rust.get(fifo, "memory", "array"))]

    def flags(self, port):
        """What the guest's memory says of a port."""
        index, slot = divmod(port, 1024)
        if index >= len(self.pages):
            return "no word"
        (word,) = struct.unpack("<I", target.read_physical((self.pages[index] << 12) + 4 * slot, 4))
        bits = [("pending", PENDING), ("masked", MASKED), ("linked", LINKED)]
        return " ".join(name for name, bit in bits if word & bit) or "-"


class Evtchn(Inspector):
    """Shows the event channels of a domain: what each port is bound to, and its bits.

Usage: tessera evtchn DOMAIN
`pending`, `masked` and `linked` come from the guest's own memory: bitmaps in the shared page, or
the words of the FIFO event array."""

    name, usage, least, most = "evtchn", "DOMAIN", 1, 1

    def show(self, domain):
        events = rust.get(domains.find(domain), "evtchn")
        fifo = rust.option(rust.get(rust.peel(events), "fifo"))
        delivery = TwoLevel(events) if fifo is None else Fifo(fifo)
        rows = []
        for number, port in enumerate(rust.vec(rust.get(events, "ports"))):
            what = binding(port)
            if what is not None:
                to = rust.number(port, "target", "vcpu")
                priority = rust.number(port, "target", "priority")
                rows.append([number, what, f"v{to}", priority, delivery.flags(number)])
        gdb.write(f"{delivery.name}, {len(rows)} ports open\n")
        table(["port", "bound to", "vcpu", "priority", "bits"], rows)


def register():
    """Defines the command."""
    Evtchn()
