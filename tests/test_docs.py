"""The site: it builds without a warning, leaves nothing out, and its pages do what they show."""

import ast
import inspect
import json
import re
import shlex
from dataclasses import is_dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from commands import run
from guide import COMMANDS, DOCS, PAGES, README, ROOT, Walk, blocks, commands, name, same
from numpy.testing import assert_array_equal

import mnist_kmeans_mlx
from mnist_kmeans_mlx.cli import main

RUN_ALONE = [page for page in PAGES if page not in COMMANDS and blocks(page, "console", "python")]


class Page(HTMLParser):
    """What a page can be linked by, and what it links to: at all, and from its text."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.led_to = set(), [], []
        self.in_text = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.in_text |= tag == "article"
        self.anchors.update(filter(None, [attributes.get("id"), attributes.get("name")]))
        for link in filter(None, [attributes.get("href"), attributes.get("src")]):
            self.links.append(link)
            if self.in_text:
                self.led_to.append(link)

    def handle_endtag(self, tag):
        self.in_text &= tag != "article"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site; a warning is an error."""
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    words = ("-W", "--keep-going", "-q", "-b", "html", "-d", out / "doctrees")
    run("-m", "sphinx", *words, DOCS, out / "html")
    return out / "html"


@pytest.fixture(scope="session")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


@pytest.fixture(scope="session")
def inventory(site):
    """Names of what is documented, by kind."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        return InventoryFile.load(file, "", lambda *parts: "".join(parts))


@pytest.mark.slow
def test_every_public_name_has_a_page(site, inventory):
    documented = {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    for thing in mnist_kmeans_mlx.__all__:
        assert f"mnist_kmeans_mlx.{thing}" in documented
        assert (site / f"api/mnist_kmeans_mlx.{thing}.html").exists()


# A parameter, or what is returned, is not described, or is described under another name.
UNDESCRIBED = {"PR01", "PR02", "PR03", "PR04", "RT01", "RT03"}


def described():
    """Public names, and methods that are ours: not those of dataclasses, whose fields are told."""
    for thing in mnist_kmeans_mlx.__all__:
        public = getattr(mnist_kmeans_mlx, thing)
        if is_dataclass(public):
            continue
        yield thing
        for method, value in inspect.getmembers(public, inspect.isroutine):
            ours = str(getattr(value, "__module__", "")).startswith("mnist_kmeans_mlx")
            if ours and not method.startswith("_") and ":meta private:" not in value.__doc__:
                yield f"{thing}.{method}"


@pytest.mark.parametrize("thing", list(described()))
def test_every_parameter_is_described(thing):
    validate = pytest.importorskip("numpydoc.validate").validate
    errors = validate(f"mnist_kmeans_mlx.{thing}")["errors"]
    assert not [error for error in errors if error[0] in UNDESCRIBED]


@pytest.mark.slow
def test_every_option_of_every_command_is_there(inventory):
    wanted = {
        f"mnist-kmeans-mlx-{command}.{word}"
        for command, found in main.commands.items()
        for option in found.params
        for word in (*option.opts, *option.secondary_opts)
        if word.startswith("-")
    }
    assert len(wanted) > 90
    assert wanted <= inventory["std:cmdoption"].keys()


@pytest.mark.slow
def test_every_link_leads_somewhere(site, pages):
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            assert target.exists(), (path, link)
            if to.fragment and target in pages:
                assert unquote(to.fragment) in pages[target].anchors, (path, link)


@pytest.mark.slow
def test_the_text_of_the_first_page_leads_to_every_page(site, pages):
    found, todo = set(), [site / "index.html"]
    while todo:
        path = todo.pop()
        if path in pages and path not in found:
            found.add(path)
            todo += [(path.parent / urlsplit(link).path).resolve() for link in pages[path].led_to]
    sources = {page.relative_to(DOCS).with_suffix(".html") for page in PAGES if page != README}
    assert {site / source for source in sources} <= found
    howtos = {f"howto/{page.name}" for page in map(Path, sources) if page.parent.name == "howto"}
    assert howtos <= set(pages[site / "index.html"].led_to)


def test_every_command_is_shown():
    shown = " ".join(command for page in COMMANDS for command, _ in commands(page))
    assert set(re.findall(r"mnist-kmeans-mlx (\w+)", shown)) == set(main.commands)


@pytest.mark.slow
@pytest.mark.parametrize("page", COMMANDS, ids=name)
def test_commands_print_what_is_shown(page, walked):
    shown = commands(page)
    assert shown
    for command, output in shown:
        assert same(output, walked.outputs[command]), (command, walked.outputs[command])


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_ALONE, ids=name)
def test_a_page_does_what_it_shows(page, tmp_path, device):
    walk = Walk(tmp_path, device)
    walk.follow(page)
    for command, output in commands(page):
        assert same(output, walk.outputs[command]), (command, walk.outputs[command])


@pytest.mark.slow
def test_the_palette_is_the_one_that_the_page_makes(tmp_path, device):
    from PIL import Image

    Walk(tmp_path, device).follow(DOCS / "howto/palette.md")
    made, shown = (
        Image.open(at / "palette.png").convert("RGB") for at in (tmp_path, DOCS / "howto")
    )
    assert_array_equal(np.array(made), np.array(shown))


def typed(page):
    """Commands on a page, word by word, whether or not a test can run them."""
    text = page.read_text(encoding="utf-8")
    prose = " ".join(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).split())
    lines = re.findall(r"`((?:mnist-kmeans-mlx|(?:python )?scripts/\w+\.py) [^`]+)`", prose)
    lines += [command for command, _ in commands(page)]
    for _, block in blocks(page, "sh"):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        yield list(lexer)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_named_can_be_given(page):
    """Also those that need several machines, a GPU or an hour."""
    for words in typed(page):
        ours = {"mnist-kmeans-mlx", "mnist_kmeans_mlx"} & set(words)
        if not ours:
            continue
        _, *given = words[words.index(*ours) :]
        end = next((at for at, word in enumerate(given) if word in {"&", "&&", "|"}), None)
        command = main.commands[given[0]]
        context = command.make_context(given[0], [], resilient_parsing=True)
        command.make_parser(context).parse_args(given[1:end])


@pytest.mark.slow
def test_scripts_that_are_named_can_be_called():
    helps = {}
    for page in PAGES:
        for words in typed(page):
            script = next((word for word in words if word.startswith("scripts/")), None)
            if script is None:
                continue
            if script not in helps:
                helps[script] = run(ROOT / script, "--help").stdout
            for word in words:
                if word.startswith("--"):
                    assert word in helps[script], (page, script, word)
    assert len(helps) >= 4


def test_messages_that_are_explained_are_given():
    """Those in quotes on the page of troubles, in parts where they hold a name."""
    told = [
        node.value
        for module in Path(mnist_kmeans_mlx.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"(?:^> .*\n)+", text, flags=re.MULTILINE)
    assert len(quoted) >= 3
    for quote in quoted:
        message = " ".join(line.removeprefix("> ") for line in quote.splitlines())
        for part in message.removeprefix("Error: ").split("..."):
            assert any(part in constant for constant in told), part


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_and_files_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:scripts|tests|docs|\.github)/[\w./]+)", text):
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere_in_the_source_too(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_json_that_is_shown_is_json(page):
    for _, text in blocks(page, "json"):
        json.loads(text)
