"""A class over HTTP: who gets in, who gets nothing, a room full at once, a server that is killed and goes on."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from classes import SAMPLE, Served, next_event, serving, until
from typer.testing import CliRunner

from lab.classroom.web.address import hosts, listen, url
from lab.classroom.web.guard import MOST_BYTES, WRONG_TRIES
from lab.classroom.web.site import neighbourhood
from lab.cli.classroom.app import app
from lab.errors import LabError
from lab.host.identity.privilege import NOBODYS

CROWD = 40
"""By day; 200 were tried by hand (docs/classroom.md)."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("speed", "--session", "shared") as served:
        yield served


def status_of(pid: int, field: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


def test_it_serves_as_nobody_who_may_do_anything(served: Served) -> None:
    served.ask("/me")
    users = {str(NOBODYS) if os.geteuid() == 0 else str(os.geteuid())}
    assert set(status_of(served.process.pid, "Uid")) == users
    assert set(status_of(served.process.pid, "CapEff")) == {"0000000000000000"}
    if os.geteuid() == 0:
        assert status_of(served.process.pid, "Groups") == []
        assert status_of(served.process.pid, "NoNewPrivs") == ["1"]


def test_every_answer_has_the_headers_that_keep_a_page_to_itself(served: Served) -> None:
    for path in (
        "/",
        "/screen",
        "/teach",
        "/static/phone.js",
        "/static/class.css",
        "/me",
        "/static/nothing",
        "/events",
    ):
        answer = served.ask(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    for path in ("/", "/screen", "/teach"):
        text = served.ask(path).text
        assert "http://" not in text
        assert "https://" not in text
        assert "<style" not in text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.example:80"])
def test_another_name_of_this_server_is_nobody_s(served: Served, host: str) -> None:
    assert served.ask("/", Host=host).status == 403
    assert served.ask("/join", {"code": served.code, "nickname": "x"}, Host=host).status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1"])
def test_another_page_can_make_a_browser_do_nothing(served: Served, origin: str) -> None:
    teacher = served.teacher()
    for path, sent in (
        ("/join", {"code": served.code, "nickname": "Mallory"}),
        ("/teach/act", {"action": "start", "phase": "lobby", "question": 0}),
    ):
        assert served.ask(path, sent, cookie=teacher, Origin=origin).status == 403
    assert served.state("/teach/events", teacher)["phase"] == "lobby"


def test_what_is_the_teacher_s_needs_the_teacher_s_cookie(served: Served) -> None:
    student = served.join("Nosy")
    token = student.partition("=")[2]
    name = served.teacher().partition("=")[0]
    for cookie in ("", student, f"{name}={token}", f"{name}=", f"{name}=x"):
        for path in ("/teach/events", "/screen/events", "/teach/qr.svg", "/teach/report"):
            assert served.ask(path, cookie=cookie).status == 403
        act = {"action": "start", "phase": "lobby", "question": 0}
        assert served.ask("/teach/act", act, cookie=cookie).status == 403
        assert served.ask("/teach/remove", {"student": 1}, cookie=cookie).status == 403
    answer = served.ask("/teach/enter", {"key": served.key})
    for word in ("HttpOnly", "SameSite=strict"):
        assert word in answer.headers["set-cookie"]


def test_a_report_s_script_can_not_act_as_the_teacher(served: Served) -> None:
    answer = served.ask("/teach/report", cookie=served.teacher())
    assert answer.status == 200
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    assert "<svg" in served.ask("/teach/qr.svg", cookie=served.teacher()).text


def test_race_and_figure_are_the_projector_s_after_the_reveal_and_nobody_else_s() -> None:
    with serving("speed", light=True) as served:
        teacher, student = served.teacher(), served.join("Ada")
        paths = ("/screen/race", "/screen/figure/0")
        served.step(teacher, "start")
        assert [served.ask(path, cookie=teacher).status for path in paths] == [404, 404]
        assert served.step(teacher, "race").status == 409
        served.step(teacher, "reveal")
        told = served.state("/screen/events", teacher)
        assert (told["view"], told["showable"]) == ("", ["race", "figure"])
        race, figure = (served.ask(path, cookie=teacher) for path in paths)
        assert race.headers["content-security-policy"] == "sandbox allow-scripts; frame-ancestors 'self'"
        assert "who is first?" in race.text
        assert figure.headers["content-type"] == "image/svg+xml"
        assert "default-src 'none'" in figure.headers["content-security-policy"]
        assert served.ask("/screen/figure/1", cookie=teacher).status == 404, "of a question that is not revealed"
        assert [served.ask(path, cookie=student).status for path in paths] == [403, 403]
        assert served.step(teacher, "figure").status == 200
        assert served.state("/screen/events", teacher)["view"] == "figure"
        assert served.state("/screen/events", teacher)["alt"].startswith("Every start")
        assert "view" not in served.state("/events", student)
        assert served.step(teacher, "answer").status == 200
        assert served.state("/screen/events", teacher)["view"] == ""


class Ended(NamedTuple):
    """A class that a signal ended while a phone listened."""

    served: Served
    code: int
    seconds: float
    said: str


@pytest.fixture(scope="module")
def ended() -> Iterator[Ended]:
    with serving("speed", "--session", "ends") as served:
        student = served.join("Ada")
        stream = http.client.HTTPConnection(served.host, timeout=60)
        stream.request("GET", "/events", headers={"Host": served.host, "Cookie": student})
        next_event(stream.getresponse())
        begun = time.monotonic()
        code = served.stop(signal.SIGTERM)
        yield Ended(served, code, time.monotonic() - begun, served.log.read_text())
        stream.close()


def test_a_signal_ends_it_at_once_with_phones_listening(ended: Ended) -> None:
    assert ended.code == 128 + signal.SIGTERM
    assert ended.seconds < 60
    assert "Traceback" not in ended.said
    database = sqlite3.connect(ended.served.home / "class" / "ends" / "state.sqlite")
    assert database.execute("SELECT nickname FROM students").fetchall() == [("Ada",)]
    database.close()


def test_a_class_that_began_with_another_run_shows_nothing_of_this_one(tmp_path: Path, ended: Ended) -> None:
    other = tmp_path / "other"
    shutil.copytree(SAMPLE, other)
    run = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(run | {"name": "other"}))
    served = ended.served
    served.words = (*served.words, "--run", str(other))
    served.start()
    teacher = served.teacher()
    for action in ("start", "reveal"):
        served.step(teacher, action)
    told = served.state("/teach/events", teacher)
    assert told["run"] == run["name"]
    assert told["showable"] == []
    assert told["report"] is False
    assert served.step(teacher, "race").status == 409
    assert run["name"] in served.log.read_text()
    assert served.stop() == 130


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"{", b"[]", b"[" * 2000, b'{"code": 1, "nickname": "x"}', b'{"code": "x"}', b'"x"', b"\xff",
        b'{"code": "x", "nickname": "x", "more": 1}', b'{"code": null, "nickname": true}',
    ],
)  # fmt: skip
def test_what_no_page_sends_is_refused(served: Served, sent: bytes) -> None:
    answer = served.ask("/join", sent)
    assert answer.status == 409
    assert answer.json["error"]


