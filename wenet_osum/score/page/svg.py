"""Small drawings as inline SVG. Colours are the page's CSS variables, so they follow light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from wenet_osum.score.align import align
from wenet_osum.score.page.groups import Bin, Group, round_step
from wenet_osum.tasks import Word

_WIDTH, _LEFT, _RIGHT = 360, 46, 8
_FIGURE, _COUNTS, _GAP = 110, 46, 12  # heights of the two panels, and between them


def binned_plot(bins: Sequence[Bin], title: str, x_name: str, y_name: str, percent_right: bool) -> Markup:
    """A figure by a number: a dot a bin with its interval as a line, and below how many utterances a bin has.

    Args:
        title: what it shows, for who does not see it.
        x_name, y_name: of the axes, with their units.
        percent_right: the figure is a share of right answers, whose axis is 0 to 100.
    """
    top = 100.0 if percent_right else _top([bin.group for bin in bins])
    floor, base = 8 + _FIGURE, 8 + _FIGURE + _GAP + _COUNTS
    most = max(bin.group.utterances for bin in bins)
    wide = (_WIDTH - _LEFT - _RIGHT) / len(bins)
    parts = [_axis(top, 8, floor, y_name)]
    for i, bin in enumerate(bins):
        x, group = _LEFT + wide * i, bin.group
        about = f"{_range(bins, i)}: {describe(group)}"
        bar = _COUNTS * group.utterances / most if most else 0
        marks = [_rect(x + 1, base - bar, wide - 2, bar, "bar")]
        if group.value is not None:
            y = floor - _FIGURE * min(1, group.value / top)
            if group.interval:
                low, high = (floor - _FIGURE * min(1, b / top) for b in group.interval)
                marks.append(_line(x + wide / 2, low, x + wide / 2, high, "whisker"))
            marks.append(
                Markup('<circle class="dot" cx="{}" cy="{}" r="4"/>').format(_n(x + wide / 2), _n(y))
            )
        parts.append(Markup("<g><title>{}</title>{}</g>").format(about, Markup("").join(marks)))
        parts.append(_tick(x, base, bins, i))
    parts.append(_side("utts", base - _COUNTS / 2))
    parts.append(_line(_LEFT, base, _WIDTH - _RIGHT, base, "axis"))
    parts.append(_text(_LEFT - 5, base - _COUNTS + 8, f"{most}", "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, base + 29, x_name, "middle", "name"))
    return _svg(_WIDTH, base + 36, title, parts)


def histogram(bins: Sequence[Bin], title: str, x_name: str) -> Markup:
    """How many utterances each bin has."""
    most = max(bin.group.utterances for bin in bins)
    base, wide = 8 + _FIGURE, (_WIDTH - _LEFT - _RIGHT) / len(bins)
    parts = [_axis(most, 8, base, "utterances")]
    for i, bin in enumerate(bins):
        x, bar = _LEFT + wide * i, _FIGURE * bin.group.utterances / most
        about = f"{_range(bins, i)}: {bin.group.utterances} utterances"
        parts.append(
            Markup("<g><title>{}</title>{}</g>").format(about, _rect(x + 1, base - bar, wide - 2, bar, "bar"))
        )
        parts.append(_tick(x, base, bins, i))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, base + 29, x_name, "middle", "name"))
    return _svg(_WIDTH, base + 36, title, parts)


def interval_mark(value: float | None, interval: Sequence[float] | None, top: float) -> Markup:
    """A value on a line from 0 to ``top`` and its interval, to stand in a row of a table beside the numbers."""
    if value is None or not top:
        return Markup("")
    wide = 120

    def at(number: float) -> float:
        return 5 + (wide - 10) * min(1.0, max(0.0, number / top))

    parts = [_line(5, 8, wide - 5, 8, "grid")]
    if interval:
        parts.append(_line(at(interval[0]), 8, at(interval[1]), 8, "whisker"))
    parts.append(Markup('<circle class="dot" cx="{}" cy="8" r="4"/>').format(_n(at(value))))
    return Markup(
        '<svg class="mark" viewBox="0 0 {} 16" width="{}" height="16" aria-hidden="true">{}</svg>'
    ).format(wide, wide, Markup("").join(parts))


def timeline(ref: Sequence[Word], hyp: Sequence[Word], seconds: float) -> Markup:
    """Timed words of the reference above those of the answer, words that were paired joined by a band.

    A word of either side without a partner has a dashed edge. The drawing is as wide as the narrowest
    word needs to be read, within bounds.
    """
    words = [*ref, *hyp]
    end = max([seconds, *(w.end for w in words)])
    wants = [_letters(w.word) / max(0.01, w.end - w.start) for w in words]
    scale = min(240.0, max([60.0, *wants]), 6000 / max(end, 0.01))  # pixels a second
    pairs = [(r, h) for r, h in _paired(ref, hyp) if r is not None and h is not None]
    parts = []
    for r, h in pairs:
        a, b = ref[r], hyp[h]
        corners = ((a.start, 24), (a.end, 24), (b.end, 44), (b.start, 44))
        points = " ".join(f"{_n(scale * x + 1)},{y}" for x, y in corners)
        about = f"{a.word}: starts {_ms(b.start - a.start)}, ends {_ms(b.end - a.end)}"
        parts.append(
            Markup('<polygon class="band" points="{}"><title>{}</title></polygon>').format(points, about)
        )
    for y, side, with_partner in ((2, ref, {r for r, _ in pairs}), (44, hyp, {h for _, h in pairs})):
        for i, word in enumerate(side):
            kind = "word" if i in with_partner else "word alone"
            x, wide = scale * word.start + 1, max(1.0, scale * (word.end - word.start))
            about = f"{word.word}: {word.start:g} to {word.end:g} s"
            parts.append(
                Markup(
                    '<g><title>{}</title>{}<svg x="{}" y="{}" width="{}" height="22">'
                    '<text x="50%" y="15" text-anchor="middle">{}</text></svg></g>'
                ).format(about, _rect(x, y, wide, 22, kind), _n(x), y, _n(wide), word.word)
            )
    step = round_step(max(end / 8, 44 / scale)) if end > 0 else 1.0  # labels need room
    for i in range(int(end / step + 1e-9) + 1):
        parts.append(_line(scale * i * step + 1, 68, scale * i * step + 1, 72, "axis"))
        anchor = "start" if i == 0 else "middle"
        parts.append(_text(scale * i * step + 1, 84, f"{i * step:g} s", anchor))
    width = round(scale * end) + 20
    return _svg(width, 88, "word times: the reference above, the answer below", parts, kind="timeline")


def _paired(ref: Sequence[Word], hyp: Sequence[Word]) -> Iterable[tuple[int | None, int | None]]:
    """Numbers of the words that stand for one another; those of different words do not."""
    r = h = 0
    for a, b in align([w.word for w in ref], [w.word for w in hyp]):
        if a is not None and a == b:
            yield r, h
        r += a is not None
        h += b is not None


def describe(group: Group) -> str:
    """A group in words: its value, interval and size."""
    count = f"{group.utterances} utterance{'' if group.utterances == 1 else 's'}"
    if group.value is None:
        return count
    between = f" ({group.interval[0]:.1f} to {group.interval[1]:.1f})" if group.interval else ""
    return f"{group.value:.1f}{between}, {count}"


def _range(bins: Sequence[Bin], i: int) -> str:
    return f"{bins[i].low:g} and more" if i == len(bins) - 1 else f"{bins[i].low:g} to {bins[i].high:g}"


def _top(groups: Iterable[Group]) -> float:
    """Where an axis from 0 ends: above all values and, as far as they do not dwarf those, intervals."""
    values = [g.value for g in groups if g.value is not None]
    highs = [g.interval[1] for g in groups if g.interval]
    most = max(values, default=0.0)
    most = max(most, min(2 * most, max(highs, default=0.0)))
    if most <= 0:
        return 1.0
    step = round_step(most / 10)  # a tenth of the axis, if that is not too coarse
    return step * max(5, math.ceil(most / step - 1e-9))


def axis_top(groups: Iterable[Group]) -> float:
    """As the axis of `binned_plot`, for the marks of a table's rows."""
    return _top(list(groups))


