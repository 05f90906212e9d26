"""The documentation as a site: it builds without a warning, and has every page once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest
from markdown_it import MarkdownIt
from mkdocs.config import load_config

from tests.paths import ROOT

CONFIG: Final = ROOT / "deploy" / "site" / "mkdocs.yml"
OUTSIDE: Final = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "qemu": "examples/qemu/README.md",
    "recordings": "tests/vectors/README.md",
}
"""Pages that are not in docs/."""

PAGES: Final = {path.stem: path for path in (ROOT / "docs").glob("*.md")} | {name: ROOT / path for name, path in OUTSIDE.items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(CONFIG), "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def named(nav: list[Any]) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, str):
                yield value.removesuffix(".md")
            else:
                yield from named(value)


class Elements(HTMLParser):
    """Counts the elements of a text by which its structure can be compared."""

    STRUCTURE: Final = ("h1", "h2", "h3", "li", "ol", "pre", "td", "th", "tr", "ul")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found = dict.fromkeys(self.STRUCTURE, 0)
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in self.found:
            self.found[tag] += 1


def test_every_page_is_in_one_of_four_groups() -> None:
    nav = load_config(str(CONFIG)).nav
    assert nav is not None
    assert [next(iter(entry)) for entry in nav] == ["ras-triage", "Tutorial", "How to", "Reference", "Explanation"]
    assert sorted(named(nav)) == sorted(PAGES), "a new page belongs into `nav` of deploy/site/mkdocs.yml"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_site_has_the_structure_that_it_has_on_a_code_host(name: str, site: Path) -> None:
    html = (site / f"{name}.html").read_text(encoding="utf-8")
    (article,) = re.findall(r"<article.*?</article>", html, re.DOTALL)
    expected = MarkdownIt("commonmark").enable("table").render(PAGES[name].read_text(encoding="utf-8"))
    assert Elements(article).found == Elements(expected).found


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loaded = [tag for path in site.rglob("*.html") for tag in re.findall(r"<(?:script|link|img)[^>]*>", path.read_text(encoding="utf-8"))]
    assert len(loaded) > 20
    assert [tag for tag in loaded if re.search(r"(?:src|href)=\"?(?:https?:)?//", tag)] == []


def test_pages_link_to_pages_from_outside_the_folder_and_to_files(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in home
    assert 'href="contributing.html"' in home
    assert 'href="examples/corrected-abort.json"' in home
    assert 'href="files/examples/decide_under_two_kernels.py"' in (site / "library.html").read_text(encoding="utf-8")
    assert (site / "files" / "examples" / "decide_under_two_kernels.py").is_file()
