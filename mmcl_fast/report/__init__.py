"""The report of a sweep: one HTML file to explore a store in a browser, without a network.

report.write_report("store", "report.html")        # or: mmcl report store --out report.html

The page is a Vega specification and Vega itself: selectors, hover and clicks are Vega's, and there
is no JavaScript of ours. `docs/report.md` says why.
"""

from __future__ import annotations

from mmcl_fast.report.write import Report, write_report

__all__ = ["Report", "write_report"]
