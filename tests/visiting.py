"""What tests in a browser share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST = ["color-contrast"]
PATIENCE_MS = 120_000
"""Of five seconds, Playwright's own, a busy host takes as many for a page to be drawn."""
SAMPLE = Path(__file__).parents[1] / "results" / "sample"


def is_fetched(url: str, address: str) -> bool:
    return url.partition("#")[0] != address and not url.startswith("data:")


def violations(
    page: Page,
    *,
    only: Sequence[str] = RULES,
    without: Sequence[str] = (),
    within: str = "",
    preload: bool = True,
    least: int = 12,
) -> list[str]:
    """What axe finds on a page, or in the element ``within``: of rules by tag or name, ``without`` some by name.

    Colours alone depend on the colour scheme: another scheme of the same page asks for ``only=CONTRAST``. On a
    whole page ``least`` rules or more have something to look at. It is looked at from its top: what has scrolled half
    under a bar that stays is too small a target only there.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    options = {
        "runOnly": only,
        "rules": {rule: {"enabled": False} for rule in without},
        "resultTypes": ["violations"],
        "preload": preload,
    }
    passed, found = page.evaluate(
        """async ([within, options]) => {
            const found = await axe.run(within || document, options);
            const told = found.violations.flatMap(
                rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 160)}`)
            );
            return [found.passes.length, told];
        }""",
        [within, options],
    )
    assert passed >= (least if only == RULES and not within else 1), "axe has looked at the page"
    return list(found)


def thin_out(page: Page) -> None:
    """Leave of each table's rows only those that don't look like another: most of what axe would look at twice.

    Rows look alike when all in them has the same names, colours and letters, and words are in the same places.
    """
    page.evaluate(
        """properties => {
            const look = each => {
                const style = getComputedStyle(each);
                const words = [...each.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
                return [each.tagName, each.className, words, ...properties.map(name => style[name])].join();
            };
            for (const body of document.querySelectorAll("tbody")) {
                const known = new Set();
                const looks = [...body.rows].map(row => [row, ...row.querySelectorAll("*")].map(look).join(";"));
                for (const [index, row] of [...body.rows].entries())
                    if (known.size === known.add(looks[index]).size) row.remove();
            }
        }""",
        ["color", "backgroundColor", "backgroundImage", "opacity", "fontSize", "fontWeight", "display", "visibility"],
    )
