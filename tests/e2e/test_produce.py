"""The producers themselves: what they say they sent is what an ordinary consumer reads."""

import io

import fastavro
import pytest
from confluent_kafka import Consumer, TopicPartition

import lab
import orders
from proxies import RegistryProxy, UnconditionalS3
from produce import (
    CODECS,
    ORDER_AVRO,
    AvroWriter,
    Registry,
    Sent,
    Transactions,
    brokers,
    create_topic,
    delete_records,
    end_offsets,
    order,
    order_avro,
    send,
    unique,
)
from siltstone import wait


def consume(topic: str, count: int, partitions: int = 1) -> list[Sent]:
    consumer = Consumer(
        {"bootstrap.servers": brokers(), "group.id": unique("check"), "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found = []
    while len(found) < count:
        got = consumer.consume(count - len(found), 10)
        assert got, f"{len(found)} of {count} records"
        for one in got:
            assert not one.error(), one.error()
            headers = tuple(one.headers() or ())
            found.append(
                Sent(one.value(), one.key(), headers, one.timestamp()[1], one.partition(), one.offset())
            )
    assert not [one for one in consumer.consume(1, 0.5) if not one.error()], "more records than expected"
    consumer.close()
    return sorted(found, key=lambda one: (one.partition, one.offset))


@pytest.mark.parametrize("codec", CODECS)
def test_records_arrive_as_they_are(codec):
    topic = create_topic(partitions=2)
    headers = (("a", b"\x00\xff"), ("a", b""), ("b", None))
    records = [
        Sent(b"one", b"k", headers, 5),
        Sent(None, b"k", (), 6),
        Sent(b"", None, (), 7, 1),
        Sent(b"\xff" * 5000, b"", (), 8, 1),
    ]
    sent = send(topic, records, codec)
    assert consume(topic, 4, 2) == sorted(sent, key=lambda one: (one.partition, one.offset))


def test_aborted_records_are_hidden_and_leave_gaps():
    topic = create_topic()
    transactions = Transactions(topic)
    transactions.abort(orders.records(100, 10))
    kept = transactions.commit(orders.records(0, 10))
    transactions.leave_open(orders.records(200, 5))
    assert [one.offset for one in kept] == list(range(11, 21))
    assert consume(topic, 10) == kept
    transactions.close()
    wait(lambda: end_offsets(topic, 1) == {0: 28}, 10, "the abort's mark")


def test_records_can_be_deleted():
    topic = create_topic()
    sent = send(topic, orders.records(0, 10))
    delete_records(topic, {0: 4})
    consumer = Consumer({"bootstrap.servers": brokers(), "group.id": unique("check")})
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (4, 10)
    consumer.close()
    assert len(sent) == 10


def test_avro_orders_read_back():
    schema_id = Registry().register(unique("orders"), ORDER_AVRO)
    framed = AvroWriter(ORDER_AVRO, schema_id)(order_avro(order(5)))
    assert framed[0] == 0 and int.from_bytes(framed[1:5], "big") == schema_id
    read = fastavro.schemaless_reader(io.BytesIO(framed[5:]), fastavro.parse_schema(ORDER_AVRO), None)
    assert read == order_avro(order(5))


def test_registry_with_login():
    with pytest.raises(Exception, match="401"):
        Registry(lab.address("REGISTRY_AUTH")).register("x", '"string"')
    login = (lab.address("REGISTRY_USER"), lab.address("REGISTRY_PASSWORD"))
    assert Registry(lab.address("REGISTRY_AUTH"), login).register("x", '"string"') > 0


def test_registry_proxy_fails_on_demand():
    import requests

    proxy = RegistryProxy(lab.address("REGISTRY"))
    assert requests.get(f"{proxy.url}/subjects", timeout=10).status_code == 200
    proxy.mode = "fail"
    assert requests.get(f"{proxy.url}/subjects", timeout=10).status_code == 503
    proxy.mode = "refuse"
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{proxy.url}/subjects", timeout=10)
    proxy.mode = "hang"
    with pytest.raises(requests.Timeout):
        requests.get(f"{proxy.url}/subjects", timeout=1)
    proxy.close()
    assert len(proxy.requests) == 4


def test_store_without_conditions_overwrites():
    import requests

    store = UnconditionalS3()
    for body in (b"first", b"second"):
        answer = requests.put(f"{store.url}/lake/a/b", data=body, headers={"If-None-Match": "*"}, timeout=10)
        assert answer.status_code == 200
    assert requests.get(f"{store.url}/lake/a/b", timeout=10).content == b"second"
    listed = requests.get(f"{store.url}/lake?list-type=2&prefix=a/&delimiter=/", timeout=10).text
    assert "<Key>a/b</Key>" in listed
    store.close()
