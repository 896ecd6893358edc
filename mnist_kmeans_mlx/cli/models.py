"""``predict``, ``transform`` and ``evaluate``: use a saved model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    data_options,
    device_option,
    json_option,
    matrix_options,
    model_options,
    out_option,
    quiet_option,
)

_model = click.argument("model", type=click.Path(exists=True, dir_okay=False))


@contextmanager
def _opened(
    model: str, source: str, words: dict[str, str], *, quiet: bool, **named: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Load a model and data, and yield both and what shows the progress."""
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx import experiment
        from mnist_kmeans_mlx.persistence import load_model

        with output.progress({"load": "Loading", **words}, quiet=quiet) as observe:
            observe("load")
            loaded = load_model(model)
            yield loaded, experiment.load(source, **named, min_rows=1), observe


@click.command(context_settings=SETTINGS)
@_model
@click.argument("data", type=click.Path(readable=False))
@matrix_options
@click.option(
    "--part",
    type=click.Choice(["train", "test"]),
    default="test",
    show_default=True,
    help="Which part of MNIST.",
)
@click.option("--cluster-numbers", is_flag=True, help="Print cluster numbers, not digits.")
@out_option(
    "--out",
    "Write what would be printed to a file; a .csv has cluster and label. The same command resumes "
    "an interrupted .npy or .parquet.",
)
@model_options
def predict(
    model: str,
    data: str,
    part: str,
    cluster_numbers: bool,
    out: str | None,
    device: str,
    json: bool,
    quiet: bool,
    **named: Any,
) -> None:
    """Print the digit of every row of DATA, one to a line.

    MODEL is a file that `fit --save` wrote. DATA is auto, bundled or keras for MNIST, or a PATH
    as for `fit --data`. A model without digits gives cluster numbers.
    """
    output.check_writable(out)
    as_csv = out is not None and out.lower().endswith(".csv")
    in_parts = out is not None and not as_csv and not json
    with _opened(model, data, {"predict": "Predicting"}, quiet=quiet, **named) as opened:
        from mnist_kmeans_mlx import experiment

        loaded, source, observe = opened
        rows = source.train if part == "train" or source.test is None else source.test
        observe("predict")
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
        from mnist_kmeans_mlx.persistence.writers import save_columns

        both = {"cluster": clusters} if labels is None else {"cluster": clusters, "label": labels}
        save_columns(out, both if as_csv else {"label": values})
    if json:
        named_rows = None if labels is None else labels.tolist()
        output.emit_json({"clusters": clusters.tolist(), "labels": named_rows})
    elif out is None:
        click.echo("\n".join(map(str, values.tolist())))


@click.command(context_settings=SETTINGS)
@_model
@click.argument("data", type=click.Path())
@matrix_options
@out_option(
    "--out",
    "The file to write; the same command resumes an interrupted one.",
    required=True,
)
@model_options
def transform(
    model: str, data: str, out: str, device: str, json: bool, quiet: bool, **named: Any
) -> None:
    """Write the distances of every row of DATA to all centroids.

    MODEL is a file that `fit --save` wrote. DATA is as for `predict`; of MNIST, it is the test
    images.
    """
    output.check_writable(out)
    with _opened(model, data, {"transform": "Measuring"}, quiet=quiet, **named) as opened:
        from mnist_kmeans_mlx import experiment

        loaded, source, observe = opened
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
def evaluate(model: str, data: str, device: str, json: bool, quiet: bool, **named: Any) -> None:
    """Score a saved model on data with labels.

    MODEL is a file that `fit --save` wrote.
    """
    words = {"predict": "Predicting", "score": "Scoring"}
    with _opened(model, data, words, quiet=quiet, **named) as (loaded, source, observe):
        from mnist_kmeans_mlx import experiment

        result = experiment.evaluate(loaded, source, device=device, observe=observe)
    if json:
        output.emit_json(result.to_dict())
        return
    from mnist_kmeans_mlx.report.terminal import evaluation_view

    console = output.stdout()
    console.print(evaluation_view(result, console.width))
