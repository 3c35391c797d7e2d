"""Where a repository goes: every form is read, written back alike, and mistakes are named."""

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.storage.cloud import CloudStore
from outcrop.storage.errors import StorageSettingsError
from outcrop.storage.local import LocalStore
from outcrop.storage.s3_settings import S3_PARAMETERS, Flavor, S3Settings
from outcrop.storage.upstream import (
    Upstream,
    UpstreamKind,
    open_store,
    parallel_requests,
    parse_upstream,
)

S3_CONF = """\
# Ceph
CVMFS_S3_HOST=s3.example.org
CVMFS_S3_BUCKET=software
CVMFS_S3_ACCESS_KEY=known
CVMFS_S3_SECRET_KEY=hidden
"""


@pytest.mark.parametrize(
    "text",
    [
        "local,/srv/cvmfs/a.test/data/txn,/srv/cvmfs/a.test",
        "S3,/var/spool/cvmfs/a.test/tmp,a.test@/etc/cvmfs/s3.conf",
        "s3://software/a.test",
        "gs://software/cvmfs/a.test",
        "file:///srv/with%2Ccomma",
        "az://container/a.test",
    ],
)
def test_what_is_read_is_written_alike(text: str) -> None:
    upstream = parse_upstream(text)
    assert str(upstream) == text
    assert parse_upstream(str(upstream)) == upstream


def test_a_directory_may_be_a_url() -> None:
    upstream = parse_upstream("file:///srv/a%20b")
    assert upstream == Upstream.local(Path("/srv/a b"))
    assert upstream.directory == Path("/srv/a b")
    store = open_store(upstream)
    assert isinstance(store, LocalStore)
    assert parallel_requests(upstream) == 1


def test_a_bucket_is_no_directory() -> None:
    assert parse_upstream("s3://software/a.test").directory is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://software", "s3://software/a.test"),
        ("s3://software/", "s3://software/a.test"),
        ("s3://software/cvmfs/", "s3://software/cvmfs/a.test"),
        ("s3://software/cvmfs", "s3://software/cvmfs"),
        ("file:///srv/x", "local,/srv/x/data/txn,/srv/x"),
    ],
)
def test_a_new_repository_gets_a_place_of_its_own(url: str, expected: str) -> None:
    assert str(parse_upstream(url).for_repository("a.test")) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not local"),
        ("local", "is not local"),
        ("local,/tmp", "is not local"),
        ("local,/tmp,relative", "absolute"),
        ("local,/tmp,/with,comma", "comma"),
        ("gw,/tmp,http://localhost:4929/api/v1", "gateway"),
        ("mock,/tmp,x", "is not local"),
        ("S3,/tmp,a.test", "ALIAS@FILE"),
        ("S3,/tmp,a.test@s3.conf", "absolute"),
        ("S3,/tmp,../up@/s3.conf", "keys begin"),
        ("s3://", "BUCKET"),
        ("s3://key:secret@host/x", "no credentials"),
        ("s3://software/x?secret=y", r"without \?"),
        ("s3://software//x", "keys begin"),
        ("s3://software/../x", "keys begin"),
        ("ftp://host/x", "cannot be published to"),
        ("file://host/x", "this machine"),
        ("file:///x\ny", "more than one line"),
        ("s3://[x/y", "not a URL"),
    ],
)
def test_a_mistake_is_named(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint) as caught:
        parse_upstream(text)
    assert "secret" not in str(caught.value).replace("?secret=y", "")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"(s3|file|gs|az)://[^,]{0,40}", fullmatch=True))
def test_any_text_is_a_place_or_a_format_error(text: str) -> None:
    try:
        upstream = parse_upstream(text)
    except FormatError:
        return
    assert parse_upstream(str(upstream)) == upstream


def test_the_settings_file_names_bucket_and_server(tmp_path: Path) -> None:
    file = tmp_path / "s3.conf"
    file.write_text(S3_CONF)
    file.chmod(0o600)
    upstream = Upstream.by_settings_file(file, "a.test", tmp_path / "tmp")
    assert isinstance(open_store(upstream), CloudStore)
    assert parallel_requests(upstream) == 16
    assert S3Settings.read(file).bucket_url == "http://software.s3.example.org"


