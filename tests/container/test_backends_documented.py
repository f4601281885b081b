"""The backend that docs/adding-a-backend.md shows is a backend."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

import lab.backends
from lab.backends.registry import available
from lab.backends.site import Site

ON = {"filter": "on"}
PAGE = Path(lab.backends.__file__).parents[2] / "docs/adding-a-backend.md"


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code, "the page has no example"
    (tmp_path / "privileged.py").write_text(code[1])
    monkeypatch.setattr(lab.backends, "__path__", [*lab.backends.__path__, str(tmp_path)])
    yield "privileged"
    sys.modules.pop("lab.backends.privileged", None)


def test_the_example_keeps_the_contract(documented: str, tmp_path: Path) -> None:
    names = [kind.name for kind in available()]
    assert sorted(("container", documented, "process"), key=names.index) == ["process", documented, "container"]
    before = snapshot()
    with Site.open() as site:
        image = tiny_image(site.store)
        site.backend(documented).prepare(image)
        contract.check_exit_code_and_output(site, documented, image, tmp_path / "one")
        with contract.serve(site, documented, image, tmp_path / "two") as instance:
            contract.check_serves(site, instance)
            contract.check_commands(instance)
            contract.check_limits(site, documented, instance)
            status = instance.execute(["cat", "/proc/self/status"]).stdout.decode()
        contract.check_gone(site, instance)
        filtered = replace(contract.request(site, image, "on", "cat", "/proc/self/status", logs=tmp_path), knobs=ON)
        with site.backend(documented).launch(filtered) as instance:
            assert instance.wait(120) == 0
    assert_unchanged(before)
    assert re.search(r"^Seccomp:\t0$", status, re.MULTILINE), "it should have no filter"
    assert re.search(r"^Seccomp:\t2$", (tmp_path / "stdout.log").read_text(), re.MULTILINE), "the knob sets one"