def _axis(top: float, above: float, below: float, name: str) -> Markup:
    parts = []
    for i in range(3):
        y = below - (below - above) * i / 2
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "axis" if i == 0 else "grid"))
        parts.append(_text(_LEFT - 5, y + 4, f"{top * i / 2:g}", "end"))
    parts.append(_side(name, (above + below) / 2))
    return Markup("").join(parts)


def _side(name: str, middle: float) -> Markup:
    """A name along the left edge."""
    return Markup(
        '<text class="name" text-anchor="middle" transform="translate(11 {}) rotate(-90)">{}</text>'
    ).format(_n(middle), name)


def _tick(x: float, base: float, bins: Sequence[Bin], i: int) -> Markup:
    """Where a bin begins (the last one goes on), at as many bins as there is room for."""
    labels = [f"{bin.low:g}" for bin in bins]
    labels[-1] += "+"
    room = (_WIDTH - _LEFT - _RIGHT) / len(bins)
    every = math.ceil((6.5 * max(map(len, labels)) + 4) / room)
    return _text(x, base + 14, labels[i], "middle") if i % every == 0 else Markup("")


def _svg(width: float, height: float, title: str, parts: Iterable[Markup], kind: str = "plot") -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
    ).format(kind, width, height, width, height, title, Markup("").join(parts))


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, _n(x), _n(y), _n(width), _n(height)
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        kind, _n(x1), _n(y1), _n(x2), _n(y2)
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, _n(x), _n(y), anchor, escape(text)
    )


def _letters(word: str) -> float:
    """About how wide a word is, in pixels."""
    return 6 + sum(13 if ord(c) > 0x2E7F else 7 for c in word[:20])


def _ms(seconds: float) -> str:
    return f"{abs(1000 * seconds):.0f} ms {'late' if seconds > 0 else 'early'}" if seconds else "on time"


def _n(number: float) -> str:
    return f"{number:.1f}"
