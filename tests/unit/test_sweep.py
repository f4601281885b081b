"""``lab sweep``: what a plan and a request may say, what a host answers, what counts as arrived."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import SCENARIO, lines, template, write_lab
from synthetic import DIGEST

from lab import load
from lab.commands import polite
from lab.commands.sweeping import plan, wire
from lab.commands.sweeping.engine import Client, LocalCluster
from lab.commands.sweeping.host import Host, lab_digest, scenario_folder
from lab.commands.sweeping.ledger import Sweep, unfinished
from lab.commands.sweeping.links import make_keys
from lab.commands.sweeping.wire import Do, Request, State
from lab.commands.sweeping.worker import Keys
from lab.commands.watching.causes import tree_digest
from lab.errors import LabError, ResultsError, UsageError

LAB = [sys.executable, "-m", "lab.cli.main"]
PLAN = """
scenarios = ["web-app"]
backends = ["process", "container"]
runs = 2
options = ["--budget", "10m", "--idle=1s"]
[factors]
cpus = ["0.5", "1"]
[polite]
busy = 1000
patience = "2h"
"""
HOSTS = '[hosts.alpha]\nssh = "sweep@alpha"\nlab = "/opt/lab"\n[hosts.beta]\nssh = "beta"\nkey = "key"\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


def read(folder: Path, text: str, name: str = "night.toml") -> plan.Plan:
    (folder / name).write_text(text)
    return plan.read_plan(folder / name)


def test_a_plan_becomes_options_of_lab_compare(tmp_path: Path) -> None:
    found = read(tmp_path, PLAN)
    assert found.options == ("--budget=10m", "--idle=1s", "--on=process,container", "--factor=cpus=0.5,1")
    assert (found.runs, found.busy, found.patience_seconds) == (2, 1000, 7200)
    assert found.results == str(tmp_path / "results")


@pytest.mark.parametrize(
    "text",
    [
        "scenarios = ", "runs = 1", "scenarios = []", "scenarios = ['a', 'a']", "scenarios = ['../etc']",
        "scenarios = 'a'",
        "scenarios = ['a']\nruns = 0", "scenarios = ['a']\nretries = 99", "scenarios = ['a']\nbogus = 1",
        "scenarios = ['a']\noptions = ['--blocks']", "scenarios = ['a']\noptions = ['--out', '/etc']",
        "scenarios = ['a']\noptions = ['--secret=id=x,src=/etc/shadow']",
        "scenarios = ['a']\nbackends = ['oci:/bin/sh']",
        "scenarios = ['a']\n[factors]\n'arg.X' = ['1', '2']", "scenarios = ['a']\n[images]\na = 'latest'",
        "scenarios = ['a']\n[polite]\nbusy = 0",
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.hint


def test_hosts_are_read_and_wrong_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    with pytest.raises(UsageError, match="key"):
        plan.read_hosts(path)
    (tmp_path / "key").touch()
    alpha, beta = plan.read_hosts(path)
    assert (alpha.ssh, alpha.lab, alpha.command, beta.key) == ("sweep@alpha", "/opt/lab", (), str(tmp_path / "key"))
    for text in (
        "",
        "[hosts.a]",
        "[hosts.A]\nssh='a'",
        "[hosts.a]\nssh='-oProxyCommand=x'",
        "[hosts.a]\nssh='a'\nport=0",
    ):
        path.write_text(text)
        with pytest.raises(UsageError):
            plan.read_hosts(path)


@pytest.mark.parametrize(
    "words",
    [
        (), ("plan.toml",), ("plan.toml", "--local", "--scheduler", "tls://x:1"), ("--resume", "x", "plan.toml"),
        ("plan.toml", "--scheduler", "tcp://192.0.2.1:8786"), ("plan.toml", "--scheduler", "tls://192.0.2.1:8786"),
        ("plan.toml", "--local", "--tls-key", "x"), ("status", "/nonexistent/sweep"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_one_line_and_a_remedy(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    command = [*LAB, "sweep", *words] if words else [*LAB, "sweep", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if "status" in words else 2)
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["plan.toml"]


def request(do: Do = Do.MEASURE, **changed: Any) -> Request:
    given: dict[str, Any] = {
        "do": do, "ids": ("0a-alpha-web-app-1",), "scenario": SCENARIO, "options": ("--blocks=2",), "busy": 1000.0,
        "lab": lab_digest(), "files": tree_digest(scenario_folder(SCENARIO, [])), "image": DIGEST,
    }  # fmt: skip
    return Request(**given | changed)


def test_a_request_is_read_as_it_was_written() -> None:
    asked = request()
    assert wire.parse(asked.line()) == asked


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": ("../../etc",)}, {"ids": ()}, {"ids": ("a", "b")}, {"scenario": "/tmp/mine"}, {"scenario": "../mine"},
        {"options": ("--out=x",)}, {"options": ("--on=oci:/tmp/evil",)}, {"options": ("--factor=arg.X=a,b",)},
        {"options": ("--blocks=1 --out=/etc",)}, {"options": ("--blocks",)}, {"patience_seconds": 1e12},
        {"options": ("--on=vm:/dev/sda",)}, {"busy": 0.0},
    ],
)  # fmt: skip
def test_what_would_give_the_asker_more_than_a_measurement_is_refused(changed: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError):
        wire.parse(request(**changed).line())


@given(st.binary(max_size=200))
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(UsageError):
        wire.parse(line)


class Asked:
    """A host, and what it answers."""

    def __init__(self, folder: Path, run: Path, **told: Any) -> None:
        self.own, self.spool = folder / "own", folder / "spool"
        program = write_lab(self.own, run, **told)
        self._out = bytearray()
        self._host = Host(spool=self.spool, scenarios=(), write=self._out.extend, lab=(str(program),))

    def __call__(self, asked: Request) -> tuple[Mapping[str, Any], bytes]:
        """The last answer and what stands behind it."""
        self._out.clear()
        self._host.answer(asked.line())
        rest, found = bytes(self._out), None
        while found is None or found["state"] not in wire.ENDS:
            line, _, rest = rest.partition(b"\n")
            found = wire.read_answer(line)
        return found, rest


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(polite, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))


def test_a_host_measures_once_and_hands_over_until_it_may_forget(tmp_path: Path, run: Path) -> None:
    ask = Asked(tmp_path, run)
    assert ask(request(Do.PREPARE))[0]["image"] == DIGEST
    first, data = ask(request())
    again, same = ask(request())
    assert (first, data) == (again, same)
    assert len(lines(ask.own / "measured")) == 1, "a task with a result hands it over"
    assert len(data) == first["bytes"] == sum(size for _, size, _ in first["files"])
    assert {name for name, _, _ in first["files"]} >= {"run.json", "samples.jsonl"}
    assert ask(Request(do=Do.FORGET, ids=request().ids))[0]["state"] is State.DONE
    assert list(ask.spool.iterdir()) == []
    assert ask(Request(do=Do.FORGET, ids=request().ids))[0]["state"] is State.DONE, "twice is no harm"


def test_what_was_interrupted_on_a_host_goes_on_there(tmp_path: Path, run: Path) -> None:
    ask = Asked(tmp_path, run)
    runs = ask.spool / request().ids[0] / "runs" / "begun"
    runs.mkdir(parents=True)
    for name in ("run.json", "samples.jsonl"):
        (runs / name).write_bytes((run / name).read_bytes())
    told = json.loads((runs / "run.json").read_text())
    (runs / "run.json").write_text(json.dumps(told | {"ended_because": ""}))
    assert ask(request())[0]["state"] is State.DONE
    assert [line.split()[1:] for line in lines(ask.own / "began")] == [["again"]]


@pytest.mark.parametrize("changed", [{"lab": "f" * 16}, {"files": "f" * 16}, {"scenario": "unheard-of"}])
def test_a_host_that_differs_refuses_and_measures_nothing(
    tmp_path: Path, run: Path, changed: Mapping[str, str]
) -> None:
    ask = Asked(tmp_path, run)
    found, _ = ask(request(**changed))
    assert found["state"] is State.REFUSED
    assert found["why"]
    assert not (ask.own / "began").exists()


def test_a_busy_host_refuses_and_another_image_too(tmp_path: Path, run: Path) -> None:
    ask = Asked(tmp_path, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.commands.sweeping.host.becomes_quiet", lambda busy, patience: False)
        assert ask(request())[0]["state"] is State.REFUSED
    assert not (ask.own / "began").exists()
    found, _ = ask(request(image="sha256:" + "0" * 64))
    assert found["state"] is State.REFUSED
    assert DIGEST in found["why"]


def test_a_host_measures_for_one_sweep_at_a_time(tmp_path: Path, run: Path) -> None:
    ask = Asked(tmp_path, run)
    with polite.one_at_a_time():
        waiting = threading.Thread(target=ask, args=(request(),))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert not (ask.own / "began").exists()
    waiting.join(60)
    assert len(lines(ask.own / "measured")) == 1


def test_the_scheduler_listens_on_the_loopback_to_whoever_shows_a_certificate() -> None:
    """To a client that has none it says nothing; its own client is the control."""
    keys, others = make_keys(), make_keys()
    address = {"n_workers": 0, "host": "127.0.0.1", "protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**address, security=keys.security(), silence_logs=50) as cluster:
        where = cluster.scheduler_address
        assert where.startswith("tls://127.0.0.1:")
        with Client(where, security=keys.security(), timeout=20):
            pass
        for wrong in (where, where.replace("tls", "tcp")):
            with pytest.raises((OSError, RuntimeError)), Client(wrong, security=others.security(), timeout=1):
                pass
        assert heard(int(where.rpartition(":")[2]), keys) == b""


def heard(port: int, keys: Keys) -> bytes:
    """What a server says to somebody who knows its certificate, and shows none; of TLS 1.3 it is told late."""
    context = ssl.create_default_context(cadata=keys.certificate)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        try:
            with context.wrap_socket(plain) as bare:
                return bare.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_what_failed_is_said_and_measured_anew(tmp_path: Path, run: Path) -> None:
    ask = Asked(tmp_path, run)
    (ask.own / "fails").touch()
    assert ask(request())[0]["state"] is State.FAILED
    (ask.own / "fails").unlink()
    assert ask(request())[0]["state"] is State.DONE


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    files = {SCENARIO: tree_digest(scenario_folder(SCENARIO, []))}
    hosts = [plan.Host(name="alpha"), plan.Host(name="beta")]
    return Sweep.create(read(tmp_path, PLAN), hosts, lab_digest(), files)


def sent(run: Path) -> tuple[list[tuple[str, int, str]], bytes]:
    contents = [(path.name, path.read_bytes()) for path in sorted(run.iterdir()) if path.is_file()]
    files = [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in contents]
    return files, b"".join(data for _, data in contents)


def test_a_sweep_is_read_as_it_was_made_and_has_ids_of_its_own(sweep: Sweep, tmp_path: Path) -> None:
    again = Sweep.open(sweep.path)
    assert (again.plan, again.hosts, again.tasks) == (sweep.plan, sweep.hosts, sweep.tasks)
    assert [(each.host, each.number) for each in sweep.tasks] == [
        ("alpha", 1),
        ("beta", 1),
        ("alpha", 2),
        ("beta", 2),
    ]
    other = Sweep.create(sweep.plan, sweep.hosts, sweep.lab, sweep.files)
    assert not {each.id for each in other.tasks} & {each.id for each in sweep.tasks}
    assert all(wire.ID.fullmatch(each.id) for each in sweep.tasks)


def test_a_run_that_arrives_is_an_ordinary_one(sweep: Sweep, run: Path) -> None:
    task = sweep.tasks[0]
    placed = sweep.place(task, *sent(run))
    assert load(placed).run.scenario == SCENARIO
    sums = subprocess.run(
        ["sha256sum", "-c", "--quiet", sweep.path / "digests" / f"{task.id}.sha256"], cwd=placed, check=False
    )
    assert sums.returncode == 0
    assert sweep.place(task, *sent(run)) == placed, "twice is no harm"
    assert sweep.names() == {load(placed).run.host["identity"]: task.host}


def spoilt(files: list[tuple[str, int, str]], data: bytes, how: str) -> tuple[list[tuple[str, int, str]], bytes]:
    (_, size, digest), *rest = files
    match how:
        case "a bit":
            return files, bytes([data[0] ^ 1]) + data[1:]
        case "cut off":
            return files, data[:-1]
        case "too much":
            return files, data + b"x"
        case "twice":
            return [files[0], *files], data[:size] + data
        case "no run":
            return [], b""
        case _:
            return [(how, size, digest), *rest], data


@pytest.mark.parametrize(
    "how",
    ["a bit", "cut off", "too much", "twice", "no run", "../../escaped", "/tmp/escaped", "a//b", "a/../../b", "."],
)  # fmt: skip
def test_what_did_not_arrive_whole_does_not_count(sweep: Sweep, run: Path, how: str) -> None:
    before = sorted(sweep.path.parent.rglob("*"))
    with pytest.raises(ResultsError):
        sweep.place(sweep.tasks[0], *spoilt(*sent(run), how))
    assert sorted(sweep.path.parent.rglob("*")) == before, "and nothing of it is left"


def test_a_run_of_another_image_or_that_has_not_ended_does_not_count(sweep: Sweep, run: Path, tmp_path: Path) -> None:
    sweep.note("", State.DONE, scenario=SCENARIO, image="sha256:" + "1" * 64)
    with pytest.raises(ResultsError, match="image"):
        sweep.place(sweep.tasks[0], *sent(run))
    torn = json.loads((run / "run.json").read_text()) | {"ended_because": "interrupted"}
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text(json.dumps(torn))
    with pytest.raises(ResultsError, match="not ended"):
        sweep.place(sweep.tasks[0], *sent(tmp_path / "torn"))


def test_what_a_crash_leaves_is_mended_and_what_nobody_is_at_is_pending(sweep: Sweep, run: Path) -> None:
    first, second, *_ = sweep.tasks
    sweep.note(first.id, State.MEASURING)
    sweep.note(second.id, State.MEASURING)
    sweep.place(first, *sent(run))
    part = sweep.path / "runs" / f".part-{second.id}"
    part.mkdir()
    with (sweep.path / "events.jsonl").open("ab") as file:
        file.write(b'{"at": "2026')
    assert sweep.standings()[second.id].state is State.PENDING
    with sweep.held():
        assert not part.exists()
        standings = sweep.standings()
        assert standings[first.id].state is State.DONE
        assert standings[second.id].state is State.MEASURING
        with pytest.raises(ResultsError), Sweep.open(sweep.path).held():
            pass
    left = unfinished(sweep)
    assert isinstance(left, LabError)
    assert "3 pending" in left.message


def test_status_shows_each_task_with_its_reason(sweep: Sweep) -> None:
    sweep.note(sweep.tasks[0].id, State.REFUSED, "it has another kernel")
    done = subprocess.run([*LAB, "sweep", "status", sweep.path], capture_output=True, text=True, check=True)
    assert "it has another kernel" in done.stdout
    shown = subprocess.run(
        [*LAB, "sweep", "status", sweep.path, "--json"], capture_output=True, text=True, check=True
    )
    told = json.loads(shown.stdout)
    assert [each["state"] for each in told["tasks"]] == ["refused", "pending", "pending", "pending"]
    assert told["at_work"] is False
