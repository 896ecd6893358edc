"""The site: ``pip install -e '.[cpu,docs]'``, then ``sphinx-build -W docs site``."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
# autosummary writes these pages, and leaves those of names that are gone.
shutil.rmtree(HERE / "api", ignore_errors=True)

import mnist_kmeans_mlx  # noqa: E402

project = "mnist-kmeans-mlx"
author = "its contributors"
copyright = "its contributors, MIT licence"
version = release = mnist_kmeans_mlx.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_templates", "mnist.ipynb"]
templates_path = ["_templates"]

# Every reference must be found. What other projects document is looked up on Read the Docs only:
# elsewhere the site builds without a network, and these names are no links.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(sklearn|numpy|mlx)\..*")]
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {"sklearn": ("https://scikit-learn.org/stable", None)}

# Docstrings write `names` as numpydoc does: a link where the name has a page, else code.
default_role = "py:obj"
# They make one dash of the two of an option.
smartquotes = False
autodoc_typehints = "none"
autosummary_ignore_module_all = False
numpydoc_show_class_members = False

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = "mnist-kmeans-mlx"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Only a chapter of several pages has a navigation of its own.
html_sidebars = {page.stem: [] for page in HERE.glob("*.md") if page.stem != "api"}
html_show_sphinx = False
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    app.connect("missing-reference", leave_as_code)


def leave_as_code(app, env, node, text):
    """Let parameters, and what else has no page, be code."""
    return text if node["reftype"] == "obj" else None


def leave_out(app, what, name, member, skip, options):
    """Leave out what a class inherits from other projects: it is documented there."""
    module = getattr(getattr(member, "fget", member), "__module__", None) or ""
    ours = module.partition(".")[0] in ("mnist_kmeans_mlx", "")
    return skip if ours else True
