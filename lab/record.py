"""Frozen records for the small processes, where `dataclasses` costs more than the container they start.

The dataclasses module imports `inspect` and compiles each class's methods at import: 12 ms, and as much again for
forty classes. A Record is a class with annotations and nothing else; it has slots, an initialiser that takes
keywords only, equality, a hash and a repr. To mypy it is a frozen dataclass.

`Names` is an enumeration in the same spirit: named strings that can be listed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 8 ms, and mypy knows this name as well
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, TypeVar, dataclass_transform

    R = TypeVar("R", bound="Record")
else:

    def dataclass_transform(**_words):
        return lambda kind: kind


class _Slots(type):
    """Turns annotations into slots, and what they are set to into defaults."""

    fields: Mapping[str, str]  # annotations by name, inherited ones first
    defaults: Mapping[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Slots:
        own: dict[str, str] = namespace.get("__annotations__", {})
        fields: dict[str, str] = {}
        defaults: dict[str, Any] = {}
        for base in bases:
            fields.update(getattr(base, "fields", {}))
            defaults.update(getattr(base, "defaults", {}))
        fields.update(own)
        defaults.update({field: namespace.pop(field) for field in own if field in namespace})
        namespace["__slots__"] = tuple(own)
        made = super().__new__(mcs, name, bases, namespace)
        made.fields, made.defaults = fields, defaults
        return made


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True)
class Record(metaclass=_Slots):
    """The base: ``class Point(Record): x: int; y: int = 0``, in a module whose annotations are postponed.

    A default is shared by all that were made without another value, unless it is a dict, which is copied.
    """

    def __init__(self, **values: object) -> None:
        kind = type(self)
        for name in kind.fields:
            if name in values:
                value = values.pop(name)
            elif name in kind.defaults:
                value = kind.defaults[name]
                value = dict(value) if type(value) is dict else value
            else:
                raise TypeError(f"{kind.__name__} needs {name}")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{kind.__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be removed")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and items(self) == items(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(items(self).values())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in items(self).items())})"


def items(record: Any) -> dict[str, Any]:
    """The fields by name, in order; values are not copied."""
    return {name: getattr(record, name) for name in type(record).fields}


def replace(record: R, **changes: Any) -> R:
    """A copy with some fields changed."""
    return type(record)(**items(record) | changes)


class Names(type):
    """The metaclass of an enumeration of strings: ``list(Step)`` are the values, ``"mount" in Step`` asks for one."""

    def __iter__(cls) -> Iterator[str]:
        return iter([value for name, value in vars(cls).items() if name.isupper()])

    def __contains__(cls, value: object) -> bool:
        return value in list(cls)
