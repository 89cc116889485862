"""The schema registry: references, authentication, outages, and schemas that change in the midst of a topic."""

import lab
import readers
from produce import AvroWriter, Registry, Sent, create_topic, framed, send, unique
from siltstone import cluster, table, wait


def record(name: str, **fields) -> dict:
    """A record schema; a field is an Avro type, or what `optional` gives."""
    columns = [
        {"name": column, **kind}
        if isinstance(kind, dict) and "default" in kind
        else {"name": column, "type": kind}
        for column, kind in fields.items()
    ]
    return {"type": "record", "name": name, "namespace": "e2e", "fields": columns}


def optional(kind) -> dict:
    return {"type": ["null", kind], "default": None}


def test_references(engine, name):
    """A record that names another, which names a third: each registered by itself."""
    topic = create_topic()
    registry = Registry()
    country, address = unique("country"), unique("address")
    land = record("Country", code="string")
    street = record("Address", street="string", country="e2e.Country")
    customer = record("Customer", id="long", home="e2e.Address", work=["null", "e2e.Address"])
    registry.register(country, land)
    registry.register(address, street, references=[("e2e.Country", country, 1)])
    schema_id = registry.register(f"{topic}-value", customer, references=[("e2e.Address", address, 1)])

    whole = record(
        "Customer",
        id="long",
        home=record("Address", street="string", country=land),
        work=["null", "e2e.Address"],
    )
    writer = AvroWriter(whole, schema_id)
    rows = [
        {"id": 1, "home": {"street": "A", "country": {"code": "DE"}}, "work": None},
        {
            "id": 2,
            "home": {"street": "B", "country": {"code": "FR"}},
            "work": {"street": "C", "country": {"code": "IT"}},
        },
    ]
    send(topic, [Sent(writer(row)) for row in rows])
    run = engine([table(name, topic)])
    run.once()
    readers.check(run.table(), rows)


def test_basic_authentication(engine, name):
    url = lab.address("REGISTRY_AUTH")
    login = (lab.address("REGISTRY_USER"), lab.address("REGISTRY_PASSWORD"))
    topic = create_topic()
    schema = record("Row", id="long")
    writer = AvroWriter(schema, Registry(url, login).register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"id": n})) for n in range(5)])
    where = {"url": url, "username": "${E2E_REGISTRY_USER}", "password": "${E2E_REGISTRY_PASSWORD}"}
    good = {"E2E_REGISTRY_USER": login[0], "E2E_REGISTRY_PASSWORD": login[1]}

    run = engine(
        [table(name, topic)], [cluster(registry=where)], env={**good, "E2E_REGISTRY_PASSWORD": "guess-9917"}
    )
    ended = run.once(code=2)
    assert "guess-9917" not in ended.said
    run = engine([table(name, topic)], [cluster(registry=where)], env=good)
    run.once()
    readers.check(run.table(), [{"id": n} for n in range(5)])


def test_several_urls_are_tried_in_turn(engine, name):
    topic = create_topic()
    schema = record("Row", id="long")
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"id": 1}))])
    run = engine(
        [table(name, topic)], [cluster(registry={"url": ["http://127.0.0.1:9", lab.address("REGISTRY")]})]
    )
    run.once()
    readers.check(run.table(), [{"id": 1}], readers.ICEBERG)


def test_outage_holds_the_table_and_loses_nothing(engine, name, registry_proxy):
    """New schemas arrive while the registry fails in each of its ways; afterwards every record is there."""
    topic = create_topic(partitions=2)
    registry = Registry()
    run = engine([table(name, topic)], [cluster(registry=registry_proxy.url)])
    rows, number = [], 0

    def produce(version: int) -> None:
        nonlocal number
        fields = {f"added_{n}": optional("string") for n in range(version)}
        schema = record("Row", id="long", **fields)
        writer = AvroWriter(schema, registry.register(f"{topic}-value", schema))
        batch = []
        for _ in range(40):
            row = {"id": number, **{f: f"{f}-{number}" for f in fields}}
            rows.append(row)
            batch.append(Sent(writer(row), partition=number % 2))
            number += 1
        send(topic, batch)

    produce(0)
    worker = run.worker()
    wait(lambda: run.table().exists() and readers.count(run.table()) == 40, 40, "the first rows")
    for version, mode in enumerate(("refuse", "fail", "hang"), start=1):
        registry_proxy.mode = mode
        asked = len(registry_proxy.requests)
        produce(version)
        wait(lambda: len(registry_proxy.requests) > asked, 20, f"the worker to ask ({mode})")
        assert worker.code is None
        registry_proxy.mode = "forward"
        wait(lambda: readers.count(run.table()) == number, 60, f"all rows after the outage ({mode})")
    assert worker.stop() == 0
    columns = {field["name"] for field in run.table().fields()}
    readers.check(run.table(), [{**dict.fromkeys(columns), **row} for row in rows])
    assert not run.table().dead_letters.exists()


