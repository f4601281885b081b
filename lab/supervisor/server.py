"""The supervisor's side of the control socket: a thread per conversation, and a queue of what ends the instance."""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lab.errors import ExitUnknown, LabError
from lab.host.waits import AGAIN_SECONDS
from lab.instance import Execution, Instance
from lab.model import TerminalSize
from lab.runtime.channel import Channel, ChannelClosed, Message
from lab.supervisor.control import Answer, Request, encode_error

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 5.0
REACH_SECONDS = 10.0  # an emulated guest on a busy host may take seconds to answer a first packet


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The application has ended by itself; ``code`` is None where nobody can know it, and ``error`` says why."""

    code: int | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Somebody wants it to end, by its stop signal, and after the grace by force."""

    grace_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The launcher has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the image's HEALTHCHECK says now: starting, healthy, unhealthy."""

    state: str


Event = Ended | Stop | Lost | Health


class Server:
    """Answers until the process ends. `finish` gives those who wait for the end what they wait for.

    ``open_socket`` opens a TCP socket that reaches the instance's address.
    """

    def __init__(self, instance: Instance, listener: socket.socket, open_socket: Callable[[], socket.socket]) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._instance = instance
        self._listener = listener
        self._open_socket = open_socket
        self._code: int | None = None
        self._left: LabError | None = None
        self.ending = threading.Event()  # the instance is about to end, or has
        self._finished = threading.Event()
        self._waiting: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="lab-control", daemon=True)

    def start(self) -> None:
        """Accept conversations, and watch the application."""
        threading.Thread(target=self._watch, name="lab-watch-application", daemon=True).start()
        self._accepting.start()

    def next_event(self) -> Event:
        """What happens next."""
        while True:
            with suppress(queue.Empty):
                return self.events.get(timeout=AGAIN_SECONDS)

    def finish(self, code: int | None, left: LabError | None = None) -> None:
        """Nothing of the instance is left, or what ``left`` says: tell those who wait, and give them a moment to hear
        it.
        """
        self._code, self._left = code, left
        self._finished.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread that accepts
        self._accepting.join(FAREWELL_SECONDS)  # else it might accept at the next socket that gets this number
        self._listener.close()
        for thread in list(self._waiting):
            thread.join(FAREWELL_SECONDS)

    def _watch(self) -> None:
        try:
            ended = Ended(code=self._instance.wait())
        except LabError as error:
            ended = Ended(code=None, error=error.message)
        self.ending.set()
        self.events.put(ended)

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            channel = Channel(end)
            channel.allow_large_messages()
            thread = threading.Thread(target=self._converse, args=(channel,), name="lab-conversation", daemon=True)
            self._waiting.append(thread)
            thread.start()

    def _converse(self, channel: Channel) -> None:
        try:
            message, descriptors = channel.receive()
            try:
                self._answer(channel, message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except LabError as error:
            with suppress(ChannelClosed):
                channel.send(Answer.FAILED, error=encode_error(error))
        except (KeyError, ValueError, TypeError, AssertionError) as error:
            with suppress(ChannelClosed):
                channel.send(
                    Answer.FAILED, error=encode_error(LabError(f"the supervisor does not understand: {error!r}"))
                )
        except (ChannelClosed, OSError) as error:
            log.debug("a conversation broke off: %r", error)
        finally:
            channel.hang_up()
            self._waiting.remove(threading.current_thread())

    def _answer(self, channel: Channel, message: Message, descriptors: list[int]) -> None:
        match message["message"]:
            case Request.EXEC:
                self._execute(channel, message, descriptors)
            case Request.SIGNAL:
                self._instance.signal(int(str(message["number"])))
                channel.send(Answer.DONE)
            case Request.REACH:
                channel.send(Answer.REACHED, served=self._reaches(int(str(message["port"]))))
            case Request.STOP:
                self.ending.set()
                self.events.put(Stop(grace_seconds=float(str(message["grace_seconds"]))))
                self._finished.wait()
                if self._left is not None:
                    raise self._left
                channel.send(Answer.EXITED, code=self._code)
            case Request.WAIT:
                self._finished.wait()
                channel.send(Answer.EXITED, code=self._code)
            case other:
                raise LabError(f"a supervisor of another version of lab does not know {other}")

    def _reaches(self, port: int) -> bool:
        """Asked where no proxy is in between, which accepts whatever becomes of it."""
        with self._open_socket() as connection:
            connection.settimeout(REACH_SECONDS)
            try:
                connection.connect((str(self._instance.address), port))
            except OSError:
                return False
        return True

    def _execute(self, channel: Channel, message: Message, descriptors: list[int]) -> None:
        argv, environment, terminal = message["argv"], message["environment"], message["terminal"]
        assert isinstance(argv, list)
        assert isinstance(environment, dict)
        stdin, stdout, stderr = descriptors
        with self._instance.begin(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=_size(terminal) if isinstance(terminal, list) else None,
            environment=environment,
            directory=str(message["directory"]),
            user=str(message["user"]),
        ) as execution:
            channel.send(Answer.STARTED)
            obey = threading.Thread(target=_obey, args=(channel, execution), name="lab-obey", daemon=True)
            obey.start()
            code = execution.wait()
            channel.send(Answer.EXITED, code=code)


def _obey(channel: Channel, execution: Execution) -> None:
    """Pass on what the client says while its command runs; that it is gone ends the command."""
    try:
        while True:
            message, _ = channel.receive()
            match message["message"]:
                case Request.SIGNAL:
                    execution.signal(int(str(message["number"])))
                case Request.RESIZE:
                    execution.resize(_size([message["rows"], message["columns"]]))
    except (ChannelClosed, OSError, KeyError, ValueError):
        execution.close()
    except ExitUnknown:
        pass


def _size(pair: list[object]) -> TerminalSize:
    rows, columns = (int(str(number)) for number in pair)
    return TerminalSize(rows=rows, columns=columns)
