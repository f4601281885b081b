"""What is owed after the first answer: measured of real servers, one of which is slow for its first ten requests."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from local_instance import LOOPBACK, LocalInstance
from synthetic import keep_only, write_run

import lab
from lab.analysis.debt import LATER, PLACES, by_request, owed, went_on
from lab.host.cgroup.control import PageFaults
from lab.metrics.base import Subject
from lab.metrics.debt import BATCH, REQUESTS, Debt, between
from lab.metrics.ready.readiness import wait_ready
from lab.model import HttpReadiness, Scenario, StartedReadiness, TcpReadiness
from lab.reports.figures import charts
from lab.reports.material import Material
from lab.reports.words.debt import growth, statements, table
from lab.results.observation import Observation
from lab.results.record import Sample, Status
from lab.results.store import RunFolder

SLEEP_SECONDS = 0.2
PAGES = 2048
SERVER = """
import http.server, mmap, os, sys, time
port, sleep, slow, pages, wrong = int(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:])
memory, answered = mmap.mmap(-1, 4096 * max(1, pages)), 0
memory.madvise(mmap.MADV_NOHUGEPAGE)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global answered
        answered += 1
        if 1 < answered <= 1 + slow:
            time.sleep(sleep)
        if answered == 2:
            for page in range(pages):
                memory[4096 * page] = 1
        self.send_response(500 if answered == wrong else 200)
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
"""Sleeps for some of the requests after the first, touches pages at the second, answers one of them wrong."""


def measured(logs: Path, *, slow: int = 0, pages: int = 0, wrong: int = 0) -> list[Observation]:
    """A copy asked as an experiment asks it; of that, what is owed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    scenario = Scenario(
        name="s", title="S", directory=Path(), dockerfile=Path(), port=port, readiness=HttpReadiness(body="hello"),
        ready_timeout_seconds=250,
    )  # fmt: skip
    logs.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-c", SERVER, str(port), str(SLEEP_SECONDS), str(slow), str(pages), str(wrong)]
    with LocalInstance(argv, logs) as instance:
        subject = Subject.before_launch(scenario=scenario, network=LOOPBACK, idle_seconds=0.01)
        subject.launched(instance)
        wait_ready(subject)
        metric = Debt()
        return [*metric.ready(subject), *metric.idle(subject)]


def of(seen: Sequence[Observation], quantity: str, state: str = "") -> Observation:
    (found,) = [each for each in seen if (each.quantity, each.state) == (quantity, state)]
    return found


def write(root: Path, arms: dict[str, list[list[Observation]]], **restored: list[float]) -> Path:
    """A run folder whose arms have these copies, a block each, and no other samples but their boots."""
    folder: RunFolder = write_run(root, blocks=max(map(len, arms.values())), bad_luck=False)
    boots = [each for each in folder.samples() if each.quantity == "boot.total" and not each.warmup]
    keep_only(folder, lambda raw: raw["quantity"].startswith("boot.") and raw["arm"] in arms and not raw["warmup"])
    for boot in boots:
        for each in arms[boot.arm][boot.block - 1] if boot.arm in arms else ():
            folder.append(sample(boot, each))
        for phase, seconds in zip(("isolated", "restored"), restored.get(boot.arm, ()), strict=False):
            folder.append(replace(boot, quantity=f"boot.{phase}", value=seconds))
    return folder.path


def sample(boot: Sample, seen: Observation) -> Sample:
    return replace(
        boot, metric="debt", quantity=seen.quantity, value=seen.value, unit=seen.unit, state=seen.state,
        status=seen.status, text=seen.text, detail=dict(seen.detail), resolution=seen.resolution,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five copies of an application that sleeps for its first ten requests, as "container", and of one that does not.

    What differs is the sleep alone, two seconds in all, which is more than a busy host does to a hundred requests.
    """
    root = tmp_path_factory.mktemp("debt")
    copies = range(5)
    slow = [measured(root / f"slow{copy}", slow=10) for copy in copies]
    plain = [measured(root / f"plain{copy}") for copy in copies]
    return write(root, {"process": plain, "container": slow})


def test_who_sleeps_for_its_first_ten_requests_owes_and_who_does_not_does_not(run: Path) -> None:
    loaded = lab.load(run)
    found = {row["arm"]: row for row in owed(loaded).to_dict("records")}
    assert set(found) == {"process", "container"}
    assert found["container"]["claim"], found["container"]["why"]
    assert found["process"]["ratio"] < found["container"]["low"]
    seconds = loaded.measured[loaded.measured["quantity"] == "debt.owed"].groupby("arm")["value"].median()
    assert seconds["container"] > 10 * SLEEP_SECONDS * 0.8
    assert abs(seconds["process"]) < 10 * SLEEP_SECONDS / 2


