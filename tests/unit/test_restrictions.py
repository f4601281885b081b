"""What security modules and settings of a host hinder, with the remedy; nothing where they hinder nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host.survey import restrictions
from lab.host.survey.restrictions import restriction_checks

ENABLED, LABEL = "sys/module/apparmor/parameters/enabled", "proc/self/attr/apparmor/current"
USERNS = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
YAMA, LOCKDOWN = "proc/sys/kernel/yama/ptrace_scope", "sys/kernel/security/lockdown"
MOST = "proc/sys/user/max_user_namespaces"
NOBODY = {"AppArmor", "unprivileged user namespaces", "Yama", "lockdown", "IPv6"}


@pytest.mark.parametrize(
    ("files", "hindering", "remedies"),
    [
        ({}, set(), ()),
        ({ENABLED: "Y", LABEL: "unconfined", USERNS: "0", YAMA: "1", LOCKDOWN: "[none] integrity"}, set(), ()),
        ({ENABLED: "Y", LABEL: "docker-default (enforce)"}, {"AppArmor"}, ("apparmor=unconfined",)),
        ({ENABLED: "Y", LABEL: "some (complain)"}, set(), ()),
        ({ENABLED: "N", LABEL: "kernel"}, set(), ()),
        ({USERNS: "1"}, {"unprivileged user namespaces"}, ("kernel.apparmor_restrict_unprivileged_userns=0",)),
        ({MOST: "0"}, {"unprivileged user namespaces"}, ("user.max_user_namespaces=",)),
        ({YAMA: "2"}, set(), ()),
        ({YAMA: "3"}, {"Yama"}, ("ptrace_scope", "boot")),
        ({LOCKDOWN: "none [integrity] confidentiality"}, {"lockdown"}, ("Secure Boot",)),
        ({LOCKDOWN: "none integrity [confidentiality]"}, {"lockdown"}, ("lockdown=",)),
    ],
)
def test_what_hinders_is_told_with_its_remedy(
    tmp_path: Path, files: dict[str, str], hindering: set[str], remedies: tuple[str, ...]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = {check.name: check for check in restriction_checks(tmp_path) if check.name != "IPv6"}
    assert {name for name, check in found.items() if not check.ok} == hindering
    assert all(check.found for check in found.values())
    told = " ".join(check.remedy for check in found.values() if not check.ok)
    assert all(word in told for word in remedies)
    assert all(not check.required_by for check in found.values())


@pytest.mark.parametrize("there", [True, False])
def test_a_kernel_without_ipv6_is_told(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(restrictions, "_has_ipv6", lambda: there)
    check = restrictions.ipv6()
    assert check.ok is there
    assert there or "ipv6.disable" in check.remedy


def test_each_is_named_once() -> None:
    assert {check.name for check in restriction_checks()} == NOBODY
