"""Names, partitions, commands and templates: what the image verbs write that needs no image."""

from __future__ import annotations

import shlex
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.commands.console.template import render
from lab.errors import UsageError
from lab.hypervisor.guest.bootdisk import application, boot_command, hostname
from lab.hypervisor.guest.grub import partition_entry
from lab.images.image import Image, Origin
from lab.images.reference import registry_of
from lab.images.transfer.archive import full_name
from lab.model import Accelerator, ImageConfig, Process


def image(name: str, *ports: int) -> Image:
    return Image(
        name=name, digest="sha256:" + "0" * 64, config=ImageConfig(exposed_ports=ports), layers=(),
        origin=Origin.BUILT, created=datetime(2024, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_partition_is_told_in_sectors() -> None:
    entry = partition_entry(1 << 20, 48 << 20, active=True)
    flag, _, kind, _, start, count = struct.unpack("<B3sB3sII", entry)
    assert (flag, kind, start, count) == (0x80, 0x83, 2048, 98304)
    assert partition_entry(0, 100, active=False)[0] == 0
    with pytest.raises(UsageError, match="too large"):
        partition_entry(1 << 40, 1 << 40, active=False)


def test_the_command_forwards_every_port_to_one_that_anybody_may_open() -> None:
    words = boot_command(image("web:1", 80, 5000), Path("a disk.raw"), "raw", Accelerator.TCG)
    assert "file=a disk.raw,format=raw,if=virtio" in words
    assert "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:5000-:5000" in words
    assert words[words.index("-accel") + 1] == "tcg"


def test_the_application_gets_its_own_words_and_nothing_else() -> None:
    process = Process(
        argv=("sh", "-c", "echo 'x y'"), environment={"A": "b c"}, working_directory="/w", uid=7, gid=8,
        additional_gids=(9,),
    )  # fmt: skip
    words = shlex.split(application(process))
    assert words[:5] == ["exec", "env", "-i", "TERM=linux", "A=b c"]
    assert words[words.index("--user") + 1] == "7:8:9"
    assert words[-4:] == ["--", "sh", "-c", "echo 'x y'"]


@pytest.mark.parametrize(
    ("name", "host"),
    [("web-app:latest", "web-app"), ("127.0.0.1:5000/team/my_app:1", "my-app"), ("a@sha256:00", "a")],
)
def test_a_host_is_named_after_the_image(name: str, host: str) -> None:
    assert hostname(image(name)) == host


def test_names_as_other_tools_write_them() -> None:
    assert full_name("python:3") == "docker.io/library/python:3"
    assert full_name("team/app:1") == "docker.io/team/app:1"
    assert full_name("localhost:5000/app:1") == "localhost:5000/app:1"
    assert registry_of("python:3") == registry_of("team/app:1") == "docker.io"
    assert registry_of("127.0.0.1:5000/team/app:1") == "127.0.0.1:5000"


def test_templates() -> None:
    values = {"Name": "web", "Size": 5, "Config": {"Cmd": ["a"]}}
    assert render(r"{{.Name}}\t{{ .Size }} {{.Config.Cmd}} {{json .Name}}", values) == 'web\t5 ["a"] "web"'
    assert render("{{json .}}", {"a": 1}) == '{"a": 1}'
    for wrong in ("{{.Other}}", "{{range .}}", "{{.Name", "{{.Name.Inner}}"):
        with pytest.raises(UsageError):
            render(wrong, values)
