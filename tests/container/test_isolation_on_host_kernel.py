"""The whole battery asked inside real instances on the host's kernel: what can be told is as expected."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import pytest
from host_state import wait_until

from lab.backends.registry import available
from lab.backends.site import Site
from lab.host.command import run
from lab.images.store import Image
from lab.inside import build
from lab.isolation.battery import ask_all
from lab.isolation.registry import probes
from lab.model import Kernel
from lab.record import replace
from lab.results.observation import Observation
from lab.results.record import Status
from lab.runtime import bundle
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, Config

# On any host where these tests run at all, these can be told.
CERTAIN = {"boot-id", "kernel-release", "host-processes", "kill-host-process", "trace-host-process", "namespaces"}
CERTAIN |= {"mount", "set-clock", "system-call-filter", "capabilities", "memory-limit", "pids-limit"}
CERTAIN |= {"page-cache", "file-systems", "kernel-addresses", "abstract-socket", "shared-memory", "set-hostname"}
CERTAIN |= {"user-ids", "host-paths-in-mounts", "cgroup-path", "root-of-a-host-process", "join-namespace"}
CERTAIN |= {"open-by-handle", "swap", "mount-by-the-new-calls", "mount-namespace", "raise-priority", "new-privileges"}
CERTAIN |= {"device-nodes", "hypervisor-bit", "interfaces", "host-loopback", "packet-capture", "raw-socket"}
CERTAIN |= {"network-settings", "fine-clock", "processor-times", "inotify-instances", "ipc-objects", "thread-table"}
CERTAIN |= {"release-agent", "kernel-messages"}
CERTAIN |= {"file-table", "directory-entries", "disk-space", "shared-memory-space", "open-files-limit"}


def asked(site: Site, name: str, image: Image, logs: Path, missing: Callable[[str], None]) -> dict[str, Observation]:
    backend = site.backend(name)
    for check in backend.check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    backend.prepare(image)
    wanted = contract.request(site, image, f"probed-{name}", "sleep", "1200", logs=logs)
    with backend.launch(wanted) as instance:
        seen = {o.quantity.removeprefix("isolation."): o for o in ask_all(instance, backend)}
        assert instance.wait(0) is None, "the application did not survive the questions"
    contract.check_gone(site, instance)
    return seen


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(kind.name, marks=pytest.mark.nightly)
        if kind.stack or kind.name in ("runc", "crun")
        else kind.name
        for kind in available()
        if kind.kernel is Kernel.HOST
    ],
)
def test_every_answer_is_the_expected_one(
    site: Site, name: str, image: Image, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    seen = asked(site, name, image, tmp_path, missing)
    assert list(seen) == [probe.id for probe in probes()]
    told = {key: o for key, o in seen.items() if o.status is Status.OK}
    assert set(told) >= CERTAIN, {key: seen[key].detail["evidence"] for key in CERTAIN - set(told)}
    surprises = {
        key: (o.text, o.detail["expected"], o.detail["evidence"])
        for key, o in told.items()
        if not o.detail["as_expected"]
    }
    assert surprises == {}


def test_the_command_asks_what_was_chosen_and_tells_surprises_by_its_exit_code() -> None:
    command = [sys.executable, "-m", "lab.cli.main", "isolation", "--on", "container,process", "--probe"]
    done = subprocess.run(
        [*command, "mount,user-ids", "--json"], capture_output=True, text=True, timeout=250, check=True
    )
    told = {(each["backend"], each["probe"]): each for each in json.loads(done.stdout)}
    assert {key: each["answer"] for key, each in told.items()} == {
        ("process", "mount"): "yes",
        ("process", "user-ids"): "yes",
        ("container", "mount"): "no",
        ("container", "user-ids"): "yes",
    }
    assert told["container", "mount"]["mechanism"] == "capability"
    assert "EPERM" in told["container", "mount"]["evidence"]
    shown = subprocess.run([*command, "mount"], capture_output=True, text=True, timeout=250, check=True).stdout
    assert re.search(r"Can it mount a file system\? +✗ yes +✓ no", shown)


def test_a_boundary_with_a_hole_is_found(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was given a capability too many, and no filter: what is missing is told."""
    given = bundle.container_config

    def holed(*arguments: Any, **named: Any) -> Config:
        config = given(*arguments, **named)
        everything = capabilities.held()
        more = Capabilities(bounding=everything, effective=everything, permitted=everything)
        process = replace(config.process, capabilities=more)
        return replace(config, process=process, linux=replace(config.linux, seccomp=None))

    monkeypatch.setattr(bundle, "container_config", holed)
    backend = site.backend("container")
    backend.prepare(image)
    chosen = [probe for probe in probes() if probe.id in ("mount", "bpf", "boot-id")]
    with backend.launch(contract.request(site, image, "holed", "sleep", "600", logs=tmp_path)) as instance:
        mounts, bpf = (o for o in ask_all(instance, backend, chosen=chosen) if o.quantity != "isolation.boot-id")
    for seen in (mounts, bpf):
        assert (seen.text, seen.detail["as_expected"]) == ("yes", False)
        assert "what (capability) should keep it from the host is missing" in seen.detail["surprise"]


ORDINARY = """
for place in /tmp /dev/shm /run; do mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$place"; done
mount -t tmpfs tmpfs /sys/fs/cgroup
exec "$0" batch
"""


def test_the_host_itself_answers_where_temporary_places_are_nodev_and_no_v1_hierarchy_is_mounted() -> None:
    """As systemd leaves a machine."""
    hierarchies = Path("/proc/self/cgroup").read_text()
    done = run(
        ["unshare", "--mount", "sh", "-ec", ORDINARY, build.program()],
        stdin=b"node c 1 3\nnode c 1 11\nrelease-agent\n", timeout_seconds=250,
    )  # fmt: skip
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["", "", ""]
    wait_until(lambda: Path("/proc/self/cgroup").read_text() == hierarchies)
    assert Path("/proc/self/cgroup").read_text() == hierarchies
