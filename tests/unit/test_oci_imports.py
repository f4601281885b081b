"""What a verb imports is most of what it costs: nothing that is known to be heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lab

HEAVY = {
    "argparse", "ast", "collections", "contextlib", "dataclasses", "enum", "functools", "importlib", "inspect",
    "json", "logging", "pathlib", "platform", "re", "shutil", "signal", "socket", "subprocess", "tempfile",
    "threading", "traceback", "typing",
}  # fmt: skip
ON_THE_WAY = (
    "lab.host.cgroup.group",
    "lab.runtime.container",
    "lab.runtime.hooks",
    "lab.runtime.oci.blueprint",
    "lab.runtime.oci.waiting.conversation",
    "lab.runtime.oci.verbs.events",
    "lab.runtime.oci.verbs.execute",
    "lab.runtime.oci.waiting.foreground",
    "lab.runtime.oci.verbs.groups",
    "lab.runtime.oci.verbs.life",
    "lab.runtime.oci.main",
    "lab.runtime.oci.verbs.signals",
    "lab.runtime.oci.steps",
    "lab.runtime.oci.verbs.tables",
    "lab.runtime.seccomp.compiler",
    "lab.runtime.cgroup.stats",
)


@pytest.mark.parametrize("module", ON_THE_WAY)
def test_nothing_heavy_is_imported(module: str) -> None:
    source = str(Path(lab.__file__).parent.parent)
    code = f"import sys; sys.path.append({source!r}); import {module}; print(*sys.modules)"
    words = [getattr(sys, "_base_executable", sys.executable), "-I", "-S", "-c", code]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY & set(found) == set()
