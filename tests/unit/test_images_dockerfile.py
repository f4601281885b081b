"""A Dockerfile is data, or a refusal with a line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import DockerfileError
from lab.images.dockerfile.instructions import (
    Arg,
    Cmd,
    Copy,
    Document,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)  # fmt: skip
from lab.images.dockerfile.lint import findings
from lab.images.dockerfile.parse import parse
from lab.model import Healthcheck

EVERYTHING = r"""
ARG VERSION=3 OTHER
FROM --platform=$BUILDPLATFORM base:${VERSION} AS Only
ENV A=1 B="two words"
ENV OLD style
LABEL "a b"=c
ARG NAME A=x
WORKDIR /srv/my app
RUN echo one && \
    # a comment in between
    echo two
RUN ["/bin/echo", "$A"]
COPY --chown=app:app --chmod=755 --link --parents --exclude=*.o --exclude=*.a --from=0 one two /there/
ADD --checksum=sha256:00 --keep-git-dir ["with space", "/x"]
EXPOSE 80 443/tcp
USER 1000:1000
VOLUME /a /b
STOPSIGNAL SIGINT
SHELL ["/bin/bash", "-c"]
ONBUILD RUN   make
HEALTHCHECK --interval=1m30s --retries=2 CMD curl x
MAINTAINER me
ENTRYPOINT ["run"]
CMD serve now
"""


def instructions(text: str) -> tuple[Instruction, ...]:
    return parse(text).stages[-1].instructions


def test_every_instruction() -> None:
    parsed = parse(EVERYTHING)
    assert parsed.global_arguments[0].pairs == (("VERSION", "3"), ("OTHER", None))
    (stage,) = parsed.stages
    base = stage.base
    assert (base.image, base.line, base.name, base.platform) == ("base:${VERSION}", 3, "only", "$BUILDPLATFORM")
    kinds = (
        Env, Env, Label, Arg, Workdir, Run, Run, Copy, Copy, Expose, User, Volume, StopSignal, Shell, OnBuild,
        HealthCheck, Maintainer, Entrypoint, Cmd,
    )  # fmt: skip
    assert tuple(type(one) for one in stage.instructions) == kinds
    env, old, label, arg, workdir, run, exec_form, copy, add, *rest = stage.instructions
    assert isinstance(env, Env)
    assert env.pairs == (("A", "1"), ("B", '"two words"'))
    assert isinstance(old, Env)
    assert old.pairs == (("OLD", "style"),)
    assert isinstance(label, Label)
    assert label.pairs == (('"a b"', "c"),)
    assert isinstance(arg, Arg)
    assert arg.pairs == (("NAME", None), ("A", "x"))
    assert isinstance(workdir, Workdir)
    assert workdir.path == "/srv/my app"
    assert isinstance(run, Run)
    assert run.command.argv(("/bin/sh", "-c"))[:2] == ("/bin/sh", "-c")
    assert "one" in run.command.words[0]
    assert run.line == 9
    assert isinstance(exec_form, Run)
    assert exec_form.command.argv(("sh",)) == ("/bin/echo", "$A")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination, copy.chown, copy.chmod) == (("one", "two"), "/there/", "app:app", "755")
    assert (copy.link, copy.parents, copy.excludes, copy.stage, copy.is_add) == (
        True,
        True,
        ("*.o", "*.a"),
        "0",
        False,
    )
    assert isinstance(add, Copy)
    assert (add.is_add, add.sources, add.checksum, add.keep_git_directory) == (
        True,
        ("with space",),
        "sha256:00",
        True,
    )
    health = next(one for one in rest if isinstance(one, HealthCheck))
    assert health.check == Healthcheck(test=("CMD-SHELL", "curl x"), interval_seconds=90.0, retries=2)
    trigger = next(one for one in rest if isinstance(one, OnBuild))
    assert trigger.trigger == "RUN   make"


def test_stages() -> None:
    parsed = parse("FROM a AS x\nRUN 1\nFROM x\nRUN 2\nRUN 3\n")
    assert [(one.number, one.title, len(one.instructions)) for one in parsed.stages] == [
        (0, "x", 1),
        (1, "stage-1", 2),
    ]


def test_here_documents() -> None:
    whole, piped, script, copied = instructions(
        "FROM x\nRUN <<-EOF\n\techo a\n\techo b\nEOF\nRUN cat > /f <<EOF\ntext\nEOF\n"
        "RUN <<EOF\n#!/usr/bin/python3\nEOF\nCOPY a <<one <<'two' /x/\n$A\none\n$B\ntwo\n"
    )
    assert isinstance(whole, Run)
    assert whole.command.words == ("echo a\necho b\n",)
    assert isinstance(piped, Run)
    assert piped.command.words == ("cat > /f <<EOF\ntext\nEOF\n",)
    assert isinstance(script, Run)
    assert script.script == Document(name="EOF", content="#!/usr/bin/python3\n", expand=True)
    assert isinstance(copied, Copy)
    assert copied.sources == ("a",)
    assert copied.documents == (
        Document(name="one", content="$A\n", expand=True),
        Document(name="two", content="$B\n", expand=False),
    )


def test_mounts() -> None:
    (run,) = instructions("FROM x\nRUN --mount=type=cache,dst=/c,id=a --mount=src=s,target=/t,readwrite true\n")
    assert isinstance(run, Run)
    assert [dict(one.options) for one in run.mounts] == [
        {"type": "cache", "target": "/c", "id": "a"},
        {"source": "s", "target": "/t", "rw": "true", "type": "bind"},
    ]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("FROM x\nRUM echo\n", 2, "unknown instruction RUM"),
        ("FROM x\nRUN --security=insecure true\n", 2, "RUN --security is not supported"),
        ("FROM x\nRUN --network=host true\n", 2, "RUN --network=host is not supported"),
        ("FROM x\nRUN --mount=type=wrong,target=/c true\n", 2, "no type wrong"),
        ("FROM x\nRUN --mount=type=cache true\n", 2, "needs a target"),
        ("FROM x\nRUN --mount=type=tmpfs,target=/t,id=x true\n", 2, "type tmpfs has no id"),
        ("FROM x\nRUN --mount=type=cache,target=/c,sharing=some true\n", 2, "sharing=some"),
        ("FROM x\nCOPY --checksum=x a b\n", 2, "COPY has no option --checksum"),
        ("FROM x\nCOPY --from=y --from=z a b\n", 2, "--from is given twice"),
        ("FROM x\nCOPY --link=maybe a b\n", 2, "--link=maybe"),
        ("FROM x\nCOPY --chown a b\n", 2, "--chown has no value"),
        ("FROM x\nUSER --x y\n", 2, "USER has no option --x"),
        ("FROM x\nCOPY a\n", 2, "needs a source and a destination"),
        ("FROM x\nUSER\n", 2, "USER needs an argument"),
        ("FROM\n", 1, "FROM needs an argument"),
        ("FROM x y\n", 1, "FROM wants"),
        ("FROM x AS 1\n", 1, "can't be a stage's name"),
        ("FROM x AS scratch\n", 1, "can't be a stage's name"),
        ("RUN true\nFROM x\n", 1, "only ARG may come before FROM"),
        ("FROM x\nRUN true\nENV A\nRUN true\n", 3, "ENV must have two arguments"),
        ("FROM x\nENV =b\n", 2, "empty name"),
        ("FROM x\nCMD [1, 2]\nRUN true\n", 2, "strings only"),
        ("FROM x\nRUN true\nRUN <<EOF\necho\n", 3, "unterminated heredoc"),
        ("FROM x\nSHELL /bin/sh\n", 2, "JSON list"),
        ("FROM x\nSTOPSIGNAL 1 2\n", 2, "wants one signal"),
        ("FROM x\nONBUILD ONBUILD RUN x\n", 2, "ONBUILD ONBUILD is not allowed"),
        ("FROM x\nONBUILD FROM y\n", 2, "ONBUILD FROM is not allowed"),
        ("FROM x\nONBUILD COPY a\n", 2, "needs a source"),
        ("FROM x\nONBUILD RUM\n", 2, "unknown instruction RUM"),
        ("FROM x\nHEALTHCHECK true\n", 2, "HEALTHCHECK wants"),
        ("FROM x\nHEALTHCHECK NONE x\n", 2, "takes nothing else"),
        ("FROM x\nHEALTHCHECK --interval=soon CMD true\n", 2, "is no duration"),
        ("FROM x\nHEALTHCHECK --timeout=1us CMD true\n", 2, "below 1ms"),
        ("FROM x\nHEALTHCHECK --retries=0 CMD true\n", 2, "--retries=0"),
    ],
)
def test_what_can_t_be_meant_is_refused_by_name_and_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DockerfileError, match=says) as caught:
        parse(text)
    assert caught.value.line == line
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"Dockerfile:{line}: ")


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "ARG A=1\n"])
def test_a_dockerfile_needs_a_from(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse(text)


def test_parser_directives() -> None:
    assert parse("# escape=`\nFROM x\nRUN a `\n b\n").escape == "`"
    assert parse("FROM x\n# escape=`\n").escape == "\\"
    parsed = parse("# syntax=docker/dockerfile:1\n#Check = skip=all;error=true\n\n# escape=`\nFROM x\n")
    assert parsed.directives == {"syntax": "docker/dockerfile:1", "check": "skip=all;error=true"}


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("FROM x\nMAINTAINER me\n", ["MaintainerDeprecated"]),
        ("FROM x\nCMD serve\n", ["JSONArgsRecommended"]),
        ('FROM x\nCMD ["serve"]\n', []),
        ('FROM x\nCMD ["a"]\nCMD ["b"]\n', ["MultipleInstructionsDisallowed"]),
        ("FROM x AS a\nFROM y AS A\n", ["DuplicateStageName"]),
        ("FROM x\nWORKDIR a\n", ["WorkdirRelativePath"]),
        ("FROM x\nWORKDIR /a\nWORKDIR b\n", []),
        ("FROM ${TAG}\n", ["UndefinedArgInFrom"]),
        ("FROM x:${TAG:-1}\n", []),
        ("ARG TAG\nFROM --platform=$TARGETPLATFORM x:$TAG\n", []),
        ("FROM x\nENV DB_PASSWORD=hunter2\n", ["SecretsUsedInArgOrEnv"]),
        ("FROM x\nARG DB_PASSWORD PUBLIC_KEY=1\n", []),
        ("FROM x\nENV A b\n", ["LegacyKeyValueFormat"]),
        ("FROM x\nENV A=b C=d\n", []),
        ("FROM x\nRUN a\nrun b\n", ["ConsistentInstructionCasing"]),
        ("FROM x\nEXPOSE 80/TCP\n", ["ExposeProtoCasing"]),
    ],
)
def test_build_checks(text: str, rules: list[str]) -> None:
    assert [one.rule for one in findings(parse(text))] == rules


WORDS = st.sampled_from(
    [
        "FROM", "RUN", "COPY", "ENV", "ARG", "ONBUILD", "HEALTHCHECK", "CMD", "x", "a=b", "<<EOF", "EOF", "[", '"',
        "]", ",", "\\", "\n", "--mount=x", "--from=", "$A",
    ]
)  # fmt: skip


@given(st.lists(WORDS, max_size=15).map(" ".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(DockerfileError):
        list(findings(parse(text)))
