"""The audit log in a Kafka topic: every entry, in order, as one chain, whatever dies meanwhile."""

import hashlib
import json

import control_plane
from confluent_kafka import Consumer
from control_plane import API, ControlPlane
from produce import brokers, create_topic, unique
from siltstone import wait


def records(topic: str) -> list[dict]:
    consumer = Consumer(
        {"bootstrap.servers": brokers(), "group.id": unique("audit"), "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found, idle = [], 0
    while idle < 5:
        message = consumer.poll(1)
        if message is None or message.error():
            idle += 1
        else:
            found.append(json.loads(message.value()) | {"key": (message.key() or b"").decode()})
    consumer.close()
    return found


def chained(entry: dict, previous: bytes) -> bytes:
    """The hash of an entry as the documentation has it: each field goes in with its length before it."""
    fields = [previous, entry["sequence"].to_bytes(8, "big"), entry["at_ms"].to_bytes(8, "big")]
    fields += [entry[name].encode() for name in ("actor", "action", "resource", "address", "outcome")]
    return hashlib.sha256(b"".join(len(one).to_bytes(8, "big") + one for one in fields)).digest()


def test_every_entry_is_exported_in_order(tmp_path):
    topic = create_topic(partitions=3)
    more = f'\n[audit.kafka]\nbrokers = "{brokers()}"\ntopic = "{topic}"\n'
    plane = ControlPlane(control_plane.build(), tmp_path, more)
    plane.start()
    try:
        for n in range(50):
            plane.admin("POST", f"{API}/environments", {"name": f"environment {n}"})
            if n % 20 == 10:
                # Entries that were answered for are durable, exported or not.
                plane.kill()
                plane.start()
        stranger = {"Authorization": f"Bearer sst_{'0' * 26}_{'a' * 43}"}
        for headers in ({}, stranger):
            refused = control_plane.requests.get(f"{plane.url}{API}/environments", headers=headers, timeout=30)
            assert refused.status_code == 401, refused.text
        newest = plane.admin("GET", f"{API}/audit?limit=1")["items"][0]["sequence"]
        wait(
            lambda: any(one["sequence"] >= newest and one["organisation"] for one in records(topic)),
            60,
            "the newest entry",
        )
        found = records(topic)
    finally:
        plane.stop()
    chains: dict[str, dict[int, dict]] = {}
    for entry in found:
        assert entry["key"] == entry["organisation"]
        chain = chains.setdefault(entry["organisation"], {})
        if entry["sequence"] in chain:
            assert chain[entry["sequence"]] == entry, "an entry came again as another"
        elif chain:
            assert entry["sequence"] == max(chain) + 1, "entries are out of order"
        chain[entry["sequence"]] = entry
    assert len(chains) == 2, "entries of an organisation, and of nobody"
    for chain in chains.values():
        previous = bytes(32)
        assert sorted(chain) == list(range(1, len(chain) + 1))
        for sequence in sorted(chain):
            previous = chained(chain[sequence], previous)
            assert chain[sequence]["hash"] == previous.hex()
    actions = [one["action"] for chain in chains.values() for one in chain.values() if one["outcome"] == "changed"]
    assert sum("environments" in action for action in actions) == 50, set(actions)
