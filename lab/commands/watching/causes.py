"""Why it is time: what a plan names is read, and held against what it was when the last run began."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import lab
from lab.commands.watching.plan import Plan
from lab.errors import ImageError, UsageError
from lab.experiment.scenarios.scenario import locate
from lab.host.command import run
from lab.host.survey import facts
from lab.host.units import format_seconds
from lab.images.store import Store

CHECKOUT = Path(lab.__file__).resolve().parents[1]
ABSENT = "not there"
ANSWER_SECONDS = 60.0


def causes(plan: Plan) -> dict[str, str]:
    """What the plan names, and its state now, in words.

    Raises UsageError for a folder that is no checkout, ScenarioError where there is no such application.
    """
    return dict(_causes(plan))


def _causes(plan: Plan) -> Iterator[tuple[str, str]]:
    if "kernel" in plan.flags:
        yield "kernel", f"{os.uname().release} ({os.uname().version})"
    if "lab" in plan.flags:
        yield "lab", f"{lab.__version__} ({facts.git_revision(CHECKOUT) or 'no checkout'})"
    if "files" in plan.flags:
        yield "files", tree_digest(locate(plan.scenario))
    for name in plan.named.get("packages", ()):
        yield f"package {name}", _package(name)
    for name in plan.named.get("images", ()):
        yield f"image {name}", _image(name)
    for name in plan.named.get("commits", ()):
        if (revision := facts.git_revision((plan.folder / name).resolve())) is None:
            raise UsageError(
                f"{plan.path}: {name} is no checkout of git", hint="when.commits names folders beside it"
            )
        yield f"commit of {name}", revision


def _package(name: str) -> str:
    words = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", "--", name]
    done = run(words, timeout_seconds=ANSWER_SECONDS, check=False)
    status, _, version = done.stdout.decode("utf-8", "replace").partition(" ")
    return version if done.exit_code == 0 and status == "ii" else ABSENT


def _image(name: str) -> str:
    try:
        return Store.view().find(name).digest
    except (ImageError, FileNotFoundError):
        return ABSENT


def tree_digest(folder: Path) -> str:
    """Sixteen hexadecimal digits of all names, types, modes and contents below ``folder``; times don't count."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        digest.update(f"{path.relative_to(folder)}\0{about.st_mode:o}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISLNK(about.st_mode):
            digest.update(os.fsencode(path.readlink()))
        elif stat.S_ISREG(about.st_mode):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        digest.update(b"\0")
    return digest.hexdigest()


def reasons(
    plan: Plan, seen: Mapping[str, str], began: datetime | None, found: Mapping[str, str], now: datetime
) -> list[str]:
    """Why a run is due ``now``, in words; nothing where it is not. ``seen`` is what was found when the last run
    ``began`` (None: there was none).
    """
    if began is None:
        return ["nothing was measured yet"]
    told = [
        f"{name}: {seen.get(name, 'not looked at')} → {state}"
        for name, state in found.items()
        if seen.get(name) != state
    ]
    age = (now - began).total_seconds()
    if plan.every_seconds is not None and age >= plan.every_seconds:
        told.append(f"the last run began {format_seconds(age)} ago")
    if (last := last_clock(plan, now)) is not None and began < last:
        told.append(f"it was {last:%H:%M}")
    return told


def last_clock(plan: Plan, now: datetime) -> datetime | None:
    """The latest of the plan's times of day that is not after ``now``; None without any."""
    days = (now, now - timedelta(days=1))
    times = [datetime.combine(day.date(), each, now.tzinfo) for day in days for each in plan.at]
    return max((each for each in times if each <= now), default=None)
