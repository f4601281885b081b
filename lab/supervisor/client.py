"""What commands do with detached instances: start one, find its supervisor, or have a new one take over."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from lab.errors import LabError, LaunchError
from lab.host import waits
from lab.host.command import tail
from lab.host.identity import private, privilege
from lab.host.session.ledger import boot_id
from lab.model import TerminalSize
from lab.runtime.channel import Channel, ChannelClosed
from lab.supervisor import record as records
from lab.supervisor.control import Answer, Request, connect, decode_error
from lab.supervisor.record import NOBODY, Condition, InstanceRecord, Pid, State

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.02
ENDING_SECONDS = 30.0
ADOPTION_SECONDS = 5.0
LEAVING_SECONDS = 10.0


def new_id() -> str:
    """Twelve hexadecimal digits, as Docker shows them."""
    return secrets.token_hex(6)


def start(record: InstanceRecord) -> InstanceRecord:
    """Have a supervisor launch what ``record`` says; its name is reserved. Returns when the application runs.

    Raises LaunchError, or what else prevented it; then the record is gone, and so is everything else. If this
    process is killed before, the instance is ended.
    """
    try:
        _supervisor("launch", record.name)
    except BaseException:
        _forget(record)
        raise
    return records.read(record.name) or replace(record, state=State.EXITED)  # --rm, and it has ended already


def start_again(record: InstanceRecord) -> InstanceRecord:
    """Launch what has ended anew, from its image, under its name and id. One that runs is returned as it is.

    Raises LaunchError, or what else prevented it; the record then says again how it had ended. Raises LabError
    while another command starts it.
    """
    if record.runs:
        return record
    if record.condition is Condition.STARTING:
        raise LabError(f"instance {record.name} is still starting")
    anew = replace(
        record, state=State.CREATED, boot_id=boot_id(), session="", supervisor=Pid.of(os.getpid()), first=NOBODY,
        started=0.0, ended=0.0, address="", published=(), accelerator="", stamps={}, exit_code=None, error="",
        health="", again=True,
    )  # fmt: skip
    with _alone_with(record):
        (records.folder(record.name) / records.EXIT).unlink(missing_ok=True)
        records.write(anew)
    try:
        _supervisor("launch", record.name)
    except BaseException:
        records.write(record)
        raise
    return records.read(record.name) or replace(anew, state=State.EXITED)


@contextmanager
def _alone_with(record: InstanceRecord) -> Iterator[None]:
    """Hold the lock of one that has ended. Its supervisor, which has just said so, may take a moment to leave. Raises
    LabError where another command has begun it since the look, or removed it.
    """
    deadline = time.monotonic() + LEAVING_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(records.supervising(record.name))
                supervised = None
            except records.Supervised as error:
                supervised = error
            now = records.read(record.name)
            if now is None or now.id != record.id or now.condition is not Condition.EXITED:
                raise LabError(f"instance {record.name} is being started, or was removed", hint="lab ps -a")
            if supervised is None:
                break
            if time.monotonic() > deadline:
                raise supervised
            time.sleep(0.005)
        yield


def _forget(record: InstanceRecord) -> None:
    """The name is free again, unless it has become another's meanwhile."""
    found = records.stored(record.name)
    if found is not None and found.id == record.id and found.condition is Condition.FAILED:
        records.remove(record)


def _supervisor(verb: str, name: str) -> None:
    """Start one and wait for its first word. It is in a session of its own: no terminal's signals reach it."""
    ours, theirs = Channel.pair()
    log_path = records.folder(name) / records.SUPERVISOR_LOG
    words = [sys.executable, "-P", "-m", "lab.supervisor", verb, name, str(theirs.fileno())]
    with os.fdopen(private.append_to(log_path), "ab") as errors:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=[theirs.fileno()],
            cwd="/",
            start_new_session=True,
        )
    theirs.close()
    try:
        waits.readable(ours.fileno())
        message, _ = ours.receive()
    except ChannelClosed:
        process.wait()
        said = tail(log_path.read_bytes()) if log_path.exists() else ""
        raise LaunchError(f"the supervisor of {name} died", detail=said, exit_code=125) from None
    finally:
        ours.close()
    if message["message"] == Answer.FAILED:
        process.wait()
        raise decode_error(message)
    process.returncode = 0  # it lives on, and is no longer ours to wait for


