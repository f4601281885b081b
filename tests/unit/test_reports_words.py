"""Settings in words: nobody should have to read a class's name in a report."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from lab.model import (
    DoneReadiness,
    Healthcheck,
    HealthReadiness,
    HttpReadiness,
    Load,
    LogReadiness,
    Readiness,
    StartedReadiness,
    TalkReadiness,
    TcpReadiness,
)
from lab.reports.words import in_words

PHRASES = {
    HttpReadiness(path="/health", body="ok"): "GET /health is answered with status 200 and a body that contains “ok”",
    HttpReadiness(): "GET / is answered with status 200, whatever its body holds",
    StartedReadiness(): "it executes; nothing is asked of it",
    DoneReadiness(): "it ends by itself with exit code 0",
    TcpReadiness(): "its port accepts a connection",
    LogReadiness(pattern="ready to accept"): "a line of its output matches ready to accept",
    TalkReadiness(
        send="PING\r\n", expect="PONG"
    ): "its port answers 'PING\\r\\n' with something that contains 'PONG'",
    HealthReadiness(check=Healthcheck(test=("CMD", "pg_isready"))): "its image's HEALTHCHECK succeeds: pg_isready",
    Load(path="/api"): "wrk asks for /api over 4 connections for 3 s",
}


@pytest.mark.parametrize(("setting", "phrase"), PHRASES.items())
def test_a_setting_is_a_phrase(setting: Readiness | Load, phrase: str) -> None:
    recorded = json.loads(json.dumps({"kind": type(setting).__name__, **dataclasses.asdict(setting)}))
    assert in_words(recorded) == phrase


def test_every_kind_of_readiness_has_one() -> None:
    assert {type(setting) for setting in PHRASES} == {*get_args(Readiness), Load}


def test_what_is_not_known_is_given_by_its_fields_and_nothing_is_nothing() -> None:
    assert in_words({"kind": "MoonReadiness", "full_moon": True}) == "full moon True"
    assert in_words(None) == ""
