"""Each hand-in read by a process of its own, with limits: one that takes all memory or no end costs itself alone."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lab.classroom.collect.intake import HandIn, runs_in, tidy
from lab.errors import ResultsError

CPU_SECONDS, WALL_SECONDS, MEMORY_BYTES = 60, 180, 4 << 30
"""Of one hand-in; the memory is address space, of which the libraries alone take more than one GiB."""
LONGEST_ANSWER = 4 << 20
PRELOADED = ("lab.classroom.collect.apart", "lab.classroom.collect.told", "scipy.stats")
COULD_NOT = "it took more memory or time than a run takes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A hand-in's runs, by name, as `lab.classroom.collect.told.told` has them; ``refused`` says why there are none,
    or not all.
    """

    name: str
    runs: tuple[tuple[str, dict[str, Any]], ...] = ()
    refused: str = ""


@dataclass(slots=True)
class _Reader:
    context: Any = field(default_factory=lambda: multiprocessing.get_context("forkserver"))

    def read(self, hand_in: HandIn) -> Read:
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_child, args=(str(hand_in.path), theirs), daemon=True)
        with ours:
            process.start()
            theirs.close()
            try:
                answer = json.loads(ours.recv_bytes(LONGEST_ANSWER)) if ours.poll(WALL_SECONDS) else None
            except (EOFError, OSError, ValueError):
                answer = None
            finally:
                process.kill()
                process.join()
        if answer is None:
            return Read(name=hand_in.name, refused=COULD_NOT)
        runs = [(tidy(name), told) for name, told in answer["runs"]]
        names = [
            hand_in.name if len(runs) == 1 or name == hand_in.name else f"{hand_in.name}/{name}" for name, _ in runs
        ]
        return Read(
            name=hand_in.name, refused=answer["refused"],
            runs=tuple((name, told) for name, (_, told) in zip(names, runs, strict=True)),
        )  # fmt: skip


def read_all(found: Sequence[HandIn]) -> Iterator[Read]:
    """Each hand-in, in their order."""
    reader = _Reader()
    reader.context.set_forkserver_preload(list(PRELOADED))
    for each in found:
        yield reader.read(each)


def _child(path: str, answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent hears, and ends this process
    _limit()
    from lab.classroom.collect.told import told

    runs, refused = [], ""
    try:
        for name, files in runs_in(Path(path)):
            try:
                runs.append((name, told(tidy(name), files)))
            except ResultsError as error:
                refused = error.message
    except ResultsError as error:
        refused = error.message
    except MemoryError:
        refused = COULD_NOT
    text = json.dumps({"runs": runs, "refused": tidy(refused, 200)}, allow_nan=False).encode()
    if len(text) > LONGEST_ANSWER:
        text = json.dumps({"runs": [], "refused": COULD_NOT}).encode()
    answer.send_bytes(text)


def _limit() -> None:
    import resource

    for which, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(which)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (soft, soft))
