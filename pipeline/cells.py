"""Records of the CSV files that this program writes: quoted where needed, and inert."""

from collections.abc import Iterable

#: A cell that begins with one of these is a formula to a spreadsheet; the last four are the wide
#: forms of the first.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def inert(cell: str) -> str:
    """Keep a spreadsheet from running a cell: a leading quote makes it text."""
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


def csv_line(cells: Iterable[str], delimiter: str = ",") -> str:
    """Write one record with its line end, every cell inert."""
    return delimiter.join(_quoted(inert(cell), delimiter) for cell in cells) + "\n"


def _quoted(cell: str, delimiter: str) -> str:
    """Quote where CSV needs it. The csv module of some Pythons leaves a bare CR as it is."""
    if any(character in cell for character in (delimiter, '"', "\r", "\n")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def on_one_line(text: str) -> str:
    """A record of too many lines would not be read again; control characters steer terminals."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """Make visible what would break a line or steer a terminal; spaces stay as they are."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
