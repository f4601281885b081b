"""The notebooks run from top to bottom on the sample run, and show what they should: by day all in one kernel, whose
names are forgotten before each, and by night each in a kernel of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

EXPECTED = {
    "01-first-look": ["boot.isolated", "#aa", "'blocks': 6", "boot.total", "adjusted"],
    "02-boot": ["boot.kernel", "boot.listening", "microvm"],
    "03-memory": ["memory.working_set", "memory.host.available_change", "rest"],
    "04-isolation": ["kernel-release", "inconclusive", "guest", "CAP_SYS_ADMIN|errno|EPERM"],
    "05-design-of-experiments": ["process#aa", r"3: \(", r"20: \("],
    "06-your-own-scenario": ["HttpReadiness", "is not a size", "81300.8", "key-value"],
}


def test_these_are_the_notebooks() -> None:
    assert sorted(EXPECTED) == NAMES


def client(notebook: Any, kernel: Any = None) -> NotebookClient:
    """Without a ``kernel`` one of its own is started for the notebook, and ended with it."""
    return NotebookClient(notebook, km=kernel, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}})


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LAB_RUN", raising=False)
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        yield


@pytest.fixture(scope="module")
def kernel(environment: None) -> Iterator[Any]:
    """One for all of them, which imports pandas and matplotlib once; the first notebook starts it."""
    manager = client(nbformat.v4.new_notebook()).create_kernel_manager()
    yield manager
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows_what_it_should(name: str, kernel: Any) -> None:
    runs_and_shows_what_it_should(name, kernel)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_needs_nothing_that_another_has_imported(name: str) -> None:
    runs_and_shows_what_it_should(name, None)


def runs_and_shows_what_it_should(name: str, kernel: Any) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code), "committed without outputs"
    assert any("## Exercises" in cell.source for cell in notebook.cells)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # what another one named is not there
    client(notebook, kernel).execute()
    said = "\n".join(text_of(output) for cell in code for output in cell.outputs)
    for words in EXPECTED[name]:
        assert re.search(words, said), words
    CHECKS.get(name, lambda _: None)([cell.outputs for cell in code])


def text_of(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    assert output.output_type != "error"
    return str(output.data.get("text/plain", ""))


def segments_add_up(outputs: list[Any]) -> None:
    """The second cell's result is the largest difference between the phases' sum and the total, in seconds."""
    number = re.search(r"\(?([0-9.e-]+)\)?$", text_of(outputs[1][-1]))
    assert number is not None
    assert float(number[1]) < 1e-6


def pictures_are_drawn(outputs: list[Any]) -> None:
    assert sum("image/png" in output.get("data", {}) for cell in outputs for output in cell) >= 2
    segments_add_up(outputs)


def few_blocks_fool_a_bootstrap(outputs: list[Any]) -> None:
    said = "\n".join(text_of(output) for cell in outputs for output in cell)
    covered = re.search(r"3: \(([\d.]+), ([\d.]+)\)", said)
    assert covered is not None
    assert float(covered[1]) < 0.85 < 0.9 <= float(covered[2])


CHECKS = {"02-boot": pictures_are_drawn, "05-design-of-experiments": few_blocks_fool_a_bootstrap}
