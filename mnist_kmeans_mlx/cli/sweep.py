"""``sweep``: how many clusters it should be."""

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
    int_or_auto,
    quiet_option,
    whole_numbers,
)

__all__ = ["sweep"]


def _figure(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from mnist_kmeans_mlx.report.canvas import FORMATS

    if value is not None and not value.lower().endswith(FORMATS):
        raise click.BadParameter(f"the name must end in {', '.join(FORMATS)}")
    return value


@click.command(context_settings=SETTINGS)
@data_options("What to cluster. auto: the MNIST that is bundled.")
@click.option(
    "-k",
    "--ks",
    metavar="K,K,...",
    default="10,15,20,30,50,64,100,150,200,256",
    show_default=True,
    callback=whole_numbers(1, 10**6),
    help="Numbers of clusters, with commas; 10,20,...,100 counts on in steps.",
)
@click.option(
    "--seeds",
    metavar="SEED,SEED,...",
    default="0",
    show_default=True,
    callback=whole_numbers(0, 2**32 - 1),
    help="Seeds, with commas: a fit for each of them and each K.",
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
    "--max-iter",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Most iterations of a restart.",
)
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
    key: str | None,
    labels: str | None,
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
    """Fit many numbers of clusters, and show what each is worth.

    Accuracy, SSE, silhouette, NMI and time against K, and where more clusters stop paying. Every
    fit is kept as soon as it is finished: after Ctrl-C the same command goes on from there.
    """
    output.only_one(json=json, markdown=markdown, csv=csv)
    output.check_folder(save)
    output.check_writable(figure)
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx.experiment.cells import cells_path
        from mnist_kmeans_mlx.experiment.sweep import sweep as fit_all
        from mnist_kmeans_mlx.report.canvas import check_figure

        if figure is not None:
            check_figure()
        path = str(cells_path()) if cells is None else cells
        try:
            with output.progress({}, quiet=quiet) as observe:
                found = fit_all(
                    data,
                    key=key,
                    labels=labels,
                    n_clusters=ks,
                    seeds=seeds,
                    path=path,
                    fresh=fresh,
                    command=command_line(ctx, None),
                    observe=observe,
                    **parameters,
                )
        except KeyboardInterrupt:
            output.note(f"\nFinished fits are in {path}: the same command goes on.", quiet=quiet)
            raise
    if found.damaged:
        lines = "line is" if found.damaged == 1 else "lines are"
        output.note(f"Note: {found.damaged} damaged {lines} left out of {path}")
    if found.kept:
        output.note(f"{found.kept} of {len(found.cells)} fits were in {path}", quiet=quiet)
    if figure is not None:
        from mnist_kmeans_mlx.report.curves import draw_curves

        draw_curves(found.to_dict(), figure)
        output.note(f"Saved {figure}", quiet=quiet)
    _write(found, save, quiet)
    _show(found, json=json, markdown=markdown, csv=csv)


def _write(found: Any, folder: str | None, quiet: bool) -> None:
    if folder is None:
        return
    from json import dumps

    from mnist_kmeans_mlx.report.sweep_table import sweep_csv, sweep_markdown

    files = {
        "sweep.json": dumps(found.to_dict(), allow_nan=False) + "\n",
        "sweep.md": sweep_markdown(found),
        "sweep.csv": sweep_csv(found),
    }
    output.save_all(folder, files, quiet=quiet)


def _show(found: Any, *, json: bool, markdown: bool, csv: bool) -> None:
    from mnist_kmeans_mlx.report.sweep_table import sweep_csv, sweep_markdown, sweep_view

    if json:
        output.emit_json(found.to_dict())
    elif markdown:
        output.emit_text(sweep_markdown(found))
    elif csv:
        output.emit_text(sweep_csv(found))
    else:
        console = output.stdout()
        console.print(sweep_view(found, console.width))
