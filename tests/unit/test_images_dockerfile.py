"""A Dockerfile is data, or a refusal with a line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import DockerfileError
from lab.images.dockerfile import Arg, Cmd, Copy, Entrypoint, Env, Expose, Label, Run, User, Workdir, parse

EVERYTHING = r"""
ARG VERSION=3
FROM base:${VERSION} AS only
ENV A=1 B="two words"
ENV OLD style
LABEL "a b"=c
ARG NAME
ARG OTHER=x
WORKDIR /srv/my app
RUN echo one && \
    # a comment in between
    echo two
RUN ["/bin/echo", "$A"]
COPY --chown=app:app --chmod=755 one two /there/
ADD ["with space", "/x"]
EXPOSE 80 443/tcp
USER 1000:1000
ENTRYPOINT ["run"]
CMD serve now
"""


def test_every_supported_instruction() -> None:
    parsed = parse(EVERYTHING)
    assert [(one.name, one.default) for one in parsed.global_arguments] == [("VERSION", "3")]
    assert (parsed.base.image, parsed.base.line) == ("base:${VERSION}", 3)
    env, old, label, name, other, workdir, shell, exec_form, copy, add, expose, user, entrypoint, cmd = (
        parsed.instructions
    )
    assert isinstance(env, Env)
    assert env.pairs == (("A", "1"), ("B", '"two words"'))
    assert isinstance(old, Env)
    assert old.pairs == (("OLD", "style"),)
    assert isinstance(label, Label)
    assert label.pairs == (('"a b"', "c"),)
    assert isinstance(name, Arg)
    assert name.default is None
    assert isinstance(other, Arg)
    assert other.default == "x"
    assert isinstance(workdir, Workdir)
    assert workdir.path == "/srv/my app"
    assert isinstance(shell, Run)
    assert shell.argv[:2] == ("/bin/sh", "-c")
    assert "one" in shell.argv[2]
    assert "two" in shell.argv[2]
    assert shell.line == 10
    assert isinstance(exec_form, Run)
    assert exec_form.argv == ("/bin/echo", "$A")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination, copy.chown, copy.chmod) == (("one", "two"), "/there/", "app:app", "755")
    assert not copy.extract
    assert isinstance(add, Copy)
    assert add.extract
    assert add.sources == ("with space",)
    assert isinstance(expose, Expose)
    assert expose.ports == ("80", "443/tcp")
    assert isinstance(user, User)
    assert isinstance(entrypoint, Entrypoint)
    assert entrypoint.argv == ("run",)
    assert isinstance(cmd, Cmd)
    assert cmd.argv == ("/bin/sh", "-c", "serve now")


def test_here_documents() -> None:
    whole, piped = parse("FROM x\nRUN <<EOF\necho a\necho b\nEOF\nRUN cat > /f <<EOF\ntext\nEOF\n").instructions
    assert isinstance(whole, Run)
    assert whole.argv == ("/bin/sh", "-c", "echo a\necho b\n")
    assert isinstance(piped, Run)
    assert piped.argv == ("/bin/sh", "-c", "cat > /f <<EOF\ntext\nEOF\n")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("FROM x\nHEALTHCHECK CMD true\n", 2, "HEALTHCHECK is not supported"),
        ("FROM x\n\nVOLUME /data\n", 3, "VOLUME is not supported"),
        ("FROM x\nONBUILD RUN y\n", 2, "ONBUILD is not supported"),
        ("FROM x\nSHELL ['sh']\n", 2, "SHELL is not supported"),
        ("FROM x\nSTOPSIGNAL 9\n", 2, "STOPSIGNAL is not supported"),
        ("FROM x\nMAINTAINER me\n", 2, "MAINTAINER is not supported"),
        ("FROM x\nRUM echo\n", 2, "unknown instruction RUM"),
        ("FROM x AS a\nFROM y\n", 2, "more than one stage"),
        ("FROM --platform=linux/arm64 x\n", 1, "FROM --platform is not supported"),
        ("FROM x\nRUN --mount=type=cache,target=/c true\n", 2, "RUN --mount is not supported"),
        ("FROM x\nCOPY --from=y a b\n", 2, "COPY --from is not supported"),
        ("FROM x\nADD https://host/file /f\n", 2, "remote address"),
        ("FROM x\nCOPY <<EOF /f\ntext\nEOF\n", 2, "here-document"),
        ("FROM x\nRUN <<EOF\n#!/usr/bin/python3\nEOF\n", 2, "interpreter line"),
        ("FROM x\nCOPY a\n", 2, "needs a source and a destination"),
        ("FROM x\nUSER\n", 2, "USER needs an argument"),
        ("FROM\n", 1, "FROM needs an argument"),
        ("FROM x y\n", 1, "FROM wants"),
        ("RUN true\nFROM x\n", 1, "only ARG may come before FROM"),
        ("FROM x\nRUN true\nENV A\nRUN true\n", 3, "ENV must have two arguments"),
        ("FROM x\nCMD [1, 2]\nRUN true\n", 2, "strings only"),
        ("FROM x\nRUN true\nRUN <<EOF\necho\n", 3, "unterminated heredoc"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DockerfileError, match=says) as caught:
        parse(text)
    assert caught.value.line == line
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "ARG A=1\n"])
def test_a_dockerfile_needs_a_from(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse(text)


def test_the_escape_directive() -> None:
    assert parse("# escape=`\nFROM x\nRUN a `\n b\n").escape == "`"
    assert parse("FROM x\n# escape=`\n").escape == "\\"


WORDS = st.sampled_from(
    [
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "ARG",
        "x",
        "a=b",
        "<<EOF",
        "EOF",
        "[",
        '"',
        "]",
        ",",
        "\\",
        "\n",
        "--mount=x",
        "$A",
    ]
)


@given(st.lists(WORDS, max_size=15).map(" ".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(DockerfileError):
        parse(text)
