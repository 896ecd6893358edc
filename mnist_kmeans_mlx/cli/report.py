"""``report``: one HTML page about a model and its runs."""

from __future__ import annotations

import os
from typing import Any

import click

from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.options import (
    SETTINGS,
    command_line,
    data_options,
    device_option,
    json_option,
    quiet_option,
)


@click.command(context_settings=SETTINGS)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option(
    *("-o", "--output"),
    type=click.Path(dir_okay=False),
    default="report.html",
    show_default=True,
    metavar="PATH",
    help="The page to write.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write the figures to this folder too, as PNG and SVG (needs the extra plot).",
)
@data_options("What the model was fitted on. auto: the bundled MNIST, if it was that.")
@device_option
@json_option
@quiet_option
@click.pass_context
def report(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    figures: str | None,
    json: bool,
    quiet: bool,
    **named: Any,
) -> None:
    """Write one page about a model and its runs.

    FILES are a model that `fit --save` wrote, and JSON that `fit`, `sweep` or `compare` printed
    with --json: a model alone, JSON alone, or both. The page is one file that loads nothing. With
    a model of MNIST one can draw a digit in it and see which centroids are nearest.
    """
    page = named.pop("output")  # as the module is called, too
    if any(os.path.exists(page) and os.path.samefile(page, file) for file in files):
        raise click.UsageError(f"{page} would be written over: it is one of the files to read.")
    output.check_writable(page)
    if figures is not None:
        from mnist_kmeans_mlx.report.canvas import check_figure

        check_figure()
        output.check_folder(figures)
    written = []
    with output.notes(quiet=quiet):
        from mnist_kmeans_mlx.persistence.files import write_atomically
        from mnist_kmeans_mlx.report import html
        from mnist_kmeans_mlx.report.material import gather

        words = {"gather": "Looking at clusters", "page": "Writing", "figures": "Drawing figures"}
        with output.progress(words, quiet=quiet) as observe:
            observe("gather")
            material = gather(files, command=command_line(ctx), **named)
            observe("page")
            text = html.page(material)
            with write_atomically(page) as file:
                file.write(text.encode())
            output.note(f"Saved {page}", quiet=quiet)
            for note in material.notes:
                output.note(f"Note: {note}", quiet=quiet)
            if figures is not None:
                observe("figures")
                from mnist_kmeans_mlx.report.figures import save_figures

                written = save_figures(material, figures)
                output.note(f"Saved {len(written)} figures in {figures}", quiet=quiet)
    if json:
        output.emit_json({"file": page, "figures": [str(path) for path in written]})
