"""Rust values: through locks, cells, counted pointers and vectors to what is inside.

Values come from memory (`target.at`), since gdb tells the variant of an enumeration only there.
"""

import gdb

from . import target
from .errors import Problem


def _fields(value):
    return {field.name: field for field in value.type.fields()}


def _is_struct(value):
    return value.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION)


def peel(value):
    """What is inside locks, cells, atomics, newtypes and other wrappers of one field."""
    while _is_struct(value):
        fields = _fields(value)
        if "data" in fields and fields.keys() & {"lock", "status", "next_ticket"}:
            value = value["data"]
            continue
        if any(field.artificial for field in fields.values()):
            return value
        sized = [field for field in fields.values() if field.type.sizeof]
        if len(sized) == 2 and value.type.code == gdb.TYPE_CODE_UNION:
            sized = [fields["value"]]
        if len(sized) != 1:
            return value
        value = value[sized[0]]
    return value


def get(value, *path):
    """A field of a field of a field, through wrappers."""
    for name in path:
        if not _is_struct(value) or name not in _fields(value):
            value = peel(value)
        if not _is_struct(value) or name not in _fields(value):
            raise Problem(f"{value.type} has no field {name}: not the version of these commands")
        value = value[name]
    return value


def number(value, *path):
    """An integer inside wrappers."""
    return int(peel(get(value, *path)))


def variant(value):
    """The variant of an enumeration: its name, and its fields or None."""
    value = peel(value) if not _is_enum(value) else value
    if value.type.code == gdb.TYPE_CODE_ENUM:
        names = {field.enumval: field.name for field in value.type.fields()}
        return names.get(int(value), f"{int(value)}?").split("::")[-1], None
    names = [field.name for field in value.type.fields() if not field.artificial and field.name]
    if len(names) != 1:
        raise Problem(f"{value.type}: no variant fits what is in memory")
    return names[0], value[names[0]]


def _is_enum(value):
    return value.type.code == gdb.TYPE_CODE_ENUM or (
        _is_struct(value) and any(field.artificial for field in value.type.fields())
    )


def option(value):
    """What an `Option` holds, or None."""
    name, inside = variant(value)
    return inside["__0"] if name == "Some" else None


def follow(pointer):
    """What a reference, `Box`, `NonNull` or raw pointer points to."""
    pointer = peel(pointer)
    return target.at(int(pointer), pointer.type.target())


def arc(value):
    """What an `Arc` holds."""
    return follow(get(value, "ptr"))["data"]


def vec(value):
    """The elements of a `Vec`."""
    value = peel(value)
    pointer = peel(get(value, "buf", "inner", "ptr"))
    return _elements(int(pointer), value.type.template_argument(0), number(value, "len"))


def boxed_slice(value):
    """The elements of a `Box<[T]>` or `&[T]`."""
    pointer = value["data_ptr"]
    return _elements(int(pointer), pointer.type.target(), int(value["length"]))


def array(value):
    """The elements of an array."""
    first, last = value.type.range()
    return [value[i] for i in range(first, last + 1)]


def string(value):
    """The text of a `String`."""
    bytes_ = peel(value)
    address = int(peel(get(bytes_, "buf", "inner", "ptr")))
    return target.read(address, number(bytes_, "len")).decode("utf-8", "replace")


def _elements(base, type_, count):
    if count > 1 << 20:
        raise Problem(f"{count} elements of {type_}: memory does not hold what its type says")
    return [target.at(base + i * type_.sizeof, type_) for i in range(count)]


def static(path):
    """The value of a static variable."""
    return target.at(*target.static(path))


def once(value):
    """What a `spin::Once` holds, or None before it is filled (2 is its status "complete")."""
    return peel(value["data"]) if number(value["status"]) == 2 else None
