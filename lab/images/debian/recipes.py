"""Recipes for a few base images used in teaching, for machines that reach a package archive but no registry.

``debian:bookworm[-slim]`` and ``debian:trixie[-slim]`` come out of mmdebstrap and the host's own apt configuration;
``python:3.11[-slim]`` and ``python:3.13[-slim]`` are Dockerfiles on top of them. They resemble the official images of
the same name and are not those: their origin says so.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from lab.images.debian import apt
from lab.images.debian.mmdebstrap import mmdebstrap
from lab.images.process import DEFAULT_PATH
from lab.images.progress import Note, Progress
from lab.images.store import Image, Origin, Store
from lab.images.tree import Tree
from lab.model import ImageConfig

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian's releases that lab runs on, each with its Python."""

# Without it the image has a process's leftovers, or what differs between two identical runs.
LEFTOVERS = (
    "etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/lib/dbus/machine-id", "etc/.pwd.lock",
    "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
    "var/cache/ldconfig/aux-cache", "var/lib/systemd/random-seed",
)  # fmt: skip
LEFTOVER_GLOBS = (
    "var/lib/apt/lists/*", "var/cache/apt/*.bin", "var/cache/apt/archives/*", "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old", "var/log/*.log", "var/log/apt/*", "tmp/*", "run/*",
)  # fmt: skip
SLIM = (
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
)  # fmt: skip
QUICK = ("force-unsafe-io",)
"""dpkg waits for the disk after each package, so that a cut of power spares a system; a build just begins anew. It is
in the image, as in Docker's own: packages that are installed on it need not wait either.
"""

# SOURCE_DATE_EPOCH is unset for dpkg's hooks: they then compile modules against their package's own, stable times,
# and importing one does not have to hash its source.
PYTHON = r"""
FROM {base}
ENV PATH={path} LANG=C.UTF-8
RUN unset SOURCE_DATE_EPOCH && export DEBIAN_FRONTEND=noninteractive && \
    apt-get -q update && \
    apt-get -q install -y --no-install-recommends {packages} && \
    ln -s /usr/bin/python3 /usr/local/bin/python && \
    find /usr/lib/python3* -name EXTERNALLY-MANAGED -delete && \
    apt-get clean && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old \
           /var/cache/ldconfig/aux-cache /var/log/*.log /var/log/apt/* /etc/passwd- /etc/group- /etc/shadow- /tmp/*
CMD ["python3"]
"""

Resolve = Callable[[str], Image]
BuildText = Callable[[str, str], Image]


class Recipe(Protocol):
    """How to make one base image."""

    def make(
        self, name: str, *, store: Store, progress: Progress, build_recipe: BuildText, resolve: Resolve
    ) -> Image:
        """Make it and store it as ``name``. Raises ImageError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debian:
    """A minimal Debian; ``slim`` leaves out documentation, translations and manual pages for good."""

    suite: str
    slim: bool

    def make(
        self, name: str, *, store: Store, progress: Progress, build_recipe: BuildText, resolve: Resolve
    ) -> Image:
        progress(Note(text=f"making {name} with mmdebstrap (about half a minute)"))
        started = float(int(time.time()))
        with store.scratch("debian") as directory:
            root = directory / "root"
            self._bootstrap(directory, root)
            clean(root)
            layer = store.add_layer(root, fresh_since=started)
        config = ImageConfig(environment={"PATH": DEFAULT_PATH}, command=("bash",))
        notes = {"lab.recipe": f"mmdebstrap {self.suite} minbase{' without documentation' if self.slim else ''}"}
        return store.add_image(name, config=config, layers=(layer,), origin=Origin.RECIPE, annotations=notes)

    def _bootstrap(self, directory: Path, root: Path) -> None:
        settings = (*QUICK, *SLIM) if self.slim else QUICK
        options = [f"--dpkgopt={line}" for line in settings]
        sources = apt.sources_for(self.suite) or apt.sources_beyond(self.suite)
        sources = mmdebstrap(self.suite, root, directory, options, sources)
        for keyring in apt.keyrings(sources):
            inside = root / keyring.relative_to("/")
            if keyring.is_file() and not inside.exists():
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(keyring, inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """Debian's own Python with pip, called ``python`` too, and free to install into."""

    base: str
    packages: str

    def make(
        self, name: str, *, store: Store, progress: Progress, build_recipe: BuildText, resolve: Resolve
    ) -> Image:
        resolve(self.base)
        image = build_recipe(PYTHON.format(base=self.base, path=DEFAULT_PATH, packages=self.packages), name)
        version = package_version(Tree(store.lower_directories(image)), "python3")
        config = replace(image.config, environment={**image.config.environment, "PYTHON_VERSION": version})
        return store.add_image(
            name, config=config, layers=image.layers, origin=Origin.RECIPE, base=image.base,
            annotations={"lab.recipe": f"{self.packages} on {self.base}"},
        )  # fmt: skip


def clean(root: Path) -> None:
    """Remove what one bootstrap leaves behind and another would leave differently."""
    for path in (root / name for name in LEFTOVERS):
        path.unlink(missing_ok=True)
    for path in (path for pattern in LEFTOVER_GLOBS for path in root.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for log in (root / "var" / "log" / name for name in ("lastlog", "faillog", "btmp", "wtmp")):
        if log.exists():
            log.write_bytes(b"")


def package_version(tree: Tree, package: str) -> str:
    """The upstream version of an installed Debian package: ``3.11.2`` of ``3.11.2-1+b1``; "" when it is not there."""
    status = (tree.read("/var/lib/dpkg/status") or b"").decode("utf-8", "replace")
    match = re.search(
        rf"^Package: {re.escape(package)}\n(?:[^\n]+\n)*?Version: (?:\d+:)?([^\n]+)", status, re.MULTILINE
    )
    return match[1].rpartition("-")[0] or match[1] if match else ""


_SLIM_PACKAGES = "ca-certificates netbase tzdata python3 python3-pip"
_PACKAGES = f"{_SLIM_PACKAGES} python3-venv python3-dev build-essential"


def _recipes() -> Mapping[str, Recipe]:
    recipes: dict[str, Recipe] = {}
    for suite, version in PYTHONS.items():
        for slim, word, packages in ((False, "", _PACKAGES), (True, "-slim", _SLIM_PACKAGES)):
            recipes[f"debian:{suite}{word}"] = Debian(suite=suite, slim=slim)
            recipes[f"python:{version}{word}"] = Python(base=f"debian:{suite}{word}", packages=packages)
    return MappingProxyType(recipes)


RECIPES = _recipes()
