"""The backends with a kernel of their own keep the same contract, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import contract
import pytest
from detached import LAB, session_of
from host_state import assert_unchanged, snapshot, wait_until
from tiny import tiny_image

from lab.backends.registry import available
from lab.backends.site import Site
from lab.backends.support.resources import InstanceResources
from lab.errors import LabError, LaunchError
from lab.host.cgroup import delegation
from lab.host.cgroup.control import ControlGroup
from lab.hypervisor.machine import Machine
from lab.hypervisor.snapshot import STATE
from lab.images.store import Image
from lab.model import Accelerator, Kernel, Limits

MACHINES = [
    kind.name if kind.name != "krun" else pytest.param(kind.name, marks=pytest.mark.nightly)
    for kind in available()
    if kind.kernel is Kernel.OWN
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = snapshot()
    with Site.open() as opened:
        yield opened
    # libvirt's worker threads were born where the first machine was started; they end with this process.
    assert_unchanged(before, ignore=["held_namespaces"])


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    return tiny_image(site.store)


@pytest.fixture(params=MACHINES)
def backend(request: pytest.FixtureRequest, site: Site, image: Image) -> str:
    name: str = request.param
    contract.skip_without_kvm(site, name)
    assert [check for check in site.backend(name).check() if not check.ok] == []
    site.backend(name).prepare(image)
    return name


def test_output_and_exit_code(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    contract.check_exit_code_and_output(site, backend, image, tmp_path)


def test_a_server_for_the_client_and_through_a_published_port(
    site: Site, backend: str, image: Image, tmp_path: Path
) -> None:
    with contract.serve(site, backend, image, tmp_path) as instance:
        assert instance.accelerator in (Accelerator.KVM, Accelerator.TCG)
        contract.check_port_is_found(site, backend, instance)
        contract.check_serves(site, instance)
        contract.check_commands(instance)
        contract.check_a_child_left_behind(instance)
        contract.check_limits(site, backend, instance)
        contract.check_accounted(instance)
        contract.check_writes_stay(site, backend, image, tmp_path, instance)
    contract.check_gone(site, instance)


@pytest.mark.parametrize("step", ["make_tap", "make_control_group", "start"])
def test_a_failure_at_any_step_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.backend("microvm").prepare(image)
    before = snapshot()

    def fail(*_: object, **__: object) -> None:
        raise LabError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Machine if step == "start" else InstanceResources, step, fail)
        with pytest.raises(LaunchError, match="injected"):
            site.backend("microvm").launch(contract.request(site, image, "broken", logs=tmp_path))
    assert_unchanged(before)
    assert site.network.links() == {"lo", "lab0"}


def test_too_little_memory_is_refused_with_the_remedy(site: Site, image: Image, tmp_path: Path) -> None:
    wanted = contract.request(site, image, "small", logs=tmp_path, limits=Limits(memory_bytes=16 << 20))
    with pytest.raises(LabError) as caught:
        site.backend("microvm").launch(wanted)
    assert "--memory" in caught.value.hint
    assert site.network.links() == {"lo", "lab0"}


def readers_of_a_state(session: str) -> set[int]:
    """The processes in a session's cgroups that have a saved machine open to read. "" is no session yet."""
    found = set[int]()
    if not session:  # its group would be that of all sessions, other tests' among them
        return found
    for pid in ControlGroup.open(delegation.group_of(session)).processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/fd/0").readlink().name == STATE:
                found.add(pid)
    return found


def test_after_sigkill_of_lab_its_qemu_goes_too(site: Site, image: Image) -> None:
    """While it reads the machine that it is restored from, which goes as well."""
    site.backend("microvm").prepare(image)
    before = snapshot()
    words = ["run", "tiny", "--on", "microvm", "--knob", "start=restore"]
    with subprocess.Popen([*LAB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        stopped: set[int] = set()
        wait_until(lambda: stopped.update(readers_of_a_state(session_of(process.pid))) or stopped, 240)
        for reader in stopped:
            os.kill(reader, signal.SIGSTOP)  # it does not get any further
        process.kill()
        told = process.communicate(timeout=250)
    assert stopped, told
    assert_unchanged(before)
