"""A sandbox of gVisor's is saved once; those that go on from it keep the contract, and share no writes."""

from __future__ import annotations

import os
import select
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot, wait_until
from killed import cleaned
from usable import fixtures

from lab.backends.gvisor import Gvisor
from lab.backends.sentry.saved import SentryCheckpoint
from lab.backends.site import Site
from lab.backends.support.host import HostInstance
from lab.backends.support.saving import BOOT, RESTORE, START
from lab.errors import LaunchError
from lab.images.store import Image
from lab.instance import LaunchRequest
from lab.model import Phase, TerminalSize, Volume

GVISOR = "gvisor"
SECONDS, LINE = 60.0, 300
APPLICATION = """
echo begun; echo kept >/tmp/mark; echo written >/srv/mark; secret=$$-remembered
httpd -p 8000 -h /srv
while :; do echo $secret $(od -An -tx8 -N8 /dev/urandom); sleep 1; done
"""


usable, site, image = fixtures(Gvisor)


def wanted(
    site: Site, image: Image, name: str, logs: Path, script: str = APPLICATION, **more: object
) -> LaunchRequest:
    knobs = {START.name: RESTORE}
    return contract.request(site, image, name, "sh", "-c", script, logs=logs / name, knobs=knobs, **more)


def restore(site: Site, image: Image, name: str, logs: Path) -> HostInstance:
    instance = site.backend(GVISOR).launch(wanted(site, image, name, logs))
    assert isinstance(instance, HostInstance)
    return instance


def test_two_go_on_from_one(site: Site, image: Image, tmp_path: Path) -> None:
    """From memory and files as they were when it was saved, each with a place, an address and a log of its own."""
    backend = site.backend(GVISOR)
    backend.rehearse(wanted(site, image, "zero", tmp_path))
    assert len(list(site.scratch.glob("gvisor-saved-*.d"))) == 1
    assert set(site.network.links()) == {"lo", "lab0"}, "the saved one has ended"
    with ThreadPoolExecutor() as threads:
        pair = list(threads.map(lambda name: restore(site, image, name, tmp_path), ("one", "two")))
    first, second = pair
    with first, second:
        assert len(list(site.scratch.glob("gvisor-saved-*.d"))) == 1, "saved once"
        assert first.address != second.address
        assert not first.cgroup.processes() & second.cgroup.processes()
        for instance in pair:
            stamps = instance.timeline.stamps()
            assert sorted(stamps, key=stamps.__getitem__) == [Phase.REQUESTED, Phase.ISOLATED, Phase.RESTORED]
            assert instance.snapshot_bytes
            contract.check_limits(site, GVISOR, instance)
            contract.check_accounted(instance)
            contract.check_commands(instance)
            contract.until_listening(site, instance)
            assert inside(instance, "cat /tmp/mark /srv/mark") == "kept\nwritten\n"
            said = inside(instance, "cat /etc/hostname /etc/hosts; ifconfig eth0")
            assert said.startswith(f"{instance.name}\n")
            assert f"{instance.address}\t{instance.name}" in said
            assert f"inet addr:{instance.address} " in said
        inside(first, "echo mine >/srv/mark; echo more >/srv/more")
        assert inside(second, "cat /srv/mark; ls /srv") == "written\nindex.html\nmark\n"
        assert since(site, first) != since(site, second), "each draws randomness of its own"
        assert first.execute(["sh", "-c", "kill -9 $(pidof httpd)"]).exit_code == 0
        contract.until_listening(site, second)
        first.signal(signal.SIGTERM)
        assert first.wait(SECONDS) == 128 + signal.SIGTERM
    for instance in pair:
        contract.check_gone(site, instance)


def test_what_it_says_goes_to_a_second_place_besides(site: Site, image: Image, tmp_path: Path) -> None:
    """The Sentry remembers of a stream whether it was a file, and one that is none now would get nothing."""
    read, write = os.pipe()
    asked = wanted(site, image, "heard", tmp_path, f"{APPLICATION}# heard", stdout=write)
    with os.fdopen(read, "rb", 0) as besides, os.fdopen(write, "wb", 0), site.backend(GVISOR).launch(asked):
        ready, _, _ = select.select([besides], [], [], SECONDS)
        assert ready
        said = besides.read(4096)
        assert said
        assert wait_until(lambda: said in (asked.log_directory / "stdout.log").read_bytes())


