"""The HTML page: words, Vega's own script, and one call that starts it."""

from __future__ import annotations

import html
import json
from importlib import import_module

from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.report.facts import Facts
from mmcl_fast.report.spec.signals import Json

# Vega makes functions of its expressions. Nothing may be fetched, from anywhere.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
START = """const options = {
  actions: {export: true, source: false, compiled: false, editor: false},
  bind: "#controls", renderer: "svg", downloadFileName: NAME,
};
vegaEmbed("#view", JSON.parse(document.getElementById("specification").textContent), options);"""
STYLE = """
html { overflow-y: scroll; } /* a bar that came later would make the panels too wide */
body { font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; color: #222;
  margin: 0 auto; max-width: 1500px; padding: 0 12px 40px; }
h1 { font-size: 22px; margin: 18px 0 4px; overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; color: #0a58a8; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; font-size: 13px;
  margin: 6px 0; }
dt { color: #667; } dd { margin: 0; overflow-wrap: anywhere; }
p { margin: 4px 0; font-size: 13px; color: #445; max-width: 75em; }
#controls { background: #f4f5f7; border-radius: 6px; padding: 8px 10px; margin: 10px 0 16px;
  display: grid; gap: 8px 16px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
#controls .vega-bind label { display: flex; flex-wrap: wrap; gap: 2px 6px; font-size: 12px; }
#controls .vega-bind-name { flex-basis: 100%; color: #556; margin: 0; }
#controls .vega-bind { min-width: 0; }
#controls select, #controls input[type=text], #controls input[type=range] {
  font: inherit; font-size: 14px; width: 100%; box-sizing: border-box; }
#controls input[type=range] + * { display: none; } /* an index; panels name the epoch */
#view { width: 100%; min-width: 300px; }
#view.vega-embed { padding-right: 0; display: block; }
#view.vega-embed details { margin: 0; }
"""
GUIDE = """<p>Click a cell of the map, or a row of the table, to see the curves of its runs; hover
for numbers. Selectors below the first four fix the settings that are not on the map's axes, and
move the chosen cell along those that are. Bands are one sample standard deviation over runs. Black
line on the map: between these cells T<sub>1</sub> of the signal (Lemma 5.4; single-modal with
C<sub>μ</sub> = 1) passes T<sub>1</sub> of the noise (Lemma 5.2). Dashed: the border of
Assumption 4.1. Grey: no finished run. The menu at the upper right of the panels saves them as
a picture.</p>"""


def vega() -> str:
    """Vega's script, from the package that bundles it.

    Raises: BackendUnavailableError: the package is not installed.
    """
    try:
        bundle: str = import_module("vl_convert").javascript_bundle()
    except ImportError as error:
        raise BackendUnavailableError(
            "report: expected the package vl-convert-python (pip install 'mmcl-fast[report]'), "
            "got none"
        ) from error
    return bundle


def page(name: str, about: Facts, specification: Json, script: str) -> str:
    """The page.

    Args:
        name: Of the store.
        about: What was run.
        specification: For Vega.
        script: Vega's own.
    """
    title = html.escape(f"Sweep {name}")
    pairs = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in about[1:])
    # Inside a script element only `</` could end it early.
    data = json.dumps(specification, ensure_ascii=False, separators=(",", ":")).replace(
        "</", "<\\/"
    )
    start = START.replace("NAME", json.dumps(name).replace("</", "<\\/"))
    script = script.replace("</script", "<\\/script")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style></head>
<body><main>
<h1>{title}</h1>
<p>Runs: {html.escape(about[0][1])}</p>
<details open><summary>What was run</summary><dl>{pairs}</dl></details>
<details open><summary>How to read it</summary>{GUIDE}</details>
<div id="controls"></div>
<div id="view"></div>
<script type="application/json" id="specification">{data}</script>
<script>{script}</script>
<script>{start}</script>
</main></body></html>
"""


__all__ = ["page", "vega"]
