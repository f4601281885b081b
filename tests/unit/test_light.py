"""The wheel of lab in an environment with nothing of what measures: what reads results works there, and the rest says
what to do.

By day the other distributions are lent by this environment, and a hook hides those that only the extra brings, or
that only Linux has. By night pip fetches them into an empty environment, for each Python that is here, on the path or
among those of pyenv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lab.cli.light import LINUX, MEASURE
from lab.results.store import SAMPLE

ROOT = Path(__file__).parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13")
HIDDEN = """
import os, sys
names = os.environ["HIDDEN"].split()
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, made from what git knows, and the wheel, made from the sdist."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True, timeout=250,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name.startswith(("lab/", "results/sample/")) or "/" not in name:
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, target)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def environment(folder: Path, wheel: Path) -> Path:
    """The bin folder of an environment with ``wheel`` alone, the rest lent by this one but for those in HIDDEN."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=250)
    (packages,) = folder.glob("lib/python*/site-packages")
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-compile"]
    subprocess.run([*command, "--no-deps", "--no-index", wheel], check=True, timeout=250)
    (packages / "lent.pth").write_text(f"{Path(shutil.__file__).parent}\n{Path(pytest.__file__).parents[1]}\n")
    (packages / "hidden.py").write_text(HIDDEN)
    (packages / "hidden.pth").write_text("import hidden\n")
    return folder / "bin"


def run(*words: str | Path, directory: Path, hidden: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "HIDDEN": " ".join(hidden)}
    return subprocess.run(
        words, cwd=directory, env=surroundings, capture_output=True, text=True, timeout=250, check=False
    )


def reads(folder: Path, directory: Path, hidden: Iterable[str] = ()) -> None:
    """What a light installation in ``folder``, its bin folder, is for."""
    lab = folder / "lab"
    listed = run(lab, "class", "lesson", "ls", "--json", directory=directory, hidden=hidden)
    assert listed.returncode == 0, listed.stderr
    lessons = json.loads(listed.stdout)
    assert lessons
    for lesson in lessons:
        shown = run(
            lab, "class", "lesson", "show", lesson["name"], "--run", SAMPLE, directory=directory, hidden=hidden
        )
        assert (shown.returncode, shown.stderr) == (0, "")
    told = run(lab, "report", SAMPLE, directory=directory, hidden=hidden)
    assert told.returncode == 0, told.stderr
    page = directory / "results" / SAMPLE / "report.html"
    assert "<html" in page.read_text()
    compared = run(lab, "diff", SAMPLE, SAMPLE, directory=directory, hidden=hidden)
    assert (compared.returncode, compared.stderr) == (0, "")
    made = run(lab, "class", "exercise", "make", "start-times", "homework", directory=directory, hidden=hidden)
    assert made.returncode == 0, made.stderr
    program = f"import lab; print(lab.__file__, len(lab.load('results/{SAMPLE}').frame))"
    raced = run(lab, "race", "--replay", SAMPLE, directory=directory, hidden=hidden)
    assert (raced.returncode, raced.stdout.count("TCG emulation")) == (0, 12), raced.stderr
    loaded = run(folder / "python", "-c", program, directory=directory, hidden=hidden)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert loaded.stdout.startswith(str(folder.parent)), "it is the wheel's"
    explored = run(folder / "python", "-c", notebooks(f"results/{SAMPLE}"), directory=directory, hidden=hidden)
    assert explored.returncode == 0, explored.stderr


def notebooks(folder: str) -> str:
    """A program of those that need no more than ``lab.load`` and a run, in ``folder``: all but the sixth."""
    found = sorted((ROOT / "notebooks").glob("0[1-5]-*.ipynb"))
    assert len(found) == 5
    cells = [cell for path in found for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return "\n".join([f"import os; os.environ['LAB_RUN'] = {folder!r}", *("".join(cell["source"]) for cell in cells)])


def test_modules_are_known_by_what_brings_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(MEASURE.values()) == set(project["project"]["optional-dependencies"]["measure"])
    contracts = project["tool"]["importlinter"]["contracts"]
    (forbidden,) = (set(one["forbidden_modules"]) for one in contracts if "fcntl" in one.get("forbidden_modules", ()))
    assert forbidden == LINUX | set(MEASURE)


def test_what_is_packed(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "lab/inside/begin.c",
        "lab/cli/help.txt",
        "lab/py.typed",
        "lab/classroom/exercise/image/Dockerfile",
    } <= names
    assert any(name.endswith(f"share/lab/results/{SAMPLE}/run.json") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/pyproject.toml") for name in archive.getnames())


@pytest.mark.timeout(900)
def test_results_are_read_and_nothing_is_measured(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    there = environment(tmp_path / "environment", wheel)
    reads(there, tmp_path, hidden=LINUX | set(MEASURE))
    race = ("race", "web-app")
    for lacks, words in (
        (LINUX, ("compare", "web-app")), (MEASURE, ("run", "web-app")), (MEASURE, ("doctor",)), (LINUX, race),
        (MEASURE, ("class", "check", "--key", str(tmp_path / "homework" / "key.json"))),
    ):  # fmt: skip
        refused = run(there / "lab", *words, directory=tmp_path, hidden=lacks)
        assert refused.returncode == 1
        assert "lab report" in refused.stderr
        assert "bug" not in refused.stderr
        assert "Traceback" not in refused.stderr


def interpreter(name: str) -> str | None:
    """A Python of that name that starts: pyenv puts programs on the path for versions, too, that it does not use."""
    found = [shutil.which(name)]
    if shutil.which("pyenv"):
        asked = subprocess.run(["pyenv", "root"], capture_output=True, text=True, timeout=60, check=False)
        found += [str(each) for each in sorted(Path(asked.stdout.strip()).glob(f"versions/*/bin/{name}"))]
    for each in filter(None, found):
        program = "import sys, venv, ensurepip; print('python%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([each, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        if asked.stdout.strip() == name:
            return each
    return None


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
@pytest.mark.parametrize("name", PYTHONS)
def test_pip_into_an_empty_environment(
    built: Path, tmp_path: Path, name: str, kind: str, missing: Callable[[str], None]
) -> None:
    python = interpreter(name)
    if python is None:
        missing(name)
    (packed,) = built.glob(kind)
    subprocess.run([python, "-m", "venv", tmp_path / "environment"], check=True, timeout=250)
    there = tmp_path / "environment" / "bin"
    subprocess.run([there / "pip", "install", "-q", "-c", ROOT / "constraints.txt", packed], check=True, timeout=1500)
    told = run(there / "python", "--version", directory=tmp_path).stdout
    assert told.lower().replace(" ", "").startswith(f"{name}.")
    reads(there, tmp_path)
    listed = run(there / "pip", "list", "--format=freeze", directory=tmp_path).stdout.lower()
    assert not [name for name in MEASURE.values() if f"\n{name}==" in listed]
