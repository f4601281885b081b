"""Debian 12 as people have it: KVM is proven, and a machine and a container run and leave nothing."""

from __future__ import annotations

import json

import pytest

from .disk import APPLICATION
from .inside import lab, shell, state
from .machine import Machine

pytestmark = pytest.mark.parametrize("machine", ["bookworm"], indirect=True)


def test_kvm_is_proven_and_used(machine: Machine) -> None:
    before = state(machine)
    assert before["systemd"] == ["running"]
    assert shell(machine, "findmnt --noheadings --output FSTYPE --types cgroup,cgroup2").split() == ["cgroup2"]
    lab(machine, "doctor")
    verdict = json.loads(shell(machine, "cat /var/lib/lab/cache/kvm.json"))
    assert verdict["accelerator"] == "kvm", verdict
    for backend in ("container", "microvm"):
        done = lab(machine, "run", APPLICATION, "--on", backend, "--", "sh", "-c", "echo it ran; exit 7", code=7)
        assert "it ran" in done.stdout.splitlines()
    assert state(machine) == before
