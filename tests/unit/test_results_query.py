"""SQL over all runs: what it sees, what it does not, and that the page about it is true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from studies import starts_run
from typer.testing import CliRunner

from lab.analysis.many import folders
from lab.analysis.questions.query import Answer, query
from lab.cli.app import app
from lab.errors import LabError, ResultsError, UsageError
from lab.results.store import PARQUET, RUN, SAMPLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/queries.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """The runs that are in the repository."""
    return [ROOT / "results" / name for name in ("boundaries", "sample")]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run that has columns, and one that has lines alone, as it is before it ends."""
    (starts_run(tmp_path).path / PARQUET).unlink()
    shutil.copytree(ROOT / "results/sample", tmp_path / "whole", ignore=shutil.ignore_patterns("plots", "report*"))
    return tmp_path


def only(answer: Answer) -> object:
    ((value,),) = answer.rows
    return value


@pytest.mark.parametrize("sql", QUERIES, ids=[text.split("\n")[0][:40] for text in QUERIES])
def test_each_question_of_the_page_is_answered(kept: list[Path], sql: str) -> None:
    assert query(kept, sql).rows


def test_there_are_ten_and_the_columns_are_those_of_the_page(kept: list[Path]) -> None:
    assert len(QUERIES) == 10
    told = re.findall(r"^`(\w+)` has a row.*?(?=^`|^## )", PAGE, re.DOTALL | re.MULTILINE)
    assert told == ["samples", "runs", "arms"]
    for table in told:
        part = PAGE.split(f"`{table}` has a row")[1].split("has a row")[0]
        rows = re.findall(r"^\| `(\w+)` \| ([\w/]+) \|", part, re.MULTILINE)
        kinds = {"VARCHAR": "text", "BOOLEAN": "yes/no", "TIMESTAMP WITH TIME ZONE": "time"}
        described = query(kept, f"DESCRIBE {table}").rows
        assert rows == [(row[0], kinds.get(row[1], "number")) for row in described]


def test_lines_count_where_there_are_no_columns_and_both_give_the_same(results: Path) -> None:
    counted = "SELECT run, count(*), count(value), sum(value) FROM samples GROUP BY run ORDER BY run"
    before = query(folders(results), counted).rows
    assert len(before) == 2
    assert {(path / PARQUET).exists() for path in folders(results)} == {False, True}
    (results / "whole" / PARQUET).unlink()
    after = query(folders(results), counted).rows
    assert [row[:3] for row in after] == [row[:3] for row in before]
    assert [row[3] for row in after] == pytest.approx([row[3] for row in before])


def test_a_failure_is_no_fast_success(results: Path) -> None:
    rows = query(folders(results), "SELECT DISTINCT value FROM samples WHERE status <> 'ok'").rows
    assert rows == ((None,),)


def test_columns_older_than_their_lines_are_not_believed(results: Path) -> None:
    lines = results / "whole" / SAMPLES
    whole = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(whole[:-1]))
    assert only(query([results / "whole"], "SELECT count(*) FROM samples")) == len(whole) - 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY samples TO '/tmp/lab-query.csv'",
        "ATTACH '/tmp/lab-query.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('HOME')",
        "SELECT * FROM described",
        "SELECT * FROM glob('/*')",
        "EXPORT DATABASE '/tmp/lab-query'",
        "SELEC",
        "SELECT nothing FROM runs",
        "SELECT 1; SELECT * FROM read_text('/etc/passwd')",
    ],
)
def test_nothing_else_is_seen(kept: list[Path], sql: str) -> None:
    with pytest.raises(UsageError) as caught:
        query(kept, sql)
    assert "\n" not in caught.value.message
    assert not list(Path("/tmp").glob("lab-query*"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"scenario": 1, "arms": []}', '{"scenario": "a", "arms": [{}]}'])
def test_a_broken_run_is_said_and_left_out(results: Path, content: str) -> None:
    (results / "broken").mkdir()
    (results / "broken" / RUN).write_text(content)
    with pytest.raises(ResultsError):
        query(folders(results), "FROM runs")
    heard: list[LabError] = []
    assert len(query(folders(results), "FROM runs", skipped=heard.append).rows) == 2
    assert len(heard) == 1


@pytest.mark.parametrize("damage", ["columns", "both"])
def test_broken_columns_are_read_as_lines(results: Path, damage: str) -> None:
    count = only(query([results / "whole"], "SELECT count(*) FROM samples"))
    (results / "whole" / PARQUET).write_bytes(b"PAR1 no more")
    if damage == "both":
        (results / "whole" / SAMPLES).write_text("{\n{")
    heard: list[LabError] = []
    left = only(query([results / "whole"], "SELECT count(*) FROM samples", skipped=heard.append))
    assert (left, len(heard)) == ((count, 0) if damage == "columns" else (0, 1))


def test_a_run_may_say_anything_of_itself(results: Path) -> None:
    document = json.loads((results / "whole" / RUN).read_text())
    document |= {"started": "yesterday", "seed": 1 << 80, "host": [], "versions": {"lab": {"a": 1}}}
    (results / "whole" / RUN).write_text(json.dumps(document))
    rows = query([results / "whole"], "SELECT started, seed, host, cpu FROM runs").rows
    assert rows == ((None, None, None, None),)


def lab(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["results", "query", *words], input=stdin)


def test_the_command_prints_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sql = "SELECT 'a|b' AS word, -1.5 AS number, 'NaN'::DOUBLE AS none, '=1+1' AS formula, 0.123456789 AS long"
    done = lab("-", "--csv", str(tmp_path / "a.csv"), "--markdown", "-", stdin=sql)
    assert (done.exit_code, done.stdout.splitlines()[2]) == (0, r"| a\|b | -1.5 | – | =1+1 | 0.123457 |")
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "a|b,-1.5,,'=1+1,0.123456789"
    assert json.loads(lab(sql, "--json").stdout)[0]["none"] is None
    assert "0.123457" in lab(sql).stdout
    assert lab("SELECT '\x1b[31m' AS red").stdout.count("\x1b") == 0


def test_what_is_wrong_takes_one_line_and_the_right_code(tmp_path: Path) -> None:
    def alone(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "lab.cli.main", "results", "query", *words]
        return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)

    wrong = alone("SELECT nothing")
    assert (wrong.returncode, "Traceback" in wrong.stderr, "docs/queries.md" in wrong.stderr) == (2, False, True)
    empty = alone("FROM runs", "--results", str(tmp_path))
    assert (empty.returncode, "no run" in empty.stderr) == (1, True)
