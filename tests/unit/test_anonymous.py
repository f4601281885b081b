"""What names somebody is taken out of a text, and nothing else."""

from __future__ import annotations

import os
import pwd
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.host.survey import anonymous as module
from lab.host.survey.anonymous import anonymous

ENVIRONMENT = {
    "HOME": "/home/planted-alice", "USER": "planted-alice", "SUDO_USER": "bob.planted", "PATH": "/usr/bin:/bin",
    "API_TOKEN": "s3cr", "DATABASE": "postgres://admin:planted-word@db/x", "LAB_HOME": "/srv/planted/lab",
    "SSH_CONNECTION": "203.0.113.9 50000 192.0.2.7 22", "LANG": "C.UTF-8", "TERM": "xterm-256color",
}  # fmt: skip


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ("planted-alice", "x", 1000, 1000, "Alice Planted,,,", "/home/planted-alice", "/bin/sh")
    alice = pwd.struct_passwd(fields)
    monkeypatch.setattr(pwd, "getpwall", lambda: [alice])
    monkeypatch.setattr(socket, "gethostname", lambda: "planted-host.example.org")


@pytest.mark.parametrize(
    "text",
    [
        "can't open /home/planted-alice/.cache: no", "planted-alice runs it", "Alice Planted", "for bob.planted too",
        "at planted-host, at PLANTED-HOST.example.org", "s3cr", "said postgres://admin:planted-word@db/x",
        "https://somebody:planted-word@proxy.invalid:3128/", "free for /srv/planted/lab/tmp",
        "inet 203.0.113.9/24 on eth0", "192.0.2.7:22", "2001:db8::17", "fe80::1%eth0", "[2001:db8::17]:80",
        "link/ether 52:54:00:ab:cd:ef brd", "52-54-00-AB-CD-EF",
    ],
)  # fmt: skip
def test_what_names_somebody_goes(text: str) -> None:
    shown = anonymous(f"before {text} after", ENVIRONMENT)
    planted = ("planted", "alice", "s3cr", "203.0", "192.0.2", "2001:db8", "fe80", "52:54", "52-54")
    assert not [word for word in planted if word in shown.lower()]
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "[" in shown


@pytest.mark.parametrize(
    "text",
    [
        "Debian GNU/Linux 12 (bookworm), Linux 6.1.0-40-amd64, x86_64, 2 cores", "qemu 7.2.22", "kvm.c:3183: failed",
        "127.0.0.1 and ::1 and 0.0.0.0", "198.18.0.5 is lab's own", "/usr/bin/qemu-system-x86_64", "9.0.0-4+deb12u2",
        "12:34:56 it began", "lab's vm, container, process", "C.UTF-8 in xterm-256color", "std::string::size",
        "4.1.0-3+b2 and 1.2.3.4.5",
    ],
)  # fmt: skip
def test_what_names_nobody_stays(text: str) -> None:
    assert anonymous(text, ENVIRONMENT) == text


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    anonymous(text, {})


def test_this_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "planted-word")
    assert "planted" not in anonymous("it is planted-word")
    assert os.environ["SOME_PASSWORD"]
    assert module.SECRET in anonymous("it is planted-word")
