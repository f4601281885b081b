"""COPY and ADD: which files, from where, to where, and whose; `lab.images.stages.copy_rules` then copies."""

from __future__ import annotations

import os
import posixpath
import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.errors import DockerfileError
from lab.images.dockerfile import flags
from lab.images.dockerfile.expand import expand_document
from lab.images.dockerfile.globs import BadPattern, Patterns
from lab.images.dockerfile.instructions import Copy
from lab.images.stages import copy_rules, copy_sources
from lab.images.stages.copy_rules import Owner, Upper
from lab.images.stages.copy_sources import CopySource, Piece, Selection, Wanted
from lab.images.stages.state import StageState
from lab.images.tree import Tree

DOCUMENT_MODE = 0o644
REMOTE = re.compile(r"[a-z]+://|git@", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A selection, whether it is unpacked, and whether its files keep their owners and times."""

    selection: Selection
    unpack: bool = False
    owned: bool = False
    content: str = field(default="")  # what its key knows instead of the files: a commit


def copy_step(build: StageState, instruction: Copy) -> bool:
    """Add the layer of a COPY or ADD; whether it came from the cache. Raises DockerfileError."""
    with ExitStack() as stack:
        return _Step(build, instruction, stack).run()


class _Step:
    def __init__(self, build: StageState, instruction: Copy, stack: ExitStack) -> None:
        self.build = build
        self.instruction = instruction
        self.line = instruction.line
        self.stack = stack

    def run(self) -> bool:
        instruction = self.instruction
        if instruction.checksum:
            from lab.images.transfer import remote

            remote.check_checksum(instruction.checksum, self.line)
        words = [self.expand(word) for word in (*instruction.sources, instruction.destination)]
        wanted = Wanted(line=self.line, parents=instruction.parents, excludes=self.excludes())
        sources = [*self.documents(), *(one for word in words[:-1] for one in self.sources(word, wanted))]
        if not sources:
            raise DockerfileError(
                f"{instruction.keyword}: nothing matches {' '.join(words[:-1])}", line=self.line,
                hint="paths are relative to the context, not to the Dockerfile",
            )  # fmt: skip
        destination = self.destination(words[-1], len(sources))
        owner = self.owner()
        below = () if instruction.link else self.build.lower()

        def fill(directory: Path) -> None:
            upper = Upper(directory / "upper", below)
            for source in sources:
                upper.begin_source()
                self.put(source, upper, destination, owner, directory)

        content = [
            (one.unpack, one.owned, one.content or copy_sources.digest([one.selection], owned=one.owned))
            for one in sources
        ]
        parts = (destination, owner.who, self.expand(instruction.chmod), content)
        return self.build.layer(instruction.keyword, parts, instruction, fill, independent=instruction.link)

    def expand(self, word: str) -> str:
        return self.build.expand(word, self.instruction)

    def excludes(self) -> Patterns:
        try:
            return Patterns.of([self.expand(one) for one in self.instruction.excludes])
        except BadPattern as error:
            raise DockerfileError(
                f"{self.instruction.keyword} --exclude={error} is no pattern", line=self.line, hint="close the ["
            ) from None

    def destination(self, written: str, count: int) -> str:
        """The absolute path; it ends in a slash where it must be a directory."""
        is_directory = written.endswith(("/", "/.", "/..")) or written in ("", ".", "..")
        if count > 1 and not is_directory:
            raise DockerfileError(
                f"{self.instruction.keyword} of several files needs a directory as its destination",
                line=self.line, hint=f"{written}/",
            )  # fmt: skip
        path = posixpath.normpath(posixpath.join("/", self.build.config.working_directory, written)).lstrip("/")
        return f"/{path}/" if is_directory and path else f"/{path}"

    def owner(self) -> Owner:
        """``--chown`` and ``--chmod``."""
        chmod, chown = self.expand(self.instruction.chmod), self.expand(self.instruction.chown)
        mode = flags.chmod(chmod, self.instruction.keyword, self.line) if chmod else None
        return Owner(who=self.build.owner(chown, self.instruction) if chown else None, mode=mode)

    def put(self, source: _Source, upper: Upper, destination: str, owner: Owner, scratch: Path) -> None:
        who = owner.who or (None if source.owned or source.unpack else (0, 0))
        owner = replace(owner, who=who, keep_times=source.owned or source.unpack)
        try:
            if source.unpack:
                copy_rules.add_archive(source.selection, upper, destination, owner, scratch)
            else:
                copy_rules.copy(source.selection, upper, destination, owner)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise DockerfileError(
                f"{self.instruction.keyword} can't replace {error} by something of another kind", line=self.line,
                hint="choose another destination",
            ) from error  # fmt: skip

    # -- where files come from ---------------------------------------------------------------------------------

    def sources(self, word: str, wanted: Wanted) -> list[_Source]:
        """What one source means: files of the context, a stage or an image, a download, a repository."""
        instruction = self.instruction
        if instruction.is_add and REMOTE.match(word):
            from lab.images.transfer import remote

            if remote.is_git(word):
                return [self.repository(word, wanted)]
            if remote.is_http(word):
                return [self.download(word)]
        if instruction.checksum:
            raise DockerfileError(
                f"ADD --checksum is for downloads, and {word} is none", line=self.line, hint="leave it out"
            )
        place = self.build.place(instruction.stage, self.line)
        unpack = instruction.is_add and instruction.unpack is not False
        return [
            _Source(selection=one, unpack=unpack and copy_rules.is_archive(one), owned=place.owned)
            for one in place.select(word, wanted)
            if one.pieces
        ]

    def documents(self) -> list[_Source]:
        """Here-documents as files called as their delimiters."""
        found = []
        for document in self.instruction.documents:
            text = document.content
            if document.expand:
                escape = self.build.job.parsed.escape
                text = expand_document(text, self.build.variables(), escape=escape, line=self.line)
            file = self.folder() / document.name
            file.write_text(text, encoding="utf-8", errors="surrogateescape")
            file.chmod(DOCUMENT_MODE)
            found.append(_Source(selection=_file(document.name, file)))
        return found

    def download(self, address: str) -> _Source:
        from lab.images.transfer import remote

        found = remote.download(address, self.instruction.checksum, self.build.job.store, self.folder(), self.line)
        if not found.name and self.instruction.destination.endswith("/"):
            raise DockerfileError(
                f"ADD {address}: the address has no file name", line=self.line, hint="end the destination with one"
            )
        selection = _file(found.name, found.path)
        unpack = bool(self.instruction.unpack) and copy_rules.is_archive(selection)
        return _Source(selection=selection, owned=not unpack, unpack=unpack)

    def repository(self, address: str, wanted: Wanted) -> _Source:
        from lab.images.transfer import remote

        keep = self.instruction.keep_git_directory
        folder, commit = remote.clone(
            address, self.folder(), keep_git_directory=keep, line=self.line,
            agent=self.build.job.options.offer.agents.get("default"),
        )  # fmt: skip
        excludes = [self.expand(one) for one in self.instruction.excludes]
        (selection,) = CopySource(Tree([folder]), "the repository").select(".", replace(wanted, parents=False))
        return _Source(selection=selection, content=f"{address} {commit} {keep} {excludes}")

    def folder(self) -> Path:
        """A fresh scratch directory that lives as long as the step."""
        return self.stack.enter_context(self.build.job.store.scratch("source"))


def _file(name: str, path: Path) -> Selection:
    real = os.fsencode(path)
    return Selection(name=name, is_directory=False, pieces=(Piece(target="", real=real, status=os.lstat(real)),))
