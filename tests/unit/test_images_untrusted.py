"""What an image says of itself is somebody else's: no name, number, time or file of it is taken at its word."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from host_state import wait_until

from lab.backends.bubble import sandbox
from lab.backends.support.host import _has_folder
from lab.errors import DockerfileError, ImageError, LaunchError, UsageError
from lab.host.execution.relay import Beginning
from lab.images import process
from lab.images.dockerfile.parse import parse_trigger
from lab.images.ociconfig import config_from_oci, history_from_oci
from lab.images.process import find_account, find_group, resolve_words
from lab.images.stages.copy_rules import Owner, Piece, Upper
from lab.images.tar.bounds import Bounds
from lab.images.tar.tarstream import Member, TarStream
from lab.images.transfer.remote import _for_git
from lab.images.tree import Tree
from lab.model import ImageConfig

NAMES = ["/etc/cron.d/zz", "../x", "a/b", "..", "."]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def accounts(root: Path, passwd: str = "", group: str = "") -> Tree:
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text(group)
    return Tree([root])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "line", ["COPY <<{0} /y\ntext\n{0}\n", 'ADD <<"{0}" /y\ntext\n{0}\n', "RUN <<{0}\ntrue\n{0}\n"]
)
def test_a_here_document_is_called_like_a_file_and_not_by_a_path(line: str, name: str) -> None:
    """It is written by root before there is a container; ONBUILD of a pulled image may bring one."""
    with pytest.raises(DockerfileError, match="here"):
        parse_trigger(line.format(name), 1)


@pytest.mark.parametrize(
    "config",
    [
        {"Env": ["A=x\0--bind\0/\0/host"]},
        {"Cmd": ["a\0b"]},
        {"WorkingDir": "/a\0b"},
        {"User": "a\0b"},
        {"Labels": {"a\0": "b"}},
        {"OnBuild": ["RUN a\0b"]},
    ],
)
def test_a_nul_byte_is_in_no_image(config: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="NUL"):
        config_from_oci({"config": config})


def test_a_nul_byte_is_in_no_process(root: Path) -> None:
    tree = Tree([root])
    for environment, argv in (({"A": "\0"}, ["a"]), ({"\0": "a"}, ["a"]), ({}, ["a\0"])):
        with pytest.raises(UsageError, match="NUL"):
            resolve_words(ImageConfig(), tree, argv, environment)
    with pytest.raises(UsageError, match="NUL"):
        resolve_words(ImageConfig(environment={"A": "a\0"}), tree, ["a"], {})


def test_no_word_for_bwrap_becomes_two() -> None:
    assert sandbox._listed(["--setenv", "A", "x"]) == b"--setenv\0A\0x\0"
    with pytest.raises(LaunchError, match="NUL"):
        sandbox._listed(["--setenv", "A", "x\0--bind\0/\0/host"])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"Interval": 1}, "Interval"),
        ({"Interval": -1_000_000_000}, "Interval"),
        ({"Timeout": 10**30}, "Timeout"),
        ({"StartPeriod": "1s"}, "StartPeriod"),
        ({"Retries": -1}, "Retries"),
    ],
)
def test_a_check_s_times_are_times(times: dict[str, Any], message: str) -> None:
    usual = {"Test": ["CMD", "true"]}
    assert config_from_oci({"config": {"Healthcheck": {**usual, "Interval": 1_000_000, "Retries": 3}}}).health
    with pytest.raises(ImageError, match=message):
        config_from_oci({"config": {"Healthcheck": {**usual, **times}}})


def test_a_port_is_a_port() -> None:
    ports = ("80/tcp", "²/tcp", "70000", "0/tcp", "81")
    found = config_from_oci({"config": {"ExposedPorts": {port: {} for port in ports}}})
    assert found.exposed_ports == (80, 81)


@pytest.mark.parametrize("number", ["4294967296", "4294967295", "2147483648", "²", "9" * 5000])
def test_a_number_that_the_kernel_would_cut_is_nobody(root: Path, number: str) -> None:
    tree = accounts(root, f"big:x:{number}:0::/:\nfine:x:7:8::/home:\n", f"big:x:{number}:\nfine:x:8:\n")
    for user in (number, "big", f"fine:{number}", "fine:big"):
        with pytest.raises(UsageError, match="the image has no"):
            find_account(tree, user)
    with pytest.raises(UsageError):
        find_group(tree, number)
    assert find_account(tree, "fine").uid == 7
    assert find_account(tree, "2147483647").uid == 2147483647


def test_a_table_of_users_is_not_read_without_an_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a few bytes in a layer may be as large as the host's memory."""
    tree = accounts(root, "fine:x:7:8::/home:\n")
    os.truncate(root / "etc/passwd", 1 << 40)
    with pytest.raises(UsageError, match="larger than"):
        find_account(tree, "fine")
    os.truncate(root / "etc/passwd", process.MOST_BYTES)
    assert find_account(tree, "fine").uid == 7


