"""Brokers: every way in, every codec, transactions, where to start, and what retention takes away."""

import time

import pytest

import lab
import orders
import readers
from produce import CODECS, Transactions, admin, create_topic, delete_records, order, send
from siltstone import CLUSTER, cluster, wait


def credentials(**changes: str) -> dict:
    return {
        "E2E_KAFKA_USER": lab.address("KAFKA_USER"),
        "E2E_KAFKA_PASSWORD": lab.address("KAFKA_PASSWORD"),
        **changes,
    }


def sasl(mechanism: str) -> dict:
    return {"mechanism": mechanism, "username": "${E2E_KAFKA_USER}", "password": "${E2E_KAFKA_PASSWORD}"}


def tls() -> dict:
    return {"ca_file": f"{lab.address('TLS')}/ca.pem"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl(engine, name, listener, mechanism):
    topic = orders.topic_of(20)
    source = cluster(
        registry=False, bootstrap_brokers=[lab.address(f"KAFKA_{listener}")], sasl=sasl(mechanism)
    )
    if listener == "SASL_SSL":
        source["tls"] = tls()
    run = engine([orders.orders_table(name, topic)], [source], env=credentials())
    run.once()
    readers.check(run.table(), orders.rows(0, 20), readers.ICEBERG)


def test_client_certificate(engine, name):
    topic = orders.topic_of(20)
    folder = lab.address("TLS")
    source = cluster(
        registry=False,
        bootstrap_brokers=[lab.address("KAFKA_SSL")],
        tls={**tls(), "cert_file": f"{folder}/client.crt", "key_file": f"{folder}/client.key"},
    )
    run = engine([orders.orders_table(name, topic)], [source])
    run.once()
    readers.check(run.table(), orders.rows(0, 20), readers.ICEBERG)


def test_wrong_password_fails_and_is_not_told(engine, name):
    topic = orders.topic_of(1)
    wrong = credentials(E2E_KAFKA_PASSWORD="guess-5309")
    source = cluster(
        registry=False, bootstrap_brokers=[lab.address("KAFKA_SASL_PLAINTEXT")], sasl=sasl("SCRAM-SHA-512")
    )
    run = engine([orders.orders_table(name, topic)], [source], env=wrong)
    ended = run.once(code=2)
    assert "guess-5309" not in ended.said and "credentials" in ended.err


def test_broker_with_unknown_authority_is_refused(engine, name):
    topic = orders.topic_of(1)
    source = cluster(
        registry=False, bootstrap_brokers=[lab.address("KAFKA_SASL_SSL")], sasl=sasl("PLAIN"), tls={}
    )
    run = engine([orders.orders_table(name, topic)], [source], env=credentials())
    assert "tls.ca_file" in run.once(code=2).err


def test_every_codec(engine, name):
    """Batches of all codecs in one topic."""
    topic = create_topic(partitions=2)
    for index, codec in enumerate(CODECS):
        send(topic, orders.records(index * 100, 100, 2), codec)
    run = engine([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(0, 100 * len(CODECS)))


def test_aborted_transactions_do_not_appear(engine, name):
    """Aborts and commits interleaved, over both partitions; control batches leave gaps in the offsets."""
    topic = create_topic(partitions=2)
    transactions = Transactions(topic)
    kept = []
    for round_ in range(6):
        aborted = orders.records(1000 + round_ * 10, 10, 2)
        transactions.abort(aborted)
        kept += transactions.commit(orders.records(round_ * 10, 10, 2))
    transactions.abort(orders.records(2000, 10, 2))
    run = engine([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(0, 60))
    # The last aborted batch and its control record are passed over as well: nothing is read twice.
    send(topic, orders.records(60, 10, 2))
    run.once()
    readers.check(run.table(), orders.rows(0, 70))
    for ranges in run.table().committed_ranges().values():
        assert all(before[1] == after[0] for before, after in zip(ranges, ranges[1:])), ranges


def test_open_transactions_hold_readers_back(engine, name):
    """What lies after an open transaction is not there yet, and not lost either."""
    topic = create_topic()
    send(topic, orders.records(0, 10))
    open_one = Transactions(topic)
    open_one.leave_open(orders.records(500, 5))
    send(topic, orders.records(10, 10))
    run = engine([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(0, 10), readers.ICEBERG)
    open_one.close(commit=True)
    run.once()
    readers.check(run.table(), orders.rows(0, 20) + orders.rows(500, 5))


def test_topic_that_ends_in_an_abort(engine, name):
    """`--once` ends although no record lies at the end offset."""
    topic = create_topic()
    Transactions(topic).abort(orders.records(0, 10))
    run = engine([orders.orders_table(name, topic)])
    run.once()
    assert readers.count(run.table()) == 0


def test_start_latest(engine, name):
    topic = orders.topic_of(30, partitions=2)
    run = engine([orders.orders_table(name, topic, start="latest")])
    run.once()
    send(topic, orders.records(30, 10, 2))
    run.once()
    readers.check(run.table(), orders.rows(30, 10))


def test_start_timestamp(engine, name):
    """Records carry times in order here; the first at or after the moment begins."""
    topic = create_topic()
    base = 1_767_225_600_000
    sent = [
        one.__class__(one.value, one.key, timestamp_ms=base + n * 1000)
        for n, one in enumerate(orders.records(0, 30))
    ]
    send(topic, sent)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((base + 12_000) // 1000))
    run = engine([orders.orders_table(name, topic, start={"timestamp": moment})])
    run.once()
    readers.check(run.table(), orders.rows(12, 18))


def test_start_offsets(engine, name):
    """Partition 1 from offset 10; partition 0, which is not named, from its beginning."""
    topic = orders.topic_of(60, partitions=2)
    run = engine([orders.orders_table(name, topic, start={"offsets": {"1": 10}})])
    run.once()
    expected = [row for row in orders.rows(0, 60) if row["id"] % 2 == 0 or row["id"] // 2 >= 10]
    readers.check(run.table(), expected)


def test_start_earliest_after_retention(engine, name):
    """A table that never read the topic begins at what there is."""
    topic = orders.topic_of(50)
    delete_records(topic, {0: 20})
    run = engine([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(20, 30))


def test_lost_range_stops_one_table_and_names_the_range(engine, name):
    lost, kept = orders.topic_of(20), orders.topic_of(20)
    tables = [orders.orders_table(f"{name}_a", lost), orders.orders_table(f"{name}_b", kept)]
    run = engine(tables)
    run.once()
    for topic in (lost, kept):
        send(topic, orders.records(20, 30))
    delete_records(lost, {0: 35})
    ended = run.once(code=1)
    for word in (f"{name}_a", lost, "partition 0", "20", "35"):
        assert word in ended.err, f"{word} is not named:\n{ended.err}"
    readers.check(run.table(f"{name}_a"), orders.rows(0, 20), readers.ICEBERG)
    readers.check(run.table(f"{name}_b"), orders.rows(0, 50), readers.ICEBERG)


def test_lost_range_of_a_running_worker(engine, name):
    """The other table goes on, and the worker says that it is not well."""
    lost, kept = orders.topic_of(20), orders.topic_of(20)
    tables = [orders.orders_table(f"{name}_a", lost), orders.orders_table(f"{name}_b", kept)]
    run = engine(tables)
    run.once()
    send(lost, orders.records(20, 30))
    delete_records(lost, {0: 35})
    worker = run.worker()
    wait(lambda: "lost" in worker.said(), 30, "the lost range to be told")
    send(kept, orders.records(20, 30))
    wait(lambda: readers.count(run.table(f"{name}_b")) == 50, 30, "the other table to go on")
    assert worker.get("/readyz").status_code == 503
    assert worker.get("/healthz").status_code == 200
    worker.stop()


def test_lost_range_can_be_recorded(engine, name):
    topic = orders.topic_of(20)
    run = engine([orders.orders_table(name, topic, on_lost_range="continue")])
    run.once()
    send(topic, orders.records(20, 30))
    delete_records(topic, {0: 35})
    run.once()
    readers.check(run.table(), orders.rows(0, 20) + orders.rows(35, 15))
    lost = [
        one for entry in run.table().ledger() for one in entry["change"].get("ranges", []) if one.get("lost")
    ]
    assert [(one["partition"], one["start"], one["end"]) for one in lost] == [(0, 20, 35)]


def test_topic_that_does_not_exist(engine, name):
    run = engine([orders.orders_table(name, "no-such-topic-here")])
    ended = run.once(code=2)
    assert "no-such-topic-here" in ended.err and name in ended.err


def test_broker_that_does_not_answer(engine, name):
    source = cluster(registry=False, bootstrap_brokers=["127.0.0.1:9"])
    run = engine([orders.orders_table(name, "any")], [source])
    began = time.monotonic()
    ended = run.once(code=1)
    assert time.monotonic() - began < 20
    for word in (CLUSTER, name, "127.0.0.1:9", "tls and sasl"):
        assert word in ended.err, ended.err
    assert ended.err.count("no broker can be reached") <= 3, ended.err
    assert ended.err.splitlines()[-1].count(f"table {name}:") == 1, ended.err


def test_tls_listener_asked_without_tls(engine, name):
    """Nothing answers in a form that the client knows: soon over, with what to look at, and not many lines."""
    source = cluster(registry=False, bootstrap_brokers=[lab.address("KAFKA_SASL_SSL")])
    run = engine([orders.orders_table(name, "any")], [source])
    began = time.monotonic()
    ended = run.once(code=1)
    assert time.monotonic() - began < 20
    for word in (lab.address("KAFKA_SASL_SSL"), "tls and sasl"):
        assert word in ended.err, ended.err
    assert len(ended.err.splitlines()) < 15, ended.err


def test_partitions_added_later_are_read(engine, name):
    from confluent_kafka.admin import NewPartitions

    topic = orders.topic_of(10)
    run = engine([orders.orders_table(name, topic)])
    run.once()
    admin().create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    wait(
        lambda: len(admin().list_topics(topic, timeout=10).topics[topic].partitions) == 3,
        20,
        "the new partitions",
    )
    more = [one.__class__(one.value, one.key, partition=2) for one in orders.records(10, 10)]
    send(topic, more)
    run.once()
    readers.check(run.table(), orders.rows(0, 20))


def test_large_and_tiny_records(engine, name):
    """Close to the broker's limit of 1 MB, next to the smallest."""
    topic = create_topic()
    long_note = "x" * 900_000
    one = order(1)
    values = [
        orders.order_json({**one, "note": long_note}),
        b'{"id":2}',
        orders.order_json({**order(3), "note": ""}),
    ]
    send(topic, [orders.Sent(value) for value in values])
    run = engine([orders.orders_table(name, topic)])
    run.once()
    blank = {"customer_id": None, "region": None, "ordered_at": None, "amount": None, "note": None}
    readers.check(
        run.table(),
        [
            orders.order_expected({**one, "note": long_note}),
            {"id": 2, **blank},
            orders.order_expected({**order(3), "note": ""}),
        ],
    )
