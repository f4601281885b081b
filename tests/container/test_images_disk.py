"""Disks of images, made with whatever e2fsprogs the host has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny import tiny_image

from lab.images.disk import make_ext4
from lab.images.store import Store

RESOLVING = """#!/bin/sh
for word in "$@"; do
    case $word in -*) ;; *=*) echo "${0##*/}: Unable to resolve '$1'" >&2; exit 1;; esac
done
exec %s "$@"
"""


@pytest.fixture
def newer_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """e2fsprogs 1.47.2 as far as it matters: these give every name to blkid_get_devname(3), which takes one with
    "=" in it for a tag; mke2fs(8) and debugfs(8) do not.
    """
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("dumpe2fs", "e2fsck", "tune2fs"):
        (folder / name).write_text(RESOLVING % shutil.which(name))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.usefixtures("newer_programs")
@pytest.mark.parametrize("offset_bytes", [0, 1 << 20])
def test_a_disk_is_made_wherever_it_begins_and_whatever_its_path(
    lab_home: Path, tmp_path: Path, offset_bytes: int
) -> None:
    store = Store.open(lab_home)
    image = tiny_image(store)
    disk = tmp_path / "a=b" / "disk"
    (disk.parent / "scratch").mkdir(parents=True)
    size = make_ext4(store, image, disk.parent / "scratch", disk, offset_bytes=offset_bytes)
    alone = tmp_path / "alone"
    alone.write_bytes(disk.read_bytes()[offset_bytes : offset_bytes + size])
    subprocess.run(["e2fsck", "-f", "-n", alone], check=True, capture_output=True)
    shown = subprocess.run(["debugfs", "-R", "cat /srv/index.html", alone], check=True, capture_output=True).stdout
    assert shown