def test_restart_without_registry_waits(engine, name, registry_proxy):
    """A new process knows no schema: while the registry is away it neither drops nor rejects."""
    topic = create_topic()
    schema = record("Row", id="long")
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"id": n})) for n in range(10)])
    registry_proxy.mode = "refuse"
    run = engine([table(name, topic)], [cluster(registry=registry_proxy.url)])
    worker = run.worker()
    wait(lambda: registry_proxy.requests, 30, "the worker to ask")
    assert worker.code is None
    registry_proxy.mode = "forward"
    wait(lambda: run.table().exists() and readers.count(run.table()) == 10, 40, "all rows")
    assert not run.table().dead_letters.exists()


def test_schema_evolves_in_the_midst_of_a_topic(engine, name):
    """Added columns, widened numbers, a dropped column, ids interleaved: old and new records in one table.

    Iceberg's alone, for Delta cannot widen."""
    topic = create_topic(partitions=2)
    registry = Registry()
    versions = [
        (
            record("Row", id="long", count="int", ratio="float", gone="string"),
            lambda n: {"id": n, "count": n, "ratio": 0.5, "gone": f"g{n}"},
        ),
        (
            record("Row", id="long", count="long", ratio="float", gone="string", added=optional("string")),
            lambda n: {"id": n, "count": n + 2**40, "ratio": 0.25, "gone": f"g{n}", "added": f"a{n}"},
        ),
        (
            record(
                "Row",
                id="long",
                count="long",
                ratio="double",
                added=optional("string"),
                inner=optional(record("Inner", a="int")),
            ),
            lambda n: {"id": n, "count": n, "ratio": 0.1, "added": None, "inner": {"a": n}},
        ),
        (
            record(
                "Row",
                id="long",
                count="long",
                ratio="double",
                added=optional("string"),
                inner=optional(record("Inner", a="long", b=optional("string"))),
            ),
            lambda n: {"id": n, "count": -n, "ratio": 1e300, "added": "x", "inner": {"a": 2**50, "b": "b"}},
        ),
    ]
    writers = [
        (AvroWriter(schema, registry.register(f"{topic}-value", schema)), make) for schema, make in versions
    ]
    run = engine([table(name, topic, formats=["iceberg"])])
    rows, number = [], 0

    def produce(order) -> None:
        nonlocal number
        batch = []
        for version in order:
            writer, make = writers[version]
            row = make(number)
            rows.append(row)
            batch.append(Sent(writer(row), partition=number % 2))
            number += 1
        send(topic, batch)

    produce([0] * 20)
    run.once()
    produce([0, 1, 0, 1, 2, 0, 3, 2, 1, 0] * 6)
    run.once()
    produce([3, 0] * 10)
    run.once()

    types = {field["name"]: field["type"] for field in run.table().fields()}
    assert types["count"] == "long" and types["ratio"] == "double"
    blank = dict.fromkeys(("id", "count", "ratio", "gone", "added", "inner"))
    expected = []
    for row in rows:
        full = {**blank, **row}
        if full["inner"] is not None:
            full["inner"] = {"a": None, "b": None, **full["inner"]}
        expected.append(full)
    readers.check(run.table(), expected, {**readers.ICEBERG, "Spark Iceberg": readers.SPARK["Spark Iceberg"]})
    assert not run.table().dead_letters.exists()


def test_columns_are_added_in_both_formats(engine, name):
    """Also inside structs, lists and maps."""
    topic = create_topic()
    registry = Registry()
    small = record("Inner", a="int")
    large = record("Inner", a="int", b=optional("string"))

    def schema(inner, **more):
        return record(
            "Row",
            id="long",
            one=inner,
            many={"type": "array", "items": "e2e.Inner"},
            named={"type": "map", "values": "e2e.Inner"},
            **more,
        )

    first, second = schema(small), schema(large, added=optional("double"))
    old = AvroWriter(first, registry.register(f"{topic}-value", first))
    new = AvroWriter(second, registry.register(f"{topic}-value", second))
    before, after = {"a": 1}, {"a": 2, "b": "x"}
    send(topic, [Sent(old({"id": 0, "one": before, "many": [before], "named": {"k": before}}))])
    run = engine([table(name, topic)])
    run.once()
    send(
        topic,
        [
            Sent(new({"id": 1, "one": after, "many": [after, after], "named": {"k": after}, "added": 0.5})),
            Sent(old({"id": 2, "one": before, "many": [], "named": {}})),
        ],
    )
    run.once()
    full = {"a": 1, "b": None}
    readers.check(
        run.table(),
        [
            {"id": 0, "one": full, "many": [full], "named": {"k": full}, "added": None},
            {"id": 1, "one": after, "many": [after, after], "named": {"k": after}, "added": 0.5},
            {"id": 2, "one": full, "many": [], "named": {}, "added": None},
        ],
        readers.ALL,
    )
    assert not run.table().dead_letters.exists()


