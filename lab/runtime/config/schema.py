"""Records to JSON and back, by their annotations; what does not fit is told by its JSON path.

An annotation is one of: a kind of `lab.runtime.config.scalars`, a Record of the same module, ``tuple[X, ...]``,
``Mapping[str, X]``, or any of these ``| None``. A record's ``REFUSED`` names what the specification knows and
lab does not do, with the reason; what the specification doesn't know is for the caller to judge.
"""

from __future__ import annotations

import sys

from lab.errors import UsageError
from lab.record import Record
from lab.runtime.config.scalars import KINDS, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reader = Callable[[Any, str, Callable[[str], None]], Any]
    Known = tuple[dict[str, tuple[str, Reader]], list[str]]  # properties by their names in JSON; those that must be

DOCUMENT = "config.json"

SPELLING = {
    "io_class": "class",
    "no_new_privileges": "noNewPrivileges",
    "container_id": "containerID",
    "host_id": "hostID",
    "class_id": "classID",
    "clos_id": "closID",
    "enable_cmt": "enableCMT",
    "enable_mbm": "enableMBM",
    "exec_cpu_affinity": "execCPUAffinity",
    "kernel_tcp": "kernelTCP",
    "disable_oom_killer": "disableOOMKiller",
    "block_io": "blockIO",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
}


def camel(name: str) -> str:
    """A field's name in JSON."""
    first, *rest = name.split("_")
    return SPELLING.get(name) or first + "".join(word.capitalize() for word in rest)


def error(path: str, complaint: str) -> UsageError:
    """One line that begins with the JSON path."""
    return UsageError(f"{DOCUMENT}: {path or 'the whole'} {complaint}")


def refuse(path: str) -> None:
    """What to do about a property that the specification doesn't know, unless told otherwise."""
    raise error(path, "is not supported")


# Writing


def write(value: Any) -> Any:
    """As JSON has it; fields that are empty by default and empty are left out."""
    if isinstance(value, Record):
        kind = type(value)
        found = {}
        for name in kind.fields:
            each = getattr(value, name)
            written = write(each)
            if not (name in kind.defaults and each == kind.defaults[name] and written in (None, "", [], {})):
                found[camel(name)] = written
        return found
    if isinstance(value, dict):
        return {name: write(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [write(item) for item in value]
    return value


# Reading

_readers: dict[tuple[str, str], Reader] = {}  # by module and annotation
_known: dict[type, Known] = {}


def read(kind: type, value: Any, path: str, unknown: Callable[[str], None]) -> Any:
    """A record of ``kind``. Raises UsageError; ``unknown`` gets the path of what the specification doesn't know."""
    if not isinstance(value, dict):
        raise error(path, f"is not an object: {short(value)}")
    properties, required = _known.get(kind) or _prepare(kind)
    prefix = f"{path}." if path else ""
    found = {}
    for name, item in value.items():
        known = properties.get(name)
        if known is not None:
            found[known[0]] = known[1](item, prefix + name, unknown)
        elif name in getattr(kind, "REFUSED", ()):
            raise error(prefix + name, f"is not supported: {kind.REFUSED[name]}")  # type: ignore[attr-defined]
        else:
            unknown(prefix + name)
    for name in required:
        if name not in value:
            raise error(prefix + name, f"is missing: {_words(kind, properties[name][0])}")
    return kind(**found)


def _prepare(kind: Any) -> Known:
    """``REQUIRED`` are the properties without which JSON is wrong, though the record has a default for them."""
    properties = {camel(name): (name, _reader(kind.__module__, text)) for name, text in kind.fields.items()}
    required = [name for name, (field, _) in properties.items() if field not in kind.defaults]
    made = _known[kind] = properties, [*required, *getattr(kind, "REQUIRED", ())]
    return made


def _words(kind: Any, name: str) -> str:
    text = kind.fields[name]
    return KINDS[text].words if text in KINDS else "a list" if text.startswith("tuple") else "an object"


def _reader(module: str, text: str) -> Reader:
    """What reads a value of the annotation ``text``; made once."""
    known = _readers.get((module, text))
    if known is None:
        known = _readers[module, text] = _make(module, text)
    return known


def _make(module: str, text: str) -> Reader:
    if text.endswith(" | None"):
        inner = _reader(module, text.removesuffix(" | None"))
        return lambda value, path, unknown: None if value is None else inner(value, path, unknown)
    if text.startswith("tuple["):
        return _list_of(_reader(module, text[len("tuple[") : -len(", ...]")]))
    if text.startswith("Mapping[str, "):
        return _object_of(_reader(module, text[len("Mapping[str, ") : -1]))
    if text in KINDS:
        return _scalar(KINDS[text])
    record = getattr(sys.modules[module], text)
    return lambda value, path, unknown: read(record, value, path, unknown)


def _scalar(kind: Scalar) -> Reader:
    def reader(value: Any, path: str, _: object) -> Any:
        if not kind.accepts(value):
            raise error(path, f"is not {kind.words}: {short(value)}")
        return value

    return reader


def _list_of(inner: Reader) -> Reader:
    def reader(value: Any, path: str, unknown: Callable[[str], None]) -> Any:
        if not isinstance(value, list):
            raise error(path, f"is not a list: {short(value)}")
        return tuple([inner(item, f"{path}[{number}]", unknown) for number, item in enumerate(value)])

    return reader


def _object_of(inner: Reader) -> Reader:
    def reader(value: Any, path: str, unknown: Callable[[str], None]) -> Any:
        if not isinstance(value, dict):
            raise error(path, f"is not an object: {short(value)}")
        return {name: inner(item, f"{path}.{name}", unknown) for name, item in value.items()}

    return reader


def short(value: object) -> str:
    """A value in an error message: as JSON spells it, cut."""
    plain = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    text = f'"{value}"' if isinstance(value, str) else "{…}" if isinstance(value, dict) else str(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 60 else text[:57] + "…"
