"""Hook of mkdocs: pages of the repository's root are part of the site, and links to them hold.

``make site`` builds it; a link that leads nowhere is an error (``strict``).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HOME = "README.md"
ROOT_PAGES = (HOME, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root; the README is the home."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        place = site_place(name)
        files.append(File.generated(config, place, content=relinked(text, name, place)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links out of ``docs`` into links within the site, or into plain text."""
    place = str(page.file.src_uri)
    if place in {site_place(name) for name in ROOT_PAGES}:
        return markdown
    return relinked(markdown, f"docs/{place}", place)


def site_place(path: str) -> str | None:
    """Return where a file of the repository stands in the site; None for one that is not in it."""
    if path in ROOT_PAGES:
        return "index.md" if path == HOME else path
    inside = path.removeprefix("docs/")
    return inside if inside != path else None


def relinked(text: str, path: str, place: str | None) -> str:
    """Rewrite the links of a page at ``path`` of the repository for its ``place`` in the site.

    A link to what is no part of the site, such as source code, becomes its text.
    """
    folder, shown = posixpath.dirname(path), posixpath.dirname(place or path)

    def moved(match: re.Match[str]) -> str:
        said, target, anchor = match.groups()
        page = site_place(posixpath.normpath(posixpath.join(folder, target)))
        if page is None:
            return str(said)
        return f"[{said}]({posixpath.relpath(page, shown or '.')}{anchor or ''})"

    return LINK.sub(moved, text)
