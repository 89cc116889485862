"""The control plane under load: many workers, many tables, reports at a rate or as fast as they are taken.

    python3 benches/control_plane.py                              # 1,000 workers, 10,000 tables, SQLite
    python3 benches/control_plane.py --database postgres://...    # an empty database
    python3 benches/control_plane.py --curve 1000 10000 100000 1000000

Every simulated worker holds a long poll, and says how it fares every ten seconds; a report is one append of one file.
CPU-seconds and memory are the server's own, latencies are seen by the client."""

import argparse
import asyncio
import base64
import itertools
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import time

import bench

PROGRAM = bench.TARGET / "siltstone-control-plane"
TICKS = os.sysconf("SC_CLK_TCK")
FIELDS = [{"id": n + 1, "name": f"column_{n}", "required": n == 0, "type": "long"} for n in range(16)]
IDENTITY = {"location": "s3://lake/tables/one", "spec_digest": "9f" * 32, "source_format": "avro"}


class Server:
    """A control plane with a database of its own."""

    def __init__(self, home, database):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.config = home / "control-plane.toml"
        url = database or f"sqlite://{home}/control-plane.db"
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.config.write_text(
            f'listen = "127.0.0.1:{self.port}"\n[database]\nurl = "{url}"\n[master_key]\nkey = "{key}"\n'
            "[limits]\nrequests_per_second = 100000\nconcurrency = 4096\n"
        )
        made = subprocess.run([PROGRAM, "init", "--config", self.config], check=True, capture_output=True, text=True)
        self.admin = made.stdout.split()[-1]
        self.log = (home / "log").open("ab")
        self.process = None

    async def start(self):
        self.process = subprocess.Popen([PROGRAM, "serve", "--config", self.config], stdout=self.log, stderr=self.log)
        for _ in range(300):
            try:
                await Client(self.port, self.admin).ask("GET", "/healthz")
                return
            except OSError:
                await asyncio.sleep(0.1)
        sys.exit("the control plane does not answer")

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self, what="VmHWM"):
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) // 1024

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(60)


class Client:
    """One connection, kept open; a request at a time."""

    def __init__(self, port, key):
        self.port, self.key, self.stream = port, key, None

    async def ask(self, method, path, body=None):
        if self.stream is None:
            self.stream = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        reader, writer = self.stream
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        try:
            writer.write(head.encode() + payload)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            if headers.get("transfer-encoding") == "chunked":
                raise ValueError("chunked")
            answer = await reader.readexactly(int(headers.get("content-length", 0)))
        except BaseException:
            writer.close()
            self.stream = None
            raise
        return int(lines[0].split()[1]), answer

    async def took(self, message, body):
        status, answer = await self.ask("POST", f"/worker/v1/{message}", body)
        if status != 200:
            raise RuntimeError(f"{message}: {status} {answer.decode()}")

    async def made(self, path, body):
        status, answer = await self.ask("POST", path, body)
        if status != 201:
            sys.exit(f"{path}: {status} {answer.decode()}")
        return json.loads(answer)


class Table:
    """What a ledger would say of a table: its entries, one after the other."""

    def __init__(self, name):
        self.name, self.uuid, self.version, self.rows = name, secrets.token_hex(8), -1, 0

    def create(self):
        change = {"kind": "create", "name": self.name, "formats": ["iceberg", "delta"]}
        change["schema"] = {"type": "struct", "schema-id": 0, "fields": FIELDS}
        change |= {"partition_spec": {"spec-id": 0, "fields": []}, "sort_order": {"order-id": 0, "fields": []}}
        return self.entry(change)

    def append(self, files=1):
        start, self.rows = self.rows, self.rows + 1000 * files
        made = [{"path": f"data/{self.version + 1:08}-{n:05}-{secrets.token_hex(12)}.parquet", "bytes": 123_456,
                 "rows": 1000, "schema_id": 0, "spec_id": 0, "sort_order_id": 0} for n in range(files)]
        offsets = {"cluster": "prod", "topic": self.name, "partition": 0, "start": start, "end": self.rows}
        return self.entry({"kind": "append", "files": made, "ranges": [offsets]})

    def entry(self, change):
        self.version += 1
        return {"format": 1, "version": self.version, "table_uuid": self.uuid, "commit_id": secrets.token_hex(16),
                "committed_ms": int(time.time() * 1000), "change": change}

    def report(self, *entries):
        return {"table": {"name": self.name, **IDENTITY}, "entries": list(entries)}


