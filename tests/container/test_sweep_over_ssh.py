"""``lab sweep`` over ssh: two hosts, the end of each part at a bad moment, and what arrives: every task, once.

The hosts run the real worker and the real command of a host; in place of lab compare runs a program that notes it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_state import assert_unchanged, snapshot, wait_until
from reached import PORT, UID, Reached, empty, forget, hosts, own
from sweeping import SCENARIO, lines, template, write_lab
from synthetic import DIGEST

from lab.analysis import load
from lab.commands.sweeping.ledger import Sweep
from lab.commands.sweeping.wire import State
from lab.commands.sweeping.worker import LEASE_SECONDS
from lab.host.home import home

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.alone]  # its links are in the host's own namespace

LAB = [sys.executable, "-m", "lab.cli.main"]
RUNS, NAMES = 3, ("alpha", "beta")
PLAN = f'scenarios = ["{SCENARIO}"]\nruns = {RUNS}\noptions = ["--blocks", "2"]\n[polite]\nbusy = 1000\n'
ALL_SECONDS = 400.0
CLEANED_SECONDS = 20.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


class Site:
    """Two hosts, and a sweep over them."""

    def __init__(self, folder: Path, hosts: dict[str, Reached]) -> None:
        self.folder, self.hosts = folder, hosts
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        words = ["--resume", str(self.path)] if self.begun() else ["plan.toml", "--hosts", "hosts.toml"]
        with (self.folder / "log").open("ab") as log:
            self.driver = subprocess.Popen([*LAB, "sweep", *words], cwd=self.folder, stdout=log, stderr=log)
        return self.driver

    def begun(self) -> list[Path]:
        return list(self.folder.glob("results/sweeps/*/sweep.json"))

    @property
    def path(self) -> Path:
        (file,) = self.begun()
        return file.parent

    @property
    def sweep(self) -> Sweep:
        return Sweep.open(self.path)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def measuring(self, host: str) -> bool:
        """Whether it is at a task now: more has begun than has been measured."""
        began, measured = (lines(self.hosts[host].own / name) for name in ("began", "measured"))
        return bool(began) and began[-1].split()[0] not in measured

    def until_measuring(self, host: str) -> None:
        assert wait_until(lambda: self.measuring(host), timeout_seconds=120), self.log()

    def finish(self, seconds: float = ALL_SECONDS) -> None:
        assert self.driver is not None
        assert self.driver.wait(seconds) == 0, self.log()

    def worker_of(self, host: str) -> int:
        (number,) = (
            pid for pid, words in self.hosts[host].processes() if "python" in words and "sweep worker" in words
        )
        return number


@pytest.fixture
def site(run: Path) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="lab-sweep-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = folder / "run"
    subprocess.run(["cp", "-r", run, made], check=True)
    subprocess.run(["chmod", "-R", "a+rX", made], check=True)
    (folder / "plan.toml").write_text(PLAN)
    before = snapshot()
    try:
        with hosts(folder, NAMES, home()) as found:
            for host in found.values():
                write_lab(host.own, made, seconds=2)
                own(host.own)
            site = Site(folder, found)
            yield site
            if site.driver is not None and site.driver.poll() is None:
                site.driver.kill()
                site.driver.wait()
    finally:
        forget(folder)
    assert_unchanged(before, within_seconds=20)


def each_arrived_once(site: Site) -> None:
    sweep = site.sweep
    assert {each.state for each in sweep.standings().values()} == {State.DONE}
    assert sorted(path.name for path in (site.path / "runs").iterdir()) == sorted(each.id for each in sweep.tasks)
    for task in sweep.tasks:
        placed = site.path / "runs" / task.id
        assert load(placed).run.scenario == SCENARIO
        sums = ["sha256sum", "-c", "--quiet", site.path / "digests" / f"{task.id}.sha256"]
        assert subprocess.run(sums, cwd=placed, check=False).returncode == 0
    for host in site.hosts.values():
        assert len(lines(host.own / "measured")) == RUNS, f"{host.name} measured each of its tasks once"
        assert not empty(host, within_seconds=CLEANED_SECONDS)
        kept = host.folder / "home/.local/share/lab/sweep"
        assert list(kept.iterdir()) == [], "it may forget what has arrived"


def test_nothing_goes_wrong(site: Site) -> None:
    site.start()
    site.until_measuring("alpha")
    host = site.hosts["alpha"]
    assert host.listening() == {f"{host.address}:{PORT}"} | {
        each for each in host.listening() if "127.0.0.1:" in each
    }
    assert len(host.listening()) > 1, "the worker listens, on the loopback"
    for number, words in host.processes():
        users = Path(f"/proc/{number}/status").read_text().partition("Uid:")[2].split()[:4]
        assert set(users) == {str(UID)} or words.startswith("sh -c  set -e mount"), words
    site.finish()
    each_arrived_once(site)
    assert list((site.path / "hosts").glob("*.html")), site.log()


def test_a_worker_dies(site: Site) -> None:
    site.start()
    site.until_measuring("alpha")
    os.kill(site.worker_of("alpha"), signal.SIGKILL)
    site.finish()
    each_arrived_once(site)


def test_the_driver_dies_and_is_resumed(site: Site) -> None:
    driver = site.start()
    site.until_measuring("alpha")
    driver.kill()
    driver.wait()
    for host in site.hosts.values():
        assert not empty(host, within_seconds=CLEANED_SECONDS), "the end of the driver ends what it began"
    assert State.PENDING in {each.state for each in site.sweep.standings().values()}
    site.start()
    site.finish()
    each_arrived_once(site)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_on_any_host(site: Site, number: signal.Signals) -> None:
    driver = site.start()
    site.until_measuring("beta")
    driver.send_signal(number)
    assert driver.wait(120) == 128 + number, site.log()
    for host in site.hosts.values():
        assert not host.processes(), "they end before the driver does"
    site.start()
    site.finish()
    each_arrived_once(site)


def test_the_network_parts_and_comes_back(site: Site) -> None:
    (site.hosts["alpha"].own / "seconds").write_text("300")
    site.start()
    site.until_measuring("alpha")
    site.hosts["alpha"].connect(up=False)
    assert not empty(site.hosts["alpha"], within_seconds=LEASE_SECONDS + CLEANED_SECONDS)
    (site.hosts["alpha"].own / "seconds").write_text("1")
    site.hosts["alpha"].connect(up=True)
    site.finish()
    each_arrived_once(site)


def test_a_driver_that_is_slow_is_waited_for(site: Site) -> None:
    driver = site.start()
    site.until_measuring("alpha")
    driver.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS / 2)
    driver.send_signal(signal.SIGCONT)
    site.finish()
    each_arrived_once(site)
    assert len(lines(site.hosts["alpha"].own / "began")) == RUNS, "nothing was interrupted"


def test_a_host_dies_and_comes_back(site: Site) -> None:
    site.start()
    site.until_measuring("alpha")
    site.hosts["alpha"].kill()
    assert wait_until(lambda: len(lines(site.hosts["beta"].own / "measured")) == RUNS, timeout_seconds=200)
    site.hosts["alpha"].start()
    site.finish()
    each_arrived_once(site)


def test_a_host_that_differs_is_refused_by_name(site: Site) -> None:
    with (site.folder / "plan.toml").open("a") as plan:
        plan.write(f'[images]\n{SCENARIO} = "{DIGEST}"\n')
    (site.hosts["beta"].own / "digest").write_text("sha256:" + "e" * 64)
    (site.hosts["alpha"].own / "seconds").write_text("0")
    assert site.start().wait(ALL_SECONDS) == 1
    standings, tasks = site.sweep.standings(), site.sweep.tasks
    states = {host: {standings[each.id].state for each in tasks if each.host == host} for host in NAMES}
    assert states == {"alpha": {State.DONE}, "beta": {State.REFUSED}}, site.log()
    (why,) = {each.why for each in standings.values() if each.state is State.REFUSED}
    assert "beta" in why
    assert "e" * 64 in why
    assert not (site.hosts["beta"].own / "began").exists()


def test_the_driver_dies_at_any_moment(site: Site) -> None:
    """Killed again and again, at moments that are drawn."""
    chance = random.Random(20261129)
    for _ in range(12):
        driver = site.start()
        try:
            driver.wait(chance.uniform(2, 18))
            break
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
        time.sleep(chance.uniform(0, 2))
    if site.driver is None or site.driver.returncode != 0:
        site.start()
        site.finish()
    each_arrived_once(site)