def test_defaults_are_upstreams() -> None:
    found = S3Settings.parse(S3_CONF.encode())
    assert found.is_bucket_in_host
    assert found.peeks_before_put
    assert found.canned_acl == "public-read"
    assert found.flavor is Flavor.AWS_V4
    assert not found.use_https


def test_every_parameter_counts() -> None:
    text = S3_CONF + (
        "CVMFS_S3_PORT=9000\nCVMFS_S3_USE_HTTPS=true\nCVMFS_S3_DNS_BUCKETS=false\n"
        "CVMFS_S3_REGION=eu\nCVMFS_S3_FLAVOR=azure\nCVMFS_S3_MAX_RETRIES=7\nCVMFS_S3_TIMEOUT=8\n"
        "CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=9\nCVMFS_S3_PEEK_BEFORE_PUT=off\n"
        "CVMFS_S3_X_AMZ_ACL=\nCVMFS_S3_PROXY=squid:3128\n"
    )
    assert S3Settings.parse(text.encode()) == S3Settings(
        bucket="software",
        host="s3.example.org",
        port=9000,
        access_key="known",
        secret_key="hidden",
        use_https=True,
        is_bucket_in_host=False,
        region="eu",
        flavor=Flavor.AZURE,
        parallel=9,
        max_retries=7,
        timeout_seconds=8,
        peeks_before_put=False,
        canned_acl="",
        proxy="http://squid:3128",
    )
    assert S3Settings.parse(text.encode()).bucket_url == "https://s3.example.org:9000/software"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("CVMFS_S3_FLAVOR=awsv2", "version 2"),
        ("CVMFS_S3_FLAVOR=other", "awsv4"),
        ("CVMFS_S3_PORT=0", "1 to 65535"),
        ("CVMFS_S3_PORT=http", "CVMFS_S3_PORT"),
        ("CVMFS_S3_HOST=http://host", "CVMFS_S3_HOST"),
        ("CVMFS_S3_BUCKET=a/b", "CVMFS_S3_BUCKET"),
        ("CVMFS_S3_TIMEOUT=-1", "CVMFS_S3_TIMEOUT"),
        ("CVMFS_S3_PEEK_BEFORE_PUT=maybe", "on or off"),
        ("CVMFS_S3_PROXY='a b'", "CVMFS_S3_PROXY"),
        ("CVMFS_S3_BUCKETS_PER_ACCOUNT=4", "unknown parameter"),
        ("CVMFS_S3_ACCESS_KEY=", "together"),
        ("CVMFS_S3_PROXY='x CVMFS_S3_SECRET_KEY=se cret'", "CVMFS_S3_PROXY"),
        ("CVMFS_S3_HOST=", "not set"),
        ("CVMFS_S3_SECRET_KEY='se cret'", "CVMFS_S3_SECRET_KEY: "),
        ("CVMFS_S3_SECRET_KEY=se cret", "line 6"),
        ("CVMFS_S3_SECRET_KEY=`se cret`", "line 6"),
    ],
)
def test_a_mistake_in_the_settings_file_is_named_and_no_secret_shown(
    tmp_path: Path, line: str, complaint: str
) -> None:
    file = tmp_path / "s3.conf"
    file.write_text(f"{S3_CONF}{line}\n")
    with pytest.raises(StorageSettingsError, match=complaint) as caught:
        S3Settings.read(file)
    assert "s3.conf" in str(caught.value)
    assert "cret" not in str(caught.value).replace("CVMFS_S3_SECRET_KEY", "")


def test_a_secret_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "s3.conf"
    file.write_text(S3_CONF)
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        S3Settings.read(file)
    assert "chmod 600" in caplog.text
    assert "hidden" not in caplog.text
    caplog.clear()
    file.chmod(0o600)
    S3Settings.read(file)
    assert not caplog.text


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageSettingsError, match=r"s3\.conf: No such file"):
        S3Settings.read(tmp_path / "s3.conf")


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(S3Settings.parse(S3_CONF.encode()))
    assert "known" not in repr(S3Settings.parse(S3_CONF.encode()))


def test_every_settings_parameter_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/publishing-parameters.md").read_text()
    for name in S3_PARAMETERS:
        assert f"| `{name}" in page, name


def test_kinds_are_the_schemes_of_urls() -> None:
    for kind in UpstreamKind:
        assert parse_upstream(f"{kind.value}:///x" if kind.value == "file" else
                              f"{kind.value}://bucket/x").kind is kind  # fmt: skip
