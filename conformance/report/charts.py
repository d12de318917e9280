"""The pictures of the HTML report, as inline SVG: no script is needed to see or to print them.

Colours come from the page's style sheet through classes. Nothing is told by colour alone, and each
picture has a title and a description for those who do not see it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

Json = dict[str, Any]

GRID = (32, 64)  # rows and columns that are drawn one by one; beyond, a tensor is a strip
SLOTS = 160  # of a strip
LEVELS = 5  # of the heat map


class Picture:
    """An SVG that grows by calls. ``size``: width and height in pixels."""

    def __init__(self, kind: str, size: tuple[float, float], title: str, text: str) -> None:
        width, height = (f"{v:g}" for v in size)
        self.root = ElementTree.Element(
            "svg",
            {
                "class": f"picture {kind}",
                "viewBox": f"0 0 {width} {height}",
                "width": width,
                "height": height,
                "role": "img",
            },
        )
        ElementTree.SubElement(self.root, "title").text = title
        ElementTree.SubElement(self.root, "desc").text = text

    def add(self, tag: str, css: str, **attributes: object) -> ElementTree.Element:
        known = {"class": css} if css else {}
        known |= {
            k.replace("_", "-"): f"{v:.4g}" if isinstance(v, float) else str(v)
            for k, v in attributes.items()
        }
        return ElementTree.SubElement(self.root, tag, known)

    def text(self, words: str, x: float, y: float, anchor: str = "start", css: str = "") -> None:
        self.add("text", css, x=x, y=y, text_anchor=anchor).text = words

    def markup(self) -> Markup:
        return Markup(ElementTree.tostring(self.root, encoding="unicode"))


# Error as a share of what is permitted, against size or exponent.

_WIDTH, _LEFT, _RIGHT = 300.0, 34.0, 10.0
_TOP, _BAND, _HEIGHT, _BOTTOM = 22.0, 19.0, 96.0, 24.0
_NAMES = {"size": "number of elements", "exponent": "largest |x − y|"}


def accuracy_chart(rows: Sequence[Json], dtype: str, axis: str) -> Markup | None:
    """The worst error in each bin of ``axis`` for one dtype; None where nothing was measured.

    Errors beyond what is permitted are crosses in a band of their own, above the line of 1.
    """
    rows = [r for r in rows if r["dtype"] == dtype and r["axis"] == axis]
    if not rows:
        return None
    places = [_place(int(r["bin"]), axis) for r in rows]
    low, high = min(places), max(places)
    picture = Picture(
        "accuracy",
        (_WIDTH, _TOP + _BAND + _HEIGHT + _BOTTOM),
        f"{dtype}: error against {_NAMES[axis]}",
        _summary(rows, axis),
    )

    def across(bin: int) -> float:
        share = (_place(bin, axis) - low) / (high - low) if high > low else 0.5
        return _LEFT + 8 + (_WIDTH - _LEFT - _RIGHT - 16) * share

    def up(share: float) -> float:
        return _TOP + _BAND + _HEIGHT * (1 - share)

    _frame(picture, dtype, up)
    _ticks(picture, [t for t in _TICKS[axis] if low <= _place(t, axis) <= high], axis, across)
    for aspect in ("value", "gradient"):
        points = sorted((r["bin"], float(r["worst"])) for r in rows if r["aspect"] == aspect)
        inside = [(across(b), up(share)) for b, share in points if share <= 1]
        outside = [across(b) for b, share in points if share > 1]
        mark = _dots if aspect == "value" else _diamonds
        picture.add("path", f"mark {aspect}", d=mark(inside))
        height = _TOP + _BAND * (0.28 if aspect == "value" else 0.66)
        picture.add("path", f"outside {aspect}", d=_crosses((x, height) for x in outside))
    return picture.markup()


def _frame(picture: Picture, dtype: str, up: Any) -> None:
    right = _WIDTH - _RIGHT
    picture.text(dtype, 0, 12, css="name")
    picture.add("rect", "band", x=_LEFT, y=_TOP, width=right - _LEFT, height=_BAND)
    for share in (0.0, 0.5, 1.0):
        css = "limit" if share == 1 else "rule"
        picture.add("line", css, x1=_LEFT, x2=right, y1=up(share), y2=up(share))
        picture.text(f"{share:g}", _LEFT - 5, up(share) + 4, "end")
    picture.text("> 1", _LEFT - 5, _TOP + 7, "end", css="beyond")


def _place(bin: int, axis: str) -> float:
    """Where a bin stands; exponents far from 0 are rare, and stand closer together."""
    return float(bin) if axis == "size" else math.copysign(math.log2(1 + abs(bin) / 2), bin)


_TICKS = {
    "size": range(0, 64, 4),
    "exponent": (-1000, -100, -10, 0, 10, 100, 1000),
}


def _ticks(picture: Picture, bins: Sequence[int], axis: str, across: Any) -> None:
    foot = _TOP + _BAND + _HEIGHT
    for bin in bins:
        picture.add("line", "rule", x1=across(bin), x2=across(bin), y1=foot, y2=foot + 4)
        picture.text(_power(bin, axis), across(bin), foot + 17, "middle")


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(bin: int, axis: str) -> str:
    if axis == "size" and bin < 10:
        return str(2**bin)
    return "2" + str(bin).translate(_SUPERSCRIPT)


def _summary(rows: Sequence[Json], axis: str) -> str:
    """The chart in words."""
    parts = []
    for aspect in ("value", "gradient"):
        found = [r for r in rows if r["aspect"] == aspect]
        if found:
            worst = max(found, key=lambda r: (r["worst"], -r["bin"]))
            place = f"2 to the power {worst['bin']}"
            share = worst["worst"]
            how = f"{share:.2f} of what is permitted" if share <= 1 else "outside of it"
            parts.append(f"{aspect}: {len(found)} bins, the worst at {place}, {how}")
    return "; ".join(parts) + "."


def _dots(points: Iterable[tuple[float, float]]) -> str:
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in points)  # round ends make them dots


def _diamonds(points: Iterable[tuple[float, float]]) -> str:
    return "".join(f"M{x:.1f},{y - 3.4:.1f}l3.4,3.4-3.4,3.4-3.4-3.4z" for x, y in points)


def _crosses(points: Iterable[tuple[float, float]]) -> str:
    return "".join(f"M{x - 2.5:.1f},{y - 2.5:.1f}l5,5m0-5l-5,5" for x, y in points)


# Where the wrong elements of a result or gradient lie.


def where_picture(where: Json) -> Markup | None:
    """The tensor with its wrong elements filled; None for a scalar."""
    shape, wrong, count = where["shape"], where["wrong"], where["count"]
    total = math.prod(shape)
    if not shape or total < 2:
        return None
    columns = shape[-1]
    rows = total // columns
    if rows <= GRID[0] and columns <= GRID[1] and len(wrong) == count:
        return _grid(rows, columns, wrong, where)
    return _strip(total, wrong, where)


def where_words(where: Json) -> str:
    """Which elements are wrong, in words."""
    shape, wrong, count = where["shape"], where["wrong"], where["count"]
    total = math.prod(shape)
    of = f"of the {where['of']}, of shape {tuple(shape)}"
    if count == total:
        return f"Every element {of}" if total > 1 else f"The only element {of}"
    runs = list(_runs(wrong)) if len(wrong) == count else []
    if 0 < len(runs) <= 6:
        return f"{count:,} of {total:,} elements {of}: {', '.join(runs)} in row-major order"
    ends = f"from {wrong[0]} to {wrong[-1]}" if wrong else "nowhere told"
    return f"{count:,} of {total:,} elements {of}: {ends} in row-major order"


def _runs(indices: Sequence[int]) -> Iterator[str]:
    """``3``, ``5–9``: stretches of neighbours."""
    for _, group in itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}"


def _grid(rows: int, columns: int, wrong: Sequence[int], where: Json) -> Markup:
    side = 18 if columns <= 32 else 9
    width, height = columns * side, rows * side
    picture = Picture(
        "where", (width + 2, height + 2), "Where the wrong elements lie", where_words(where) + "."
    )
    cells = (f"M{1 + i % columns * side},{1 + i // columns * side}h{side}" for i in wrong)
    picture.add("path", "wrong", d="".join(f"{cell}v{side}h-{side}z" for cell in cells))
    lines = [f"M{1 + k * side},1v{height}" for k in range(columns + 1)]
    lines += [f"M1,{1 + k * side}h{width}" for k in range(rows + 1)]
    picture.add("path", "right", d="".join(lines))
    return picture.markup()


def _strip(total: int, wrong: Sequence[int], where: Json) -> Markup:
    width = 560.0
    picture = Picture(
        "where", (width + 2, 40), "Where the wrong elements lie", where_words(where) + "."
    )
    slots = min(total, SLOTS)
    slot = width / slots
    picture.add("rect", "right", x=1, y=1, width=width, height=20)
    hit = sorted({index * slots // total for index in wrong})
    marks = "".join(f"M{1 + k * slot:.1f},1h{slot:.1f}v20h-{slot:.1f}z" for k in hit)
    picture.add("path", "wrong", d=marks)
    picture.text("0", 1, 36)
    picture.text(f"{total - 1:,}", width, 36, "end")
    return picture.markup()


# Which cells the cases have been to.

_CELL, _ROW, _ASIDE, _ABOVE = 36.0, 20.0, 124.0, 40.0
_PATHS = ("both", "input", "target", "none", "no_grad", "inference")
_SHORT = {"no_grad": "no_grad", "inference": "infer."}


def coverage_map(rows: Sequence[Json], dtypes: Sequence[str]) -> Markup | None:
    """Examples in each cell: reduction and layout down, dtype and autograd path across."""
    if not rows:
        return None
    counts = {(r["dtype"], r["path"], r["reduction"], r["layout"]): r["examples"] for r in rows}
    across = [(d, p) for d in dtypes for p in _PATHS]
    order = ("contiguous", "misaligned", "stepped", "permuted", "stride 0", "overlapping")
    reductions = [r for r in ("mean", "sum", "none") if any(k[2] == r for k in counts)]
    down = [(r, layout) for r in reductions for layout in order]
    cells = {(c, r): counts.get((*c, *r), 0) for c in across for r in down}
    been = sum(n > 0 for n in cells.values())
    picture = Picture(
        "coverage",
        (_ASIDE + _CELL * len(across) + 8 * len(dtypes), _ABOVE + (_ROW + 1) * len(down)),
        "Cells that the cases have been to",
        f"{been} of {len(cells)} cells were run, with up to {max(counts.values()):,} examples.",
    )
    xs = {c: _ASIDE + _CELL * i + 8 * (i // len(_PATHS)) for i, c in enumerate(across)}
    ys = {r: _ABOVE + _ROW * i + 6 * (i // len(order)) for i, r in enumerate(down)}
    for i, (dtype, autograd) in enumerate(across):
        if i % len(_PATHS) == 0:
            picture.text(dtype, xs[dtype, autograd], 14, css="name")
        x = xs[dtype, autograd] + _CELL / 2
        picture.text(_SHORT.get(autograd, autograd), x, _ABOVE - 8, "middle", css="small")
    for i, (reduction, layout) in enumerate(down):
        if i % len(order) == 0:
            picture.text(reduction, 0, ys[reduction, layout] + 14, css="name")
        picture.text(layout, _ASIDE - 8, ys[reduction, layout] + 14, "end")
    for level in range(LEVELS + 1):
        marks = [
            f"M{xs[c]:g},{ys[r]:g}h{_CELL - 2:g}v{_ROW - 2:g}h-{_CELL - 2:g}z"
            for (c, r), n in cells.items()
            if _level(n) == level
        ]
        picture.add("path", f"level{level}", d="".join(marks))
    figures = [picture.add("g", css) for css in ("n", "n on")]
    for (c, r), n in cells.items():
        if n:
            place = {"x": f"{xs[c] + _CELL / 2 - 1:g}", "y": f"{ys[r] + 13:g}"}
            ElementTree.SubElement(figures[_level(n) > 2], "text", place).text = _brief(n)
    return picture.markup()


def _level(examples: int) -> int:
    """0 for none, then one more for each factor of 4."""
    return min(LEVELS, 1 + int(math.log(examples, 4))) if examples else 0


def _brief(n: int) -> str:
    return str(n) if n < 1000 else f"{n / 1000:.1f}k" if n < 10_000 else f"{n // 1000}k"
