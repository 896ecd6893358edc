"""The file formats: of each its suffixes, its readers, its writer, and the options it takes.

Readers, options and help texts are made from `FORMATS`. Functions are named rather than imported,
for the command line asks for suffixes before anything slow is loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    suffixes : tuple of str
        Ends of file names, in lower case.
    read : str
        Where the function is that reads a whole file: ``"module:function"``.
    blocks : str
        Where the function is that opens a file to be read in blocks; empty if there is none.
    write : str
        Where the function is that writes columns; empty if there is none.
    takes : tuple of str
        Options of its readers, of ``"key"``, ``"header"`` and ``"columns"``.
    """

    suffixes: tuple[str, ...]
    read: str
    blocks: str = ""
    write: str = ""
    takes: tuple[str, ...] = ()

    def function(self, use: str) -> Any:
        """Import the function for one of the uses ``"read"``, ``"blocks"`` and ``"write"``."""
        return resolve_name(f"mnist_kmeans_mlx.{getattr(self, use)}")


FORMATS = (
    Format(
        (".npy",),
        "datasets.binary:read_npy",
        "datasets.readers:npy_reader",
        "persistence.writers:write_npy",
    ),
    Format((".npz",), "datasets.binary:read_npz", takes=("key",)),
    Format((".safetensors",), "datasets.binary:read_safetensors", takes=("key",)),
    Format(
        (".csv",),
        "datasets.text:read_csv",
        write="persistence.writers:write_csv",
        takes=("header", "columns"),
    ),
    Format((".csv.gz",), "datasets.text:read_csv", takes=("header", "columns")),
    Format((".tsv", ".tsv.gz"), "datasets.text:read_tsv", takes=("header", "columns")),
    Format(
        (".parquet",),
        "datasets.tables:read_parquet",
        "datasets.forward:parquet_reader",
        "persistence.writers:write_parquet",
        ("columns",),
    ),
    Format(("-ubyte", "-ubyte.gz"), "datasets.binary:read_idx"),  # train-images-idx3-ubyte.gz
)


def format_of(path: str | os.PathLike[str], use: str = "read") -> Format | None:
    """Return the format that a file is named for, if it has a function for this use."""
    # A file named ".npy" has no suffix, but a hidden name.
    name = os.path.basename(os.fspath(path)).lower().lstrip(".")
    fitting = (each for each in FORMATS if _fits(each, use) and name.endswith(each.suffixes))
    return next(fitting, None)


def suffixes(use: str = "read", last: str = "or") -> str:
    """List the suffixes that have a function for a use, or take an option, in words.

    Examples
    --------
    >>> suffixes("key"), suffixes("blocks")
    ('.npz or .safetensors', '.npy or .parquet')
    """
    *others, end = (name for each in FORMATS if _fits(each, use) for name in each.suffixes)
    return f"{', '.join(others)} {last} {end}"


def no_option(name: str, value: Any) -> str:
    """Say that a file takes no such option, as the rest of a sentence that begins with its name."""
    return f"takes no {name}={value!r} (--{name}): that is for {suffixes(name)}"


def _fits(each: Format, use: str) -> bool:
    return use in each.takes or bool(getattr(each, use, ""))