def supervisor_of(record: InstanceRecord) -> Channel:
    """A conversation with the instance's supervisor; one that has died is replaced first, and that is logged.

    Raises LabError when the instance does not run.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        match record.condition:
            case Condition.RUNNING:
                try:
                    return connect(record.control)
                except PermissionError:
                    raise LabError(f"instance {record.name} is root's", hint=privilege.remedy("COMMAND")) from None
                except OSError:  # it is just ending, has just been killed, or starts over
                    if time.monotonic() > deadline:
                        raise LabError(f"the supervisor of {record.name} does not answer") from None
                    time.sleep(PAUSE_SECONDS)
            case Condition.LOST:
                _take_over(record)
            case Condition.STARTING:
                raise LabError(f"instance {record.name} is still starting")
            case _:
                raise LabError(f"instance {record.name} does not run", hint=f"lab rm {record.name}, and lab run anew")
        found = records.read(record.name)
        if found is None or found.id != record.id:
            raise LabError(f"instance {record.name} was removed")
        record = found


def _take_over(record: InstanceRecord) -> None:
    """Have a new supervisor adopt it. Another command may be faster: then what that one started is as good."""
    try:
        _supervisor("adopt", record.name)
        log.error("lab: the supervisor of %s had died; a new one has taken over", record.name)
    except LabError:
        deadline = time.monotonic() + ADOPTION_SECONDS
        while _is_lost(record):
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def _is_lost(record: InstanceRecord) -> bool:
    found = records.read(record.name)
    return found is not None and found.id == record.id and found.condition is Condition.LOST


def ask(record: InstanceRecord, request: Request, *, descriptors: Sequence[int] = (), **fields: object) -> Channel:
    """Begin a conversation; see `lab.supervisor.control` for the requests."""
    channel = supervisor_of(record)
    try:
        channel.send(request, descriptors=descriptors, **fields)
    except ChannelClosed:
        pass  # its answer, or the lack of one, says more
    return channel


def begin(
    record: InstanceRecord,
    argv: Sequence[str],
    *,
    descriptors: tuple[int, int, int],
    environment: Mapping[str, str],
    directory: str = "",
    user: str = "",
    terminal: TerminalSize | None = None,
) -> Channel:
    """Run a command beside the application, on the caller's own descriptors. Returns once it runs: EXITED follows.

    Raises LaunchError, with Docker's exit code, when it can't be executed.
    """
    channel = ask(
        record,
        Request.EXEC,
        argv=list(argv),
        environment=dict(environment),
        directory=directory,
        user=user,
        terminal=[terminal.rows, terminal.columns] if terminal else None,
        descriptors=descriptors,
    )
    answer(channel, Answer.STARTED)
    return channel


def signal(record: InstanceRecord, number: int) -> None:
    """Send a signal to the application."""
    with_answer(record, Request.SIGNAL, number=number)


def with_answer(record: InstanceRecord, request: Request, **fields: int) -> None:
    """A request that is answered by DONE."""
    channel = ask(record, request, descriptors=(), **fields)
    try:
        answer(channel, Answer.DONE)
    finally:
        channel.close()


def reaches(record: InstanceRecord, port: int) -> bool:
    """Whether a TCP port of the instance's own accepts connections now."""
    channel = ask(record, Request.REACH, port=port)
    try:
        return bool(answer(channel, Answer.REACHED)["served"])
    finally:
        channel.close()


def stop(record: InstanceRecord, grace_seconds: float) -> None:
    """Stop it and wait until nothing is left. No error when it has ended already; LabError when something is left."""
    if record.condition is Condition.STARTING:
        raise LabError(f"instance {record.name} is still starting")
    if record.runs:
        _await_end(record, Request.STOP, grace_seconds=grace_seconds)


def wait(record: InstanceRecord) -> InstanceRecord | None:
    """Wait for its end, as recorded; None when it was removed then."""
    if record.runs:
        _await_end(record, Request.WAIT)
    return records.read(record.name)


def _await_end(record: InstanceRecord, request: Request, **fields: float) -> None:
    """Should the supervisor be killed meanwhile, the next one is asked, as long as the instance runs."""
    while True:
        try:
            channel = ask(record, request, descriptors=(), **fields)
        except LabError:
            found = records.read(record.name)
            if found is None or found.id != record.id or not found.runs:
                return
            raise
        try:
            answer(channel, Answer.EXITED)
            return
        except ChannelClosed:
            continue
        finally:
            channel.close()


def answer(channel: Channel, expected: Answer) -> dict[str, object]:
    """The next message. Raises what the supervisor says went wrong, and ChannelClosed when it dies."""
    waits.readable(channel.fileno())
    message, descriptors = channel.receive()
    for descriptor in descriptors:
        os.close(descriptor)
    if message["message"] == Answer.FAILED:
        raise decode_error(message)
    if message["message"] != expected:
        raise LabError(f"a supervisor of another version of lab said {message['message']}")
    return message
