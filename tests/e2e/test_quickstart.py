"""The quickstart: one command, no services, tables that every reader opens."""

import pathlib

import readers
from siltstone import Siltstone
from stores import Folder, Table


def test_quickstart(binary, tmp_path):
    target = tmp_path / "demo"
    run = Siltstone(binary, tmp_path, Folder(str(tmp_path / "unused")), [], [{"name": "none"}])
    ended = run.run("quickstart", "--dir", str(target), "--orders", "2000", timeout=180)
    for word in ("DuckDB", "Spark", "PyIceberg", "iceberg", "delta"):
        assert word.lower() in ended.out.lower(), word
    hints = [
        path
        for path in pathlib.Path(target).rglob("metadata/version-hint.text")
        if "__dead_letters" not in str(path)
    ]
    assert hints, list(pathlib.Path(target).rglob("*"))[:50]
    for hint in hints:
        place = hint.parent.parent
        table = Table(Folder(str(place.parent)), place.name)
        seen = {name: sorted(map(repr, readers.rows(table, reader))) for name, reader in readers.ALL.items()}
        [rows] = {tuple(rows) for rows in seen.values()}
        assert len(rows) > 0
    # Again over what is there: it starts anew.
    run.run("quickstart", "--dir", str(target), "--orders", "500", timeout=180)
