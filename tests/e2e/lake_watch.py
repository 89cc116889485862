"""A table looked at from the side while workers change it: its numbers, and what it retains, read and checked.

Nothing here goes through a worker or its proxy. What is read of a snapshot or version must be, for each source partition,
exactly the rows of a prefix of what was sent to it: none twice, none left out.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable

import pyarrow.fs
from deltalake import DeltaTable, QueryBuilder

import files
import readers
from files import name_of
from stores import Table

# Iceberg metadata files that stay whatever names them, and those that the newest one names.
METADATA_KEPT, METADATA_LOG = 10, 100
# Manifests of one size that are merged.
MANIFESTS_FANOUT = 8
# Bytes of a snapshot in the table's metadata, at most; objects of Iceberg's metadata that a commit leaves, at most.
SNAPSHOT_BYTES, OBJECTS_A_COMMIT = 1_500, 5
# Sizes, within a factor of four, between the smallest file and half of a target size.
TIERS = 10
# Until others rewrite in the place of a worker that was killed: the group's session (45 s), a request that hangs (30 s),
# and their own turn.
REWRITTEN_SECONDS = 120.0
# Checkpoints of ledger and Delta log come about this often, and entries before the third newest one go.
CHECKPOINTS_SPAN = 4 * 100


@dataclasses.dataclass(frozen=True)
class Retained:
    """A snapshot or version that readers may still ask for, and how to read the ids of its rows."""

    name: str
    ids: Callable[[], list[int]]


class Watch:
    """One table. `snapshots_seconds` is `retention.snapshots`, which counts for Delta's versions too."""

    def __init__(self, table: Table, dice: random.Random, snapshots_seconds: float):
        self.table, self.dice, self.snapshots_seconds = table, dice, snapshots_seconds
        # Every entry of the ledger, also when it has left since.
        self.entries: list[dict] = []
        self.samples: list[dict] = []
        self.places: dict[int, tuple[int, int]] = {}
        self.known: dict[int, int] = {}
        self.expired_meanwhile = 0

    # --- Numbers ------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        return self.entries[-1]["version"] if self.entries else -1

    def replaces(self) -> int:
        return sum(entry["change"]["kind"] == "replace" for entry in self.entries)

    def read_ledger(self) -> None:
        """Takes over the entries that are new."""
        names = [name for name in self.table.list("_siltstone/ledger") if name.endswith(".json")]
        for name in names:
            if int(name.split(".")[0]) > self.version:
                self.entries.append(json.loads(self.table.read(f"_siltstone/ledger/{name}")))
        versions = [entry["version"] for entry in self.entries]
        assert versions == list(range(len(versions))), "the ledger has a hole, or entries left too soon"

    def sample(self) -> dict:
        """The table's numbers now; kept in `samples` too. Nothing before the table exists."""
        if not self.table.exists():
            return {}
        self.read_ledger()
        text, objects = self.table.read(_below(self.table, self.table.metadata_path())), listed(self.table)
        metadata = json.loads(text)
        live, named = (
            files.live_files(self.entries),
            {name_of(path) for entry in self.entries for path in paths_of(entry)},
        )
        sizes_of = {name_of(file["path"]): file["bytes"] for entry in self.entries for file in brought(entry)}
        data = [
            path
            for path in objects
            if path.startswith("data/") and path.endswith(".parquet") and path.count("/") == 1
        ]
        line = {
            "version": self.version,
            "replaces": self.replaces(),
            "live_files": len(live),
            "live_bytes": sum(sizes_of[name] for name in live),
            "manifests": self._manifests(),
            "snapshots": len(metadata["snapshots"]),
            "metadata_json_bytes": len(text),
            "data_objects": len(data),
            # Never named by the ledger: of killed workers, dropped rewrites, or about to be committed.
            "orphans": sum(name_of(path) not in named for path in data),
        }
        for name, folder in (
            ("iceberg", "metadata/"),
            ("delta", "data/_delta_log/"),
            ("ledger", "_siltstone/"),
        ):
            sizes = [size for path, size in objects.items() if path.startswith(folder)]
            line |= {f"{name}_objects": len(sizes), f"{name}_bytes": sum(sizes)}
        self.samples.append({"at": time.monotonic(), **line})
        return line

    def _manifests(self) -> int:
        table = readers.static_table(self.table)
        snapshot = table.current_snapshot()
        return len(snapshot.manifests(table.io)) if snapshot else 0

    def check_bounds(
        self, snapshots_max: int, max_inputs: int, target_size: int, window_seconds: float
    ) -> None:
        """Numbers of every sample are within what the policy allows, however old the table is.

        What is no longer needed may lie there for as long as `window_seconds`, and what was committed may wait
        `REWRITTEN_SECONDS` to be rewritten: their amounts are counted in commits.
        """
        for sample in self.samples:
            commits = self._commits_since(sample, window_seconds)
            tiers = len(oct(max(1, sample["live_files"]))) - 2
            bounds = {
                # Of each size so many are merged; what is larger is near the target size.
                "live_files": TIERS * max_inputs
                + 4 * -(-sample["live_bytes"] // target_size)
                + self._commits_since(sample, REWRITTEN_SECONDS),
                "snapshots": snapshots_max,
                "manifests": MANIFESTS_FANOUT * (tiers + 1),
                "metadata_json_bytes": snapshots_max * SNAPSHOT_BYTES + METADATA_LOG * 300 + 20_000,
                "iceberg_objects": OBJECTS_A_COMMIT * (commits + snapshots_max)
                + METADATA_LOG
                + METADATA_KEPT,
                "delta_objects": commits + CHECKPOINTS_SPAN,
                "ledger_objects": commits + CHECKPOINTS_SPAN,
            }
            over = {name: (sample[name], most) for name, most in bounds.items() if sample[name] > most}
            assert not over, f"more than the policy allows (found, bound): {over} in {sample}"

    def _commits_since(self, sample: dict, seconds: float) -> int:
        earlier = [one["version"] for one in self.samples if one["at"] < sample["at"] - seconds]
        return sample["version"] - max(earlier, default=0)

    # --- What is retained ---------------------------------------------------------------------------------------

    def read_some(self, sequences: dict[int, list[int]]) -> dict:
        """Reads one snapshot by each client and one version, chosen at random; says how many rows each has."""
        if not self.table.exists():
            return {}
        iceberg, delta = self.snapshots(), self.versions()
        chosen = [self.dice.choice(iceberg)[0], self.dice.choice(iceberg)[1]] if iceberg else []
        chosen += [self.dice.choice(delta)] if delta else []
        read = {one.name: self._check(one, sequences) for one in chosen}
        return {"read": read, "dead_letters": self._dead_letters()}

    def _dead_letters(self) -> int:
        """How many there are now; none twice."""
        letters = self.table.dead_letters
        if not letters.exists():
            return 0
        found = (
            readers.static_table(letters).scan(selected_fields=("partition", "offset")).to_arrow().to_pylist()
        )
        places = {(one["partition"], one["offset"]) for one in found}
        assert len(places) == len(found), f"{len(found) - len(places)} rejected records twice"
        return len(found)

    def read_all_retained(self, sequences: dict[int, list[int]], most: int = 20) -> int:
        """The same for all there is, or for so many of each kind, evenly; gives how many were read."""
        iceberg, delta = self.snapshots(), self.versions()
        chosen = [pair[number % 2] for number, pair in enumerate(_evenly(iceberg, most))] + _evenly(
            delta, most
        )
        for one in chosen:
            self._check(one, sequences)
        return len(chosen)

    def snapshots(self) -> list[tuple[Retained, Retained]]:
        """Iceberg's, each as two clients read it."""
        table = readers.static_table(self.table)
        where = self.table.store.url(self.table.metadata_path())

        def by_pyiceberg(number: int):
            return lambda: (
                table.scan(snapshot_id=number, selected_fields=("id",)).to_arrow().column("id").to_pylist()
            )

        def by_duckdb(number: int):
            query = f"select id from iceberg_scan('{where}', snapshot_from_id = {number})"
            return lambda: readers._duckdb(self.table, query).column("id").to_pylist()

        numbers = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
        return [
            (
                Retained(f"PyIceberg {number}", by_pyiceberg(number)),
                Retained(f"DuckDB {number}", by_duckdb(number)),
            )
            for number in numbers
        ]

    def versions(self) -> list[Retained]:
        """Delta's that were committed within `retention.snapshots`, and the newest."""

        def read(version: int):
            def ids() -> list[int]:
                url, options = readers.delta_url(self.table), self.table.store.delta_options
                delta = DeltaTable(url, version=version, storage_options=options)
                found = QueryBuilder().register("t", delta).execute("select id from t").read_all()
                return found["id"].to_pylist()

            return ids

        selector = pyarrow.fs.FileSelector(self.table.store.inner(f"{self.table.location}/data/_delta_log"))
        commits = [
            info for info in self.table.filesystem.get_file_info(selector) if info.base_name.endswith(".json")
        ]
        since = time.time() - self.snapshots_seconds
        ages = sorted((int(info.base_name.split(".")[0]), info.mtime.timestamp()) for info in commits)
        numbers = [number for number, then in ages if then > since or number == ages[-1][0]]
        return [Retained(f"delta-rs {number}", read(number)) for number in numbers]

    def _check(self, one: Retained, sequences: dict[int, list[int]]) -> int | None:
        """Its rows; None when it left while it was read."""
        try:
            ids = one.ids()
        except Exception:
            still = [name.name for pair in self.snapshots() for name in pair] + [
                left.name for left in self.versions()
            ]
            if one.name in still:
                raise
            self.expired_meanwhile += 1
            return None
        self.check_prefixes(one.name, ids, sequences)
        return len(ids)

    def check_prefixes(self, name: str, ids: list[int], sequences: dict[int, list[int]]) -> None:
        for partition, sequence in sequences.items():
            for place in range(self.known.get(partition, 0), len(sequence)):
                self.places[sequence[place]] = (partition, place)
                self.known[partition] = place + 1
        assert len(ids) == len(set(ids)), f"{name}: {len(ids) - len(set(ids))} rows twice"
        found: dict[int, list[int]] = {}
        for number in ids:
            partition, place = self.places[number]
            found.setdefault(partition, []).append(place)
        for partition, places in found.items():
            missing = sorted(set(range(max(places) + 1)) - set(places))
            assert not missing, f"{name}: partition {partition} lacks rows {missing[:5]} of {max(places) + 1}"


# --- What lies in the bucket ------------------------------------------------------------------------------------


def listed(table: Table) -> dict[str, int]:
    """Path below the table -> bytes, of everything there."""
    selector = pyarrow.fs.FileSelector(table.store.inner(table.location), recursive=True)
    infos = table.filesystem.get_file_info(selector)
    return {_below(table, info.path): info.size for info in infos if info.type == pyarrow.fs.FileType.File}


def unnamed(table: Table) -> list[str]:
    """Data files and Iceberg's metadata files that neither the ledger, nor a retained snapshot, nor Delta names."""
    named = {name_of(path) for entry in table.ledger() for path in paths_of(entry)} | set(
        files.delta_files(table)
    )
    named |= {"version-hint.text"}
    iceberg = readers.static_table(table)
    newest = int(name_of(table.metadata_path()).removeprefix("v").removesuffix(".metadata.json"))
    named |= {f"v{newest - back}.metadata.json" for back in range(METADATA_KEPT)}
    named |= {name_of(entry.metadata_file) for entry in iceberg.metadata.metadata_log}
    for snapshot in iceberg.metadata.snapshots:
        named.add(name_of(snapshot.manifest_list))
        for manifest in snapshot.manifests(iceberg.io):
            named.add(name_of(manifest.manifest_path))
            named |= {
                name_of(entry.data_file.file_path) for entry in manifest.fetch_manifest_entry(iceberg.io)
            }
    own = [
        path
        for path in listed(table)
        if path.startswith(("data/", "metadata/")) and "/_delta_log/" not in path
    ]
    return sorted(path for path in own if name_of(path) not in named)


def paths_of(entry: dict) -> list[str]:
    """Every file that a ledger entry brings or takes away."""
    return [file["path"] for file in brought(entry)] + entry["change"].get("removed", [])


def brought(entry: dict) -> list[dict]:
    return entry["change"].get("files", []) + entry["change"].get("added", [])


def _below(table: Table, path: str) -> str:
    return path.split(f"{table.location}/", 1)[1]


def _evenly(all_: list, most: int) -> list:
    step = max(1, -(-len(all_) // most))
    return all_[::-1][::step]
