import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import golden_file
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.parameters import (
    MAX_FILE_BYTES,
    Assignment,
    expand_templates,
    is_on,
    parse_parameters,
    serialize_parameters,
)

KNOWN = {"KNOWN": "value", "EMPTY": "", "TWO": "two words"}
EXAMPLE = b"""\
# a comment
CVMFS_QUOTA_LIMIT=4000
export CVMFS_HTTP_PROXY="http://one:3128|http://two:3128;DIRECT"  # more
readonly CVMFS_CACHE_BASE=/var/lib/${NAME:-cvmfs}
"""


def values(text, environment=KNOWN):
    return {a.name: a.value for a in parse_parameters(text.encode(), environment=environment)}


def test_reads_assignments_with_their_lines():
    assert parse_parameters(EXAMPLE, environment={}) == [
        Assignment("CVMFS_QUOTA_LIMIT", "4000", 2),
        Assignment("CVMFS_HTTP_PROXY", "http://one:3128|http://two:3128;DIRECT", 3),
        Assignment("CVMFS_CACHE_BASE", "/var/lib/cvmfs", 4),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=", ""),
        ("A=plain", "plain"),
        ("  A=indented", "indented"),
        ("A=a=b", "a=b"),
        ("A=a#b", "a#b"),
        ("A=a # b", "a"),
        ("A='two words'", "two words"),
        ("A='$KNOWN \\ \"'", '$KNOWN \\ "'),
        ('A="two words"', "two words"),
        ('A="\\$KNOWN \\" \\\\ \\` \\x \'"', "$KNOWN \" \\ ` \\x '"),
        ("A=one\\ word\\$", "one word$"),
        ("A=a'b'\"c\"d", "abcd"),
        ("A=$KNOWN/x", "value/x"),
        ("A=${KNOWN}x", "valuex"),
        ('A="<$KNOWN>"', "<value>"),
        ("A=$UNSET", ""),
        ("A=$TWO", "two words"),
        ("A=${UNSET:-default}", "default"),
        ("A=${UNSET-default}", "default"),
        ("A=${EMPTY:-default}", "default"),
        ("A=${EMPTY-default}", ""),
        ("A=${KNOWN:-default}", "value"),
        ("A=${UNSET:-${EMPTY:-$KNOWN}}", "value"),
        ("A=${UNSET:-'a }b'}", "a }b"),
        ("A=5$", "5$"),
        ("A=a$.b", "a$.b"),
        ("A=one\\\ntwo", "onetwo"),
        ('A="one\\\ntwo"', "onetwo"),
        ('A="one\ntwo"', "one\ntwo"),
        ("A=[ab]*?", "[ab]*?"),
        ("A={a,b}", "{a,b}"),
        ("A=http://x/~user", "http://x/~user"),
        ("A=ü", "ü"),
        ("A=1;B=2", "1"),
        ("A=1 B=2", "1"),
        ("A=1\nA=2", "2"),
        ("A=1\nA=${A}2", "12"),
        ("A=1\nexport A", "1"),
        ("readonly A=1", "1"),
        ("\n\nA=1", "1"),
    ],
)
def test_reads_values_as_a_shell_does(text, value):
    assert values(text)["A"] == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nif [ x = x ]; then\n A=2\nfi", 2),
        ("A=$(hostname)", 1),
        ("A=`hostname`", 1),
        ('A="`hostname`"', 1),
        ("\n\nA=$((1+1))", 3),
        ("A=$[1+1]", 1),
        (". /etc/cvmfs/common.conf", 1),
        ("source x", 1),
        ("echo hello", 1),
        ("A=1 echo hello", 1),
        ("A=(1 2)", 1),
        ("A+=1", 1),
        ("A[0]=1", 1),
        ("A =1", 1),
        ("1A=1", 1),
        ("A-B=1", 1),
        ("=1", 1),
        ("A=a|b", 1),
        ("A=a&", 1),
        ("A=<x", 1),
        ("A=a;;B=b", 1),
        (";A=1", 1),
        ("A=~/x", 1),
        ("A=a:~/x", 1),
        ("A=$1", 1),
        ("A=$@", 1),
        ("A=${A:=x}", 1),
        ("A=${#A}", 1),
        ("A=${A%x}", 1),
        ("A=${!A}", 1),
        ("A=${A", 1),
        ("A=${A:-x", 1),
        ("A=${A:-x y}", 1),
        ("A=$'x'", 1),
        ("A='x", 1),
        ('B=1\nA="x\n\n', 2),
        ("A=x\\", 1),
        ("A=1\r\nB=2\r\n", 1),
        ("A=1\0", 1),
        ("export", 1),
        ("export ", 1),
        ("export -p A", 1),
        ("declare A=1", 1),
        ("function f { A=1; }", 1),
        ("\ufeffA=1", 1),
    ],
)
def test_refuses_all_other_shell_and_names_the_line(text, line):
    with pytest.raises(FormatError, match=f"^line {line}: "):
        parse_parameters(text.encode(), environment=KNOWN)


