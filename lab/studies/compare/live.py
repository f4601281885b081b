"""The report that grows beside a measurement: who writes it, how often, and in whose browser it is shown."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lab.errors import LabError
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.host.command import run
from lab.host.identity import privilege
from lab.host.units import format_seconds

SHARE = 0.1
"""Of the time of a run that may go into writing its page: where blocks are short, not each is followed by one."""
SOON_SECONDS = 30.0
"""A page that the report itself replaces within so long is not written, unless somebody waits to be shown one."""
LONGEST_SECONDS = 120.0
RELOADED_SECONDS = (5.0, 60.0)
"""How often a browser looks again, at least and at most."""


class Growing:
    """Called after each block, when nothing is measured. What goes wrong here is told once, and harms no run."""

    def __init__(self, folder: Path, watch: Watch, show: Callable[[Path], bool] | None = None) -> None:
        """``show`` opens a page, or says by False that it can't; None where nobody asked for that."""
        self.folder = folder
        self.watch = watch
        self.show = show
        self.began = self.wrote = now()
        self.took = 0.0
        self.failed = self.told = False

    def __call__(self, block_seconds: float, seconds_left: float) -> None:
        """Write the page, if that is no more than a small share of the time since it was written last. The report
        itself follows in ``seconds_left``: shortly before it is of no use, unless somebody waits to be shown one.
        """
        started = now()
        if seconds_left < SOON_SECONDS and (self.told or self.show is None):
            return
        if self.failed or (self.told and self.took > SHARE * (started - self.wrote)):
            return
        self.watch.doing("writing the report so far")
        least, most = RELOADED_SECONDS
        if not self._write(min(most, max(least, block_seconds))):
            return
        self.wrote, self.took = now(), now() - started
        if not self.told:
            self.told = True
            self._tell(self.folder / "report.html")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A page that was left behind by an error or Ctrl-C must not say that it is still growing."""
        if kind is not None and self.told:
            self._write(0)

    def _write(self, seconds: float) -> bool:
        argv = [sys.executable, "-m", "lab.studies.compare.report.growing", str(self.folder), f"{seconds:.0f}"]
        try:
            run(argv, timeout_seconds=LONGEST_SECONDS)
        except LabError as error:
            self.failed = True
            self.watch.note(f"the report can't be written while it is measured: {error.message}")
            return False
        return True

    def _tell(self, page: Path) -> None:
        self.watch.note(f"a first picture after {format_seconds(now() - self.began)}, and growing: {page}")
        if self.show is not None and not self.show(page):
            self.watch.note("no browser could be opened here: open that file in one, where you are")


def open_page(page: Path) -> bool:
    """Show ``page`` in the browser of the user who sits there; whether that was tried. Root never runs a browser:
    called by sudo, it is the caller's, on the caller's display.
    """
    opener = shutil.which("xdg-open")
    identity = _caller() if privilege.is_system_wide() else {}
    if opener is None or identity is None:
        return False
    uid = int(identity.get("user", privilege.user_id()))
    display = _display(uid)
    if not display or not _can_read(page, identity):
        return False
    environment = {"PATH": os.defpath, "HOME": pwd.getpwuid(uid).pw_dir, "LANG": "C.UTF-8"} | display
    subprocess.Popen(
        [opener, page.resolve().as_uri()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True, cwd="/", **identity,
    )  # fmt: skip
    return True


def _caller() -> dict[str, Any] | None:
    """The user who called sudo, as subprocess wants it; None when that is nobody but root."""
    word = os.environ.get("SUDO_UID", "")
    try:
        known = pwd.getpwuid(int(word))
    except (ValueError, KeyError):
        return None
    return {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []} if known.pw_uid else None


def _display(uid: int) -> dict[str, str]:
    """Where that user's windows appear; empty where none can. sudo takes some of it out of the environment."""
    runtime = Path(f"/run/user/{uid}")
    found = {name: os.environ[name] for name in ("DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY") if os.environ.get(name)}
    if "WAYLAND_DISPLAY" not in found and (runtime / "wayland-0").exists():
        found["WAYLAND_DISPLAY"] = "wayland-0"
    if not {"DISPLAY", "WAYLAND_DISPLAY"} & found.keys():
        return {}
    if runtime.is_dir():
        found |= {"XDG_RUNTIME_DIR": str(runtime), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}
    return found


def _can_read(page: Path, identity: dict[str, Any]) -> bool:
    done = subprocess.run(["test", "-r", page.resolve()], check=False, cwd="/", **identity)
    return bool(done.returncode == 0)
