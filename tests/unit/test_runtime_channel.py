"""Messages keep their borders, their order and their descriptors, and the end of a peer is noticed."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.runtime import channel
from lab.runtime.channel import LARGEST_MESSAGE_BYTES, BadMessage, Channel, ChannelClosed


@given(st.lists(st.text(max_size=200), max_size=10))
def test_messages_arrive_whole_and_in_order(texts: list[str]) -> None:
    first, second = Channel.pair()
    for number, text in enumerate(texts):
        first.send("WORD", number=number, text=text)
    assert [second.expect("WORD")["text"] for _ in texts] == texts
    first.close()
    second.close()


def test_a_large_message() -> None:
    first, second = Channel.pair()
    first.allow_large_messages()
    first.send("PLAN", text="x" * 150_000)
    message, _ = second.receive()
    assert len(str(message["text"])) == 150_000
    first.close()
    second.close()


def test_descriptors_travel_and_are_close_on_exec() -> None:
    first, second = Channel.pair()
    read, write = os.pipe()
    first.send("TAKE", descriptors=[write])
    os.close(write)
    _, (received,) = second.receive()
    assert not os.get_inheritable(received)
    os.write(received, b"hello")
    assert os.read(read, 5) == b"hello"
    for descriptor in (read, received):
        os.close(descriptor)
    first.close()
    second.close()


def test_the_end_of_the_peer() -> None:
    first, second = Channel.pair()
    first.close()
    with pytest.raises(ChannelClosed):
        second.receive()
    with pytest.raises(ChannelClosed):
        second.send("HELLO")
    second.close()


def test_last_words_are_heard_though_the_peer_left_messages_unread() -> None:
    first, second = Channel.pair()
    second.send("EXEC_NOW")
    first.send("FAILED", step="mount")
    first.close()
    assert second.expect("FAILED")["step"] == "mount"
    with pytest.raises(ChannelClosed):
        second.receive()
    second.close()


def test_a_message_that_is_too_long_is_not_sent() -> None:
    first, second = Channel.pair()
    with pytest.raises(BadMessage, match="PLAN"):
        first.send("PLAN", text="x" * LARGEST_MESSAGE_BYTES)
    first.send("NEXT")
    second.expect("NEXT")
    first.close()
    second.close()


@pytest.mark.parametrize("packet", [b"", b"{", b"[]", b"{}", b'{"message": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_message_costs_no_other(packet: bytes) -> None:
    """And its descriptors are closed."""
    first, second = Channel.pair()
    read, write = os.pipe()
    with socket.socket(fileno=os.dup(first.fileno())) as raw:
        socket.send_fds(raw, [packet], [write])
    os.close(write)
    first.send("NEXT")
    with pytest.raises(BadMessage):
        second.receive()
    assert os.read(read, 1) == b"", "nobody holds the other end any more"
    second.expect("NEXT")
    os.close(read)
    first.close()
    second.close()


def test_a_message_that_was_cut_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Channel.pair()
    monkeypatch.setattr(channel, "LARGEST_MESSAGE_BYTES", 1 << 10)
    with socket.socket(fileno=os.dup(first.fileno())) as raw:
        raw.send(b'{"message": "PLAN", "text": "' + b"x" * 2000 + b'"}')
    first.send("NEXT")
    with pytest.raises(BadMessage, match="cut off"):
        second.receive()
    second.expect("NEXT")
    first.close()
    second.close()


def test_another_message_than_expected() -> None:
    first, second = Channel.pair()
    first.send("PLACED")
    with pytest.raises(ValueError, match="expected EXEC_NOW, received PLACED"):
        second.expect("EXEC_NOW")
    first.close()
    second.close()
