"""Readiness and metrics over a real server on the loopback, with the helper program as what is inside."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_state import wait_until
from local_instance import LOOPBACK, LocalInstance

from lab.errors import LabError, LaunchError, NotReady
from lab.host.survey import virtualisation
from lab.metrics.base import Metric, Subject
from lab.metrics.clients import wrk
from lab.metrics.cpu import Cpu
from lab.metrics.memory import Memory
from lab.metrics.ready import readiness
from lab.metrics.ready.readiness import listeners, listening_sockets, wait_ready
from lab.metrics.registry import usual_metrics
from lab.model import Completed, HttpReadiness, Load, LogReadiness, Phase, Readiness, Scenario, TcpReadiness
from lab.results.observation import Observation
from lab.results.record import Status

SERVER = """
import http.server, sys, time
answers = sys.argv[2].split(",")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        status, _, body = (answers.pop(0) if len(answers) > 1 else answers[0]).partition(" ")
        time.sleep(600 if status == "later" else 0)
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_): pass
time.sleep(float(sys.argv[3]))
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("serving", flush=True)
server.serve_forever()
"""


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody else is given: it stays bound here, which who says SO_REUSEADDR as well may listen on."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def scenario(port: int | None, readiness: Readiness | None, **more: object) -> Scenario:
    plain = Scenario(
        name="s",
        title="S",
        directory=Path(),
        dockerfile=Path(),
        port=port,
        readiness=readiness,
        ready_timeout_seconds=120,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def served(port: int, answers: str = "200 hello", delay: float = 0.0) -> list[str]:
    return [sys.executable, "-c", SERVER, str(port), answers, str(delay)]


def subject_of(instance: LocalInstance, wanted: Scenario, idle_seconds: float = 0.05) -> Subject:
    subject = Subject.before_launch(scenario=wanted, network=LOOPBACK, idle_seconds=idle_seconds)
    subject.launched(instance)
    return subject


# Readiness


def test_http_waits_for_the_right_status_and_body(port: int, tmp_path: Path) -> None:
    answers = "503 busy,200 starting,200 hello"
    with LocalInstance(served(port, answers, delay=0.2), tmp_path) as instance:
        wait_ready(subject_of(instance, scenario(port, HttpReadiness(path="/x?y", body="hell"))))
        stamps = instance.timeline.stamps()
    assert stamps[Phase.EXECUTED] + 0.2 <= stamps[Phase.LISTENING] <= stamps[Phase.RESPONDED]
    waited = stamps[Phase.LISTENING] - stamps[Phase.EXECUTED]
    assert 0 < instance.timeline.resolution_seconds(Phase.LISTENING) < waited, (
        "a step, and what a busy host adds to it"
    )


def test_a_wrong_answer_is_never_ready_and_is_told_though_the_next_does_not_come(port: int, tmp_path: Path) -> None:
    wanted = scenario(port, HttpReadiness(status=200), ready_timeout_seconds=5)
    with LocalInstance(served(port, "404 no,later"), tmp_path) as instance:
        assert wait_until((tmp_path / "stdout.log").read_text, 30), "it does not serve"
        with pytest.raises(NotReady, match="status 404 instead of 200"):
            wait_ready(subject_of(instance, wanted))
        assert instance.timeline.at(Phase.LISTENING) is not None
        assert instance.timeline.at(Phase.RESPONDED) is None


def test_tcp_is_ready_when_the_port_accepts(port: int, tmp_path: Path) -> None:
    with LocalInstance(served(port), tmp_path) as instance:
        wait_ready(subject_of(instance, scenario(port, TcpReadiness())))
        assert instance.timeline.at(Phase.RESPONDED) == instance.timeline.at(Phase.LISTENING)


def test_a_line_of_the_log(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo starting; sleep 0.1; echo ready to serve >&2; exec sleep 600"]
    with LocalInstance(command, tmp_path) as instance:
        wait_ready(subject_of(instance, scenario(None, LogReadiness(pattern=r"ready\b.*serve"))))
        executed, responded = (instance.timeline.at(phase) for phase in (Phase.EXECUTED, Phase.RESPONDED))
        assert executed is not None
        assert responded is not None
        assert responded - executed >= 0.1


def test_without_readiness_the_execve_counts(tmp_path: Path) -> None:
    with LocalInstance(["sleep", "600"], tmp_path) as instance:
        wait_ready(subject_of(instance, scenario(None, None)))
        assert instance.timeline.at(Phase.RESPONDED) == instance.timeline.at(Phase.EXECUTED)


def test_an_application_that_ends_is_told_at_once_with_its_log(port: int, tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no config >&2; exit 3"]
    with LocalInstance(command, tmp_path) as instance, pytest.raises(LaunchError) as caught:
        wait_ready(subject_of(instance, scenario(port, HttpReadiness())))
    assert not isinstance(caught.value, NotReady)  # it failed; nothing ran out of time
    assert "exit code 3" in caught.value.message
    assert caught.value.detail == "no config"
    assert str(tmp_path) in caught.value.hint


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:9C40 0100007F:1388 01 00000000:00000000 00:00000000 00000000     0        0 3
"""
TCP6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4
"""


def test_what_listens_is_read_from_the_kernels_tables() -> None:
    assert [(str(address), port) for address, port in listening_sockets(TCP)] == [
        ("127.0.0.1", 5000),
        ("0.0.0.0", 80),
    ]
    assert [(str(address), port) for address, port in listening_sockets(TCP6)] == [("::1", 8080)]


class Tables:
    """An instance as far as `listeners` asks."""

    opaque = False

    def inside(self, verb: str, path: str) -> Completed:
        text = TCP6 if path.endswith("6") else TCP
        return Completed(exit_code=0, stdout=json.dumps({"text": text}).encode(), stderr=b"")


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (5000, "it listens on 127.0.0.1 only: let it listen on 0.0.0.0"),
        (8080, "it listens on ::1 only: let it listen on 0.0.0.0"),
        (9000, "nothing listens on port 9000 inside, but on 80, 5000, 8080"),
        (80, ""),
        (None, ""),
    ],
)
def test_who_never_answers_is_told_why(port: int | None, said: str) -> None:
    assert listeners(Tables(), port) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(("by", "seconds"), [("kvm", "0.1"), ("none", "0.1"), ("qemu", "0.4")])
def test_an_emulated_host_gets_more_time(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, seconds: str
) -> None:
    monkeypatch.setattr(readiness, "platform", lambda: virtualisation.of(by))
    wanted = scenario(port, TcpReadiness(), ready_timeout_seconds=0.1)
    with LocalInstance(["sleep", "600"], tmp_path) as instance, pytest.raises(NotReady, match=rf"within {seconds} s"):
        wait_ready(subject_of(instance, wanted))


def test_a_slow_guest_of_an_emulated_host_is_not_kept_busy_by_being_asked(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knock, knocks = readiness._knock, {"none": 0, "qemu": 0}
    for by in knocks:

        def counted(*words: Any, by: str = by) -> Any:
            knocks[by] += 1
            return knock(*words)

        host = virtualisation.of(by)
        monkeypatch.setattr(readiness, "platform", lambda host=host: host)
        monkeypatch.setattr(readiness, "_knock", counted)
        wanted = scenario(port, TcpReadiness(), ready_timeout_seconds=0.8 / host.patience)
        with LocalInstance(["sleep", "600"], tmp_path) as instance, pytest.raises(NotReady):
            wait_ready(subject_of(instance, wanted))
    assert 10 < knocks["qemu"] < knocks["none"] / 2


def test_a_port_is_needed_to_ask_one(tmp_path: Path) -> None:
    with LocalInstance(["sleep", "600"], tmp_path) as instance, pytest.raises(NotReady, match="no port"):
        wait_ready(subject_of(instance, scenario(None, TcpReadiness())))


# Metrics


@pytest.fixture
def ready(port: int, tmp_path: Path) -> Iterator[Subject]:
    wanted = scenario(port, HttpReadiness(body="hello"), load=Load(connections=2, duration_seconds=1.0))
    with LocalInstance(served(port), tmp_path) as instance:
        subject = subject_of(instance, wanted)
        wait_ready(subject)
        yield subject


def observe(
    subject: Subject, hook: str, chosen: tuple[type[Metric], ...] = usual_metrics()
) -> dict[str, Observation]:
    seen = [observation for metric in chosen for observation in getattr(metric(), hook)(subject)]
    return {observation.quantity: observation for observation in seen}


def test_when_ready(ready: Subject) -> None:
    seen = observe(ready, "ready")
    assert {"boot.executed", "boot.listening", "boot.responded", "boot.total", "boot.read", "cpu.boot"} == set(seen)
    assert 0 < (seen["cpu.boot"].value or 0) < 10


def test_at_idle(ready: Subject) -> None:
    seen = observe(ready, "idle")
    assert seen["cpu.idle"].detail["wall_seconds"] >= ready.idle_seconds
    assert seen["cpu.idle"].value == ready.idle_window().cpu_seconds / ready.idle_window().wall_seconds
    assert seen["cpu.compute"].status is Status.OK
    assert (seen["cpu.compute"].value or 0) > 0
    way = seen["cpu.compute"].detail["way_seconds"]
    assert way > 0
    assert seen["cpu.compute"].value == pytest.approx(seen["cpu.compute"].detail["asked_seconds"] - way)
    assert seen["memory.pss"].value > 1 << 20  # type: ignore[operator]
    assert seen["memory.cgroup.usage"].value == 30
    assert seen["memory.working_set"].value == 23
    assert not [name for name in seen if name.startswith("memory.guest")]  # this is no guest
    assert {observation.state for name, observation in seen.items() if name.startswith("memory.")} == {"idle"}


def test_an_instance_with_its_own_kernel_tells_its_own_view(ready: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.metrics.base.BOOT_ID", "/proc/sys/kernel/random/uuid")  # another at each reading
    seen = observe(ready, "idle", (Memory,))
    assert ready.has_own_kernel
    assert 0 < (seen["memory.guest.used"].value or 0) < seen["memory.guest.used"].detail["total_bytes"]
    assert (seen["memory.guest.cache"].value or 0) > 0


def test_a_wrong_checksum_is_a_failed_sample(ready: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.metrics.cpu.COMPUTE_CHECKSUM", "another")
    computed = observe(ready, "idle", (Cpu,))["cpu.compute"]
    assert computed.status is Status.FAILED


def test_a_long_way_in_is_no_computing(ready: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of an Engine is, whose exec takes as long as the computation."""
    quick = observe(ready, "idle", (Cpu,))["cpu.compute"]
    execute = ready.instance.execute

    def slow(*arguments: Any, **options: Any) -> Completed:
        time.sleep(1.0)
        return execute(*arguments, **options)

    monkeypatch.setattr(ready.instance, "execute", slow)
    seen = observe(ready, "idle", (Cpu,))["cpu.compute"]
    assert seen.detail["way_seconds"] > 1.0
    assert (seen.value or 0) < (quick.value or 0) + 0.9


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_under_load(ready: Subject) -> None:
    seen = observe(ready, "loaded")
    rate, median = seen["load.requests_per_second"], seen["load.latency.p50"]
    assert rate.status is Status.OK
    assert rate.detail["requests"] > 10
    assert 0 < (median.value or 0) <= (seen["load.latency.p99"].value or 0) < 10
    assert seen["cpu.per_1000_requests"].detail["requests"] == rate.detail["requests"]
    assert (seen["cpu.per_1000_requests"].value or 0) > 0
    assert seen["memory.pss"].state == "after-load"
    assert ready.load() is ready.load()  # offered once, for all metrics


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_wrong_answers_are_no_throughput(port: int, tmp_path: Path) -> None:
    wanted = scenario(port, TcpReadiness(), load=Load(connections=1, duration_seconds=1.0))
    with LocalInstance(served(port, "500 broken"), tmp_path) as instance:
        subject = subject_of(instance, wanted)
        wait_ready(subject)
        seen = observe(subject, "loaded")
    assert seen["load.requests_per_second"].status is Status.FAILED
    assert seen["load.requests_per_second"].detail["errors"]["status"] > 0
    assert seen["cpu.per_1000_requests"].status is Status.FAILED


