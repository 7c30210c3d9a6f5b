"""The stopped machine: its pCPUs, and the hypervisor's memory whatever the pCPUs do.

A pCPU that runs a guest has the guest's CR3, so an address of the hypervisor means nothing there;
early on there is no paging at all. QEMU's gdbstub can take physical addresses instead
(`Qqemu.PhyMemMode`), and `reading` then translates by the hypervisor's own tables. Other stubs
read linear addresses, which works in root mode.
"""

import contextlib
import struct

import gdb

from .errors import Problem

PAGE = 4096
IMAGE_OFFSET = 0xFFFF_FFFF_8000_0000
"""The virtual address of physical address 0 in the image's mapping (boot/linker.ld)."""
_ADDRESS = 0x000F_FFFF_FFFF_F000

_physical = False
"""Addresses that the stub takes are physical."""
_words = {}
"""Statics that have been read while `reading`."""


def _packet(text):
    """Sends a packet to the stub and returns the answer."""
    connection = gdb.selected_inferior().connection
    if not hasattr(connection, "send_packet"):
        raise Problem("no machine: `target remote HOST:PORT` first")
    return connection.send_packet(text)


@contextlib.contextmanager
def reading():
    """Makes the hypervisor's memory readable for `at`, `read` and `read_physical`."""
    global _physical
    if gdb.selected_thread() is None:
        raise Problem("no machine: `target remote HOST:PORT` first")
    static("vmm_core::domain::list::DOMAINS")
    _words.clear()
    if _packet("qqemu.PhyMemMode") not in (b"0", b"1"):
        yield
        return
    _packet("Qqemu.PhyMemMode:1")
    _physical = True
    try:
        yield
    finally:
        _physical = False
        _packet("Qqemu.PhyMemMode:0")


@contextlib.contextmanager
def language(name):
    """Takes expressions as a language's, whatever the selected frame has."""
    before = gdb.parameter("language")
    gdb.execute(f"set language {name}", to_string=True)
    try:
        yield
    finally:
        gdb.execute(f"set language {before}", to_string=True)


def static(path):
    """Address and type of a static variable."""
    try:
        with language("rust"):
            pointer = gdb.parse_and_eval("&" + path)
    except gdb.error:
        raise Problem(
            f"no symbol {path}: load tessera.debug, with full debug information, by `file`"
        ) from None
    return int(pointer), pointer.type.target()


def symbol(name):
    """The address of a symbol by its name in the linker's table; None without it."""
    try:
        with language("c"):
            return int(gdb.parse_and_eval(f"(unsigned long) &'{name}'"))
    except gdb.error:
        return None


def function(name):
    """The address of an assembly function by the end of its path."""
    try:
        return gdb.decode_line(name)[1][0].pc
    except gdb.error:
        raise Problem(f"no function {name}: load tessera.debug by `file`") from None


def translate(address):
    """What the stub takes for a virtual address of the hypervisor."""
    if not _physical:
        return address
    if address >= IMAGE_OFFSET:
        return address - IMAGE_OFFSET
    base, limit = (_static_word(f"vmm_core::mm::directmap::{name}") for name in ("BASE", "LIMIT"))
    if base and base <= address < base + limit:
        return address - base
    root = _static_word("tessera::memory::paging::ROOT")
    if not root:
        raise Problem(f"{address:#x}: no memory of the hypervisor, whose tables do not exist yet")
    return _walk(root, address)


def virtual(value):
    """The hypervisor's virtual address of a value that `at` gave."""
    address = int(value.address)
    base = _static_word("vmm_core::mm::directmap::BASE")
    return address + base if _physical else address


def _static_word(path):
    """A static of 64 bits in the image."""
    if path not in _words:
        address, _ = static(path)
        _words[path] = struct.unpack("<Q", _raw(translate(address), 8))[0]
    return _words[path]


def _walk(table, address):
    """Walks the hypervisor's page tables. SDM 3A, "4-Level Paging"."""
    for level in (3, 2, 1, 0):
        shift = 12 + 9 * level
        slot = table + 8 * (address >> shift & 511)
        entry = struct.unpack("<Q", _raw(slot, 8))[0]
        if not entry & 1:
            raise Problem(f"{address:#x}: not mapped in the hypervisor")
        large = level in (1, 2) and entry & 0x80
        if level == 0 or large:
            size = 1 << shift
            return (entry & _ADDRESS & ~(size - 1)) | address & (size - 1)
        table = entry & _ADDRESS
    raise AssertionError("the loop returns")


def _raw(address, length):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, length))
    except gdb.error:
        raise Problem(f"{address:#x}: no memory that can be read") from None


def read(address, length):
    """Bytes at a virtual address of the hypervisor."""
    out = b""
    while length:
        step = min(length, PAGE - address % PAGE)
        out += _raw(translate(address), step)
        address, length = address + step, length - step
    return out


def write_message(address, word):
    """Writes 32 bits to a host-physical address that is a device's; false when the stub cannot."""
    if _physical:
        gdb.selected_inferior().write_memory(address, struct.pack("<I", word))
    return _physical


def read_physical(address, length):
    """Bytes at a host-physical address in one frame."""
    if _physical:
        return _raw(address, length)
    base = _static_word("vmm_core::mm::directmap::BASE")
    if not base:
        raise Problem(f"{address:#x}: the direct map is not there yet")
    return _raw(base + address, length)


def word_physical(address):
    """The 64-bit word at a host-physical address."""
    return struct.unpack("<Q", read_physical(address, 8))[0]


def at(address, type_):
    """The value of a type at a virtual address of the hypervisor."""
    value = gdb.Value(translate(int(address))).cast(type_.pointer()).dereference()
    if 0 < type_.sizeof <= PAGE:
        # An unreadable one fails here and not in the middle of what is shown.
        value.fetch_lazy()
    return value
