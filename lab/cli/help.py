"""The form that all commands share: help under headings, names of values, ``--json[=FILE]``, old names of options.

typer prints an option's Python type where nothing else is said, and has one list for all options unless rich draws
the help, which takes longer to import than the help takes to print. So the rows are typer's, the lists are ours.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from lab.commands.output import Manner
from lab.errors import UsageError

PANELS = {
    "The application": (
        "--port", "--ready", "--load", "--scenario", "--build-arg", "--secret", "--ca", "--env", "--volume",
        "--publish", "--file", "--target", "--ssh", "--label", "--memory", "--cpus", "--pids",
    ),
    "How often, how long": (
        "--blocks", "--budget", "--sessions", "--precision", "--detect", "--seed", "--idle", "--seconds", "--burst",
        "--exclude-noisy", "--resume", "--up-to", "--keep-free",
    ),
    "What is varied": ("--factor", "--factors", "--knob", "--caches", "--ksm", "--kind", "--limits", "--rungs"),
    "What is written": (
        "--out", "--json", "--fail-if", "--open", "--results", "--format", "--calls", "--iidfile", "--tag",
        "--explain", "--progress",
    ),
}  # fmt: skip
"""Which heading of a long help an option stands below; the others stand below "Options"."""

SENTENCE = 1 << 10
"""Letters of the longest sentence in which a help says what a command does: click would cut it at the edge."""

LONG_HELP = 9
"""So many options are one list; more of them get headings."""

RENAMED = {
    "bench self": {"--runs": "--blocks"},
    "isolation ladder": {"--rounds": "--blocks"},
    "isolation surface": {"--rounds": "--blocks"},
}
"""Options by their old names, which are understood for one release, with a warning."""

EVERYWHERE = ("--quiet", "--no-color", "--verbose")
"""Options of `lab` itself that may stand behind a command's name as well, where it has none of that name."""

LENDING = "--ca"
"""One more of these, with a file."""

BOUNDS = (
    (r"([-\d.]+)<=x<=([-\d.]+)", r"\1 to \2"),
    (r"x>=([-\d.]+)", r"at least \1"),
    (r"x<=([-\d.]+)", r"at most \1"),
)
"""What a help says of a number's bounds in typer's words, and in a reader's."""


def speak(*, quiet: bool = False, no_color: bool = False, verbose: bool = False) -> None:
    """Take up what ``--quiet``, ``--no-color`` and ``--verbose`` ask for. The latter two reach a next session."""
    import logging

    if quiet:
        Manner.quiet = True
    if no_color:
        os.environ["NO_COLOR"] = "1"
    if verbose:  # what lab does, not what the libraries below it do
        logging.getLogger("lab").setLevel(logging.DEBUG)


def lend(file: str) -> None:
    """Take up ``--ca FILE``. Raises UsageError for a file that holds no certificate."""
    from lab.images.transfer import trust

    trust.use(file)


def shape(command: Any, path: str) -> None:
    """Give a command, and those below it, the common form. ``path`` is what is typed behind ``lab``."""
    below = getattr(command, "commands", {})
    command.format_options = lambda ctx, formatter: _format_options(command, ctx, formatter)
    own = command.parse_args
    command.parse_args = lambda ctx, args: own(ctx, _rewritten(command, path, ctx, args))
    sentence = command.get_short_help_str
    command.get_short_help_str = lambda limit=SENTENCE: sentence(SENTENCE)
    for name, one in below.items():
        shape(one, f"{path} {name}")


def _format_options(command: Any, ctx: Any, formatter: Any) -> None:
    """A group's commands follow its options, as typer has it."""
    arguments, options = [], []
    for parameter in command.get_params(ctx):
        _name_values(parameter)
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(row)
        else:
            name, text = row
            options.append((_panel_of(parameter.opts), (name.replace(" [=", "[="), _in_words(text, BOUNDS))))
    for heading, rows in (("Arguments", arguments), *_panels(options)):
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)
    if hasattr(command, "format_commands"):
        command.format_commands(ctx, formatter)


