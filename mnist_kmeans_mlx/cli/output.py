"""What a command writes: the result to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def stdout() -> Console:
    """Return a console on stdout, as it is now."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def emit_json(value: Any) -> None:
    """Print one line of strict JSON."""
    click.echo(json.dumps(value, allow_nan=False))


def show_result(found: Any, tables: Any, folder: str | None, *, quiet: bool, **flags: bool) -> None:
    """Print a result in the form that is asked for, and write all forms to a folder.

    `tables` is the module with its ``NAME``, ``view``, ``to_markdown`` and ``to_csv``; `flags` say
    whether each of ``json``, ``markdown`` and ``csv`` is asked for.
    """
    forms = {
        "json": json.dumps(found.to_dict(), allow_nan=False) + "\n",
        "markdown": tables.to_markdown(found),
        "csv": tables.to_csv(found),
    }
    if folder is not None:
        suffixes = {"json": "json", "markdown": "md", "csv": "csv"}
        files = {f"{tables.NAME}.{suffixes[form]}": text for form, text in forms.items()}
        _save_all(folder, files, quiet=quiet)
    asked = next((form for form, flag in flags.items() if flag), None)
    if asked is not None:
        click.echo(forms[asked], nl=False)
    else:
        console = stdout()
        console.print(tables.view(found, console.width))


def only_one(**flags: bool) -> None:
    """Refuse more than one form of output."""
    given = [f"--{name}" for name, flag in flags.items() if flag]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other.")


def note(text: str, *, quiet: bool = False) -> None:
    """Say something about the run on stderr."""
    if not quiet:
        click.echo(text, err=True)


def left_out(damaged: int, path: str) -> None:
    """Say how many lines of a file were passed over, if any."""
    if damaged:
        lines = "line is" if damaged == 1 else "lines are"
        note(f"Note: {damaged} damaged {lines} left out of {path}")


@contextmanager
def notes(*, quiet: bool = False) -> Iterator[None]:
    """Print the warnings of the block, one line each, when it ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            said = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
            for text in said:
                note(f"Note: {text}", quiet=quiet)


@contextmanager
def progress(words: dict[str, str], *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a spinner and the elapsed seconds of the current stage, on a terminal only.

    Yields what is to be called with the name of a stage as it begins; `words` says it in words.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield lambda stage: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: list[Any] = []

        def show(stage: str) -> None:
            while tasks:
                bar.remove_task(tasks.pop())
            tasks.append(bar.add_task(words.get(stage, stage), total=None))

        yield show


def why(error: OSError) -> str:
    """Describe an OSError without its number."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{reason}: {error.filename}"


def check_writable(path: str | None) -> None:
    """Fail early if `path` cannot be written."""
    if path is not None:
        from mnist_kmeans_mlx.persistence.files import check_writable

        check_writable(path)


def check_folder(folder: str | None) -> None:
    """Make the folder, and fail early if it cannot be written."""
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
        check_writable(os.path.join(folder, "result"))


def _save_all(folder: str, files: dict[str, str], *, quiet: bool = False) -> None:
    """Write files of a folder, each whole or not at all."""
    from mnist_kmeans_mlx.persistence.files import write_atomically

    for name, text in files.items():
        with write_atomically(os.path.join(folder, name)) as file:
            file.write(text.encode())
    note(f"Saved {', '.join(files)} in {folder}", quiet=quiet)
