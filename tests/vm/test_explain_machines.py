"""``lab run --explain`` of a virtual machine, the page that shows it, and a boot that is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tiny import tiny_image
from traces import parse, sentences, shown_in

from lab.cli.instances.explanations import EXPLANATIONS
from lab.hypervisor.boot import Boot
from lab.images.store import Store
from lab.runtime.plan import Before

pytestmark = pytest.mark.usefixtures("same_host")

LAB = [sys.executable, "-m", "lab.cli.main", "run", "tiny", "--explain"]
GRACE_SECONDS = 100
"""More than it takes a busy host to clean up, so that it is seen whether it was waited for."""
GRACEFUL = f"""
from lab.cli.main import main
from lab.commands.running import attached
attached.GRACE_SECONDS = {GRACE_SECONDS}
main()
"""
PAGE = Path(__file__).parents[2] / "docs" / "how-a-vm-starts.md"


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.mark.parametrize("backend", ["microvm", pytest.param("vm", marks=pytest.mark.nightly)])
def test_every_step_of_a_machine_and_the_page_that_shows_it(backend: str) -> None:
    words = [*LAB, "--on", backend, "--", "sh", "-c", "echo out; exit 3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (3, "out\n")
    lines = parse(done.stderr)
    steps = [line.step for line in lines]
    booting = [step for step in Boot if step is not Boot.WAKE]  # which a restored machine does instead
    assert steps == [str(step) for step in (Before.NETWORK, Before.CGROUP, *booting)]
    assert [line.page for line in lines] == [EXPLANATIONS[step].page for step in steps]
    for earlier, later in pairwise(lines):
        assert earlier.at + earlier.took <= later.at + 0.002 or later.step == Boot.FIRMWARE  # may precede the return
    shown = shown_in(PAGE, f"a {backend}")
    assert [line.told for line in parse(shown.trace)] == [line.told for line in lines]
    assert sentences(shown.trace) == sentences(done.stderr)


def test_an_interrupted_boot_ends_at_once() -> None:
    """There is no application yet that could use a grace."""
    words = [sys.executable, "-c", GRACEFUL, *LAB[3:], "--on", "vm", "--", "sleep", "600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as lab:
        assert lab.stderr
        said = ""
        while Boot.LAUNCH not in said:
            line = lab.stderr.readline()
            assert line, said
            said += line
        asked = time.monotonic()
        lab.send_signal(signal.SIGTERM)
        rest = lab.stderr.read()
        code = lab.wait(2 * GRACE_SECONDS)
        took = time.monotonic() - asked
    assert Boot.USER_SPACE not in rest, "it had booted by then"
    assert code == 128 + signal.SIGTERM
    assert took < GRACE_SECONDS
