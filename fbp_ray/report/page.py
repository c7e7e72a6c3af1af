"""The parts of an HTML page that needs nothing else: no network, no script; readable on a phone and on paper.

Whatever is put into a part is escaped, unless it is a part itself (`Html`).
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

MARK = '<meta name="generator" content="fbp-ray">'
"""By it a page is known as one that may be replaced."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1em; color: #1c1c1c;
  background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.6em; line-height: 1.2; margin: .5em 0; } h2 { font-size: 1.25em; margin: 2em 0 .5em;
  border-bottom: 1px solid #bbb; } h3 { font-size: 1.05em; margin: 1.2em 0 .4em; }
a { color: #0b57a4; } p, li, figcaption, caption { max-width: 75ch; } .note { color: #555; }
.warning { border-left: 4px solid #b45309; padding: .3em .8em; background: #fff7ed; }
nav ul { display: flex; flex-wrap: wrap; gap: .2em 1.2em; list-style: none; padding: 0; }
.table { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3em 0; }
td, th { padding: .25em .7em; text-align: right; vertical-align: top; border-bottom: 1px solid #e2e2e2; }
thead th { border-bottom: 1px solid #777; vertical-align: bottom; } tbody th { font-weight: normal; min-width: 8em; }
tbody th, th:first-child, .words td, .words th { text-align: left; } .words td { min-width: 7em; }
tr.best { font-weight: bold; } tr.best th { font-weight: bold; } tr.failed { color: #a00; }
tr.apart td, tr.apart th { border-top: 1px solid #777; }
dl { display: grid; grid-template-columns: minmax(6em, max-content) 1fr; gap: .2em 1em; margin: 1em 0; }
dt { color: #555; } dd { margin: 0; }
.row { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }
figure { margin: 0 0 .8em; max-width: 100%; } figcaption { font-size: .85em; color: #333; }
img { max-width: 100%; height: auto; display: block; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: .8em; }
.tiles img { width: 100%; } .tile { position: relative; }
.line { position: absolute; left: 0; right: 0; border-top: 1px dashed #d97706; }
pre { font-size: .8em; line-height: 1.35; white-space: pre-wrap; background: #f6f6f6; padding: .8em; }
@media (max-width: 600px) { body { font-size: 15px; padding: .8em; } td, th { padding: .25em .45em; font-size: .87em; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5em; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2, h3 { break-after: avoid; }
  figure, tr, .tiles { break-inside: avoid; } .tiles { grid-template-columns: repeat(3, 1fr); }
  .table { overflow: visible; } td, th { padding: .15em .4em; font-size: 8pt; } pre { background: none; padding: 0; } }
"""


class Html(str):
    """Text that is HTML already."""


def element(tag: str, *content: object, **attributes: str) -> Html:
    """`<tag name="value">content</tag>`; `class_` is written class, `aria_label` aria-label."""
    named = "".join(f' {n.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for n, value in attributes.items())
    return Html(f"<{tag}{named}>{joined(content)}</{tag}>")


def joined(parts: Iterable[object]) -> Html:
    """The parts one after the other; those that are no HTML are escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts))


def page(title: str, *content: object) -> str:
    """A whole page, which begins with its title as heading."""
    head = joined([Html('<meta charset="utf-8">'), Html(MARK), element("title", title)])
    view = Html('<meta name="viewport" content="width=device-width, initial-scale=1">')
    body = element("body", element("main", element("h1", title), *content))
    whole = Html(f'<html lang="en"><head>{head}{view}<style>{STYLE}</style></head>{body}</html>')
    # A file's name may have bytes that no text has.
    return f"<!doctype html>{whole}".encode("utf-8", "replace").decode("utf-8")


def section(name: str, *content: object) -> Html:
    """A part of the page below a heading of its own, to which `contents` leads."""
    return element("section", element("h2", name, id=_identity(name)), *content)


def contents(names: Iterable[str]) -> Html:
    """Links to sections."""
    items = [element("li", element("a", name, href=f"#{_identity(name)}")) for name in names]
    return element("nav", element("ul", *items), aria_label="sections")


def _identity(name: str) -> str:
    return name.lower().replace(" ", "-").replace(",", "")


def table(
    caption: str,
    headings: Sequence[object],
    rows: Iterable[Sequence[object]],
    classes: Sequence[str] = (),
    text: bool = False,
) -> Html:
    """A table that scrolls sideways where there is no room; the first cell of a row is its heading.

    Args:
        caption: stands above it.
        headings: of the columns.
        rows: their cells.
        classes: of the rows, in order; there may be fewer.
        text: the cells are words, not numbers.
    """
    columns = [element("th", heading, scope="col") for heading in headings]
    body = []
    for number, (first, *cells) in enumerate(rows):
        row = [element("th", first, scope="row"), *(element("td", cell) for cell in cells)]
        kind = classes[number] if number < len(classes) else ""
        body.append(element("tr", *row, class_=kind) if kind else element("tr", *row))
    inside = element("caption", caption), element("thead", element("tr", *columns)), element("tbody", *body)
    inner = element("table", *inside, class_="words") if text else element("table", *inside)
    return element("div", inner, class_="table", role="region", tabindex="0", aria_label=caption)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and what stands for them; those that are empty are left out."""
    known = [(name, value) for name, value in pairs if value not in ("", None)]
    return element("dl", *(part for name, value in known for part in (element("dt", name), element("dd", value))))


def warning(text: object) -> Html:
    """A paragraph that is not to be overlooked."""
    return element("p", text, class_="warning")


def picture(content: bytes, described: str, caption: object = "") -> Html:
    """An image in the page itself.

    Args:
        content: of a PNG or SVG file.
        described: what it shows, for those who do not see it.
        caption: stands below it.
    """
    image = bare_picture(content, described)
    return element("figure", image, element("figcaption", caption)) if caption else element("figure", image)


def bare_picture(content: bytes, described: str) -> Html:
    """As `picture`, without a caption and room for one."""
    kind = "png" if content.startswith(b"\x89PNG") else "svg+xml"
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Html(f'<img alt="{html.escape(described)}" src="{source}">')


def row(*content: object) -> Html:
    """Parts side by side, where there is room."""
    return element("div", *content, class_="row")


def source_link(text: str) -> Html:
    """A source, whose address, at its end, is a link."""
    words, _, address = text.rpartition(" ")
    if not address.startswith("https://"):
        return joined([text])
    return joined([f"{words} ", element("a", address, href=address)])
