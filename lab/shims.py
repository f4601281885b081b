"""A few things of the standard library's, cheap to import.

`lab-oci` is started anew for every verb, and its caller waits each time. A bare interpreter needs 6 ms; importing
contextlib, signal (for its enumerations) or socket adds 3 ms each, json 4, dataclasses 11. The modules that such a
process imports take these names from here instead: same call, same behaviour, as far as lab uses them.
`lab.record` is the same for data classes.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False  # typing costs 8 ms, and type checkers know this name as well

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from contextlib import ExitStack, suppress
    from json import loads
    from typing import Any

    __all__ = ["ExitStack", "dumps", "loads", "signal", "suppress"]
else:
    import _signal as signal

    class suppress:  # noqa: N801
        """contextlib.suppress."""

        def __init__(self, *errors):
            self._errors = errors

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._errors)

    class ExitStack:
        """contextlib.ExitStack: callbacks and context managers, undone in reverse."""

        def __init__(self):
            self._exits = []

        def enter_context(self, manager):
            value = type(manager).__enter__(manager)
            self._exits.append(lambda *error: type(manager).__exit__(manager, *error))
            return value

        def callback(self, function, /, *arguments, **named):
            def leave(*_error):
                function(*arguments, **named)
                return False

            self._exits.append(leave)
            return function

        def pop_all(self):
            other = type(self)()
            other._exits, self._exits = self._exits, []
            return other

        def close(self):
            self.__exit__(None, None, None)

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            """Every callback runs; what one of them raises is told to the next, and the last of it is raised."""
            current = error
            while self._exits:
                leave = self._exits.pop()
                try:
                    if leave(type(current) if current is not None else None, current, trace):
                        current = None
                except BaseException as raised:
                    current, trace = raised, raised.__traceback__
            if current is not None and current is not error:
                raise current
            return error is not None and current is None

    class _Scanner:
        """What json.decoder.JSONDecoder tells the scanner in C."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int

        @staticmethod
        def parse_constant(name):
            raise ValueError(f"{name} is not JSON")

    def loads(text):
        """json.loads. What is wrong is told by the standard library itself, as a ValueError with the place."""
        if isinstance(text, (bytes, bytearray)):
            text = text.decode()
        space = " \t\n\r"
        begin = len(text) - len(text.lstrip(space))  # not cut off: an error names its place in the whole
        try:
            value, end = _json.make_scanner(_Scanner)(text, begin)
            if not text[end:].strip(space):
                return value
        except (StopIteration, SystemError):  # it has no error of its own as long as nobody has imported json
            pass
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None
        import json

        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None


def dumps(value: Any) -> str:
    """json.dumps, of what JSON has a form for."""
    write: Callable[[Any, int], tuple[str, ...]] = _json.make_encoder(
        {}, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, False
    )
    return "".join(write(value, 0))


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} has no form in JSON")
