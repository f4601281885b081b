"""Commands with streams and terminals of their own, on the backends of the host's kernel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import contract
import pytest
import streams
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.site import Site
from lab.instance import Instance

ON_HOST = ["process", "container", *(name for name in ("runc", "crun") if shutil.which(name))]


@pytest.fixture(scope="module", params=ON_HOST)
def instance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    before = snapshot()
    with Site.open() as site:
        logs = tmp_path_factory.mktemp("logs")
        wanted = contract.request(site, tiny_image(site.store), "streams", "sleep", "600", logs=logs)
        with site.backend(request.param).launch(wanted) as started:
            yield started
    assert_unchanged(before)


def test_streams_apart_exit_code_and_surroundings(instance: Instance) -> None:
    streams.check_streams(instance)


def test_what_cannot_be_executed(instance: Instance) -> None:
    streams.check_errors(instance)


def test_much_data_both_ways(instance: Instance) -> None:
    streams.check_much(instance)


def test_signals_and_the_end(instance: Instance) -> None:
    streams.check_end(instance)


def test_a_terminal(instance: Instance) -> None:
    streams.check_terminal(instance)


def test_who_hangs_up_ends_it(instance: Instance) -> None:
    streams.check_hang_up(instance)
