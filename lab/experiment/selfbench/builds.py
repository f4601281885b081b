"""``lab build`` beside ``buildah bud``: the web-app scenario on the same base, whole commands, in the same rounds.

Cold means that every step runs although the base is there; cached, that nothing has changed since the last build.
Both are started anew each time. buildah has a storage of its own with the base in it, and builds in a mount namespace
of its own, so that its mounts are never the host's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from lab.errors import CommandError
from lab.experiment.scenarios.scenario import SHIPPED
from lab.experiment.selfbench.containers import Results, interleave, spawn
from lab.experiment.watch import Watch
from lab.host.command import run
from lab.images.store import Store

SCENARIO = "web-app"
BASE = "python:3.11-slim"
IMAGE = "lab/selfbench-build:latest"
COPY = "lab/selfbench-base:latest"  # with a history, which buildah demands of whatever it builds on
IMPORT_SECONDS = 300.0
PRIVATE = ("unshare", "--mount", "--propagation", "private")


def measure_builds(store: Store, results: Results, rounds: int, watch: Watch) -> None:
    """Cold and cached builds, ``rounds`` times each. Raises CommandError when buildah or the base is missing."""
    for program in ("buildah", "skopeo"):
        if shutil.which(program) is None:
            raise CommandError(f"{program} is not installed", hint=f"apt-get install {program}")
    if BASE not in store:
        raise CommandError(f"the base {BASE} is not in the store", hint=f"lab build {SCENARIO}")
    with store.scratch("selfbench") as folder:
        watch.doing("builds: giving buildah the base")
        buildah = _Buildah(folder)
        try:
            base = store.find(BASE)
            store.add_image(COPY, config=base.config, layers=base.layers, origin=base.origin)
            buildah.take(store, COPY, BASE)
            found = interleave(
                _contenders(buildah, folder), rounds, results.seed, lambda text: watch.doing(f"builds: {text}")
            )
        finally:
            store.untag({IMAGE, COPY})
    results.add("build cold", f"lab build {SCENARIO} --no-cache", found["lab cold"])
    results.add("buildah cold", "buildah bud --isolation chroot --no-cache", found["buildah cold"])
    results.add("build cached", f"lab build {SCENARIO}, nothing changed", found["lab cached"])
    results.add("buildah cached", "buildah bud --isolation chroot, nothing changed", found["buildah cached"])


def _contenders(buildah: _Buildah, folder: Path) -> dict[str, Callable[[], float]]:
    # a copy: a checkout may belong to somebody else, and hold what a first run left there
    context = folder / "context"
    shutil.copytree(SHIPPED / SCENARIO, context)
    lab = [str(Path(sys.executable).with_name("lab")), "build", str(context), "-t", IMAGE]
    return {
        "lab cold": lambda: spawn([*lab, "--no-cache"]),
        "lab cached": lambda: spawn(lab),
        "buildah cold": lambda: spawn(buildah.words("--no-cache", context)),
        "buildah cached": lambda: spawn(buildah.words("--layers", context)),
    }


class _Buildah:
    """buildah with a storage in one folder, on overlayfs as Debian has it by default."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "storage"
        self._run = folder / "run"

    def words(self, mode: str, context: Path) -> list[str]:
        """A build that keeps its layers, so that a next one may find them."""
        storage = ["--root", str(self._root), "--runroot", str(self._run), "--storage-driver", "overlay"]
        options = ["--isolation", "chroot", "--pull-never", "--layers", mode, "--quiet", "-t", "selfbench"]
        return [*PRIVATE, "buildah", *storage, "bud", *options, str(context)]

    def take(self, store: Store, image: str, name: str) -> None:
        """Import an image of the store under another name."""
        target = f"containers-storage:[overlay@{self._root}+{self._run}]localhost/{name}"
        words = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{store.layout}:{image}", target]
        run([*PRIVATE, *words], timeout_seconds=IMPORT_SECONDS)
