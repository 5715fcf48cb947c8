"""The looks of all figures: colours, markers, sizes, and rendering to the same bytes every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdbench.analysis.gains import Standing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Format = Literal["svg", "png", "pdf"]
Line = Literal["-", "--", ":", "-."]
DPI = 150

SETTINGS: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": "#222222",
    "text.parse_math": False,  # names and errors are free text, dollars are dollars
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # looking for room above the ticks costs a sixth of a report
    "axes.labelsize": 8,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "svg.hashsalt": "kdbench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # journals refuse type 3
}


@dataclass(frozen=True)
class Style:
    """How large figures are.

    Attributes:
        scale: of all texts and of the room they take.
        widths: inches that a figure may be wide, narrow ones first; none where it grows with its content.
        framed: whether title and caption are in the figure, or are left to the text around it.
    """

    scale: float
    widths: tuple[float, ...]
    framed: bool


STYLES = {
    "screen": Style(1.0, (), framed=True),
    # Text of 7 points at the width of a column and of two, as conferences with two columns have them.
    "paper": Style(7 / 8, (3.25, 6.75), framed=False),
}
SCREEN = STYLES["screen"]
GREY = "#777777"
"""Of captions, reference lines and what stands where a value is missing."""

# Okabe and Ito's colours for colour-blind readers, less black and yellow (pale on white), and a wine red.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
PHASE_COLOURS = ("#BBBBBB", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#882255")

STANDINGS: dict[Standing, str] = {
    "control": "#222222",
    "better": "#0072B2",
    "not shown": GREY,
    "worse than baseline": "#BF6F00",
    "worse than control": "#B2182B",
}
"""The colour of a method where colour tells what the study shows of it, and nothing else."""
PALE = "#BBBBBB"
"""Of lines that are there for comparison only."""

DARK = {
    **{"#ffffff": "#14171c", "#222222": "#e4e6ea", "#555555": "#a9afb8", "#777777": "#a0a6b0", "#888888": "#79808b"},
    **{"#e4e4e4": "#2c323b", "#bbbbbb": "#666d78", "#444444": "#c4c9d1", "#eeeeee": "#242a33"},
    **{"#bf6f00": "#f0a940", "#b2182b": "#ff7f8a"},
    **{"#0072b2": "#3583c8", "#d55e00": "#f08a3c", "#009e73": "#2fc79a", "#882255": "#d16a9c", "#cc79a7": "#e39cc4"},
}
"""What a colour of a figure is on a dark page, where it would not do."""


class Look(NamedTuple):
    """Colour, marker and line of a method in every figure of a report."""

    colour: str
    marker: str
    line: Line


def looks(methods: list[str], control: str | None) -> dict[str, Look]:
    """The look of each method by its place; colour and marker together are unique up to 56 methods.

    The control is grey in all figures; the others keep the order of the study.
    """
    found = {} if control is None else {control: Look("#444444", "o", ":")}
    for i, method in enumerate(method for method in methods if method != control):
        turn, colour = divmod(i, len(_COLOURS))
        # The marker moves on with every colour, and by one more with every turn, so a pair never comes twice.
        marker = _MARKERS[(colour + turn) % len(_MARKERS)]
        found[method] = Look(_COLOURS[colour], marker, _LINES[turn % len(_LINES)])
    return found


def hollow(marker: str, colour: str) -> dict[str, Any]:
    """How the marker of a published value is plotted."""
    face = {"markersize": 4, "markerfacecolor": "white", "markeredgecolor": colour}
    return {"marker": marker, "linestyle": "", "zorder": 3, **face}


@contextmanager
def styled(style: Style) -> Iterator[None]:
    """Matplotlib's settings for a figure; drawing and rendering both happen inside."""
    sizes: dict[RcKeyType, Any] = {
        name: SETTINGS[name] * style.scale for name in SETTINGS if name.endswith("size") and "major" not in name
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS | sizes)
        yield


def render(figure: Figure, suffix: Format, style: Style = SCREEN) -> bytes:
    """The figure as a file, without a date or a version of matplotlib in it."""
    canvas = FigureCanvasAgg(figure)
    buffer = BytesIO()
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[suffix]
    with styled(style):
        canvas.print_figure(buffer, format=suffix, dpi=DPI, facecolor="white", metadata=metadata)
    return buffer.getvalue()