class Load:
    def __init__(self, server, workers, tables, clusters):
        self.server, self.workers, self.tables = server, workers, [[] for _ in range(workers)]
        for n in range(tables):
            self.tables[n % workers].append(Table(f"shop.table_{n}"))
        self.clusters, self.keys = clusters, []
        self.latencies, self.failed = [], 0

    async def prepare(self):
        admin = Client(self.server.port, self.server.admin)
        environment = (await admin.made("/api/v1/environments", {"name": "load"}))["id"]
        for n in range(self.clusters):
            path = f"/api/v1/environments/{environment}/clusters"
            cluster = (await admin.made(path, {"name": f"cluster-{n}"}))["id"]
            account = (await admin.made("/api/v1/service-accounts", {"name": f"workers {n}"}))["id"]
            grant = {"role": "worker", "resource": f"environment/{environment}/cluster/{cluster}"}
            await admin.made("/api/v1/role-bindings", {"service_account": account, **grant})
            key = await admin.made("/api/v1/api-keys", {"service_account": account, "label": "load"})
            self.keys.append(key["key"])

    def client(self, worker):
        return Client(self.server.port, self.keys[worker % self.clusters])

    async def send(self, client, table, *entries):
        began = time.perf_counter()
        body = table.report(*entries)
        while True:
            try:
                status, answer = await client.ask("POST", "/worker/v1/report", body)
            except (OSError, asyncio.IncompleteReadError):
                status, answer = 0, b""
            if status == 200:
                break
            self.failed += 1
            if status and status < 500 and status != 429:
                sys.exit(f"a report was refused: {status} {answer.decode()}")
            await asyncio.sleep(0.2)
        self.latencies.append(time.perf_counter() - began)

    async def create_all(self):
        lanes = [itertools.islice(range(self.workers), lane, None, 16) for lane in range(16)]

        async def lane(workers):
            clients = [self.client(n) for n in range(self.clusters)]
            for worker in workers:
                for table in self.tables[worker]:
                    await self.send(clients[worker % self.clusters], table, table.create(), table.append())

        await asyncio.gather(*map(lane, lanes))

    async def sit(self, worker):
        """A worker's long poll and its health, for ever."""
        client, identity = self.client(worker), f"worker-{worker}"
        await asyncio.sleep(worker % 1000 / 100)
        while True:
            tables = [{"table": table.name, "state": "running", "partitions": 1} for table in self.tables[worker]]
            now = int(time.time() * 1000)
            await client.took("health", {"worker_id": identity, "at_ms": now, "tables": tables})
            presence = {"worker_id": identity, "program_version": "0.1.0", "started_ms": now, "vcpus": 4}
            presence |= {"utilisation_percent": 37, "memory_bytes": 1 << 29, "tables": len(tables)}
            await client.took("presence", presence)
            await client.took("commands/poll", {"worker_id": identity, "wait_seconds": 10})

    async def at_rate(self, rate, seconds):
        """Reports of the workers in turn, so many a second whatever the answers take. 0: as fast as they are taken."""
        clients = [self.client(n) for n in range(min(self.workers, 256 if rate else 64))]
        free = asyncio.Queue()
        for n, client in enumerate(clients):
            free.put_nowait((n, client))
        turns, under_way = itertools.count(), set()
        ends = time.perf_counter() + seconds
        due = time.perf_counter()

        async def one(turn, n, client):
            # A client stays with the workers of its own cluster, and a table with its client: reports are ordered.
            workers = range(n, self.workers, len(clients))
            worker = workers[turn // len(clients) % len(workers)]
            tables = self.tables[worker]
            table = tables[turn // len(clients) // len(workers) % len(tables)]
            await self.send(client, table, table.append())
            free.put_nowait((n, client))

        while time.perf_counter() < ends:
            if rate:
                due += 1 / rate
                await asyncio.sleep(max(0, due - time.perf_counter()))
            n, client = await free.get()
            task = asyncio.create_task(one(next(turns), n, client))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def measured(self, what, work):
        self.latencies, self.failed = [], 0
        cpu, began = self.server.cpu_s(), time.perf_counter()
        await work
        took, cpu = time.perf_counter() - began, self.server.cpu_s() - cpu
        ordered = sorted(self.latencies)
        at = lambda share: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
        line = {"phase": what, "reports": len(ordered), "per_second": round(len(ordered) / took, 1),
                "server_cpu": round(cpu / took, 2), "per_cpu_second": round(len(ordered) / max(cpu, 0.01)),
                "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0), "failed": self.failed,
                "memory_mib": self.server.memory_mib("VmRSS"), "peak_mib": self.server.memory_mib()}
        print(json.dumps(line), flush=True)


async def fleet(options, server):
    load = Load(server, options.workers, options.tables, options.clusters)
    await load.prepare()
    await load.measured("create", load.create_all())
    sitting = [asyncio.create_task(load.sit(worker)) for worker in range(load.workers)]
    await asyncio.sleep(10)
    for rate in options.rates:
        await load.measured(f"{rate} reports a second" if rate else "as fast as taken", load.at_rate(rate, options.seconds))
    ended = [task for task in sitting if task.done()]
    print(json.dumps({"phase": "end", "workers_sitting": len(sitting) - len(ended), "workers_failed": len(ended)}))
    for task in sitting:
        task.cancel()


async def curve(options, server):
    load = Load(server, 1, 1, 1)
    await load.prepare()
    client, table = load.client(0), load.tables[0][0]
    await load.send(client, table, table.create())
    files = 0
    for size in options.curve:
        async def fill():
            nonlocal files
            while files < size:
                some = min(5_000, size - files)
                await load.send(client, table, table.append(some))
                files += some

        await load.measured(f"to {size} files", fill())

        async def reports():
            nonlocal files
            for _ in range(200):
                await load.send(client, table, table.append())
                files += 1

        await load.measured(f"reports at {size} files", reports())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=1_000)
    options.add_argument("--tables", type=int, default=10_000)
    options.add_argument("--clusters", type=int, default=10)
    options.add_argument("--rates", type=int, nargs="*", default=[100, 200, 0], help="reports a second; 0: no limit")
    options.add_argument("--seconds", type=int, default=30, help="of each rate")
    options.add_argument("--curve", type=int, nargs="*", help="measure reports to a table of so many files instead")
    options.add_argument("--database", help="postgres:// URL of an empty database; default: SQLite")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-control-plane-") as home:
        server = Server(pathlib.Path(home), options.database)

        async def run():
            await server.start()
            try:
                await (curve if options.curve else fleet)(options, server)
            finally:
                server.stop()

        asyncio.run(run())


if __name__ == "__main__":
    main()
