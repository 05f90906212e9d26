"""MkDocs hooks: pages from outside docs/, and links between all pages and files."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]

OUTSIDE: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/qemu/README.md": "qemu.md",
    "tests/vectors/README.md": "recordings.md",
}
"""Pages that are not in docs/: path in the project, and path in the site."""

LINK: Final = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
"""A link to a file, up to its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and each file that a page links to."""
    for path, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            uri = site_uri(page.src_uri, link)
            if uri.startswith("files/") and uri not in files.src_uris and (source := ROOT / uri.removeprefix("files/")).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page with links that fit the site."""
    here = page.file.src_uri
    return LINK.sub(lambda link: f"]({posixpath.relpath(site_uri(here, link[1]), posixpath.dirname(here) or '.')}", markdown)


def site_uri(page: str, link: str) -> str:
    """Return the path in the site of what a page links to: a page, a file of docs/, or `files/` and the path in the project."""
    source = next((path for path, uri in OUTSIDE.items() if uri == page), f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return OUTSIDE.get(path, f"files/{path}")
