"""Dockerfiles as data: BuildKit's own parser, then one frozen dataclass per instruction, in stages.

What an instruction can't mean, whatever its variables hold, is refused here, with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dockerfile as buildkit

from lab.errors import DockerfileError
from lab.images.dockerfile import flags
from lab.images.dockerfile.instructions import (
    Arg,
    Cmd,
    Command,
    Copy,
    Dockerfile,
    Document,
    Entrypoint,
    Env,
    Expose,
    From,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)  # fmt: skip

__all__ = ["Copy", "Dockerfile", "From", "Instruction", "Run", "Stage", "parse", "parse_trigger", "read"]

REFERENCE = "see the Dockerfile reference"
DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
KNOWN_DIRECTIVES = ("syntax", "escape", "check")
STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
HEREDOC = re.compile(r"\d*<<(-?)\s*(['\"]?)([^<>'\"\s]+)\2")
NOT_IN_TRIGGERS = (OnBuild, From, Maintainer)

Options = Mapping[str, list[str]]
FLAGS: Mapping[str, Mapping[str, str]] = {
    "FROM": {"platform": "value"},
    "RUN": {"mount": "many", "network": "value", "security": "value"},
    "COPY": {
        "from": "value", "chown": "value", "chmod": "value", "link": "switch", "parents": "switch", "exclude": "many",
    },
    "ADD": {
        "chown": "value", "chmod": "value", "link": "switch", "exclude": "many", "checksum": "value",
        "keep-git-dir": "switch", "unpack": "switch",
    },
    "HEALTHCHECK": {
        "interval": "value", "timeout": "value", "start-period": "value", "start-interval": "value",
        "retries": "value",
    },
}  # fmt: skip


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
    directives = _directives(text)
    instructions = [_instruction(command) for command in _commands(text)]
    first = next((at for at, one in enumerate(instructions) if isinstance(one, From)), len(instructions))
    before = [one for one in instructions[:first] if isinstance(one, Arg)]
    if len(before) < first:
        early = next(one for one in instructions[:first] if not isinstance(one, Arg))
        raise DockerfileError("only ARG may come before FROM", line=early.line, hint="move it below FROM")
    if first == len(instructions):
        raise DockerfileError(
            "no FROM: an image starts from another, or from scratch", hint="FROM debian:bookworm-slim"
        )
    stages: list[Stage] = []
    for one in instructions[first:]:
        if isinstance(one, From):
            stages.append(Stage(number=len(stages), base=one, instructions=()))
        else:
            last = stages[-1]
            stages[-1] = Stage(number=last.number, base=last.base, instructions=(*last.instructions, one))
    return Dockerfile(global_arguments=tuple(before), stages=tuple(stages), directives=directives)


def parse_trigger(text: str, line: int) -> Instruction:
    """An ONBUILD's instruction, as the image built from it carries it out, at ``line``. Raises DockerfileError."""
    try:
        commands = _commands(text)
        if len(commands) != 1:
            raise DockerfileError("that is not one instruction")
        found = _instruction(commands[0])
    except DockerfileError as error:
        raise DockerfileError(f"ONBUILD {text}: {error.what}", line=line, hint=REFERENCE) from None
    if isinstance(found, NOT_IN_TRIGGERS):
        raise DockerfileError(f"ONBUILD {text.split()[0].upper()} is not allowed", line=line, hint=REFERENCE)
    return found


def _commands(text: str) -> Any:
    try:
        return buildkit.parse_string(text)
    except buildkit.GoParseError as error:
        what = re.sub(r"^.*parse error (on|at) line \d+: ", "", " ".join(str(error).split()), flags=re.IGNORECASE)
        raise DockerfileError(what, line=_failing_line(text), hint=REFERENCE) from None
    except UnicodeDecodeError:  # the parser takes a byte for a space, and gives half a letter: HEALTHCHECK à
        what = "a word can't be read: HEALTHCHECK begins with CMD, NONE or an option"
        raise DockerfileError(what, line=_failing_line(text), hint=REFERENCE) from None


def _failing_line(text: str) -> int | None:
    """The parser does not say where it stopped: find the line from which on every longer beginning fails too."""
    lines = text.splitlines(keepends=True)
    failing = None
    for count in range(len(lines), 0, -1):
        try:
            buildkit.parse_string("".join(lines[:count]))
        except (buildkit.GoParseError, UnicodeDecodeError):
            failing = count
        else:
            break
    return failing


