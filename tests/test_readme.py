"""Every command in the README runs and prints what the README shows."""

import doctest
import re

import pytest
from guide import README, ROOT, blocks, console_commands

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.slow
def test_commands_print_what_the_readme_shows(walked):
    checker = doctest.OutputChecker()
    assert len(walked.outputs) == len(console_commands()) >= 11
    for command, expected in console_commands():
        found = walked.outputs[command]
        # An ellipsis may stand for nothing, and at the end for all the rest.
        shown = re.sub(r"\s*\.\.\.\s*", "...", expected)
        assert checker.check_output(shown, found, FLAGS), (command, found)


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest("".join(blocks("python")), {}, "README", None, 0)
    result = doctest.DocTestRunner(optionflags=FLAGS).run(examples)
    assert result.attempted >= 5
    assert result.failed == 0


def test_every_command_is_shown():
    from mnist_kmeans_mlx.cli import main

    shown = set(re.findall(r"mnist-kmeans-mlx (\w+)", "\n".join(c for c, _ in console_commands())))
    assert shown == set(main.commands)


def test_the_two_commands_come_first():
    first = blocks("sh")[0]
    assert first.index("./scripts/demo") < first.index("./scripts/test")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
