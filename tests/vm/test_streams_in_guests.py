"""Commands and an application with streams and terminals of their own, in guests: one machine of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
import streams
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.registry import available
from lab.backends.site import Site
from lab.instance import Instance
from lab.model import Kernel

# By day the quicker one; both run the same server of commands in the guest.
MACHINES = [
    kind.name if kind.name == "microvm" else pytest.param(kind.name, marks=pytest.mark.nightly)
    for kind in available()
    if kind.kernel is Kernel.OWN
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = snapshot()
    with Site.open() as opened:
        yield opened
    # libvirt's worker threads were born where the first machine was started; they end with this process.
    assert_unchanged(before, ignore=["held_namespaces"])


@pytest.mark.parametrize("backend", MACHINES)
def test_streams_and_terminals(site: Site, backend: str, tmp_path: Path) -> None:
    contract.skip_without_kvm(site, backend)
    image = tiny_image(site.store)
    site.backend(backend).prepare(image)

    def launch(stdin: int, stdout: int) -> Instance:
        wanted = contract.request(
            site, image, "typed", "sh", logs=tmp_path, stdin=stdin, stdout=stdout, terminal=streams.SIZE
        )
        return site.backend(backend).launch(wanted)

    with streams.typed_to(launch) as (instance, screen):
        screen.until("/ # ")
        streams.check_streams(instance)
        streams.check_errors(instance)
        streams.check_much(instance)
        streams.check_end(instance)
        streams.check_terminal(instance)
        streams.check_hang_up(instance)
        streams.check_application(instance, screen)
    assert "12 34" in (tmp_path / "stdout.log").read_text()