def _panel_of(names: Sequence[str]) -> str:
    return next((panel for panel, members in PANELS.items() if set(names) & set(members)), "Options")


def _panels(options: Sequence[tuple[str, tuple[str, str]]]) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    if len(options) <= LONG_HELP:
        return [("Options", [row for _, row in options])]
    return [(panel, [row for where, row in options if where == panel]) for panel in ("Options", *PANELS)]


def _name_values(parameter: Any) -> None:
    """``N`` for a number and ``NAME`` for a word, where typer would show a type of Python's."""
    if parameter.param_type_name == "argument":
        parameter.display_type = lambda ctx: ""
        return
    kind = getattr(parameter, "type_descriptor", None)
    if parameter.metavar is None and kind is not None and not kind.is_choice:
        parameter.metavar = {int: "N", float: "N"}.get(getattr(kind, "annotation", str), "NAME")


def _rewritten(command: Any, path: str, ctx: Any, words: Sequence[str]) -> list[str]:
    """The command's words with old names of options replaced, and with what concerns lab as a whole taken up."""
    if command.context_settings.get("allow_interspersed_args", True) is False:
        return list(words)
    known = {name: parameter for parameter in command.get_params(ctx) for name in parameter.opts}
    old, left = RENAMED.get(path, {}), list(words)
    rest: list[str] = []
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word == "--" or (hasattr(command, "commands") and not word.startswith("-")):
            return [*rest, word, *left]
        if name in old:
            print(f"lab: {name} is called {old[name]} now; the old name goes with the next release", file=sys.stderr)
            rest.append(f"{old[name]}{equals}{value}")
            rest += left[:1] if not equals else []
            del left[: 0 if equals else 1]
        elif word in EVERYWHERE and word not in known:
            speak(**{word.removeprefix("--").replace("-", "_"): True})
        elif name == LENDING and LENDING not in known:
            if not equals and not left:
                raise UsageError(f"{LENDING} wants a file", hint=f"{LENDING} FILE, with certificates in PEM form")
            lend(value if equals else left.pop(0))
        elif word == "--json" and word in known and not known[word].is_flag:
            rest.append(f"--json={_file_behind(command, known.values(), left)}")
        else:
            rest.append(word)
            if (
                word in known
                and word != "--json"
                and known[word].param_type_name == "option"
                and not known[word].is_flag
            ):
                rest += left[:1]  # its value, whatever it looks like
                del left[:1]
    return rest


def _file_behind(command: Any, parameters: Iterable[Any], left: list[str]) -> str:
    """``--json FILE`` is understood where FILE can't be anything else, since the command takes no arguments."""
    free = not hasattr(command, "commands") and all(one.param_type_name != "argument" for one in parameters)
    return left.pop(0) if free and left and not left[0].startswith("-") else "-"


PLAIN = (
    (r"Input should be greater than or equal to ([-\d.]+)", r"it is \1 at least"),
    (r"Input should be less than or equal to ([-\d.]+)", r"it is \1 at most"),
    (r"Input should be a valid (integer|number).*", r"not a number"),
)
"""What the command line's parser says in a program's words, and in a reader's."""


def plain(text: str) -> str:
    """What the command line's parser says, in words for who typed it."""
    return re.sub(r"(-\S+) \(Possible options?: (.*)\)", _alike, _in_words(text, PLAIN))


def _in_words(text: str, table: Iterable[tuple[str, str]]) -> str:
    for words, better in table:
        text = re.sub(words, better, text)
    return text


def _alike(found: re.Match[str]) -> str:
    """An option that is none, and which was meant; the parser takes two for alike that share but their dashes."""
    names = {name.lstrip("-"): name for name in re.split(r",\s*", found[2])}
    meant = near(found[1].lstrip("-"), names)
    for plain_name, name in names.items():
        meant = re.sub(rf"\b{re.escape(plain_name)}\b", name, meant)
    return f"{found[1]}; {meant}" if meant else found[1]


def near(word: str, known: Iterable[str]) -> str:
    """``did you mean: …?``, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=3)
    return f"did you mean {' or '.join(found)}?" if found else ""
