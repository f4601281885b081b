"""The instructions of a Dockerfile, a frozen dataclass each, as they are written: nothing is expanded yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.model import Healthcheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """``line`` counts from 1; ``text`` is the instruction as written, continuation lines joined."""

    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A here-document: ``expand`` says that variables in it are replaced, as its delimiter was not quoted."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What RUN, CMD and ENTRYPOINT are given: the words themselves, or one line for the shell."""

    words: tuple[str, ...]
    in_shell: bool

    def argv(self, shell: tuple[str, ...]) -> tuple[str, ...]:
        """What is executed, with the SHELL in force."""
        return (*shell, *self.words) if self.in_shell else self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """``name`` is what later instructions call the stage, in lower case; "" when they can't."""

    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One ``RUN --mount``: its keys as written, ``type`` among them."""

    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """``script`` is a here-document with an interpreter line, executed as a file."""

    command: Command
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    script: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY and ADD. ``is_add``: archives are unpacked, addresses fetched. ``stage`` is ``--from``."""

    sources: tuple[str, ...]
    destination: str
    documents: tuple[Document, ...] = ()
    is_add: bool = False
    stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_directory: bool = False
    unpack: bool | None = None

    @property
    def keyword(self) -> str:
        """The instruction's own name."""
        return "ADD" if self.is_add else "COPY"


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
    """``pairs`` are names and defaults; None where the Dockerfile gives none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Instruction):
    check: Healthcheck


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """``trigger`` is an instruction's text, for the image that is built from this one."""

    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and what follows it. ``number`` counts from 0, as ``COPY --from`` does."""

    number: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def title(self) -> str:
        """Its name, or ``stage-N``, as BuildKit shows it."""
        return self.base.name or f"stage-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile. Words are unexpanded: what a variable means depends on the instructions before.

    ``global_arguments`` are the ARGs before the first FROM; ``directives`` the parser directives, by lower-case name.
    """

    global_arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    directives: Mapping[str, str] = field(default_factory=dict)

    @property
    def escape(self) -> str:
        """The escape character."""
        return self.directives.get("escape", "\\")
