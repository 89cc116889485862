"""Tables in Google Cloud Storage and Azure Blob Storage, by emulators: written, raced for, read by other clients."""

import dataclasses

import chaos
import files
import lab
import orders
import readers
from produce import Sent, send
from siltstone import wait

def written_and_read(engine, name, store):
    topic = orders.topic_of(300, partitions=2)
    spec = orders.orders_table(name, topic, partition_by=["day(ordered_at)"], sort_by=["customer_id", "id"])
    run = engine([spec], store=store)
    run.once()
    rejected = send(topic, [Sent(b"junk"), *orders.records(300, 100, 2)])[:1]
    run.once()
    lake = run.table()
    files.check_same_files(lake)
    files.check_sorted(lake, [("customer_id", False, True), ("id", False, True)])
    chaos.check_in_the_end(lake, orders.rows(0, 400), topic, rejected, chaos.CLOUD)
    assert lake.metadata()["location"] == store.url(lake.location)
    status = run.json("status", name)[0]
    assert status["rows"] == 400 and status["lag_records"] == 0
    # The probe leaves nothing behind.
    assert not [path for path in lake.names_below("") if "_siltstone_probe" in path]
    return run


def raced_for(engine, name, store):
    """Two workers commit to one table: each version has one winner, and no row is there twice."""
    topic = orders.topic_of(100, partitions=4)
    spec = orders.orders_table(name, topic, freshness={"max_age": "200ms"})
    run = engine([spec], store=store)
    workers = [run.worker(), run.worker()]
    for first in range(100, 500, 50):
        send(topic, orders.records(first, 50, 4))
    wait(lambda: run.table().exists() and readers.count(run.table()) == 500, 90, "all rows")
    assert [worker.stop() for worker in workers] == [0, 0]
    readers.check(run.table(), orders.rows(0, 500), chaos.CLOUD)
    files.check_same_files(run.table())


def test_google(engine, name, google):
    written_and_read(engine, name, google)


def test_two_workers_in_google(engine, name, google):
    raced_for(engine, name, google)


def test_google_that_takes_no_xml_is_refused(engine, name, google):
    """The emulator itself refuses the puts by which objects are made conditionally: nothing is written."""
    bare = dataclasses.replace(google, endpoint=lab.address("GCS_ENDPOINT"))
    topic = orders.topic_of(10)
    run = engine([orders.orders_table(name, topic)], store=bare)
    ended = run.once(code=None)
    assert ended.code in (1, 2) and "a probe object cannot be written" in ended.err, ended.said
    assert not run.table().names_below("")


def test_azure(engine, name, azure):
    run = written_and_read(engine, name, azure)
    said = run.once().said + run.spec.read_text() + "".join(map(str, run.table().ledger()))
    assert lab.address("AZURE_KEY") not in said


def test_two_workers_in_azure(engine, name, azure):
    raced_for(engine, name, azure)


def test_wrong_key_of_azure_fails(engine, name, azure):
    azure = dataclasses.replace(azure, emulator=False)
    guess = "Z3Vlc3MtMjcxOA=="
    topic = orders.topic_of(1)
    run = engine([orders.orders_table(name, topic)], store=azure, env={"AZURE_STORAGE_ACCOUNT_KEY": guess})
    ended = run.once(code=None)
    assert ended.code in (1, 2) and guess not in ended.said, ended.said
