"""Build checks: what a Dockerfile says and its author may not mean, under the names that BuildKit gives them.

The parser directive ``# check=skip=RULE,RULE;error=true`` leaves rules out (``skip=all``: every one), or turns what
the others find into an error. Pure, but for telling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.errors import DockerfileError
from lab.images.dockerfile.graph import platform_arguments
from lab.images.dockerfile.instructions import (
    Arg,
    Cmd,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    From,
    HealthCheck,
    Instruction,
    Maintainer,
    Stage,
    Workdir,
)
from lab.images.progress import Progress, Warned

SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credentials?|key|passwd|password|pword|secret|token)(?:_|$)", re.IGNORECASE
)
NO_SECRET = re.compile(r"(?:^|_)public(?:_|$)", re.IGNORECASE)
VARIABLE = re.compile(r"\$(?:\{(\w+)(?!\w|:?[-+?])|(\w+))")


def check(parsed: Dockerfile, progress: Progress) -> None:
    """Tell ``progress`` what is odd. Raises DockerfileError for the first finding under ``error=true``."""
    skipped, fatal = _directive(parsed.directives.get("check", ""))
    if "all" in skipped:
        return
    for found in sorted(findings(parsed), key=lambda one: one.line):
        if found.rule.lower() in skipped:
            continue
        if fatal:
            raise DockerfileError(
                f"{found.rule}: {found.text}", line=found.line, hint=f"mend it, or # check=skip={found.rule}"
            )
        progress(found)


def _directive(text: str) -> tuple[set[str], bool]:
    options = dict(part.strip().lower().partition("=")[::2] for part in text.split(";"))
    return {word.strip() for word in options.get("skip", "").split(",")}, options.get("error") == "true"


def findings(parsed: Dockerfile) -> Iterator[Warned]:
    """Everything the rules find, rule by rule."""
    known = {name for one in parsed.global_arguments for name, _ in one.pairs} | set(platform_arguments())
    names: dict[str, int] = {}
    for stage in parsed.stages:
        yield from _about_from(stage.base, known, names)
        yield from _about_repetition(stage)
        yield from _about_directories(stage)
        for instruction in stage.instructions:
            yield from _about(instruction)
    yield from _about_casing([*parsed.global_arguments, *_all(parsed)])


def _all(parsed: Dockerfile) -> Iterator[Instruction]:
    for stage in parsed.stages:
        yield stage.base
        yield from stage.instructions


def _about_from(base: From, known: set[str], names: dict[str, int]) -> Iterator[Warned]:
    for match in VARIABLE.finditer(f"{base.image} {base.platform}"):
        if (name := match[1] or match[2]) not in known:
            yield Warned(
                line=base.line, rule="UndefinedArgInFrom", text=f"FROM uses {name}, which no ARG before it declares"
            )
    if base.name in names and base.name:
        yield Warned(
            line=base.line,
            rule="DuplicateStageName",
            text=f"{base.name} is a stage in line {names[base.name]} already",
        )
    names.setdefault(base.name, base.line)


def _about_repetition(stage: Stage) -> Iterator[Warned]:
    for kind in (Cmd, Entrypoint, HealthCheck):
        for one in [one for one in stage.instructions if isinstance(one, kind)][:-1]:
            word = one.text.split()[0].upper()
            yield Warned(
                line=one.line, rule="MultipleInstructionsDisallowed", text=f"a later {word} of the stage replaces it"
            )


def _about_directories(stage: Stage) -> Iterator[Warned]:
    absolute = False
    for one in stage.instructions:
        if isinstance(one, Workdir):
            if not absolute and not one.path.startswith(("/", "$")):
                text = f"where WORKDIR {one.path} leads depends on the base image"
                yield Warned(line=one.line, rule="WorkdirRelativePath", text=text)
            absolute = True


def _about(instruction: Instruction) -> Iterator[Warned]:
    line = instruction.line
    match instruction:
        case Maintainer():
            text = "MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=…"
            yield Warned(line=line, rule="MaintainerDeprecated", text=text)
        case Cmd(command=command) | Entrypoint(command=command) if command.in_shell:
            word = instruction.text.split()[0].upper()
            text = f'{word} through a shell gets no signals: {word} ["PROGRAM", "ARGUMENT"]'
            yield Warned(line=line, rule="JSONArgsRecommended", text=text)
        case Env(pairs=pairs) | Arg(pairs=pairs):
            for name, value in pairs:
                if value and SECRET.search(name) and not NO_SECRET.search(name):
                    text = f"{name} looks like a secret, and the image keeps it: RUN --mount=type=secret"
                    yield Warned(line=line, rule="SecretsUsedInArgOrEnv", text=text)
            if isinstance(instruction, Env) and re.fullmatch(
                r"\w+\s+\w+\s[^=]*|\w+\s+[^=\s]+(\s.*)?", instruction.text
            ):
                yield Warned(line=line, rule="LegacyKeyValueFormat", text="ENV NAME VALUE is old: ENV NAME=VALUE")
        case Expose(ports=ports):
            for port in ports:
                if port != port.lower() and "$" not in port:
                    yield Warned(line=line, rule="ExposeProtoCasing", text=f"EXPOSE {port} should be {port.lower()}")
        case _:
            pass


def _about_casing(instructions: list[Instruction]) -> Iterator[Warned]:
    """Each keyword is written as most of them are."""
    words = [(one.line, one.text.split()[0]) for one in instructions]
    upper = sum(word.isupper() for _, word in words)
    most = str.upper if upper * 2 >= len(words) else str.lower
    for line, word in words:
        if word != most(word):
            text = f"{word} is written unlike most others: {most(word)}"
            yield Warned(line=line, rule="ConsistentInstructionCasing", text=text)
