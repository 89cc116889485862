"""Where tables lie: a folder or a bucket of one of three clouds, as each client wants to be told."""

from __future__ import annotations

import dataclasses
import json

import pyarrow.fs

import lab


@dataclasses.dataclass(frozen=True)
class Folder:
    """A `file://` destination."""

    path: str

    @property
    def destination(self) -> str:
        return f"file://{self.path}"

    def url(self, path: str) -> str:
        return f"{self.path}/{path}"

    def file_url(self, path: str) -> str:
        return f"file://{self.path}/{path}"

    def inner(self, path: str) -> str:
        return f"{self.path}/{path}"

    def filesystem(self):
        return pyarrow.fs.LocalFileSystem()

    env: dict = dataclasses.field(default_factory=dict, hash=False)
    delta_options: dict = dataclasses.field(default_factory=dict, hash=False)
    iceberg_options: dict = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """An `s3://` destination on the S3 service of the tests."""

    prefix: str

    @property
    def env(self) -> dict:
        """What the engine finds in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": lab.address("S3_ACCESS_KEY"),
            "AWS_SECRET_ACCESS_KEY": lab.address("S3_SECRET_KEY"),
        }

    @property
    def bucket(self) -> str:
        return lab.address("S3_BUCKET")

    @property
    def destination(self) -> str:
        endpoint = lab.address("S3_ENDPOINT")
        return f"s3://{self.bucket}/{self.prefix}?region=us-east-1&endpoint={endpoint}&allow_http=true&path_style=true"

    def url(self, path: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}/{path}"

    file_url = url

    def inner(self, path: str) -> str:
        return f"{self.bucket}/{self.prefix}/{path}"

    def filesystem(self):
        return pyarrow.fs.S3FileSystem(
            access_key=lab.address("S3_ACCESS_KEY"),
            secret_key=lab.address("S3_SECRET_KEY"),
            endpoint_override=lab.address("S3_ENDPOINT"),
            region="us-east-1",
        )

    @property
    def delta_options(self) -> dict:
        return {
            "AWS_ENDPOINT_URL": lab.address("S3_ENDPOINT"),
            "AWS_ACCESS_KEY_ID": lab.address("S3_ACCESS_KEY"),
            "AWS_SECRET_ACCESS_KEY": lab.address("S3_SECRET_KEY"),
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    @property
    def iceberg_options(self) -> dict:
        return {
            "s3.endpoint": lab.address("S3_ENDPOINT"),
            "s3.access-key-id": lab.address("S3_ACCESS_KEY"),
            "s3.secret-access-key": lab.address("S3_SECRET_KEY"),
            "s3.region": "us-east-1",
        }


@dataclasses.dataclass(frozen=True)
class GoogleBucket:
    """A `gs://` destination: the engine and delta-rs ask by the XML API, the other readers by the JSON API."""

    prefix: str
    # Before the service, when a test stands something there.
    endpoint: str | None = None
    env: dict = dataclasses.field(default_factory=dict, hash=False)

    @property
    def destination(self) -> str:
        endpoint = self.endpoint or lab.address("GCS_XML_ENDPOINT")
        return f"{self.url('')}?endpoint={endpoint}&allow_http=true&skip_signature=true".replace("/?", "?")

    def url(self, path: str) -> str:
        return f"gs://{lab.address('GCS_BUCKET')}/{self.prefix}/{path}"

    file_url = url

    def inner(self, path: str) -> str:
        return f"{lab.address('GCS_BUCKET')}/{self.prefix}/{path}"

    def filesystem(self):
        address = lab.address("GCS_ENDPOINT").removeprefix("http://")
        return pyarrow.fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=address)

    @property
    def delta_options(self) -> dict:
        return {
            "google_base_url": lab.address("GCS_XML_ENDPOINT"),
            "google_skip_signature": "true",
            "allow_http": "true",
        }

    @property
    def iceberg_options(self) -> dict:
        # Any token does; without one the client looks for a real one.
        return {
            "gcs.service.host": lab.address("GCS_ENDPOINT"),
            "gcs.oauth2.token": "lab",
            "gcs.oauth2.token-expires-at": "4102444800000",
        }


@dataclasses.dataclass(frozen=True)
class AzureContainer:
    """An `az://` destination on the storage emulator, with its options or as any account with an endpoint."""

    prefix: str
    emulator: bool = True

    @property
    def endpoint(self) -> str:
        return f"{lab.address('AZURE_ENDPOINT')}/{lab.address('AZURE_ACCOUNT')}"

    @property
    def destination(self) -> str:
        place = f"az://{lab.address('AZURE_CONTAINER')}/{self.prefix}"
        if self.emulator:
            return f"{place}?use_emulator=true"
        account = lab.address("AZURE_ACCOUNT")
        return f"{place}?account={account}&endpoint={self.endpoint}&allow_http=true"

    @property
    def env(self) -> dict:
        if self.emulator:
            return {"AZURITE_BLOB_STORAGE_URL": lab.address("AZURE_ENDPOINT")}
        return {"AZURE_STORAGE_ACCOUNT_KEY": lab.address("AZURE_KEY")}

    def url(self, path: str) -> str:
        host = f"{lab.address('AZURE_CONTAINER')}@{lab.address('AZURE_ACCOUNT')}.dfs.core.windows.net"
        return f"abfss://{host}/{self.prefix}/{path}"

    file_url = url

    def inner(self, path: str) -> str:
        return f"{lab.address('AZURE_CONTAINER')}/{self.prefix}/{path}"

    def filesystem(self):
        address = lab.address("AZURE_ENDPOINT").removeprefix("http://")
        return pyarrow.fs.AzureFileSystem(
            account_name=lab.address("AZURE_ACCOUNT"),
            account_key=lab.address("AZURE_KEY"),
            blob_storage_authority=address,
            dfs_storage_authority=address,
            blob_storage_scheme="http",
            dfs_storage_scheme="http",
        )

    @property
    def delta_options(self) -> dict:
        return {
            "azure_storage_account_name": lab.address("AZURE_ACCOUNT"),
            "azure_storage_account_key": lab.address("AZURE_KEY"),
            "azure_storage_endpoint": self.endpoint,
            "allow_http": "true",
        }

    @property
    def iceberg_options(self) -> dict:
        words = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": lab.address("AZURE_ACCOUNT"),
            "AccountKey": lab.address("AZURE_KEY"),
            "BlobEndpoint": f"{self.endpoint};",
        }
        return {"adls.connection-string": ";".join(f"{name}={value}" for name, value in words.items())}


class Table:
    """A table by its place: reads the files that a client without a catalog reads."""

    def __init__(self, store: Folder | Bucket | GoogleBucket | AzureContainer, name: str):
        self.store = store
        self.name = name
        self.location = name.replace(".", "/")
        self.filesystem = store.filesystem()

    @property
    def dead_letters(self) -> Table:
        return Table(self.store, f"{self.name}__dead_letters")

    def read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(self.store.inner(f"{self.location}/{path}")) as stream:
            return stream.read()

    def list(self, folder: str) -> list[str]:
        """Names of the files in a folder of the table."""
        selector = pyarrow.fs.FileSelector(
            self.store.inner(f"{self.location}/{folder}"), allow_not_found=True
        )
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pyarrow.fs.FileType.File)

    def names_below(self, folder: str) -> list[str]:
        """Paths of everything in the destination below a folder, whichever table it is of."""
        selector = pyarrow.fs.FileSelector(
            self.store.inner(folder).rstrip("/"), recursive=True, allow_not_found=True
        )
        return [info.path for info in self.filesystem.get_file_info(selector)]

    def exists(self) -> bool:
        return "version-hint.text" in self.list("metadata")

    def metadata_version(self) -> int:
        return int(self.read("metadata/version-hint.text").decode().strip().lstrip("v"))

    def metadata_path(self) -> str:
        """The newest metadata file: the hint, or a later one, for the hint is written after it."""
        version = self.metadata_version()
        names = set(self.list("metadata"))
        while f"v{version + 1}.metadata.json" in names:
            version += 1
        return f"{self.location}/metadata/v{version}.metadata.json"

    def metadata(self) -> dict:
        with self.filesystem.open_input_stream(self.store.inner(self.metadata_path())) as stream:
            return json.loads(stream.read())

    def fields(self) -> list[dict]:
        """Columns of the current schema, in Iceberg's JSON form."""
        metadata = self.metadata()
        current = metadata["current-schema-id"]
        return next(schema["fields"] for schema in metadata["schemas"] if schema["schema-id"] == current)

    def ledger(self) -> list[dict]:
        """Every ledger entry that still lies there, in order."""
        names = self.list("_siltstone/ledger")
        return [
            json.loads(self.read(f"_siltstone/ledger/{name}")) for name in names if name.endswith(".json")
        ]

    def delta_log(self) -> list[list[dict]]:
        """Every Delta log entry that still lies there, in order: its actions."""
        names = [name for name in self.list("data/_delta_log") if name.endswith(".json")]
        texts = [self.read(f"data/_delta_log/{name}").decode() for name in names]
        return [[json.loads(line) for line in text.splitlines() if line] for text in texts]

    def committed_ranges(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """(topic, partition) -> the offset ranges that the ledger names, in order of commit."""
        ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for entry in self.ledger():
            for one in entry["change"].get("ranges", []):
                ranges.setdefault((one["topic"], one["partition"]), []).append((one["start"], one["end"]))
        return ranges
