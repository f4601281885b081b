"""The server of a live race's page, without a race: who may start a round, and when it ends."""

from __future__ import annotations

import http.client
import json
import os
import select
from collections.abc import Iterator

import pytest
from classes import next_event

from lab.classroom.web.address import listen, url
from lab.commands.race.serving import Page, served
from lab.errors import LabError

SECONDS = 60.0
RACE = {"rounds": [], "title": "invented"}


class Asking:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.host, _, self.key = page.link.removeprefix("http://").partition("/#")

    def ask(self, path: str, sent: object = None, **headers: str) -> http.client.HTTPResponse:
        given = {"Host": self.host, "Origin": f"http://{self.host}"} | headers
        connection = http.client.HTTPConnection(self.host, timeout=SECONDS)
        connection.request("GET" if sent is None else "POST", path, sent and json.dumps(sent), given)
        return connection.getresponse()

    def enter(self) -> str:
        return str(self.ask("/enter", {"key": self.key}).getheader("set-cookie")).partition(";")[0]

    def told(self, cookie: str = "") -> dict[str, object]:
        return next_event(self.ask("/events", Cookie=cookie))

    def ready(self, place: int) -> None:
        self.page.tell(race=RACE, place=place, rounds=2, state="ready", at=-1.0)
        while (told := self.told()) and (told["state"], told.get("place")) != ("ready", place):
            pass

    def is_started(self) -> bool:
        return bool(select.select([self.page._starts], [], [], 0)[0])


@pytest.fixture
def asking() -> Iterator[Asking]:
    with listen("127.0.0.1", 0) as listening, served(listening, "<p>page</p>", url(listening)) as page:
        yield Asking(page)


def test_whoever_has_the_link_starts_each_round_once(asking: Asking) -> None:
    mine = asking.enter()
    assert asking.ask("/start", {"round": 1}, Cookie=mine).status == 409, "nothing is ready"
    asking.ready(0)
    assert (asking.told(mine)["mine"], asking.told()["mine"]) == (True, False)
    for cookie in ("", f"{mine}x", mine.partition("=")[0] + "="):
        assert asking.ask("/start", {"round": 1}, Cookie=cookie).status == 403
    assert asking.ask("/start", {"round": 2}, Cookie=mine).status == 409
    assert not asking.is_started()
    assert asking.ask("/start", {"round": 1}, Cookie=mine).status == 200
    assert asking.ask("/start", {"round": 1}, Cookie=mine).status == 409
    asking.page.wait()
    assert not asking.is_started(), "pressed twice it starts once"
    asking.ready(1)
    assert asking.ask("/start", {"round": 2}, Cookie=mine).status == 200
    asking.page.wait()


def test_another_page_or_name_can_do_nothing_and_keys_can_not_be_tried_without_end(asking: Asking) -> None:
    asking.ready(0)
    entered = asking.ask("/enter", {"key": asking.key}).getheader("set-cookie")
    assert "HttpOnly" in str(entered)
    assert "SameSite=strict" in str(entered)
    mine = str(entered).partition(";")[0]
    assert asking.ask("/", Host="evil.example").status == 403
    assert asking.ask("/start", {"round": 1}, Cookie=mine, Origin="http://evil.example").status == 403
    page = asking.ask("/")
    assert page.read() == b"<p>page</p>"
    assert page.getheader("content-security-policy") == "frame-ancestors 'none'"
    tries = [asking.ask("/enter", {"key": f"wrong {number}"}).status for number in range(21)]
    assert (tries[0], tries[-1]) == (403, 429)


def test_a_clock_that_runs_is_told_as_it_is_by_then(asking: Asking) -> None:
    asking.page.tell(race=RACE, place=0, rounds=1, state="running", at=2.0)
    while asking.told()["state"] != "running":
        pass
    first, later = (float(str(asking.told()["at"])) for _ in range(2))
    assert 2.0 < first < later < 2.0 + SECONDS


def test_it_ends_with_what_races_and_its_own_end_is_noticed() -> None:
    with listen("127.0.0.1", 0) as listening:
        with served(listening, "", url(listening)) as page:
            process = page._process
        assert process.returncode == 0
        with served(listening, "", url(listening)) as page:
            page._process.terminate()
            with pytest.raises(LabError, match="has ended"):
                page.wait()
            page._process.wait()
            with pytest.raises(LabError, match="has ended"):
                page.tell(state="ready")
    with pytest.raises(OSError):
        os.fstat(page._telling)