def test_a_value_cannot_grow_without_end():
    text = "A=xxxxxxxxxx\n" + "A=$A$A\n" * 100
    with pytest.raises(FormatError, match="characters"):
        values(text)


def test_a_file_has_a_size_limit():
    with pytest.raises(FormatError, match="limit"):
        parse_parameters(b"#" * (MAX_FILE_BYTES + 1), environment={})


def test_defaults_within_defaults_have_a_depth_limit():
    text = "A=" + "${B:-" * 5000 + "}" * 5000
    with pytest.raises(FormatError, match="too many"):
        values(text)


def test_bytes_that_are_no_text_survive():
    parsed = parse_parameters(b"A=\xff\xfe", environment={})
    assert parsed[0].value.encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert serialize_parameters({"A": parsed[0].value}) == b"A='\xff\xfe'\n"


@given(inputs(EXAMPLE, b"A=${B:-\"'x'$C\"}\\\n"))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, lambda d: parse_parameters(d, environment=KNOWN), data)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"))


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]*", fullmatch=True), texts, max_size=5))
@settings(deadline=None)
def test_reads_what_it_wrote(parameters):
    written = serialize_parameters(parameters)
    assert {a.name: a.value for a in parse_parameters(written, environment=KNOWN)} == parameters


@pytest.mark.parametrize("parameters", [{"A B": "x"}, {"": "x"}, {"A": "x\ny"}, {"A": "x\0"}])
def test_refuses_to_write_what_it_would_not_read(parameters):
    with pytest.raises(FormatError):
        serialize_parameters(parameters)


@pytest.mark.parametrize("name", ["basic", "shake128", "gc"])
def test_reads_what_upstreams_tools_wrote(name):
    text = golden_file(name, "keys/server.conf")
    parsed = {a.name: a.value for a in parse_parameters(text, environment={})}
    assert parsed["CVMFS_REPOSITORY_NAME"] == f"{name}.golden.test"
    assert parsed["CVMFS_AUTO_TAG_TIMESPAN"] == ""
    assert parsed["CVMFS_MIN_CHUNK_SIZE"] == "16384"


def test_templates_are_the_repositorys_names():
    template = "http://x/cvmfs/@fqrn@?@org@"
    assert expand_templates(template, "atlas.cern.ch") == "http://x/cvmfs/atlas.cern.ch?atlas"


def test_switches():
    assert all(is_on(text) for text in ("yes", "YES", "On", "1", "true"))
    assert not any(is_on(text) for text in ("", "no", "off", "0", "2", "y", " yes"))


PIECES = [
    "A", "B", "=", "=", "$", "{", "}", ":-", "-", "'", '"', "\\", " ", "\n", "#", ";", "x", "~",
    ":", "export ", "/", "\t", "*", "[", "!", "${A}", "$B", "${A:-", "'x'", '"y"', "A=", "\nB=",
]  # fmt: skip
SHOW = 'printf "%s\\0%s\\0" "${A-UNSET}" "${B-UNSET}"'


@pytest.mark.skipif(shutil.which("bash") is None, reason="compares with bash")
def test_whatever_is_accepted_means_the_same_to_bash():
    chooser = random.Random(20261122)
    accepted = {}
    while len(accepted) < 400:
        text = "A=" + "".join(chooser.choices(PIECES, k=chooser.randrange(14)))
        try:
            found = values(text, {})
        except FormatError:
            continue
        accepted[text] = [found.get("A", "UNSET"), found.get("B", "UNSET")]
    script = "".join(f"( unset A B\n{text}\n{SHOW} )\n" for text in accepted)
    shell = subprocess.run(
        ["bash", "--norc", "--noprofile"], input=script.encode(), capture_output=True, check=True
    )
    printed = shell.stdout.decode().split("\0")
    meant = [printed[i : i + 2] for i in range(0, len(printed) - 1, 2)]
    assert dict(zip(accepted, meant, strict=True)) == accepted
