"""A page in one file: text, tables and pictures; every text in it is escaped."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, Self

STYLE = """
:root { --ink: #1f2430; --soft: #5d6472; --line: #e2e5ea; --paper: #ffffff; --tint: #f5f7fa;
        --accent: #0b63a5; --good: #e8f4ec; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
header { border-bottom: 3px solid var(--accent); margin-bottom: 1.5rem; }
h1 { font-size: 1.8rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
header p { color: var(--soft); margin: 0 0 1rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.4rem; margin: 1rem 0; }
h2 { font-size: 1.15rem; margin: .2rem 0 .7rem; }
p { max-width: 46rem; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 0 0 1rem; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem 1.1rem; min-width: 9rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; margin: .4rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
tr.ours td { background: var(--good); font-weight: 600; }
figure { margin: .5rem 0 1rem; }
figure img { max-width: 100%; height: auto; }
table.facts td:first-child { white-space: nowrap; color: var(--soft); }
figcaption { color: var(--soft); font-size: .88rem; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem; overflow-x: auto;
      font: .88rem/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { body { background: none; } section { break-inside: avoid; } }
"""


PIXELS = 95  # of the page for an inch of a picture, so that all pictures have letters of one size
_NUMBER = re.compile(r"-?[\d,]*\.?\d+( ?%)?")


class Page:
    """Collects sections and gives one HTML file that needs nothing else: no script, no font, no network.

    Args:
        title: of the page.
        subtitle: one line below.
    Example:
        >>> page = Page("<b>").section("Numbers").table(["what", "value"], [["loss", 1.5]])
        >>> "&lt;b&gt;" in page.html() and "<b>" not in page.html()
        True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self.parts: list[str] = []
        self.is_open = False

    def cards(self, values: Iterable[tuple[str, str]]) -> Self:
        """The few numbers to see first: (value, what it is)."""
        self._close()
        cards = "".join(f'<div class="card"><b>{escape(v)}</b><span>{escape(what)}</span></div>' for v, what in values)
        self.parts.append(f'<div class="cards">{cards}</div>')
        return self

    def section(self, title: str) -> Self:
        """Begin a section."""
        self._close()
        self.parts.append(f"<section><h2>{escape(title)}</h2>")
        self.is_open = True
        return self

    def text(self, *paragraphs: str) -> Self:
        """Paragraphs."""
        self.parts += [f"<p>{escape(p)}</p>" for p in paragraphs]
        return self

    def code(self, text: str) -> Self:
        """Commands, samples: spaces and lines as they are."""
        self.parts.append(f"<pre>{escape(text)}</pre>")
        return self

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, ours: int | None = None) -> Self:
        """A table; numbers and percentages stand right, with four digits.

        Args:
            columns: their titles; without any, the first column holds names.
            rows: cells, text or numbers; None stays empty.
            ours: the row to mark.
        """
        rows = [list(row) for row in rows]
        right = [
            bool(rows) and all(c is None or _is_number(c) for c in column) and any(c is not None for c in column)
            for column in zip(*rows, strict=True)
        ] or [False] * len(columns)

        def cell(tag: str, value: str, at: int) -> str:
            return f"<{tag}{' class=number' if right[at] else ''}>{escape(value)}</{tag}>"

        head = "".join(cell("th", name, i) for i, name in enumerate(columns))
        head, kind = (f"<tr>{head}</tr>", "") if any(columns) else ("", " class=facts")
        body = "".join(
            f"<tr{' class=ours' if i == ours else ''}>{''.join(cell('td', shown(c), k) for k, c in enumerate(row))}</tr>"
            for i, row in enumerate(rows)
        )
        self.parts.append(f'<div class="wide"><table{kind}>{head}{body}</table></div>')
        return self

    def figure(self, draw: Callable[[Any], None], caption: str = "", *, size: tuple[float, float] = (9.0, 3.6)) -> Self:
        """A picture.

        Args:
            draw: gets an empty matplotlib ``Figure``.
            caption: below; also read out in place of the picture.
            size: width and height in inches.
        """
        data = base64.b64encode(drawing(draw, size)).decode()
        alt = escape(caption, quote=True)
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        width = round(PIXELS * size[0])
        self.parts.append(
            f'<figure><img width="{width}" alt="{alt}" src="data:image/png;base64,{data}">{below}</figure>'
        )
        return self

    def html(self) -> str:
        """The whole page."""
        self._close()
        subtitle = f"<p>{escape(self.subtitle)}</p>" if self.subtitle else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head>\n"
            f"<body><main><header><h1>{escape(self.title)}</h1>{subtitle}</header>\n"
            + "\n".join(self.parts)
            + "\n</main></body></html>\n"
        )

    def _close(self) -> None:
        if self.is_open:
            self.parts.append("</section>")
            self.is_open = False


def drawing(draw: Callable[[Any], None], size: tuple[float, float] = (9.0, 3.6)) -> bytes:
    """A matplotlib drawing as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_NUMBER.fullmatch(value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A cell of a table in words."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