def test_too_much_is_refused(served: Served) -> None:
    answer = served.ask("/join", {"code": served.code, "nickname": "x" * MOST_BYTES})
    assert answer.status == 413
    assert served.ask("/me").status == 200


def test_a_student_can_not_do_what_is_not_open(served: Served) -> None:
    cheat = served.join("Cheat")
    for sent in (
        {"question": 0, "vote": 1, "guess": 1},
        {"question": 3, "vote": 1, "guess": 1},
        {"question": -1, "vote": 0, "guess": 1},
    ):
        assert served.ask("/guess", sent, cookie=cheat).status == 409
    assert served.ask("/guess", {"question": 0, "vote": 1, "guess": 1}).status == 401
    assert served.ask("/guess", {"question": 0, "vote": 1, "guess": "1"}, cookie=cheat).status == 409


def test_markup_in_a_name_stays_text(served: Served) -> None:
    name = "<img src=x onerror=1>"
    served.join(name)
    told = served.state("/teach/events", served.teacher())
    assert name in [each["nickname"] for each in told["students"]]
    for script in ("phone.js", "screen.js", "teach.js"):
        assert "innerHTML" not in served.ask(f"/static/{script}").text
    assert served.ask("/static/common.js").text.count("innerHTML") == 1, "a lesson's own Markdown, and nothing else"


def test_codes_can_not_be_tried_without_end() -> None:
    with serving("speed", light=True) as served:
        known = served.join("Early")
        for _ in range(WRONG_TRIES):
            assert served.ask("/join", {"code": "AAAAAA", "nickname": "x"}).status == 403
        blocked = served.ask("/join", {"code": served.code, "nickname": "x"})
        assert blocked.status == 429
        assert int(blocked.headers["retry-after"]) > 0
        assert served.ask("/teach/enter", {"key": served.key}).status == 429
        assert served.ask("/me", cookie=known).json["nickname"] == "Early", "who is in is not locked out"


def test_who_wants_to_be_forgotten_is() -> None:
    with serving("speed", light=True) as served:
        teacher, student = served.teacher(), served.join("Ada")
        assert served.ask("/forget", {}, cookie=student).status == 200
        assert served.state("/teach/events", teacher)["joined"] == 0
        assert served.ask("/events", cookie=student).status == 401


