"""What a name of lab's promises, as Markdown: signature, fields and docstrings, read from the source, not imported.

A page asks for it by a line ``::: Metric``. The name is looked for in all of ``lab/``, so that the page need not know
in which file it is.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LONGEST_LINE = 100
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """A class or function at the top of a module."""

    place: str  # relative to the repository
    node: ast.ClassDef | Function
    lines: list[str]


@cache
def definitions() -> dict[str, list[Definition]]:
    """Every public class and function of lab's, by its name."""
    found: dict[str, list[Definition]] = {}
    for path in sorted((ROOT / "lab").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                made = Definition(str(path.relative_to(ROOT)), node, text.splitlines())
                found.setdefault(node.name, []).append(made)
    return found


def find(name: str) -> Definition:
    """The one definition of ``name``, or of ``lab.metrics.Subject``: anywhere in that package. Raises LookupError."""
    package, _, last = name.rpartition(".")
    within = package.replace(".", "/") + "/"
    found = [each for each in definitions().get(last, []) if not package or each.place.startswith(within)]
    if name == "lab.load":
        found = [each for each in found if each.place == "lab/__init__.py"]
    if len(found) != 1:
        places = ", ".join(each.place for each in found) or "nowhere"
        raise LookupError(f"::: {name} has to be one public class or function of lab's, and is in: {places}")
    return found[0]


def markdown(name: str) -> str:
    """What there is to say of ``name``. Raises LookupError also when it has no docstring."""
    if name == "quantities":
        return quantities()
    place, node, lines = find(name)
    text = ast.get_docstring(node)
    if not text:
        raise LookupError(f"::: {name} has no docstring in {place}")
    module = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    parts = [fenced(heading(node)), f"*in `{module}`*", prose(text)]
    if isinstance(node, ast.ClassDef):
        parts += [*fields(node, lines), *methods(node)]
    return "\n\n".join(parts)


def quantities() -> str:
    """Every quantity's name, unit and definition, from the one list of them."""
    (list_of_them,) = (ROOT / "lab").rglob("quantities.toml")
    found = tomllib.loads(list_of_them.read_text(encoding="utf-8"))
    rows = [(f"`{name}`", each["unit"], each["label"], each["definition"]) for name, each in found.items()]
    return table([("quantity", "unit", "is called", "what it is"), *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the heads."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def heading(node: ast.ClassDef | Function) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})".removesuffix("()")
    return signature(node)


def signature(node: Function) -> str:
    """On one line, or one line for each argument where that is too long."""
    listed = arguments(node.args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({', '.join(listed)}){returns}"
    if len(line) <= LONGEST_LINE:
        return line
    return f"def {node.name}(\n    " + ",\n    ".join(listed) + f",\n){returns}"


def arguments(given: ast.arguments) -> list[str]:
    """Each as it stands in a formatted source."""
    ordinary = [*given.posonlyargs, *given.args]
    missing = [None] * (len(ordinary) - len(given.defaults))
    listed = [argument(each, default) for each, default in zip(ordinary, [*missing, *given.defaults], strict=True)]
    if given.posonlyargs:
        listed.insert(len(given.posonlyargs), "/")
    if given.vararg:
        listed.append(f"*{argument(given.vararg)}")
    elif given.kwonlyargs:
        listed.append("*")
    listed += [argument(each, default) for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*listed, f"**{argument(given.kwarg)}"] if given.kwarg else listed


def argument(given: ast.arg, default: ast.expr | None = None) -> str:
    kind = f": {ast.unparse(given.annotation)}" if given.annotation else ""
    equals = " = " if kind else "="
    return f"{given.arg}{kind}" + (f"{equals}{ast.unparse(default)}" if default else "")


def fields(node: ast.ClassDef, lines: list[str]) -> list[str]:
    """A table of a class's annotated or listed names: type, default and the comment behind each."""
    rows = []
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            name, kind = each.target.id, ast.unparse(each.annotation)
            kind = re.sub(r"^ClassVar\[(.*)\]$", r"\1", kind)
            value = ast.unparse(each.value) if each.value else ""
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            name, kind, value = each.targets[0].id, "", ast.unparse(each.value)
        else:
            continue
        if not name.startswith("_"):
            said = re.search(r"#\s*(.*)", lines[(each.end_lineno or 1) - 1])
            rows.append([f"`{name}`", code(kind), code(value), said[1] if said else ""])
    if not rows:
        return []
    rows.insert(0, ["name", "type", "default", "meaning"])
    kept = [column for column in range(4) if any(row[column] for row in rows[1:])]
    return [table([[row[column] for column in kept] for row in rows])]


def code(words: str) -> str:
    return f"`{words}`" if words else ""


def methods(node: ast.ClassDef) -> list[str]:
    """Every public method and property, in the order of the source, with what its decorators say."""
    parts = []
    for each in node.body:
        if isinstance(each, Function) and not each.name.startswith("_"):
            marks = "".join(f"@{ast.unparse(mark)}\n" for mark in each.decorator_list)
            parts += [fenced(f"{marks}{signature(each)}"), prose(ast.get_docstring(each) or "")]
    return [part for part in parts if part]


def fenced(words: str) -> str:
    return f"```python\n{words}\n```"


def prose(text: str) -> str:
    """A docstring's literal block is announced by two colons; Markdown needs none."""
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)
