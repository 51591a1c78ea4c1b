"""Opens every page of the built site in headless Chromium and says what is wrong with it.

    python docs/check.py docs/_build/html
    python docs/check.py docs/_build/html --pictures FOLDER         # and keep pictures of the pages

A page is right if it opens without an error in the console, asks no other machine for anything, finds all files it asks
for, has no picture that is not there and no link to a page or place that is not there, and needs no scrolling to the
side at 390 and at 1440 pixels. The page of a cell has equations, which are drawn in the site's font, and none that is
left as text. The search has to find "peephole".
"""

import argparse
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from playwright.sync_api import Page, TimeoutError, sync_playwright

WIDTHS = (390, 1440)
FACTS = """async () => (await document.fonts.ready, {
    too_wide: document.documentElement.scrollWidth - window.innerWidth,
    dead: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    places: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    equations: [...document.querySelectorAll(".equations math")].map(e => e.getBoundingClientRect().width),
    fonts: [...document.fonts].filter(font => font.status === "loaded").map(font => font.family),
    as_text: [...document.querySelectorAll("dl.class pre")].map(e => e.textContent).filter(t => !t.includes(">>>")),
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *args: object) -> None: ...


def serve(folder: Path) -> str:
    """The address at which the files of a folder are, for as long as this process lives."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def watch(page: Page, home: str, wrong: list[str]) -> None:
    """Adds to `wrong` whatever the browser complains about."""
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"no answer: {request.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on(
        "request",
        lambda request: (
            wrong.append(f"asks another machine: {request.url}")
            if not request.url.startswith((home, "data:", "blob:"))
            else None
        ),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("chromium: not found, needs Chromium on the PATH (Debian: apt-get install chromium)")
    home, wrong = serve(arguments.site), []
    files = sorted(path.relative_to(arguments.site).as_posix() for path in arguments.site.rglob("*.html"))
    links: dict[str, set[str]] = {}
    places: dict[str, set[str]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page, found = browser.new_page(), []
        watch(page, home, found)
        for file in files:
            found.clear()
            source = file.startswith("_modules/")
            for width in WIDTHS[-1:] if source else WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                if page.url != home + file:
                    page.goto(home + file, wait_until="load")
                facts = page.evaluate(FACTS)
                if facts["too_wide"] > 0:
                    found.append(f"{facts['too_wide']} pixels wider than {width}")
                if arguments.pictures and not source:
                    path = arguments.pictures / f"{file.removesuffix('.html').replace('/', '-')}-{width}.png"
                    page.screenshot(path=path, full_page=True)
            found += [f"a picture that is not there: {one}" for one in facts["dead"]]
            if file.startswith("catalog/") and Path(file).stem not in ("index", "types"):
                found += [] if facts["equations"] and min(facts["equations"]) > 0 else ["no equations"]
                found += [] if "STIX Two Math" in " ".join(facts["fonts"]) else ["equations are not in their font"]
                found += [f"equations as text: {text}" for text in facts["as_text"]]
            links[file], places[file] = set(facts["links"]), set(facts["places"])
            wrong += [f"{file}: {one}" for one in dict.fromkeys(found)]
        found.clear()
        page.goto(f"{home}search.html?q=peephole")
        try:  # hits appear one after the other
            page.wait_for_selector("ul.search li a:has-text('VanillaLSTM')", timeout=20_000)
        except TimeoutError:
            wrong.append("search: peephole does not lead to VanillaLSTM")
        if arguments.pictures:
            page.screenshot(path=arguments.pictures / "search-peephole.png")
        wrong += [f"search: {one}" for one in found]
        browser.close()
    for file, targets in links.items():
        for target in targets:
            path, anchor = urldefrag(urljoin(home + file, target))
            if not path.startswith(home):
                continue
            name = unquote(urlsplit(path).path).lstrip("/") or "index.html"
            name += "index.html" if name.endswith("/") else ""
            if not (arguments.site / name).exists():
                wrong.append(f"{file}: a link to {name}, which is not there")
            elif anchor and name in places and unquote(anchor) not in places[name]:
                wrong.append(f"{file}: a link to {name}#{anchor}, which is not there")
    print("\n".join(wrong))
    print(f"{len(files)} pages, {len(wrong)} faults")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
