"""Orders: the everyday table of the tests, as records and as rows."""

from __future__ import annotations

from produce import ORDER_COLUMNS, Sent, create_topic, order, order_expected, order_json, send
from siltstone import json_table


def records(first: int, count: int, partitions: int = 1) -> list[Sent]:
    return [
        Sent(
            order_json(order(n)), key=b"%d" % n, partition=n % partitions, timestamp_ms=order(n)["ordered_ms"]
        )
        for n in range(first, first + count)
    ]


def rows(first: int, count: int) -> list[dict]:
    return [order_expected(order(n)) for n in range(first, first + count)]


def topic_of(count: int, partitions: int = 1, codec: str = "none") -> str:
    topic = create_topic(partitions=partitions)
    send(topic, records(0, count, partitions), codec)
    return topic


def orders_table(name: str, topic: str, **changes) -> dict:
    return json_table(name, topic, ORDER_COLUMNS, **changes)
