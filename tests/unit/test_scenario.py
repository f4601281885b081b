"""scenario.toml: defaults, every key, and one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ScenarioError
from lab.experiment.scenarios import scenario
from lab.model import HttpReadiness, Limits, Load, LogReadiness, TcpReadiness


def write(folder: Path, text: str | None) -> str:
    folder.joinpath("Dockerfile").write_text("FROM scratch\n")
    if text is not None:
        folder.joinpath("scenario.toml").write_text(text)
    return str(folder)


def test_a_folder_with_a_dockerfile_is_enough(tmp_path: Path) -> None:
    found = scenario.load(write(tmp_path, None))
    assert found.name == tmp_path.name
    assert found.port is None
    assert found.readiness is None
    assert found.load is None
    assert found.limits == Limits()


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
        title = "t"
        port = 80
        [readiness]
        http = "/health"
        status = 204
        body = "ok"
        timeout_seconds = 9
        [limits]
        memory = "256M"
        cpus = 1.5
        pids = 64
        [load]
        path = "/x"
        connections = 2
        duration_seconds = 1
        [environment]
        A = "b"
    """
    found = scenario.load(write(tmp_path, text))
    assert found.title == "t"
    assert found.port == 80
    assert found.readiness == HttpReadiness(path="/health", status=204, body="ok")
    assert found.ready_timeout_seconds == 9.0
    assert found.limits == Limits(memory_bytes=256 * 2**20, cpus=1.5, pids=64)
    assert found.load == Load(path="/x", connections=2, duration_seconds=1.0)
    assert found.environment == {"A": "b"}


@pytest.mark.parametrize(
    ("text", "readiness"),
    [("[readiness]\ntcp = true", TcpReadiness()), ("[readiness]\nlog = 'up'", LogReadiness(pattern="up"))],
)
def test_other_kinds_of_readiness(tmp_path: Path, text: str, readiness: object) -> None:
    assert scenario.load(write(tmp_path, text)).readiness == readiness


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port =\n", "line 1"),
        ("title = 't'\ntitle = 'u'\n", "line 2"),
        ("prot = 80", "unknown key prot"),
        ("port = 'x'", "port = 'x' is no int"),
        ("port = true", "port = True is no int"),
        ("port = 70000", "is no TCP port"),
        ("[limits]\nmemory = 'lots'", "limits"),
        ("[limits]\npids = 0", "limits.pids = 0 must be above 0"),
        ("[load]\nconnections = -1", "load.connections = -1 must be above 0"),
        ("[readiness]\nhttp = '/'\ntcp = true", "readiness has http and tcp"),
        ("[readiness]\nhttp = 'health'", "is no path"),
        ("[readiness]\nlog = '('", "is no regular expression"),
        ("[environment]\nA = 1", "environment.A = 1 is no str"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario.load(write(tmp_path, text))
    assert says in caught.value.message
    assert "scenario.toml" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_an_unknown_scenario_names_the_known_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError, match="web-app"):
        scenario.load("wep-app")


def test_a_folder_without_a_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="holds no Dockerfile"):
        scenario.load(str(tmp_path))
