"""The documentation site: it builds without a warning, loses nothing, and fits a phone."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

from mmcl_fast.cli.options import COMMANDS
from mmcl_fast.cli.parser import flags_of
from tests.support.browser import chromium, open_pages

ROOT = Path(__file__).parents[2]
NEEDS = ("sphinx", "myst_parser", "pydata_sphinx_theme", "mathjax")
MISSING = [name for name in NEEDS if find_spec(name) is None]
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(MISSING), reason=f"extra [docs] is not installed: {MISSING}"),
]
WIDTHS = (1280, 390)
OF_THE_BUILDER = {"genindex.html", "py-modindex.html", "search.html"}
# Elements of HTML, SVG and MathML that a page may have; <w_r, mu> would be another.
TAGS = {
    "a",
    "abbr",
    "article",
    "aside",
    "body",
    "br",
    "button",
    "code",
    "col",
    "colgroup",
    "dd",
    "details",
    "dialog",
    "div",
    "dl",
    "dt",
    "em",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "head",
    "header",
    "hr",
    "html",
    "i",
    "img",
    "input",
    "kbd",
    "label",
    "li",
    "link",
    "main",
    "meta",
    "nav",
    "noscript",
    "ol",
    "p",
    "path",
    "pre",
    "script",
    "section",
    "small",
    "span",
    "strong",
    "style",
    "sub",
    "summary",
    "sup",
    "svg",
    "table",
    "tbody",
    "td",
    "template",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
}


class Page(HTMLParser):
    """Tags, identifiers, links, pictures and formulas of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)
        found = re.findall(r'<(?:span|div) class="math[^"]*"[^>]*>(.*?)</(?:span|div)>', text, re.S)
        self.formulas = [html.unescape(formula) for formula in found]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        known = dict(attrs)
        self.places |= {known[name] or "" for name in ("id", "name") if name in known}
        if tag == "a" and known.get("href"):
            self.links.append(known["href"] or "")
        if tag in ("img", "script", "link") and (known.get("src") or known.get("href")):
            self.loaded.append(known.get("src") or known.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d"]
    made = subprocess.run(
        [*command, str(tmp_path_factory.mktemp("doctrees")), str(ROOT / "docs"), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        str(path.relative_to(site)): Page(path.read_text())
        for path in sorted(site.rglob("*.html"))
        if path.name not in OF_THE_BUILDER and "_static" not in path.parts
    }


def test_every_source_has_a_page(site: Path, pages: dict[str, Page]) -> None:
    sources = {str(p.relative_to(ROOT / "docs").with_suffix(".html")) for p in sources_of()}
    assert sources == set(pages)


def sources_of() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))


def test_nothing_is_read_as_a_tag(pages: dict[str, Page]) -> None:
    strange = {name: set(page.tags) - TAGS for name, page in pages.items()}
    assert not {name: tags for name, tags in strange.items() if tags}


def formulas_of(text: str) -> list[str]:
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    shown = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
    inline = re.findall(r"\$([^$\n]+?)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
    return [*shown, *inline]


def bare(formula: str) -> str:
    """A formula without delimiters and spaces."""
    return re.sub(r"\\\s|\s+|\\[()\[\]]", "", formula)


def test_every_formula_is_on_its_page(pages: dict[str, Page]) -> None:
    count = 0
    for source in sources_of():
        name = str(source.relative_to(ROOT / "docs").with_suffix(".html"))
        there = Counter(map(bare, pages[name].formulas))
        wanted = Counter(map(bare, formulas_of(source.read_text())))
        missing = wanted - there
        assert not missing, f"{name}: {missing}"
        count += sum(wanted.values())
    assert count > 100


def test_no_inner_product_is_left_as_text() -> None:
    """<w_r, mu> outside of code is no formula, and Markdown may read it as a tag."""
    for source in [*sources_of(), ROOT / "README.md"]:
        text = re.sub(r"^( *)```.*?^\1```", "", source.read_text(), flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"`[^`\n]*`|<!--.*?-->", "", text, flags=re.DOTALL)
        assert not re.findall(r"<[A-Za-z]\w*~?[_(,][^>]*>", text), source.name


def test_links_and_pictures_lead_somewhere(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in [*page.links, *page.loaded]:
            if re.match(r"https?:|mailto:|data:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (site / name).parent / path.partition("?")[0] if path else site / name
            if not target.exists():
                broken.append((name, link))
            elif anchor and target.suffix == ".html":
                other = pages.get(str(target.resolve().relative_to(site.resolve())))
                if other is not None and anchor not in other.places:
                    broken.append((name, link))
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, Page]) -> None:
    assert not [x for page in pages.values() for x in page.loaded if re.match(r"(https?:)?//", x)]


def test_the_reference_has_sections(site: Path) -> None:
    text = (site / "reference/losses.html").read_text()
    for title in ("Parameters", "Returns", "Raises", "Numerics", "Cost", "See"):
        assert f"{title}<span" in text, title
    assert "positive_key" in text


def test_every_option_is_in_the_reference(site: Path) -> None:
    text = re.sub(r"<(?!section|/section)[^>]*>", "", (site / "reference/cli.html").read_text())
    for name, kind in COMMANDS.items():
        section = text.partition(f'id="mmcl-{name}"')[2].partition('<section id="mmcl-')[0]
        lines = {line.strip() for line in section.splitlines()}
        missing = {flag for flag in flags_of(kind) if flag not in lines}
        assert all(name.upper() in lines for name in missing), missing  # arguments without a flag


@pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt-get install chromium)")
def test_pages_in_a_browser(site: Path, pages: dict[str, Page], tmp_path: Path) -> None:
    found = open_pages(site, list(pages), WIDTHS, tmp_path / "profile", timeout=300)
    assert len(found) == len(pages) * len(WIDTHS)
    faults = [
        (seen["page"], seen["width"], kind, seen[kind])
        for seen in found
        for kind in ("lost", "cut", "images", "elsewhere", "said", "wide")
        if seen[kind]
    ]
    assert not faults
    assert sum(seen["formulas"] for seen in found) > 200


@pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt-get install chromium)")
def test_the_browser_sees_faults(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    page = (
        "<!doctype html><html><head></head><body><main><div style='width:2000px'>wide</div></main>"
        "<span class='math'>\\(x\\)</span><img src='none.png'><script>console.error('no')</script>"
        "</body></html>"
    )
    (tmp_path / "site/bad.html").write_text(page)
    (tmp_path / "site/good.html").write_text(
        "<!doctype html><html><head></head><body></body></html>"
    )
    bad, good = open_pages(
        tmp_path / "site", ["bad.html", "good.html"], [390], tmp_path / "profile", timeout=60
    )
    assert bad["wide"]
    assert len(bad["images"]) == 1
    assert bad["lost"] == ["\\(x\\)"]
    assert "error: no" in bad["said"]
    assert not any(good[kind] for kind in ("wide", "images", "lost", "said", "elsewhere"))
