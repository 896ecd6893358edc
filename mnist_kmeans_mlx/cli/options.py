"""Options that several commands share, as stacks of decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mnist_kmeans_mlx.formats import format_of, suffixes

Command = TypeVar("Command", bound=Callable[..., Any])

# Most numbers that ``...`` may stand for.
_MOST_NUMBERS = 10_000

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

max_iter_option = click.option(
    "--max-iter",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Most iterations of a restart.",
)

log_option = click.option(
    "--log",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="The experiment log. [default: experiments.jsonl in your state folder]",
)


def _stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; help lists the last one first."""

    def decorate(command: Command) -> Command:
        for option in options:
            command = option(command)
        return command

    return decorate


def data_options(what: str) -> Callable[[Command], Command]:
    """Options that name the data; `what` says what it is for."""
    return _stack(
        click.option(
            "--labels",
            type=click.Path(exists=True, dir_okay=False),
            metavar="PATH",
            help="For a matrix: a file with the true label of each row, whole numbers.",
        ),
        matrix_options,
        click.option(
            "--data",
            type=click.Path(readable=False),  # unreadable files are reported by the reader
            default="auto",
            show_default=True,
            metavar="auto|bundled|keras|PATH",
            help=f"{what} PATH: an MNIST .npz or a folder of IDX files, or a matrix as "
            f"{suffixes()}, or a pattern in quotes for several {suffixes('blocks')} files.",
        ),
    )


def _size(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check a number of bytes, with an optional unit."""
    if value == "auto":
        return value
    from mnist_kmeans_mlx.memory import limit

    try:
        limit(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no size such as 2GB or 800MB.") from None
    return value


key_option = click.option(
    "--key", metavar="NAME", help=f"Which array of {suffixes('key')} is the matrix."
)

header_option = click.option(
    "--header/--no-header",
    default=None,
    help=f"Whether the first line of {suffixes('header')} names the columns. [default: if it holds "
    "no number, or numbers that look like names]",
)

columns_option = click.option(
    "--columns",
    metavar="COLUMN,COLUMN,...",
    help=f"Which columns of {suffixes('columns')} to read: names, numbers from 0, or ranges such "
    "as 1-784, both ends included. [default: all but an index, and labels beside 784 pixels]",
)

memory_option = click.option(
    "--memory",
    metavar="SIZE|auto",
    default="auto",
    show_default=True,
    callback=_size,
    help="Memory limit of the process, such as 2GB; rows that do not fit are read in parts. auto: "
    "half of the free memory.",
)

# Which part of a file is the matrix.
matrix_options: Callable[[Any], Any] = _stack(columns_option, header_option, key_option)

# Of a command that gives a model rows.
model_options: Callable[[Any], Any] = _stack(
    quiet_option, json_option, device_option, memory_option
)


def int_or_auto(ctx: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """Convert a whole number from 1, or the word auto."""
    if value == "auto":
        return value
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is neither auto nor a whole number from 1.")
    return int(value)


def out_option(name: str, help: str, **settings: Any) -> Callable[[Command], Command]:
    """Option for a file of numbers to write, in any format that has a writer."""

    def check(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and format_of(value, "write") is None:
            raise click.BadParameter(f"the name must end in {suffixes('write')}")
        return value

    path = click.Path(dir_okay=False)
    return click.option(name, type=path, metavar="FILE", callback=check, help=help, **settings)


def ks_option(default: str, help: str) -> Callable[[Command], Command]:
    """Option for several numbers of clusters."""
    return click.option(
        *("-k", "--ks"),
        metavar="K,K,...",
        default=default,
        show_default=True,
        callback=whole_numbers(1, 10**6),
        help=help,
    )


def n_init_option(auto: str) -> Callable[[Command], Command]:
    """Option for the number of restarts; `auto` says how many the default means."""
    return click.option(
        "--n-init",
        metavar="INTEGER|auto",
        callback=int_or_auto,
        default="auto",
        show_default=True,
        help=f"Restarts, of which the best is kept. auto: {auto}.",
    )


def whole_numbers(least: int, most: int) -> Callable[..., tuple[int, ...]]:
    """Converter of whole numbers separated by commas; ``...`` fills in a range.

    ``...`` continues with the step of the two numbers before it. The number after it is the last,
    even if no step ends there.
    """

    def convert(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
        found: list[int] = []
        steps = False
        for word in value.replace(" ", "").split(","):
            if word in ("...", "…") and found and not steps:
                steps = True
                continue
            if not (word.isascii() and word.isdigit() and least <= int(word) <= most):
                raise click.BadParameter(
                    f"{word!r} is no whole number from {least} to {most}; write them as 10,15,20 "
                    "or 10,20,...,100."
                )
            if steps:
                step = found[-1] - found[-2] if len(found) > 1 else 1
                if step < 1 or (int(word) - found[-1]) // step > _MOST_NUMBERS:
                    raise click.BadParameter(
                        "the numbers before ... must grow, and it may stand for at most 10,000."
                    )
                found += range(found[-1] + step, int(word), step)
                steps = False
            found.append(int(word))
        if steps:
            raise click.BadParameter("a last number must follow ... .")
        return tuple(sorted(set(found)))

    return convert


def format_option(command: Command) -> Command:
    """Options that choose how the result is printed: at most one of them."""
    for name, what in (("csv", "CSV"), ("markdown", "Markdown, for a README")):
        help = f"Print the result as {what}."
        command = click.option(f"--{name}", is_flag=True, help=help)(command)
    return json_option(command)


folder_option = click.option(
    "--save",
    type=click.Path(file_okay=False),
    metavar="DIR",
    # For `fit` this names a model.
    allow_from_autoenv=False,
    help="Write the result to this folder too, as JSON, Markdown and CSV.",
)


# Options about the output, which is not part of what is repeated.
_ABOUT_OUTPUT = {"cells", "checkpoint", "csv", "figure", "fresh", "gallery", "json", "log",
                 "markdown", "no_log", "quiet", "resume", "save"}  # fmt: skip


def command_line(ctx: click.Context, seed: int | None = None) -> str:
    """Write the command that repeats this one: the given options, and the seed even if drawn."""
    import shlex

    from click.core import ParameterSource

    set_by_hand = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    left_out = _ABOUT_OUTPUT if seed is None else {*_ABOUT_OUTPUT, "seed"}
    words = ["mnist-kmeans-mlx", str(ctx.info_name)]
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name in left_out or ctx.get_parameter_source(name) not in set_by_hand:
            continue
        value = ctx.params[name]
        if isinstance(parameter, click.Argument):
            words += value if isinstance(value, tuple) else [value]
        elif isinstance(value, bool):
            # A flag without a negative form is off if it is left out.
            words += (parameter.opts if value else parameter.secondary_opts)[-1:]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [max(parameter.opts, key=len), text]
    return shlex.join(words if seed is None else [*words, "--seed", str(seed)])
