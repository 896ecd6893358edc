"""Options that several commands share, as stacks of decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["SETTINGS", "command_line", "data_options", "device_option", "json_option", "log_option"]

Command = TypeVar("Command", bound=Callable[..., Any])

# The prefix is the same at every level: MNIST_KMEANS_MLX_DEVICE is for each command.
SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": "MNIST_KMEANS_MLX",
    "max_content_width": 100,
}

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to compute. auto: Metal or CUDA if there is one, else the CPU.",
)

json_option = click.option("--json", is_flag=True, help="Print the result as one line of JSON.")

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Print the result only: no progress, no notes."
)

log_option = click.option(
    "--log",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="The experiment log. [default: experiments.jsonl in your state folder]",
)


def data_options(what: str) -> Callable[[Command], Command]:
    """Options that name the data; `what` says what it is for."""

    def decorate(command: Command) -> Command:
        for option in (
            click.option(
                "--labels",
                type=click.Path(exists=True, dir_okay=False),
                metavar="PATH",
                help="For a matrix: a file with the true label of each row, whole numbers.",
            ),
            key_option,
            click.option(
                "--data",
                type=click.Path(),
                default="auto",
                show_default=True,
                metavar="auto|bundled|keras|PATH",
                help=f"{what} PATH: an MNIST .npz or a folder of IDX files, or a matrix as .npy, "
                ".npz, .csv, .tsv, .safetensors or .parquet.",
            ),
        ):
            command = option(command)
        return command

    return decorate


key_option = click.option(
    "--key", metavar="NAME", help="Which array of an .npz or .safetensors file is the matrix."
)


def int_or_auto(ctx: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """Convert a whole number from 1, or the word auto."""
    if value == "auto":
        return value
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is neither auto nor a whole number from 1.")
    return int(value)


def command_line(ctx: click.Context, seed: int) -> str:
    """Write the command that repeats this one: what was set, and the seed even if drawn."""
    import shlex

    from click.core import ParameterSource

    set_by_hand = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    about_output = {"json", "quiet", "gallery", "save", "log", "no_log", "seed"}
    words = ["mnist-kmeans-mlx", str(ctx.info_name)]
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name not in about_output and ctx.get_parameter_source(name) in set_by_hand:
            words += [max(parameter.opts, key=len), str(ctx.params[name])]
    return shlex.join([*words, "--seed", str(seed)])
