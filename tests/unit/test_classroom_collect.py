"""Many students' runs in one picture: what is taken in, what is compared with what, and hand-ins that mean harm."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collected import a_class, hand_in
from hypothesis import given
from hypothesis import strategies as st
from synthetic import leave_pictures_empty
from typer.testing import CliRunner

import lab
from lab.classroom.collect import apart
from lab.classroom.collect.agreement import Collected, collected
from lab.classroom.collect.intake import DEEPEST, MOST_BYTES, MOST_RUNS, hand_ins, runs_in, tidy
from lab.classroom.collect.page import html
from lab.classroom.collect.picture import chart
from lab.classroom.collect.told import told
from lab.cli.classroom.app import app
from lab.errors import ResultsError, UsageError

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
RUN = SAMPLE / "run.json"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_class(tmp_path_factory.mktemp("class"))


@pytest.fixture(scope="module")
def picture(room: Path) -> Collected:
    return collected(
        [(each.name, told(name, files)) for each in hand_ins([room]) for name, files in runs_in(each.path)], []
    )


def zipped(file: Path, members: dict[str, bytes], **how: Any) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            for key, value in how.items():
                setattr(member, key, value)
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return file


def whole(prefix: str = "run/") -> dict[str, bytes]:
    return {f"{prefix}{name}": (SAMPLE / name).read_bytes() for name in MOST_BYTES}


def test_a_ratio_is_that_of_its_own_run(room: Path, picture: Collected) -> None:
    table = lab.load(str(room / "ada" / "run")).ratios()
    expected = table[(table["quantity"] == "boot.total") & (table["arm"] == "vm")].iloc[0]
    line = next(line for line in picture.lines if line.who == "ada")
    row = next(row for row in line.told["ratios"] if (row["quantity"], row["arm"]) == ("boot.total", "vm"))
    assert (row["ratio"], row["low"], row["high"]) == (expected["ratio"], expected["low"], expected["high"])
    assert "#aa" not in json.dumps(line.told["ratios"])


def test_each_run_is_a_line_and_what_is_special_is_named(picture: Collected) -> None:
    assert [line.who for line in picture.lines] == ["ada", "boole", "church", "dijkstra", "erdos"]
    special = {line.who: dict(line.special) for line in picture.lines}
    assert special["ada"] == {}
    assert special["church"] == {"kernel": "5.15", "cgroups": "hybrid"}
    assert special["erdos"] == {"host": "a virtual machine under KVM"}


def test_hosts_of_two_kinds_never_meet_and_one_host_counts_once(picture: Collected) -> None:
    of_vm = [
        each for each in picture.agreements if (each.what, each.arm) == ("time until first correct answer", "vm")
    ]
    assert [(each.kind, each.hosts) for each in of_vm] == [
        ("emulated, on hardware", 3),
        ("emulated, in a virtual machine", 1),
    ]
    assert of_vm[0].agrees is True
    assert of_vm[0].direction.startswith("more")
    titles = [panel.title for panel in chart(picture).panels]
    assert len(titles) == len(set(titles)) == 2 * len({title.rpartition(",")[0] for title in titles})


def entry(who: str, verdict: str, ratio: float, **more: Any) -> tuple[str, dict[str, Any]]:
    row = {
        "quantity": "boot.total", "state": "", "arm": "vm", "kind": "KVM", "order": 40, "label": "", "n": 6,
        "units": 6.0, "ratio": ratio, "low": ratio * 0.97, "high": ratio * 1.03, "verdict": verdict, "why": "",
    } | more  # fmt: skip
    facts = dict.fromkeys(("host", "CPU", "kernel", "system", "cgroups", "machines", "limits", "image", "lab"), "x")
    return who, {
        "run": who, "digest": who, "times": [], "scenario": "web-app", "until": "listening", "blocks": 6,
        "baseline": "process", "host": who, "ground": "hardware", "facts": facts, "ratios": [row], "answers": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "agrees", "says", "size"),
    [
        ([("different", 3.0), ("different", 3.05)], True, "more, on all 2", "one ratio may fit all"),
        ([("different", 3.0), ("different", 9.0)], True, "more, on all 2", "no one ratio fits all"),
        ([("different", 3.0), ("different", 0.5)], False, "more: a; less: b", "no one ratio fits all"),
        ([("different", 1.2), ("the same", 1.0)], False, "more: a; the same: b", "no one ratio fits all"),
        ([("different", 1.1), ("not proven", 1.07)], None, "more on 1 of 2, not proven: b", "one ratio may fit all"),
        ([("not proven", 1.1), ("not proven", 1.1)], None, "none proves anything", "one ratio may fit all"),
    ],
)
def test_what_hosts_agree_in(entries: list[tuple[str, float]], agrees: bool | None, says: str, size: str) -> None:
    found = collected([entry(who, *each) for who, each in zip("ab", entries, strict=True)], [])
    (one,) = found.agreements
    assert (one.agrees, one.direction) == (agrees, says)
    assert one.size.endswith(size)


def test_what_is_executed_otherwise_stands_apart() -> None:
    found = collected([entry("a", "different", 3.0), entry("b", "different", 99.0, kind="emulated")], [])
    assert [(each.kind, each.hosts) for each in found.agreements] == [
        ("KVM, on hardware", 1), ("emulated, on hardware", 1),
    ]  # fmt: skip


def test_another_measurement_and_a_copy_are_left_out_by_name() -> None:
    runs = [entry(who, "different", 3.0) for who in "abcd"]
    runs[2][1]["scenario"] = "ci-job"
    runs[3][1]["digest"] = "a"
    found = collected(runs, [("e", "no run")])
    assert [line.who for line in found.lines] == ["a", "b"]
    assert [who for who, _ in found.left_out] == ["e", "c", "d"]
    assert "ci-job" in found.left_out[1][1]


def test_a_copy_that_was_changed_a_little_is_one_all_the_same(tmp_path: Path) -> None:
    folder = hand_in(tmp_path, "ada", 21) / "run"
    files = {name: (folder / name).read_bytes() for name in MOST_BYTES if (folder / name).exists()}
    rows = [json.loads(line) for line in files["samples.jsonl"].splitlines()]
    for row in rows[::3]:
        row["value"] = row["value"] * 1.01 if isinstance(row["value"], float) else row["value"]
    changed = files | {"samples.jsonl": "".join(f"{json.dumps(row)}\n" for row in reversed(rows)).encode()}
    own, copy = told("ada", files), told("eve", changed)
    assert own["digest"] != copy["digest"]
    found = collected([("ada", own), ("eve", copy)], [])
    assert [line.who for line in found.lines] == ["ada"]
    assert found.left_out == (("eve", "more than half of its times are those of ada"),)
    other = hand_in(tmp_path, "boole", 22) / "run"
    honest = told("boole", {name: (other / name).read_bytes() for name in files})
    assert len(collected([("ada", own), ("boole", honest)], []).lines) == 2


def test_nobody_s_run_takes_the_place_of_one_without_a_host() -> None:
    runs = [entry("ada", "different", 3.0), entry("eve", "different", 9.0), entry("ada", "different", 3.1)]
    for (_, each), host, digest in zip(runs, ("", "of ada", ""), "abc", strict=True):
        each |= {"host": host, "digest": digest, "blocks": 6 if host == "" else 99}
    assert [each.hosts for each in collected(runs, []).agreements] == [3]


def test_answers_that_differ_name_who_found_what() -> None:
    runs = [entry(who, "different", 3.0) for who in "abc"]
    for (_, each), reach in zip(runs, ("closed", "closed", "open"), strict=True):
        each["answers"] = {"kernel-log": {"container": reach}, "mount": {"container": "closed"}}
    assert collected(runs, []).answers == (("kernel-log", "container", "open: c; closed: a and b"),)


def test_zip_and_folder_are_read_alike(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "zoe"), "zip", SAMPLE.parent, "sample")
    ((name, files),) = runs_in(tmp_path / "zoe.zip")
    ((_, same),) = runs_in(SAMPLE)
    assert (name, files) == ("sample", same)


LINK = (stat.S_IFLNK | 0o777) << 16
TOO_MUCH = b" " * (MOST_BYTES["samples.jsonl"] + 1)
HARMFUL: dict[str, tuple[Callable[[Path], object], str]] = {
    "bomb": (lambda at: zipped(at / "x.zip", whole() | {"run/samples.jsonl": TOO_MUCH}), "larger"),
    "above": (lambda at: zipped(at / "x.zip", whole("../")), "leads elsewhere"),
    "absolute": (lambda at: zipped(at / "x.zip", whole("/etc/")), "leads elsewhere"),
    "windows": (lambda at: zipped(at / "x.zip", whole("a\\..\\b/")), "leads elsewhere"),
    "deep": (lambda at: zipped(at / "x.zip", whole("a/" * (DEEPEST + 1))), "leads elsewhere"),
    "link in a zip": (lambda at: zipped(at / "x.zip", whole(), external_attr=LINK), "no file"),
    "encrypted": (lambda at: encrypted(zipped(at / "x.zip", whole())), "encrypted"),
    "many runs": (lambda at: zipped(at / "x.zip", {f"{n}/run.json": b"" for n in range(MOST_RUNS + 1)}), "than"),
    "many files": (lambda at: zipped(at / "x.zip", {f"{n}": b"" for n in range(2001)}), "more than 2000 files"),
    "torn": (lambda at: (at / "x.zip").write_bytes(zipped(at / "y.zip", whole()).read_bytes()[:9000]), "no zip file"),
    "garbage": (lambda at: (at / "x.zip").write_bytes(b"PK" + bytes(4000)), "no zip file"),
    "pipe": (lambda at: (folder(at, {}), os.mkfifo(at / "x" / "run.json")), "no file"),
    "pipe for a zip": (lambda at: os.mkfifo(at / "x.zip"), "neither a folder nor a file"),
    "link to a file": (lambda at: (folder(at, {}), (at / "x" / "run.json").symlink_to(RUN)), "can't be read"),
    "link to a folder": (lambda at: (at / "x").symlink_to(SAMPLE), "a link"),
    "link inside": (lambda at: (folder(at, {}), (at / "x" / "run").symlink_to(SAMPLE)), "no run"),
    "empty": (lambda at: folder(at, {}), "no run"),
    "large": (lambda at: folder(at, {"run.json": b" " * (MOST_BYTES["run.json"] + 1)}), "larger"),
}  # fmt: skip


def folder(at: Path, files: dict[str, bytes]) -> None:
    (at / "x").mkdir()
    for name, data in files.items():
        (at / "x" / name).write_bytes(data)


def encrypted(file: Path) -> None:
    """Says so in every head; nobody gets as far as to see that it is not."""
    raw = bytearray(file.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(signature)
        while at >= 0:
            raw[at + place] |= 1
            at = raw.find(signature, at + 4)
    file.write_bytes(raw)


@pytest.mark.parametrize("kind", list(HARMFUL))
def test_what_means_harm_is_refused_and_says_why(kind: str, tmp_path: Path) -> None:
    make, says = HARMFUL[kind]
    make(tmp_path)
    path = tmp_path / "x.zip" if (tmp_path / "x.zip").exists() else tmp_path / "x"
    with pytest.raises(ResultsError, match=says):
        list(runs_in(path))


@pytest.mark.parametrize(
    "change",
    [
        {"arms": [1]}, {"arms": "x"}, {"host": 3}, {"settings": None}, {"limits": []}, {"schema": 99}, {"image": 1},
        {"settings": {"kind": "noisy"}}, {"settings": {"exercise": "x"}}, {"versions": 7},
    ],
)  # fmt: skip
def test_a_run_that_is_none_is_refused(change: dict[str, Any]) -> None:
    raw = json.loads((SAMPLE / "run.json").read_text()) | change
    files = {name: (SAMPLE / name).read_bytes() for name in MOST_BYTES} | {"run.json": json.dumps(raw).encode()}
    with pytest.raises(ResultsError):
        told("x", files)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"value": 1' + b"0" * 5000 + b"}", b"null", b"\xff", b"{}", b'"x"', b'{"status": []}']
)
def test_samples_that_are_none_are_refused(line: bytes) -> None:
    files = {name: (SAMPLE / name).read_bytes() for name in MOST_BYTES}
    with pytest.raises(ResultsError):
        told("x", files | {"samples.jsonl": line + b"\n" + files["samples.jsonl"]})


@given(st.text(max_size=200))
def test_no_text_of_theirs_moves_a_terminal(text: str) -> None:
    assert all(each.isprintable() for each in tidy(text))
    assert len(tidy(text)) <= 60


def test_one_that_takes_too_long_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "WALL_SECONDS", 0)
    (found,) = apart.read_all(hand_ins([SAMPLE]))
    assert (found.runs, found.refused) == ((), apart.COULD_NOT)


@pytest.mark.parametrize("does", ["bytearray(5 << 30)", "os.write(os.open('x', os.O_WRONLY | os.O_CREAT), b'x')"])
def test_who_reads_a_hand_in_has_limits(does: str, tmp_path: Path) -> None:
    code = f"import os\nfrom lab.classroom.collect.apart import _limit\n_limit()\n{does}\nprint('got it')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(lab.__file__).parents[1])},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Error" in ended.stderr.splitlines()[-1]


def test_a_class_with_bad_hand_ins_is_collected_all_the_same(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_pictures_empty(monkeypatch)
    given = tmp_path / "given"
    shutil.copytree(room, given, symlinks=True)
    shutil.make_archive(str(given / "zoe"), "zip", hand_in(tmp_path / "late", "zoe", 16))
    (given / "=cmd|x").symlink_to("/etc")
    (given / "<script>").mkdir()
    (given / "<script>" / "run.json").write_text("[" * 100_000)
    zipped(given / "bomb.zip", whole() | {"run/samples.jsonl": bytes(40 << 20)})
    evil = Path(shutil.move(hand_in(tmp_path / "evil", "x", 17), given / "=mallory"))
    raw = json.loads((evil / "run" / "run.json").read_text())
    raw["host"]["cpu"] = {"model": "<img src=x onerror=1> $\\frac$ \x1b[2J"}
    (evil / "run" / "run.json").write_text(json.dumps(raw))
    table, page = tmp_path / "all.csv", tmp_path / "all.html"
    done = CliRunner().invoke(
        app, ["collect", str(given), str(SAMPLE), "--csv", str(table), "--page", str(page), "--json=-"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {each["who"] for each in said["left_out"]} >= {"=cmd|x", "<script>", "bomb"}
    assert {each["who"] for each in said["runs"]} >= {"ada", "boole", "church", "dijkstra", "erdos", "zoe", "sample"}
    assert ["dijkstra", "erdos"] in said["same_host"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not [row for row in rows for cell in row.values() if cell.startswith(("=", "+", "@"))]
    assert float(next(row for row in rows if row["handed_in_by"] == "zoe")["ratio"]) > 0
    assert "<script>" not in page.read_text()
    assert "<img src=x" not in page.read_text()
    assert "\x1b" not in page.read_text() + done.output


def test_markup_and_formulas_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    who, what = entry("<script>alert(1)</script>", "different", 3.0)
    what["facts"]["CPU"] = "$\\frac$ <b>x</b>"
    page = html(collected([(who, what)], []))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_nothing_to_collect_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was handed in"):
        hand_ins([tmp_path])
    (tmp_path / "x").mkdir()
    done = CliRunner().invoke(app, ["collect", str(tmp_path)])
    assert isinstance(done.exception, ResultsError)