def test_a_crowd_guesses_at_once_and_all_of_it_counts() -> None:
    with serving("speed", light=True) as served:
        teacher = served.teacher()
        cookies = [served.join(f"student {number}") for number in range(CROWD)]
        streams = [http.client.HTTPConnection(served.host, timeout=60) for _ in cookies]
        answers = []
        for stream, cookie in zip(streams, cookies, strict=True):
            stream.request("GET", "/events", headers={"Host": served.host, "Cookie": cookie})
            answers.append(stream.getresponse())
        assert {next_event(each)["phase"] for each in answers} == {"lobby"}
        until(lambda: len(served.state("/teach/events", teacher)["here"]) == CROWD)
        assert served.step(teacher, "start").status == 200
        assert {next_event(each)["phase"] for each in answers} == {"vote"}
        failed: list[int] = []

        def guess(cookie: str, number: float) -> None:
            answer = served.ask("/guess", {"question": 0, "vote": 1, "guess": number}, cookie=cookie)
            if answer.status != 200:
                failed.append(answer.status)

        threads = [threading.Thread(target=guess, args=(one, n)) for n, one in enumerate(cookies)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert time.monotonic() - begun < 120
        assert served.state("/teach/events", teacher)["guessed"] == CROWD
        for stream in streams:
            stream.close()


def test_killed_and_started_again_it_goes_on_and_phones_come_back() -> None:
    with serving("speed", light=True) as served:
        teacher, student, code = served.teacher(), served.join("Ada"), served.code
        served.step(teacher, "start")
        assert served.ask("/guess", {"question": 0, "vote": 1, "guess": 50}, cookie=student).status == 200
        port = served.host.partition(":")[2]
        served.kill()
        served.words = (*served.words[:-1], port)
        served.start()
        assert served.code == code
        told = served.state("/events", student)
        assert (told["phase"], told["nickname"], told["guesses"]) == ("vote", "Ada", {"1": 50.0, "2": None})
        assert served.step(teacher, "reveal").status == 200, "the teacher's cookie still holds"
        assert served.state("/events", student)["right"]["1"] is True
        second = subprocess.run(
            [sys.executable, *served.command, *served.words[:-1], "0"],
            capture_output=True, text=True, timeout=120, env=os.environ | {"LAB_HOME": str(served.home)}, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert "is being served already" in second.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("speed", "--bind", "0.0.0.0"), "every address at once"),
        (("speed", "--bind", "[::]"), "every address at once"),
        (("speed", "--bind", "fe80::1"), "link-local"),
        (("speed", "--bind", "198.18.77.77"), "no address of this host"),
        (("speed", "--bind", "lecture-hall"), "no IPv4 or IPv6 address"),
        (("speed", "--session", "../x"), "can't name a class"),
        (("speed", "--run", "unheard-of"), "no run"),
        (("unheard-of",), "no lesson"),
    ],
)
def test_what_can_not_be_served_is_refused_before_a_run_is_asked(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["serve", *words, "--port", "0"])
    assert isinstance(done.exception, LabError)
    assert says in str(done.exception)
    assert "127.0.0.1 (lo)" in done.exception.hint or "--bind" not in words


def test_names_that_a_browser_sends_are_those_that_it_was_told() -> None:
    assert hosts("http://198.18.0.7:8765") == {"198.18.0.7:8765"}
    assert hosts("http://198.18.0.7:80") == {"198.18.0.7", "198.18.0.7:80"}, "a browser leaves out HTTP's own port"
    assert hosts("http://[2001:db8::7]:8765") == {"[2001:db8::7]:8765"}
    assert hosts("http://127.0.0.2:8765") == {"127.0.0.2:8765", "127.0.0.1:8765", "localhost:8765"}
    assert hosts("http://[::1]:8765") == {"[::1]:8765", "localhost:8765"}
    with listen("::ffff:127.0.0.1", 0) as mapped:
        assert url(mapped).startswith("http://127.0.0.1:"), "which a browser would write otherwise"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="the kernel has no IPv6")
def test_a_class_on_an_ipv6_address_is_reached_and_guarded_as_on_ipv4() -> None:
    with serving("speed", light=True, bind="[::1]") as served:
        assert served.address.startswith("http://[::1]:")
        port = served.address.rpartition(":")[2]
        student, teacher = served.join("Ada"), served.teacher()
        assert served.step(teacher, "start").status == 200
        assert served.ask("/", Host=f"localhost:{port}").status == 200
        assert served.state("/screen/events", teacher)["address"] == served.address
        for host in (f"127.0.0.1:{port}", f"::1:{port}", "[::1]", f"[::2]:{port}", f"[0:0:0:0:0:0:0:1]:{port}"):
            assert served.ask("/", Host=host).status == 403, host
        guess = {"question": 0, "vote": 1, "guess": 45.0}
        for origin in (f"http://[::2]:{port}", f"http://localhost:{port}", "http://[::1]"):
            assert served.ask("/guess", guess, cookie=student, Origin=origin).status == 403, origin
        assert served.ask("/guess", guess, cookie=student).status == 200


def test_who_has_a_network_of_ipv6_addresses_has_no_more_tries_than_others() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:2") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("192.0.2.1") != neighbourhood("192.0.2.2")
    assert neighbourhood("") == ""


def test_a_port_that_is_taken_is_said() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(LabError, match="can't be served"):
        listen("127.0.0.1", taken.getsockname()[1])