def test_a_folder_of_an_image_is_looked_for_in_the_image(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "data/etc").mkdir(parents=True)
    upper.mkdir()
    (upper / "etc").symlink_to(tmp_path)  # there is such a folder, on the host
    assert not _has_folder([upper, lower], b"etc")
    (upper / "etc").unlink()
    (upper / "etc").symlink_to("/data/etc")
    assert _has_folder([upper, lower], b"etc")
    (upper / "etc").unlink()
    (upper / "etc").symlink_to("etc")
    assert not _has_folder([upper, lower], b"etc")


def test_of_what_never_ends_the_beginning_is_kept() -> None:
    with Beginning(10) as output, subprocess.Popen(["yes", "0123456789abcdef"], stdout=output.descriptor) as endless:
        try:
            assert wait_until(lambda: bool(output.text), 60)
            output.close()  # while it writes on
            assert output.text == b"0123456789"
        finally:
            endless.kill()
    with Beginning(10) as output:
        os.write(output.descriptor, b"all")
    assert output.text == b"all"


def test_a_note_in_a_history_names_no_file() -> None:
    """What builds a step's cache key is looked for by it among the store's files."""
    key = "0f" * 32
    comments = (f"lab.cache:{key}", "lab.cache:/dev/watchdog", "lab.cache:../x", f"lab.cache:{key}\n", "lab.cache:")
    found = history_from_oci({"history": [{"created_by": "x", "comment": comment} for comment in comments]})
    assert [step.cache_key for step in found] == [key, "", "", "", ""]
    assert [step.comment for step in found] == ["", *comments[1:]]


def archive(*members: tuple[bytes, bytes], name: str = "file") -> bytes:
    """Extended headers of those kinds with those records, and an empty file behind them."""
    target = io.BytesIO()
    for kind, content in members:
        header = tarfile.TarInfo("header")
        header.type, header.size = kind, len(content)
        target.write(header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    target.write(tarfile.TarInfo(name).tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    return target.getvalue()


def members(data: bytes) -> list[Member]:
    return list(TarStream(io.BytesIO(data).read, Bounds()))


def record(key: bytes, value: bytes) -> bytes:
    """As pax(1) has it: its own length first."""
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_headers_before_a_member_are_bounded_together(kind: bytes) -> None:
    one = record(b"comment", b"x" * (1 << 20)) if kind != b"L" else b"x" * (1 << 20)
    with pytest.raises(ImageError, match="header"):
        members(archive(*[(kind, one)] * 5))


def test_of_headers_for_all_members_those_that_are_read_are_kept() -> None:
    records = [record(b"mtime", b"7"), *(record(b"k%d" % number, b"v") for number in range(99))]
    stream = TarStream(io.BytesIO(archive((b"g", b"".join(records)))).read, Bounds())
    (member,) = stream
    assert member.mtime_ns == 7_000_000_000
    assert set(stream._global) == {b"mtime"}


def test_a_name_leaves_room_for_the_store_s_own_path() -> None:
    fits, long = ("a/" * 1900 + "b", "a/" * 2040 + "b")
    assert len(members(archive(name=fits))) == 1
    with pytest.raises(ImageError, match="a name that no file can have"):
        members(archive(name=long))


def test_names_of_two_sources_are_not_linked_to_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a/f").write_text("shared")
    (tmp_path / "b/g").hardlink_to(tmp_path / "a/f")
    (tmp_path / "other/f").write_text("another")
    upper = Upper(tmp_path / "upper", [])
    for source, target in (("a/f", "/d/f"), ("other/f", "/d/f"), ("b/g", "/d/g")):
        real = os.fsencode(tmp_path / source)
        upper.put(Piece(target="", real=real, status=os.lstat(real)), target, Owner())
    assert (tmp_path / "upper/d/f").read_text() == "another"
    assert (tmp_path / "upper/d/g").read_text() == "shared"


def test_git_finds_nothing_of_this_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    found = _for_git(None)
    assert found["SSH_AUTH_SOCK"] == ""
    assert {found[name] for name in ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL")} == {os.devnull}
    assert "-F /dev/null" in found["GIT_SSH_COMMAND"]
    assert _for_git(Path("/offered"))["SSH_AUTH_SOCK"] == "/offered"
