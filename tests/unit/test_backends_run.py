"""What `lab run` reads from its command line, and how signals end it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cli.instances.request import parse_environment, parse_port, parse_volume
from lab.commands.interrupt import Interrupted, Interruptible
from lab.commands.measuring import limit
from lab.errors import UsageError
from lab.model import Limits, PublishedPort, Volume


@pytest.mark.parametrize(
    ("word", "host", "instance"),
    [("8080:5000", 8080, 5000), ("5000", 0, 5000), ("0:80", 0, 80), ("65535:1", 65535, 1)],
)
def test_ports_are_host_and_instance(word: str, host: int, instance: int) -> None:
    assert parse_port(word) == PublishedPort(host_port=host, instance_port=instance)


@pytest.mark.parametrize(
    ("word", "address", "host", "shown"),
    [
        ("0.0.0.0:8080:80", "0.0.0.0", 8080, "0.0.0.0:8080"),
        ("127.0.0.2::80", "127.0.0.2", 0, "127.0.0.2:0"),
        ("[::1]:8080:80", "::1", 8080, "[::1]:8080"),
    ],
)
def test_a_port_may_name_an_address_of_the_host(word: str, address: str, host: int, shown: str) -> None:
    found = parse_port(word)
    assert (found.address, found.host_port, found.instance_port, found.host) == (address, host, 80, shown)


def test_volumes_are_what_is_there_looked_up_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    found = parse_volume(f"{tmp_path}/link:/data:ro")
    assert found == Volume(source=str(tmp_path / "data"), target="/data", read_only=True)
    assert not parse_volume(f"{tmp_path}/data:/data").read_only
    for wrong in ("", "/tmp", "/tmp:", ":/x", "/tmp:x", "/tmp:/", "/tmp:/x:rx", f"{tmp_path}/none:/x", "volume:/x"):
        with pytest.raises(UsageError):
            parse_volume(wrong)


@pytest.mark.parametrize(
    "word", ["", ":", "80:", ":80", "80:0", "0", "a:b", "70000:80", "1.2.3:80:80", "x:80:80", "1:2:3:4", "8٠:80"]
)
def test_what_is_no_port_is_refused_with_an_example(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_port(word)
    assert "8080:5000" in caught.value.hint


@given(st.text(max_size=10))
def test_any_text_is_a_port_or_a_usage_error(word: str) -> None:
    try:
        assert 0 < parse_port(word).instance_port <= 65535
    except UsageError:
        pass


def test_environment_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "here")
    monkeypatch.delenv("NOWHERE", raising=False)
    found = parse_environment(["A=1", "B=x=y", "EMPTY=", "FROM_HERE", "NOWHERE", "A=2"])
    assert found == {"A": "2", "B": "x=y", "EMPTY": "", "FROM_HERE": "here"}
    with pytest.raises(UsageError):
        parse_environment(["=1"])


def test_the_command_line_replaces_single_limits() -> None:
    given_limits = Limits(memory_bytes=1, cpus=1.0, pids=1)
    assert limit(given_limits, "", "", None) == given_limits
    assert limit(given_limits, "256M", "", 64) == Limits(memory_bytes=256 * 1024**2, cpus=1.0, pids=64)
    assert limit(given_limits, "", "0.5", None) == Limits(memory_bytes=1, cpus=0.5, pids=1)


def test_the_first_signal_interrupts_and_the_next_is_only_impatient() -> None:
    before = signal.getsignal(signal.SIGTERM)
    impatient = []
    with Interruptible() as interruptible:
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_code == 143
        os.kill(os.getpid(), signal.SIGINT)  # while cleaning up: nothing
        interruptible.when_impatient = lambda: impatient.append(1)
        os.kill(os.getpid(), signal.SIGINT)
    assert impatient == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_is_raised_once_disarmed() -> None:
    with Interruptible() as interruptible:
        interruptible.disarm()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_held_signal_waits_and_a_second_one_does_not() -> None:
    with Interruptible() as interruptible:
        interruptible.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            interruptible.release()
    with Interruptible() as interruptible:
        interruptible.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    with Interruptible() as interruptible:
        interruptible.hold()
        interruptible.release()
