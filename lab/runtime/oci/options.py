"""A command line as callers of runc write it: ``--bundle X``, ``--bundle=X``, ``-b X``, ``-bundle X``.

Options end at the first word that is none, since what follows may be a command with options of its own.
"""

from __future__ import annotations

from lab.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FLAG = "flag"
VALUE = "value"
LIST = "list"  # may be repeated

Known = dict[str, str]
"""What a verb accepts: every spelling of a name, the long one first ("bundle b"), and its kind."""

TRUE, FALSE = ("", "true", "1", "t"), ("false", "0", "f")


class Arguments:
    """What was given: options by their long name, and the words behind them."""

    def __init__(self, verb: str, given: Mapping[str, list[str]], words: list[str]) -> None:
        self.verb = verb
        self.given = given
        self.words = words

    def flag(self, name: str) -> bool:
        return self.value(name, "false") not in FALSE

    def value(self, name: str, default: str = "") -> str:
        """The last one counts."""
        return self.given[name][-1] if name in self.given else default

    def values(self, name: str) -> list[str]:
        return self.given.get(name, [])

    def number(self, name: str) -> int | None:
        """Raises UsageError for what is no integer."""
        if name not in self.given:
            return None
        try:
            return int(self.value(name))
        except ValueError:
            raise UsageError(f"--{name} {self.value(name)}: not an integer") from None

    def only_word(self, what: str) -> str:
        """The one word there must be. Raises UsageError."""
        if len(self.words) != 1:
            raise UsageError(f"{self.verb} takes exactly one {what}, not {len(self.words)}")
        return self.words[0]


def parse(verb: str, known: Known, words: list[str]) -> Arguments:
    """Raises UsageError for an option that ``verb`` doesn't have, or that misses its value."""
    spelled = {name: names.split()[0] for names in known for name in names.split()}
    kinds = {names.split()[0]: kind for names, kind in known.items()}
    given: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name not in spelled:
            raise UsageError(f"{verb} has no option {word.partition('=')[0]}", hint=f"lab-oci {verb} --help".strip())
        name = spelled[name]
        if kinds[name] == FLAG:
            if value not in TRUE + FALSE:
                raise UsageError(f"--{name} is true or false, not {value}")
        elif not equals:
            if not rest:
                raise UsageError(f"--{name} needs a value")
            value = rest.pop(0)
        given.setdefault(name, []).append(value)
    return Arguments(verb, given, rest)
