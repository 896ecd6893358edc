"""``compare``: timings of MLX and of scikit-learn, with a check of the results."""

from __future__ import annotations

import os
from typing import Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    command_line,
    data_options,
    folder_option,
    format_option,
    ks_option,
    max_iter_option,
    n_init_option,
    quiet_option,
)


def _arms(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from mnist_kmeans_mlx.benchmark.arms import BenchmarkError, choose_arms

    try:
        return ",".join(arm.name for arm in choose_arms(value))
    except BenchmarkError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings=SETTINGS)
@data_options("What to cluster. auto: the MNIST that is bundled.")
@ks_option("15,20", "Numbers of clusters, with commas.")
@click.option(
    "--arms",
    metavar="ARM,ARM,...",
    default="sklearn,mlx",
    show_default=True,
    callback=_arms,
    help="What to compare: sklearn-lloyd-float64, -float32, sklearn-elkan-..., mlx-cpu, mlx-gpu, "
    "or first parts of names.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Rounds; each starts a fresh process per arm.",
)
@n_init_option("1")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the random draws, the same for every arm.",
)
@max_iter_option
@folder_option
@format_option
@quiet_option
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    data: str,
    ks: tuple[int, ...],
    arms: str,
    n_init: int | str,
    seed: int,
    save: str | None,
    json: bool,
    markdown: bool,
    csv: bool,
    quiet: bool,
    **parameters: Any,
) -> None:
    """Time scikit-learn and MLX, and check that they agree.

    scikit-learn runs on the CPU, we run on the CPU and on the GPU if there is one. The same data,
    seeds and stopping rule for all. Every arm has a fresh process in every round: its first fit is
    cold, its second warm. If an arm of ours does not give scikit-learn's answer, that is a failure,
    with status 1. On all of MNIST it takes some minutes.
    """
    output.only_one(json=json, markdown=markdown, csv=csv)
    output.check_folder(save)
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx.benchmark import choose_arms
        from mnist_kmeans_mlx.benchmark import compare as compare_arms
        from mnist_kmeans_mlx.benchmark.notes import SLOWING, slowed

        slowing = [name for name in SLOWING if name in os.environ]
        if slowing:
            output.note(f"Warning: {slowed(slowing)}")
        with output.progress({}, quiet=quiet) as observe:
            found = compare_arms(
                data,
                n_clusters=ks,
                arms=choose_arms(arms),
                n_init=1 if isinstance(n_init, str) else n_init,
                seed=seed,
                command=command_line(ctx, seed),
                observe=observe,
                **parameters,
            )
        from mnist_kmeans_mlx.report import compare_table
    output.show_result(
        found, compare_table, save, quiet=quiet, json=json, markdown=markdown, csv=csv
    )
    if found.failures:
        more = len(found.failures) - 1
        raise click.ClickException(
            found.failures[0] + (f" And {more} more, see the result." if more else "")
        )
