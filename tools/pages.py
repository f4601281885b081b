"""The site's pages, for mkdocs: the repository's own documents, and whatever they link to.

A page keeps its place in the repository (``docs/images.md`` becomes ``site/docs/images.html``), so links need no
change. A file that is no document, a source or a figure's numbers, becomes a page that shows it. Warnings end the
build (``strict`` in mkdocs.yml): links and anchors that lead nowhere, a document that the menu lacks.
"""

from __future__ import annotations

import html
import json
import logging
import re
import sys
import unicodedata
from functools import partial
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[1]))  # mkdocs loads this file by its path
from tools import docstrings

ROOT = Path(__file__).parents[1]
THEME = Path(__file__).parent / "theme"
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")
SHOWN_AS_IT_IS = {".png", ".svg", ".html", ".gif", ".jpg"}
LANGUAGES = {
    ".py": "python",
    ".c": "c",
    ".h": "c",
    ".sh": "sh",
    ".json": "json",
    ".toml": "toml",
    ".js": "js",
    ".css": "css",
}
found_words: list[dict[str, str]] = []
log = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings are linked to by the names that GitHub gives them, which is how the documents do it."""
    config.mdx_configs["toc"]["slugify"] = slug
    config.theme.static_templates.clear()  # a map of the site, for which it would need an address
    return config


def slug(words: str, separator: str) -> str:
    """Lower case, without punctuation, a hyphen for each blank."""
    kept = re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", words).strip().lower())
    return kept.replace(" ", separator)


def on_files(given: Files, config: MkDocsConfig) -> Files:
    """Every document, and the files that they link to, wherever in the repository they are."""
    waiting = [
        *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md"))),
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    made = {file.src_uri: file for file in given if Path(file.abs_src_path or "").is_relative_to(THEME)}
    while waiting:
        place = waiting.pop()
        if place in made or not (ROOT / place).is_file():
            continue
        if place.endswith(".md"):
            made[place] = File.generated(config, place, abs_src_path=str(ROOT / place))
            waiting += [within(place, target) for _, target, _ in LINK.findall((ROOT / place).read_text())]
        elif PurePosixPath(place).suffix in SHOWN_AS_IT_IS:
            made[place] = File.generated(config, place, abs_src_path=str(ROOT / place))
        else:
            made[place] = File.generated(config, f"{place}.md", content=listing(place))
    found_words.clear()
    return Files(list(made.values()))


def within(page: str, target: str) -> str:
    """The place in the repository that a link on ``page`` leads to; a folder stands for its README."""
    place = (ROOT / page).parent.joinpath(target).resolve()
    if place.is_dir():
        place /= "README.md"
    return str(place.relative_to(ROOT)) if place.is_relative_to(ROOT) else ""


def listing(place: str) -> str:
    """A page that shows a file."""
    text = (ROOT / place).read_text(encoding="utf-8")
    fence = "`" * max(4, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"# {place}\n\n{fence}{LANGUAGES.get(PurePosixPath(place).suffix, 'text')}\n{text}\n{fence}\n"


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Warn of documents that the menu lacks."""
    listed = {page.file.src_uri for page in nav.pages}
    for place in sorted(file.src_uri for file in files.documentation_pages()):
        if re.fullmatch(r"docs/[^/]+\.md", place) and place not in listed:
            log.warning("%s is not in the menu: give it a line below nav in mkdocs.yml", place)
    return nav


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to the pages that show sources; put docstrings where a page asks for them."""

    def to_page(link: re.Match[str]) -> str:
        start, target, end = link.groups()
        place = within(page.file.src_uri, target)
        if not target.endswith(".md") and files.get_file_from_path(f"{place}.md"):
            target += ".md"
        return f"{start}{target}{end}"

    def said(asked: re.Match[str]) -> str:
        try:
            return docstrings.markdown(asked[1])
        except LookupError as error:
            log.warning("%s: %s", page.file.src_uri, error.args[0])
            return asked[0]

    text = re.sub(r"^::: ([\w.]+)$", said, nested(LINK.sub(to_page, text)), flags=re.MULTILINE)
    # in a table GitHub's Markdown wants a backslash before an upright stroke in code, and Python's shows it
    bare = partial(re.sub, r"`[^`]+`", lambda code: code[0].replace("\\|", "|"))
    return "\n".join(bare(line) if line.startswith("|") else line for line in text.split("\n"))


def nested(text: str) -> str:
    """What belongs to an item of a list, behind a blank line, indented as Python's Markdown wants it: by four, or by
    eight for code. GitHub's wants it below the item's first letter.
    """
    fenced, blank, more = False, False, 0
    lines = []
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        indented = len(line) - len(line.lstrip())
        if not line or fenced:
            more = 0
        elif blank:
            more = {2: 2, 3: 1, 6: 2, 7: 1}.get(indented, 0)
        lines.append(" " * more + line)
        blank = not line and not fenced
    return "\n".join(lines)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Note what the search looks through, a section at a time; let wide tables scroll by themselves."""
    if page.file.src_uri.endswith(".md.md") or not re.search(r"\.\w+\.md$", page.file.src_uri):
        for head, section in re.findall(r"(<h[1-3][^>]*>.*?</h[1-3]>|\A)(.*?)(?=<h[1-3]|\Z)", content, re.DOTALL):
            anchor = re.search(r'id="([^"]+)"', head)
            title = plain(re.sub(r'<a class="headerlink".*?</a>', "", head))
            found_words.append(
                {
                    "at": page.url + (f"#{anchor[1]}" if anchor else ""),
                    "page": page.title or "",
                    "title": title,
                    "text": plain(section),
                }
            )
    content = re.sub(r"<code>([^<]{1,24}</code>)", r'<code class="short">\1', content)
    content = content.replace("<pre>", '<pre tabindex="0">')  # what scrolls has to be reached without a pointer, too
    return content.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")


def plain(marked: str) -> str:
    """The words of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", marked)).split())


def on_post_build(config: MkDocsConfig) -> None:
    """What the search looks through is a script: a page opened from a disk may fetch nothing else."""
    data = json.dumps([each for each in found_words if each["text"]], ensure_ascii=False)
    Path(config.site_dir, "words.js").write_text(f"const WORDS = {data};\n", encoding="utf-8")
