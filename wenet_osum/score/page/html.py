"""The page as HTML: one file that asks for nothing else, no script in it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from wenet_osum.score.page.build import Page
from wenet_osum.score.report import COMPARED

# Control characters are no part of HTML, and half a surrogate pair (of a file's name) none of UTF-8.
_PICTURES = {i: 0x2400 + i for i in range(32) if chr(i) not in "\t\n\r"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)


def render(page: Page) -> str:
    """The page's HTML. Whatever stands in it is escaped, other than drawings of `svg`."""
    env = Environment(
        loader=PackageLoader("wenet_osum.score.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value.translate(_PICTURES) if isinstance(value, str) else value,
    )
    env.filters["percent"] = lambda value: "–" if value is None else f"{value:.0f} %"
    env.filters["brief"] = lambda value: "–" if value is None else f"{value:.2f}"
    env.filters["figure"] = lambda value: "undefined" if value is None else f"{value:.2f}"
    return env.get_template("page.html").render(page=page, compared=COMPARED)
