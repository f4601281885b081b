"""A runtime of the user's: what is named is found, asked, and told apart from what is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from host_state import wait_until

from lab.backends import registry
from lab.backends.ociruntime import OciRuntime
from lab.backends.reference import TUN, habits
from lab.backends.runc import Runc
from lab.backends.support.programs import binary
from lab.backends.support.programs.binary import Answers, Binary, ask, locate, look_at
from lab.backends.support.programs.ocicontainer import complaint
from lab.commands.options.brought import Brought, one, require_same_programs
from lab.errors import BackendUnavailable, LabError, ResultsError, UsageError
from lab.experiment.factors import Scope, known, parse
from lab.host.procstat import start_time
from lab.model import Accelerator
from lab.results.record import Arm

HELP = "commands: create delete kill start state"
FEATURES = '{"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0"}'


def program(path: Path, *, version: str = "runc version 1.4.0", help_text: str = HELP, features: str = "") -> Path:
    """A script that answers as a runtime does."""
    answers = f"--version) echo '{version}';; --help) echo '{help_text}';;"
    answers += f"features) echo '{features}';;" if features else ""
    path.write_text(f"#!/bin/sh\ncase $1 in {answers} *) echo no >&2; exit 1;; esac\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module, name in ((registry, "_admitted"), (registry, "_words"), (binary, "_located")):
        monkeypatch.setattr(module, name, {})
    look_at.cache_clear()
    yield
    look_at.cache_clear()


@pytest.mark.parametrize("name", ["runc-1.4", "with space", "a:colon", "ünlike"])
def test_a_path_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = program(tmp_path / name)
    found = Brought.admitted(f"container, oci:./{name}")
    (kind,) = found.kinds
    assert found.on == f"container,{kind.name}"
    assert not found.alone
    monkeypatch.chdir("/")
    assert registry.find(kind.name) is registry.find(f"oci:{path}") is kind
    assert kind.made_by()["path"] == str(path)


def test_a_name_is_looked_for_in_path_and_a_tilde_is_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = program(tmp_path / "my-runtime")
    assert locate("my-runtime") == locate("~/my-runtime") == path


def test_what_cannot_be_executed_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    program(tmp_path / "with,comma")
    os.mkfifo(tmp_path / "pipe")
    for word, told in {
        "oci:": "without a runtime",
        "oci:./absent": "there is no ./absent",
        "oci:./with,comma": "there is no ./with",
        "oci:plain": "in PATH",
        "oci:./plain": "can't be executed",
        "oci:./folder": "is a folder",
        "oci:./pipe": "no regular file",
        "oci:~no-such-user/x": "no such user",
        "oci:./a\x1b[2J": "can't be printed",
        "oci:./" + "x" * 300: "there is no",
    }.items():
        with pytest.raises(UsageError, match=told) as refused:
            Brought.admitted(word)
        assert refused.value.hint
        assert "\n" not in refused.value.message


def test_two_names_of_one_file_are_refused_and_two_files_told_apart(tmp_path: Path) -> None:
    first, second = (program(tmp_path / folder) for folder in ("runc", "other"))
    (tmp_path / "below").mkdir()
    third = program(tmp_path / "below" / "runc")
    with pytest.raises(UsageError, match="twice"):
        Brought.admitted(f"oci:{first},oci:{first}")
    registry._admitted.clear()
    assert Brought.admitted(f"oci:{first},oci:{second},oci:{third}").on == "oci:runc,oci:other,oci:runc-2"
    assert Brought.admitted("oci:runc,oci:runc-2").on == "oci:runc,oci:runc-2", "what is known is not looked for"


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    new = ask(program(tmp_path / "new", features=FEATURES))
    assert (new.program, new.release, new.trouble) == ("runc", (1, 4, 0), "")
    assert new.describe() == "runc version 1.4.0, OCI 1.0.0 to 1.2.0"
    old = ask(program(tmp_path / "old", version="youki version: 0.5.1"))
    assert (old.program, old.release) == ("youki", (0, 5, 1))
    assert "no features" in old.describe()
    assert "no version" in ask(program(tmp_path / "silent", version="")).describe()
    assert Answers(version="kata-runtime : 1.13.0-alpha0").program == "kata-runtime"


def test_what_is_no_runtime_is_not_asked_for_features(tmp_path: Path) -> None:
    path, asked = tmp_path / "other", tmp_path / "asked"
    path.write_text(f"#!/bin/sh\necho $1 >> {asked}\npwd >> {asked}\necho reboot 1.0\n")
    path.chmod(0o755)
    (kind,) = Brought.admitted(f"oci:{path}").kinds
    check = next(each for each in kind.check() if each.name == kind.name)
    assert not check.ok
    assert "create, start, state, kill, delete" in check.found
    words = asked.read_text().split()
    assert words[0::2] == ["--version", "--help"]
    assert not [folder for folder in words[1::2] if Path(folder).exists()], "it was asked in a folder of its own"


def test_what_does_not_answer_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "ASKED_SECONDS", 0.3)
    path, pids = tmp_path / "slow", tmp_path / "pids"
    path.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {pids}; wait\n")
    path.chmod(0o755)
    assert "did not answer --version" in ask(path).trouble
    assert wait_until(lambda: start_time(int(pids.read_text())) is None, 10)
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    assert "can't be executed" in ask(tmp_path / "text").trouble
    assert ask(program(tmp_path / "broken", version="", help_text="")).trouble


def test_one_that_changes_is_noticed(tmp_path: Path) -> None:
    path = program(tmp_path / "runtime")
    seen = look_at(path)
    seen.require_unchanged()
    before = seen.digest
    program(path, version="runc version 1.5.0")
    with pytest.raises(LabError, match="was changed"):
        seen.require_unchanged()
    path.unlink()
    with pytest.raises(LabError, match="not there any more"):
        seen.require_unchanged()
    assert before.startswith("sha256:")


def test_a_backend_of_an_instance_that_runs_is_found_though_its_program_is_gone(tmp_path: Path) -> None:
    kind = registry.find(f"oci:{tmp_path}/gone")
    assert issubclass(kind, OciRuntime)
    assert not next(each for each in kind.check() if each.name == kind.name).ok
    with pytest.raises(UsageError, match="no backend"):
        registry.find("vm:/disk.raw")


def test_a_binary_is_a_factor_of_its_own_kind_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path / "runc-a")
    program(tmp_path / "runc-b", version="runc version 1.3.0")
    program(tmp_path / "crun-a", version="crun version 1.8")
    program(tmp_path / "crun-b", version="crun version 1.9")
    (mine,) = Brought.admitted("oci:./crun-a").kinds
    (factor,) = parse(["binary=./runc-a, ./crun-b,./runc-b"], [Runc, mine])
    assert (factor.scope, factor.of["runc"]) == (Scope.KNOB, ("./runc-a", "./runc-b"))
    assert factor.of[mine.name] == ("./crun-b",)
    (listed,) = [each for each in known([Runc, mine]) if each.name == "binary"]
    assert (listed.levels, bool(listed.example)) == ((), True)
    assert Runc.settle({"binary": "./runc-b"}) == {"binary": f"{tmp_path}/runc-b"}
    for text, told in {
        "binary=./runc-a,./nothing": "there is no ./nothing",
        "binary=./runc-a,./crun-b": "is no runc",
        f"binary=./runc-a,{tmp_path}/runc-a": "twice",
        "binary=./runc-a": "one level",
        "binary=./runc-a,./a b": "can't be a level",
    }.items():
        with pytest.raises(UsageError, match=told):
            parse([text], [Runc])


def test_what_is_known_of_a_release_is_said_of_it_alone() -> None:
    def said(version: str) -> tuple[str, ...]:
        found = Binary(Path("/runtime"), ())
        found.__dict__["answers"] = Answers(version=version)
        return habits(found)

    assert TUN in said("runc version 1.1.5")
    assert TUN not in said("runc version 1.2.1")
    assert TUN in said("runc version 1.2.4")
    assert TUN in said("crun version 0.17")
    assert TUN not in said("crun version 1.8.1")
    assert any("not known" in sentence for sentence in said("youki version 0.5.0"))
    assert not any("not known" in sentence for sentence in said("crun version 1.8.1"))


def test_what_a_log_complains_about() -> None:
    assert complaint('{"level":"error","msg":"no such\\nfile"}') == "no such file"
    assert complaint('{"level":"ERROR","fields":{"message":"denied"}}') == "denied"
    for line in ("", "time=now level=error msg=text", "[]", "7", '{"level":"info","msg":"x"}', '{"level":"error"}'):
        assert not complaint(line), line


def test_a_disk_runs_no_image_and_other_names_stay() -> None:
    assert one("container") == "container"
    with pytest.raises(UsageError, match="runs no image"):
        one("vm:./disk.qcow2")


def test_another_program_called_runc_is_no_runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = program(tmp_path / "runc")
    assert Runc._check_program().ok
    look_at.cache_clear()
    program(path, version="crun version 1.8")
    found = Runc._check_program()
    assert not found.ok
    assert "crun version 1.8" in found.found


def test_a_run_goes_on_with_the_same_programs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = program(tmp_path / "runc-a", features=FEATURES)
    found = Brought.admitted("oci:./runc-a")
    arm = Arm(
        label="oci:runc-a", backend="oci:runc-a", title="", mechanism="", order=36, accelerator=Accelerator.NATIVE,
        kernel="", made_by=found.kinds[0].made_by(),
    )  # fmt: skip
    level = replace(arm, label="runc[…]", backend="runc", factors={"binary": "./runc-a"})
    recorded = json.loads(json.dumps(found.recorded))
    monkeypatch.chdir("/")
    for known_one in (registry._admitted, registry._words, binary._located):
        known_one.clear()  # type: ignore[attr-defined]  # as in another process
    assert Brought.again(recorded).on == "oci:runc-a"
    require_same_programs([arm, level])
    path.write_text(path.read_text() + "\n")
    look_at.cache_clear()
    with pytest.raises(ResultsError, match="another program"):
        require_same_programs([arm])


def test_a_named_backend_that_is_no_runtime_is_unavailable(tmp_path: Path) -> None:
    from lab.commands.measuring import choose_backends

    with pytest.raises(BackendUnavailable, match="--help does not offer"):
        choose_backends(f"oci:{program(tmp_path / 'x', help_text='nothing')}")
