"""What the pages ask the server: join, guess, the teacher's steps, and the streams of what is going on.

Who somebody is stands in a cookie alone that no script reads (HttpOnly) and no other site can make a browser send
(SameSite=Strict). The name of the cookie has the port in it: browsers keep one jar for all ports of a host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv6Network
from secrets import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lab.classroom.questions.showing import Showing
from lab.classroom.session import views
from lab.classroom.session.course import Course, Phase, Refused, WrongCode
from lab.classroom.session.store import Student, hashed
from lab.classroom.web.address import hosts
from lab.classroom.web.guard import FRAMED, POLICY, POLICY_OF_SCREEN, SANDBOX, WINDOW_SECONDS, Guard, Tries
from lab.classroom.web.hub import Hub

COOKIE_SECONDS = 2 * 24 * 3600
TOO_OFTEN = "too many wrong tries from here; wait a minute"
Files = Mapping[str, tuple[bytes, str]]
"""By name: content and media type."""
PAGES = {"/": "phone.html", "/screen": "screen.html", "/teach": "teach.html"}


@dataclass(slots=True, kw_only=True)
class Site:
    """The server's answers. ``address`` is where phones go (http://…), ``files`` what pages consist of, ``showing``
    what there is to look at of the run.
    """

    course: Course
    address: str
    files: Files
    showing: Showing = field(default_factory=Showing)
    live: Callable[[], dict[str, Any]] | None = None  # what is being measured now
    hub: Hub = field(default_factory=Hub)
    tries: Tries = field(default_factory=Tries)

    def application(self) -> Guard:
        """As ASGI has it."""
        routes = [
            *(Route(path, self._page(name)) for path, name in PAGES.items()),
            Route("/static/{name}", self.static),
            Route("/me", self.me),
            Route("/join", self.join, methods=["POST"]),
            Route("/guess", self.guess, methods=["POST"]),
            Route("/forget", self.forget, methods=["POST"]),
            Route("/events", self.events),
            Route("/teach/enter", self.enter, methods=["POST"]),
            Route("/teach/act", self.act, methods=["POST"]),
            Route("/teach/remove", self.remove, methods=["POST"]),
            Route("/teach/events", self.teachers_events),
            Route("/screen/events", self.screens_events),
            Route("/screen/race", self.show_race),
            Route("/screen/figure/{question:int}", self.show_figure),
            Route("/teach/qr.svg", self.qr),
            Route("/teach/report", self.show_report),
        ]
        handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
            Refused: refused,
            ClientDisconnect: gone,
        }
        return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts(self.address))

    # --- pages

    def _page(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def page(request: Request) -> Response:
            content, kind = self.files[name]
            policy = POLICY_OF_SCREEN if name == PAGES["/screen"] else POLICY
            return Response(content, media_type=kind, headers={"Content-Security-Policy": policy})

        return page

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.files or name.endswith(".html"):
            return error("there is no such file", HTTPStatus.NOT_FOUND)
        content, kind = self.files[name]
        return Response(content, media_type=kind)

    # --- students

    async def me(self, request: Request) -> Response:
        student = self._student(request)
        return JSONResponse({"title": self.course.material["title"], "nickname": student and student.nickname})

    async def join(self, request: Request) -> Response:
        sent = await body(request, code=str, nickname=str)
        if known := self._student(request):
            return JSONResponse({"nickname": known.nickname})
        if self.tries.exhausted(from_where(request)):
            return too_often()
        try:
            student, token = self.course.join(sent["code"], sent["nickname"])
        except WrongCode:
            self.tries.wrong(from_where(request))
            raise
        self.hub.changed()
        answer = JSONResponse({"nickname": student.nickname})
        self._give(answer, "student", token)
        return answer

    async def guess(self, request: Request) -> Response:
        student = self._student(request)
        if student is None:
            return error("join first", HTTPStatus.UNAUTHORIZED)
        sent = await body(request, question=int, vote=int, guess=float)
        self.course.guess(student, sent["question"], sent["vote"], sent["guess"])
        self.hub.changed()
        return JSONResponse({"guess": sent["guess"]})

    async def forget(self, request: Request) -> Response:
        student = self._student(request)
        if student is not None:
            self.course.store.remove(student.id)
            self.hub.changed()
        answer = JSONResponse({})
        answer.delete_cookie(self._cookie("student"))
        return answer

    async def events(self, request: Request) -> Response:
        student = self._student(request)
        if student is None:
            return error("join first", HTTPStatus.UNAUTHORIZED)
        token = request.cookies[self._cookie("student")]

        def view() -> dict[str, Any] | None:
            still = self.course.store.student(token)
            return None if still is None else views.of_student(self.course, still)

        return stream(self.hub, view, student.id)

    # --- the teacher and the projector

    async def enter(self, request: Request) -> Response:
        sent = await body(request, key=str)
        if self.tries.exhausted(from_where(request)):
            return too_often()
        if not self._is_key(sent["key"]):
            self.tries.wrong(from_where(request))
            return error("this link is not that of this class", HTTPStatus.FORBIDDEN)
        answer = JSONResponse({})
        self._give(answer, "teacher", sent["key"])
        return answer

    async def act(self, request: Request) -> Response:
        if not self._is_teacher(request):
            return not_the_teacher()
        sent = await body(request, action=str, phase=str, question=int)
        self.course.act(sent["action"], sent["phase"], sent["question"], self.showing.of(self.course.question))
        self.hub.changed()
        return JSONResponse({})

    async def remove(self, request: Request) -> Response:
        if not self._is_teacher(request):
            return not_the_teacher()
        sent = await body(request, student=int)
        self.course.store.remove(sent["student"])
        self.hub.changed()
        return JSONResponse({})

    async def teachers_events(self, request: Request) -> Response:
        def view() -> dict[str, Any]:
            told = views.of_teacher(self.course, self.address) | self._shown()
            return told | {"here": sorted(self.hub.present()), "report": bool(self.showing.report)}

        return stream(self.hub, view) if self._is_teacher(request) else not_the_teacher()

    async def screens_events(self, request: Request) -> Response:
        def view() -> dict[str, Any]:
            return views.of_screen(self.course, self.address) | self._shown()

        return stream(self.hub, view) if self._is_teacher(request) else not_the_teacher()

    def _shown(self) -> dict[str, Any]:
        """What the projector shows besides, and what else it could; nothing of it is a student's."""
        live = self.live() if self.live else None
        is_of_it = self.course.measured["run"] == self.course.material["run"]
        if self.course.phase is not Phase.REVEAL or not is_of_it:
            return {"view": "", "showable": [], "alt": "", "live": live}
        could, figure = self.showing.of(self.course.question), self.showing.figures.get(self.course.question)
        view = self.course.view if self.course.view in could else ""
        alt = figure.alt if figure and view == "figure" else ""
        return {"view": view, "showable": could, "alt": alt, "live": live}

    async def show_race(self, request: Request) -> Response:
        if not self._is_teacher(request):
            return not_the_teacher()
        if "race" not in self._shown()["showable"]:
            return error("there is no race to be shown now", HTTPStatus.NOT_FOUND)
        return Response(self.showing.race, media_type="text/html", headers={"Content-Security-Policy": FRAMED})

    async def show_figure(self, request: Request) -> Response:
        if not self._is_teacher(request):
            return not_the_teacher()
        question = request.path_params["question"]
        if question != self.course.question or "figure" not in self._shown()["showable"]:
            return error("there is no such figure to be shown now", HTTPStatus.NOT_FOUND)
        return Response(self.showing.figures[question].svg, media_type="image/svg+xml")

    async def qr(self, request: Request) -> Response:
        """Where a phone joins. The code stands behind a #, which no browser sends and no log keeps."""
        if not self._is_teacher(request):
            return not_the_teacher()
        import io

        import segno

        picture = io.BytesIO()
        segno.make(f"{self.address}/#{self.course.code}", micro=False).save(picture, kind="svg", scale=8, border=2)
        return Response(picture.getvalue(), media_type="image/svg+xml")

    async def show_report(self, request: Request) -> Response:
        if not self._is_teacher(request):
            return not_the_teacher()
        if not self.showing.report:
            return error("the run has no report.html", HTTPStatus.NOT_FOUND)
        return Response(self.showing.report, media_type="text/html", headers={"Content-Security-Policy": SANDBOX})

    # --- who it is

    def _cookie(self, of: str) -> str:
        return f"lab-{of}-{self.address.rpartition(':')[2]}"

    def _give(self, answer: Response, of: str, value: str) -> None:
        answer.set_cookie(self._cookie(of), value, max_age=COOKIE_SECONDS, httponly=True, samesite="strict")

    def _student(self, request: Request) -> Student | None:
        token = request.cookies.get(self._cookie("student"), "")
        return self.course.store.student(token) if token else None

    def _is_teacher(self, request: Request) -> bool:
        return self._is_key(request.cookies.get(self._cookie("teacher"), ""))

    def _is_key(self, key: str) -> bool:
        return any(compare_digest(hashed(key), each) for each in self.course.store.get("keys", []))


