"""Iceberg REST catalogs: the two real ones of the tests, as the spec and as readers name them."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

import lab
import readers
import spark
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
