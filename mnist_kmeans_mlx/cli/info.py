"""``data``, ``env`` and ``log``: describe the data, the machine and earlier fits."""

from __future__ import annotations

from typing import Any

import click

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    data_options,
    device_option,
    json_option,
    log_option,
)


@click.command("data", context_settings=SETTINGS)
@data_options("What to look at. auto: the MNIST that is bundled.")
@json_option
def data_command(data: str, json: bool, **named: Any) -> None:
    """Show what data is loaded, from where, and under which licence."""
    from mnist_kmeans_mlx.experiment import load

    with output.notes():
        found = load(data, **named)
    facts = found.to_dict()
    if json:
        output.emit_json(facts)
        return
    from mnist_kmeans_mlx.report.listing import data_view

    output.stdout().print(data_view(facts))


@click.command(context_settings=SETTINGS)
@device_option
@json_option
def env(device: str, json: bool) -> None:
    """Show device, precision and versions for a bug report."""
    facts = {"mnist-kmeans-mlx": __version__, **_environment(device)}
    if json:
        output.emit_json(facts)
        return
    from mnist_kmeans_mlx.report.listing import environment_view

    output.stdout().print(environment_view(facts))


def _environment(device: str) -> dict[str, Any]:
    import platform

    try:
        from mnist_kmeans_mlx.device import describe, resolve
        from mnist_kmeans_mlx.engine.ways import told

        mnist = told(resolve(device), n=60_000, d=784, k=20, n_init=1, itemsize=1)
        return describe(device) | {"mnist_with_20_clusters": mnist}
    except ImportError as error:
        # Where MLX does not load is where a bug report is written.
        return {
            "mlx": f"cannot be loaded: {' '.join(str(error).split())}",
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
        }


@click.command("log", context_settings=SETTINGS)
@log_option
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="The last N only.")
@json_option
def log_command(log: str | None, last: int | None, json: bool) -> None:
    """Show the experiment log: seconds and accuracies of every fit."""
    from mnist_kmeans_mlx.experiment import log_path, read_log

    path = str(log_path()) if log is None else log
    entries, damaged = read_log(path)
    output.left_out(damaged, path)
    if last is not None:
        entries = entries[-last:]
    if json:
        output.emit_json(entries)
    elif entries:
        from mnist_kmeans_mlx.report.listing import log_view

        console = output.stdout()
        console.print(log_view(entries, console.width))
    else:
        output.note(f"No experiments yet in {path}: every `fit` adds one.")
