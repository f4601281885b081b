"""``lab run --explain`` for real, and the page that shows one: the same steps in the same order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import preloaded
import pytest
from tiny import tiny_image
from traces import Line, parse, sentences, shown_in

from lab.backends.support.programs.ocicontainer import Made
from lab.cli.instances.explanations import EXPLANATIONS, HELPER, SURROUNDINGS
from lab.images.store import Store
from lab.runtime import container
from lab.runtime.plan import Before, Step

pytestmark = pytest.mark.usefixtures("same_host")

LAB = [sys.executable, "-m", "lab.cli.main"]
PAGE = Path(__file__).parents[2] / "docs" / "how-a-container-starts.md"
OPTIONAL = {Step.HOOKS, Step.CONSOLE, Step.START_HOOKS}
"""What only a configuration with hooks, or with a terminal, has."""


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


def explained(backend: str, *command: str) -> subprocess.CompletedProcess[str]:
    words = ["run", "tiny", "--on", backend, "--name", "web", "--explain", "--", *command]
    return preloaded.run([*LAB, *words], capture_output=True, text=True, timeout=250, check=False)


def trace_of(backend: str) -> tuple[list[Line], str]:
    done = explained(backend, "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    return parse(done.stderr), done.stderr


def test_every_step_of_a_container_in_its_order() -> None:
    lines, text = trace_of("container")
    steps = [line.step for line in lines]
    assert steps == [*SURROUNDINGS, *(str(step) for step in Step if str(step) not in OPTIONAL), HELPER]
    assert [line.page for line in lines] == [EXPLANATIONS[step].page for step in steps]
    assert {line.side for line in lines} == {"lab", "launcher", "child", "inside"}
    mounted = next(line for line in lines if line.step == Step.MOUNTS).parts
    assert {"proc on /proc", "tmpfs on /dev", "… on /.lab read-only"} <= set(mounted)
    assert "mask /proc/keys" in next(line for line in lines if line.step == Step.MASKS).parts
    assert "here: web" in text  # its hostname
    assert "here: /.lab/inside init -- sh -c 'echo out; exit 3'" in text


def test_the_times_are_of_one_clock_and_no_step_is_counted_twice() -> None:
    lines, _ = trace_of("container")
    for side in ("lab", "launcher", "child"):
        ours = [line for line in lines if line.side == side]
        for earlier, later in pairwise(ours):
            assert earlier.at + earlier.took <= later.at + 0.002, (earlier, later)  # printed to the microsecond
    executed = lines[-1]
    assert all(line.at <= executed.at for line in lines)


def test_what_a_bare_process_does_without_is_said() -> None:
    lines, text = trace_of("process")
    pages = {line.step: line.page for line in lines}
    assert pages[Step.ENTER] == "chroot(2)"
    assert Before.DEVICES not in pages
    for sentence in ("root can leave again", "No filter", "Nothing is masked", "It keeps the host's name"):
        assert sentence in text
    assert EXPLANATIONS[Step.SECCOMP].what not in text


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_reference_is_explained_as_far_as_it_can_be_seen(runtime: str) -> None:
    if not shutil.which(runtime):
        pytest.skip(f"{runtime} is not installed")
    lines, _ = trace_of(runtime)
    told = [(line.side, line.step) for line in lines]
    assert told == [
        ("lab", Before.NETWORK),
        ("lab", Before.CGROUP),
        ("lab", Made.BUNDLE),
        (runtime, Made.CREATE),
        (runtime, Made.START),
    ]


def test_a_start_that_fails_is_explained_until_it_fails() -> None:
    done = explained("container", "/absent")
    assert done.returncode == 127
    assert parse(done.stderr)[-1].step == Step.SECCOMP
    assert "execve" in done.stderr.splitlines()[-2]
    assert "the application runs" not in done.stderr


def test_the_page_shows_a_real_trace() -> None:
    shown = shown_in(PAGE, "a container")
    lines, text = trace_of("container")
    assert [line.told for line in parse(shown.trace)] == [line.told for line in lines]
    assert sentences(shown.trace) == sentences(text)


def test_page_docstring_and_code_number_the_same_steps() -> None:
    wanted = list(enumerate((str(step) for step in Step), 1))
    page = re.findall(r"^(\d+)\. \*\*(.+?)\*\*", PAGE.read_text(), re.MULTILINE)
    assert [(int(number), name) for number, name in page] == wanted
    docstring = re.findall(r"^ ?(\d+)\. (.*)", container.__doc__ or "", re.MULTILINE)
    assert [int(number) for number, _ in docstring] == [number for number, _ in wanted]
    for (_, line), (number, name) in zip(docstring, wanted, strict=True):
        assert name in line, f"step {number} of container.py's docstring does not name {name!r}"
