"""The linters are tests, and so are the rules that no linter knows."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE_LINES = 450
LINTERS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "lint-imports": ("lint-imports",),
}
# What may stand behind http(s):// in a tracked file: this host, names reserved for documentation and tests
# (RFC 2606), benchmark addresses (RFC 2544), XML's namespaces, and the documents our comments refer to.
HARMLESS_HOSTS = re.compile(
    r"[\w-]+|127\.\d+\.\d+\.\d+|198\.1[89]\.\d+\.\d+|([\w-]+\.)*(example(\.(com|org|net))?|invalid|test|localhost)"
    r"|www\.w3\.org|libvirt\.org|docs\.kernel\.org|man7\.org|toml\.io|[\w-]+\.readthedocs\.io|www\.rfc-editor\.org|json-schema\.org"
)


@pytest.mark.parametrize("name", LINTERS)
def test_linter(name: str) -> None:
    program, *arguments = LINTERS[name]
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("script", ["bootstrap", ".ci/run"])
def test_shell_scripts_parse_and_can_be_executed(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert (ROOT / script).stat().st_mode & 0o111


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    sources = [path for path in tracked() if path.suffix in (".py", ".c", ".h") and path.parts[0] in ("lab", "tools")]
    assert sources
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in sources}
    assert {str(path): lines for path, lines in lengths.items() if lines > LONGEST_FILE_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    modules = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("lab", "tools", "tests")]
    silent = [
        str(path)
        for path in modules
        if (text := (ROOT / path).read_text()) and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_no_tracked_file_names_a_server() -> None:
    named = {
        f"{path}: {host}"
        for path, text in texts()
        for host in re.findall(r"https?://([\w.-]+)", text)
        if not HARMLESS_HOSTS.fullmatch(host)
    }
    assert named == set()


def test_no_tracked_file_names_a_place_on_one_machine() -> None:
    places = [str(ROOT), str(Path(sys.prefix)), str(Path.home())]
    pattern = re.compile("|".join(re.escape(place) + r"(?![\w-])" for place in places if place not in ("/", "/root")))
    assert [str(path) for path, text in texts() if pattern.search(text)] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in texts()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
        if not (ROOT / path.parent / target).exists()
    ]
    assert broken == []


def test_every_document_is_in_the_menu_of_the_site() -> None:
    menu = set(re.findall(r": (docs/[\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(path) for path in tracked() if path.parent == Path("docs") and path.suffix == ".md"}
    assert menu == pages, "each has one line below nav in mkdocs.yml"


def test_the_picture_of_the_packages_is_that_of_todays_imports() -> None:
    """``LAB_WRITE_PAGES=1`` draws it first."""
    tool = ROOT / "tools" / "rooms.py"
    if os.environ.get("LAB_WRITE_PAGES"):
        subprocess.run([sys.executable, tool], check=True, timeout=60)
    committed, today = (ROOT / "docs" / "rooms.svg").read_text(), loaded(tool).today()
    assert committed == today, "run: LAB_WRITE_PAGES=1 ./bootstrap pytest tests/unit/test_style.py"


@cache
def loaded(tool: Path) -> ModuleType:
    """A program of ``tools/`` as a module, wherever the tests run."""
    spec = importlib.util.spec_from_file_location(tool.stem, tool)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[tool.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tracked() -> tuple[Path, ...]:
    """Every file in git's index, relative to the checkout; root may look at a checkout of somebody else's."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z"],
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (Path(name) for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if (ROOT / path).is_file())


@cache
def texts() -> tuple[tuple[Path, str], ...]:
    """The tracked files that are text, by their own bytes."""
    found = ((path, (ROOT / path).read_bytes()) for path in tracked())
    return tuple((path, data.decode("utf-8", "replace")) for path, data in found if b"\0" not in data[:8000])


def test_every_test_module_has_a_name_of_its_own() -> None:
    """pytest imports them by their bare names, and stops at the second of a name before it has run anything."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
