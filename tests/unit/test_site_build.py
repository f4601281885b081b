"""The documents as a site: it is built whole, and not at all where something in it leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "debian",
    "docs",
    "packages.apt",
    "tools",
    "scenarios",
    "lab",
    "results/sample",
    "results/boundaries",
    "results/forking",
    "mkdocs.yml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", site]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The documents and what they link to, to be broken."""
    root = tmp_path / "copy"
    for part in PARTS:
        target = root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, target)
    return root


def test_every_document_is_in_the_site_and_the_contracts_say_what_the_source_does(copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = build(copy, site)
    assert done.returncode == 0, done.stderr
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert len(pages) > 20
    assert [page.stem for page in pages if not (site / "docs" / f"{page.stem}.html").is_file()] == []
    text = re.sub(r"<[^>]+>", "", (site / "docs" / "api.html").read_text())
    contributing = (site / "CONTRIBUTING.html").read_text()
    assert "git fetch &amp;&amp; git rebase" in "".join(re.findall(r"<pre.*?</pre>", contributing, re.DOTALL))
    assert len(re.findall("<ol>", contributing.partition("<main")[2].partition("</main>")[0])) == 1
    assert ":::" not in text.partition("<main")[2]
    for said in (
        "def launch(self, request: LaunchRequest)",
        "Marks REQUESTED first.",
        "positive when the arm",
        "twin_alike: bool = True",
        "float | None",
        "memory.pss",
        "seconds since the epoch",
    ):
        assert said in text


def test_what_leads_nowhere_ends_the_build_and_all_of_it_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / "docs" / "unlisted.md").write_text("# A page\n")
    with (copy / "docs" / "memory.md").open("a") as page:
        page.write("\n[gone](no-such-page.md)\n[gone](images.md#no-such-heading)\n\n::: lab.isolation.Nothing\n")
    done = build(copy, tmp_path / "site")
    assert done.returncode == 1
    warned = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]  # each of which ends a build
    for said in (
        "no-such-page.md",
        "no-such-heading",
        "docs/unlisted.md is not in the menu",
        "docs/memory.md: ::: lab.isolation.Nothing has to be one public class or function",
    ):
        assert any(said in line for line in warned), said
    assert "Traceback" not in done.stderr
