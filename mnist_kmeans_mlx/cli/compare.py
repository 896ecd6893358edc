"""``compare``: what the GPU buys, held against scikit-learn."""

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
    int_or_auto,
    quiet_option,
    whole_numbers,
)

__all__ = ["compare"]


def _arms(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from mnist_kmeans_mlx.benchmark.arms import BenchmarkError, choose_arms

    try:
        return ",".join(arm.name for arm in choose_arms(value))
    except BenchmarkError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings=SETTINGS)
@data_options("What to cluster. auto: the MNIST that is bundled.")
@click.option(
    "-k",
    "--ks",
    metavar="K,K,...",
    default="15,20",
    show_default=True,
    callback=whole_numbers(1, 10**6),
    help="Numbers of clusters, with commas.",
)
@click.option(
    "--arms",
    metavar="ARM,ARM,...",
    default="sklearn,mlx",
    show_default=True,
    callback=_arms,
    help="What to compare: sklearn-lloyd-float64, -float32, sklearn-elkan-..., mlx-cpu, mlx-gpu, "
    "or first parts of these names.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Rounds, in each of which every arm has a fresh process.",
)
@click.option(
    "--n-init",
    metavar="INTEGER|auto",
    callback=int_or_auto,
    default="auto",
    show_default=True,
    help="Restarts, of which the best is kept. auto: 1.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the random draws, the same for every arm.",
)
@click.option(
    "--max-iter",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Most iterations of a restart.",
)
@folder_option
@format_option
@quiet_option
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    data: str,
    key: str | None,
    header: bool | None,
    columns: str | None,
    labels: str | None,
    ks: tuple[int, ...],
    arms: str,
    repeat: int,
    n_init: int | str,
    seed: int,
    max_iter: int,
    save: str | None,
    json: bool,
    markdown: bool,
    csv: bool,
    quiet: bool,
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
                key=key,
                header=header,
                columns=columns,
                labels=labels,
                n_clusters=ks,
                arms=choose_arms(arms),
                repeat=repeat,
                n_init=1 if isinstance(n_init, str) else n_init,
                seed=seed,
                max_iter=max_iter,
                command=command_line(ctx, seed),
                observe=observe,
            )
    _write(found, save, quiet)
    _show(found, json=json, markdown=markdown, csv=csv)
    if found.failures:
        more = len(found.failures) - 1
        raise click.ClickException(
            found.failures[0] + (f" And {more} more, see the result." if more else "")
        )


def _write(found: Any, folder: str | None, quiet: bool) -> None:
    if folder is None:
        return
    from json import dumps

    from mnist_kmeans_mlx.report.compare_table import comparison_csv, comparison_markdown

    files = {
        "compare.json": dumps(found.to_dict(), allow_nan=False) + "\n",
        "compare.md": comparison_markdown(found),
        "compare.csv": comparison_csv(found),
    }
    output.save_all(folder, files, quiet=quiet)


def _show(found: Any, *, json: bool, markdown: bool, csv: bool) -> None:
    from mnist_kmeans_mlx.report.compare_table import (
        comparison_csv,
        comparison_markdown,
        comparison_view,
    )

    if json:
        output.emit_json(found.to_dict())
    elif markdown:
        output.emit_text(comparison_markdown(found))
    elif csv:
        output.emit_text(comparison_csv(found))
    else:
        console = output.stdout()
        console.print(comparison_view(found, console.width))
