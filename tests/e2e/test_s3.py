"""Tables in an S3 bucket, read there by every client; and stores that cannot keep the promise are refused."""

import lab
import orders
import files
import readers
from produce import Sent, send
from proxies import UnconditionalS3
from siltstone import wait

import pytest


def test_tables_in_a_bucket(engine, name, bucket):
    topic = orders.topic_of(300, partitions=2)
    spec = orders.orders_table(name, topic, partition_by=["day(ordered_at)"], sort_by=["customer_id", "id"])
    run = engine([spec], store=bucket)
    run.once()
    send(topic, [Sent(b"junk"), *orders.records(300, 100, 2)])
    run.once()
    lake = run.table()
    files.check_same_files(lake)
    files.check_layout(lake)
    files.check_sorted(lake, [("customer_id", False, True), ("id", False, True)])
    readers.check(lake, orders.rows(0, 400), readers.ALL)
    assert readers.count(lake.dead_letters) == 1
    status = run.json("status", name)[0]
    assert status["rows"] == 400 and status["lag_records"] == 0
    # Credentials are nowhere in what was written or said.
    said = run.once().said + run.spec.read_text() + "".join(map(str, lake.ledger()))
    assert lab.address("S3_SECRET_KEY") not in said


def test_two_workers_in_a_bucket(engine, name, bucket):
    """Conditional puts keep two writers apart."""
    topic = orders.topic_of(100, partitions=4)
    run = engine([orders.orders_table(name, topic)], store=bucket)
    workers = [run.worker(), run.worker()]
    for first in range(100, 500, 50):
        send(topic, orders.records(first, 50, 4))
    wait(lambda: run.table().exists() and readers.count(run.table()) == 500, 90, "all rows")
    assert [worker.stop() for worker in workers] == [0, 0]
    readers.check(run.table(), orders.rows(0, 500))


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores-the-condition", "refuses-the-condition"])
def test_store_without_conditional_puts_is_refused(engine, name, bucket, refuses):
    fake = UnconditionalS3(refuses)
    try:

        class Fake(type(bucket)):
            @property
            def destination(self):
                return f"s3://lake/{self.prefix}?region=us-east-1&endpoint={fake.url}&allow_http=true&path_style=true"

        topic = orders.topic_of(10)
        run = engine([orders.orders_table(name, topic)], store=Fake(bucket.prefix))
        ended = run.once(code=None)
        assert ended.code in (1, 2), ended.said
        assert "conditional" in ended.err.lower(), ended.err
        assert not [key for key in fake.objects if "/data/" in key or "/ledger/" in key], list(fake.objects)
    finally:
        fake.close()


def test_wrong_key_fails(engine, name, bucket):
    topic = orders.topic_of(1)
    run = engine(
        [orders.orders_table(name, topic)],
        store=bucket,
        env={"AWS_SECRET_ACCESS_KEY": "guess-2718"},
    )
    ended = run.once(code=None)
    assert ended.code in (1, 2) and "guess-2718" not in ended.said
