"""Names, words and patterns: everything about images that is a function of text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import DockerfileError, UsageError
from lab.images.dockerfile import globs, ignore
from lab.images.dockerfile.expand import expand, expand_words
from lab.images.manifest import escape, excluded, unescape
from lab.images.reference import from_folder, normalise


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("web-app", "web-app:latest"),
        ("python:3.11-slim", "python:3.11-slim"),
        ("docker.io/library/python:3.11", "python:3.11"),
        ("docker.io/grafana/k6", "grafana/k6:latest"),
        ("localhost:5000/team/app:v1", "localhost:5000/team/app:v1"),
        ("app@sha256:" + "a" * 64, "app@sha256:" + "a" * 64),
    ],
)
def test_names_are_brought_to_one_form(written: str, kept: str) -> None:
    assert normalise(written) == kept
    assert normalise(kept) == kept


@given(st.text(max_size=20))
def test_any_folder_s_name_makes_an_image_name(folder: str) -> None:
    assert normalise(from_folder(folder))


def test_a_folder_s_name_stays_recognisable() -> None:
    assert [from_folder(name) for name in ("web-app", "My App", "_")] == ["web-app", "my-app", "image"]


@pytest.mark.parametrize(
    "name", ["", "Web App", "UPPER/lower", "a:", "../x", "a//b", "-a", "app@sha256:abc", "a:b:c"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not an image name"):
        normalise(name)


VALUES = {"A": "1", "EMPTY": "", "TAR": "foo.tar.gz", "PATHS": "a/b/c", "STAR": "*x"}


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("$A", "1"),
        ("${A}b", "1b"),
        ("$AB", ""),
        ("${NONE:-x y}", "x y"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${NONE:-${A}}", "1"),
        ("'$A'", "$A"),
        ('"$A b"', "1 b"),
        (r"\$A", "$A"),
        (r'"\$A \x"', r"$A \x"),
        ("${TAR%.*}", "foo.tar"),
        ("${TAR%%.*}", "foo"),
        ("${TAR#*.}", "tar.gz"),
        ("${TAR##*.}", "gz"),
        ("${TAR#no}", "foo.tar.gz"),
        ("${TAR/o/0}", "f0o.tar.gz"),
        ("${TAR//o/0}", "f00.tar.gz"),
        ("${TAR//./}", "footargz"),
        (r"${PATHS//\//-}", "a-b-c"),
        ("${TAR//?/x}", "xxxxxxxxxx"),
        (r"${STAR#\*}", "x"),
        ("${A:?no}${EMPTY?no}", "1"),
        ("$10x", "x"),
        ("$$A", "A"),
        ("a$", "a$"),
        ("$1x", "x"),
        ("\"a\"'b'c", "abc"),
    ],
)
def test_variables_and_quotes(word: str, meaning: str) -> None:
    assert expand(word, VALUES) == meaning


def test_a_variable_may_hold_several_words() -> None:
    assert expand_words("$PORTS", {"PORTS": "80 443"}) == ["80", "443"]


def test_the_escape_character_can_be_changed() -> None:
    assert expand(r"C:\dir`$A", {"A": "1"}, escape="`") == r"C:\dir$A"


@pytest.mark.parametrize("word", ["${A", "'a", '"a', "${N:?no}", "${}", "${A:%x}", "${A^}"])
def test_broken_words_name_their_line(word: str) -> None:
    with pytest.raises(DockerfileError, match="Dockerfile:7: ") as caught:
        expand(word, {"A": "1"}, line=7)
    assert caught.value.exit_code == 2


@given(st.text())
def test_single_quotes_keep_everything(text: str) -> None:
    assert expand("'" + text.replace("'", "") + "'", {}) == text.replace("'", "")


@given(st.text(alphabet=st.sampled_from("${}:-+?#%/\"'\\ aA1*")))
def test_expansion_either_answers_or_says_why(text: str) -> None:
    with suppress(DockerfileError):
        expand(text, {"A": "1"})


@given(st.binary(max_size=60))
def test_escaping_is_printable_ascii_and_reversible(raw: bytes) -> None:
    text = escape(raw)
    assert all(0x20 < ord(character) < 0x7F for character in text)
    assert unescape(text) == raw


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_escaping_never_confuses_two_paths(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other)


def test_escaping_is_what_the_document_says() -> None:
    assert escape(b"/a b\\\n\x7f\xffz") == r"/a\x20b\x5c\x0a\x7f\xffz"


@pytest.mark.parametrize("path", [b".lab", b".lab/inside", b"proc", b"dev/null", b"sys/x/y", b"etc/hosts"])
def test_what_a_backend_provides_is_left_out(path: bytes) -> None:
    assert excluded(path)


@pytest.mark.parametrize("path", [b"", b"procs", b"etc", b"etc/hosts.d", b"srv/proc", b".labs"])
def test_what_only_looks_like_it_is_kept(path: bytes) -> None:
    assert not excluded(path)


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("*.log", "a.log", True),
        ("*.log", "dir/a.log", False),
        ("**/*.log", "dir/deep/a.log", True),
        ("**/*.log", "a.log", True),
        ("dir", "dir/deep/file", True),
        ("/dir/", "dir/file", True),
        ("dir/*", "dir", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "zx", True),
        ("*\n!keep.txt", "keep.txt", False),
        ("*\n!keep.txt", "other.txt", True),
        ("dir\n!dir/keep", "dir/keep", False),
        ("dir\n!dir/keep", "dir/other", True),
        ("!a\na", "a", True),
        ("# a\n\n  b  ", "b", True),
        ("# a", "# a", False),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("**", "any/thing", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("../x", "x", False),
        (".", "x", False),
    ],
)
def test_dockerignore(patterns: str, path: str, ignored: bool) -> None:
    assert ignore.parse(patterns).matches(path) is ignored


NAMES = st.text(alphabet=st.sampled_from("ab.*?[]^-\\"), min_size=1, max_size=6)


@given(NAMES)
def test_a_quoted_pattern_matches_exactly_its_name(name: str) -> None:
    quoted = "".join("\\" + character for character in name)
    pattern = globs.path_pattern(quoted)
    assert pattern.fullmatch(name)
    assert not pattern.fullmatch(name + "x")


@given(st.text(alphabet=st.sampled_from("ab/*?[]^-\\!# \n"), max_size=30), st.lists(NAMES, min_size=1, max_size=4))
def test_a_file_in_an_ignored_directory_is_ignored_unless_taken_back(text: str, parts: list[str]) -> None:
    try:
        rules = ignore.parse(text)
    except UsageError:  # a malformed pattern
        return
    if not rules.takes_back and rules.matches(parts[0]):
        assert rules.matches("/".join(parts))
