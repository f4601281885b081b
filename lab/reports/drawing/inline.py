"""One panel as an SVG inside a page: real text, marks that say their numbers, colours that follow the page.

matplotlib's SVG is taken apart once: what belongs to a mark (by the group ids that `Sheet.tag` gave) becomes one
group of the class ``mark`` with the words of its tip as its title; names become groups of the class ``name``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from lab.reports import style
from lab.reports.charts import Data, Panel
from lab.reports.drawing.layout import height_of, paint
from lab.reports.drawing.sheet import Look, Sheet

KEY = re.compile(r"([mn]\d+)\.([sf])\.(\w*)\.\d+")
COLOURS = {
    style.INK: "var(--ink)", style.QUIET: "var(--quiet)", style.RULE: "var(--rule)", "#e6e6e6": "var(--grid)",
    style.PAPER: "var(--card)", "#000000": "var(--ink)",
}  # fmt: skip
LINK = "{http://www.w3.org/1999/xlink}href"
MEASURED = ("bars", "dots", "parts")
"""Kinds whose axis the page's script may stretch."""
ALTERNATIVE = ("bars",)
"""Kinds that look otherwise on a logarithmic axis: both looks are in the drawing, and the page shows one."""


def inline(panel: Panel, looks: Mapping[str, Look], name: str, alt: str, *, width: float, base: float) -> str:
    """``panel`` as an ``svg`` element, ``width`` points wide, its words ``base`` points high; one point is one pixel
    of the page. ``name`` makes its ids unique in the page; ``alt`` is what it shows in words.
    """
    with style.blank(width / 72, height_of(panel, base) / 72, text="none") as figure:
        sheet = paint(figure, panel, looks, base, (0, 0, width), alternative=panel.kind in ALTERNATIVE)
        raw = io.StringIO()
        figure.savefig(raw, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(raw.getvalue())
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
        if LINK in each.attrib:
            each.set("href", each.attrib.pop(LINK))
    _tidy(root, name)
    _gather(root, sheet)
    root.attrib = {
        "class": f"chart {panel.kind}{' log' if sheet.is_logarithmic else ''}", "viewBox": root.get("viewBox", ""),
        "role": "img", "aria-label": alt, "data-panel": json.dumps(_axis(sheet, (width, height_of(panel, base))),
        separators=(",", ":")), "style": f"max-width:{width:.0f}px",
    }  # fmt: skip
    return _adapted(ElementTree.tostring(root, encoding="unicode"))


def _axis(sheet: Sheet, size: tuple[float, float]) -> Data:
    """What the page's script needs to know to stretch the axis and to move rows together."""
    box = sheet.axes.get_position()
    whole_width, whole_height = size
    found: Data = {"pitch": round(sheet.pitch, 2)}
    if sheet.panel.kind not in ("lines", "groups", "marks"):
        found["arms"] = [row["arm"] for row in sheet.rows]
    if sheet.panel.kind in MEASURED:
        found |= {
            "switch": sheet.panel.logarithmic is not None,
            "left": round(box.x0 * whole_width, 2), "right": round(box.x1 * whole_width, 2),
            "top": round((1 - box.y1) * whole_height, 2), "bottom": round((1 - box.y0) * whole_height, 2),
            "low": sheet.low, "high": sheet.high, "log": sheet.is_logarithmic, "unit": sheet.panel.unit,
            "prefix": sheet.panel.prefix, "base": sheet.base,
        }  # fmt: skip
    return found


def _tidy(root: ElementTree.Element, name: str) -> None:
    """Without what HTML has no need of; ids unique in the page, and no more of them than are referred to."""
    for parent in list(root.iter()):
        for child in list(parent):
            is_style = child.tag == "defs" and len(child) > 0 and child[0].tag == "style"
            if child.tag == "metadata" or is_style:
                parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    for each in root.iter():
        own = each.get("id")
        if own is not None and own in used:
            each.set("id", f"{name}-{own}")
        elif own is not None and own.startswith("xtick_"):
            each.attrib = {"class": "tick"}
        elif own is not None and KEY.fullmatch(own) is None and own != "matplotlib.axis_1":
            del each.attrib["id"]
        for key in ("d", "x", "y", "transform"):
            if key in each.attrib:
                each.set(key, re.sub(r"(\d+\.\d{2})\d+", r"\1", " ".join(each.get(key, "").split())))
        for key, value in list(each.attrib.items()):
            if key == "transform" and value.startswith("rotate(-0"):
                del each.attrib[key]
            elif key == "href":
                each.set(key, value.replace("#", f"#{name}-"))
            elif "url(#" in value:
                each.set(key, value.replace("url(#", f"url(#{name}-"))
        each.tail = each.text = None if each.tag != "text" else each.text
        if each.tag == "text":
            each.tail = None


def _gather(root: ElementTree.Element, sheet: Sheet) -> None:
    """Each mark's and each name's parts into one group, in the order in which they were said."""
    parents = {child: parent for parent in root.iter() for child in parent}
    found: dict[str, list[ElementTree.Element]] = {key: [] for key in sheet.said}
    for each in list(root.iter("g")):
        if each.get("id") == "matplotlib.axis_1":
            each.attrib = {"class": "axis"}
            continue
        match = KEY.fullmatch(each.get("id", ""))
        if match:
            parents[each].remove(each)
            kind = " ".join(filter(None, ("scaled" if match[2] == "s" else "", match[3])))
            each.attrib = {"class": kind} if kind else {}
            found[match[1]].append(each)
    for key, said in sheet.said.items():
        group = ElementTree.SubElement(root, "g", {"data-of": str(said["of"]), "data-row": str(said["row"])})
        if key.startswith("m"):
            group.set("class", "mark")
            ElementTree.SubElement(group, "title").text = "\n".join(said["tip"])
            if said["edge"] is not None:
                group.set("data-reach", f"{said['low']:.6g} {said['edge']:.6g}")
            for name in ("opens", "group"):
                if said.get(name):
                    group.set(f"data-{name}", str(said[name]))
        group.extend(found[key])


def _adapted(text: str) -> str:
    """Colours and letters of the page, light or dark, in place of matplotlib's."""
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--sans)", text)

    def colour(match: re.Match[str]) -> str:
        return COLOURS.get(match[0]) or style.adaptive(match[0])

    return re.sub(r"#[0-9a-f]{6}\b", colour, text)
