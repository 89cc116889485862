"""The wall, with the real control plane behind it: what it holds, logs and shows has no token in it."""

import json
import re

import control_plane
import readers
from canary import Tokens
from control_plane import API, ControlPlane
from produce import Sent, create_topic, send
from siltstone import wait
from test_control_plane import Cluster, reporting

COLUMNS = [
    {"name": "id", "type": "long"},
    {"name": "region", "type": "string"},
    {"name": "note", "type": "string"},
]


def shown(plane: ControlPlane, cluster: Cluster, tables: list[str]) -> str:
    """Every answer to a read that the API knows, about these tables."""
    document = control_plane.requests.get(f"{plane.url}{API}/openapi.json", timeout=30).json()
    here = dict(zip(("environment", "cluster"), re.search("environments/([^/]+)/clusters/([^/]+)", cluster.path).groups()))
    answers = []
    for path, operations in document["paths"].items():
        if "get" not in operations:
            continue
        for table in tables if "{table}" in path else [""]:
            filled = path.format_map({**here, "table": table, "account": "x", "key": "x", "id": "x", "binding": "x"})
            headers = {"Authorization": f"Bearer {plane.admin.key}"}
            answer = control_plane.requests.get(plane.url + filled, headers=headers, timeout=30)
            answers.append(f"{filled} {answer.status_code} {answer.text}")
    assert sum(" 200 " in answer for answer in answers) > 10, answers
    return "\n".join(answers)


def test_no_token_is_in_the_database_or_the_api(engine, name, tmp_path):
    tokens, opted = Tokens(), Tokens()
    plane = ControlPlane(control_plane.build(), tmp_path)
    plane.start(RUST_LOG="trace")
    try:
        cluster, topic = Cluster(plane), create_topic(partitions=2)

        def rows(n: int) -> list[Sent]:
            good = {"id": tokens.number(), "region": opted(), "note": tokens(), tokens(): tokens()}
            headers = ((tokens(), tokens().encode()),)
            poison = f'{{"id": "{tokens()}", "note": "{tokens()}"}}'.encode()
            values = [json.dumps(good).encode(), poison]
            return [Sent(value, tokens().encode(), headers, partition=n % 2) for value in values]

        send(topic, [one for n in range(30) for one in rows(n)])
        run = reporting(
            engine,
            name,
            topic,
            cluster,
            columns=COLUMNS,
            freshness={"max_age": "1s"},
            kafka_metadata=True,
            sort_by=["note"],
            partition_by=["truncate(24, region)"],
            disclose={"bounds": ["region"]},
            files={"bloom_filters": ["note"]},
        )
        worker = run.worker()
        letters = run.table().dead_letters
        wait(lambda: run.table().exists() and readers.count(run.table()) == 30, 60, "the rows")
        wait(lambda: letters.exists() and readers.count(letters) == 30, 60, "the dead letters")
        for table in (run.table(), letters):
            last = table.ledger()[-1]["version"]
            wait(
                lambda name=table.name, last=last: (cluster.get(f"tables/{name}")["version"] or 0) >= last,
                60,
                f"the reports of {table.name}",
            )
        wait(lambda: cluster.get("workers")["items"], 60, "the worker's presence")
        told = {one["name"]: one["disclosed"] for one in cluster.all("tables")}
        assert told == {name: {"bounds": ["region"], "partition_values": False}, letters.name: None}
        answers = shown(plane, cluster, [name, letters.name])
        assert worker.stop() == 0
    finally:
        plane.stop()
    stored = b"".join(part.read_bytes() for part in tmp_path.glob("control-plane.db*")).decode("latin-1")
    log = (tmp_path / "log").read_text()
    assert name in answers and name in stored
    for what, text in (("the API", answers), ("the database", stored), ("the server's log", log)):
        tokens.check(what, text)
    # What was opted in is shown (bounds of text are cut short), and lies encrypted.
    opted.made = [token[:12] for token in opted.made]
    assert any(token in answers for token in opted.made)
    for what, text in (("the database", stored), ("the server's log", log)):
        opted.check(what, text)
