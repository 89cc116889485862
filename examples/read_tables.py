#!/usr/bin/env python3
"""read_tables.py TABLE_DIR: the same files as an Iceberg table and as a Delta table."""

import pathlib
import sys
import uuid

from deltalake import DeltaTable
from pyiceberg.table import StaticTable


def comparable(value):
    """Delta has no uuid type: it shows the sixteen bytes."""
    return value.bytes if isinstance(value, uuid.UUID) else value


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    location = pathlib.Path(sys.argv[1]).resolve()
    iceberg = StaticTable.from_metadata(str(location)).scan().to_arrow()
    delta = DeltaTable(str(location / "data")).to_pyarrow_table()
    print(f"Iceberg: {iceberg.num_rows} rows, Delta: {delta.num_rows} rows, columns: {', '.join(iceberg.schema.names)}")
    key = iceberg.schema.names[0]
    same = sorted(map(comparable, iceberg[key].to_pylist())) == sorted(map(comparable, delta[key].to_pylist()))
    print(f"the same {key} in both: {'yes' if same else 'NO'}")
    sys.exit(0 if same else 1)


main()
