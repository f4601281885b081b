"""What the report says in sentences: what was found, how sure that is, and what may not be concluded."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lab.analysis.checks import caches, placement
from lab.analysis.findings import own_words
from lab.analysis.inference.estimate import ENOUGH_FOR_ORDER, FEWEST
from lab.analysis.inference.judge import ALPHA, EXPLORATORY, HEADLINE, WITHIN, Verdict
from lab.analysis.precision import in_percent, widths
from lab.analysis.quantities import format_ratio, format_value
from lab.analysis.readiness import boots_until, leading, phrase, title, until, until_ready
from lab.model import Accelerator, Milestone
from lab.reports.material import Material, Ratio, stamped
from lab.reports.page import emulation
from lab.results.record import PRECISE_BLOCKS, Ending, Status

STORY = (
    "A virtual machine is a computer within a computer: it has a kernel and an operating system of its own, like an "
    "apartment with its own front door. A container shares the host's kernel and packs the application together with "
    "its files, like a room in a shared house: cheaper and quicker to move into, with a landlord in common.",
    "This report starts the same application, file for file, behind each of these walls, and asks two things of "
    "every wall: what does it cost, and what does it stop?",
)
ANOTHER_SYSTEM = (
    "In {arms} somebody's own disk boots: to run another operating system is what a virtual machine can do and a "
    "container can't. Such figures are those of whole systems, and no measure of the wall around them."
)
SUBJECTS = (
    ("memory.pss", "idle", "Host memory at idle (PSS)"),
    ("cpu.per_1000_requests", "", "CPU that the host spends on 1,000 requests"),
    ("load.requests_per_second", "", "Answers per second"),
    ("cpu.compute", "", "Time for a fixed computation"),
)


def story(material: Material) -> tuple[str, ...]:
    """What a reader is told who has never heard of any of it."""
    foreign = [arm.label for arm in material.arms if arm.foreign]
    if not foreign:
        return STORY
    same = STORY if len(foreign) < len(material.arms) else STORY[:1]
    return (*same, ANOTHER_SYSTEM.format(arms=" and ".join(foreign)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A result in words, and how sure it is: ``claim``, or why it is none."""

    sentence: str
    sure: str
    claim: bool


def statements(material: Material) -> list[Statement]:
    """One for every headline quantity, then one per kind of kernel."""
    first = (leading(material.run), "", f"Time from the request until {phrase(material.run)}")
    compared = (_compare(material, *subject) for subject in (first, *SUBJECTS))
    return [*nothing(material), *(each for each in compared if each is not None), *_isolation(material)]


def nothing(material: Material) -> list[Statement]:
    """That the application came up nowhere, which no table shows; of a run in which it did, nothing."""
    if material.loaded.blocks:
        return []
    frame = material.loaded.frame
    failed = frame[(frame["arm"] != "") & (frame["status"] != Status.OK)].drop_duplicates("instance")
    said = dict.fromkeys(own_words(str(row.text), str(row.instance)) for row in failed.itertuples())
    if not said:
        return []
    return [
        Statement(
            sentence="Nothing was measured: nothing that was started ever answered.",
            sure=f"What it did instead: it {'; it '.join(said)}.",
            claim=False,
        )
    ]


def _compare(material: Material, quantity: str, state: str, subject: str) -> Statement | None:
    base = material.value(quantity, material.baseline, state)
    ratios = {
        arm: ratio for arm in material.arms if (ratio := material.ratio(quantity, arm.label, state)) is not None
    }
    if base is None or not ratios:
        return None
    named: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for arm, ratio in ratios.items():
        times = f"{format_ratio(ratio.ratio)} for " if ratio.claim else ""
        beside = material.beside(quantity, arm.label, state)
        named[ratio.judged.verdict].append(f"{times}{stamped(arm)}" + (f" ({beside} beside it)" if beside else ""))
    first = next(arm for arm in material.arms if arm.label == material.baseline)
    parts = [f"{format_value(base.median, base.unit)} for {stamped(first)}", *named[Verdict.DIFFERENT]]
    parts += [
        f"{verdict.words} for {', '.join(named[verdict])}"
        for verdict in (Verdict.SAME, Verdict.OPEN)
        if named[verdict]
    ]
    sure = [
        f"{arm.label} {ratio.range}" + (f" ({aside})" if (aside := _aside(ratio)) else "")
        for arm, ratio in ratios.items()
    ]
    is_exploratory = next(iter(ratios.values())).judged.family == EXPLORATORY
    return Statement(
        sentence=f"{subject}{' (exploratory)' * is_exploratory}: {'; '.join(parts)}.",
        sure=f"95 % intervals, block by block: {', '.join(sure)}.",
        claim=bool(named[Verdict.DIFFERENT]),
    )


