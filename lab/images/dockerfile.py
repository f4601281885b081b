"""Dockerfiles as data: BuildKit's own parser, then one frozen dataclass per instruction.

Supported: FROM (one stage), RUN, COPY, ADD (local), WORKDIR, ENV, ARG, CMD, ENTRYPOINT, EXPOSE, USER, LABEL.
Anything else is refused by name, with its line: an image that silently lacks what its Dockerfile says is worse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dockerfile as buildkit

from lab.errors import DockerfileError

SHELL = ("/bin/sh", "-c")
NOT_YET = ("HEALTHCHECK", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL", "VOLUME")
SUPPORTED = "FROM, RUN, COPY, ADD, WORKDIR, ENV, ARG, CMD, ENTRYPOINT, EXPOSE, USER, LABEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """``line`` counts from 1; ``text`` is the instruction as written, continuation lines joined."""

    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY and ADD: ``extract`` says that local archives are unpacked."""

    sources: tuple[str, ...]
    destination: str
    chown: str = ""
    chmod: str = ""
    extract: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """``default`` is None where the Dockerfile gives none."""

    name: str
    default: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile. Words are unexpanded: what a variable means depends on the instructions before.

    ``global_arguments`` are the ARGs before FROM; ``escape`` is the escape character, changed by a directive.
    """

    global_arguments: tuple[Arg, ...]
    base: From
    instructions: tuple[Instruction, ...]
    escape: str = "\\"


def read(path: Path) -> Dockerfile:
    """Parse the file. Raises DockerfileError when it is missing, malformed or asks for what is not supported."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise DockerfileError(f"there is no {path}", hint="name one with -f FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DockerfileError(f"can't read {path}: {error}", hint="it must be a UTF-8 text file") from error
    return parse(text)


def parse(text: str) -> Dockerfile:
    """Parse a Dockerfile's text. Raises DockerfileError."""
    try:
        commands = buildkit.parse_string(text)
    except buildkit.GoParseError as error:
        raise DockerfileError(str(error), line=_failing_line(text), hint="see the Dockerfile reference") from None
    instructions = [_instruction(command) for command in commands]
    stages = [one for one in instructions if isinstance(one, From)]
    if not stages:
        raise DockerfileError(
            "no FROM: an image starts from another, or from scratch", hint="FROM debian:bookworm-slim"
        )
    if len(stages) > 1:
        raise DockerfileError(
            "FROM: more than one stage is not supported", line=stages[1].line, hint="build one stage at a time"
        )
    at = instructions.index(stages[0])
    before = instructions[:at]
    if early := [one for one in before if not isinstance(one, Arg)]:
        raise DockerfileError("only ARG may come before FROM", line=early[0].line, hint="move it below FROM")
    directive = re.match(r"(?:#[^\n]*\n)*?#\s*escape\s*=\s*`", text, re.IGNORECASE)
    return Dockerfile(
        global_arguments=tuple(one for one in before if isinstance(one, Arg)),
        base=stages[0],
        instructions=tuple(instructions[at + 1 :]),
        escape="`" if directive else "\\",
    )


def _failing_line(text: str) -> int | None:
    """The parser does not say where it stopped: find the line from which on every longer beginning fails too."""
    lines = text.splitlines(keepends=True)
    failing = None
    for count in range(len(lines), 0, -1):
        try:
            buildkit.parse_string("".join(lines[:count]))
        except buildkit.GoParseError:
            failing = count
        else:
            break
    return failing


