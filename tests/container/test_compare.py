"""``lab compare`` from a Dockerfile to a report, on the host's kernel; and what an interruption leaves."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from comparing import LAB, check_run, compare, make_scenario, only_run
from host_state import assert_unchanged, snapshot

from lab.analysis import load
from lab.analysis.checks.caches import starts

pytestmark = pytest.mark.usefixtures("same_host")

ARMS = {"process", "process#aa", "container"}
BOOTS = ("--on", "process,container", "--metrics", "boot", "--blocks", "2")
QUICK = ("--on", "process,container", "--metrics", "boot,memory,load", "--seed", "7", "--idle", "0.2")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def complete(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was measured to its end, and what was said of it."""
    out, before = tmp_path_factory.mktemp("complete"), snapshot()
    done = compare(scenario, *QUICK, "--blocks", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert_unchanged(before)
    return only_run(out), done.stdout


def test_from_a_dockerfile_to_a_report(complete: tuple[Path, str]) -> None:
    folder, said = complete
    loaded = check_run(folder, ARMS, 1)
    measured = loaded.frame[~loaded.frame["warmup"]]
    quantities = set(measured["quantity"])
    assert {"boot.listening", "memory.pss", "load.requests_per_second", "teardown.total"} <= quantities
    rates = measured[measured["quantity"] == "load.requests_per_second"]["value"]
    assert (rates > 10).all()
    assert "report.html" in said
    pictures = [file.stat().st_size for kind in ("svg", "png") for file in (folder / "plots").glob(f"*.{kind}")]
    assert len(pictures) >= 4
    assert min(pictures) > 1000
    assert "container" in said


def test_an_interrupted_run_says_how_to_go_on_and_does(scenario: Path, tmp_path: Path) -> None:
    words = [*LAB, "compare", str(scenario), *BOOTS, "--out", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_block(process, "block 2")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=250)
    folder = only_run(tmp_path)
    assert process.returncode == 130, said
    assert f"lab compare --resume {folder}" in said
    done = compare("--resume", folder)
    assert done.returncode == 0, done.stderr
    check_run(folder, ARMS, 2)


@pytest.mark.nightly
def test_a_killed_run_goes_on_as_cold_as_before(scenario: Path, tmp_path: Path) -> None:
    words = [*LAB, "compare", str(scenario), *BOOTS, "--caches", "cold", "--out", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_block(process, "block 2")
    process.kill()
    process.communicate(timeout=250)
    folder = only_run(tmp_path)
    done = compare("--resume", folder)
    assert done.returncode == 0, done.stderr
    loaded = check_run(folder, ARMS, 2)
    before_each = starts(loaded.frame)
    assert (before_each["level"] == "cold").all()
    assert (before_each["resident_bytes"] == 0).all()
    assert (before_each["fetched_bytes"] > 0).all()
    assert len(before_each) == 2 * len(ARMS)


def test_a_complete_run_is_not_resumed(complete: tuple[Path, str]) -> None:
    again = compare("--resume", complete[0])
    assert again.returncode == 1
    assert "is complete" in again.stderr


def test_factors_are_varied_verified_and_reported(scenario: Path, tmp_path: Path) -> None:
    """An image per build argument, each verified; limits as each arm has them; the same in a second session."""
    page = make_scenario(tmp_path / "paged")
    for name in ("short", "long"):
        (page / name).write_text(name * 1000)
    (page / "Dockerfile").write_text((scenario / "Dockerfile").read_text() + "ARG PAGE=short\nCOPY $PAGE /srv/page\n")
    varied = ("--factor", "memory=64M,128M", "--factor", "arg.PAGE=short,long")
    done = compare(
        page, "--on", "process", *varied, "--metrics", "boot", "--blocks", "1", "--sessions", "2",
        "--fail-if", "boot.effect(process, memory=128M) > 1000", "--out", tmp_path / "runs", pictures=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 arms, the A/A pair's second among them, × 2 blocks, after 4 warm-ups" in done.stderr
    loaded = load(only_run(tmp_path / "runs"))
    sizes = {arm.label: arm.factors["memory"] for arm in loaded.arms}
    assert sizes == {
        "process": "64M", "process[arg.PAGE=long]": "64M", "process[memory=128M]": "128M",
        "process[memory=128M,arg.PAGE=long]": "128M",
    }  # fmt: skip
    assert len(loaded.run.images) == 2
    for arm in loaded.arms:
        seen = loaded.run.parity[arm.label]
        assert seen["manifest_digest"] == loaded.run.images[arm.image]["manifest_digest"]
        assert seen["limits"]["memory_bytes"] == int(arm.factors["memory"][:-1]) * 1024**2
    boots = loaded.measured[loaded.measured["quantity"] == "boot.total"]
    assert sorted(zip(boots["block"], boots["arm"], strict=True)) == sorted(
        (block, label) for block in (1, 2) for label in (*sizes, "process#aa")
    )
    assert set(loaded.effects()["other"]) == {"", "arg.PAGE"}
    assert 'id="factors"' in (loaded.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nowhere",), 2, "no scenario and no folder is called nowhere"),
        ((".", "--on", "jail"), 2, "no backend is called jail"),
        ((".", "--metrics", "smell"), 2, "no metric is called smell"),
        ((".", "--budget", "soon"), 2, "'soon' is not a duration"),
        ((".", "--on", "process", "--factor", "firmware=direct,ovmf"), 2, "it is a factor of vm"),
        (("--resume", "never"), 1, "no run is called 'never'"),
        ((), 2, "wants a scenario"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(scenario: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = compare(*(str(scenario) if word == "." else word for word in words))
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def wait_for_block(process: subprocess.Popen[str], block: str) -> None:
    """Until the run says that it works on ``block``."""
    assert process.stderr
    deadline = time.monotonic() + 240  # of a busy host
    for line in process.stderr:
        if block in line:
            return
        assert time.monotonic() < deadline, line
    raise AssertionError("it ended before")


@pytest.mark.nightly
def test_sessions_are_processes_of_their_own_and_runs_can_be_merged(scenario: Path, tmp_path: Path) -> None:
    words = ("--on", "process", "--metrics", "boot", "--idle", "0.1", "--blocks", "1")
    done = compare(scenario, *words, "--sessions", "2", "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    first = only_run(tmp_path / "a")
    loaded = check_run(first, {"process", "process#aa"}, 2)
    boots = loaded.measured[loaded.measured["quantity"] == "boot.total"]
    assert set(zip(boots["session"], boots["block"], strict=True)) == {(1, 1), (2, 2)}
    host = loaded.frame[loaded.frame["quantity"] == "host.compute"]
    assert (host["value"] > 0).all()
    assert host["block"].tolist() == [1, 2]
    merging = [*LAB, "results", "merge", str(first), str(first), "--out", str(tmp_path / "b")]
    refused = subprocess.run(merging, capture_output=True, text=True, timeout=250, check=False)
    assert (refused.returncode, "two different runs" in refused.stderr) == (1, True), refused.stderr
