"""Iceberg REST catalogs: the two real ones of the tests, and what may stand before them."""

from __future__ import annotations

import dataclasses
import ssl
import threading
import urllib.parse

import pyarrow as pa
import requests

import lab
import readers
import spark
from proxies import _Quiet, _Server, _cut
from stores import Bucket, Table


@dataclasses.dataclass(frozen=True)
class TableBucket(Bucket):
    """A destination inside the table bucket, which is all that SeaweedFS's catalog takes as a table's location."""

    prefix: str = ""

    @property
    def bucket(self) -> str:
        return lab.address("S3_TABLE_BUCKET")

    @property
    def destination(self) -> str:
        endpoint = lab.address("S3_ENDPOINT")
        return f"s3://{self.bucket}?region=us-east-1&endpoint={endpoint}&allow_http=true&path_style=true"

    def url(self, path: str) -> str:
        return f"s3://{self.bucket}/{path}"

    file_url = url

    def inner(self, path: str) -> str:
        return f"{self.bucket}/{path}"


@dataclasses.dataclass(frozen=True)
class Catalog:
    """One catalog, as the spec and as PyIceberg name it."""

    uri: str
    store: Bucket
    spec: dict
    client: dict
    # What the spec refers to.
    env: dict

    def entry(self, **changes) -> dict:
        """For a table's `catalogs`."""
        return {"type": "rest", "uri": self.uri, **self.spec, **changes}

    def pyiceberg(self, **changes):
        from pyiceberg.catalog import load_catalog

        options = {**self.store.iceberg_options, **self.client, **changes}
        return load_catalog("rest", type="rest", uri=self.uri, **options)

    def load(self, name: str):
        return self.pyiceberg().load_table(name)


def iceberg(prefix: str) -> Catalog:
    """Iceberg's own server. It takes any credential, and hands the store's out."""
    return Catalog(lab.address("ICEBERG"), Bucket(prefix), {}, {}, {})


def seaweed(auth: str = "oauth2") -> Catalog:
    """SeaweedFS's, with OAuth2 or with AWS signatures."""
    key, secret = lab.address("S3_ACCESS_KEY"), lab.address("S3_SECRET_KEY")
    warehouse = {"warehouse": f"s3://{lab.address('S3_TABLE_BUCKET')}"}
    spec = {
        "oauth2": {"oauth2": {"client_id": "${CATALOG_ID}", "client_secret": "${CATALOG_SECRET}"}},
        "sigv4": {"sigv4": {"region": "us-east-1", "signing_name": "s3tables"}},
    }[auth]
    # PyIceberg signs by boto3, which the tests do without: it logs in by OAuth2 in any case.
    client = {"credential": f"{key}:{secret}"}
    env = {"CATALOG_ID": key, "CATALOG_SECRET": secret}
    return Catalog(
        lab.address("S3_CATALOG"), TableBucket(), {**warehouse, **spec}, {**warehouse, **client}, env
    )


class CatalogTable(Table):
    """A table by its place, whose metadata a catalog keeps."""

    def __init__(self, catalog: Catalog, name: str):
        super().__init__(catalog.store, name)
        self.catalog = catalog

    @property
    def dead_letters(self) -> CatalogTable:
        return CatalogTable(self.catalog, f"{self.name}__dead_letters")

    def exists(self) -> bool:
        return self.catalog.pyiceberg().table_exists(self.name)

    def metadata_path(self) -> str:
        location = self.catalog.load(self.name).metadata_location
        return location.removeprefix(self.store.url(""))

    def metadata_version(self) -> int:
        return len(self.metadata()["metadata-log"])


def _pyiceberg(table: CatalogTable) -> pa.Table:
    return table.catalog.load(table.name).scan().to_arrow()


def _duckdb(table: CatalogTable) -> pa.Table:
    """Through the catalog, with the bucket's keys."""
    connection = readers.new_duckdb()
    readers.duckdb_secret(connection, table.store)
    catalog = table.catalog
    warehouse = catalog.client.get("warehouse", "")
    if "credential" in catalog.client:
        client, secret = catalog.client["credential"].split(":")
        connection.execute(
            f"create secret door (type iceberg, client_id '{client}', client_secret '{secret}', "
            f"oauth2_server_uri '{catalog.uri}/v1/oauth/tokens')"
        )
        login = "secret door, default_region 'us-east-1'"
    else:
        login = "authorization_type 'none'"
    connection.execute(f"attach '{warehouse}' as lake (type iceberg, endpoint '{catalog.uri}', access_delegation_mode 'none', {login})")
    outer, own = table.name.rsplit(".", 1)
    result = connection.execute(f'select * from lake."{outer}"."{own}"').arrow()
    return result.read_all() if isinstance(result, pa.RecordBatchReader) else result


def _spark(table: CatalogTable) -> pa.Table:
    name = f"rest{abs(hash(table.catalog.uri)) % 10**9}"
    settings = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": table.catalog.uri,
        ".cache-enabled": "false",
        ".io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
        **{f".{key}": value for key, value in table.catalog.client.items()},
    }
    for key, value in settings.items():
        spark.sql(f"SET `spark.sql.catalog.{name}{key}`={value}")
    return spark.sql(f"SELECT * FROM {name}.{table.name}")


READERS = {"PyIceberg": _pyiceberg, "DuckDB by catalog": _duckdb}
SPARK = {"Spark by catalog": _spark}


class CatalogProxy:
    """Stands before a catalog. `lose` of the next commits are made, and nobody is told; `refuse` of the next
    requests are answered 401; `break_` of the next commits are not made, and nobody is told. `before` is called
    before each commit is passed on."""

    def __init__(self, target: str, tls: bool = False):
        self.target = target
        self.lose = self.refuse = self.break_ = self.fail = 0
        self.before = None
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(_Quiet):
            def do(self):
                proxy._handle(self)

            do_GET = do_HEAD = do_POST = do_DELETE = do

        self.server = _Server(Handler)
        self.url = self.server.url
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"{lab.address('TLS')}/server.pem")
            served = self.server.server
            served.socket = context.wrap_socket(served.socket, server_side=True)
            self.url = self.url.replace("http://", "https://")

    def _take(self, what: str) -> bool:
        with self.lock:
            left = getattr(self, what)
            setattr(self, what, max(0, left - 1))
            return left > 0

    def _handle(self, request: _Quiet) -> None:
        body = request.body()
        path = urllib.parse.urlsplit(request.path).path
        commit = request.command == "POST" and "/tables/" in path
        if "/oauth/" not in path and "/config" not in path and self._take("refuse"):
            return request.answer(401, b'{"error":{"message":"x","type":"NotAuthorizedException","code":401}}')
        if commit and self._take("fail"):
            return request.answer(503, b"{}")
        if commit and self._take("break_"):
            return _cut(request)
        if commit and self.before:
            self.before()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        got = requests.request(
            request.command, self.target + request.path, data=body, headers=headers, timeout=60
        )
        with self.lock:
            self.requests.append((request.command, path, got.status_code))
        if commit and got.ok and self._take("lose"):
            return _cut(request)
        return request.answer(
            got.status_code, got.content, Content_Type=got.headers.get("Content-Type", "application/json")
        )

    def close(self) -> None:
        self.server.close()
