"""The whole battery asked inside real instances on the host's kernel: what can be told is as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.registry import available
from lab.backends.site import Site
from lab.images.store import Image
from lab.isolation.battery import ask_all
from lab.isolation.registry import probes
from lab.model import Kernel
from lab.results.observation import Observation
from lab.results.record import Status

# On any host where these tests run at all, these can be told.
CERTAIN = {"boot-id", "kernel-release", "host-processes", "kill-host-process", "trace-host-process", "namespaces"}
CERTAIN |= {"mount", "set-clock", "system-call-filter", "capabilities", "memory-limit", "pids-limit"}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = snapshot()
    with Site.open() as opened:
        yield opened
    assert_unchanged(before)


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    return tiny_image(site.store)


def asked(site: Site, name: str, image: Image, logs: Path, missing: Callable[[str], None]) -> dict[str, Observation]:
    backend = site.backend(name)
    for check in backend.check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    backend.prepare(image)
    wanted = contract.request(site, image, f"probed-{name}", "sleep", "120", logs=logs)
    with backend.launch(wanted) as instance:
        seen = {o.quantity.removeprefix("isolation."): o for o in ask_all(instance, backend)}
        assert instance.wait(0) is None, "the application did not survive the questions"
    contract.check_gone(site, instance)
    return seen


@pytest.mark.parametrize("name", [kind.name for kind in available() if kind.kernel is Kernel.HOST])
def test_every_answer_is_the_expected_one(
    site: Site, name: str, image: Image, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    seen = asked(site, name, image, tmp_path, missing)
    assert list(seen) == [probe.id for probe in probes()]
    told = {key: o for key, o in seen.items() if o.status is Status.OK}
    assert set(told) >= CERTAIN, {key: seen[key].detail["evidence"] for key in CERTAIN - set(told)}
    surprises = {
        key: (o.text, o.detail["expected"], o.detail["evidence"])
        for key, o in told.items()
        if not o.detail["as_expected"]
    }
    assert surprises == {}
