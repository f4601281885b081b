"""A race on the terminal's whole screen: one that was recorded, or one that happens; and the keys to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.classroom.race.model import Race, Round, lasts, slowed
from lab.classroom.race.playing import Playing
from lab.classroom.race.screen import Shown, draw
from lab.commands.console.keyboard import Keyboard, keyboard

if TYPE_CHECKING:
    from rich.live import Live

    from lab.commands.race.heat import Heat

FRAME_SECONDS = 0.05
LIVE_FRAME_SECONDS = 0.1
"""Drawing takes time from the copies that run."""
PODIUM_SECONDS = 4.0
"""How long a round's end is seen where no key can be pressed."""
KEYS = "space start/stop   r again   + - speed   ← → round   q end"
LIVE_KEYS = "space start   q end"


class Screen:
    """The whole terminal. `show` draws where something has changed, then waits a moment for keys."""

    def __init__(self, live: Live, keys: Keyboard) -> None:
        self.keys = keys
        self._live = live
        self._last: object = None

    def show(self, shown: Shown, seconds: float) -> list[str]:
        """The keys that were pressed within so many ``seconds``."""
        from rich.console import Group

        size = self._live.console.size
        if self._last != (shown, size):
            self._last = shown, size
            self._live.update(Group(*draw(shown, size.width, size.height)), refresh=True)
        return self.keys.pressed(seconds)


@contextmanager
def whole_screen() -> Iterator[Screen]:
    """Taken away again at the end."""
    from rich.console import Console
    from rich.live import Live

    with keyboard() as keys, Live(console=Console(), screen=True, auto_refresh=False) as live:
        yield Screen(live, keys)


def play(race: Race, speed: float, remark: str) -> None:
    """Until somebody leaves it; where nobody can press a key, until its end."""
    with whole_screen() as screen:
        _play(screen, Playing(race, speed), remark)


def run(
    heat_of: Callable[[int], Heat], rounds: int, race_of: Callable[[Sequence[Round]], Race], remark: str
) -> Race | None:
    """Live rounds, then what was seen as often as somebody likes. The rounds that were run to their end; None without
    one.
    """
    done: list[Round] = []
    with whole_screen() as screen:
        for number in range(1, rounds + 1):
            finished = _run(screen, heat_of(number), done, race_of, remark)
            if finished is None:
                break
            done.append(finished)
        else:
            playing = Playing(race_of(done))
            playing.finish()
            _play(screen, playing, remark)
    return race_of(done) if done else None


def _play(screen: Screen, playing: Playing, remark: str) -> None:
    while not playing.left:
        now = time.monotonic()
        if not screen.keys.there:
            _go_on(playing, now)
        for key in screen.show(_shown(playing, screen.keys, now, remark), FRAME_SECONDS):
            playing.press(key, time.monotonic())


def _go_on(playing: Playing, now: float) -> None:
    """What somebody with a keyboard would press."""
    if playing.waits:
        playing.start(now)
    elif playing.is_over(now):
        time.sleep(PODIUM_SECONDS)
        playing.press("q" if playing.is_last else "n", time.monotonic())


def _run(
    screen: Screen,
    heat: Heat,
    done: Sequence[Round],
    race_of: Callable[[Sequence[Round]], Race],
    remark: str,
) -> Round | None:
    """One round: it waits for its start, and is over when nothing moves any more. None when somebody has left it."""

    def shown(at: float, told: str, *, over: bool = False) -> Shown:
        race = race_of([*done, heat.round()])
        keys = LIVE_KEYS if screen.keys.there else ""
        return Shown(
            race=race,
            place=len(done),
            at=at,
            slow=slowed(race.rounds),
            over=over,
            told=told,
            keys=keys,
            remark=remark,
        )

    while screen.keys.there:
        pressed = screen.show(shown(-1.0, "space starts it, live"), FRAME_SECONDS)
        if {"q", "escape"} & {*pressed}:
            return None
        if {"space", "enter", "n", "right"} & {*pressed}:
            break
    with heat:
        while True:
            at = time.monotonic() - heat.began
            now = shown(at, "live")
            if heat.is_over and at >= lasts(heat.round(), now.slow):
                break
            if {"q", "escape"} & {*screen.show(now, LIVE_FRAME_SECONDS)}:
                screen.show(shown(at, "stopping"), 0.0)
                return None
        screen.show(shown(at, "stopping the copies", over=True), 0.0)
    return heat.round()


def _shown(playing: Playing, keys: Keyboard, now: float, remark: str) -> Shown:
    over = playing.is_over(now)
    return Shown(
        race=playing.race,
        place=playing.place,
        at=-1.0 if playing.waits else playing.at(now),
        slow=playing.slow,
        over=over,
        told=_told(playing, over=over),
        keys=KEYS if keys.there else "",
        remark=remark,
    )


def _told(playing: Playing, *, over: bool) -> str:
    rate = "true speed" if playing.speed == 1.0 else f"{playing.speed:g} × true speed"
    if playing.waits:
        return f"space starts it, at {rate}"
    if over:
        return "over" if playing.is_last else "over; → next round"
    return rate if playing.runs else f"stopped ({rate})"
