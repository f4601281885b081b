"""``lab-oci events``: a line again and again, out of memory when it happens, and an end when the container ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import oci
import pytest
from oci import Runtime


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with oci.opened("lab-oci") as opened:
        yield opened


def test_events_until_the_end(runtime: Runtime) -> None:
    def little_memory(config: dict[str, Any]) -> None:
        config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}

    hungry = "read go < /tmp/go; (dd if=/dev/zero of=/dev/null bs=64M count=1) 2> /dev/null; read end < /tmp/end"
    name = runtime.running(f"mkfifo /tmp/end /tmp/go; {hungry}", edit=little_memory)
    oci.until((runtime.rootfs / "tmp/go").exists, "the container")
    with subprocess.Popen(runtime.words("events", "--interval", "50ms", name), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["type"], first["id"]) == ("stats", name)
        (runtime.rootfs / "tmp/go").write_text("go\n")
        types = set()
        while "oom" not in types:
            types.add(json.loads(process.stdout.readline())["type"])
        runtime.ok("kill", name, "KILL")
        assert process.wait(120) == 0
    runtime.ok("delete", name)
