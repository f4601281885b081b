"""The ladder: its rungs as data, what is concluded from its samples, and the report that is made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from studies import KIB, ladder_run
from typer.testing import CliRunner

from lab.analysis.loaded import load
from lab.backends.registry import available
from lab.errors import UsageError
from lab.images.store import Image, Origin
from lab.instance import LaunchRequest
from lab.model import ImageConfig, Kernel, Limits, Process
from lab.runtime import bundle
from lab.runtime.bundle import container_config, process_config
from lab.runtime.config import validate
from lab.runtime.config.model import to_json
from lab.studies.ladder import report
from lab.studies.ladder.analyse import MEMORY, START, below, costs, rows, stops
from lab.studies.ladder.report import REPORT, Climb, markdown, opening, terminal
from lab.studies.ladder.rungs import RUNGS, USUAL, choose, configuration
from lab.studies.registry import study_of


def request() -> LaunchRequest:
    image = Image(
        name="page",
        digest="sha256:" + "0" * 64,
        config=ImageConfig(),
        layers=(),
        origin=Origin.BUILT,
        created=datetime.fromtimestamp(0, UTC),
    )
    return LaunchRequest(
        name="page", image=image, process=Process(argv=("true",)), log_directory=Path(),
        limits=Limits(memory_bytes=1 << 28, cpus=1.0, pids=64),
    )  # fmt: skip


# The rungs


def test_the_first_rung_is_the_control() -> None:
    wanted = process_config(request().process, network_namespace=bundle.HOST)
    assert configuration(RUNGS[:1], request(), bundle.HOST) == wanted


def test_without_a_user_namespace_the_ladder_leads_to_what_lab_run_runs() -> None:
    """No mechanism of the default is forgotten, and none is there that it has not."""
    assert {rung.name for rung in RUNGS[1:] if not rung.own_kernel} - {"user", "landlock"} == report.CONTAINERS
    steps = [rung for rung in RUNGS if not rung.own_kernel and rung.name != "user"]
    climbed = to_json(configuration(steps, request(), bundle.HOST))
    wanted = to_json(container_config(request().process, request().limits, hostname="page"))
    del wanted["linux"]["sysctl"]  # of a network that nobody plugs into
    for config in (climbed, wanted):
        config["linux"]["namespaces"].sort(key=lambda space: space["type"])
        config["mounts"].sort(key=lambda mount: mount["destination"])
    assert climbed == wanted


@pytest.mark.parametrize("count", range(1, len(RUNGS) + 1))
def test_every_rung_is_a_valid_configuration(count: int) -> None:
    validate.check(configuration(RUNGS[:count], request(), bundle.HOST))


def test_each_step_changes_something() -> None:
    from lab.studies.ladder.rungs import changes

    told = changes(RUNGS, request())
    assert {name for name, changed in told.items() if not changed} == {
        "chroot", "landlock", "gvisor", "uml", "microvm", "krun", "vm",
    }  # fmt: skip
    assert told["pid"] == ("linux.namespaces",)
    assert told["masks"] == ("linux.maskedPaths", "linux.readonlyPaths")
    assert told["no-new-privs"] == ("process.noNewPrivileges",)
    assert all(rung.adds.endswith(".") and rung.manual for rung in RUNGS)


def test_rungs_are_chosen_in_any_order_between_the_control_and_the_machines() -> None:
    assert [rung.name for rung in choose(["vm", "seccomp", "pid"])] == ["chroot", "seccomp", "pid", "vm"]
    assert choose([]) == USUAL
    assert {rung.name for rung in RUNGS} - {rung.name for rung in USUAL} == {"gvisor", "uml", "krun"}
    assert [rung.name for rung in choose(["krun", "gvisor", "pid"])] == ["chroot", "pid", "krun", "gvisor"]
    with pytest.raises(UsageError, match="no rung is called x"):
        choose(["x"])
    with pytest.raises(UsageError, match="twice"):
        choose(["pid", "pid"])


def test_what_brings_a_kernel_is_a_backend_that_does_and_no_other_is_left_out() -> None:
    """A reference is climbed where it is named, as it is compared."""
    kinds = {kind.name: kind for kind in available() if kind.kernel is not Kernel.HOST}
    rungs = {rung.name: rung for rung in RUNGS if rung.own_kernel}
    assert set(rungs) == set(kinds)
    assert {name: rung.asked for name, rung in rungs.items()} == {
        name: kind.reference for name, kind in kinds.items()
    }
    assert all(name == rung.backend for name, rung in rungs.items())


# The analysis and the report


def test_a_step_is_found_within_rounds_though_the_host_drifts(tmp_path: Path) -> None:
    found = costs(load(ladder_run(tmp_path).path))
    step = found["pid", START]
    assert step.is_sure
    assert step.step_low <= 0.003 <= step.step_high
    assert step.high - step.low > step.step_high - step.step_low, "pairing takes the drift out"
    assert not found["user", START].is_sure
    assert found["chroot", START].tell_step() == ""
    assert (found["vm", START].n, found["vm", START].failed) == (7, 1)


def test_kernels_of_its_own_add_to_the_last_rung_without_and_not_to_each_other(tmp_path: Path) -> None:
    folder = ladder_run(tmp_path)
    chroot, pid, user, vm = folder.run.arms
    with folder:
        folder.update(arms=(chroot, pid, replace(user, user_kernel=True), vm))
    loaded = load(folder.path)
    assert below(loaded.all_arms) == {"pid": "chroot", "user": "pid", "vm": "pid"}
    found = costs(loaded)
    expected = found["vm", MEMORY].median - found["pid", MEMORY].median
    assert found["vm", MEMORY].step == pytest.approx(expected, rel=0.01)
    assert expected == pytest.approx((90_000 - 120) * KIB)


def test_two_rounds_are_too_few_and_no_sign_of_scatter(tmp_path: Path) -> None:
    found = costs(load(ladder_run(tmp_path, rounds=2).path))
    assert [found[rung, START].glance for rung in ("chroot", "pid")] == ["", "+2.9 ms ?"]
    assert "(" not in str(found["pid", START]), "an interval"


def test_memory_is_what_is_the_rungs_own(tmp_path: Path) -> None:
    found = costs(load(ladder_run(tmp_path).path))
    assert found["chroot", MEMORY].median == 150 * KIB
    assert found["pid", MEMORY].step == pytest.approx(20 * KIB)


def test_a_probe_is_stopped_by_the_step_behind_the_last_on_which_it_is_open(tmp_path: Path) -> None:
    found = rows(load(ladder_run(tmp_path).path))
    assert {row.probe: row.stopped_by for row in found} == {
        "shut": "chroot", "host-processes": "pid", "reopened": "user", "boot-id": "vm", "late": "vm", "leak": "",
        "odd": None, "only-above": None, "moved": "pid",
    }  # fmt: skip
    assert [row.probe for row in found][-3:] == ["leak", "odd", "only-above"], (
        "the staircase ends with what nothing stops"
    )
    changed = {row.probe: [bool(cell and cell.changed) for cell in row.cells] for row in found}
    assert changed["reopened"] == [False, True, True, False]
    assert changed["late"] == [False, False, False, True], "no answer is no change"
    assert changed["moved"] == [False, True, False, False], "its own is as far from the host as nothing"
    assert stops(found)["vm"] == ["boot-id", "late"]


def test_the_report_says_what_stops_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(ladder_run(tmp_path).path)
    assert study_of(loaded.run.settings).kind == "ladder"
    text = "\n".join(markdown(Climb(loaded)))
    for words in (
        "| + pid namespace | What of host-processes? | ✗ | **✓** | ✓ | ✓ |",
        "| stopped by none of them | What of leak? | ✗ | ✗ | ✗ | ✗ |",
        "| could not be told here | What of odd? | ? | ? | ? | ? |",
        "+20 KiB",
        "TCG emulated",
    ):
        assert words in text, words
    written = REPORT.write(loaded.path)
    pictures = {"ladder.png", "ladder.svg", "ladder-glance.png", "ladder-glance.svg"}
    assert {path.name for path in written} == {*pictures, "ladder.csv", "report.md", "report.html"}
    page = (loaded.path / "report.html").read_text()
    assert "stopped by: + user namespace" in page
    assert "it broke" in page
    assert loaded.run.host["kernel_release"] in page
    for text in (page, (loaded.path / "report.md").read_text()):
        assert text.count(f"--seed {loaded.run.seed}") == 1, "the command that was typed had it already"
    assert "https://" not in page
    assert "http://" not in page
    terminal(loaded)
    said = capsys.readouterr().out
    assert "+ pid namespace" in said
    assert max(map(len, said.splitlines())) <= 100


def test_what_every_container_lets_through_is_said_only_where_one_was_climbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climb = Climb(load(ladder_run(tmp_path).path))
    (said,) = [each for each in climb.story if "kernel of its own" in each]
    assert said.endswith("more, which the rungs before it let through.")
    monkeypatch.setattr(report, "CONTAINERS", {step.label for step in climb.steps if not step.machine})
    (said,) = [each for each in climb.story if "kernel of its own" in each]
    assert "which every container lets through" in said


def test_the_first_picture_counts_what_the_table_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    from lab.studies.ladder import picture

    heights: list[float] = []
    monkeypatch.setattr(Axes, "bar", lambda _, places, counts, **__: heights.extend(counts))
    climb = Climb(load(ladder_run(tmp_path).path))
    picture.draw_at_a_glance(climb.loaded, climb.costs, climb.rows, tmp_path)
    *_, table = zip(*(row.cells for row in opening(climb).table.rows), strict=True)
    reached = climb.loaded.answers
    reached = reached[[detail["reach"] == "open" for detail in reached["detail"]]]
    assert heights == [int((reached["arm"] == arm.label).sum()) for arm in climb.loaded.all_arms]
    assert [str(count) for count in heights] == [cell.text for cell in table]
    assert len(set(heights)) > 1


def test_lab_report_rebuilds_it(tmp_path: Path) -> None:
    from lab.cli.results.report import report

    command = typer.Typer()
    command.command()(report)
    folder = ladder_run(tmp_path, rounds=2)
    assert CliRunner().invoke(command, [str(folder.path)]).exit_code == 0
    assert (folder.path / "report.md").read_text().startswith("# The ladder of")
