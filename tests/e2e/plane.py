"""A control plane for tests: it keeps every byte that it is sent, and answers as it is told."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time


class Plane:
    """`manner`: truthful, hang, garbage, wrong, future, redirect, huge, refuse; or the status of every answer."""

    def __init__(
        self, manner: str | int = "truthful", port: int = 0, tls: ssl.SSLContext | None = None
    ):
        self.manner = manner
        self.lock = threading.Lock()
        self.sent: list[tuple[str, dict, bytes]] = []
        self.entries: dict[str, list[dict]] = {}
        self.images: dict[str, list[dict]] = {}
        self.statistics: dict[str, list[dict]] = {}
        self.health: list[dict] = []
        self.commands: list[dict] = []
        self.outcomes: dict[str, dict] = {}
        # (worker, command) of what was told.
        self.told: set[tuple[str, str]] = set()
        self.polls = 0
        # Answers to reads, by path and query; and what was read with which credential.
        self.lists: dict[str, dict] = {}
        self.read: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        plane = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with plane.lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    plane.sent.append((self.path, headers, body))
                plane.answer(self, json.loads(body))

            def do_GET(self):  # noqa: N802
                headers = {name.lower(): value for name, value in self.headers.items()}
                plane.read.append((self.path, headers.get("authorization")))
                answer = plane.lists.get(self.path)
                body = json.dumps(answer or {"title": "no"}).encode()
                self.send_response(200 if answer else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                """Clients that went away are of no interest."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls:
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def spec(self) -> dict:
        return {"url": self.url, "api_key": "${PLANE_KEY}"}

    def answer(self, request, message: dict) -> None:
        def say(body: bytes, status: int = 200, **headers: str) -> None:
            request.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(body)

        manner = self.manner
        if isinstance(manner, int):
            return say(b'{"title": "no"}', manner)
        if manner == "hang":
            self.closing.wait(120)
            return None
        if manner == "garbage":
            return say(b'{"version": "seven", "commands": [{"id": 1, "action": "drop"}]}')
        if manner == "wrong":
            return say(b'{"version": 0}')
        if manner == "future":
            return say(b'{"version": 1000000000}')
        if manner == "redirect":
            return say(b"", 307, Location=f"{self.url}/elsewhere")
        if manner == "huge":
            return say(b'{"version": ' + b"1" * (64 << 20) + b"}")
        return say(json.dumps(self.truth(request.path, message)).encode())

    def truth(self, path: str, message: dict) -> dict:
        with self.lock:
            if path == "/worker/v1/report":
                return self.report(message)
            if path == "/worker/v1/image":
                name = message["table"]["name"]
                self.images.setdefault(name, []).append(message)
                return {"version": message["version"]}
            if path == "/worker/v1/health":
                self.health.append(message)
            if path == "/worker/v1/commands/outcome":
                self.outcomes[message["command_id"]] = message["outcome"]
                self.told.add((message["worker_id"], message["command_id"]))
            if path != "/worker/v1/commands/poll":
                return {}
            self.polls += 1
        end = time.monotonic() + message["wait_seconds"]
        while time.monotonic() < end and not self.closing.is_set():
            with self.lock:
                waiting = [one for one in self.commands if self.waits(one, message["worker_id"])]
                if waiting:
                    return {"commands": waiting}
            time.sleep(0.05)
        return {"commands": []}

    def waits(self, command: dict, worker: str) -> bool:
        for_all = command["action"] in ("pause", "resume", "rotate")
        told = (worker, command["id"]) in self.told if for_all else command["id"] in self.outcomes
        return not told

    def report(self, message: dict) -> dict:
        name = message["table"]["name"]
        held = self.entries.setdefault(name, [])
        self.statistics.setdefault(name, []).extend(message.get("statistics", []))
        for entry in message["entries"]:
            if entry["version"] > len(held):
                return {"version": len(held) - 1 if held else None, "gap": True}
            if entry["version"] == len(held):
                held.append(entry)
            else:
                assert held[entry["version"]] == entry
        return {"version": len(held) - 1 if held else None}

    def order(self, number: int, action: str, table: str | None = None) -> str:
        """Queues a command."""
        command = {"id": f"{number:026}", "action": action, "expires_ms": 10**15}
        if table:
            command["table"] = table
        with self.lock:
            self.commands.append(command)
        return command["id"]

    def bytes(self) -> str:
        """Everything that arrived, but for the key."""
        with self.lock:
            return "\n".join(f"{path}\n{headers}\n{body.decode('latin-1')}" for path, headers, body in self.sent)

    def paths(self) -> set[str]:
        with self.lock:
            return {path for path, _, _ in self.sent}
