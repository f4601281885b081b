"""One machine of each kind is saved; what goes on from it keeps the backends' contract, and two don't collide."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.site import Site
from lab.backends.support.guests.machine import MachineInstance
from lab.backends.support.saving import MAP, RESTORE, START
from lab.hypervisor import machine as machine_module
from lab.hypervisor.channels import ports
from lab.images.store import Image
from lab.instance import Instance
from lab.model import Phase

# Besides serving it says again and again what the kernel's generator gives it. All processes of a guest with one
# virtual CPU draw from one sequence: two with the same one agree once each has done what a woken guest does.
APPLICATION = """
echo begun
httpd -f -p 8000 -h /srv >/dev/null 2>&1 &
while :; do
    for number in 1 2 3 4 5; do read -r word </proc/sys/kernel/random/uuid; echo $word; done
    sleep 0.1
done
"""
SECONDS = 120.0
WORDS = 40


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = snapshot()
    with Site.open() as opened:
        yield opened
    assert_unchanged(before, ignore=["held_namespaces"])  # as in test_backends_machine


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    return tiny_image(site.store)


def restore(
    site: Site, backend: str, image: Image, name: str, logs: Path, kind: str = "", level: str = RESTORE
) -> Instance:
    knobs = {START.name: level}
    wanted = contract.request(site, image, name, "sh", "-c", APPLICATION, kind, logs=logs / name, knobs=knobs)
    return site.backend(backend).launch(wanted)


@pytest.fixture(scope="module", params=["microvm", pytest.param("vm", marks=pytest.mark.nightly)])
def backend(request: pytest.FixtureRequest, site: Site, image: Image) -> str:
    name: str = request.param
    site.backend(name).prepare(image, {START.name: "restore"})
    return name


@pytest.fixture(scope="module")
def pair(
    backend: str, site: Site, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Instance, Instance]]:
    """Both at once: the machine they go on from is made for the first and waited for by the second."""
    logs = tmp_path_factory.mktemp(backend)
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(
            lambda name: restore(site, backend, image, f"{backend}-{name}", logs), ("one", "two")
        )
        with first, second:
            for instance in (first, second):
                contract.until_listening(site, instance)
            yield first, second
    for instance in (first, second):
        contract.check_gone(site, instance)
        assert instance.timeline.at(Phase.GONE) is not None


def words(site: Site, instance: Instance) -> tuple[list[str], list[str]]:
    """What its application had said when it was saved, and what it has drawn since."""
    newest = max(site.scratch.glob(f"{instance.backend}-saved-*.d"), key=lambda folder: folder.stat().st_mtime)
    before = (newest / "stdout.log").read_text()
    deadline = time.monotonic() + SECONDS
    while True:
        whole = (instance.request.log_directory / "stdout.log").read_text()
        assert whole.startswith(before)
        if len(since := whole.removeprefix(before).splitlines()) > WORDS:
            return before.splitlines(), since[:-1]  # the last one may still be on its way
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_phases_are_those_that_happened(pair: tuple[Instance, Instance]) -> None:
    for instance in pair:
        stamps = instance.timeline.stamps()
        assert sorted(stamps, key=stamps.__getitem__) == [Phase.REQUESTED, Phase.ISOLATED, Phase.RESTORED]
        assert instance.snapshot_bytes
        assert instance.snapshot_bytes > 32 << 20


def test_each_has_an_identity_of_its_own(site: Site, pair: tuple[Instance, Instance]) -> None:
    script = "hostname; tail -n 1 /etc/hosts; cat /sys/class/net/e*/address; date +%s; ip -4 -o address show"
    for instance in pair:
        done = instance.execute(["sh", "-c", script]).stdout.decode().splitlines()
        assert done[0] == instance.name
        assert done[1] == f"{instance.address}\t{instance.name}"
        assert bytes.fromhex(done[2].replace(":", ""))[-4:] == instance.address.packed
        assert abs(int(done[3]) - time.time()) < 30
        addresses = [line.split()[3] for line in done[4:]]
        assert addresses == ["127.0.0.1/8", f"{instance.address}/15"], "and not the saved one's besides"
        with site.network.socket() as client:
            client.settimeout(120)
            client.connect((str(instance.address), contract.PORT))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_the_log_begins_with_what_was_said_before(site: Site, pair: tuple[Instance, Instance]) -> None:
    for instance in pair:
        before, _ = words(site, instance)
        assert before[0] == "begun"
        assert len(before) > 1


def test_each_draws_randomness_of_its_own(site: Site, pair: tuple[Instance, Instance]) -> None:
    """In its application as in a new process; from the order on, which may come after a word or two."""
    drawn = [instance.execute(["cat", "/proc/sys/kernel/random/uuid"]).stdout for instance in pair]
    assert drawn[0] != drawn[1]
    assert drawn[0].count(b"-") == 4
    first, second = (words(site, instance)[1] for instance in pair)
    assert first[-1] not in second
    assert second[-1] not in first


def test_each_is_an_instance_like_any_other(
    site: Site,
    image: Image,
    backend: str,
    tmp_path: Path,
    pair: tuple[Instance, Instance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = pair
    contract.check_commands(first)
    contract.check_limits(site, backend, first)
    contract.check_accounted(first)
    contract.check_writes_stay(site, backend, image, tmp_path, first)
    assert second.execute(["cat", "/srv/index.html"]).stdout.decode() == contract.GREETING
    monkeypatch.setattr(ports, "SILENT_SECONDS", 10 * SECONDS)  # what it said before it was saved is not missed
    second.signal(15)
    assert second.wait(SECONDS) == 143


def mapped(instance: Instance) -> tuple[set[str], dict[str, int]]:
    """How QEMU has the saved memory mapped, and what it holds of it, in KiB (proc_pid_smaps(5))."""
    assert isinstance(instance, MachineInstance)
    ways, found, is_it = set(), dict.fromkeys(("Shared_Clean", "Shared_Dirty", "Anonymous"), 0), False
    for line in Path(f"/proc/{instance.machine.process}/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            is_it = "/memfd:lab-machine" in line
            ways |= {rest.split()[0]} if is_it else set()
        elif is_it and (name := first.rstrip(":")) in found:
            found[name] += int(rest.split()[0])
    return ways, found


def test_what_two_have_mapped_is_there_once(site: Site, image: Image, tmp_path: Path) -> None:
    """Its pages are shared until they are written to, each has its own then, and nobody can change the saved ones."""
    with ExitStack() as running:
        pair = [
            running.enter_context(restore(site, "microvm", image, name, tmp_path, level=MAP))
            for name in ("mapped-1", "mapped-2")
        ]
        for instance in pair:
            contract.until_listening(site, instance)
        hosts = [instance.execute(["hostname"]).stdout.decode().strip() for instance in pair]
        assert hosts == ["mapped-1", "mapped-2"]
        for instance in pair:
            assert isinstance(instance, MachineInstance)
            saved = instance.machine.request.snapshot
            assert saved is not None
            assert saved.memory is not None
            assert instance.saved_memory_bytes() == saved.memory.held_bytes
            ways, held = mapped(instance)
            assert ways == {"rw-p"}, "privately"
            assert held["Shared_Dirty"] + held["Shared_Clean"] > 8 << 10, "both have touched the guest's kernel"
            assert 0 < held["Anonymous"] < saved.memory.held_bytes >> 11, "less than half was written to"
            with pytest.raises(PermissionError), Path(saved.memory.path).open("r+b", buffering=0) as file:
                file.write(b"x")
        before = [mapped(instance)[1]["Anonymous"] for instance in pair]
        assert pair[0].execute(["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=24"]).exit_code == 0
        own, others = [mapped(instance)[1]["Anonymous"] - held for instance, held in zip(pair, before, strict=True)]
        assert own >= 24 << 10, "what it writes is its own"
        assert others < 12 << 10, "and nobody else's"
    assert not any(instance.cgroup.exists() for instance in pair)


def test_one_that_is_only_restored_shares_nothing_of_it(pair: tuple[Instance, Instance], backend: str) -> None:
    """The control."""
    for instance in pair:
        assert isinstance(instance, MachineInstance)
        assert "memfd:lab-machine" not in Path(f"/proc/{instance.machine.process}/maps").read_text()
        assert instance.saved_memory_bytes() is None


@pytest.mark.nightly
def test_without_a_seed_two_draw_the_same(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the order's last word prevents. A young kernel seeds itself every few seconds, and may have
    been saved just before that; then another is.
    """
    order = machine_module.wake_order
    monkeypatch.setattr(machine_module, "wake_order", lambda who: order(who).rpartition(" ")[0])

    def shared(kind: str) -> set[str]:
        with ThreadPoolExecutor() as threads, ExitStack() as running:
            names = (f"same{kind}-1", f"same{kind}-2")
            started = threads.map(lambda name: restore(site, "microvm", image, name, tmp_path, kind), names)
            first, second = [set(words(site, running.enter_context(instance))[1]) for instance in started]
        return first & second

    assert any(shared(kind) for kind in ("", "b", "c", "d"))