def _aside(ratio: Ratio) -> str:
    """Why nothing is claimed, and what this run could have shown."""
    asides = [ratio.why, ratio.judged.power] if ratio.judged.verdict is Verdict.OPEN else [""]
    return "; ".join(each for each in asides if each)


MOST_NAMED = 8
"""More probes than that are counted by group; the matrix names them."""


def _isolation(material: Material) -> list[Statement]:
    probes = material.isolation
    found = []
    for arm in material.arms:
        told = [probe for probe in probes if arm.label in probe.cells and probe.cells[arm.label].reach != "unknown"]
        reached = [probe for probe in told if probe.cells[arm.label].reach == "open"]
        if not told:
            continue
        kernel = "a kernel of its own" if arm.has_own_kernel else "the host's kernel"
        met = f"{len(reached) or 'none'} of the {len(told)} questions that could be answered"
        names = ", ".join(probe.name for probe in reached)
        if len(reached) > MOST_NAMED:
            groups = Counter(probe.group for probe in reached)
            names = "; ".join(f"{count} of {group}" for group, count in groups.items())
        found.append(
            Statement(
                sentence=f"{stamped(arm)} runs on {kernel}; {met} met something of the host's.",
                sure=f"These: {names}." if reached else "What it may do, it does to its own kernel.",
                claim=True,
            )
        )
    return found


def not_to_conclude(material: Material) -> list[str]:
    """What a hurried reader might take home, and must not."""
    emulated = [arm.label for arm in material.arms if arm.accelerator is Accelerator.TCG]
    said = [*emulation.not_to_conclude(material.run)]
    if emulated:
        said.append(
            f"How fast virtual machines are. {' and '.join(emulated)} ran under TCG, which emulates every "
            "instruction; with KVM the processor itself executes most of the guest's instructions."
        )
    if foreign := [arm.label for arm in material.arms if arm.foreign]:
        said.append(
            f"What a boundary costs, from {' and '.join(foreign)}. Each boots a system that lab did not make: which "
            "application answers there, how it is set up, and what else runs, is another matter than the boundary's."
        )
    said += [
        "How fast containers or virtual machines are in general: this is one host, one application, one load, one "
        "configuration of each.",
        "Which boundary is more secure. The probes answer a few questions that have a yes or no. They don't find "
        "unknown flaws, and a count of refused attempts is no measure of how hard a boundary is to break.",
        "That a number of mapped or resident bytes is what a copy costs. Shared pages, caches and the guest's idle "
        "RAM make each definition answer another question; the cost of the n-th copy was not measured here.",
        "That a limit of 1 CPU and 1 vCPU are the same. A quota caps CPU time of all threads together; a vCPU also "
        "limits how many run at once, and the emulator's own threads run beside it.",
        "That two backends are equal where a difference is “not proven either way”. Equal, as far as that matters, "
        f"is what is proven to be the same within {WITHIN}.",
        _cold(material),
    ]
    return said


def _cold(material: Material) -> str:
    if caches.COLD not in set(caches.starts(material.loaded.frame)["level"]):
        return "Anything about cold starts: images, disks and caches were warm."
    return (
        "How long the first start after the host's own boot takes. What was evicted is what lab made; VMM, libraries "
        "and lab's interpreter stayed in memory. So did directory entries and inodes, which favours what shares the "
        "host's kernel: a machine reads those of its image from its cold disk."
    )


def clock(material: Material) -> list[tuple[str, str]]:
    """How it was measured: pairs of a term and its explanation."""
    run, settings = material.run, material.run.settings
    planned = run.blocks_planned
    budget = f"a budget of {format_value(run.budget_seconds, 'seconds')}" if run.budget_seconds else "no budget"
    told = [
        ("Clock", "the host's CLOCK_MONOTONIC alone; an instance emits markers, the host stamps their receipt"),
        ("Design", f"randomised complete blocks: every backend once in each, in an order from seed {run.seed}"),
        ("Blocks", f"{material.loaded.blocks} measured{_but(material)} "
                   f"({planned or 'as many as fit'} planned, {budget}); "
                   f"ended because: {run.ended_because or 'not ended'}"),
        ("Sessions", _sessions(material)),
        ("Stopping", _stopping(material)),
        ("A/A pair", _twin(material)),
        ("Factors", f"full factorial: {len(material.loaded.arms)} arms, every level with every level of the others; "
                    f"compared across backends are those at {material.levels}" if material.levels else ""),
        ("Intervals", _intervals(material)),
        ("Many comparisons", _many(material)),
        ("Own overhead", ", ".join(f"{kind} {format_value(value, 'seconds')}" for kind, value in run.noop.items())
         + " (a launch that does nothing; printed, never subtracted)" if run.noop else "not recorded"),
        ("Resolution", _resolution(material)),
        ("Caches", caches.in_words(material.loaded.frame) or str(settings.get("caches", "not looked at"))),
        ("Placement", _placement(settings.get("placement"))),
        ("Readiness", readiness(material)),
        ("Load", _load(settings.get("load"))),
        ("Work", _command(settings.get("work"))),
        ("Left out", str(settings.get("excluded", "nothing")) + "; failures are counted, never dropped"),
    ]  # fmt: skip
    return [(term, text) for term, text in told if text]


