#!/usr/bin/env python3
"""Bytes that a query reads from an S3 server: of a table as it was ingested, and after `siltstone compact`.

    python3 benches/point_query.py [--rows 5000000] [--files 500] [--queries 5]

Orders are ingested into `--files` small files, each of them over the whole range of the sort key. DuckDB then asks, by
`iceberg_scan` and by `delta_scan`, for all rows of one customer (`point`) and for those of a thousandth of the customers
(`range`), each query in a new connection without caches, through a proxy that counts requests and bytes of the store's answers by
what they are of: data files, and the formats' metadata. Then the table is compacted and the same is asked again; the answers must
be equal. Prints a JSON line for each query and state of the table, with means over `--queries` keys, and one for each query
with the ratios. Needs the Python and the services of the end-to-end tests."""

import contextlib
import os
import sys

from bench import parsed, report
from lake import Orders, options_with_services

import files
import readers
from proxies import S3Proxy

RANGE = 200_000 // 1000
QUERIES = {"point": 0, "range": RANGE - 1}
METADATA = ("iceberg", "delta", "list", "other")


def sources(orders):
    """How each format is named in a query."""
    metadata = orders.store.url(orders.table.metadata_path())
    return {"iceberg_scan": f"iceberg_scan('{metadata}')", "delta_scan": f"delta_scan('{readers.delta_url(orders.table)}')"}


@contextlib.contextmanager
def proxied(proxy):
    """Delta's reader takes its proxy from the environment."""
    before = dict(os.environ)
    os.environ.update(proxy.env)
    try:
        yield
    finally:
        for name in proxy.env.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def some_customers(orders, count):
    """Customers that have orders, always the same ones."""
    with contextlib.closing(readers.new_duckdb()) as connection:
        readers.duckdb_secret(connection, orders.store)
        source = sources(orders)["iceberg_scan"]
        query = f"select customer_id from (select distinct customer_id from {source}) order by hash(customer_id) limit {count}"
        return [customer for (customer,) in connection.execute(query).fetchall()]


def ask(orders, proxy, source, first, last):
    """The answer, the data bytes, the metadata bytes and the requests of one query."""
    proxy.reset_counts()
    where = f"customer_id = {first}" if first == last else f"customer_id between {first} and {last}"
    with proxied(proxy), contextlib.closing(readers.new_duckdb()) as connection:
        readers.duckdb_secret(connection, orders.store)
        connection.execute(f"set http_proxy = '{proxy.url}'")
        rows = connection.execute(f"select * from {source} where {where} order by id").fetchall()
    metadata = sum(proxy.bytes[kind] for kind in METADATA)
    return rows, {"data_bytes": proxy.bytes["data"], "metadata_bytes": metadata, "data_requests": proxy.requests["data"],
                  "requests": sum(proxy.requests.values())}


def measured(options, orders, proxy, state, customers):
    """By (source, query): the answers, and the mean of what they cost."""
    live = len(files.iceberg_files(orders.table))
    found = {}
    for source, call in sources(orders).items():
        for query, width in QUERIES.items():
            asked = [ask(orders, proxy, call, first, first + width) for first in customers]
            mean = {name: round(sum(cost[name] for _, cost in asked) / len(asked)) for name in asked[0][1]}
            found[source, query] = [rows for rows, _ in asked], mean
            rows = sum(len(rows) for rows, _ in asked) / len(asked)
            report({"state": state, "files": live, "source": source, "query": query, "rows": rows, **mean}, options.out)
    return found


def main():
    options = options_with_services(__doc__)
    options.add_argument("--rows", type=int, default=5_000_000)
    options.add_argument("--files", type=int, default=500)
    options.add_argument("--queries", type=int, default=5)
    options.add_argument("--row-group", help="files.row_group_bytes of the table")
    options.add_argument("--target-size", help="files.target_size of the table")
    options.add_argument("--out")
    options = parsed(options)
    sizes = {"row_group_bytes": options.row_group, "target_size": options.target_size}
    sizes = {name: value for name, value in sizes.items() if value}
    orders = Orders(options, options.rows, options.files, files=sizes)
    proxy = S3Proxy()
    customers = some_customers(orders, options.queries)
    before = measured(options, orders, proxy, "ingested", customers)
    orders.run("compact")
    after = measured(options, orders, proxy, "compacted", customers)
    for key, (rows, cost) in before.items():
        if rows != after[key][0] or not any(rows):
            sys.exit(f"{key}: the answers before and after differ, or are empty")
        ratio = {name: round(cost[name] / max(1, after[key][1][name]), 1) for name in cost}
        both = [found["data_bytes"] + found["metadata_bytes"] for found in (cost, after[key][1])]
        report({"source": key[0], "query": key[1], "times_fewer": {**ratio, "all_bytes": round(both[0] / both[1], 1)}},
               options.out)


main()
