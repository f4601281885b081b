"""The page over many hosts with its files: pictures, tables as CSV, Markdown, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.analysis.findings import Finding, Severity
from lab.analysis.findings import Kind as FindingKind
from lab.analysis.hosts.merged import Merged, merged
from lab.analysis.hosts.sources import Group, HostKind
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.inference.judge import judgement
from lab.analysis.many import as_text
from lab.analysis.quantities import format_ratio, format_ratios, is_headline, some
from lab.errors import LabError, ResultsError
from lab.host.survey.virtualisation import NESTED
from lab.reports.drawing import looks_of, picture
from lab.reports.export import formats
from lab.reports.hosts.chart import Figure, figures
from lab.reports.hosts.words import (
    Row,
    arm_of,
    called,
    disagreeing,
    hosts_of,
    not_to_conclude,
    rows_of,
    sentence,
    typical,
)
from lab.reports.page import article
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening
from lab.reports.page.render import put, writing
from lab.reports.tables import Cell, Table
from lab.reports.tables import Row as TableRow

ESTIMATES, POOLED, LEFT_OUT = "hosts.csv", "pooled.csv", "left-out.csv"
COLUMNS = ("times the baseline", "the next host", "between hosts", "together")
SHOWN = ("kernel", "CPU", "cgroups", "QEMU")
NOTE = (
    "A ratio is the mean over hosts, each counted once, of how many times the baseline it takes there. The next host "
    "is where 95 of 100 further hosts of the kind are expected. ≠ is a proven difference, ≈ the same within 5 %, "
    "proven."
)
HOW = (
    "Within each run an arm and the baseline are compared block by block, as lab’s report does; the mean of a host’s "
    "runs is its one estimate. These are put together by random effects: τ² is Paule and Mandel’s, the interval "
    "Hartung and Knapp’s, the prediction that of Higgins, Thompson and Spiegelhalter. A host disagrees where it lies "
    "further from what the others predict than chance explains, corrected for the number of hosts and quantities. "
    "docs/many-hosts.md tells how to read it, docs/statistics.md how often it is wrong."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of many hosts' runs: the result, the files (the page last), and the page as data."""

    merged: Merged
    files: tuple[Path, ...]
    article: Article

    def as_json(self) -> dict[str, Any]:
        """The whole as one object."""
        return document(self.merged)


def write(
    folders: Sequence[Path],
    out: Path,
    *,
    names: Mapping[str, str] | None = None,
    command: Iterable[str] = (),
    skipped: Callable[[LabError], None] | None = None,
) -> Written:
    """Look at all complete comparisons below ``folders`` together, and write the report into ``out``.

    ``names`` says what hosts are called, by identity; ``command`` is what made the page, and makes it again. Raises
    ResultsError when no run counts, or ``out`` can't be written; of a run that can't be read, too, unless ``skipped``
    is there to hear of it.
    """
    found = merged(folders, names=names, skipped=skipped)
    plots = out / "plots"
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{out} can't be made: {error.strerror}", hint="--out DIR") from error
    with writing(out):
        files: list[Path] = []
        drawn = list(figures(found))
        for figure in drawn:
            looks = looks_of(_arms(figure))
            files += picture(figure.chart, looks, plots, figure.name)
        left_out = "".join(f"{json.dumps(as_text(each.path))},{json.dumps(each.why)}\n" for each in found.left_out)
        files += [
            put(out / ESTIMATES, found.estimates.to_csv(index=False)),
            put(out / POOLED, found.pooled.to_csv(index=False)),
            put(out / LEFT_OUT, f"run,why\n{left_out}"),
            put(out / "report.json", json.dumps(document(found), ensure_ascii=False, indent=1) + "\n"),
        ]
        told = describe(found, drawn, tuple(command) or ("lab", "hosts", *map(as_text, folders)))
        files += article.write(told, out)
    return Written(merged=found, files=tuple(files), article=told)


def _arms(figure: Figure) -> list[Any]:
    """The arms of a figure; a row knows its arm by label."""
    wanted = {row["arm"] for panel in figure.chart.panels for row in panel.rows}
    return [arm for arm in figure.group.arms if arm.label in wanted]


