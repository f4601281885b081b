"""``lab race`` on real instances: lanes that advance while it happens; and after any end nothing is left."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import preloaded
import pytest
from classes import next_event
from comparing import LAB, make_scenario
from host_state import assert_unchanged, difference, snapshot, told_of, wait_until
from seated import seat

ON = ("--on", "process,container")
SECONDS = 250.0
CMD = '["httpd", "-f", "-p", "8000", "-h", "/srv"]'


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


def test_rounds_without_a_terminal(scenario: Path) -> None:
    before = snapshot()
    argv = [*LAB, "race", str(scenario), *ON, "--rounds", "2", "--json"]
    done = preloaded.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert_unchanged(before)
    told = json.loads(done.stdout)
    assert [one["number"] for one in told["rounds"]] == [1, 2]
    for one in told["rounds"]:
        assert [lane["name"] for lane in one["lanes"]] == ["process", "container"]
        assert sorted(lane["place"] for lane in one["lanes"]) == [1, 2]
        for lane in one["lanes"]:
            times = [each["at"] for each in lane["course"]]
            assert [each["phase"] for each in lane["course"]] == [
                "isolated", "init", "executed", "listening", "responded",
            ]  # fmt: skip
            assert times == sorted(times)
            assert 0 < times[0] <= times[-1] == lane["finish"] < 60


def test_at_a_terminal_it_is_live_and_can_be_seen_again(scenario: Path) -> None:
    before = snapshot()
    with seat() as place, place.running("race", str(scenario), *ON) as process:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("2nd")
        place.screen.until("r again")
        place.screen.type("r")
        place.screen.until("true speed")
        place.screen.type("q")
        place.screen.until("\x1b[?1049l")
        place.screen.until("demonstration")
        assert process.wait(SECONDS) == 0
    assert_unchanged(before)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose copy in a container listens when it is warmed up, and never in a round: whoever leaves does so
    half-way. A bare process has the host's name, and is never late.
    """
    made = make_scenario(tmp_path_factory.mktemp("slow-page"))
    file = made / "Dockerfile"
    late = "case $(hostname) in container-r[1-9]) sleep 300;; esac; exec httpd -f -p 8000 -h /srv"
    file.write_text(file.read_text().replace(CMD, f'["sh", "-c", "{late}"]'))
    assert late in file.read_text()
    return made


@pytest.mark.parametrize(("key", "code"), [("q", 0), pytest.param("\x03", 130, marks=pytest.mark.nightly)])
def test_whoever_leaves_it_half_way_leaves_nothing(slow: Path, key: str, code: int) -> None:
    before = snapshot()
    with seat() as place, place.running("race", str(slow), *ON) as process:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("▶")
        assert difference(before, snapshot()), "there is something that could be left"
        place.screen.type(key)
        place.screen.until("\x1b[?1049l")
        assert process.wait(SECONDS) == code
    assert_unchanged(before)


def test_killed_half_way_it_leaves_nothing_once_clean_was_there(slow: Path) -> None:
    before = snapshot()
    with seat() as place, place.killing("race", str(slow), *ON) as kill:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("▶")
        kill()
        place.screen.until("\x1b[?1049l")
    preloaded.run([*LAB, "clean"], capture_output=True, timeout=SECONDS, check=True)
    assert_unchanged(before)


class Shown:
    """A race that is served to browsers, as one of them asks for it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        found = re.fullmatch(r"race +http://(\S+)/#(\S+)\n", process.stdout.readline())
        assert found
        self.host, self.key = found.groups()
        self.cookie = str(self.post("/enter", {"key": self.key}).getheader("set-cookie")).partition(";")[0]

    def post(self, path: str, sent: object, cookie: str = "") -> http.client.HTTPResponse:
        given = {"Origin": f"http://{self.host}", "Cookie": cookie}
        connection = http.client.HTTPConnection(self.host, timeout=SECONDS)
        connection.request("POST", path, json.dumps(sent), given)
        return connection.getresponse()

    def events(self) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, timeout=SECONDS)
        connection.request("GET", "/events")
        return connection.getresponse()

    def server(self) -> int:
        """The process that answers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (found,) = (pid for pid, words in told_of(map(int, children), "cmdline").items() if "race.serving" in words)
        return found


@contextmanager
def served(scenario: Path) -> Iterator[Shown]:
    argv = [*LAB, "race", str(scenario), *ON, "--rounds", "2", "--serve", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Shown(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(SECONDS)


def test_in_browsers_it_is_live_and_only_its_link_starts_a_round(scenario: Path) -> None:
    before = snapshot()
    with served(scenario) as shown:
        status = Path(f"/proc/{shown.server()}/status").read_text()
        assert set(re.findall(r"^[UG]id:\t(.*)$", status, re.MULTILINE)) == {"\t".join(["1999999999"] * 4)}
        events = shown.events()
        assert next_event(events)["state"] == "ready"
        assert shown.post("/start", {"round": 1}).status == 403
        for number in (1, 2):
            assert shown.post("/start", {"round": number}, shown.cookie).status == 200
            while (told := next_event(events))["state"] in ("running", "stopping"):
                assert told["place"] == number - 1
            assert all(lane["finish"] for lane in told["race"]["rounds"][number - 1]["lanes"])
        assert (told["state"], told["mine"]) == ("done", False)
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.stdout is not None
        assert "2nd" in shown.process.stdout.read()
        assert shown.process.wait(SECONDS) == 130
    assert_unchanged(before)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGKILL])
def test_whoever_ends_it_half_way_in_browsers_leaves_nothing(slow: Path, number: signal.Signals) -> None:
    before = snapshot()
    with served(slow) as shown:
        events, server = shown.events(), shown.server()
        assert shown.post("/start", {"round": 1}, shown.cookie).status == 200
        while next_event(events)["state"] != "running":
            pass
        assert difference(before, snapshot()), "there is something that could be left"
        shown.process.send_signal(number)
        shown.process.wait(SECONDS)
        assert wait_until(lambda: not Path(f"/proc/{server}").exists(), SECONDS)
    if number == signal.SIGKILL:
        preloaded.run([*LAB, "clean"], capture_output=True, timeout=SECONDS, check=True)
    assert_unchanged(before)