def test_widening_that_delta_cannot_follow(engine, name):
    """With both formats a wider type is incompatible: those records are kept aside, the table goes on."""
    topic = create_topic()
    registry = Registry()
    narrow, wide = record("Row", id="int"), record("Row", id="long")
    first = AvroWriter(narrow, registry.register(f"{topic}-value", narrow))
    send(topic, [Sent(first({"id": 1}))])
    run = engine([table(name, topic)])
    run.once()
    second = AvroWriter(wide, registry.register(f"{topic}-value", wide))
    send(topic, [Sent(second({"id": 2**40})), Sent(first({"id": 3}))])
    run.once()
    readers.check(run.table(), [{"id": 1}, {"id": 3}])
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert [(one["offset"], one["reason"]) for one in rejected] == [(1, "incompatible_schema")]


def test_new_table_begins_with_the_latest_schema(engine, name):
    """Records of older ids fit a wider type, also in Delta, which could not have followed from the narrow one."""
    topic = create_topic()
    registry = Registry()
    old, new = record("Row", id="int", gone="string"), record("Row", id="long")
    first = AvroWriter(old, registry.register(f"{topic}-value", old))
    second = AvroWriter(new, registry.register(f"{topic}-value", new))
    send(
        topic,
        [
            Sent(first({"id": 1, "gone": "a"})),
            Sent(second({"id": 2**40})),
            Sent(first({"id": 3, "gone": ""})),
        ],
    )
    run = engine([table(name, topic)])
    run.once()
    rows = [{"id": 1, "gone": "a"}, {"id": 2**40, "gone": None}, {"id": 3, "gone": ""}]
    readers.check(run.table(), rows, readers.ALL)
    assert not run.table().dead_letters.exists()


def test_older_records_that_do_not_fit_the_latest_schema(engine, name):
    """Only a registry that checks no compatibility lets this happen: the older ones are kept aside."""
    topic = create_topic()
    registry = Registry()
    old, new = record("Row", id="long", what="string"), record("Row", id="long", what="boolean")
    first = AvroWriter(old, registry.register(f"{topic}-value", old))
    second = AvroWriter(new, registry.register(f"{topic}-value", new))
    send(topic, [Sent(first({"id": 0, "what": "a"})), Sent(second({"id": 1, "what": True}))])
    run = engine([table(name, topic)])
    run.once()
    readers.check(run.table(), [{"id": 1, "what": True}])
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert [(one["offset"], one["reason"], one["schema_id"]) for one in rejected] == [
        (0, "incompatible_schema", first.schema_id)
    ]


def test_incompatible_schema_goes_to_the_dead_letters(engine, name):
    """A column that becomes another type: those records are rejected, the others go on."""
    topic = create_topic()
    registry = Registry()
    old, new = record("Row", id="long", what="string"), record("Row", id="long", what="boolean")
    first = AvroWriter(old, registry.register(f"{topic}-value", old))
    send(topic, [Sent(first({"id": 0, "what": "a"}))])
    run = engine([table(name, topic)])
    run.once()
    second = AvroWriter(new, registry.register(f"{topic}-value", new))
    send(topic, [Sent(second({"id": 1, "what": True})), Sent(first({"id": 2, "what": "b"}))])
    run.once()
    readers.check(run.table(), [{"id": 0, "what": "a"}, {"id": 2, "what": "b"}])
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert [(one["offset"], one["reason"], one["schema_id"]) for one in rejected] == [
        (1, "incompatible_schema", second.schema_id)
    ]


def test_latest_schema_for_bare_payloads(engine, name):
    topic = create_topic()
    schema = record("Row", id="long", note="string")
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    rows = [{"id": n, "note": f"n{n}"} for n in range(10)]
    send(topic, [Sent(writer(row)[5:]) for row in rows])
    run = engine([table(name, topic, schema_mode="registry_latest", wire_format="raw")])
    run.once()
    readers.check(run.table(), rows)


def test_inline_schema_needs_no_registry(engine, name):
    topic = create_topic()
    schema = record("Row", id="long", note="string")
    rows = [{"id": n, "note": f"n{n}"} for n in range(10)]
    writer = AvroWriter(schema, 1)
    send(topic, [Sent(writer(row)[5:]) for row in rows])
    run = engine([table(name, topic, input_schema={"avro": schema})], [cluster(registry=False)])
    run.once()
    readers.check(run.table(), rows)


def test_recursive_schema_is_refused_by_name(engine, name):
    topic = create_topic()
    schema = record("Tree", value="long", left=["null", "e2e.Tree"])
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"value": 1, "left": {"value": 2, "left": None}}))])
    run = engine([table(name, topic)])
    ended = run.once(code=None)
    assert ended.code != 0 or run.table().dead_letters.exists()
    if ended.code != 0:
        assert "Tree" in ended.err and name in ended.err


def test_unknown_schema_id_is_rejected_not_waited_for(engine, name):
    topic = create_topic()
    schema = record("Row", id="long")
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"id": 1})), Sent(framed(2_000_000_000, b"\x02")), Sent(writer({"id": 2}))])
    run = engine([table(name, topic)])
    run.once()
    readers.check(run.table(), [{"id": 1}, {"id": 2}])
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert [(one["offset"], one["reason"]) for one in rejected] == [(1, "unknown_schema_id")]
