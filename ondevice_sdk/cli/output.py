"""What commands print: JSON for machines, tables for people, progress on standard error."""

from __future__ import annotations

import errno
import json
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk import errors
from ondevice_sdk.types import Candidate, Progress, Selection

if TYPE_CHECKING:
    from rich.table import Table

    from ondevice_sdk.backends.registry import BackendStatus
    from ondevice_sdk.intervals import Interval

NOISY = 1.25  # by so much figures scatter, or steps are disturbed, that people are told
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(number: float) -> str:
    """Bytes for people."""
    for scale, unit in _UNITS:
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f} B"


def show_json(value: object) -> None:
    """Print a value of the SDK (a dataclass, a list of them, ...) as JSON, with the fields of the Python result."""
    from pydantic_core import to_jsonable_python

    print(json.dumps(to_jsonable_python(value, fallback=_plain), ensure_ascii=False, indent=2))


def _plain(value: object) -> object:
    """What is no JSON by itself: vectors, and the output types of an app, which may hold anything."""
    if isinstance(value, array):
        return value.tolist()
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever it is
        return f"<{type(value).__name__}>"


def show_error(error: errors.OnDeviceError, *, as_json: bool) -> None:
    """Print an error on standard error."""
    if as_json:
        report = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
        data = {name: value for name, value in error.data().items() if name not in ("raw", "best")}  # may hold text
        print(json.dumps({"error": {**report, **data}}, default=str), file=sys.stderr)
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  next: {error.hint}", file=sys.stderr)


def read_text(path: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        ConfigurationError: there is no such file, or it is not UTF-8.
    """
    try:
        data = _standard_input() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise errors.ConfigurationError(f"{path}: {error.strerror}", hint="name a text file, or - for input") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.ConfigurationError(
            f"{path} is not UTF-8 text (byte {error.start})", hint="convert it, for example with iconv -t UTF-8"
        ) from error


def lines_of(text: str) -> list[str]:
    """The texts of a file that has one on each line; empty lines are left out."""
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def _standard_input() -> bytes:
    if sys.stdin is None:  # closed by whoever started us
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def table(*columns: str) -> Table:
    """A plain table; a column whose name starts with `>` is aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return made


def show(renderable: object) -> None:
    """Print a rich object on standard output, without cutting lines when it is not a terminal."""
    from rich.console import Console

    console = Console(markup=False)  # a hint may have square brackets
    if not console.is_terminal:
        console = Console(markup=False, width=160)
    console.print(renderable)


def selection_table(selection: Selection) -> Table:
    """A selection as a table: the ranked, then the rejected with the reason.

    Of what is not installed the best backend is shown for each variant.
    """
    made = table(">#", "model", "variant", "backend", ">memory", ">first token", ">decode", "here", "why not, notes")
    shown: set[tuple[str, str]] = set()
    for candidate in selection.candidates:
        what = (candidate.name, candidate.variant)
        if what in shown and not candidate.installed:
            continue
        shown.add(what)
        made.add_row(
            str(candidate.rank or "-"),
            candidate.name,
            candidate.variant,
            candidate.backend,
            size(candidate.memory_bytes),
            f"{candidate.ttft_s:.1f} s" if candidate.decode_tokens_per_s else "",
            f"{'' if candidate.calibrated else '~'}{candidate.decode_tokens_per_s:.0f} tok/s"
            if candidate.decode_tokens_per_s
            else "",
            _here(candidate),
            "; ".join([*([candidate.rejected] if candidate.rejected else []), *candidate.notes]),
        )
    return made


def measured_table(selection: Selection) -> Table | None:
    """The backends side by side for each model that was measured; None: none was."""
    rows = [(each, each.measured) for each in selection.candidates if each.measured is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: (row[0].name, row[0].rank is None, row[0].rank))
    made = table("measured here", "variant", "backend", ">prompt, tok/s", ">decode, tok/s", ">rounds", "with")
    for candidate, found in rows:
        made.add_row(
            candidate.name,
            candidate.variant,
            candidate.backend,
            _between(found.prefill_tokens_per_s),
            _between(found.decode_tokens_per_s),
            str(found.rounds),
            f"{found.library}, {found.threads} threads, a prompt of {found.prompt_tokens} tokens",
        )
    return made


def show_measured(selection: Selection) -> None:
    """Print `measured_table`, and where its figures scatter what to do about it."""
    table = measured_table(selection)
    if table is None:
        return
    show(table)
    found = [each.measured.decode_tokens_per_s for each in selection.candidates if each.measured is not None]
    if any(figure.high > NOISY * figure.low for figure in found):
        print("other programs ran meanwhile: `ondevice calibrate --again` on a quiet machine gives better figures")


def _between(figure: Interval) -> str:
    return f"{figure.value:.0f} ({figure.low:.0f} to {figure.high:.0f})"


def backend_tables(status: Sequence[BackendStatus]) -> list[Table]:
    """The backends with the reason for each that cannot be used; then what those can do that can."""
    usable = table("backend", "usable", "models", "reason", "hint")
    for backend in status:
        word = "yes" if backend.usable else "no"
        usable.add_row(backend.name, word, ", ".join(backend.formats), backend.reason, backend.hint)
    working = [backend for backend in status if backend.usable]
    able = table("capability", *(backend.name for backend in working))
    for capability in sorted({each for backend in working for each in backend.capabilities}):
        able.add_row(capability, *("yes" if capability in backend.capabilities else "-" for backend in working))
    return [usable, able] if working else [usable]


def _here(candidate: Candidate) -> str:
    if candidate.layout is not None:
        return f"yes, as {candidate.layout}"
    return "yes" if candidate.installed else ""


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar on standard error while the block runs; nothing where that is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn(),
             console=console, transient=True) as bar:  # fmt: skip
        line = bar.add_task(title, total=None, amount="")

        def report(event: Progress) -> None:
            shown = size if event.unit == "bytes" else str
            amount = f"{shown(event.done)}/{shown(event.total)}" if event.total else shown(event.done)
            bar.update(
                line, description=f"{title}: {event.stage}", completed=event.done, total=event.total, amount=amount
            )

        yield report