def describe(found: Merged, drawn: Sequence[Figure], command: tuple[str, ...]) -> Article:
    """What is on the page."""
    scenarios = list(dict.fromkeys(group.title for group in found.groups))
    sections: list[Section] = []
    several = len(found.strata) > 1
    for group, kind in found.strata:
        own = [figure for figure in drawn if (figure.group, figure.kind) == (group, kind)]
        about = f", {kind.words}" if several else ""
        about += f" ({group.title})" if len(found.groups) > 1 else ""
        sections += [
            Section(
                title=f"{figure.chart.title}{about}", gist="the forest plot", picture=figure.name,
                alt=figure.chart.alt,
            )
            for figure in own if figure is not drawn[0]
        ]  # fmt: skip
        sections.append(
            Section(
                title=f"Every judged quantity{about}", gist="ratio, prediction, how much hosts differ",
                paragraphs=tuple(
                    sentence(group, row) for row in rows_of(found, group, kind) if _is_first(group, row)
                ),
                table=_table(found, group, kind, about),
            )
        )  # fmt: skip
        sections.append(
            Section(
                title=f"Hosts that disagree{about}", gist="and what is special about them",
                paragraphs=tuple(disagreeing(found, group, kind)),
            )
        )  # fmt: skip
        sections.append(
            Section(title=f"The hosts{about}", gist="what each was like", table=_hosts(found, group, kind, about))
        )
    if found.left_out:
        sections.append(_left_out(found))
    sections.append(Section(title="How it is put together", gist="one estimate per host", paragraphs=(HOW,)))
    sections.append(Section.of_warnings(not_to_conclude(found)))
    first = drawn[0] if drawn else None
    return Article(
        run=None, command=command, title=f"{some(scenarios)}: host by host, and together", lead=_lead(found),
        opening=Opening(
            warnings=tuple(_warnings(found)), verdict=tuple(_verdict(found)), table=_glance(found), note=NOTE
        ),
        picture=first.name if first else "", alt=first.chart.alt if first else "", sections=tuple(sections),
        data=ESTIMATES.removesuffix(".csv"),
        beside=f"; {ESTIMATES}, {POOLED}, {LEFT_OUT} and report.json lie beside it",
    )  # fmt: skip


def _is_first(group: Group, row: Row) -> bool:
    return row["quantity"] == group.leading or is_headline(row["quantity"], row["state"])


def _lead(found: Merged) -> str:
    counted = sum(len(group.sources) for group in found.groups)
    hosts = {host.identity for hosts in found.hosts.values() for host in hosts}
    kinds = [
        f"{hosts_of(sum(host.kind is kind for host in found.hosts[group.scenario]), kind)}"
        + (f" ({group.title})" if len(found.groups) > 1 else "")
        for group, kind in found.strata
    ]
    apart = " Kinds of hosts have an estimate each." if len(found.strata) > len(found.groups) else ""
    left = f" {len(found.left_out)} runs are left out, and named below." if found.left_out else ""
    runs = f"{counted:,} run{'' if counted == 1 else 's'} of {len(hosts):,} host{'' if len(hosts) == 1 else 's'}"
    return f"{runs}: {', '.join(kinds)}.{apart}{left}"


def _warnings(found: Merged) -> Iterator[Finding]:
    emulated = [hosts_of(sum(host.kind is kind for host in found.hosts[group.scenario]), kind)
                for group, kind in found.strata if kind is HostKind.EMULATED]  # fmt: skip
    if emulated:
        yield Finding(
            kind=FindingKind.EMULATED, severity=Severity.SERIOUS,
            sentence=f"{some(emulated)} stand in an estimate of their own. {NESTED}, and neither do those of bare "
            "processes.",
            advice="Sizes, counts and answers are right.",
        )  # fmt: skip


def _verdict(found: Merged) -> Sequence[str]:
    """The leading quantity of each arm, and who disagrees; the strata in turn."""
    said = []
    for group, kind in found.strata:
        rows = [row for row in rows_of(found, group, kind) if row["quantity"] == group.leading]
        said += [sentence(group, row) for row in rows]
        said += list(disagreeing(found, group, kind))[:1]
    return said


def _glance(found: Merged, most: int = 2) -> Table:
    """The declared quantities, in so many columns at most; of kinds of too few hosts only if there is no other."""
    rows, largest = [], int(found.pooled["hosts"].max())
    for group, kind in found.strata:
        for row in rows_of(found, group, kind):
            if not _is_first(group, row) or (int(row["hosts"]) < min(FEWEST, largest)):
                continue
            name = called(group, row["quantity"], row["state"])
            note = f"{name}, {hosts_of(int(row['hosts']), kind)}"
            rows.append(TableRow(header=arm_of(group, row), note=note, cells=_cells(row, power=False)[:most]))
    columns = tuple(Cell(text=text) for text in COLUMNS[:most])
    return Table(caption="At a glance", corner="backend", columns=columns, rows=tuple(rows))


