"""Opens the pages of a folder in headless Chromium and reports what a reader would see."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
)
# Runs first in every page: what goes wrong is kept, whoever catches it later.
WATCH = """<script>
window.seen = [];
for (const kind of ["error", "warn"]) {
  const was = console[kind];
  console[kind] = (...words) => { window.seen.push(kind + ": " + words.join(" ")); was(...words); };
}
window.addEventListener("error", event => window.seen.push(
  "error: " + (event.message || (event.target.src || event.target.href))), true);
window.addEventListener("unhandledrejection", event => window.seen.push("error: " + event.reason));
</script>"""
DRIVER = """<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES, widths = WIDTHS, script = SCRIPT, found = [];
// Beyond the window's edge, and in no box of its own that scrolls.
const beyond = (element, there, root) => {
  const place = element.getBoundingClientRect();
  if (!place.width || place.right <= root.clientWidth + 1) return false;
  for (let e = element; e && e !== root; e = e.parentElement) {
    if (e.tagName === "MJX-ASSISTIVE-MML") return false;
    if (/auto|scroll/.test(there.getComputedStyle(e).overflowX) && e !== element &&
        e.getBoundingClientRect().right <= root.clientWidth + 1 && e.tagName !== "MAIN" &&
        e.scrollWidth > e.clientWidth && e.clientWidth < root.clientWidth) return false;
  }
  return true;
};
const open = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = async () => {
    const there = frame.contentWindow, text = frame.contentDocument, root = text.documentElement;
    if (there.MathJax && there.MathJax.startup) await there.MathJax.startup.promise;
    for (const image of text.images) image.loading = "eager";
    await Promise.all([...text.images].map(image => image.decode().catch(() => 0)));
    let acted = null;
    try { if (script) acted = await there.eval(script); }
    catch (error) { there.seen.push("error: " + error); }
    const formulas = [...text.querySelectorAll(".math")];
    found.push({
      page, width, acted,
      wide: [...text.querySelectorAll("main *")].filter(e => beyond(e, there, root))
        .slice(0, 5).map(e => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40)),
      images: [...text.images].filter(i => !i.naturalWidth).map(i => i.src),
      formulas: formulas.length,
      lost: formulas.filter(e => !e.querySelector("mjx-container") || e.querySelector("mjx-merror")
        || !e.querySelector("mjx-assistive-mml").textContent.trim()
        || !e.getBoundingClientRect().width).map(e => e.textContent.slice(0, 80)),
      cut: formulas.filter(e => e.tagName == "DIV").filter(e => {
        const inner = e.querySelector("mjx-math");
        return inner && inner.getBoundingClientRect().left < e.getBoundingClientRect().left - 1;
      }).map(e => e.textContent.slice(0, 80)),
      elsewhere: there.performance.getEntriesByType("resource").map(r => r.name)
        .filter(name => !name.startsWith(location.origin) && !name.startsWith("data:")),
      said: there.seen,
    });
    frame.remove();
    done();
  };
  frame.src = page;
  document.body.append(frame);
});
(async () => {
  for (const page of pages) for (const width of widths) await open(page, width);
  await fetch("/report", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


def chromium() -> str | None:
    """Debian's Chromium, or another under its usual names; None: there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class _Site(SimpleHTTPRequestHandler):
    """Serves a folder, each page with WATCH in its head, and takes one report."""

    def __init__(self, *args: Any, driver: str, report: list[Any], done: Any, **more: Any) -> None:
        self.driver, self.report, self.done = driver, report, done
        super().__init__(*args, **more)

    def do_GET(self) -> None:
        """A page or a file."""
        path = Path(self.translate_path(self.path))
        if self.path == "/driver":
            self._page(self.driver)
        elif path.suffix == ".html" and path.is_file():
            self._page(path.read_text().replace("<head>", f"<head>{WATCH}", 1))
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """What the driver found."""
        size = int(self.headers["Content-Length"])
        self.report += json.loads(self.rfile.read(size))
        self._page("")
        self.done.set()

    def _page(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def open_pages(
    folder: Path,
    pages: Sequence[str],
    widths: Sequence[int],
    profile: Path,
    *,
    timeout: float,
    script: str | None = None,
) -> list[dict[str, Any]]:
    """One report a page and width.

    Args:
        folder: Where the pages are.
        pages: Their names in it.
        widths: Of the window, in pixels.
        profile: Directory for the browser's own files.
        timeout: Seconds for all of them.
        script: JavaScript that each page runs when it is there; its value, or that of its promise,
            is `acted` of the report.
    """
    report: list[dict[str, Any]] = []
    done = threading.Event()
    driver = DRIVER.replace("PAGES", json.dumps(list(pages))).replace(
        "WIDTHS", json.dumps(list(widths))
    )
    driver = driver.replace("SCRIPT", json.dumps(script).replace("</", "<\\/"))
    handler = partial(_Site, directory=str(folder), driver=driver, report=report, done=done)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [str(chromium()), *FLAGS, f"--user-data-dir={profile}"]
        command.append(f"http://127.0.0.1:{server.server_port}/driver")
        browser = subprocess.Popen(
            [*command[:-1], "--remote-debugging-port=0", "--window-size=1400,1000", command[-1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not done.wait(timeout):
                raise TimeoutError(f"expected a report within {timeout:.0f} s, got none")
        finally:
            browser.terminate()
            browser.wait(20)
            server.shutdown()
    return report


def open_from_disk(path: Path, profile: Path, timeout: float) -> str:
    """The elements of a page opened as a file, as text, when its scripts have run."""
    command = [str(chromium()), *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=10000"]
    shown = subprocess.run(
        [*command, "--dump-dom", path.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return shown.stdout


__all__ = ["chromium", "open_from_disk", "open_pages"]
