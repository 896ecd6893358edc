"""``sweep``: choose the number of clusters."""

from __future__ import annotations

from typing import Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    command_line,
    data_options,
    device_option,
    folder_option,
    format_option,
    ks_option,
    max_iter_option,
    n_init_option,
    quiet_option,
    whole_numbers,
)


def _figure(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from mnist_kmeans_mlx.report.canvas import FORMATS

    if value is not None and not value.lower().endswith(FORMATS):
        raise click.BadParameter(f"the name must end in {', '.join(FORMATS)}")
    return value


@click.command(context_settings=SETTINGS)
@data_options("What to cluster. auto: the MNIST that is bundled.")
@ks_option(
    "10,15,20,30,50,64,100,150,200,256",
    "Numbers of clusters, with commas; 10,20,...,100 counts on in steps.",
)
@click.option(
    "--seeds",
    metavar="SEED,SEED,...",
    default="0",
    show_default=True,
    callback=whole_numbers(0, 2**32 - 1),
    help="Seeds, with commas: a fit for each of them and each K.",
)
@n_init_option("1")
@max_iter_option
@device_option
@click.option(
    "--silhouette-sample",
    type=click.IntRange(min=0),
    default=3000,
    show_default=True,
    help="Rows to take the silhouette of, the same for every K. 0: none.",
)
@click.option(
    "--cells",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Where finished fits are kept. [default: sweep.jsonl in your state folder]",
)
@click.option("--fresh", is_flag=True, help="Fit again what is kept there already.")
@click.option(
    "--figure",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    callback=_figure,
    help="Draw the curves to a .png, .svg or .pdf file (needs the extra plot).",
)
@folder_option
@format_option
@quiet_option
@click.pass_context
def sweep(
    ctx: click.Context,
    /,
    data: str,
    ks: tuple[int, ...],
    seeds: tuple[int, ...],
    cells: str | None,
    fresh: bool,
    figure: str | None,
    save: str | None,
    json: bool,
    markdown: bool,
    csv: bool,
    quiet: bool,
    **parameters: Any,
) -> None:
    """Fit several numbers of clusters, and compare the results.

    Accuracy, SSE, silhouette, NMI and time against K, and where more clusters stop paying. Every
    finished fit is kept: after Ctrl-C the same command continues.
    """
    output.only_one(json=json, markdown=markdown, csv=csv)
    if figure is not None:
        from mnist_kmeans_mlx.report.canvas import check_figure

        check_figure()
    output.check_folder(save)
    output.check_writable(figure)
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx.experiment.cells import cells_path
        from mnist_kmeans_mlx.experiment.sweep import sweep as fit_all

        path = str(cells_path()) if cells is None else cells
        try:
            with output.progress({}, quiet=quiet) as observe:
                found = fit_all(
                    data,
                    n_clusters=ks,
                    seeds=seeds,
                    path=path,
                    fresh=fresh,
                    command=command_line(ctx),
                    observe=observe,
                    **parameters,
                )
        except KeyboardInterrupt:
            output.note(f"\nFinished fits are in {path}: the same command continues.", quiet=quiet)
            raise
    output.left_out(found.damaged, path)
    if found.kept:
        output.note(f"{found.kept} of {len(found.cells)} fits were in {path}", quiet=quiet)
    if figure is not None:
        from mnist_kmeans_mlx.report.figures import draw_curves

        draw_curves(found.to_dict(), figure)
        output.note(f"Saved {figure}", quiet=quiet)
    from mnist_kmeans_mlx.report import sweep_table

    output.show_result(found, sweep_table, save, quiet=quiet, json=json, markdown=markdown, csv=csv)