def _cells(row: Row, *, power: bool = True) -> tuple[Cell, ...]:
    few = int(row["hosts"]) < FEWEST
    judged = judgement(row)
    sign = {"different": " ≠", "the same": " ≈"}.get(row["verdict"], "")
    ratio = Cell(
        text=format_ratio(row["ratio"]) + sign,
        note=format_ratios(row["low"], row["high"]) or "no interval over hosts",
    )  # fmt: skip
    ahead = Cell(text="–" if few else format_ratios(row["next_low"], row["next_high"]))
    apart = (
        Cell(text="–")
        if few
        else Cell(text=f"I² {100 * row['i2']:.0f} %", note=f"τ² {row['tau2']:.2g}, ±{typical(row['tau2'])}")
    )
    said = Cell(text="too few hosts" if few else judged.words, note=judged.power if power and not few else "")
    return ratio, ahead, apart, said


def _table(found: Merged, group: Group, kind: HostKind, about: str) -> Table:
    rows = [
        TableRow(
            header=f"{arm_of(group, row)}: {called(group, row['quantity'], row['state'])}",
            note=f"{hosts_of(int(row['hosts']), kind)}, {row['runs']} runs", cells=_cells(row),
        )
        for row in rows_of(found, group, kind)
    ]  # fmt: skip
    return Table(
        caption=f"Ratios over hosts, with intervals of 95 %{about}", corner="comparison",
        columns=tuple(Cell(text=text) for text in COLUMNS), rows=tuple(rows),
    )  # fmt: skip


def _hosts(found: Merged, group: Group, kind: HostKind, about: str) -> Table:
    rows = []
    for host in found.hosts[group.scenario]:
        if host.kind is kind:
            cells = [Cell(text=str(host.runs)), *(Cell(text=host.traits.get(name, "–")) for name in SHOWN)]
            cells.append(Cell(text="; ".join(found.special(group.scenario, host)) or "–"))
            rows.append(TableRow(header=host.name, cells=tuple(cells)))
    columns = ("runs", *SHOWN, "what few others of the kind have")
    return Table(
        caption=f"What each host was like{about}", corner="host", columns=tuple(Cell(text=text) for text in columns),
        rows=tuple(rows),
    )  # fmt: skip


def _left_out(found: Merged) -> Section:
    """A row per reason; the files have one per run."""
    reasons: dict[str, list[str]] = {}
    for each in found.left_out:
        reasons.setdefault(each.why, []).append(as_text(each.path.name))
    rows = tuple(
        TableRow(header=some(names), cells=(Cell(text=str(len(names))), Cell(text=why)))
        for why, names in sorted(reasons.items(), key=lambda item: -len(item[1]))
    )
    table = Table(
        caption="Runs that are not in these figures", corner="run", columns=(Cell(text="how many"), Cell(text="why")),
        rows=rows,
    )  # fmt: skip
    return Section(title="Runs left out", gist=f"each by name in {LEFT_OUT}", table=table)


def document(found: Merged) -> dict[str, Any]:
    """Everything that the page is made of, as one object."""
    told: dict[str, Any] = formats.plain(
        {
            "kind": "hosts",
            "schema": formats.SCHEMA_VERSION,
            "scenarios": [
                {"scenario": group.scenario, "title": group.title, "until": group.until, "runs": len(group.sources)}
                for group in found.groups
            ],
            "hosts": [
                {
                    "scenario": scenario, "identity": host.identity, "name": host.name, "kind": str(host.kind),
                    "runs": host.runs, "traits": dict(host.traits), "special": list(found.special(scenario, host)),
                }
                for scenario, hosts in found.hosts.items() for host in hosts
            ],
            "pooled": found.pooled.to_dict("records"),
            "estimates": found.estimates.to_dict("records"),
            "left_out": [{"run": as_text(each.path), "why": each.why} for each in found.left_out],
        }
    )  # fmt: skip
    return told


def show(written: Written) -> None:
    """Print the essence: the sentences, the judged quantities, who disagrees, and where the page is."""
    kept = ("Hosts that disagree", "Runs left out")
    glance = Section(title="At a glance", table=_glance(written.merged, 4))
    brief = [section for section in written.article.sections if section.title.startswith(kept)]
    article.show(replace(written.article, sections=(glance, *brief)), written.files[-1])
