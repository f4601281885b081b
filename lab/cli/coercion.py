"""Arguments that are already what a command wants, taken as they are.

typer has pydantic turn every argument into its annotation's type, and imports it for that: 60 ms for ``lab ps``. Text
is text and a default is of its type before that, so only the others (numbers, paths, choices given on the command
line) are left to typer. It has no setting for that; what is replaced here is one public method of its parameters.
Should typer no longer ask it, everything goes typer's way, only slower.
"""

from __future__ import annotations

from typing import Any


def spare(command: Any) -> None:
    """Let the parameters of a command, or of all commands of a group, be taken as they are where that is enough."""
    own = command.get_params
    command.get_params = lambda ctx: spared(own(ctx))  # --help is among them, and made only then
    for below in getattr(command, "commands", {}).values():
        spare(below)


def spared(parameters: list[Any]) -> list[Any]:
    """The same parameters, each of which takes what it is given as it is where that is enough."""
    for parameter in parameters:
        known = getattr(parameter, "type_descriptor", None)
        asked = getattr(parameter, "get_runtime_param", None)
        if known is not None and known.parameter_info.parser is None and not isinstance(asked, _AsItIs):
            parameter.get_runtime_param = _AsItIs(known.annotation, asked)
    return parameters


class _AsItIs:
    """In place of what typer makes to convert a parameter's value, which is made when it is needed."""

    def __init__(self, annotation: Any, made_by_typer: Any) -> None:
        self._annotation, self._made_by_typer = annotation, made_by_typer

    def __call__(self) -> _AsItIs:
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if several and self._annotation == list[str] and all(type(one) is str for one in value):
            return list(value)
        if not several and type(value) is self._annotation:
            return value
        return self._made_by_typer().coerce(value, param=param, ctx=ctx)