def _placement(known: Mapping[str, str] | None) -> str:
    """On which CPUs all of it happened; nothing of a run that did not record it."""
    if not known:
        return ""
    if not known["instances"]:
        return f"lab, its client and the instances shared the host's CPUs: {known['reason']}"
    return (
        f"the instances on {placement.named(known['instances'])} (a cpuset), lab on "
        f"{placement.named(known['lab'])}, the load client on {placement.named(known['client'])}; a client of the "
        "scenario's own is among the instances"
    )


def _but(material: Material) -> str:
    """How many blocks were measured besides and don't count."""
    left_out = len(material.loaded.excluded)
    return f", {left_out} more left out by the rule below" if left_out else ""


def _sessions(material: Material) -> str:
    """How many there were, and what they are to the intervals."""
    frame = material.measured
    count = int(frame["session"].nunique())
    if count < 2:
        return "one: what a process of lab's got by chance is the same in all blocks, and in no interval"
    blocks = ", ".join(str(number) for number in frame.groupby("session")["block"].nunique())
    each = f"{count}, each a process of its own with its own network, hypervisor, warm-ups, orders; blocks: {blocks}"
    if count < FEWEST:
        return f"{each}. Two don't tell how sessions vary: the intervals are those of blocks, and may be too narrow"
    return f"{each}. A session is one observation: the intervals are Student's t over the sessions"


def _stopping(material: Material) -> str:
    """What was to end the run, what did, and how narrow the intervals were then."""
    run = material.run
    precision, merged = run.settings.get("precision"), run.settings.get("merged")
    if merged:
        return "merged from runs, each of which had ended: " + ", ".join(
            f"{each['run']} ({each['ended_because']})" for each in merged
        )
    if run.settings.get("detect"):
        return _detecting(material)
    if precision is None:
        return "after the planned blocks" if run.blocks_planned else "at the budget, after three blocks at the least"
    now = ", ".join(f"{arm} {in_percent(width)}" for arm, width in widths(material.loaded.frame).items())
    which = "it was the intervals" if run.ended_because == Ending.PRECISION else "it was not the intervals"
    return (
        f"as soon as the interval of every arm's median boot is at most {in_percent(precision)} of it wide, looked "
        f"at after each block from the {PRECISE_BLOCKS}th on, or at the budget; {which}. Widths: {now}. Intervals "
        "that decided when to stop cover the truth 92 to 95 times in 100"
    )


def _detecting(material: Material) -> str:
    """What the run was to find, and how many blocks its pilot said that takes."""
    share, pilot = material.run.settings["detect"], material.run.settings.get("pilot") or {}
    what = f"a difference of {in_percent(share)} in a headline quantity"
    if not pilot.get("needed"):
        return f"after as many blocks as {what} takes, or at the budget; the pilot could not tell how many"
    reached = "so many were measured" if material.loaded.blocks >= pilot["needed"] else "the budget ended before"
    return (
        f"planned to find {what} four times in five, or at the budget: the first {pilot['blocks']} blocks, a pilot, "
        f"said that it takes {pilot['needed']}; {reached}"
    )


def _intervals(material: Material) -> str:
    """Which of the two methods this run's number of blocks or sessions allows."""
    if material.measured["session"].nunique() >= FEWEST:
        return "95 %; over sessions, see there"
    median = (
        "of a median: between order statistics, interpolated (Hettmansperger-Sheather)"
        if material.loaded.blocks >= ENOUGH_FOR_ORDER
        else "of a median: Student's t on logarithms, since so few values have no order to speak of"
    )
    return f"95 %; {median}; of a ratio: Student's t on the blocks' log ratios, however many blocks there are"


