"""The backend ``nspawn``: what a container of systemd-nspawn's is made of, and that nothing is left of one.

The contract that every backend on the host's kernel keeps is in test_backends_host.py. nspawn is the host's, if it
has one, or Debian's, fetched once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import contract
import pytest
from detached import detached
from host_state import assert_unchanged, descendants, snapshot, told_of, wait_until
from killed import check_a_killed_lab_leaves_nothing, names_in
from tiny import fill
from usable import fixtures

from lab.backends.nspawn import Nspawn
from lab.backends.site import Site
from lab.backends.support.host import HostInstance
from lab.backends.systemd.options import KEPT
from lab.errors import LaunchError
from lab.host import procstat
from lab.host.cgroup.delegation import group_of
from lab.images.store import Image, Origin
from lab.instance import INSIDE
from lab.isolation import battery
from lab.isolation.registry import probes
from lab.model import ImageConfig, Volume
from lab.runtime.config import capabilities
from lab.studies.compare.measure.parity import verify_manifest
from lab.studies.surface.reach import arguments

NSPAWN = "nspawn"
SYSTEMS_NOTES = Path("/run/systemd/nspawn")
SAME_IN_A_COMMAND = ("CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


usable, site, image = fixtures(Nspawn)


def launch(
    site: Site, image: Image, script: str, logs: Path, *, name: str = "one", uid: int = 0, **more: object
) -> HostInstance:
    wanted = contract.as_user(contract.request(site, image, name, "sh", "-c", script, logs=logs, **more), uid)
    instance = site.backend(NSPAWN).launch(wanted)
    assert isinstance(instance, HostInstance)
    return instance


def status(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.mark.parametrize(
    ("knobs", "held"),
    [
        ({}, KEPT),
        ({"filter": "off", "capabilities": "docker", "no-new-privileges": "on"}, capabilities.DOCKER_DEFAULT),
    ],
)
def test_a_command_is_held_as_the_application_is(
    site: Site, image: Image, tmp_path: Path, knobs: dict[str, str], held: tuple[str, ...]
) -> None:
    """By capabilities, rlimits and every answer of the filter, which are read back from the kernel."""
    noted = SYSTEMS_NOTES.exists()
    script = f"cat /proc/self/status /proc/self/limits; {INSIDE} {' '.join(arguments())}; echo; env"
    with launch(site, image, f"{script}; echo ready; sleep 600", tmp_path, knobs=knobs) as instance:
        assert wait_until(lambda: b"ready" in (tmp_path / "stdout.log").read_bytes())
        born = (tmp_path / "stdout.log").read_text().removesuffix("ready\n")
        after = instance.execute(["sh", "-c", script]).stdout.decode()
        assert {each: status(born)[each] for each in SAME_IN_A_COMMAND} == {
            each: status(after)[each] for each in SAME_IN_A_COMMAND
        }
        assert born[born.index("Limit ") :] == after[after.index("Limit ") :]
        assert '"outcomes"' in born
        assert "good day" in born
        assert int(status(born)["CapEff"], 16) == capabilities.mask(set(held) & set(capabilities.held()))
        assert (status(born)["Seccomp"] == "0") == (knobs.get("filter") == "off")
        # Its environment is on no command line, nor in that of what root starts: LD_PRELOAD might be in it.
        inside = instance.cgroup.processes()
        outer = [pid for pid, name in told_of(inside, "comm").items() if name == "systemd-nspawn"]
        assert not any("good day" in line for line in told_of(inside, "cmdline").values())
        assert len(outer) == 1
        assert b"GREETING" not in Path(f"/proc/{outer[0]}/environ").read_bytes()
        below = {path.name for path in instance.cgroup.unified_directory.iterdir() if path.is_dir()}  # type: ignore[union-attr]
        assert below == {"payload", "supervisor"}
        assert SYSTEMS_NOTES.exists() == noted, "what it notes of its containers is not the host's to see"


def test_an_application_of_another_user_hears_its_stop_signal(site: Site, image: Image, tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 5' TERM; id -u; grep CapEff /proc/self/status; echo ready"
    with launch(site, image, f"{script}; while :; do sleep 0.05; done", tmp_path, uid=4321) as instance:
        assert wait_until(lambda: b"ready" in (tmp_path / "stdout.log").read_bytes())
    assert instance.wait(0) == 5
    assert (tmp_path / "stdout.log").read_text() == f"4321\nCapEff:\t{'0' * 16}\nready\nasked\n"


def test_what_the_image_has_in_run_is_there_and_the_files_are_the_images(site: Site, tmp_path: Path) -> None:
    """A server's folder for its socket; a folder of another user's, closed to all others; a volume below /run."""
    with site.store.scratch("runs") as scratch:
        root = scratch / "root"
        fill(root)
        for name in ("run/server", "closed"):
            (root / name).mkdir(mode=0o700, parents=True)
            (root / name / "file").write_text("x")
            os.chown(root / name, 1000, 1000)
        layer = site.store.add_layer(root)
    config = ImageConfig(environment={"PATH": "/bin"}, command=("sh",))
    held = site.store.add_image("runs", config=config, layers=(layer,), origin=Origin.BUILT)
    backend, expected = site.backend(NSPAWN), site.store.manifest(held)
    backend.prepare(held)
    wanted = contract.request(site, held, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(backend, wanted, expected, 60) == expected.digest
    (tmp_path / "data").mkdir()
    volume = Volume(source=str(tmp_path / "data"), target="/run/data")
    script = (
        "set -e; echo y >/run/server/new; cat /run/server/file; echo; cat /run/server/new; echo z >/run/data/file"
    )
    with launch(site, held, f"{script}; ls /run", tmp_path / "ls", volumes=(volume,)) as instance:
        assert instance.wait(120) == 0
    assert (tmp_path / "ls/stdout.log").read_text().split() == ["x", "y", "data", "host", "server"]
    assert (tmp_path / "data/file").read_text() == "z\n"


@pytest.mark.parametrize("victim", ["systemd-nspawn", "inside"])
def test_when_either_of_its_own_two_is_killed_nothing_is_left(
    site: Site, image: Image, tmp_path: Path, victim: str
) -> None:
    """When its instance is stopped at the latest: what nspawn contains outlives nspawn."""
    before, children_before = snapshot(), descendants()
    with launch(site, image, "echo ready; sleep 600", tmp_path, uid=4321) as instance:
        assert wait_until((tmp_path / "stdout.log").read_bytes)
        names = told_of(instance.cgroup.processes(), "comm")
        own = [pid for pid, name in names.items() if name == victim]
        os.kill(own[0], signal.SIGKILL)
        assert instance.wait(120) not in (None, 0)
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before)
    assert wait_until(lambda: all(procstat.start_time(pid) is None for pid in names))


def test_what_nspawn_complains_of_is_told_and_leaves_nothing(site: Site, image: Image, tmp_path: Path) -> None:
    other = tmp_path / "nspawn"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo systemd 255 && exit\necho "no luck" >&2; exit 1\n')
    other.chmod(0o755)
    before, children_before = snapshot(), descendants()
    with pytest.raises(LaunchError, match="no luck") as caught:
        launch(site, image, "true", tmp_path, knobs={"binary": str(other)})
    assert caught.value.exit_code == 125
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before)


FILTERED = ("bpf", "open-by-handle", "perf-events", "swap", "watch-files", "keyrings", "system-call-filter")
ALLOWED = ("mount", "mount-by-the-new-calls", "mount-namespace", "raise-priority", "set-hostname", "reboot")
PRIVILEGES = ("new-privileges",)
WAY_OUT = "mount -o remount,bind,rw /proc/sys && exec 3>>/proc/sys/kernel/core_pattern && echo may be written to"
"""Who may mount mounts as it likes what nspawn has mounted read-only. The file is opened, and nothing written."""


@pytest.mark.parametrize(
    ("knobs", "reaches"),
    [
        ({}, ({"closed"}, {"open", "own"}, {"open"})),
        ({"filter": "off"}, ({"open"}, {"open", "own"}, {"open"})),
        ({"capabilities": "docker", "no-new-privileges": "on"}, ({"closed"}, {"closed"}, {"closed"})),
    ],
)
def test_where_its_answers_are_not_a_containers_the_named_mechanism_makes_them(
    site: Site, image: Image, tmp_path: Path, knobs: dict[str, str], reaches: tuple[set[str], ...]
) -> None:
    """The control of what the battery says: with that one thing changed, the same question has the other answer."""
    groups = (FILTERED, ALLOWED, PRIVILEGES)
    asked = [probe for probe in probes() if any(probe.id in group for group in groups)]
    with launch(site, image, "sleep 600", tmp_path, knobs=knobs) as instance:
        seen = list(battery.ask_all(instance, site.backend(NSPAWN), chosen=asked))
        way_out = instance.execute(["sh", "-c", WAY_OUT])
    told = {each.quantity.removeprefix("isolation."): each.detail for each in seen}
    for group, reach in zip(groups, reaches, strict=True):
        assert {told[name]["reach"] for name in group} - {"unknown"} <= reach, group
    assert (b"written to" in way_out.stdout) == ("open" in reaches[1])
    if not knobs:
        assert all(each["as_expected"] is not False for each in told.values())
        assert {told[name]["mechanism"] for name in FILTERED} == {"seccomp filter"}


@pytest.mark.alone
def test_a_killed_lab_leaves_nothing(image: Image, tmp_path: Path) -> None:
    def look(session: str) -> None:
        assert {"systemd-nspawn", "sleep"} <= names_in(group_of(session) + "/lost")

    check_a_killed_lab_leaves_nothing(NSPAWN, tmp_path / "logs", look)


def test_a_detached_one_is_lived_with_and_taken_over(image: Image) -> None:
    """Its supervisor is killed, and the next one goes on with it: commands, its end, and its exit code."""
    before = snapshot()
    with detached() as instances:
        script = "trap 'exit 6' TERM; while :; do sleep 0.1; done"
        record = instances.run("own", "--on", NSPAWN, "tiny", "--", "sh", "-c", script)
        assert instances.lab("exec", record.name, "echo", "inside").stdout == "inside\n"
        os.kill(record.supervisor.number, signal.SIGKILL)
        assert wait_until(lambda: not record.supervisor.lives())
        assert instances.lab("exec", record.name, "echo", "again").stdout == "again\n"
        instances.lab("stop", record.name)
        assert "6" in instances.status("own")
    assert_unchanged(before)