def _instruction(command: Any) -> Instruction:
    if not command.cmd:
        raise DockerfileError("a line without an instruction", line=command.start_line, hint="remove it")
    name = command.cmd.upper()
    maker = _MAKERS.get(name)
    if maker is None:
        if name in NOT_YET:
            raise DockerfileError(f"{name} is not supported", line=command.start_line, hint=f"supported: {SUPPORTED}")
        raise DockerfileError(f"unknown instruction {name}", line=command.start_line, hint=f"known: {SUPPORTED}")
    allowed = ("chown", "chmod") if name in ("COPY", "ADD") else ()
    for flag in command.flags:
        if flag.removeprefix("--").partition("=")[0] not in allowed:
            raise DockerfileError(
                f"{name} {flag.partition('=')[0]} is not supported", line=command.start_line, hint="leave it out"
            )
    if not command.value or command.value == ("",):
        raise DockerfileError(
            f"{name} needs an argument", line=command.start_line, hint="see the Dockerfile reference"
        )
    if command.heredocs and name != "RUN":
        raise DockerfileError(
            f"{name} with a here-document is not supported", line=command.start_line, hint="put it into a file"
        )
    return maker(command)


def _common(command: Any) -> dict[str, Any]:
    return {"line": command.start_line, "text": command.original.splitlines()[0].strip()}


def _words(command: Any) -> tuple[str, ...]:
    """Exec form as it is, shell form through the shell."""
    return tuple(command.value) if command.json else (*SHELL, " ".join(command.value))


def _from(command: Any) -> From:
    words = command.value
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError(
            "FROM wants IMAGE or IMAGE AS NAME", line=command.start_line, hint="FROM debian:bookworm"
        )
    return From(image=words[0], **_common(command))


def _run(command: Any) -> Run:
    if not command.heredocs:
        return Run(argv=_words(command), **_common(command))
    documents = command.heredocs
    first = " ".join(command.value)
    if len(documents) == 1 and re.fullmatch(r"<<-?['\"]?" + re.escape(documents[0].name) + r"['\"]?", first):
        script = documents[0].content
        if script.startswith("#!"):
            raise DockerfileError(
                "RUN with an interpreter line in its here-document is not supported",
                line=command.start_line,
                hint="RUN python3 <<EOF",
            )
    else:
        script = first + "\n" + "".join(f"{one.content}{one.name}\n" for one in documents)
    return Run(argv=(*SHELL, script), **_common(command))


def _copy(command: Any) -> Copy:
    name = command.cmd.upper()
    flags = dict(flag.removeprefix("--").split("=", 1) if "=" in flag else (flag[2:], "") for flag in command.flags)
    if len(command.value) < 2:
        raise DockerfileError(
            f"{name} needs a source and a destination", line=command.start_line, hint=f"{name} SOURCE… DESTINATION"
        )
    *sources, destination = command.value
    for source in sources:
        if name == "ADD" and re.match(r"[a-z+]+://|git@", source, re.IGNORECASE):
            raise DockerfileError(
                "ADD of a remote address is not supported", line=command.start_line, hint="fetch it with RUN"
            )
    return Copy(
        sources=tuple(sources),
        destination=destination,
        chown=flags.get("chown", ""),
        chmod=flags.get("chmod", ""),
        extract=name == "ADD",
        **_common(command),
    )


def _arg(command: Any) -> Arg:
    if len(command.value) != 1:
        raise DockerfileError(
            "ARG with several names is not supported", line=command.start_line, hint="one ARG a line"
        )
    name, equals, default = command.value[0].partition("=")
    return Arg(name=name, default=default if equals else None, **_common(command))


def _pairs(command: Any) -> tuple[tuple[str, str], ...]:
    return tuple(zip(command.value[::2], command.value[1::2], strict=True))


_MAKERS: Mapping[str, Callable[[Any], Instruction]] = MappingProxyType(
    {
        "FROM": _from,
        "RUN": _run,
        "COPY": _copy,
        "ADD": _copy,
        "ARG": _arg,
        "WORKDIR": lambda command: Workdir(path=" ".join(command.value), **_common(command)),
        "ENV": lambda command: Env(pairs=_pairs(command), **_common(command)),
        "LABEL": lambda command: Label(pairs=_pairs(command), **_common(command)),
        "CMD": lambda command: Cmd(argv=_words(command), **_common(command)),
        "ENTRYPOINT": lambda command: Entrypoint(argv=_words(command), **_common(command)),
        "EXPOSE": lambda command: Expose(ports=tuple(command.value), **_common(command)),
        "USER": lambda command: User(user=" ".join(command.value), **_common(command)),
    }
)
