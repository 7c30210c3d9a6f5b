"""`tessera log`: the hypervisor's last lines, from memory."""

import gdb

from . import rust, target
from .command import Inspector, number


class Log(Inspector):
    """Shows the last lines of the hypervisor's log, from its ring in memory.

Usage: tessera log [LINES]
Without a number it shows all that the ring holds (64 KiB). Works from the first line on, on a
stopped, hung or panicked machine; a panic's own text is on the serial line only."""

    name, usage, most = "log", "[LINES]", 1

    def show(self, lines=None):
        count = None if lines is None else number(lines, "a number of lines")
        ring = rust.peel(rust.static("tessera::console::log::RING"))
        data = rust.get(ring, "data")
        size = data.type.sizeof
        address, _ = target.static("tessera::console::log::RING")
        start = address + int(data.address) - target.translate(address)
        content = target.read(start, size)
        at = rust.number(ring, "write_at")
        if rust.number(ring, "filled"):
            content = content[at:] + content[:at]
            # The oldest line is rarely whole.
            content = content.partition(b"\n")[2]
        else:
            content = content[:at]
        shown = content.decode("utf-8", "replace").splitlines()
        if count is not None:
            shown = shown[max(len(shown) - count, 0):]
        gdb.write("".join(line + "\n" for line in shown))


def register():
    """Defines the command."""
    Log()