def test_the_figure_shows_which_of_the_answers_it_is(run: Path) -> None:
    material = Material.read(run)
    frame = by_request(material.loaded.frame)
    medians = {(row["arm"], row["requests"]): row["median"] for row in frame.to_dict("records")}
    for requests in ("1", "2", "3–4", "5–8"):
        assert medians["container", requests] > SLEEP_SECONDS
    for requests in ("17–32", "33–64", "65–100", LATER):
        assert medians["container", requests] < SLEEP_SECONDS
    (drawn,) = [each for each in charts(material) if each.name == "debt"]
    (panel,) = drawn.chart.panels
    assert {row["label"] for row in panel.rows} == {"process", "container"}
    assert all([point["at"] for point in row["points"]] == list(range(len(PLACES) + 1)) for row in panel.rows)
    assert drawn.csv.count("\n") == 1 + 2 * (len(PLACES) + 1)


def test_every_answer_is_kept(run: Path) -> None:
    asked = lab.load(run).measured.query("quantity == 'debt.seconds'")
    assert set(asked["state"]) == {"first", "later"}
    for value, detail in zip(asked["value"], asked["detail"], strict=True):
        assert len(detail["latency_seconds"]) == REQUESTS
        assert sum(detail["latency_seconds"]) == pytest.approx(value, rel=1e-3)
    slow = asked[(asked["arm"] == "container") & (asked["state"] == "first")]
    assert all(min(detail["latency_seconds"][:10]) >= SLEEP_SECONDS for detail in slow["detail"])


def test_the_report_claims_what_the_judge_does(run: Path) -> None:
    material = Material.read(run)
    told = {each.sentence.partition(":")[0]: each for each in statements(material)}
    assert told["container"].claim
    (grown,) = growth(material)
    assert all(f"{arm} " in grown.sentence for arm in told)
    assert not grown.claim
    rows = {row.header: row for row in table(material).rows}
    verdicts = {arm: [cell.verdict for cell in row.cells if cell.verdict] for arm, row in rows.items()}
    assert verdicts["container"] == ["different"]


def test_pages_that_are_touched_are_faults_and_memory(tmp_path: Path) -> None:
    seen = measured(tmp_path, pages=PAGES)
    first, later = (of(seen, "debt.faults.minor", state).value or 0 for state in ("first", "later"))
    assert PAGES <= first < 2 * PAGES
    assert later < PAGES / 4
    ready, answered = (of(seen, "debt.resident", state).value or 0 for state in ("ready", "answered"))
    assert answered - ready >= 0.95 * 4096 * PAGES
    assert (of(seen, "debt.growth").value or 0) >= 0.95 * 4096 * PAGES


def test_a_wrong_answer_is_a_failed_hundred_and_no_debt(tmp_path: Path) -> None:
    seen = measured(tmp_path / "one", wrong=30)
    asked = of(seen, "debt.seconds", "first")
    assert (asked.status, asked.value) == (Status.FAILED, None)
    assert "500" in asked.text
    assert len(asked.detail["latency_seconds"]) == 28, "one was the readiness's, one was wrong"
    assert of(seen, "debt.seconds", "later").status is Status.OK
    assert not [each for each in seen if each.quantity in ("debt.owed", "debt.latency.1")]
    good = [measured(tmp_path / f"good{copy}", slow=10) for copy in range(3)]
    (row,) = owed(lab.load(write(tmp_path / "run", {"process": [seen, *good]}))).to_dict("records")
    assert not row["claim"]
    assert "wrong" in row["why"]


@pytest.mark.parametrize("readiness", [None, StartedReadiness(), TcpReadiness()])
def test_what_gives_no_answer_is_asked_for_none(readiness: TcpReadiness | None, tmp_path: Path) -> None:
    scenario = Scenario(name="s", title="S", directory=Path(), dockerfile=Path(), port=1, readiness=readiness)
    with LocalInstance(["sleep", "600"], tmp_path) as instance:
        subject = Subject.before_launch(scenario=scenario, network=LOOPBACK, idle_seconds=0)
        subject.launched(instance)
        metric = Debt()
        assert not [*metric.ready(subject), *metric.idle(subject)]


def test_when_a_restored_one_went_on_is_told_beside_when_it_answered(run: Path, tmp_path: Path) -> None:
    folder = RunFolder.open(run)
    copies = {
        arm: [
            [
                Observation(
                    quantity=each.quantity, value=each.value, unit=each.unit, state=each.state, detail=each.detail
                )
                for each in folder.samples()
                if (each.metric, each.arm, each.block) == ("debt", arm, block)
            ]
            for block in range(1, 6)
        ]
        for arm in ("process", "container")
    }  # fmt: skip
    path = write(tmp_path, copies, container=[0.25, 0.5])
    assert went_on(lab.load(path).frame) == {"container": pytest.approx(0.75, abs=0.1)}
    told = {each.sentence.partition(":")[0]: each.sentence for each in statements(Material.read(path))}
    assert "restored" in told["container"]
    assert "restored" not in told["process"]


def test_faults_are_the_processes_own_unless_some_have_ended() -> None:
    zero, some = PageFaults(minor=0, major=0), PageFaults(minor=500, major=3)
    many = PageFaults(minor=10**6, major=7)
    assert between(zero, some, None, None) == (some, 0)
    assert between(zero, some, zero, PageFaults(minor=430, major=3)) == (some, 0), "held back by the kernel"
    found, resolution = between(zero, some, zero, many)
    assert found == many, "children have ended, whom nobody waited for"
    assert resolution >= BATCH
    assert between(some, zero, None, None) == (None, 0), "one has ended, with all that it counted"
