"""The checksum of data: arrays, sparse matrices and rows in files."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy.sparse import issparse

# Bytes of rows that are hashed at once.
BLOCK = 16 << 20


def checksum(*tables: Any) -> str:
    """SHA-256 of arrays, CSR matrices and sources of rows, with their dtypes and shapes."""
    digest = hashlib.sha256()
    for table in tables:
        if table is None:
            digest.update(b"none\n")
            continue
        for array in (table.data, table.indices, table.indptr) if issparse(table) else (table,):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            step = max(1, BLOCK // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()
