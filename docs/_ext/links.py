"""Links that work in the repository and on the site."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
# Files of the repository that are pages, as docs/development includes them.
PAGES = {
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changelog.md",
    "bench/README.md": "development/measuring.md",
}
PATHS = {f"development/{Path(place).stem}": source for source, place in PAGES.items()}


class LinkedPages:
    """Rewrites each page before it is read.

    Links to Markdown files of the repository become links to their pages, those to its other files
    plain text, and names of the reference in code style links to it.
    """

    def __init__(self, docs: Path) -> None:
        self.docs, self.root = docs, docs.parent
        texts = (page.read_text(encoding="utf-8") for page in (docs / "reference").glob("*.md"))
        found = (re.findall(r"^\.\. auto\w+:: (\S+)", text, re.MULTILINE) for text in texts)
        self.known = {name for names in found for name in names}

    def read(self, _app: Any, name: str, source: list[str]) -> None:
        """Called with the text of each page."""
        here = PATHS.get(name, f"docs/{name}.md")
        if name in PATHS:
            source[0] = (self.root / here).read_text(encoding="utf-8")
        text, parts, last = source[0], [], 0
        for fence in FENCE.finditer(text):
            parts += [self._prose(text[last : fence.start()], here, name), fence[0]]
            last = fence.end()
        source[0] = "".join([*parts, self._prose(text[last:], here, name)])

    def _prose(self, text: str, here: str, name: str) -> str:
        def link(match: re.Match[str]) -> str:
            words, target, anchor = match[1], match[2], match[3] or ""
            if re.match(r"[a-z]+:", target):
                return match[0]
            path = os.path.normpath(os.path.join(os.path.dirname(here), target))
            place = PAGES.get(path)
            if place is None and path.startswith("docs/"):
                place = path.removeprefix("docs/")
            if place is None:
                return words
            return f"[{words}]({os.path.relpath(place, os.path.dirname(name) or '.')}{anchor})"

        def role(match: re.Match[str]) -> str:
            return f"{{py:obj}}`{match[1]}`" if match[1] in self.known else match[0]

        text = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)", link, text)
        return re.sub(r"(?<![\[`}])`(mmcl_fast(?:\.\w+)+)`(?!`)", role, text)


__all__ = ["LinkedPages"]
