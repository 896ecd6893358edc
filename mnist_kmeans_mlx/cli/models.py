"""``predict`` and ``evaluate``: what a saved model says."""

from __future__ import annotations

from typing import Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    columns_option,
    data_options,
    device_option,
    header_option,
    json_option,
    key_option,
    memory_option,
    quiet_option,
)

__all__ = ["evaluate", "predict", "transform"]

_model = click.argument("model", type=click.Path(exists=True, dir_okay=False))


def _named(*suffixes: str) -> Any:
    def check(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and not value.lower().endswith(suffixes):
            raise click.BadParameter(
                f"the name must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}", ctx, parameter
            )
        return value

    return check


@click.command(context_settings=SETTINGS)
@_model
@click.argument("data", type=click.Path(readable=False))
@key_option
@header_option
@columns_option
@click.option(
    "--part",
    type=click.Choice(["train", "test"]),
    default="test",
    show_default=True,
    help="Which part of MNIST.",
)
@click.option("--cluster-numbers", is_flag=True, help="Print cluster numbers, not digits.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    callback=_named(".npy", ".parquet", ".csv"),
    help="Write to a file: .npy or .parquet (what would be printed; the same command goes on after "
    "a break), or .csv (cluster and label).",
)
@memory_option
@device_option
@json_option
@quiet_option
def predict(
    model: str,
    data: str,
    key: str | None,
    header: bool | None,
    columns: str | None,
    part: str,
    cluster_numbers: bool,
    out: str | None,
    memory: str,
    device: str,
    json: bool,
    quiet: bool,
) -> None:
    """Print the digit of every row of DATA, one to a line.

    MODEL is a file that `fit --save` wrote. DATA is auto, bundled or keras for MNIST, or a PATH
    as for `fit --data`. A model without digits gives cluster numbers.
    """
    output.check_writable(out)
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx import experiment
        from mnist_kmeans_mlx.persistence import load_model

        words = {"load": "Loading", "predict": "Predicting"}
        with output.progress(words, quiet=quiet) as observe:
            observe("load")
            loaded = load_model(model)
            source = experiment.load(
                data, key=key, header=header, columns=columns, memory=memory, min_rows=1
            )
            rows = source.train if part == "train" or source.test is None else source.test
            observe("predict")
            in_parts = out is not None and not out.lower().endswith(".csv") and not json
            if out is not None and in_parts:
                experiment.predict_to(loaded, rows, out, digits=not cluster_numbers, device=device)
            elif source.streams:
                raise click.UsageError(
                    "this data is larger than --memory: write the answer to an --out file named "
                    ".npy or .parquet."
                )
            else:
                clusters, labels = experiment.predict(loaded, rows, device=device)
    if loaded.cluster_labels is None and not cluster_numbers:
        output.note("Note: this model names no digits; these are cluster numbers.", quiet=quiet)
    if in_parts:
        return
    values = clusters if labels is None or cluster_numbers else labels
    if out is not None:
        _write(out, values, clusters, labels)
    if json:
        named = None if labels is None else labels.tolist()
        output.emit_json({"clusters": clusters.tolist(), "labels": named})
    elif out is None:
        click.echo("\n".join(map(str, values.tolist())))


def _write(path: str, values: Any, clusters: Any, labels: Any) -> None:
    from mnist_kmeans_mlx.persistence.files import write_atomically

    if path.lower().endswith(".npy"):
        output.save_npy(path, values)
        return
    with write_atomically(path) as file:
        columns = (
            {"cluster": clusters} if labels is None else {"cluster": clusters, "label": labels}
        )
        lines = [
            ",".join(columns),
            *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
        ]
        file.write(("\n".join(lines) + "\n").encode())


@click.command(context_settings=SETTINGS)
@_model
@click.argument("data", type=click.Path())
@key_option
@header_option
@columns_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    callback=_named(".npy", ".parquet"),
    required=True,
    help="The .npy or .parquet file to write; the same command goes on after a break.",
)
@memory_option
@device_option
@json_option
@quiet_option
def transform(
    model: str,
    data: str,
    key: str | None,
    header: bool | None,
    columns: str | None,
    out: str,
    memory: str,
    device: str,
    json: bool,
    quiet: bool,
) -> None:
    """Write the distances of every row of DATA to all centroids.

    MODEL is a file that `fit --save` wrote. DATA is as for `predict`; of MNIST, it is the test
    images.
    """
    output.check_writable(out)
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx import experiment
        from mnist_kmeans_mlx.persistence import load_model

        words = {"load": "Loading", "transform": "Measuring"}
        with output.progress(words, quiet=quiet) as observe:
            observe("load")
            loaded = load_model(model)
            source = experiment.load(
                data, key=key, header=header, columns=columns, memory=memory, min_rows=1
            )
            observe("transform")
            rows = source.train if source.test is None else source.test
            experiment.transform_to(loaded, rows, out, device=device)
    if json:
        output.emit_json({"file": out, "rows": len(rows)})


@click.command(context_settings=SETTINGS)
@_model
@data_options("What to score on. auto: the MNIST that is bundled.")
@device_option
@json_option
@quiet_option
def evaluate(
    model: str,
    data: str,
    key: str | None,
    header: bool | None,
    columns: str | None,
    labels: str | None,
    device: str,
    json: bool,
    quiet: bool,
) -> None:
    """Score a saved model on data with labels.

    MODEL is a file that `fit --save` wrote.
    """
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx import experiment
        from mnist_kmeans_mlx.persistence import load_model

        words = {"load": "Loading", "predict": "Predicting", "score": "Scoring"}
        with output.progress(words, quiet=quiet) as observe:
            observe("load")
            loaded = load_model(model)
            source = experiment.load(
                data, key=key, header=header, columns=columns, labels=labels, min_rows=1
            )
            result = experiment.evaluate(loaded, source, device=device, observe=observe)
    if json:
        output.emit_json(result.to_dict())
        return
    from mnist_kmeans_mlx.report.terminal import evaluation_view

    console = output.stdout()
    console.print(evaluation_view(result, console.width))
