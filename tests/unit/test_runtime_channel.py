"""Messages keep their borders, their order and their descriptors, and the end of a peer is noticed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.runtime.channel import Channel, ChannelClosed


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


def test_another_message_than_expected() -> None:
    first, second = Channel.pair()
    first.send("PLACED")
    with pytest.raises(ValueError, match="expected EXEC_NOW, received PLACED"):
        second.expect("EXEC_NOW")
    first.close()
    second.close()
