"""One libcurl handle: a GET at a time over connections that stay open, poured into a sink."""

import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pycurl

from outcrop.storage.errors import ObjectCorrupt, ObjectTooBig
from outcrop.storage.failover import DIRECT, Outcome, classify_status
from outcrop.storage.store import Sink

_MAX_ERROR_BODY_BYTES = 64 * 1024
_MAX_REDIRECTS = 4
_RECEIVE_BUFFER_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(rb"bytes (\d{1,19})-(\d{1,19})/")

_E_PROXY = 97  # not among the names of all PycURL versions
_PROXY_ERRORS = {pycurl.E_COULDNT_RESOLVE_PROXY, _E_PROXY}
_HOST_ERRORS = {pycurl.E_COULDNT_RESOLVE_HOST}
_HOPELESS_ERRORS = {
    pycurl.E_URL_MALFORMAT,
    pycurl.E_TOO_MANY_REDIRECTS,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CACERT_BADFILE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How to talk to hosts and proxies. The defaults are CernVM-FS's."""

    timeout_seconds: float = 5.0
    """Through a proxy: to connect, and for how long to bear less than the low speed limit."""

    timeout_direct_seconds: float = 10.0
    """The same without proxy."""

    low_speed_limit: int = 1024
    """Bytes per second, averaged over about five seconds by libcurl."""

    max_retries: int = 1
    backoff_init_seconds: float = 2.0
    backoff_max_seconds: float = 10.0
    proxy_reset_after_seconds: float = 300.0
    host_reset_after_seconds: float = 1800.0
    user_agent: str = "cvmfs Fuse 2.12.0 outcrop/0.1.0"
    """Squid configurations of many sites let only agents through that begin with `cvmfs`."""

    follow_redirects: bool = False
    max_bytes: int = 64 * 1024**3
    """Limit of any one transfer; what is fetched usually has its own, tighter limit."""

    max_connections: int = 16
    """How many transfers run at a time."""

    ca_bundle: Path | None = None
    """Certificate authorities for https. None, for both: those of the system."""

    ca_directory: Path | None = None

    def __post_init__(self) -> None:
        if self.max_connections < 1:
            raise ValueError("without at least one connection every download would wait for ever")


@dataclass(frozen=True, slots=True)
class Request:
    """What to GET, and how."""

    url: str
    proxy: str
    no_cache: bool = False
    byte_range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """How it ended: `detail` is for the message, `error` what the sink raised."""

    outcome: Outcome
    detail: str = ""
    error: ObjectCorrupt | ObjectTooBig | None = None


_OK = Answer(Outcome.OK)


class _Carrier:
    """Carries an exception over libcurl, whose C frames none can cross."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.error = error
        return True


class HttpHandle:
    """Used by one thread at a time; keeps its connections open between requests."""

    def __init__(self, settings: HttpSettings) -> None:
        self.is_cancelled = False
        """Set by another thread to break off what is under way."""

        self.downloads = 0
        self.received_bytes = 0
        self.transfer_seconds = 0.0
        self._settings = settings
        self._carrier = _Carrier()
        self._headers: list[bytes] = []
        self._body: _Body | None = None
        self._proxy: str | None = None
        self._no_cache: bool | None = None
        self._curl = curl = pycurl.Curl()
        _configure(curl, settings)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        curl.setopt(pycurl.HEADERFUNCTION, self._headers.append)
        curl.setopt(pycurl.XFERINFOFUNCTION, lambda *_: self.is_cancelled)
        curl.setopt(pycurl.NOPROGRESS, 0)

    def get(self, request: Request, sink: Sink) -> Answer:
        """Do it. What the sink raises goes through, but for ObjectCorrupt and ObjectTooBig."""
        self._prepare(request)
        self._headers.clear()
        self._carrier.error = None
        self._body = body = _Body(self._headers, sink, request)
        code, detail = 0, ""
        try:
            self._curl.perform()
        except pycurl.error as error:
            code, detail = error.args
        self._body = None
        self._count()
        return self._judge(code, detail, body)

    def _prepare(self, request: Request) -> None:
        curl = self._curl
        curl.setopt(pycurl.URL, request.url)
        if request.proxy != self._proxy:
            self._set_proxy(request.proxy)
        if request.no_cache != self._no_cache:
            self._no_cache = request.no_cache
            past = ["Pragma: no-cache", "Cache-Control: no-cache"] if request.no_cache else []
            curl.setopt(pycurl.HTTPHEADER, ["Connection: Keep-Alive", *past])
        if request.byte_range is None:
            curl.unsetopt(pycurl.RANGE)
        else:
            offset, length = request.byte_range
            curl.setopt(pycurl.RANGE, f"{offset}-{offset + length - 1}")

    def _set_proxy(self, proxy: str) -> None:
        self._proxy = proxy
        is_direct = proxy == DIRECT
        settings = self._settings
        seconds = settings.timeout_direct_seconds if is_direct else settings.timeout_seconds
        # An empty string, unlike none at all, keeps libcurl from looking into the environment.
        self._curl.setopt(pycurl.PROXY, "" if is_direct else proxy)
        self._curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(seconds * 1000)))
        self._curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(seconds)))

    def _take_body(self, block: bytes) -> int | None:
        with self._carrier:
            return None if self._body is None else self._body.take(block)
        return -1

    def _count(self) -> None:
        self.downloads += 1
        self.received_bytes += int(self._curl.getinfo(pycurl.SIZE_DOWNLOAD_T))
        self.transfer_seconds += self._curl.getinfo(pycurl.TOTAL_TIME)

    def _judge(self, code: int, detail: str, body: "_Body") -> Answer:
        error = self._carrier.error
        if isinstance(error, ObjectCorrupt):
            return Answer(Outcome.CORRUPT, str(error), error)
        if isinstance(error, ObjectTooBig):
            return Answer(Outcome.TOO_BIG, str(error), error)
        if error is not None:
            raise error
        via_proxy = self._proxy != DIRECT
        if code and not body.ended_early:
            return Answer(classify_error(code, via_proxy=via_proxy), detail)
        status = int(self._curl.getinfo(pycurl.RESPONSE_CODE))
        if status == 416:
            return _corrupt(f"{body.request.url}: has no bytes {body.request.byte_range}")
        if not 200 <= status < 300:
            headers = _parse_headers(self._headers)
            outcome = classify_status(status, headers, via_proxy=via_proxy)
            return Answer(outcome, f"HTTP status {status}")
        if body.missing:
            return _corrupt(f"{body.request.url}: ends {body.missing} bytes too early")
        return _OK

    def close(self) -> None:
        """Close the connections."""
        self._curl.close()


class _Body:
    """The body of one answer on its way to the sink: all of it, or the range asked for."""

    def __init__(self, headers: list[bytes], sink: Sink, request: Request) -> None:
        self.request = request
        self.ended_early = False
        """The transfer was broken off because nothing more is wanted."""

        self.missing = 0 if request.byte_range is None else request.byte_range[1]
        """How many bytes of the range did not come yet."""

        self._headers = headers
        self._sink = sink
        self._skip = 0
        self._refused = 0
        self.take: Callable[[bytes], int | None] = self._take_first

    def _take_first(self, block: bytes) -> int | None:
        status = _find_status(self._headers)
        if not 200 <= status < 300:
            self.take = self._refuse
        elif self.request.byte_range is None:
            self.take = self._sink.write  # returns None: all was taken
        else:
            offset = self.request.byte_range[0]
            if status != 206:  # the server does not do ranges and sends the whole file
                self._skip = offset
            elif _find_range_start(self._headers) != offset:
                raise ObjectCorrupt(f"{self.request.url}: another range than asked for")
            self.take = self._take_range
        return self.take(block)

    def _refuse(self, block: bytes) -> int | None:
        # Some bytes of an error page are read, so that the connection can be used again.
        self._refused += len(block)
        self.ended_early = self._refused > _MAX_ERROR_BODY_BYTES
        return -1 if self.ended_early else None

    def _take_range(self, block: bytes) -> int | None:
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        wanted = block[skipped : skipped + self.missing]
        if wanted:
            self._sink.write(wanted)
            self.missing -= len(wanted)
        self.ended_early = not self.missing and skipped + len(wanted) < len(block)
        return -1 if self.ended_early else None


def _corrupt(message: str) -> Answer:
    error = ObjectCorrupt(message)
    return Answer(Outcome.CORRUPT, message, error)


def classify_error(code: int, *, via_proxy: bool) -> Outcome:
    """What an error number of libcurl means."""
    if code == pycurl.E_FILESIZE_EXCEEDED:
        return Outcome.TOO_BIG
    if code in _HOPELESS_ERRORS:
        return Outcome.HOST_HTTP
    if code in _PROXY_ERRORS or (via_proxy and code not in _HOST_ERRORS):
        return Outcome.PROXY_CONNECTION
    return Outcome.HOST_CONNECTION


def _find_status(headers: Sequence[bytes]) -> int:
    """The status of the last answer (before it there may have been a redirect, or a 100)."""
    for line in reversed(headers):
        if line.startswith(b"HTTP/"):
            code = line[8:13].split()[:1]
            return int(code[0]) if code and code[0].isdigit() else 0
    return 0


def _find_range_start(headers: Sequence[bytes]) -> int | None:
    for name, value in reversed(_parse_headers(headers)):
        if name == "content-range":
            match = _CONTENT_RANGE.match(value.encode())
            return int(match[1]) if match else None
    return None


def _parse_headers(headers: Sequence[bytes]) -> list[tuple[str, str]]:
    """Name (in lower case) and value of each header of the last answer."""
    parsed: list[tuple[str, str]] = []
    for line in headers:
        if line.startswith(b"HTTP/"):
            parsed.clear()
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            parsed.append((name.strip().lower(), value.strip()))
    return parsed


def _configure(curl: pycurl.Curl, settings: HttpSettings) -> None:
    set_option = curl.setopt
    set_option(pycurl.NOSIGNAL, 1)
    set_option(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    set_option(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    set_option(pycurl.PATH_AS_IS, 1)
    set_option(pycurl.NOPROXY, "")
    set_option(pycurl.USERAGENT, settings.user_agent)
    set_option(pycurl.FOLLOWLOCATION, int(settings.follow_redirects))
    set_option(pycurl.MAXREDIRS, _MAX_REDIRECTS)
    set_option(pycurl.BUFFERSIZE, _RECEIVE_BUFFER_BYTES)
    set_option(pycurl.TCP_KEEPALIVE, 1)
    set_option(pycurl.LOW_SPEED_LIMIT, settings.low_speed_limit)
    set_option(pycurl.MAXFILESIZE_LARGE, settings.max_bytes)
    bundle, directory = settings.ca_bundle, settings.ca_directory
    if bundle is None and directory is None:
        system = ssl.get_default_verify_paths()
        bundle = Path(system.cafile) if system.cafile else None
        directory = Path(system.capath) if system.capath else None
    if bundle is not None:
        set_option(pycurl.CAINFO, str(bundle))
    if directory is not None:
        set_option(pycurl.CAPATH, str(directory))
