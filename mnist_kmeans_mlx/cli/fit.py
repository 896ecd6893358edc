"""``fit``: cluster, name, score, save, log, draw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    command_line,
    data_options,
    device_option,
    json_option,
    log_option,
    max_iter_option,
    memory_option,
    n_init_option,
    out_option,
    quiet_option,
)
from mnist_kmeans_mlx.engine.metric import METRICS

if TYPE_CHECKING:
    from mnist_kmeans_mlx.checkpoint import Checkpoint
    from mnist_kmeans_mlx.distributed import Group

# With more clusters, the gallery shows the largest only, unless --gallery is given.
_DRAWN = 100


@click.command(context_settings=SETTINGS)
@data_options("What to cluster. auto: the MNIST that is bundled.")
@click.option(
    "-k",
    "--clusters",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Number of clusters.",
)
@n_init_option("1 for k-means++, 10 for random")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the random draws: the same seed finds the same clusters. [default: drawn]",
)
@max_iter_option
@click.option(
    "--tol",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Stop when the squared shift of the centres is at most this share of the mean variance.",
)
@click.option(
    "--init",
    type=click.Choice(["k-means++", "k-means||", "random"]),
    default="k-means++",
    show_default=True,
    help="How the first centres are chosen.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["auto", "lloyd", "elkan"]),
    default="auto",
    show_default=True,
    help="How the nearest centres are found; the result is the same.",
)
@click.option(
    "--metric",
    type=click.Choice(list(METRICS)),
    default="euclidean",
    show_default=True,
    help="How distance is measured. "
    + "; ".join(f"{metric.name}: {metric.meaning}" for metric in METRICS.values())
    + ".",
)
@device_option
@memory_option
@out_option(
    "--labels-out",
    "Write the cluster number of each row. With {rank} in the name, each of several ranks writes "
    "those of its own rows.",
)
@click.option(
    "--save", type=click.Path(dir_okay=False), metavar="MODEL", help="Write the model to this file."
)
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Keep the progress of the fit in this file, for --resume.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from the --checkpoint, if it exists, to the result of an uninterrupted fit.",
)
@log_option
@click.option("--no-log", is_flag=True, help="Do not write to the experiment log.")
@click.option(
    "--gallery/--no-gallery",
    default=None,
    help="Draw all centroids in full size. [default: the 100 largest, on a terminal without -q]",
)
@json_option
@quiet_option
@click.pass_context
def fit(
    ctx: click.Context,
    /,
    clusters: int,
    seed: int | None,
    data: str,
    labels_out: str | None,
    save: str | None,
    checkpoint: str | None,
    resume: bool,
    log: str | None,
    no_log: bool,
    gallery: bool | None,
    json: bool,
    quiet: bool,
    **parameters: Any,
) -> None:
    """Cluster data, infer what each cluster shows, and score it.

    Without options: MNIST in 20 clusters. A matrix without --labels is clustered, not scored.

    Ctrl-C ends the fit with status 130. What it has reached is then in --checkpoint, and in --save
    if that is a new file.
    """
    if resume and checkpoint is None:
        raise click.UsageError("--resume needs a --checkpoint.")
    with output.notes(quiet=quiet), _group() as group:
        # Only the first of several ranks prints and writes.
        first = group.rank == 0
        quiet = quiet or not first
        sharded = labels_out is not None and "{rank}" in labels_out
        if labels_out is not None and sharded:
            labels_out = labels_out.replace("{rank}", str(group.rank))
        elif not first:
            labels_out = None
        for path in (labels_out, save if first else None):
            output.check_writable(path)
        keep = None if save is checkpoint is None else _checkpoint(checkpoint, resume, quiet)
        with _farewell(keep, quiet):
            # Imports MLX and scikit-learn, which takes a second.
            import secrets

            from mnist_kmeans_mlx.experiment import run

            if seed is None and keep is not None:
                seed = keep.seed
            seed = int(group.broadcast(secrets.randbits(32) if seed is None else seed))
            words = {
                "load": "Loading data",
                "fit": f"Finding {clusters} clusters",
                "label": "Inferring digits",
                "predict": "Predicting the test data",
                "score": "Scoring",
            }
            with output.progress(words, quiet=quiet) as observe:
                result = run(
                    data,
                    n_clusters=clusters,
                    seed=seed,
                    command=command_line(ctx, seed),
                    observe=observe,
                    checkpoint=keep,
                    gather=not sharded,
                    **parameters,
                )
            if result.interrupted:
                if first and save is not None:
                    if os.path.exists(save):
                        output.note(f"{save} exists and is not replaced.", quiet=quiet)
                    else:
                        _save(result, save, quiet)
                raise KeyboardInterrupt
        if labels_out is not None:
            from mnist_kmeans_mlx.persistence.writers import save_columns

            save_columns(labels_out, {"cluster": result.estimator.labels_})
            output.note(f"Saved {labels_out}", quiet=quiet)
        # Save before printing: a closed pipe must not lose the model. A failed save is raised after
        # the result is shown. Other ranks wait until the model is saved.
        failure = _save(result, save, quiet) if first else None
        group.barrier()
    if not first:
        return
    if failure is None and keep is not None:
        failure = keep.failure
    if not no_log:
        _append(result, log)
    if json:
        output.emit_json(result.to_dict())
    else:
        _show(result, gallery, quiet)
    if failure is not None:
        raise failure


def _group() -> Group:
    """The ranks that ``mlx.launch`` started, or this process alone."""
    from mnist_kmeans_mlx.distributed import Group

    return Group.init()


def _checkpoint(path: str | None, resume: bool, quiet: bool) -> Checkpoint:
    from mnist_kmeans_mlx.checkpoint import Checkpoint

    keep = Checkpoint(path, resume=resume)
    if resume and not keep.resumed:
        output.note(f"Note: {path} does not exist yet: the fit starts anew.", quiet=quiet)
    return keep


@contextmanager
def _farewell(keep: Checkpoint | None, quiet: bool) -> Iterator[None]:
    """On Ctrl-C, say how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        if keep is not None and keep.failure is not None:
            output.note(f"Warning: {keep.path} is not up to date ({keep.failure.strerror}).")
        elif keep is not None and keep.path is not None and keep.path.exists():
            output.note("The same command with --resume continues this fit.", quiet=quiet)
        raise


