"""The picture: a panel per quantity and kind of host, a row per run, in it a mark per backend at its ratio."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

from lab.analysis.inference.judge import Verdict
from lab.analysis.quantities import format_ratio, format_ratios, label
from lab.classroom.collect.agreement import GROUNDS, Collected, Line
from lab.model import Accelerator
from lab.reports.charts import Chart, Data, Panel
from lab.reports.drawing import composed
from lab.reports.drawing.sheet import Look, look
from lab.results.record import Arm

NARROWEST = (0.5, 2.0)
MOST_KEYS, MOST_KEYS_OF_NESTED = 3, 2
"""Of a legend's line; those of nested machines say so, and are longer."""
HOSTS = {
    "hardware": "on hardware",
    "virtual": "virtual hosts",
    "emulated": "emulated hosts",
    "unknown": "unknown hosts",
}
"""As a panel's title has room for."""
MOST_ROWS = 40
"""Of a picture's panel; every run is in the table."""
ACCELERATORS = {"native": Accelerator.NATIVE, "KVM": Accelerator.KVM, "emulated": Accelerator.TCG}


def chart(found: Collected) -> Chart:
    """What is drawn."""
    quantities = dict.fromkeys((row["quantity"], row["state"]) for line in found.lines for row in line.told["ratios"])
    panels = [
        panel
        for quantity, state in quantities
        for ground in GROUNDS
        if (panel := _panel(found, quantity, state, ground)) is not None
    ]
    said = [f"{each.arm}, {each.what}, {each.kind}: {each.direction}; {each.size}." for each in found.agreements]
    return Chart(
        title="The same comparison on many computers",
        how=f"times {found.baseline} of the same run · 95 % intervals · filled: a difference is proven there",
        panels=tuple(panels), columns=2, alt=" ".join(["A row per run.", *said]),
    )  # fmt: skip


def _panel(found: Collected, quantity: str, state: str, ground: str) -> Panel | None:
    lines = [line for line in found.lines if line.ground == ground][:MOST_ROWS]
    chosen = [
        (line, [row for row in line.told["ratios"] if (row["quantity"], row["state"]) == (quantity, state)])
        for line in lines
    ]
    chosen = [(line, rows) for line, rows in chosen if rows]
    if not chosen:
        return None
    arms = dict.fromkeys(
        _key(row) for _, rows in chosen for row in sorted(rows, key=lambda row: (row["order"], row["arm"]))
    )
    keys = [{"arm": key, "text": key.partition("|")[0]} for key in arms]
    most = MOST_KEYS_OF_NESTED if any("nested" in key for key in arms) else MOST_KEYS
    legend: list[Data] = [{"arm": "", "label": "", "keys": keys[at : at + most]} for at in range(0, len(keys), most)]
    ratios = [row["ratio"] for _, rows in chosen for row in rows]
    span = min(NARROWEST[0], 0.8 * min(ratios)), max(NARROWEST[1], 1.4 * max(ratios))
    title = chosen[0][1][0]["label"] or label(quantity)
    return Panel(
        kind="marks", title=f"{title}, {HOSTS[ground]}", unit="1", axis=f"× {found.baseline}", span=span,
        rows=(*legend, *(_row(line, rows, list(arms)) for line, rows in chosen)),
    )  # fmt: skip


def _key(row: Mapping[str, object]) -> str:
    return f"{row['arm']}|{row['kind']}"


def _row(line: Line, rows: Sequence[Mapping[str, object]], arms: Sequence[str]) -> Data:
    farthest = max(rows, key=lambda row: float(str(row["ratio"])))
    return {
        "arm": "", "label": line.who, "stamp": line.told["facts"].get("CPU", ""),
        "points": [_point(line, row, arms.index(_key(row))) for row in rows],
        "text": format_ratio(float(str(farthest["ratio"]))), "note": str(farthest["arm"]), "places": len(arms),
    }  # fmt: skip


def _point(line: Line, row: Mapping[str, object], place: int) -> Data:
    ratio, ends = float(str(row["ratio"])), (row["low"], row["high"])
    shown = "no interval" if None in ends else format_ratios(*(float(str(end)) for end in ends))
    return {
        "arm": _key(row), "value": ratio, "low": ends[0], "high": ends[1], "place": place,
        "claim": row["verdict"] == Verdict.DIFFERENT,
        "tip": [f"{line.who}, {row['arm']}: {format_ratio(ratio)} ({shown})"],
    }  # fmt: skip


def looks(found: Collected) -> dict[str, Look]:
    """How each backend looks, by its label and what executes it."""
    return {_key(row): _look(row) for line in found.lines for row in line.told["ratios"]}


def _look(row: Mapping[str, object]) -> Look:
    kind, _, nested = str(row["kind"]).partition(", ")
    arm = str(row["arm"])
    return look(
        Arm(
            label=arm,
            backend=arm,
            title=arm,
            mechanism="",
            order=int(str(row["order"])),
            kernel="",
            accelerator=ACCELERATORS[kind],
            nested=bool(nested),
        )
    )


def drawn(found: Collected, kind: str) -> bytes:
    """The picture as a file's bytes; ``kind`` is svg or png."""
    raw = io.BytesIO()
    import matplotlib as mpl

    # a name with two dollar signs is no formula, and one in letters that the font lacks is drawn as boxes
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        with composed(chart(found), looks(found)) as figure:
            if kind == "png":
                figure.savefig(raw, format="png", dpi=110, metadata={"Software": None})
            else:
                figure.savefig(raw, format="svg", metadata={"Date": None})
    return raw.getvalue()