# its answers say no length: they end when their connection does
CLOSING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_an_answer_that_ends_with_its_connection_is_one(port: int, tmp_path: Path) -> None:
    wanted = scenario(port, TcpReadiness(), load=Load(connections=2, duration_seconds=1.0))
    with LocalInstance([sys.executable, "-c", CLOSING, str(port)], tmp_path) as instance:
        subject = subject_of(instance, wanted)
        wait_ready(subject)
        rate = observe(subject, "loaded")["load.requests_per_second"]
    assert rate.status is Status.OK, rate.text
    assert rate.detail["requests"] > 10


def test_a_connection_that_ends_without_an_answer_is_none_all_the_same() -> None:
    latency = dict.fromkeys((*wrk.PERCENTILES, "max"), 0.001)
    errors = dict.fromkeys(wrk.ERRORS, 0) | {"read": 130}
    seen = wrk.LoadResult(requests=100, duration_seconds=1.0, latency_seconds=latency, errors=errors)
    assert wrk.forgiven(seen).failed == 30


def test_without_load_there_is_nothing_to_say_about_it(tmp_path: Path) -> None:
    with LocalInstance(["sleep", "600"], tmp_path) as instance:
        assert observe(subject_of(instance, scenario(None, None)), "loaded") == {}


def test_when_it_is_gone(tmp_path: Path) -> None:
    with LocalInstance(["sleep", "600"], tmp_path) as instance:
        pass
    (gone,) = observe(subject_of(instance, scenario(None, None)), "ended").values()
    assert gone.quantity == "teardown.total"
    assert 0 < (gone.value or 0) < 10


def test_a_subject_before_its_launch_says_so() -> None:
    subject = Subject.before_launch(scenario=scenario(None, None), network=LOOPBACK, idle_seconds=0)
    with pytest.raises(LabError, match="before it was launched"):
        _ = subject.instance
