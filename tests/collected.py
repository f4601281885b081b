"""Runs as a class hands them in: made-up ones, of computers that differ in what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from synthetic import write_run

HARDWARE = {"ground": "hardware", "by": "none", "title": "hardware", "effect": ""}
VIRTUAL = {"ground": "virtual", "by": "kvm", "title": "a virtual machine under KVM", "effect": ""}


def hand_in(root: Path, who: str, seed: int, **host: Any) -> Path:
    """A folder ``who`` with one run of a host of its own."""
    made = write_run(root / f"made-{seed}", blocks=6, seed=seed, bad_luck=False).path
    raw = json.loads((made / "run.json").read_text())
    known = {"identity": f"{seed:012x}", "platform": HARDWARE, "cpu": {"model": "i5"}, "kernel_release": "6.12"}
    raw["host"] = {**raw["host"], **known, "cgroups": {"mode": "v2"}, **host}
    (made / "run.json").write_text(json.dumps(raw))
    folder = root / "class" / who
    folder.mkdir(parents=True)
    shutil.move(made, folder / "run")
    shutil.rmtree(root / f"made-{seed}")
    return folder


def a_class(root: Path) -> Path:
    """Three on hardware, of whom one has another kernel and cgroup mode; two runs of one virtual machine."""
    hand_in(root, "ada", 11)
    hand_in(root, "boole", 12)
    hand_in(root, "church", 13, kernel_release="5.15", cgroups={"mode": "hybrid"})
    hand_in(root, "dijkstra", 14, identity="cafe", platform=VIRTUAL)
    hand_in(root, "erdos", 15, identity="cafe", platform=VIRTUAL)
    return root / "class"