def _save(result: Any, path: str | None, quiet: bool) -> Exception | None:
    from mnist_kmeans_mlx.persistence import ModelError, save_model

    if path is None:
        return None
    metadata = {
        "unit": result.unit,
        "data": result.to_dict()["data"],
        "command": result.command,
        "train_accuracy": result.train_accuracy,
        "test_accuracy": result.test_accuracy,
        "interrupted": result.interrupted,
        "environment": dict(result.environment),
    }
    try:
        save_model(path, result.estimator, cluster_labels=result.cluster_labels, metadata=metadata)
    except (OSError, ModelError) as error:
        return error
    unfinished = ", with the fit incomplete" if result.interrupted else ""
    output.note(f"Saved {path}{unfinished}", quiet=quiet)
    return None


def _append(result: Any, path: str | None) -> None:
    from mnist_kmeans_mlx.experiment import append_log

    try:
        append_log(result.log_entry(), path)
    except OSError as error:
        output.note(f"Warning: this run is not in the experiment log ({output.why(error)}).")


def _show(result: Any, gallery: bool | None, quiet: bool) -> None:
    from mnist_kmeans_mlx.report.terminal import gallery_view, result_view

    console = output.stdout()
    console.print(result_view(result, console.width))
    if gallery is None:
        wanted, most = console.is_terminal and not quiet, _DRAWN
    else:
        wanted, most = gallery, None
    if wanted:
        view = gallery_view(result, most)
        if view is not None:
            console.print()
            console.print(view)
        elif gallery:
            output.note(f"{result.n_features} features are no square image: nothing to draw.")
