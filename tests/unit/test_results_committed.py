"""The run folders in the repository: whoever clones lab gets them all, and sends one on by mail."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_BYTES = 5_000_000
"""Of a folder: the largest had 4.1 MB on 2026-12-01."""


def test_each_is_small_and_holds_files_alone() -> None:
    """A run's folder is what one keeps, hands on and commits: results are small and portable by promise. The raw
    samples of a comparison are some thousand lines; what makes a folder large is a log, a disk or a figure that
    slipped in, and what is once in the history stays in every clone. A link would lead nowhere on another host.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "results"], capture_output=True, text=True, check=True, timeout=60
    )
    sizes: dict[str, int] = defaultdict(int)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        assert path.is_file(), name
        assert not path.is_symlink(), name
        if len(parts := Path(name).parts) > 2:
            sizes[parts[1]] += path.stat().st_size
    assert {"sample", "boundaries"} <= sizes.keys()
    assert {name: size for name, size in sizes.items() if size >= MOST_BYTES} == {}
