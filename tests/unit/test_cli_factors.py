"""What a command line's factors come to, said before anything is built: combinations that can't be, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.backends.registry import find
from lab.commands.options.conditions import read, require
from lab.errors import UsageError
from lab.experiment.factors import Factor, parse
from lab.host.units import parse_bytes
from lab.hypervisor.guest import loader
from lab.model import Limits, Scenario
from lab.studies.compare.factors import plan_arms

BACKENDS = ("container", "vm")


@pytest.fixture(autouse=True)
def firmware_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "require", lambda firmware: None)


def factors(*texts: str) -> tuple[Factor, ...]:
    return parse(texts, [find(name) for name in BACKENDS])


def test_one_line_says_what_a_backend_is_left_out_of(capsys: pytest.CaptureFixture[str]) -> None:
    varied = factors("firmware=direct,seabios,ovmf", "machine=q35,microvm", "memory=256M,128M,192M")
    planned = plan_arms(BACKENDS, varied, Limits())
    of_vm = [arm for arm in planned if arm.backend == "vm"]
    assert len(planned) == len(of_vm) + 4  # the container at each size, and the pair's second
    assert {(arm.factors["memory"], arm.factors["firmware"]) for arm in of_vm} == {
        ("256M", "direct"), ("256M", "seabios"), ("256M", "ovmf"), ("192M", "direct"), ("192M", "seabios"),
    }  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lab: vm: left out {18 - len(of_vm)} of 18 combinations: ")
    for reason in ("firmware=seabios and machine=microvm don't go together", "no vm with 128 MiB", "no vm with 192"):
        assert line.count(reason) == 1


@pytest.mark.parametrize(
    ("condition", "says", "remedy"),
    [
        ("boot.effect(container, firmware=seabios) > 1", "no effect of firmware=seabios on container", "memory=512M"),
        ("boot.effect(vm, firmware=direct) > 1", "no effect of firmware=direct on vm", "firmware=seabios"),
        ("boot.ratio(microvm, vm) > 1", "no backend microvm", "it has: container, vm"),
        ("boot.ratio(vm, vm[memory=1G]) > 1", "no arm vm.memory=1G", "memory=256M, memory=512M"),
        ("boot.totl.median(vm) > 1s", "no quantity is called boot.totl", "did you mean boot.total"),
        ("work.get.median(vm) > 1", "no quantity is called work.get", "did you mean"),
        ("cpu.idle.median(vm) > 1", "cpu.idle is not measured", "add cpu to --metrics"),
    ],
)
def test_a_condition_on_what_will_not_be_run_is_refused_before_it_starts(
    condition: str, says: str, remedy: str
) -> None:
    planned = plan_arms(BACKENDS, factors("memory=256M,512M", "firmware=direct,seabios"), Limits())
    meant = ("boot.ratio(vm[memory=512M], container) > 1", "boot.effect(vm, firmware=seabios) > 1")
    idle = Scenario(name="s", title="t", directory=Path(), dockerfile=Path())
    require(read([*meant, "boot.median(container#aa) > 1s"]), planned, ["boot"], idle)
    with pytest.raises(UsageError, match=says) as caught:
        require(read([condition]), planned, ["boot", "load"], idle)
    assert remedy.split(", ")[0] in caught.value.hint


@pytest.mark.parametrize(
    ("texts", "limits", "says", "remedy"),
    [
        (("firmware=ovmf,direct", "machine=microvm,q35"), "256M", "firmware=ovmf and machine=microvm", "machine=q35"),
        (("memory=128M,256M",), "", "lab starts no vm with 128 MiB", "memory=192M or more"),
        ((), "64M", "lab starts no vm with 64 MiB", "--memory 192M or more"),
    ],
)
def test_first_levels_and_limits_of_all_must_be_possible(
    texts: tuple[str, ...], limits: str, says: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        plan_arms(BACKENDS, factors(*texts), Limits(memory_bytes=parse_bytes(limits) if limits else None))
    assert caught.value.message.startswith("vm can't be compared")
    assert remedy in caught.value.hint
