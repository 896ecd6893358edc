"""Every command in the README runs and prints what the README shows."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def console_commands():
    """Pairs of a command and the output shown below it, in order."""
    for block in blocks("console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output


@pytest.mark.slow
def test_commands_print_what_the_readme_shows(tmp_path, device):
    environment = os.environ | {
        "COLUMNS": "80",
        "PYTHONUTF8": "1",
        "MNIST_KMEANS_MLX_DEVICE": device,
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    checker = doctest.OutputChecker()
    commands = list(console_commands())
    assert len(commands) >= 7
    for command, expected in commands:
        words = shlex.split(command)
        if words[0] == "mnist-kmeans-mlx":
            words[:1] = [sys.executable, "-m", "mnist_kmeans_mlx"]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        # An ellipsis at the end of a line may leave the rest of the output out.
        assert checker.check_output(expected, done.stdout, FLAGS) or checker.check_output(
            expected + "...\n", done.stdout, FLAGS
        ), (command, done.stdout)


@pytest.mark.slow
def test_python_examples_run():
    examples = doctest.DocTestParser().get_doctest("".join(blocks("python")), {}, "README", None, 0)
    result = doctest.DocTestRunner(optionflags=FLAGS).run(examples)
    assert result.attempted >= 5
    assert result.failed == 0


def test_the_two_commands_come_first():
    first = blocks("sh")[0]
    assert first.index("./scripts/demo") < first.index("./scripts/test")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
