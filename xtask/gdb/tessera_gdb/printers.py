"""Pretty-printers of the project's own types, and of the standard library's where gdb has none."""

import gdb
import gdb.printing

from . import ept, rust, sources


class Scalar:
    """An address, a frame or an id: its type's last name and the number in it."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        """Called by gdb."""
        short = self.value.type.strip_typedefs().name.rsplit("::", 1)[-1]
        number = int(rust.peel(self.value))
        text = f"{number:#x}" if short in ADDRESSES else str(number)
        return f"{short}({text})"


class Reason(Scalar):
    """An exit reason by its name."""

    def to_string(self):
        raw = int(rust.peel(self.value))
        name = sources.exit_reasons().get(raw & 0xFFFF, "?")
        return f"ExitReason({raw:#x} {name})"


class Entry(Scalar):
    """An entry of an EPT."""

    def to_string(self):
        raw = int(rust.peel(self.value))
        return f"Entry({raw:#x} {ept.leaf(raw) if raw else 'empty'})"


class Atomic(Scalar):
    """An atomic, as the number in it."""

    def to_string(self):
        return str(rust.peel(self.value))


class Text(Scalar):
    """A `String`."""

    def to_string(self):
        bytes_ = rust.get(self.value, "vec")
        address = int(rust.peel(rust.get(bytes_, "buf", "inner", "ptr")))
        length = min(rust.number(bytes_, "len"), 4096)
        memory = gdb.selected_inferior().read_memory(address, length)
        return bytes(memory).decode("utf-8", "replace")

    def display_hint(self):
        """Called by gdb."""
        return "string"


class Counted(Scalar):
    """An `Arc`: the holders it has and what it holds."""

    def to_string(self):
        inner = rust.peel(rust.get(self.value, "ptr"))
        strong = rust.number(inner.dereference(), "strong")
        return f"Arc(strong={strong}, {int(inner):#x})"

    def children(self):
        """Called by gdb."""
        yield "data", rust.peel(rust.get(self.value, "ptr"))["data"]


class Elements(Scalar):
    """A `Vec`."""

    def to_string(self):
        return f"Vec(len={rust.number(self.value, 'len')})"

    def children(self):
        """Called by gdb."""
        element = self.value.type.template_argument(0)
        base = rust.peel(rust.get(self.value, "buf", "inner", "ptr"))
        pointer = gdb.Value(int(base)).cast(element.pointer())
        for index in range(rust.number(self.value, "len")):
            yield f"[{index}]", (pointer + index).dereference()

    def display_hint(self):
        """Called by gdb."""
        return "array"


class Slots:
    """An array of enumerations, element by element from memory.

    gdb 13 takes the first variant for the one of every element and then ends itself with an
    internal error; an element that is read on its own has the right one."""

    def __init__(self, value):
        self.value = value
        self.element = value.type.target()
        self.count = value.type.range()[1] + 1

    def to_string(self):
        """Called by gdb."""
        known = "" if self.value.address is not None else ", not in memory"
        return f"[{self.element}; {self.count}]{known}"

    def children(self):
        """Called by gdb."""
        if self.value.address is None:
            return
        base = int(self.value.address)
        for index in range(self.count):
            at = gdb.Value(base + index * self.element.sizeof)
            yield f"[{index}]", at.cast(self.element.pointer()).dereference()

    def display_hint(self):
        """Called by gdb."""
        return "array"


class Unresolved(Scalar):
    """An enumeration whose variant gdb has not looked for; printing it would end gdb 13."""

    def to_string(self):
        if self.value.address is None:
            return f"{self.value.type}(not in memory)"
        again = gdb.Value(int(self.value.address)).cast(self.value.type.pointer()).dereference()
        if unresolved(again):
            return f"{self.value.type}(no variant)"
        return str(again)


def unresolved(value):
    """True for an enumeration of which gdb still sees every variant."""
    fields = value.type.fields() if value.type.code == gdb.TYPE_CODE_STRUCT else []
    variants = [field for field in fields if not field.artificial]
    return len(variants) != len(fields) and len(variants) != 1


def dangerous(value):
    """A printer for what gdb cannot print safely by itself, if it is that."""
    type_ = value.type.strip_typedefs()
    if type_.code == gdb.TYPE_CODE_ARRAY and type_.target().dynamic:
        return Slots(value)
    return Unresolved(value) if unresolved(value) else None


ADDRESSES = ("Gva", "Gpa", "Gfn", "Hpa", "Mfn", "Tsc")
PRINTERS = (
    ("address", r"^abi::addr::(Gva|Gpa|Gfn|Hpa|Mfn)$", Scalar),
    ("id", r"^abi::ids::(DomId|VcpuId|EvtchnPort|GrantRef|Virq)$", Scalar),
    ("tsc", r"^vmm_core::time::Tsc$", Scalar),
    ("exit reason", r"^vmx::exit::\w+::ExitReason$", Reason),
    ("ept entry", r"^ept::entry::Entry$", Entry),
    ("atomic", r"^core::sync::atomic::Atomic\w*(<.*>)?$", Atomic),
    ("string", r"^alloc::string::String$", Text),
    ("arc", r"^alloc::sync::Arc<.*>$", Counted),
    ("vec", r"^alloc::vec::Vec<.*>$", Elements),
)


def register():
    """Makes the printers known to gdb."""
    all_ = gdb.printing.RegexpCollectionPrettyPrinter("tessera")
    for name, pattern, printer in PRINTERS:
        all_.add_printer(name, pattern, printer)
    gdb.printing.register_pretty_printer(None, all_, replace=True)
    known = [one for one in gdb.pretty_printers if getattr(one, "__name__", "") != "dangerous"]
    gdb.pretty_printers[:] = [*known, dangerous]
