"""The site that `make book` builds: no warning, every lesson as stored, no broken link, nothing from the network."""

import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import unquote, urlsplit

import edgeconnect_kernels
import nbformat
import pytest

import edgeconnect_lite

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src")}


def build(source, folder):
    """What `make book` runs, with every way to the network closed as far as proxies close it."""
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-c", str(source / "docs")]
    command += ["-d", str(folder / "doctrees"), str(source), str(folder / "html")]
    closed = dict.fromkeys(["http_proxy", "https_proxy", "all_proxy"], "http://127.0.0.1:9")
    return subprocess.run(command, env=os.environ | closed, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module", autouse=True)
def tools(needs_tool):
    for name in ("sphinx", "myst_nb", "furo"):
        needs_tool(name, importlib.util.find_spec(name))


@pytest.fixture(scope="module")
def site(tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    done = build(ROOT, folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page can be linked by, what it links to, what it loads by itself, and its text."""

    def __init__(self, path):
        super().__init__()
        self.names, self.links, self.loads, self.words = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag, name) == ("a", "name"):
                self.names.add(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif (tag, name) in LOADS and not value.startswith("data:"):
                self.loads.append(value)

    def handle_data(self, data):
        self.words.append(data)


def problems(site, paths=None):
    """Of these pages, by default all: links to a page, a place or a file that is not there, and what others must serve."""
    pages = {}

    def read(path):
        return pages[path] if path in pages else pages.setdefault(path, Page(path))

    for path in paths or sorted(site.rglob("*.html")):
        for kind, targets in (("link", read(path).links), ("load", read(path).loads)):
            for target in targets:
                parts = urlsplit(target)
                if parts.scheme or parts.netloc:
                    if kind == "load" or parts.scheme not in ("http", "https"):
                        yield f"{path.name}: {target} comes from elsewhere"
                    continue
                file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not file.is_file():
                    yield f"{path.name}: {target} is not there"
                elif parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in read(file).names:
                    yield f"{path.name}: no place {target}"


def remote_styles(site):
    """Style sheets that load from an address."""
    found = r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"](?:https?:)?//"
    return [path.name for path in site.rglob("*.css") if re.search(found, path.read_text(encoding="utf-8"))]


def test_every_link_picture_and_place_is_there_and_nothing_is_loaded_from_elsewhere(site):
    assert len(list(site.rglob("*.html"))) > 60  # pages, and the sources of the modules
    assert not list(problems(site)) and not remote_styles(site)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ('<a href="nowhere.html">', "nowhere.html is not there"),
        ('<a href="notebooks/09_measure.html#nowhere">', "no place notebooks/09_measure.html#nowhere"),
        ('<img src="_images/nowhere.png">', "_images/nowhere.png is not there"),
        ('<script src="https://example.org/a.js"></script>', "https://example.org/a.js comes from elsewhere"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "//example.org/a.css comes from elsewhere"),
    ],
)
def test_the_check_finds(site, wrong, said):
    copy = site / "copy.html"
    copy.write_text((site / "index.html").read_text(encoding="utf-8").replace("</article>", f"{wrong}</article>", 1))
    try:
        assert list(problems(site, [copy])) == [f"copy.html: {said}"]
    finally:
        copy.unlink()


def test_the_check_finds_a_font_from_elsewhere(tmp_path):
    (tmp_path / "a.css").write_text("@font-face { src: url(https://example.org/a.woff2) }")
    assert remote_styles(tmp_path) == ["a.css"]


def test_the_front_page_is_the_readme_and_lists_the_lessons_in_order(site):
    front = Page(site / "index.html")
    assert (site / "index.html").read_text() == (site / "README.html").read_text()
    lessons = [f"notebooks/{path.stem}.html" for path in LESSONS]
    listed = [link for link in front.links if link in lessons]
    assert listed[: len(lessons)] == lessons and set(listed[len(lessons) :]) == set(lessons)  # aside, then in the table
    assert {"docs/editor.html", "kernels/README.html", "edgeconnect_lite/assets/faces-128.html"} <= set(front.links)


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_a_lesson_shows_its_outputs_as_stored(site, path):
    written = site / f"notebooks/{path.stem}.html"
    page, cells = Page(written), nbformat.read(path, as_version=4).cells
    text = "".join(page.words)
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    pictures = [output for output in outputs if any(kind.startswith("image/") for kind in output.get("data", {}))]
    assert len([load for load in page.loads if "/_images/" in load]) == len(pictures) > 0
    assert all(cell.source.strip() in text for cell in code)
    assert all(output.text.strip() in text for output in outputs if "text" in output)
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert written.read_text(encoding="utf-8").count("<math ") == len(re.findall(r"\$\$.+?\$\$|\$.+?\$", prose, re.S))


@pytest.mark.parametrize("package", [edgeconnect_lite, edgeconnect_kernels], ids=lambda package: package.__name__)
def test_every_module_is_in_the_reference(site, package):
    text = (site / f"docs/code/{package.__name__}.html").read_text(encoding="utf-8")
    modules = [html.unescape(found) for found in re.findall(r"<h2>([\w.]+)<", text)]
    top = [module for module in modules if "." not in module]
    assert sorted(top) == sorted(module.name for module in iter_modules(package.__path__))
    if package is edgeconnect_lite:
        house = re.search(r"order of the data: (.*?)\n +kernels/", (ROOT / "README.md").read_text(), re.S)[1]
        assert top == re.findall(r"\w+", house)


def test_wrong_sources_are_warned_of(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "book.css"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    (tmp_path / "docs/contents.md").write_text("")
    (tmp_path / "README.md").write_text("# Title\n\n[a link](nowhere.md), ![a picture](nowhere.png), $\\nonsense$\n")
    done = build(tmp_path, tmp_path)
    assert done.returncode and all(name in done.stderr for name in ("nowhere.md", "nowhere.png", "\\nonsense")), done
