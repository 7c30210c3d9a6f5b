"""Names that debug information does not have, taken from the sources they are defined in."""

import functools
import os
import re

from .errors import Problem

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


def _text(path):
    try:
        with open(os.path.join(_ROOT, path), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise Problem(f"names come from {path}: {error.strerror}") from None


@functools.cache
def vmcs_fields():
    """Encoding, name and bits of every VMCS field, in the manual's order."""
    row = r"^ *(\w+): u(16|32|64), \w+ = (0x[0-9a-f]{4});"
    found = re.findall(row, _text("vmx/src/vmcs/field.rs"), re.MULTILINE)
    return [(int(encoding, 16), name, int(bits)) for name, bits, encoding in found]


@functools.cache
def exit_reasons():
    """Names of the basic exit reasons, by number."""
    found = re.findall(r"^ *(\w+) = (\d+);", _text("vmx/src/exit/reason.rs"), re.MULTILINE)
    return {int(number): name for name, number in found}


@functools.cache
def wake_vector():
    """The interrupt vector by which pCPUs wake each other."""
    found = re.search(r"VECTOR_WAKE: u8 = (0x[0-9a-f]+);", _text("vmm-core/src/platform.rs"))
    if not found:
        raise Problem("vmm-core/src/platform.rs has no VECTOR_WAKE")
    return int(found[1], 16)


@functools.cache
def signals():
    """Names of the bits of a vCPU's signals."""
    found = re.findall(r"const (\w+) = 1 << (\d+);", _text("vmm-core/src/vcpu/mod.rs"))
    return {int(bit): name for name, bit in found}


def bits(value, names):
    """A set of bits by their names."""
    set_ = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    return "|".join(names.get(bit, f"bit{bit}") for bit in set_) or "-"
