"""``lab scenario matrix`` on real instances: what works, what works but for a reason, what fails; nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import preloaded
import pytest
from comparing import LAB, make_scenario

pytestmark = pytest.mark.usefixtures("same_host")

QUICK = "container"
READINESS = '[readiness]\nhttp = "/index.html"\nbody = "hello"\n'
GREEDY = """\
[readiness]
done = true
[limits]
memory = "24M"
pids = 64
"""
TAKES_40_MIB = 'CMD ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=40M count=1"]'
WRONG = READINESS + '[work]\nbeside = "wget -q -O - http://{address}:{port}/index.html"\nexpect = "good bye"\n'
DEAF = READINESS + "[limits]\npids = 64\n"
TRAPPED = 'CMD ["sh", "-c", "trap : TERM; httpd -p 8000 -h /srv; while :; do sleep 1; done"]'


def scenario(folder: Path, settings: str = "", command: str = "", build: str = "") -> str:
    made = make_scenario(folder)
    if settings:
        (made / "scenario.toml").write_text(settings)
    dockerfile = (made / "Dockerfile").read_text()
    if command:
        dockerfile = dockerfile.partition("CMD")[0] + command + "\n"
    (made / "Dockerfile").write_text(dockerfile + build)
    return str(made)


def matrix(*words: str, out: Path) -> dict[str, Any]:
    argv = [*LAB, "scenario", "matrix", *words, "--on", QUICK, f"--json={out}"]
    done = preloaded.run(argv, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_each_cell_says_what_became_of_it_and_none_ends_the_others(tmp_path: Path) -> None:
    words = [
        scenario(tmp_path / "broken", build="RUN exit 7\n"),
        scenario(tmp_path / "fine"),
        scenario(tmp_path / "greedy", GREEDY, TAKES_40_MIB),
        scenario(tmp_path / "wrong", WRONG),
    ]
    page = tmp_path / "matrix.md"
    found = matrix(*words, "--markdown", str(page), out=tmp_path / "matrix.json")
    assert found["complete"]
    cells = {each["scenario"]: each for each in found["cells"]}
    assert len(cells) == len(found["cells"]) == len(words)
    assert cells["broken"]["failed_at"] == "image"
    assert cells["fine"]["outcome"] == "works"
    assert cells["fine"]["ready_seconds"] > 0
    assert (cells["wrong"]["outcome"], cells["wrong"]["failed_at"]) == ("fails", "check")
    assert "good bye" in cells["wrong"]["reasons"][0]
    assert cells["greedy"]["outcome"] == "works but"
    (greedy,) = cells["greedy"]["reasons"]
    assert "24 MiB" in greedy
    text = page.read_text()
    assert "| fine | works |" in text
    assert all(cell["reasons"][0].split()[0] in text for cell in found["cells"] if cell["reasons"])


@pytest.mark.nightly
def test_one_that_does_not_end_when_it_is_asked_to_works_but_for_that(tmp_path: Path) -> None:
    """Which takes the ten seconds that it is given."""
    found = matrix(scenario(tmp_path / "deaf", DEAF, TRAPPED), out=tmp_path / "matrix.json")
    (cell,) = found["cells"]
    (reason,) = cell["reasons"]
    assert (cell["outcome"], "killed" in reason) == ("works but", True)


def test_what_was_found_until_an_interruption_is_shown_and_no_page_is_written(tmp_path: Path) -> None:
    words = [scenario(tmp_path / "fine"), scenario(tmp_path / "job", GREEDY, 'CMD ["sleep", "100"]')]
    page = tmp_path / "matrix.md"
    argv = [*LAB, "scenario", "matrix", *words, "--on", "process,container", "--markdown", str(page)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if "job on process" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=250)
    assert process.returncode == 130
    assert "not finished" in told
    assert "works" in told
    assert not page.exists()


def test_what_takes_longer_than_it_may_fails(tmp_path: Path) -> None:
    job = scenario(tmp_path / "job", GREEDY, 'CMD ["sleep", "100"]')
    found = matrix(job, "--timeout", "2s", out=tmp_path / "matrix.json")
    assert {each["outcome"] for each in found["cells"]} == {"fails"}
    assert {each["failed_at"] for each in found["cells"]} == {"check"}
    assert max(each["seconds"] for each in found["cells"]) < 90