def _directives(text: str) -> dict[str, str]:
    """The parser directives: comments ``# name=value`` at the very top, until the first line that is none."""
    found: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").splitlines():
        match = DIRECTIVE.fullmatch(line.strip())
        if match is None or match[1].lower() not in KNOWN_DIRECTIVES:
            break
        found[match[1].lower()] = match[2]
    return found


# -- one instruction -------------------------------------------------------------------------------------------


def _instruction(command: Any) -> Instruction:
    if not command.cmd:
        raise DockerfileError("a line without an instruction", line=command.start_line, hint="remove it")
    name, line = command.cmd.upper(), command.start_line
    maker = _MAKERS.get(name)
    if maker is None:
        raise DockerfileError(f"unknown instruction {name}", line=line, hint=f"known: {', '.join(_MAKERS)}")
    if name == "ONBUILD":  # the options are the trigger's
        return maker(command, {})
    options = flags.split(command.flags, FLAGS.get(name, {}), name, line)
    may_be_empty = command.json and name in ("CMD", "ENTRYPOINT")
    if tuple(command.value) in ((), ("",)) and not may_be_empty:
        raise DockerfileError(f"{name} needs an argument", line=line, hint=REFERENCE)
    if command.heredocs and name not in ("RUN", "COPY", "ADD"):
        raise DockerfileError(f"{name} takes no here-document", line=line, hint="RUN, COPY and ADD do")
    return maker(command, options)


def _common(command: Any) -> dict[str, Any]:
    return {"line": command.start_line, "text": " ".join(command.original.split("\n")[0].split())}


def _single(options: Options, name: str) -> str:
    return options.get(name, [""])[0]


def _command(command: Any) -> Command:
    if command.json:
        return Command(words=tuple(command.value), in_shell=False)
    return Command(words=(" ".join(command.value),), in_shell=True)


def _from(command: Any, options: Options) -> From:
    words, line = command.value, command.start_line
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM wants IMAGE or IMAGE AS NAME", line=line, hint="FROM debian:bookworm")
    name = words[2].lower() if len(words) == 3 else ""
    if name and (not STAGE_NAME.fullmatch(name) or name == "scratch"):
        raise DockerfileError(
            f"{words[2]!r} can't be a stage's name", line=line, hint="a letter, then letters, digits, - _ and ."
        )
    return From(image=words[0], name=name, platform=_single(options, "platform"), **_common(command))


def _documents(command: Any) -> tuple[Document, ...]:
    """The here-documents with what their delimiters say: ``-`` strips leading tabs, quotes stop expansion. One is the
    name of a file, and no path.
    """
    found = []
    delimiters = {match[3]: match for match in HEREDOC.finditer(command.original.split("\n")[0])}
    for one in command.heredocs:
        if "/" in one.name or "\0" in one.name or one.name in ("", ".", ".."):
            raise DockerfileError(
                f"{one.name!r} can't name a here-document", line=command.start_line, hint="a file's name: <<EOF"
            )
        match = delimiters.get(one.name)
        content = re.sub(r"^\t+", "", one.content, flags=re.MULTILINE) if match and match[1] else one.content
        found.append(Document(name=one.name, content=content, expand=not (match and match[2])))
    return tuple(found)


def _run(command: Any, options: Options) -> Run:
    line = command.start_line
    if "security" in options:
        raise DockerfileError(
            "RUN --security is not supported", line=line, hint="lab confines every step the same way; leave it out"
        )
    network = _single(options, "network") or "default"
    if network not in ("none", "default"):
        hint = "none or default, which is the host's network already"
        raise DockerfileError(f"RUN --network={network} is not supported", line=line, hint=hint)
    mounts = tuple(flags.mount(text, line) for text in options.get("mount", []))
    whole, script = _command(command), None
    if documents := _documents(command):
        written = whole.words[0]
        if HEREDOC.fullmatch(written.strip()):
            script = documents[0] if documents[0].content.startswith("#!") else None
            for_shell = f"/dev/pipes/{documents[0].name}" if script else documents[0].content
        else:
            for_shell = written + "".join(f"\n{one.content}{one.name}" for one in command.heredocs) + "\n"
        whole = Command(words=(for_shell,), in_shell=True)
    return Run(command=whole, mounts=mounts, network=network, script=script, **_common(command))


