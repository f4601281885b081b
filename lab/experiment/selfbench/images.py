"""Layers and disks beside what they are made with: GNU tar and mke2fs, on the same files, in the same rounds.

The files are Python's standard library as this host has it: a few thousand, of all sizes, there wherever lab runs.
What a round made is removed before the next one, outside every clock.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.errors import CommandError
from lab.experiment.selfbench.containers import Results, interleave, spawn
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.images import layers
from lab.images.disk import make_ext4
from lab.images.image import Image, Origin
from lab.images.store import Store
from lab.model import ImageConfig

IMAGE = "lab/selfbench-files"
UNPACK = ("tar", "-x", "--zstd", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*")


def measure_images(store: Store, results: Results, rounds: int, watch: Watch) -> None:
    """Unpacking a layer, and making a disk, ``rounds`` times each. Raises CommandError when a program is missing."""
    for program in ("tar", "zstd", "mke2fs"):
        if shutil.which(program) is None:
            raise CommandError(f"{program} is not installed", hint=f"apt-get install {program}")
    with store.writing(), store.scratch("selfbench") as folder:
        files = folder / "files"
        shutil.copytree(
            sysconfig.get_path("stdlib"), files, symlinks=True, ignore=shutil.ignore_patterns("*-packages")
        )
        count = sum(1 for _ in files.rglob("*"))
        layer = store.add_layer(files)
        image = store.add_image(IMAGE, config=ImageConfig(), layers=(layer,), origin=Origin.BUILT)
        try:
            found = interleave(
                _contenders(store, image, files, folder), rounds, results.seed,
                lambda text: watch.doing(f"layers and disks: {text}"),
            )  # fmt: skip
        finally:
            store.untag({image.name})
    results.add("unpack", f"lab: a layer of {count:,} files unpacked and proven", found["unpack"])
    results.add("tar", "tar -x --zstd of the same layer", found["tar"])
    results.add("disk", "lab: the image as a disk", found["disk"])
    results.add("mke2fs", "mke2fs -d of the same files", found["mke2fs"])


def _contenders(store: Store, image: Image, files: Path, folder: Path) -> dict[str, Callable[[], float]]:
    (layer,) = image.layers
    blob, place = store.blob(layer.digest), folder / "made"

    def unpack() -> float:
        began = now()
        with blob.open("rb") as reader:
            layers.unpack(reader, place, expected_diff_id=layer.diff_id)
        return now() - began

    def tar() -> float:
        place.mkdir()
        return spawn([*UNPACK, "-C", place, "-f", blob])

    def disk() -> float:
        place.mkdir()
        began = now()
        make_ext4(store, image, place, place / "disk.ext4")
        return now() - began

    def mke2fs() -> float:
        place.mkdir()
        size_kib = sum(path.lstat().st_blocks for path in files.rglob("*")) // 2 * 5 // 4 + 16384
        return spawn(["mke2fs", "-q", "-F", "-t", "ext4", "-d", files, place / "disk.ext4", f"{size_kib}k"])

    store.lower_directories(image)
    both = {"unpack": unpack, "tar": tar, "disk": disk, "mke2fs": mke2fs}
    return {name: _cleaned(contender, place) for name, contender in both.items()}


def _cleaned(contender: Callable[[], float], place: Path) -> Callable[[], float]:
    """What is removed, and what has to reach the disk, is nobody's: each contender starts with an idle one."""

    def measured() -> float:
        taken = contender()
        shutil.rmtree(place)
        with suppress(subprocess.SubprocessError):
            subprocess.run(["sync", "-f", str(place.parent)], check=False, timeout=60)
        return taken

    return measured
