"""Services that fail on demand: a registry cut off, a store that loses replies, one without conditional puts."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

import requests


class _Server:
    """An HTTP server on a free port, in threads of this process."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

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
        proxy = self

        class Handler(_Quiet):
            def do_GET(self):
                proxy.requests.append(self.path)
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
