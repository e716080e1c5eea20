"""Making figures and writing them: PNG, SVG or PDF, the same bytes for the same runs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clbench.compare import Comparison
from clbench.errors import UserError, did_you_mean
from clbench.figures import accumulation, curves, differences, gap, matrix, ranks
from clbench.figures.material import Material
from clbench.figures.style import RC, WIDTHS, stacked
from clbench.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

FORMATS = ("png", "svg", "pdf")
DPI = 300
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "clbench"},
    "pdf": {"CreationDate": None, "Creator": "clbench", "Producer": None},
}


class Part(NamedTuple):
    """One kind of figure. missing: why it cannot be drawn, where `drawable` says so. least: runs it needs."""

    height: Callable[[Material], float]
    draw: Callable[[Any, Material], None]
    drawable: Callable[[Material], bool]
    missing: str
    least: int = 2


PARTS: dict[str, Part] = {
    "curves": Part(curves.height, curves.draw, lambda material: True, ""),
    "gap": Part(
        gap.height, gap.draw, gap.drawable, "no run was scored inside tasks (--eval-grid none, or one task only)"
    ),
    "matrix": Part(matrix.height, matrix.draw, matrix.drawable, "no run has the scores at a task's end"),
    "differences": Part(
        differences.height,
        differences.draw,
        differences.drawable,
        "no runs of two groups have equal task order and seed",
    ),
    "accumulation": Part(
        accumulation.height,
        accumulation.draw,
        accumulation.drawable,
        "no run has accuracies of sets with the roles adaptation and held-out",
    ),
    "ranks": Part(ranks.height, ranks.draw, ranks.drawable, "no run tells the ranks of its updates", least=1),
}


@dataclass(frozen=True)
class Files:
    """Which figures go into which file; no names stand for the overview. folder: made where it is missing."""

    folder: Path | None
    parts: dict[Path, list[str]]

    @property
    def least(self) -> int:
        """How many runs the figures need."""
        return max((PARTS[name].least for names in self.parts.values() for name in names), default=2)


def figure_files(out: Path, figures: str | None, form: str | None, width: str = "page") -> Files:
    """The files that a user asks for.

    Without `figures`, and where they are but one, `out` may be a file that ends in .png, .svg or .pdf. Else it is a
    folder, which gets NAME.FORMAT for each figure and each of the comma-separated formats (png where none is given).
    Raises UserError for names that do not fit.
    """
    if width not in WIDTHS:
        raise UserError(f"unknown width {width!r}{did_you_mean(width, WIDTHS)}")
    forms = _split(form, FORMATS, "format") if form is not None else []
    names = _split(figures, PARTS, "figure") if figures is not None else []
    if out.is_dir() or not out.suffix:
        stems = {name: [name] for name in names} or {"compare": []}
        return Files(out, {out / f"{stem}.{form}": names for stem, names in stems.items() for form in forms or ["png"]})
    ending = out.suffix[1:].lower()
    if ending not in FORMATS:
        raise UserError(f"--out {out}: a figure is a PNG, SVG or PDF; name a file that ends in .png, .svg or .pdf")
    if len(names) > 1:
        raise UserError(f"--out {out} is one file for {len(names)} figures; name a folder")
    if forms and forms != [ending]:
        raise UserError(f"--out {out} and --format {form} differ; name a folder, or leave --format out")
    return Files(None, {out: names})


def write_figures(comparison: Comparison, files: Files, width: str, warn: Callable[[str], None]) -> list[Path]:
    """Draw and write; the files written. Of several figures, one that these runs do not allow is told to `warn`.

    Raises UserError where none can be drawn, a table is missing, or the disk refuses.
    """
    material = Material(comparison, width)
    asked = {name for names in files.parts.values() for name in names}
    missing = [name for name in PARTS if name in asked and not PARTS[name].drawable(material)]
    parts = {path: names for path, names in files.parts.items() if not set(names) & set(missing)}
    if not parts:
        raise UserError(f"the figure {missing[0]!r} cannot be drawn: {PARTS[missing[0]].missing}")
    for name in missing:
        warn(f"no figure {name!r}: {PARTS[name].missing}")
    contents = {path: render(material, names or overview(material), path.suffix[1:]) for path, names in parts.items()}
    if files.folder is not None:
        _make_folder(files.folder)
    for path, content in contents.items():
        write(content, path)
    return list(contents)


def render(material: Material, names: Sequence[str], form: str) -> bytes:
    """The content of a file with these figures, which can all be drawn, under each other; form: png, svg or pdf."""
    import matplotlib
    from matplotlib.figure import Figure

    form = form.lower()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)  # type: ignore[arg-type]
        heights = [PARTS[name].height(material) for name in names]
        figure = Figure(figsize=(material.inches, sum(heights)), dpi=DPI, layout="constrained")
        for place, name in zip(stacked(figure, heights), names, strict=True):
            PARTS[name].draw(place, material)
        _settle(figure)
        content = io.BytesIO()
        figure.savefig(content, format=form, dpi=DPI, metadata=METADATA[form])
    return content.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out once and round its places. The layout's solver goes by addresses in memory, so that its places
    differ in their last bits from one rendering to the next.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    parts: list[FigureBase] = [figure]
    for part in parts:
        for inner in part.subfigs:
            inner.bbox_relative.p0 = inner.bbox_relative.p0.round(6)
            inner.bbox_relative.p1 = inner.bbox_relative.p1.round(6)
            parts.append(inner)
        for text in part.texts:
            x, y = text.get_position()
            text.set_position((round(x, 6), round(y, 6)))
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position().bounds
        axes.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def overview(material: Material) -> list[str]:
    """The figures that can be drawn from these runs."""
    return [name for name, part in PARTS.items() if part.drawable(material)]


def write(content: bytes, path: Path) -> None:
    """Raises UserError where the disk refuses."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from None


def _split(text: str, known: Iterable[str], what: str) -> list[str]:
    """Comma-separated names, each once; `all` for all."""
    known = list(known)
    names = [name for part in text.split(",") if (name := part.strip().lower())]
    if names == ["all"]:
        return known
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}{did_you_mean(name, known)}")
    if not names:
        raise UserError(f"no {what} is named; known: {', '.join(known)}, all")
    return list(dict.fromkeys(names))