def _twin(material: Material) -> str:
    """What the A/A pair is, and whether it differs from itself."""
    twin = material.twin
    if twin is None:
        return "none"
    label = f"{twin.label} repeats {twin.backend} under a second label"
    if not material.loaded.twin_alike:
        return f"{label}, but was treated otherwise: {material.run.settings['twin']}"
    boot = material.ratio(leading(material.run), twin.label)
    what = title(material.run)
    seen = f"; its {what} is {format_ratio(boot.ratio)} that of the first ({boot.range})" if boot else ""
    return f"{label}, treated the same in everything: a second observation of it in each block{seen}"


def _many(material: Material) -> str:
    families = material.ratios["family"].value_counts()
    return (
        f"{families.get(HEADLINE, 0)} ratios are headlines, declared beforehand: for each pair of backends, the "
        f"probability of any false claim among them is {ALPHA:.0%} at most (Holm). {families.get(EXPLORATORY, 0)} "
        f"are exploratory: of what is claimed there, {ALPHA:.0%} may be false (Benjamini and Hochberg)"
    )


def _resolution(material: Material) -> str:
    polled = material.summary[material.summary["resolution"] > 0]
    if polled.empty:
        return "every phase was seen as an event; nothing was polled"
    worst = polled.sort_values("resolution").iloc[-1]
    largest = format_value(float(worst["resolution"]), str(worst["unit"]))
    return f"polled values carry their error bar; the largest: {largest}"


def _command(work: object) -> str:
    """The scenario's own command, and where it ran."""
    if not isinstance(work, dict):
        return "none of the scenario's own"
    where = {
        "inside": "inside the instance",
        "beside": "in a second copy of the image, on the backend process, whatever was measured",
    }
    return f"{shlex.join(work['argv'])} · {where[work['place']]}"


def readiness(material: Material) -> str:
    """What was waited for, how it was seen, and how lab came to know what to wait for."""
    run = material.run
    seen = in_words(run.settings.get("readiness")) or "nothing was asked of it"
    return "; ".join([f"{until(run)}: {seen}", *map(str, run.settings.get("found", ()))])


def boot_story(material: Material) -> str:
    """When the clock of a boot starts and stops."""
    run = material.run
    reached = boots_until(run)
    told = [f"The clock starts when lab decides to start an instance, and runs until {until_ready(run)}."]
    asked = in_words(run.settings.get("readiness"))
    if reached in (Milestone.CORRECT_ANSWER, Milestone.ANSWER, Milestone.LOG_LINE):
        told.append(f"What counts: {asked}.")
    if reached is Milestone.ANSWER:
        told.append("What an answer must hold, nobody said: only that it came was checked, and its status.")
    if reached is Milestone.PORT_OPEN:
        told.append("Nothing was asked there, so whether it could have done its work by then is not known.")
    if reached is Milestone.STARTED:
        told.append("Nothing was asked of it: when it is able to do its work is not known.")
    if until(run) is Milestone.DONE:
        told.append("It is a job that ends by itself: the second clock runs on until then, with exit code 0.")
    return " ".join([*told, "The clock is the same for every backend, so every bar means the same."])


def _load(setting: object) -> str:
    return in_words(setting) or "none offered by lab"


def in_words(setting: object) -> str:
    """A readiness or load of `lab.model`, as run.json has it, in a phrase; "" for none.

    A run of a newer lab may hold one that is not known here: it is given by its fields.
    """
    match setting:
        case {"kind": "HttpReadiness", "path": path, "status": status, "body": body}:
            holding = f" and a body that contains “{body}”" if body else ", whatever its body holds"
            return f"GET {path} is answered with status {status}{holding}"
        case {"kind": "TcpReadiness"}:
            return "its port accepts a connection"
        case {"kind": "StartedReadiness"}:
            return "it executes; nothing is asked of it"
        case {"kind": "DoneReadiness"}:
            return "it ends by itself with exit code 0"
        case {"kind": "HealthReadiness", "check": {"test": [_, *words]}}:
            return f"its image's HEALTHCHECK succeeds: {' '.join(words)}"
        case {"kind": "LogReadiness", "pattern": pattern}:
            return f"a line of its output matches {pattern}"
        case {"kind": "TalkReadiness", "send": send, "expect": expect}:
            return f"its port answers {send!r} with something that contains {expect!r}"
        case {"kind": "Load", "path": path, "connections": connections, "duration_seconds": duration}:
            return f"wrk asks for {path} over {connections} connections for {duration:g} s"
        case dict():
            return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in setting.items() if key != "kind")
    return str(setting or "")
