"""systemd-nspawn without a container: which program is used, what it is told, and its filters as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare import bare_host, program

from lab.backends.nspawn import Nspawn
from lab.backends.systemd import options
from lab.backends.systemd.container import shown_in_run
from lab.backends.systemd.learned import joined
from lab.errors import BackendUnavailable, LabError, LaunchError, UsageError
from lab.images.debian import apt
from lab.images.tree import Tree
from lab.model import Process, Volume
from lab.runtime.bundle import bind, container_config
from lab.runtime.config.model import Config, Seccomp, SeccompRule
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.bpf import evaluate
from lab.runtime.seccomp.compiler import native

ROOT = "/run/lab/root"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without any, whose apt knows no Debian; the folder that is its PATH."""
    return bare_host(tmp_path, monkeypatch, "/usr/sbin:/sbin")


def test_the_hosts_own_comes_first_if_it_can_be_used(alone: Path, tmp_path: Path) -> None:
    kept = program(tmp_path / "home/programs/systemd-container-252/systemd-nspawn", "systemd 252 (252.39-1)")
    assert Nspawn.program().path == kept
    own = program(alone / "systemd-nspawn", "systemd 257 (257.9-1)")
    assert Nspawn.program().path == own
    assert Nspawn.unfetched() == ""
    assert Nspawn._check_program().ok


@pytest.mark.parametrize("said", ["systemd 229", "nspawn 252", "systemd", ""])
def test_one_that_is_too_old_or_none_is_passed_over(alone: Path, said: str) -> None:
    own = program(alone / "systemd-nspawn", said)
    assert not Nspawn._check_program().ok
    with pytest.raises(UsageError):
        Nspawn.settle({"binary": str(own)})
    with pytest.raises(BackendUnavailable):
        Nspawn.fetch(lambda _: None)


def test_what_is_fetched_is_of_the_hosts_release() -> None:
    """Its libraries are the host's."""
    assert Nspawn.source.suite in apt.RELEASES
    assert "libsystemd-shared" in Nspawn.source.also


def test_nothing_is_mounted_where_it_mounts_its_own() -> None:
    Nspawn.check_volumes([Volume(source="/data", target="/run/data")])
    for target, named in (("/run/", "/run"), ("/dev/a", "/dev"), ("/sys", "/sys")):
        with pytest.raises(UsageError, match=named):
            Nspawn.check_volumes([Volume(source="/data", target=target)])


@pytest.fixture
def held(tmp_path: Path) -> Tree:
    """An image with folders, a file and links in /run, and links to what nspawn mounts anew."""
    (tmp_path / "run/fine").mkdir(parents=True)
    (tmp_path / "run/file").touch()
    (tmp_path / "var").mkdir()
    for link, target in {"run/app": "/", "run/conf": "/etc", "var/run": "../run", "devices": "/dev"}.items():
        (tmp_path / link).symlink_to(target)
    return Tree([tmp_path])


def test_no_link_of_an_image_chooses_what_of_the_host_is_shown(held: Tree) -> None:
    """nspawn takes each by its path on the host, where /run/app is the host's root."""
    assert shown_in_run(held, []) == ["file", "fine"]
    assert shown_in_run(held, [bind(Path("/data"), "/run/fine/data"), bind(Path("/data"), "/srv")]) == [
        "file",
        "fine",
    ]


def test_a_volume_is_shown_where_it_comes_to_lie(held: Tree) -> None:
    mounts = [bind(Path("/data"), "/var/run/one"), bind(Path("/data"), "/run/two/three")]
    assert shown_in_run(held, mounts) == ["file", "fine", "one", "two"]


@pytest.mark.parametrize("target", ["/run/app/data", "/var/run/conf/a", "/var/run", "/devices/x", "/var/../run"])
def test_a_volume_that_would_be_hidden_is_refused(held: Tree, target: str) -> None:
    with pytest.raises(LaunchError, match="hide"):
        shown_in_run(held, [bind(Path("/data"), target)])


def test_an_image_whose_run_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/etc")
    with pytest.raises(LaunchError, match="link"):
        shown_in_run(Tree([tmp_path]), [])


def configuration(*, uid: int = 0) -> Config:
    process = Process(argv=("app", "-x"), environment={"A": "secret"}, working_directory="/srv", uid=uid, gid=uid)
    usual = container_config(process, hostname="one", network_namespace="/net")
    return options.confined(usual, no_new_privileges=False)


def test_it_is_told_what_keeps_it_from_the_hosts_systemd_and_not_the_environment() -> None:
    config = configuration(uid=7)
    words = options.options(config, ROOT, shown=[("/a:b", "/run/a:b")], dockers_capabilities=False)
    assert {"--register=no", "--keep-unit", "--settings=no", f"--directory={ROOT}", "--hostname=one"} <= set(words)
    assert "--bind=/a\\:b:/run/a\\:b" in words
    assert not any(word.startswith("--drop-capability") for word in words)
    told = options.command(config.process, [])
    assert told[told.index("--user") + 1] == "7:7"
    assert told[-3:] == ["--", "app", "-x"]
    assert not any("secret" in word for word in [*words, *told])


def test_dockers_capabilities_are_what_is_not_dropped() -> None:
    words = options.options(configuration(), ROOT, shown=(), dockers_capabilities=True)
    (dropped,) = [word.partition("=")[2].split(",") for word in words if word.startswith("--drop-capability")]
    assert "CAP_SYS_ADMIN" in dropped
    assert "CAP_CHOWN" not in dropped


def refusing(*names: str) -> bytes:
    rule = SeccompRule(names=names, action="SCMP_ACT_ERRNO")
    return compiler.compile(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule,)))


def test_several_filters_made_one_decide_as_all_of_them() -> None:
    each = [refusing("mount", "bpf"), refusing("bpf", "keyctl"), refusing("swapon")]
    table, one = native(), joined(each)
    for name in ("mount", "bpf", "keyctl", "swapon", "read", "execve"):
        together = min(evaluate(program, table[name], [0] * 6) for program in each)
        assert evaluate(one, table[name], [0] * 6) == together, name
    assert evaluate(one, table["mount"], [0] * 6) != evaluate(one, table["read"], [0] * 6)
    assert joined([]) == b""


def test_what_is_too_long_for_one_is_refused() -> None:
    long = refusing("mount")
    with pytest.raises(LabError):
        joined([long] * (4096 // (len(long) // 8) + 1))
