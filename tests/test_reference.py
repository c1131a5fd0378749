"""The reference pages: one per member, and the house's docstring form as markdown."""

from __future__ import annotations

import posixpath
import re

import pytest

from docs import build_reference
from recurra.core import catalog

PAGES = {page.path: page.text for page in build_reference.pages()}

DOCSTRING = """One line, with `a_name` and a_b < c.

    y = W x * U h        equation

More words.

Args:
    size: D, a|b,
        goes on.
Source:
    Someone & Other 1990
Example:
    >>> 1 + 1
    2
"""


def test_the_form_of_a_docstring() -> None:
    assert "\n".join(build_reference.render(DOCSTRING)).split("\n\n") == [
        "One line, with `a_name` and a\\_b &lt; c.",
        "```text\ny = W x * U h        equation\n```",
        "More words.",
        "## Args",
        "- **size**: D, a&#124;b,\n  goes on.",
        "## Source",
        "Someone &amp; Other 1990",
        "## Example",
        "```pycon\n>>> 1 + 1\n2\n```\n",
    ]


@pytest.mark.parametrize("family", catalog.FAMILIES)
def test_every_member_has_a_page_and_stands_in_the_overview(family: str) -> None:
    for name in catalog.members(family):
        assert f"# {name}\n" in PAGES[f"{family}/{name}.md"]
        assert f"[{name}]({name}.md)" in PAGES[f"{family}/index.md"]


def test_links_between_pages_lead_somewhere() -> None:
    for path, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+\.md)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            assert posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) in PAGES, f"{path}: {target}"


def test_a_cell_page_says_what_runs_it() -> None:
    page = PAGES["cells/GRUCell.md"]
    for name in catalog.members("engines"):
        assert f"[{name}](../engines/{name}.md)" in page
    assert "| `weight_hh` |" in page
    assert "is no torch layer" in PAGES["cells/MGUCell.md"]


def test_commands_have_their_options() -> None:
    assert "## recurra train" in PAGES["commands.md"]
    assert "| `--budget` |" in PAGES["commands.md"]
