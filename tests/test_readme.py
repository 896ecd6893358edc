"""The README is short, what it shows is true, and it leads on to the documents."""

import re

import pytest
from guide import DOCS, README, Walk, blocks, commands

TEXT = README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_examples_run(tmp_path, device):
    Walk(tmp_path, device).follow(README, "python")


def test_its_commands_are_those_of_the_site():
    site = {command for page in (DOCS / "cli").glob("*.md") for command, _ in commands(page)}
    assert {command for command, _ in commands(README)} <= site


def test_the_two_commands_come_first():
    (_, first), *_ = blocks(README, "sh")
    assert first.index("./scripts/demo") < first.index("./scripts/test")


def test_it_is_read_in_one_sitting():
    assert len(TEXT.splitlines()) <= 150


def rows(page):
    """Cells of the first table of arms on a page, by their names in its head."""
    table = re.search(r"^\| K \| Arm .*\n(?:\|.*\n)+", page.read_text(encoding="utf-8"), re.M)[0]
    head, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    ]
    return [dict(zip(head, cells, strict=True)) for cells in lines]


def test_its_table_is_taken_from_the_document():
    shown, whole = rows(README), rows(DOCS / "performance.md")
    assert len(shown) >= 12
    for row in shown:
        assert any(row.items() <= other.items() for other in whole), row


@pytest.mark.parametrize("page", sorted((DOCS / "howto").glob("[!i]*.md")), ids=lambda p: p.stem)
def test_it_leads_to_each_how_to(page):
    assert f"(docs/howto/{page.name})" in TEXT
