"""`lab race`: its model and its screen on invented lanes, and recorded runs as races. Nothing here was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from host_state import wait_until
from seated import seat
from streams import SECONDS
from synthetic import FAILED, TIMED_OUT, keep_only, write_run
from typer.testing import CliRunner

from lab.analysis.data import Observed, read
from lab.classroom.race import growing, podium
from lab.classroom.race.growing import Starting, course
from lab.classroom.race.model import (
    Lane,
    Mark,
    Race,
    Round,
    Station,
    lasts,
    ordinal,
    slowed,
    stopwatch,
    view,
)
from lab.classroom.race.page import html, write
from lab.classroom.race.playing import Playing
from lab.classroom.race.recorded import look, recorded
from lab.classroom.race.screen import Shown, draw
from lab.classroom.race.told import data, rows
from lab.cli.app import app
from lab.commands.console.keyboard import _named
from lab.errors import LabError, ResultsError, UsageError
from lab.model import Accelerator, Kernel, Milestone, Phase
from lab.reports import style
from lab.results.record import Arm

LAB = [sys.executable, "-m", "lab.cli.main"]
SAMPLE = Path(__file__).parents[2] / "results" / "sample"
PHASES = ("isolated", "kernel", "init", "responded")
STATIONS = tuple(Station(phase=each, label=each, short=each, fill="#ffffff", ink="#000000") for each in PHASES)


def lane(name: str, failed: str = "", **times: float) -> Lane:
    marks = tuple(Mark(phase=phase, at=at) for phase, at in sorted(times.items(), key=lambda each: each[1]))
    course = tuple(phase for phase in PHASES if phase in times)
    return Lane(
        name=name, title=name, how="native", colour="#000000", symbol="●", course=course, marks=marks, failed=failed
    )


FAST = lane("fast", isolated=0.01, init=0.03, responded=0.05)
QUICK = lane("quick", isolated=0.02, init=0.03, responded=0.06)
SLOW = lane("slow", isolated=0.5, kernel=1.0, init=2.5, responded=4.0)
DEAD = lane("dead", failed="it ended")


def race(*rounds: tuple[Lane, ...]) -> Race:
    return Race(
        title="an application", goal="the first answer", source="recorded: invented", stations=STATIONS,
        rounds=tuple(Round(number=number, lanes=lanes) for number, lanes in enumerate(rounds, 1)),
    )  # fmt: skip


def standings(one: Lane, at: float) -> list[str]:
    return [cell.standing for cell in view(one, STATIONS, at, {}).cells]


def test_a_lane_is_on_its_way_to_one_station_and_never_half_way() -> None:
    assert standings(SLOW, -1) == ["ahead"] * 4
    assert standings(SLOW, 0.2) == ["underway", "ahead", "ahead", "ahead"]
    assert standings(SLOW, 1.0) == ["passed", "passed", "underway", "ahead"]
    assert standings(FAST, 0.02) == ["passed", "none", "underway", "ahead"]
    seen = view(SLOW, STATIONS, 3.5, {"slow": 2})
    assert [cell.seconds for cell in seen.cells] == [0.5, 0.5, 1.5, 1.0], "each its own way, the last one until now"
    assert (seen.stopwatch, seen.place, seen.finished, seen.heading) == (3.5, 0, False, 3)
    done = view(SLOW, STATIONS, 90.0, {"slow": 2})
    assert (done.stopwatch, done.place, done.finished, done.heading) == (4.0, 2, True, None)


def test_a_lane_that_failed_goes_nowhere_and_has_no_place() -> None:
    assert standings(DEAD, 3.0) == ["none"] * 4
    one = Round(number=1, lanes=(DEAD, SLOW))
    assert one.places() == {"slow": 1}
    assert [each.name for _, each in one.podium()] == ["slow"]


def test_a_phase_that_was_overtaken_took_no_time_and_one_not_told_is_not_guessed() -> None:
    overtaken = replace(SLOW, marks=(Mark(phase="kernel", at=0.4), Mark(phase="isolated", at=0.5)))
    assert [cell.seconds for cell in view(overtaken, STATIONS, 0.6, {}).cells[:2]] == [0.5, 0.0]
    silent = replace(SLOW, marks=(Mark(phase="isolated", at=0.5), Mark(phase="init", at=2.5)))
    assert standings(silent, 3.0) == ["passed", "untold", "passed", "underway"]
    assert silent.finish is None


def test_places_are_shared_by_equals() -> None:
    twin = replace(FAST, name="twin")
    one = Round(number=1, lanes=(SLOW, FAST, twin, QUICK))
    assert one.places() == {"slow": 4, "fast": 1, "twin": 1, "quick": 3}
    assert race((FAST, SLOW), (SLOW, DEAD)).wins() == {"fast": 1, "slow": 1, "dead": 0}


def test_slow_motion_is_one_factor_for_all_that_nobody_could_follow() -> None:
    both = slowed(race((FAST, QUICK, SLOW)).rounds)
    assert (both.factor, both.names) == (100, {"fast", "quick"})
    assert lasts(Round(number=1, lanes=(FAST, QUICK, SLOW)), both) == pytest.approx(6.0)
    seconds = slowed(race((lane("x", isolated=0.3, responded=0.9), SLOW)).rounds)
    assert (seconds.factor, seconds.names) == (10, {"x"})
    assert not slowed(race((SLOW, DEAD)).rounds).names
    worst = slowed(race((FAST,), (replace(FAST, marks=(*FAST.marks[:-1], Mark(phase="responded", at=1.0))),)).rounds)
    assert worst.factor == 10, "its slowest round has to end, too"


def test_a_stopwatch_reads_as_one() -> None:
    assert [stopwatch(each) for each in (0.0, 0.0494, 8.5556, 59.9994)] == [
        "0.000 s",
        "0.049 s",
        "8.556 s",
        "59.999 s",
    ]
    assert [stopwatch(each) for each in (59.9996, 60.04, 119.96, 754.3)] == ["1:00.0", "1:00.0", "2:00.0", "12:34.3"]
    assert [ordinal(each) for each in (1, 2, 3, 4, 11, 12, 13, 21)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st",
    ]  # fmt: skip


def test_a_replay_waits_stops_and_changes_its_speed_without_a_jump() -> None:
    playing = Playing(race((SLOW, FAST), (FAST,)))
    assert playing.waits
    assert playing.at(100.0) == 0.0
    playing.press("space", 100.0)
    assert playing.at(101.0) == pytest.approx(1.0)
    playing.press("+", 101.0)
    assert (playing.speed, playing.at(101.5)) == (2.0, pytest.approx(2.0))
    playing.press("space", 101.5)
    assert playing.at(200.0) == pytest.approx(2.0)
    playing.press("-", 200.0)
    playing.press("-", 200.0)
    playing.press("space", 200.0)
    assert playing.at(201.0) == pytest.approx(2.5)
    assert not playing.is_over(201.0)
    assert playing.is_over(300.0)
    assert playing.at(300.0) == pytest.approx(5.0), "the slowed lane ends last"
    playing.press("space", 300.0)
    assert (playing.place, playing.at(300.0), playing.is_last) == (1, 0.0, True)
    playing.press("n", 301.0)
    assert playing.place == 1
    playing.press("p", 301.0)
    assert playing.place == 0
    playing.press("x", 301.0)
    assert not playing.left
    playing.press("q", 301.0)
    assert playing.left


def test_speeds_end_at_both_ends() -> None:
    playing = Playing(race((SLOW,)))
    for _ in range(20):
        playing.press("-", 1.0)
    slowest = playing.speed
    for _ in range(20):
        playing.press("+", 1.0)
    assert 0 < slowest < 1 < playing.speed


def shown(one: Race, at: float, place: int = 0) -> Shown:
    return Shown(
        race=one,
        place=place,
        at=at,
        slow=slowed(one.rounds),
        over=at > 5,
        told="true speed",
        keys="space",
        remark="see",
    )


@pytest.mark.parametrize("size", [(80, 24), (60, 12), (200, 60), (40, 8)])
@pytest.mark.parametrize("at", [-1.0, 0.0, 0.04, 3.0, 99.0])
def test_a_screen_fits_its_window(size: tuple[int, int], at: float) -> None:
    lines = draw(shown(race((FAST, QUICK, SLOW, DEAD)), at), *size)
    assert len(lines) <= size[1]
    assert max(line.cell_len for line in lines) <= size[0]


def test_a_screen_tells_without_colour() -> None:
    def text(at: float) -> str:
        return "\n".join(line.plain for line in draw(shown(race((FAST, SLOW, DEAD)), at), 100, 30))

    begun, slow, done = text(0.02), text(3.0), text(99.0)
    assert "▶" in begun
    assert "1st" not in begun
    assert "100 × slower" in begun
    assert "it ended" in begun
    assert "1st" in slow
    assert "2nd" not in slow
    assert "0.030 s" in slow, "the slowed lane's own clock"
    assert "2nd" in done
    assert "demonstration" in done


def heights(lines: list[str]) -> dict[str, int]:
    """How many lines of a screen each filling is in."""
    return {fill: sum(fill * 5 in line for line in lines) for fill in "█▓▒"}


def test_a_podium_has_blocks_of_three_heights_and_says_the_rest_beside_them() -> None:
    third, fourth = lane("third", isolated=1.0, responded=2.0), lane("fourth", isolated=1.0, responded=3.0)
    one = Round(number=1, lanes=(fourth, third, QUICK, FAST))
    first_two, all_of_it = list(podium.blocks(one, 0.5)), list(podium.blocks(one, 9.0))
    assert heights(first_two) == {"█": 4, "▓": 3, "▒": 0}
    assert heights(all_of_it) == {"█": 4, "▓": 3, "▒": 2}
    text = "\n".join(all_of_it)
    assert all(word in text for word in ("1st", "2nd", "3rd", "fast", "4th ● fourth"))
    assert text.index("quick") > text.index("fast"), "the first one stands highest"
    assert all_of_it[-1].index("▓") < all_of_it[-1].index("█") < all_of_it[-1].index("▒")
    twin = Round(number=1, lanes=(FAST, replace(FAST, name="twin"), third))
    fallen = replace(third, name="fallen", marks=third.marks[:1], failed="it ended with exit code 1")
    text = "\n".join(line.plain for line in draw(shown(race((FAST, SLOW, fallen)), 99.0), 110, 40))
    assert "fallen did not finish: it ended with exit code 1" in text, "the reason has the line"
    assert heights(list(podium.blocks(twin, 9.0))) == {"█": 4, "▓": 0, "▒": 2}, "equals stand equally high"


def test_a_podium_takes_no_lane_its_line() -> None:
    every = race((FAST, QUICK, SLOW, lane("x", isolated=0.5, responded=5.0)))
    for lines in range(9, 40):
        text = [line.plain for line in draw(shown(every, 99.0), 80, lines)]
        assert all(any(each.name in line for line in text) for each in every.rounds[0].lanes if lines > 15), lines
        assert any("1st" in line for line in text)
    assert heights([line.plain for line in draw(shown(every, 99.0), 80, 24)])["▓"] == 3
    assert heights([line.plain for line in draw(shown(every, 99.0), 80, 16)])["▓"] == 0, "no room: a line of words"
    assert heights([line.plain for line in draw(shown(every, 99.0), 50, 24)])["▓"] == 0


def test_the_run_that_comes_with_lab_is_a_race_of_its_blocks() -> None:
    found = recorded(SAMPLE)
    frame = read(SAMPLE, Observed).frame
    total = frame[(frame["quantity"] == "boot.total") & ~frame["warmup"]]
    assert len(found.rounds) == 6
    assert found.lanes == ("process", "container", "microvm", "vm")
    for one in found.rounds:
        for each in one.lanes:
            (whole,) = total[(total["arm"] == each.name) & (total["block"] == one.number)]["value"]
            assert each.finish == pytest.approx(whole, abs=1e-9)
    assert [each.phase for each in found.stations] == [
        "isolated", "kernel", "init", "executed", "listening", "responded",
    ]  # fmt: skip
    assert found.stations[-1].short == "answer"
    assert {each.how for each in found.rounds[0].lanes} == {"native", "TCG emulation"}
    assert recorded(SAMPLE, ["vm", "process"], 2).lanes == ("process", "vm")


def test_what_failed_has_a_lane_and_no_time(tmp_path: Path) -> None:
    found = recorded(write_run(tmp_path).path)
    for block, arm in (FAILED, TIMED_OUT):
        (one,) = (each for each in found.rounds if each.number == block)
        (unlucky,) = (each for each in one.lanes if each.name == arm)
        assert unlucky.failed
        assert unlucky.finish is None
        assert arm not in one.places()
        page = html(found, "", "")
        assert f"did not finish: {unlucky.failed}" in "\n".join("\t".join(row) for row in rows(found))
        assert unlucky.failed[:12] in page


def test_a_run_that_timed_nothing_or_lacks_what_is_wanted_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with pytest.raises(UsageError, match="no arm nothing"):
        recorded(folder.path, ["nothing"])
    with pytest.raises(UsageError, match="5 blocks"):
        recorded(folder.path, rounds=6)
    keep_only(folder, lambda raw: not raw["quantity"].startswith("boot."))
    with pytest.raises(ResultsError, match="nothing to race"):
        recorded(folder.path)


def test_the_page_links_to_the_report_beside_it(tmp_path: Path) -> None:
    found = recorded(SAMPLE, rounds=1)
    report = tmp_path / "run" / "report.html"
    page = write(found, tmp_path / "race.html", report, "lab report run").read_text()
    assert 'href="run/report.html"' in page
    assert "lab report run" in write(found, tmp_path / "race.html", None, "lab report run").read_text()
    with pytest.raises(LabError, match="can't be written"):
        write(found, tmp_path / "nowhere" / "race.html", None, "")


def test_data_and_table_say_the_same() -> None:
    found = recorded(SAMPLE, rounds=2)
    told, (head, *below) = data(found), rows(found)
    lanes = [(each["name"], each["finish"]) for one in told["rounds"] for each in one["lanes"]]
    assert [(row[1], row[-2]) for row in below] == [(name, stopwatch(finish)) for name, finish in lanes]
    assert len({len(row) for row in (head, *below)}) == 1
    assert told["slow"] == {"factor": 100, "lanes": ["container", "process"]}


def arm(label: str, accelerator: Accelerator = Accelerator.NATIVE) -> Arm:
    return Arm(label=label, backend=label, title=label, mechanism="", order=1, accelerator=accelerator, kernel="")


def test_a_start_that_happens_is_a_lane_as_far_as_it_is_known() -> None:
    until = Milestone.CORRECT_ANSWER
    starting = Starting(arm("vm", Accelerator.TCG), course(Kernel.OWN, until, asked=True))
    assert (starting.lane().marks, starting.lane().finish, starting.lane().how) == ((), None, "TCG emulation")
    for phase, at in ((Phase.REQUESTED, 50.0), (Phase.ISOLATED, 50.5), (Phase.INIT, 52.0), (Phase.KERNEL, 52.25)):
        starting.marked(phase, at)
    assert [(each.phase, each.at) for each in starting.lane().marks] == [
        ("isolated", 0.5), ("kernel", 2.25), ("init", 2.25),
    ], "a sign that came late pushes what follows, as in a run"  # fmt: skip
    one = growing.race("x", "an answer", "live", until, [Round(number=1, lanes=(starting.lane(),))])
    assert [each.label for each in one.stations][-2:] == ["port listens", "first correct answer"]
    assert view(starting.lane(), one.stations, 3.0, {}).heading == 3
    for phase, at in ((Phase.LISTENING, 54.0), (Phase.RESPONDED, 54.5), (Phase.STOPPING, 60.0), (Phase.GONE, 61.0)):
        starting.marked(phase, at)
    assert starting.lane().finish == 4.5
    assert starting.lane().course == ("isolated", "kernel", "init", "listening", "responded"), "execve was never told"


def test_a_start_that_fails_keeps_what_it_reached_and_has_no_place() -> None:
    starting = Starting(arm("container"), course(Kernel.HOST, Milestone.STARTED, asked=False))
    starting.marked(Phase.REQUESTED, 1.0)
    starting.marked(Phase.ISOLATED, 1.5)
    starting.failed("it ended with exit code 1")
    (lost,) = Round(number=1, lanes=(starting.lane(),)).lanes
    assert (lost.failed, lost.finish, len(lost.marks)) == ("it ended with exit code 1", None, 1)
    one = growing.race("x", "", "live", Milestone.STARTED, [Round(number=1, lanes=(lost,))])
    assert "exit code 1" in "\n".join(line.plain for line in draw(shown(one, 9.0), 100, 24))
    assert "did not finish" in rows(one)[1][-1]


@pytest.mark.parametrize(
    ("kernel", "until", "asked", "goal", "phases"),
    [
        (Kernel.HOST, Milestone.STARTED, False, "executed", 3),
        (Kernel.HOST, Milestone.PORT_OPEN, True, "listening", 4),
        (Kernel.OWN, Milestone.LOG_LINE, False, "responded", 5),
        (Kernel.USER_SPACE, Milestone.ANSWER, True, "responded", 4),
    ],
)
def test_a_course_ends_with_what_is_waited_for(
    kernel: Kernel, until: Milestone, asked: bool, goal: str, phases: int
) -> None:
    found = course(kernel, until, asked=asked)
    assert (found[-1], len(found)) == (goal, phases)


def test_no_two_backends_have_the_same_symbol() -> None:
    symbols = {name: look(arm(name))["symbol"] for name in style.BACKENDS}
    assert len(set(symbols.values())) == len(symbols), symbols


def test_keys_have_names() -> None:
    assert list(_named("\x1b[C +q\x1b\r")) == ["right", "space", "+", "q", "escape", "enter"]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["race", *words])


def test_without_a_terminal_it_prints_a_table(tmp_path: Path) -> None:
    printed = run("--replay", str(SAMPLE), "--rounds", "1")
    assert (printed.exit_code, len(printed.stdout.splitlines())) == (0, 5)
    assert "demonstration" in printed.stderr
    told = run("--replay", str(SAMPLE), "--json")
    assert len(json.loads(told.stdout)["rounds"]) == 6
    written = run("--replay", str(SAMPLE), "--html", str(tmp_path / "race.html"))
    assert written.stdout.strip() == str(tmp_path / "race.html")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "lab race --replay sample"),
        (("web-app", "--replay", "sample"), "lab race --replay sample"),
        (("--replay", "sample", "--speed", "0"), "--speed 10"),
        (("--replay", "sample", "--speed", "nan"), "--speed 10"),
        (("--replay", "sample", "--rounds", "7"), "--rounds 6"),
        (("--replay", "nowhere"), "nowhere"),
        (("--replay", "sample", "--serve"), "--html FILE"),
        (("web-app", "--bind", "127.0.0.1"), "--serve"),
        (("web-app", "--serve", "--json"), "--json=FILE"),
    ],
)
def test_bad_input_is_a_line_with_its_remedy(words: tuple[str, ...], says: str) -> None:
    done = subprocess.run([*LAB, "race", *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


REPLAY = ("race", "--replay", str(SAMPLE), "--rounds", "1", "--speed", "100")


def test_at_a_terminal_space_starts_it_and_q_leaves() -> None:
    with seat() as place:
        before = place.settings()
        with place.running(*REPLAY) as process:
            place.screen.until("who is first?")
            place.screen.type(" ")
            place.screen.until("4th")
            place.screen.type("q")
            place.screen.until("\x1b[?1049l")
            assert process.wait(SECONDS) == 0
        assert place.settings() == before


def test_ctrl_c_puts_the_terminal_right() -> None:
    with seat() as place:
        before = place.settings()
        with place.running(*REPLAY) as process:
            place.screen.until("who is first?")
            assert place.settings() != before
            place.screen.type("\x03")
            place.screen.until("\x1b[?1049l")
            assert process.wait(SECONDS) == 130
        assert place.settings() == before


def test_sigkill_leaves_no_screen_without_a_cursor() -> None:
    with seat() as place:
        before = place.settings()
        with place.killing(*REPLAY) as kill:
            place.screen.until("who is first?")
            kill()
            place.screen.until("\x1b[?1049l")
            place.screen.until("\x1b[?25h")
            assert wait_until(lambda: place.settings() == before, SECONDS)


def test_where_no_key_can_be_pressed_the_rounds_follow_by_themselves() -> None:
    with seat() as place:
        slave = place.slave
        environment = {**os.environ, "TERM": "xterm"}
        words = [*LAB, "race", "--replay", str(SAMPLE), "--rounds", "1", "--speed", "100"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=slave, env=environment) as process:
            place.screen.until("4th")
            place.screen.until("\x1b[?1049l")
            assert process.wait(SECONDS) == 0


NESTED = sorted((SAMPLE.parent).glob("nested-debian-*"))


@pytest.mark.parametrize("folder", NESTED, ids=[each.name for each in NESTED])
def test_what_is_kept_of_nested_machines_is_what_it_is_called_and_says_so(folder: Path) -> None:
    run = read(folder, Observed).run
    assert f"Debian GNU/Linux {folder.name.rpartition('-')[2]} " in str(run.host["distribution"])
    assert run.host["platform"]["ground"] == "emulated"
    assert {arm.nested for arm in run.arms} == {True}
    assert {arm.accelerator.value for arm in run.arms if arm.backend in ("microvm", "vm")} == {"kvm"}
    assert set(recorded(folder).lanes) == {"process", "container", "microvm", "vm"}
    done = CliRunner().invoke(app, ["race", "--replay", str(folder)])
    assert done.output.count("on an emulated host") == 4


def test_one_is_kept() -> None:
    assert NESTED
