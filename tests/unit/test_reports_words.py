"""Settings in words: nobody should have to read a class's name in a report."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from lab.model import (
    Accelerator,
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
from lab.reports.material import stamped
from lab.reports.words.statements import in_words
from lab.results.record import Arm

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


@pytest.mark.parametrize(
    ("accelerator", "user_kernel", "own", "label"),
    [
        (Accelerator.NATIVE, False, False, "arm"),
        (Accelerator.NATIVE, True, True, "arm"),
        (Accelerator.TCG, False, True, "arm (TCG emulation)"),
    ],
)
def test_a_kernel_in_user_space_is_ones_own_and_runs_natively(
    accelerator: Accelerator, user_kernel: bool, own: bool, label: str
) -> None:
    arm = Arm(
        label="arm", backend="arm", title="", mechanism="", order=0, accelerator=accelerator, kernel="",
        user_kernel=user_kernel,
    )  # fmt: skip
    assert (arm.has_own_kernel, stamped(arm)) == (own, label)
