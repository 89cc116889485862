"""Tables whose Iceberg metadata a REST catalog keeps: two real servers, with every way to log in, and with faults
between them and the engine. Every value is compared."""

from __future__ import annotations

import collections
import threading
import time

import pytest

import catalogs
import orders
import readers
from catalogs import CatalogProxy, CatalogTable
from produce import create_topic, order, send
from siltstone import wait

EAGER = {"min_inputs": 4, "quiet_after": "0s", "busy_percent": 100}


@pytest.fixture(params=["iceberg", "seaweed-oauth2", "seaweed-sigv4"])
def catalog(request, bucket):
    if request.param == "iceberg":
        return catalogs.iceberg(bucket.prefix)
    return catalogs.seaweed(request.param.removeprefix("seaweed-"))


def formats(catalog) -> list[str]:
    # SeaweedFS lets nothing but Iceberg's own files into a table bucket, so no Delta log.
    return ["iceberg"] if isinstance(catalog.store, catalogs.TableBucket) else ["iceberg", "delta"]


def table_of(catalog, name: str, topic: str, entry=None, **changes) -> dict:
    changes = {"formats": formats(catalog), **changes}
    return orders.orders_table(name, topic, catalogs=[entry or catalog.entry()], **changes)


def check(table: CatalogTable, expected: list[dict], delta: bool = True) -> None:
    which = dict(catalogs.READERS)
    if delta and not isinstance(table.store, catalogs.TableBucket):
        which |= readers.DELTA
    readers.check(table, expected, which)


def test_ingest_and_grow(engine, name, catalog):
    topic = orders.topic_of(300, partitions=2)
    run = engine(
        [table_of(catalog, name, topic, sort_by=["id"], partition_by=["region"])], store=catalog.store, env=catalog.env
    )
    assert catalog.uri in run.command("plan").out
    run.once()
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 300))
    metadata = table.metadata()
    assert metadata["location"].rstrip("/") == catalog.store.url(table.location)
    send(topic, orders.records(300, 100, 2))
    run.once()
    check(table, orders.rows(0, 400))
    assert catalog.uri in run.command("status").out
    assert len(run.json("snapshots", name)) == len(table.metadata()["snapshots"])


def test_dead_letters_have_a_table_of_their_own(engine, name, catalog):
    topic = orders.topic_of(20)
    from produce import Sent

    send(topic, [Sent(b"no order", key=b"k")])
    run = engine([table_of(catalog, name, topic)], store=catalog.store, env=catalog.env)
    run.once()
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 20))
    found = catalog.load(table.dead_letters.name).scan().to_arrow().to_pylist()
    assert [one["value"] for one in found] == [b"no order"]
