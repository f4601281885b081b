"""Plain values between a hand-in and its tests, and the names that a piece of Python needs.

What crosses is JSON that says which built-in type each value has; nothing that came across can run code, compare in a
way of its own, or be a number that is none.
"""

from __future__ import annotations

import ast
import builtins
import math
import symtable
from collections.abc import Callable, Iterator
from typing import Any

CELL = "<cell>"
"""What a cell is compiled as."""
DEEPEST = 40
MOST_ITEMS = 100_000
LARGEST_NUMBER = 10**1000
LARGEST_ANSWER = 1 << 20
"""Bytes of a line in which a hand-in answers."""
BUILTINS = frozenset(dir(builtins))
SEQUENCES: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(ValueError):
    """A value that can't cross."""


def encode(value: object, depth: int = 0) -> Any:
    """``value`` as JSON: numbers and texts as themselves, all else as [type, item…]. Subclasses become their base.

    Raises NotPlain, which names the type.
    """
    if depth > DEEPEST:
        raise NotPlain("it is nested too deeply")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        if abs(value) >= LARGEST_NUMBER:
            raise NotPlain("it is a number of more than 1000 digits")
        return int(value)
    if isinstance(value, float):
        number = float(value)
        if not math.isfinite(number):
            raise NotPlain(f"it is {number}, no finite number")
        return number
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        pairs = [[encode(key, depth + 1), encode(one, depth + 1)] for key, one in value.items()]
        return ["dict", *pairs]
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return [name, *(encode(each, depth + 1) for each in value)]  # type: ignore[attr-defined]
    if callable(listed := getattr(value, "tolist", None)):  # array.array's, numpy's
        return encode(listed(), depth + 1)
    raise NotPlain(f"it is a {type(value).__name__}, no plain value")


def decode(told: Any, depth: int = 0) -> Any:
    """What `encode` wrote. Raises NotPlain for anything else."""
    if depth > DEEPEST:
        raise NotPlain("it is nested too deeply")
    if told is None or isinstance(told, bool | int | str):
        return told
    if isinstance(told, float) and math.isfinite(told):
        return told
    try:
        name, *items = told
        if not isinstance(told, list) or len(items) > MOST_ITEMS:
            raise NotPlain("it is no plain value")
        if name == "dict":
            return {decode(key, depth + 1): decode(one, depth + 1) for key, one in items}
        return SEQUENCES[name]([decode(each, depth + 1) for each in items])
    except (TypeError, ValueError, KeyError) as error:
        raise error if isinstance(error, NotPlain) else NotPlain("it is no plain value") from None


def refused(source: str) -> str:
    """Why a cell is no plain Python, in a line; "" where it is."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        number = error.lineno or 1
        lines = source.split("\n")
        line = lines[number - 1].strip() if number <= len(lines) else ""
        if line.startswith(("%", "!", "?")) or line.endswith("?"):
            return f"line {number} is a command of IPython’s ({line.split()[0][:40]}); only plain Python is executed"
        return f"line {number} is no Python: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it is no Python: {error}"
    return ""


def needed(source: str) -> set[str]:
    """The global names that ``source`` reads, anywhere in it, and does not define itself."""
    read = {one.get_name() for is_top, one in _symbols(source) if one.is_referenced() and (is_top or one.is_global())}
    return read - bound(source)


def bound(source: str) -> set[str]:
    """The global names that ``source`` defines: by assignment, import, def, class."""
    names = {
        one.get_name()
        for is_top, one in _symbols(source)
        if (one.is_assigned() or one.is_imported()) and (is_top or one.is_declared_global())
    }
    scoped = _Scoped()
    scoped.visit(ast.parse(source))
    return names | scoped.outwards


def _symbols(source: str) -> Iterator[tuple[bool, symtable.Symbol]]:
    """Every name in every scope of it, and whether that is the outermost."""
    tables = [symtable.symtable(ast.unparse(_Scoped().visit(ast.parse(source))), CELL, "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for one in table.get_symbols():
            yield table.get_type() == "module", one


class _Scoped(ast.NodeTransformer):
    """Comprehensions in a scope of their own, which they lost in Python 3.12 (PEP 709): what they run through would
    be among the names of the outermost. ``outwards`` is what they assign there by ``:=``. Functions and classes are
    left alone.
    """

    def __init__(self) -> None:
        self.outwards: set[str] = set()

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            return node
        if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            return self.generic_visit(node)
        self.outwards |= {each.target.id for each in ast.walk(node) if isinstance(each, ast.NamedExpr)}
        arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        return ast.Call(func=ast.Lambda(args=arguments, body=node), args=[], keywords=[])


def line_of(error: BaseException) -> int:
    """In which line of the cell it happened: the outermost, since an inner one may be another cell's."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CELL:
            return trace.tb_lineno
        trace = trace.tb_next
    return 0
