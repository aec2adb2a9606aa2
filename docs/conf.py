"""The documentation site: sphinx-build -W docs OUT (CONTRIBUTING.md says why Sphinx)."""

from __future__ import annotations

import inspect
import shutil
import sys
from dataclasses import is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RECEIVED = ("mmcl_fast.EpochInfo", "mmcl_fast.RunState")
DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

from command_line import command_line_page
from docstrings import restructured
from links import LinkedPages
from sphinx.util.inspect import stringify_signature

import mmcl_fast

project = "mmcl-fast"
author = "The mmcl-fast authors"
copyright = author
release = version = mmcl_fast.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_ext", "_static"]
smartquotes = False  # --option stays two dashes

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "extra_repr"}
add_module_names = False
maximum_signature_line_length = 60
toc_object_entries_show_parents = "hide"
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "mmcl-fast"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_nav_level": 2,
    "show_toc_level": 2,
    "header_links_before_dropdown": 8,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
mathjax_path = "mathjax/tex-chtml.js"  # in _static, put there by `mathjax`
mathjax3_config = {
    "options": {"enableMenu": False},
    "chtml": {"scale": 0.9, "displayAlign": "left", "displayIndent": "1em"},  # can scroll
}


def mathjax(app: Any) -> None:
    """Copy MathJax and its fonts from the package django-static-mathjax into the site."""
    package = Path(find_spec("mathjax").submodule_search_locations[0]) / "static/mathjax/es5"
    fonts = (package / "output/chtml/fonts/woff-v2").glob("*.woff")
    for path in (package / "tex-chtml.js", *fonts):
        place = Path(app.outdir) / "_static/mathjax" / path.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def command_line(app: Any, name: str, source: list[str]) -> None:
    """Fill the page of the command line from the options."""
    if name == "reference/cli":
        source[0] = source[0] + command_line_page()


def docstring(_app: Any, *arguments: Any) -> None:
    """Make a docstring, which is Markdown with sections, what Sphinx reads."""
    lines = arguments[-1]
    lines[:] = restructured("\n".join(lines)).splitlines()


def public_fields(_app: Any, _what: str, name: str, obj: Any, *_: Any) -> tuple[str, str] | None:
    """The signature of a dataclass without its private fields; none of what users only receive."""
    if name in RECEIVED:
        return "", ""
    if not (inspect.isclass(obj) and is_dataclass(obj)):
        return None
    whole = inspect.signature(obj)
    shown = [p for name, p in whole.parameters.items() if not name.startswith("_")]
    text = stringify_signature(
        whole.replace(parameters=shown), show_return_annotation=False, unqualified_typehints=True
    )
    return text, ""


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", mathjax)
    app.connect("source-read", command_line)
    app.connect("source-read", LinkedPages(DOCS).read)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", public_fields)
