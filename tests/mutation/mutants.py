"""Mutants: a module's code with one small mistake each, made on its syntax tree.

Left alone is whatever no test should hold: words (strings, f-strings, docstrings), annotations, what an error says
(``raise``: its removal is a mistake, its words are none), names that are only defined, and what runs under
``TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
ACTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom)
"""Expressions that are statements for what they do."""
ENOUGH_TO_TELL = 8
"""More characters than so many are shown of what a number stands in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake: where it is, what stood there and what stands there now; ``code`` is the whole module.

    ``lines`` are those of its statement, without what is below it. ``is_inside`` says that it happens in a function,
    so that nothing but that function's code is another; what happens on import may have gone anywhere.
    """

    line: int
    lines: range
    is_inside: bool
    function: str
    before: str
    after: str
    code: str

    @property
    def name(self) -> str:
        """``function: `before` → `after```, which survives a change elsewhere in the module."""
        return f"{self.function}: `{self.before}` → `{self.after}`"


def mutants(source: str) -> list[Mutant]:
    """All of a module, in the order of their lines."""
    tree = ast.parse(source)
    return sorted(_Walk(tree).visit(tree, "module"), key=lambda mutant: mutant.line)


class _Walk:
    """Over a tree; each change is made in place, written down and taken back."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.above: list[ast.AST] = []
        self.inside = 0

    def visit(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        """Those of a node and of what is below it."""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = node.name if function == "module" else f"{function}.{node.name}"
        if not _is_skipped(node):
            yield from self._here(node, function)
        self.above.append(node)
        for field, value in ast.iter_fields(node):
            if _is_left(node, field):
                continue
            is_body = isinstance(node, ast.FunctionDef) and field == "body"
            self.inside += is_body
            for below in value if isinstance(value, list) else [value]:
                if isinstance(below, ast.AST):
                    yield from self.visit(below, function)
            self.inside -= is_body
        self.above.pop()

    def _here(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        match node:
            case ast.Compare(ops=ops):
                for index, operator in enumerate(ops):
                    yield from self._set(
                        node, function, "ops", [*ops[:index], COMPARISONS[type(operator)](), *ops[index + 1 :]]
                    )
            case ast.BinOp(left=left, op=op) if not _is_text(left):
                yield from self._set(node, function, "op", OPERATORS[type(op)]())
            case ast.AugAssign(op=op):
                yield from self._set(node, function, "op", OPERATORS[type(op)]())
            case ast.BoolOp(op=op):
                yield from self._set(node, function, "op", ast.Or() if isinstance(op, ast.And) else ast.And())
            case ast.Constant(value=bool() as value):
                yield from self._set(node, function, "value", not value, shown=self._around())
            case ast.Constant(value=int() | float() as value):
                yield from self._set(node, function, "value", value + 1, shown=self._around())
            case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
                yield from self._whole(node, function, operand)
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare):
                yield from self._set(node, function, "test", ast.UnaryOp(ast.Not(), test))
            case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
                yield from self._set(node, function, "value", ast.Constant(None))
            case ast.Expr(value=value) if isinstance(value, ACTS):
                yield from self._whole(node, function, ast.Pass())
            case ast.Raise():
                yield from self._whole(node, function, ast.Pass())
            case ast.Break():
                yield from self._whole(node, function, ast.Continue())
            case ast.Continue():
                yield from self._whole(node, function, ast.Break())

    def _around(self) -> ast.AST:
        """The smallest part above a number that tells it from others of the same value."""
        return next((node for node in reversed(self.above) if len(ast.unparse(node)) > ENOUGH_TO_TELL), self.tree)

    def _set(
        self, node: ast.AST, function: str, field: str, value: object, shown: ast.AST | None = None
    ) -> Iterator[Mutant]:
        """With one field of a node another."""
        shown = shown or node
        before, former = ast.unparse(shown), getattr(node, field)
        setattr(node, field, value)
        ast.fix_missing_locations(self.tree)
        yield self._mutant(node, function, before, ast.unparse(shown))
        setattr(node, field, former)

    def _whole(self, node: ast.stmt | ast.expr, function: str, other: ast.AST) -> Iterator[Mutant]:
        """With another node in place of this one."""
        before, former, kind = ast.unparse(node), dict(vars(node)), type(node)
        line, last = node.lineno, node.end_lineno
        replacement = copy.copy(other)
        node.__class__ = type(replacement)  # type: ignore[assignment]  # the same object, whoever holds it
        node.__dict__.clear()
        node.__dict__.update(vars(replacement))
        ast.copy_location(node, ast.Pass(lineno=line, col_offset=0, end_lineno=last, end_col_offset=0))
        ast.fix_missing_locations(self.tree)
        yield self._mutant(node, function, before, ast.unparse(node))
        node.__class__ = kind  # type: ignore[assignment]
        node.__dict__.clear()
        node.__dict__.update(former)

    def _mutant(self, node: ast.AST, function: str, before: str, after: str) -> Mutant:
        statement = next((one for one in (node, *reversed(self.above)) if isinstance(one, ast.stmt)), None)
        first, last = (statement.lineno, statement.end_lineno or statement.lineno) if statement else (0, 0)
        if body := getattr(statement, "body", None):
            last = max(first, body[0].lineno - 1)
        return Mutant(
            line=getattr(node, "lineno", 0), lines=range(first, last + 1), is_inside=self.inside > 0,
            function=function, before=_short(before), after=_short(after), code=ast.unparse(self.tree),
        )  # fmt: skip


def _short(text: str) -> str:
    """The first line, at most 90 characters of it: a statement may hold many."""
    first = text.partition("\n")[0]
    return first if len(first) <= 90 else f"{first[:89]}…"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _is_skipped(node: ast.AST) -> bool:
    """What is for type checkers, or for the module as a program."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node) == "TYPE_CHECKING = False"
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def _is_left(node: ast.AST, field: str) -> bool:
    """Whether what is below a field is none of a test's business."""
    if _is_skipped(node):
        return True
    if field in ("annotation", "returns", "type_comment", "decorator_list", "bases"):
        return True
    return isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom))
