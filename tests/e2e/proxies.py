"""Services that fail on demand: a registry cut off, catalogs and stores that lose replies, one without conditional puts."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import http.client
import http.server
import itertools
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

import requests

import lab


class _Threads(http.server.ThreadingHTTPServer):
    # Clients open many connections at once.
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        # Clients are killed in the midst of an answer.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Server:
    """An HTTP server on a free port, in threads of this process."""

    def __init__(self, handler):
        self.server = _Threads(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Heads and bodies are written one after the other: no waiting between them.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class RegistryProxy:
    """Stands before the registry. `mode`: `forward`, `refuse` (drops connections), `fail` (503), `hang`."""

    def __init__(self, target: str):
        self.target = target
        self.mode = "forward"
        self.requests: list[str] = []
        # Ids of schemas of which the registry does not know yet.
        self.hidden: set[int] = set()
        proxy = self

        class Handler(_Quiet):
            def do_GET(self):
                proxy.requests.append(self.path)
                if any(re.search(rf"/ids/{number}\b", self.path) for number in proxy.hidden):
                    return self.answer(404, b'{"error_code": 40403, "message": "Schema not found"}')
                if proxy.mode == "refuse":
                    self.close_connection = True
                    return self.connection.close()
                if proxy.mode == "fail":
                    return self.answer(503, b"{}")
                if proxy.mode == "hang":
                    while proxy.mode == "hang":
                        time.sleep(0.05)
                    self.close_connection = True
                    return None
                headers = {
                    name: self.headers[name] for name in ("Authorization", "Accept") if self.headers[name]
                }
                got = requests.get(proxy.target + self.path, headers=headers, timeout=20)
                return self.answer(
                    got.status_code, got.content, Content_Type=got.headers.get("Content-Type", "")
                )

        self.server = _Server(Handler)
        self.url = self.server.url

    def close(self) -> None:
        self.mode = "refuse"
        self.server.close()


class LosesReplies:
    """Before Google's XML API: conditional puts are done, and the connection ends without an answer.

    `word` is part of the names it is done to; `every` is how many of these puts one reply is lost of.
    """

    def __init__(self, target: str, word: str, every: int = 1):
        self.lost: list[str] = []
        seen = itertools.count(1)
        proxy = self

        class Handler(_Quiet):
            def do(self):
                kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                body = self.body()
                got = requests.request(
                    self.command, target + self.path, data=body, headers=kept, timeout=30, stream=True
                )
                content = got.raw.read()
                path = urllib.parse.unquote(self.path)
                conditional = self.command == "PUT" and "x-goog-if-generation-match" in self.headers
                if conditional and got.ok and word in path and next(seen) % every == 0:
                    proxy.lost.append(path)
                    self.close_connection = True
                    return self.connection.close()
                names = ("ETag", "Last-Modified", "Content-Type", "Content-Range", "x-goog-generation")
                headers = {name.replace("-", "_"): got.headers[name] for name in names if name in got.headers}
                if self.command == "HEAD":
                    headers["Content_Length"] = got.headers.get("Content-Length", "0")
                return self.answer(got.status_code, content, **headers)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

        self.server = _Server(Handler)
        self.url = self.server.url

    def close(self) -> None:
        self.server.close()


class UnconditionalS3:
    """An S3 API in memory that takes `If-None-Match: *` and overwrites all the same (or answers 501)."""

    def __init__(self, refuses: bool = False):
        self.objects: dict[str, bytes] = {}
        self.refuses = refuses
        store = self

        class Handler(_Quiet):
            def key(self) -> str:
                return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path.lstrip("/"))

            def do_PUT(self):
                body = self.body()
                if store.refuses and self.headers.get("If-None-Match"):
                    return self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
                store.objects[self.key()] = body
                return self.answer(200, ETag='"1"')

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                if "list-type" in query:
                    return self.list(
                        self.key().rstrip("/"), {name: values[0] for name, values in query.items()}
                    )
                body = store.objects.get(self.key())
                if body is None:
                    return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                headers = {"ETag": '"1"', "Last_Modified": self.date_time_string()}
                if self.command == "HEAD":
                    return self.answer(200, Content_Length=str(len(body)), **headers)
                return self.answer(200, body, **headers)

            do_HEAD = do_GET

            def do_DELETE(self):
                store.objects.pop(self.key(), None)
                return self.answer(204)

            def do_POST(self):
                self.body()
                return self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")

            def list(self, bucket: str, query: dict[str, str]):
                prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
                keys, folders = [], set()
                for name in sorted(store.objects):
                    key = name.removeprefix(bucket + "/")
                    if not key.startswith(prefix) or key <= query.get("start-after", ""):
                        continue
                    head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                    if found:
                        folders.add(prefix + head + delimiter)
                    else:
                        keys.append(key)
                stamp = "2026-01-01T00:00:00.000Z"
                contents = "".join(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified><ETag>&quot;1&quot;</ETag>"
                    f"<Size>{len(store.objects[f'{bucket}/{key}'])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                    for key in keys
                )
                prefixes = "".join(
                    f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>"
                    for one in sorted(folders)
                )
                self.answer(
                    200,
                    f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>"
                    f"<IsTruncated>false</IsTruncated>{contents}{prefixes}</ListBucketResult>".encode(),
                    Content_Type="application/xml",
                )

        self.server = _Server(Handler)
        self.url = self.server.url

    def close(self) -> None:
        self.server.close()


class CatalogProxy:
    """Stands before a catalog. `lose` of the next commits are made, and nobody is told; `refuse` of the next
    requests are answered 401; `break_` of the next commits are not made, and nobody is told; of the next `fail`, 503 is
    said. While `down` is true no request is answered. `before` is called before each commit is passed on."""

    def __init__(self, target: str, tls: bool = False):
        self.target = target
        self.lose = self.refuse = self.break_ = self.fail = 0
        self.down = False
        self.before = None
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(_Quiet):
            def do(self):
                proxy._handle(self)

            do_GET = do_HEAD = do_POST = do_DELETE = do

        self.server = _Server(Handler)
        self.url = self.server.url
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"{lab.address('TLS')}/server.pem")
            served = self.server.server
            served.socket = context.wrap_socket(served.socket, server_side=True)
            self.url = self.url.replace("http://", "https://")

    def _take(self, what: str) -> bool:
        with self.lock:
            left = getattr(self, what)
            setattr(self, what, max(0, left - 1))
            return left > 0

    def _handle(self, request: _Quiet) -> None:
        body = request.body()
        path = urllib.parse.urlsplit(request.path).path
        commit = request.command == "POST" and "/tables/" in path
        if self.down:
            return _cut(request)
        if "/oauth/" not in path and "/config" not in path and self._take("refuse"):
            return request.answer(401, b'{"error":{"message":"x","type":"NotAuthorizedException","code":401}}')
        if commit and self._take("fail"):
            return request.answer(503, b"{}")
        if commit and self._take("break_"):
            return _cut(request)
        if commit and self.before:
            self.before()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        got = requests.request(
            request.command, self.target + request.path, data=body, headers=headers, timeout=60
        )
        with self.lock:
            self.requests.append((request.command, path, got.status_code))
        if commit and got.ok and self._take("lose"):
            return _cut(request)
        return request.answer(
            got.status_code, got.content, Content_Type=got.headers.get("Content-Type", "application/json")
        )

    def close(self) -> None:
        self.server.close()


@dataclasses.dataclass(frozen=True)
class Faults:
    """How often an S3 request meets each fault, as a share of one. At most one fault meets a request."""

    # The connection ends before the request is done, or after half of an object was sent.
    reset: float = 0.0
    # 503 with code SlowDown; nothing is done.
    slow_down: float = 0.0
    # A put, post or delete is done, and nobody is told.
    lost: float = 0.0
    # Nothing is heard for a while, then the connection ends; half of these were done.
    hang: float = 0.0
    # A listing takes a while.
    slow_list: float = 0.0
    hang_seconds: float = 5.0
    slow_seconds: float = 2.0


class S3Proxy:
    """Stands before an S3 service, for clients that go through it as through any HTTP proxy.

    Signatures name the service itself, so its address stays in the destination and the proxy's goes to the
    environment (`env`). It counts requests and bytes by kind of object, makes faults by a seed, and lets
    listings say that objects are older than they are: `ageing` maps a part of the key to how many times faster
    such objects grow old, and all are `older` by so many seconds.
    """

    def __init__(self, seed: int = 0, faults: Faults | None = None):
        self.faults = faults or Faults()
        self.ageing: dict[str, float] = {}
        self.older = 0.0
        self.dice = random.Random(seed)
        self.lock = threading.Lock()
        self.requests: collections.Counter[str] = collections.Counter()
        self.bytes: collections.Counter[str] = collections.Counter()
        self.made: collections.Counter[str] = collections.Counter()
        proxy = self

        class Handler(_Quiet):
            upstream: http.client.HTTPConnection | None = None

            def do(self):
                proxy._handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

        self.server = _Server(Handler)
        self.url = self.server.url

    @property
    def env(self) -> dict[str, str]:
        """What a program must find in its environment to go through here."""
        return {"HTTP_PROXY": self.url, "http_proxy": self.url, "NO_PROXY": "", "no_proxy": ""}

    def reset_counts(self) -> None:
        with self.lock:
            self.requests.clear()
            self.bytes.clear()

    def close(self) -> None:
        self.server.close()

    def _handle(self, request: _Quiet) -> None:
        address = urllib.parse.urlsplit(request.path)
        kind = kind_of(request.command, address)
        fault = self._draw(request.command, kind)
        body = request.body()
        if fault == "slow_down":
            return request.answer(503, b"<Error><Code>SlowDown</Code></Error>", Content_Type="application/xml")
        if fault == "slow_list":
            time.sleep(self.faults.slow_seconds)
        half = fault == "reset" and request.command == "GET"
        undone = (fault == "reset" and not half) or (fault == "hang" and self._coin())
        got = None if undone else self._forward(request, address, body)
        if fault == "hang":
            time.sleep(self.faults.hang_seconds)
        if got is None or fault in ("hang", "lost"):
            return _cut(request)
        status, headers, content = got
        if kind == "list" and status == 200:
            content = self._aged(content)
        with self.lock:
            self.requests[kind] += 1
            self.bytes[kind] += len(content)
        self._answer(request, status, headers, content, half)
        return _cut(request) if half else None

    def _answer(self, request: _Quiet, status: int, headers, content: bytes, half: bool) -> None:
        dropped = {"connection", "transfer-encoding", "keep-alive", "date", "server"}
        dropped |= set() if request.command == "HEAD" else {"content-length"}
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in dropped:
                request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content[: len(content) // 2] if half else content)

    def _draw(self, method: str, kind: str) -> str | None:
        """The fault that this request meets, counted."""
        changes = method in ("PUT", "POST", "DELETE")
        possible = ["reset", "slow_down", "hang", *(["lost"] if changes else [])]
        possible += ["slow_list"] if kind == "list" else []
        with self.lock:
            drawn = self.dice.random()
            for fault in possible:
                drawn -= getattr(self.faults, fault)
                if drawn < 0:
                    self.made[f"{fault} {kind}"] += 1
                    return fault
        return None

    def _coin(self) -> bool:
        with self.lock:
            return self.dice.random() < 0.5

    def _forward(self, request: _Quiet, address: urllib.parse.SplitResult, body: bytes):
        """The service's answer: status, headers, content. None when it gave none."""
        target = address.path + (f"?{address.query}" if address.query else "")
        for attempt in range(2):
            if request.upstream is None:
                request.upstream = http.client.HTTPConnection(address.netloc, timeout=60)
            connection = request.upstream
            try:
                connection.putrequest(request.command, target, skip_host=True, skip_accept_encoding=True)
                for name, value in request.headers.items():
                    if name.lower() not in ("connection", "proxy-connection", "keep-alive", "expect"):
                        connection.putheader(name, value)
                connection.endheaders(body or None)
                got = connection.getresponse()
                return got.status, got.getheaders(), got.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                request.upstream = None
                # A kept connection that the service had given up; a change must not be made twice.
                if request.command not in ("GET", "HEAD") or attempt:
                    return None
        return None

    def _aged(self, listing: bytes) -> bytes:
        now = dt.datetime.now(dt.UTC)

        def older(match: re.Match) -> bytes:
            key = re.search(rb"<Key>(.*?)</Key>", match[0])[1].decode()
            times = next((times for part, times in self.ageing.items() if part in key), 1.0)

            def date(stamp: re.Match) -> bytes:
                then = dt.datetime.fromisoformat(stamp[1].decode())
                then -= (now - then) * (times - 1) + dt.timedelta(seconds=self.older)
                return b"<LastModified>%s</LastModified>" % then.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()

            return re.sub(rb"<LastModified>(.*?)</LastModified>", date, match[0])

        return re.sub(rb"<Contents>.*?</Contents>", older, listing, flags=re.DOTALL)


def kind_of(method: str, address: urllib.parse.SplitResult) -> str:
    """What a request is about: `list`, `data`, `iceberg`, `delta`, `ledger`, `other`."""
    path = urllib.parse.unquote(address.path)
    if method == "GET" and ("list-type=" in address.query or "prefix=" in address.query):
        return "list"
    parts = (("/_siltstone/", "ledger"), ("/_delta_log/", "delta"), ("/metadata/", "iceberg"), ("/data/", "data"))
    return next((kind for part, kind in parts if part in path), "other")


def _cut(request: _Quiet) -> None:
    """Ends the connection by a reset, without another word."""
    request.close_connection = True
    request.wfile.flush()
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
