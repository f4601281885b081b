"""Arguments that are already what a command wants, taken as they are.

typer has pydantic turn every argument into its annotation's type, and imports it for that: 60 ms for ``lab ps``. Text
is text and a default is of its type before that, so only the others (numbers, paths, choices given on the command
line) are left to typer. Should typer no longer ask what is put in here, everything goes its way, only slower.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin


def spare(command: Any) -> None:
    """Let the parameters of a command, or of all commands of a group, be taken as they are where that is enough."""
    own = command.get_params
    command.get_params = lambda ctx: spared(own(ctx))  # --help is among them, and made only then
    for below in getattr(command, "commands", {}).values():
        spare(below)


def spared(parameters: list[Any]) -> list[Any]:
    """The same parameters, those that typer has not begun to convert taken as they are."""
    for parameter in parameters:
        known = getattr(parameter, "type_descriptor", None)
        if known is not None and known.parameter_info.parser is None and parameter._runtime_param is None:
            parameter._runtime_param = _AsItIs(known.annotation)
    return parameters


class _AsItIs:
    """In place of what typer makes for a parameter (its ``get_runtime_param``)."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if several and _is_list_of_text(self._annotation, value):
            return list(value)
        if not several and isinstance(self._annotation, type) and type(value) is self._annotation:
            return value
        param._runtime_param = None  # typer makes its own now
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _is_list_of_text(annotation: Any, value: Any) -> bool:
    return (
        get_origin(annotation) is list
        and get_args(annotation) == (str,)
        and isinstance(value, list | tuple)
        and all(type(one) is str for one in value)
    )