def _copy(command: Any, options: Options) -> Copy:
    name, line = command.cmd.upper(), command.start_line
    if len(command.value) < 2:
        raise DockerfileError(
            f"{name} needs a source and a destination", line=line, hint=f"{name} SOURCE… DESTINATION"
        )
    *sources, destination = command.value
    documents = _documents(command)
    names = {one.name for one in documents}
    plain = [word for word in sources if not ((match := HEREDOC.fullmatch(word)) and match[3] in names)]
    return Copy(
        sources=tuple(plain),
        documents=documents,
        destination=destination,
        is_add=name == "ADD",
        stage=_single(options, "from"),
        chown=_single(options, "chown"),
        chmod=_single(options, "chmod"),
        link=_single(options, "link") == "true",
        parents=_single(options, "parents") == "true",
        excludes=tuple(options.get("exclude", ())),
        checksum=_single(options, "checksum"),
        keep_git_directory=_single(options, "keep-git-dir") == "true",
        unpack=_single(options, "unpack") == "true" if "unpack" in options else None,
        **_common(command),
    )


def _arg(command: Any, options: Options) -> Arg:
    pairs = []
    for word in command.value:
        name, equals, default = word.partition("=")
        if not name:
            raise DockerfileError("ARG has an empty name", line=command.start_line, hint="ARG NAME=DEFAULT")
        pairs.append((name, default if equals else None))
    return Arg(pairs=tuple(pairs), **_common(command))


def _pairs(command: Any) -> tuple[tuple[str, str], ...]:
    pairs = tuple(zip(command.value[::2], command.value[1::2], strict=True))
    if any(not name for name, _ in pairs):
        raise DockerfileError(f"{command.cmd.upper()} has an empty name", line=command.start_line, hint="NAME=VALUE")
    return pairs


def _shell(command: Any, options: Options) -> Shell:
    if not command.json:
        raise DockerfileError(
            "SHELL wants its words as a JSON list", line=command.start_line, hint='SHELL ["/bin/bash", "-c"]'
        )
    return Shell(argv=tuple(command.value), **_common(command))


def _healthcheck(command: Any, options: Options) -> HealthCheck:
    kind, *words = command.value
    line = command.start_line
    if kind.upper() == "NONE":
        if words or options:
            raise DockerfileError("HEALTHCHECK NONE takes nothing else", line=line, hint="HEALTHCHECK NONE")
        test: tuple[str, ...] = ("NONE",)
    elif kind.upper() != "CMD" or not words or words == [""]:
        raise DockerfileError("HEALTHCHECK wants CMD COMMAND or NONE", line=line, hint="HEALTHCHECK CMD true")
    else:
        test = ("CMD", *words) if command.json else ("CMD-SHELL", " ".join(words))
    return HealthCheck(check=flags.healthcheck(options, test, line), **_common(command))


def _onbuild(command: Any, options: Options) -> OnBuild:
    trigger = re.sub(r"^\s*onbuild\s*", "", command.original.strip(), flags=re.IGNORECASE)
    if not trigger:
        raise DockerfileError("ONBUILD needs an instruction", line=command.start_line, hint=REFERENCE)
    parse_trigger(trigger, command.start_line)
    return OnBuild(trigger=trigger, **_common(command))


def _stop_signal(command: Any, options: Options) -> StopSignal:
    if len(" ".join(command.value).split()) != 1:
        raise DockerfileError("STOPSIGNAL wants one signal", line=command.start_line, hint="STOPSIGNAL SIGTERM")
    return StopSignal(signal=command.value[0], **_common(command))


def _volume(command: Any, options: Options) -> Volume:
    if not all(command.value):
        raise DockerfileError("VOLUME has an empty path", line=command.start_line, hint="VOLUME /data")
    return Volume(paths=tuple(command.value), **_common(command))


_MAKERS: Mapping[str, Callable[[Any, Options], Instruction]] = MappingProxyType(
    {
        "FROM": _from,
        "RUN": _run,
        "COPY": _copy,
        "ADD": _copy,
        "ARG": _arg,
        "WORKDIR": lambda command, _: Workdir(path=" ".join(command.value), **_common(command)),
        "ENV": lambda command, _: Env(pairs=_pairs(command), **_common(command)),
        "LABEL": lambda command, _: Label(pairs=_pairs(command), **_common(command)),
        "CMD": lambda command, _: Cmd(command=_command(command), **_common(command)),
        "ENTRYPOINT": lambda command, _: Entrypoint(command=_command(command), **_common(command)),
        "EXPOSE": lambda command, _: Expose(ports=tuple(command.value), **_common(command)),
        "USER": lambda command, _: User(user=" ".join(command.value), **_common(command)),
        "VOLUME": _volume,
        "STOPSIGNAL": _stop_signal,
        "SHELL": _shell,
        "HEALTHCHECK": _healthcheck,
        "ONBUILD": _onbuild,
        "MAINTAINER": lambda command, _: Maintainer(name=" ".join(command.value), **_common(command)),
    }
)