def inside(instance: HostInstance, script: str) -> str:
    done = instance.execute(["sh", "-c", script])
    assert done.exit_code == 0, done
    return done.stdout.decode()


def since(site: Site, instance: HostInstance) -> str:
    """What the application has said since it goes on, after what it had said before: it still knows its secret."""
    (folder,) = site.scratch.glob("gvisor-saved-*.d")
    before, log = (folder / "stdout.log").read_text(), instance.request.log_directory / "stdout.log"
    assert before.startswith("begun\n")
    secret = before.splitlines()[1].split()[0]
    assert wait_until(lambda: log.read_text().removeprefix(before).count("\n") > 1)
    assert log.read_text().startswith(before)
    lines = log.read_text().removeprefix(before).splitlines()
    assert lines[0].split()[0] == secret
    return lines[0].split()[1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"detached": True}, "outlive lab"),
        ({"terminal": TerminalSize(rows=24, columns=80)}, "typed"),
        ({"volumes": (Volume(source="/usr", target="/seen"),)}, "files of the host"),
        ({"script": "exit 3"}, "ended with exit code 3"),
        ({"script": "exec 3>/srv/file; rm /srv/file; httpd -f -p 8000 -h /srv"}, "srv/file"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_a_line(
    site: Site, image: Image, tmp_path: Path, more: dict[str, object], says: str
) -> None:
    links = site.network.links()
    with pytest.raises(LaunchError, match=says) as caught:
        site.backend(GVISOR).launch(wanted(site, image, "refused", tmp_path, **more))  # type: ignore[arg-type]
    assert caught.value.exit_code == 125
    assert BOOT in (caught.value.hint or "")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < LINE
    assert site.network.links() == links


def test_what_was_changed_since_it_was_saved_is_not_executed(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written there by others, who can reach it, or in place of it; and what another program has saved."""
    made: list[SentryCheckpoint] = []
    of = SentryCheckpoint.of
    monkeypatch.setattr(SentryCheckpoint, "of", lambda *words: made.append(of(*words)) or made[-1])
    script = f"{APPLICATION}# another kind"
    backend = site.backend(GVISOR)
    backend.rehearse(wanted(site, image, "saved", tmp_path, script))
    images = made[0].images
    (pages,) = images.glob("pages.img")

    def touched() -> None:
        with pages.open("r+b") as file:
            file.write(b"x")

    links = site.network.links()
    for change, says in ((lambda: images.chmod(0o755), "others than its owner"), (touched, "changed since")):
        change()
        with pytest.raises(LaunchError, match=says) as caught:
            backend.launch(wanted(site, image, "changed", tmp_path, script))
        assert caught.value.exit_code == 125
        images.chmod(0o700)
    assert site.network.links() == links


HALF = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import contract
from tiny import tiny_image
from lab.backends.sentry.container import SentryContainer
from lab.backends.site import Site

site = Site.open()
image = tiny_image(site.store)
backend = site.backend("gvisor")
backend.prepare(image)
spawn = SentryContainer._spawn

def told(self, words, *more, **fields):
    pid = spawn(self, words, *more, **fields)
    if {verb!r} in words:
        print(site.session.id, flush=True)
    return pid

SentryContainer._spawn = told
knobs = {{"start": "restore"}}
backend.launch(contract.request(site, image, "lost", logs=Path({logs!r}), knobs=knobs))
input()
"""


@pytest.mark.alone
@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_a_lab_that_is_killed_in_the_middle_leaves_nothing(image: Image, tmp_path: Path, verb: str) -> None:
    before = snapshot()
    script = HALF.format(tests=str(Path(contract.__file__).parent), logs=str(tmp_path / "logs"), verb=verb)
    with cleaned(script) as session:
        assert session
    assert_unchanged(before)