async def body(request: Request, **kinds: type) -> dict[str, Any]:
    """What a page sent, as JSON: exactly these fields, each of its kind. Raises Refused for anything else."""
    try:
        sent = await request.json()
        if not isinstance(sent, dict) or set(sent) != set(kinds):
            raise ValueError
        for name, kind in kinds.items():
            value = sent[name]
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise ValueError
            if isinstance(value, str):
                value.encode()  # what is half of a pair of UTF-16 is no text
        return {name: float(sent[name]) if kind is float else sent[name] for name, kind in kinds.items()}
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Refused("that is not what a page of this server sends") from error


def stream(hub: Hub, view: Callable[[], dict[str, Any] | None], student: int = 0) -> Response:
    """Server-sent events of what ``view`` says."""
    return StreamingResponse(hub.stream(view, student), media_type="text/event-stream")


def from_where(request: Request) -> str:
    """Where a request came from; it is kept nowhere but in the count of wrong tries."""
    return neighbourhood(request.client.host) if request.client else ""


def neighbourhood(address: str) -> str:
    """The addresses that one host can have: one of IPv4, of IPv6 the whole /64 (RFC 4291, section 2.5.4)."""
    if ":" not in address:
        return address
    return str(IPv6Network((address.partition("%")[0], 64), strict=False))


def error(why: str, status: HTTPStatus) -> Response:
    """A refusal as a page expects it."""
    return JSONResponse({"error": why}, status_code=status)


def not_the_teacher() -> Response:
    """For whoever has not the teacher's cookie."""
    return error("this is the teacher's; open the link that lab class serve printed", HTTPStatus.FORBIDDEN)


def too_often() -> Response:
    """For whoever tried too often."""
    answer = error(TOO_OFTEN, HTTPStatus.TOO_MANY_REQUESTS)
    answer.headers["Retry-After"] = str(int(WINDOW_SECONDS))
    return answer


async def refused(request: Request, why: Any) -> Response:
    """A `Refused` as an answer."""
    return error(why.message, HTTPStatus.FORBIDDEN if isinstance(why, WrongCode) else HTTPStatus.CONFLICT)


async def gone(request: Request, why: Any) -> Response:
    """For whoever sent too much, or left meanwhile."""
    return error("that is more than a page of this server sends", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
