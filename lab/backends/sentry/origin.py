"""Where gVisor's program, runsc, comes from: the host, or Debian 13's package, fetched past the host's own releases.

Its package is one static program. It is fetched by the host's apt from where the host gets its Debian, with lists and
cache in a folder of lab's, so that apt's signatures vouch for it and nothing of the host's apt changes; it is kept as
``<home>/programs/runsc-<version>/runsc``. Debian 12's is of 2022, and ended after about a hundred requests.

Source: apt-get(8), apt.conf(5), apt-secure(8), dpkg-deb(1).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab.backends.support.binary import Binary, locate, look_at
from lab.errors import BackendUnavailable, CommandError, LabError, UsageError
from lab.host import private
from lab.host.command import run
from lab.host.home import home
from lab.host.survey.virtualisation import platform
from lab.images.debian import apt
from lab.images.transfer import trust
from lab.images.transfer.trouble import find as find_trouble

PROGRAM, SUITE, RELEASE = "runsc", "trixie", "Debian 13"
OLDEST = 20240729
"""The oldest date in a version that lab was tried with: Debian 13's."""

FOLDER, FETCHING = "programs", ".fetching-"
UPDATE_SECONDS, DOWNLOAD_SECONDS = 300.0, 300.0
DATE = re.compile(r"\b(20\d{6})\b")


def date_of(binary: Binary) -> int:
    """When a runsc was released, as its version tells: 20240729; 0 of what tells no date."""
    found = DATE.search(binary.answers.version)
    return int(found[1]) if found else 0


def trouble(binary: Binary) -> str:
    """Why a program can't be used as gVisor's, in a line; "" of one that can."""
    answers = binary.answers
    if answers.trouble:
        return answers.trouble
    if answers.program != PROGRAM:
        return f"it says {answers.version or 'no version'!r}, and is no {PROGRAM}"
    if (date := date_of(binary)) < OLDEST:
        ended = "; Debian 12's ends after about a hundred requests" if str(date).startswith("2022") else ""
        return f"{answers.version} is older than {OLDEST}, which lab needs{ended}"
    return ""


def installed() -> Binary | None:
    """The host's own, whether it can be used or not."""
    try:
        return look_at(locate(PROGRAM))
    except UsageError:
        return None


def fetched() -> Binary | None:
    """The latest of those that were fetched."""
    known = [look_at(path) for path in (home() / FOLDER).glob(f"{PROGRAM}-*/{PROGRAM}")]
    return max(known, key=date_of, default=None)


def find() -> Binary | None:
    """The one to use: the host's if it is new enough, else one that was fetched; None when there is neither."""
    own = installed()
    if own is not None and not trouble(own):
        return own
    return fetched()


def can_be_fetched() -> bool:
    """Whether the host's apt has a Debian archive to ask."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb") and apt.sources_beyond(SUITE))


def fetch(told: Callable[[str], None]) -> Binary:
    """The one to use, fetched if need be, of which ``told`` gets a sentence before.

    Raises BackendUnavailable where there is no archive to ask, LabError when it can't be had.
    """
    if known := find():
        return known
    sources = apt.sources_beyond(SUITE)
    if not sources:
        raise BackendUnavailable(
            f"this host's apt has no Debian archive to fetch {PROGRAM} from", hint=f"put a {PROGRAM} into PATH"
        )
    place = home() / FOLDER
    private.make_folder(place)
    lock = private.lock_file(place / ".lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in place.glob(f"{FETCHING}*"):  # by one that was killed: nobody else fetches now
            shutil.rmtree(abandoned)
        if known := find():
            return known
        told(f"lab: fetching {RELEASE}'s {PROGRAM}, gVisor's program, into {place}: once, the host stays as it is")
        with tempfile.TemporaryDirectory(prefix=FETCHING, dir=place) as folder:
            return _fetch(sources, Path(folder), place)
    finally:
        os.close(lock)


def _fetch(sources: str, scratch: Path, place: Path) -> Binary:
    options = _prepare(sources, scratch)
    try:
        _apt(scratch, [*options, "update", "--quiet"], UPDATE_SECONDS)
        _apt(scratch, [*options, "download", "--quiet", PROGRAM], DOWNLOAD_SECONDS)
    except CommandError as error:
        if (found := find_trouble(error.detail)) is None:
            raise
        raise LabError(f"{PROGRAM} could not be fetched: {found.what}", hint=found.hint, detail=found.line) from error
    (package,) = scratch.glob("*.deb")
    version = run(["dpkg-deb", "--field", package, "Version"], timeout_seconds=30).stdout.decode().strip()
    run(["dpkg-deb", "--extract", package, scratch / "root"], timeout_seconds=60)
    made, wanted = scratch / "made", place / f"{PROGRAM}-{version.replace('/', '-')}"
    made.mkdir(mode=private.FOLDER)
    shutil.copy(scratch / "root/usr/bin" / PROGRAM, made / PROGRAM)
    shutil.copy(scratch / "root/usr/share/doc" / PROGRAM / "copyright", made / "copyright")
    if why := trouble(look_at(made / PROGRAM)):
        raise LabError(f"{RELEASE}'s {PROGRAM} can't be used: {why}", hint="lab doctor --on gvisor")
    made.rename(wanted)
    return look_at(wanted / PROGRAM)


def _prepare(sources: str, scratch: Path) -> list[str]:
    """apt's options for lists and a cache of its own; nothing is written below /var."""
    for folder in ("state/lists/partial", "cache/archives/partial", "sources"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources" / "debian.sources").write_text(sources)
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": os.devnull,
        "Dir::Etc::sourceparts": scratch / "sources",
        "Dir::Etc::preferencesparts": os.devnull,
        "Dir::Etc::preferences": os.devnull,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the folder is the owner's alone
    }
    if (bundle := trust.write(scratch)) is not None:
        settings["Acquire::https::CaInfo"] = bundle
    return [f"--option={name}={value}" for name, value in settings.items()]


def _apt(scratch: Path, words: list[str], timeout_seconds: float) -> None:
    run(
        ["setpriv", "--pdeathsig=KILL", "apt-get", *words],
        timeout_seconds=platform().patience * timeout_seconds,
        called="apt-get",
        directory=scratch,
        hint="check that `apt-get update` works on this host",
    )
