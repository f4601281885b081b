"""Can somebody outside tell it something, past all that should part them? Tried for real, with a message."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from lab.errors import LabError
from lab.host.command import run
from lab.images.tree import Tree
from lab.inside import build
from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Probe,
    Reply,
    Severity,
    Signal,
    expect,
    expectations,
    on_whose_kernel,
)

PAGES = 64
WRONG_PAGES = 4
"""So many may have been read or dropped meanwhile; that 60 of 64 agree by chance has a probability of 4e-14."""

MOST_FILES_TRIED = 8
ANYBODY_EXECUTES = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class PageCacheChannel(Probe):
    """Beforehand, a process on the host drops a file of the image from memory, and reads some of its first 64 pages
    again, drawn at random. mincore(2) tells inside which pages are in memory: if those, then 64 bits went
    across, and any other instance of the image could have sent them.
    """

    id = "page-cache-channel"
    question = "Can a neighbour signal it through cached pages?"
    group = Group.TIME
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    pages = ("mincore(2)", "posix_fadvise(2)")
    expected = expectations(
        bare=expect(Answer.YES, because="the image's files are files of the host's kernel"),
        container=expect(Answer.YES, because="instances of one image share its layers' files, and so their pages"),
        user_namespace=expect(
            Answer.YES,
            Answer.NO,
            because="it shares the layers' files, but older kernels tell its root nothing of them: they judge by the "
            "owner on the disk, not by the one that the mapped layer shows",
        ),
        own_kernel=expect(Answer.NO, because="the guest's kernel keeps pages of its own"),
    )
    surprise = (
        "“no” from a container: its files are copies, or lie on a disk of its own, or another root than their owner "
        "asks, whom mincore(2) tells nothing. A machine's disk is a file in the host's page cache, too: how fast the "
        "first read is would tell, which is not asked."
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"resident {self._sent(context).path} {PAGES}", BOOT_ID)

    def control_lines(self, context: Context) -> Sequence[str]:
        return (f"resident {self._sent(context).real} {PAGES}", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        sent, got = self._sent(context), str(seen[0]["resident"])
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"mincore of {sent.path}: {seen[0]['name']}")
        right = sum(mine == theirs for mine, theirs in zip(sent.pages, got, strict=True))
        evidence = f"{sent.path}: {right} of {PAGES} pages are as the host's process left them; half would be chance"
        if right < PAGES - WRONG_PAGES:
            if got == "1" * PAGES:
                evidence += "; mincore(2) claims all of them to be in memory, as to whoever may not write to the file"
            return Found(answer=Answer.NO, evidence=evidence, value=float(right))
        answer = on_whose_kernel(seen[1], host[1])
        return Found(answer=answer, evidence=evidence, value=float(right))

    @staticmethod
    def _sent(context: Context) -> Signal:
        if context.signal is None:
            raise Inconclusive(f"the image has no file of {PAGES} pages that nobody uses")
        return context.signal


def leave_signal(layers: Sequence[Path]) -> Signal | None:
    """Leave a message in which pages of a file of the image are in memory; None when no file of it would do.

    ``layers`` are the image's, the top one first. Nothing is lost but a reader's time, for what was dropped is read
    again.
    """
    for path, real in islice(_large_files(layers), MOST_FILES_TRIED):
        try:
            _drop(real)
            if "1" in _resident(real):  # mapped by somebody, or on a file system that is memory
                continue
            wanted = format(secrets.randbits(PAGES), f"0{PAGES}b")
            _read(real, wanted)
        except (OSError, LabError):
            continue
        return Signal(path=path, real=real, pages=wanted)
    return None


def _large_files(layers: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Files of enough pages that are no programs, which would be running: paths inside and on the host."""
    least = PAGES * os.sysconf("SC_PAGESIZE")
    for entry in Tree(layers).walk():
        if entry.is_file and entry.status.st_size >= least and not entry.status.st_mode & ANYBODY_EXECUTES:
            inside, real = f"/{os.fsdecode(entry.path)}", os.fsdecode(entry.real)
            if len((inside + real).split()) == 1:  # `inside batch` parts its words at spaces
                yield inside, real


def _drop(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(handle)  # what is not on the disk yet can't be dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _read(path: str, wanted: str) -> None:
    """Exactly the pages with a 1: without reading ahead."""
    size = os.sysconf("SC_PAGESIZE")
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        for page in (page for page, bit in enumerate(wanted) if bit == "1"):
            os.pread(handle, 1, page * size)
    finally:
        os.close(handle)


def _resident(path: str) -> str:
    reply = json.loads(run([build.program(), "resident", path, str(PAGES)], timeout_seconds=20.0).stdout)
    return str(reply["resident"])
