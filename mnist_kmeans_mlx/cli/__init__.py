"""The command line: parse, call, write.

Commands import what computes inside their bodies, so that ``--help`` and completion answer
before MLX or scikit-learn would be loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.cli import output
from mnist_kmeans_mlx.cli.compare import compare
from mnist_kmeans_mlx.cli.fit import fit
from mnist_kmeans_mlx.cli.info import data_command, env, log_command
from mnist_kmeans_mlx.cli.models import evaluate, predict, transform
from mnist_kmeans_mlx.cli.options import SETTINGS
from mnist_kmeans_mlx.cli.report import report
from mnist_kmeans_mlx.cli.sweep import sweep


class _Group(click.Group):
    """Report errors in one sentence; tracebacks are for bugs of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they are added below, not by the alphabet

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            raise  # click ends quietly when `head` has seen enough
        except MemoryError as error:
            said = str(error) or "there is not enough memory for this."
            raise click.ClickException(said) from error
        except OSError as error:
            raise click.ClickException(output.why(error)) from error
        except ImportError as error:
            raise click.ClickException(_missing(error)) from error
        except (ValueError, RuntimeError) as error:
            if not type(error).__module__.startswith("mnist_kmeans_mlx."):
                raise
            raise click.ClickException(str(error)) from error


def _missing(error: ImportError) -> str:
    text = " ".join(str(error).split())
    # A library that does not load is named without its package: core, of mlx/core.so.
    if "mlx" in ((error.name or "").partition(".")[0], Path(error.path or "").parent.name):
        return (
            f"MLX cannot be loaded ({text}): on Linux it needs a backend, for instance "
            "pip install 'mnist-kmeans-mlx[cpu]'."
        )
    return f"a package is missing ({text})."


@click.group(
    cls=_Group,
    context_settings=SETTINGS,
    epilog="Every option can be given as an environment variable: MNIST_KMEANS_MLX_DEVICE=cpu "
    "stands for --device cpu, MNIST_KMEANS_MLX_N_INIT=5 for --n-init 5.",
)
@click.version_option(__version__, message="%(prog)s %(version)s", allow_from_autoenv=False)
def main() -> None:
    """K-means on the GPU through MLX: cluster MNIST, or any matrix of numbers.

    Try `mnist-kmeans-mlx fit`: it clusters MNIST, infers which digit each cluster shows, and
    says how often that is right.
    """
    from mnist_kmeans_mlx.system import multiply_as_float32

    multiply_as_float32()
    # A terminal without Unicode gets question marks, not a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


for command in (
    fit,
    predict,
    transform,
    evaluate,
    sweep,
    compare,
    report,
    data_command,
    env,
    log_command,
):
    main.add_command(command)
