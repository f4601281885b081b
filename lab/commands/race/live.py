"""A live race: the application built, the backends made ready, then round after round, seen or not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import datetime

from lab.backends.site import Site
from lab.classroom.race import growing
from lab.classroom.race.model import Race, Round
from lab.commands.measuring import choose_backends, one_each, set_up
from lab.commands.output import say
from lab.commands.race.heat import Heat, warm
from lab.commands.race.showing import run


def race_live(
    target: str, on: str, rounds: int, *, remark: str, seen: bool, browsers: socket.socket | None = None
) -> Race | None:
    """The rounds of ``target`` that were run to their end, None without one; ``seen``: on the whole terminal.
    ``browsers`` is where they are shown to browsers instead.

    Raises LabError. When it returns or raises, every copy is gone.
    """
    from lab.analysis.readiness import PHRASES, boots_until
    from lab.classroom.race import page
    from lab.experiment.plan import Plan
    from lab.experiment.provenance import describe
    from lab.experiment.scenarios.scenario import load

    with Site.open() as site:  # starts the launcher while this process is still small
        scenario = load(target)
        chosen = choose_backends(on)
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen)
        for name in chosen:
            say(f"lab: starting {name} once, so that what it reads is in memory")
            warm(site, setup, site.backend(name))
        plan = Plan(arms=one_each(chosen), seed=0, blocks=rounds, budget_seconds=0.0)
        described = describe(site, setup, plan, ("lab", "race", target))
        until, when = boots_until(described), datetime.now()

        def heat_of(number: int) -> Heat:
            return Heat(site, setup, described.arms, until, number)

        def race_of(done: Sequence[Round]) -> Race:
            source = f"live on this host, {when:%Y-%m-%d %H:%M}"
            return growing.race(described.title or described.scenario, PHRASES[until], source, until, done)

        if browsers is not None:
            shown = page.live(described.title or described.scenario, f"lab compare {target}")
            return _for_browsers(browsers, shown, heat_of, rounds, race_of)
        if seen:
            return run(heat_of, rounds, race_of, remark)
        done = []
        for number in range(1, rounds + 1):
            say(f"lab: round {number} of {rounds}")
            with heat_of(number) as heat:
                heat.wait()
            done.append(heat.round())
        return race_of(done)


def _for_browsers(
    listening: socket.socket,
    shown: str,
    heat_of: Callable[[int], Heat],
    rounds: int,
    race_of: Callable[[Sequence[Round]], Race],
) -> Race:
    from lab.classroom.web.address import url
    from lab.commands.race.serving import run_served, served

    address = url(listening)
    with served(listening, shown, address) as showing:
        print(f"race     {showing.link}\nto look  {address}/", flush=True)
        say("The first link starts the rounds; whoever reaches the second one sees them. Ctrl-C ends it.")
        return run_served(showing, heat_of, rounds, race_of)
