"""Google Cloud Storage's XML API before an emulator that knows the JSON API alone.   gcs_xml.py PORT EMULATOR_URL

Objects, generations and preconditions are the emulator's; only words are translated here:

| XML API | becomes |
| --- | --- |
| `PUT /bucket/name`, `x-goog-if-generation-match: n` | an upload with `ifGenerationMatch=n` |
| `POST ?uploads`, `PUT ?partNumber&uploadId`, `POST ?uploadId`, `DELETE ?uploadId` | one upload of the parts |
| `GET /bucket?list-type=2` in pages, `start-after` | a listing, cut into pages |
| `GET`, `HEAD`, `DELETE /bucket/name` | the same; all else is answered 501 |
"""

import hashlib
import http.client
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from xml.sax.saxutils import escape

# Real listings have a thousand; fewer, so that tests turn pages.
PAGE_KEYS_MAX = 50
PORT, EMULATOR = int(sys.argv[1]), urllib.parse.urlsplit(sys.argv[2])
PASSED_ON = ("Range", "If-Match", "If-None-Match", "Content-Type")
KEPT = ("etag", "last-modified", "content-range", "content-type", "x-goog-generation")


class Uploads:
    """Parts of uploads that are not complete yet."""

    def __init__(self):
        self.lock, self.numbers, self.parts = threading.Lock(), itertools.count(1), {}

    def begin(self) -> str:
        with self.lock:
            name = f"upload-{next(self.numbers)}"
            self.parts[name] = {}
        return name

    def put(self, name: str, number: int, body: bytes) -> bool:
        with self.lock:
            if name in self.parts:
                self.parts[name][number] = body
            return name in self.parts

    def take(self, name: str, numbers: list[int]) -> bytes | None:
        with self.lock:
            parts = self.parts.get(name)
            if parts is None or any(number not in parts for number in numbers):
                return None
            return b"".join(parts[number] for number in numbers)

    def end(self, name: str) -> None:
        with self.lock:
            self.parts.pop(name, None)


UPLOADS = Uploads()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it, small answers wait for the client's acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do(self):
        split = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(split.query, keep_blank_values=True))
        self.bucket, _, name = split.path.lstrip("/").partition("/")
        self.name = urllib.parse.unquote(name)
        self.payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("x-goog-copy-source"):
            return self.refuse(501, "NotImplemented")
        if not self.name:
            known = self.command == "GET" and self.query.get("list-type") == "2"
            return self.list() if known else self.refuse(501, "NotImplemented")
        if "uploads" in self.query or "uploadId" in self.query:
            return self.multipart()
        if self.command == "PUT":
            return self.upload(self.payload, self.headers.get("x-goog-if-generation-match"))
        if self.command in ("GET", "HEAD"):
            return self.pass_on(f"{self.object_path()}?alt=media")
        if self.command == "DELETE":
            return self.pass_on(self.object_path())
        return self.refuse(501, "NotImplemented")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def object_path(self) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(self.name, safe='')}"

    def ask(self, method: str, path: str, body: bytes | None = None, headers=None):
        connection = http.client.HTTPConnection(EMULATOR.hostname, EMULATOR.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def pass_on(self, path: str):
        headers = {name: self.headers[name] for name in PASSED_ON if self.headers[name]}
        status, got, body = self.ask(self.command, path, None, headers)
        if status >= 400:
            return self.refuse(status, {404: "NoSuchKey"}.get(status, "Failed"))
        if self.command == "DELETE":
            return self.answer(204, b"", {})
        kept = {name: value for name, value in got.items() if name in KEPT}
        return self.answer(status, body, kept, int(got.get("content-length") or len(body)))

    def upload(self, body: bytes, generation: str | None, as_xml: bool = False):
        query = {"uploadType": "media", "name": self.name}
        if generation is not None:
            query["ifGenerationMatch"] = generation
        path = f"/upload/storage/v1/b/{self.bucket}/o?{urllib.parse.urlencode(query)}"
        kind = {"Content-Type": self.headers.get("Content-Type") or "application/octet-stream"}
        status, _, answer = self.ask("POST", path, body, kind)
        if status >= 400:
            codes = {404: "NoSuchBucket", 412: "PreconditionFailed"}
            return self.refuse(status, codes.get(status, "Failed"))
        made = json.loads(answer)
        headers = {"ETag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]}
        if not as_xml:
            return self.answer(200, b"", headers)
        etag = f"<ETag>{escape(headers['ETag'])}</ETag>"
        return self.xml(f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>", headers)

    def multipart(self):
        name = self.query.get("uploadId", "")
        if self.command == "POST" and "uploads" in self.query:
            begun = f"<UploadId>{UPLOADS.begin()}</UploadId>"
            return self.xml(f"<InitiateMultipartUploadResult>{begun}</InitiateMultipartUploadResult>", {})
        if self.command == "PUT":
            if not UPLOADS.put(name, int(self.query["partNumber"]), self.payload):
                return self.refuse(404, "NoSuchUpload")
            return self.answer(200, b"", {"ETag": f'"{hashlib.md5(self.payload).hexdigest()}"'})
        if self.command == "DELETE":
            UPLOADS.end(name)
            return self.answer(204, b"", {})
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", self.payload)]
        whole = UPLOADS.take(name, numbers)
        if whole is None:
            return self.refuse(404, "NoSuchUpload")
        self.upload(whole, None, as_xml=True)
        return UPLOADS.end(name)

    def list(self):
        asked = {name: self.query[name] for name in ("prefix", "delimiter") if self.query.get(name)}
        path = f"/storage/v1/b/{self.bucket}/o?{urllib.parse.urlencode(asked)}"
        status, _, body = self.ask("GET", path)
        if status >= 400:
            return self.refuse(status, {404: "NoSuchBucket"}.get(status, "Failed"))
        listing = json.loads(body)
        entries = [
            (
                one["name"],
                f"<Contents><Key>{escape(one['name'])}</Key><Size>{one['size']}</Size>"
                f"<LastModified>{one['updated']}</LastModified><ETag>&quot;{one['etag']}&quot;</ETag></Contents>",
            )
            for one in listing.get("items", [])
        ]
        entries += [
            (prefix, f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>")
            for prefix in listing.get("prefixes", [])
        ]
        after = max(self.query.get("continuation-token", ""), self.query.get("start-after", ""))
        entries = sorted(entry for entry in entries if entry[0] > after)
        most = min(int(self.query.get("max-keys") or PAGE_KEYS_MAX), PAGE_KEYS_MAX)
        page, rest = entries[:most], entries[most:]
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if rest else ""
        found = "".join(xml for _, xml in page)
        cut = f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>"
        self.xml(f"<ListBucketResult><Name>{self.bucket}</Name>{cut}{token}{found}</ListBucketResult>", {})

    def xml(self, text: str, headers: dict):
        self.answer(200, text.encode(), {"Content-Type": "application/xml", **headers})

    def refuse(self, status: int, code: str):
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.answer(status, body, {"Content-Type": "application/xml"})

    def answer(self, status: int, body: bytes, headers: dict, length: int | None = None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", PORT), Handler).serve_forever()
