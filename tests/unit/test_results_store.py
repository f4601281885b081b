"""The run folder: what is appended survives a crash at any byte, and nothing else is taken for a sample."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import ResultsError
from lab.model import Accelerator
from lab.results.codec import decode_run, decode_sample, encode_run, encode_sample
from lab.results.record import SCHEMA, Arm, Run, Sample, Status
from lab.results.store import SAMPLE, RunFolder, locate, own_copy

ARM = Arm(
    label="vm", backend="vm", title="vm", mechanism="m", order=40, accelerator=Accelerator.TCG, kernel="6.1",
    differences=("RAM is not a limit",),
)  # fmt: skip
RUN = Run(
    name="", scenario="Web App!", title="t", started="2026-11-23T22:45:01+00:00", command_line=("lab", "compare"),
    seed=7, blocks_planned=3, budget_seconds=None, limits={"cpus": 1.0}, metrics=("boot",), arms=(ARM,),
    image={"digest": "sha256:1"}, host={}, versions={"lab": "0.1.0"},
)  # fmt: skip


def sample(block: int = 0, arm: str = "vm", value: float | None = 1.5, **changes: object) -> Sample:
    base = Sample(
        metric="boot", quantity="boot.total", value=value, unit="seconds", backend="vm", arm=arm, block=block,
        position=0, instance=f"{arm}-{block}",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "results", RUN)


def test_a_run_reads_back_as_it_was_written(folder: RunFolder) -> None:
    first, second = (
        sample(),
        sample(1, value=None, status=Status.TIMEOUT, accelerator=Accelerator.TCG, detail={"a": [1]}),
    )
    with folder:
        folder.append(first, second)
    again = RunFolder.open(folder.path)
    assert list(again.samples()) == [first, second]
    assert again.run == folder.run
    assert again.run.name == folder.path.name == "20261123-224501-web-app"


def test_names_never_collide(folder: RunFolder) -> None:
    assert RunFolder.create(folder.path.parent, RUN).path.name == "20261123-224501-web-app-2"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(cut=st.integers(min_value=0), count=st.integers(min_value=1, max_value=4))
def test_a_crash_at_any_byte_loses_only_the_torn_line(tmp_path: Path, cut: int, count: int) -> None:
    folder = RunFolder.create(tmp_path, RUN)
    with folder:
        folder.append(*(sample(block) for block in range(count)))
    file = folder.path / "samples.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: cut % (len(data) + 1)])
    whole = file.read_bytes().count(b"\n")
    with RunFolder.open(folder.path) as again:
        assert [each.block for each in again.samples()] == list(range(whole))
        again.append(sample(99))
        assert [each.block for each in again.samples()] == [*range(whole), 99]


def test_a_long_torn_line_is_cut_at_the_last_newline(folder: RunFolder) -> None:
    with folder:
        folder.append(sample())
    with (folder.path / "samples.jsonl").open("ab") as file:
        file.write(b"x" * 200_000)
    with RunFolder.open(folder.path) as again:
        again.append(sample(1))
    assert [each.block for each in RunFolder.open(folder.path).samples()] == [0, 1]


def test_a_broken_line_inside_is_an_error_with_its_number(folder: RunFolder) -> None:
    (folder.path / "samples.jsonl").write_text(f"{encode_sample(sample())}\n{{}}\n{encode_sample(sample(1))}\n")
    with pytest.raises(ResultsError, match="line 2") as caught:
        list(folder.samples())
    assert caught.value.hint


def test_what_a_crash_left_half_done_is_set_aside_and_kept(folder: RunFolder) -> None:
    with folder:
        folder.append(sample(0))
        folder.complete(0, "vm")
        folder.append(sample(1))
    with RunFolder.open(folder.path) as again:
        assert again.completed() == {(0, "vm")}
        assert again.abandon_incomplete() == {(1, "vm")}
        assert again.abandon_incomplete() == set()
        again.append(sample(1, value=2.5))
        again.complete(1, "vm")
        assert [each.value for each in again.samples()] == [1.5, 2.5]
        assert [each.value for each in again.samples(abandoned=True)] == [1.5, 1.5, 2.5]
        assert again.completed() == {(0, "vm"), (1, "vm")}


def test_two_writers_are_refused(folder: RunFolder) -> None:
    with folder:
        folder.append(sample())
        with pytest.raises(ResultsError, match="another lab"):
            RunFolder.open(folder.path).append(sample(1))
    with RunFolder.open(folder.path) as again:
        again.append(sample(1))


def test_a_value_that_is_no_number_is_refused_and_leaves_no_trace(folder: RunFolder) -> None:
    with pytest.raises(ResultsError, match=r"boot\.total"):
        folder.append(sample(), sample(1, value=math.nan))
    assert list(folder.samples()) == []


def test_finish_writes_the_columns_and_says_why(folder: RunFolder) -> None:
    with folder:
        folder.append(sample(detail={"b": 1, "a": "ü"}), sample(1, value=None, status=Status.FAILED))
        folder.finish("blocks done")
    table = pq.read_table(folder.path / "samples.parquet").to_pylist()
    assert [row["value"] for row in table] == [1.5, None]
    assert table[0]["detail"] == '{"a": "ü", "b": 1}'
    assert table[1]["status"] == "failed"
    run = RunFolder.open(folder.path).run
    assert run.ended_because == "blocks done"
    assert run.ended
    assert not list(folder.path.glob(".*"))


def test_update_reaches_the_disk(folder: RunFolder) -> None:
    folder.update(noop={"process": 0.001})
    assert RunFolder.open(folder.path).run.noop == {"process": 0.001}


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", ".hidden"])
def test_an_instance_name_stays_inside_the_folder(folder: RunFolder, name: str) -> None:
    with pytest.raises(ResultsError):
        folder.log_directory(name)


def test_log_directory(folder: RunFolder) -> None:
    assert folder.log_directory("b0-container#aa").is_dir()


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "not a run"), ("[]", "not a run"), ('{"schema": 999}', "newer"), (f'{{"schema": {SCHEMA}}}', "lacks")],
)
def test_a_bad_provenance_says_what_to_do(folder: RunFolder, text: str, match: str) -> None:
    (folder.path / "run.json").write_text(text)
    with pytest.raises(ResultsError, match=match) as caught:
        RunFolder.open(folder.path)
    assert caught.value.hint


def test_locate(folder: RunFolder, tmp_path: Path) -> None:
    root = folder.path.parent
    later = RunFolder.create(root, replace(RUN, started="2026-11-23T23:00:00+00:00"))
    assert locate("latest", root) == later.path
    assert locate(folder.path.name, root) == folder.path
    assert locate(str(folder.path), tmp_path) == folder.path
    for bad in ("nothing", ""):
        with pytest.raises(ResultsError):
            locate(bad, root)
    with pytest.raises(ResultsError):
        locate("latest", tmp_path / "none")


def test_unknown_keys_of_a_later_lab_are_ignored() -> None:
    raw = asdict(RUN) | {"news": 1}
    raw["arms"][0]["news"] = 2
    assert decode_run(json.dumps(raw), "x") == RUN
    assert decode_run(encode_run(RUN), "x") == RUN


@given(
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(),
    status=st.sampled_from(Status),
    detail=st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
)
def test_samples_survive_their_text_form(
    value: float | None, text: str, status: Status, detail: dict[str, object]
) -> None:
    one = sample(value=value, text=text, status=status, detail=detail)
    assert decode_sample(encode_sample(one).encode("utf-8", "surrogatepass")) == one


def test_the_checkouts_sample_is_found_everywhere_and_written_about_elsewhere(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "results" / SAMPLE
    found = locate(SAMPLE, tmp_path)
    assert found == shipped
    assert own_copy(found, tmp_path) == tmp_path / SAMPLE
    assert (tmp_path / SAMPLE / "run.json").read_bytes() == (shipped / "run.json").read_bytes()
    assert locate(SAMPLE, tmp_path) == tmp_path / SAMPLE, "the copy is the nearer one from now on"
    assert own_copy(shipped, shipped.parent) == shipped, "in the checkout itself there is no other"
