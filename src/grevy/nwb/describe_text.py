"""A description as lines for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .facts import Description

__all__ = ["describe_text"]

WIDTH = 100
MOST = 20
"""Rows of one section that are shown; the JSON has all."""


def describe_text(description: Description) -> str:
    """Render a description as plain text, without control characters of the file.

    Parameters
    ----------
    description : Description

    Returns
    -------
    str
        Lines, the last without a line break.
    """
    d = description
    parts = [
        _head(d),
        _section("Activity", _activity(d), "none"),
        _section("Units", _units(d), ""),
        _section("Stimuli", _stimuli(d), "none"),
        _section("Behaviour", _behavior(d), "none"),
        _section("Intervals", _intervals(d), ""),
        _section("Remarkable", [f"- {s}" for s in d.findings], "nothing"),
        _section("Run it", [d.suggestion] if d.suggestion else [], "no command fits, see above"),
    ]
    return "\n\n".join(part for part in parts if part)


def plain(string: str) -> str:
    """Text of one line, whatever was in the file: no control, bidirectional or other odd marks."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in string)


def _section(title: str, lines: Sequence[str], otherwise: str) -> str:
    if not lines and not otherwise:
        return ""
    shown = [*lines[:MOST], *([f"... {len(lines) - MOST} more"] if len(lines) > MOST else [])]
    body = []
    for line in shown or [otherwise]:
        clean = plain(line)
        if title == "Run it":
            body.append(f"  {clean}")
            continue
        hang = "    " if line.startswith("- ") else "      "
        body += textwrap.wrap(
            clean, WIDTH, initial_indent="  ", subsequent_indent=hang,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join([title, *body])


def _head(d: Description) -> str:
    f = d.file
    size = f"{f.size_bytes / 1e9:.3g} GB" if f.size_bytes >= 1e9 else f"{f.size_bytes / 1e6:.3g} MB"
    who = " ".join(s for s in (f.subject, f"({f.species})" if f.species else "") if s)
    lines = [f"{f.path}  {size}, NWB {f.nwb_version}"]
    if f.session_description.strip():
        lines.append(textwrap.shorten(f.session_description, 200, placeholder=" ..."))
    told = [
        f"started {f.session_start_time}" if f.session_start_time else "",
        f"subject {who}" if who else "",
    ]
    if any(told):
        lines.append(", ".join(t for t in told if t))
    return "\n".join(plain(line) for line in lines)


def _span(start: float | None, stop: float | None) -> str:
    return "" if start is None or stop is None else f"{start:.6g} to {stop:.6g} s"


def _list(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def _counts(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{value or 'empty'} ({n})" for value, n in counts)


def _activity(d: Description) -> list[str]:
    lines = []
    for a in d.activity:
        shape = " x ".join(str(n) for n in a.shape)
        if a.problem:
            lines.append(f"{a.path}  {a.kind}, stored {shape}, cannot be read")
            continue
        cells = (
            f"{a.n_channels} channels"
            if a.n_accepted is None
            else f"{a.n_accepted} of {a.n_channels} ROIs accepted"
        )
        rate = "" if a.rate_hz is None else f"{a.rate_hz:.4g} Hz"
        lines.append(
            f"{a.path}  "
            + _list(
                a.kind,
                f"{a.n_samples} samples",
                cells,
                rate,
                _span(a.start_s, a.stop_s),
                f"stored {shape} ({a.orientation})",
                f"unit '{a.unit}'" if a.unit else "",
            )
        )
    return lines


def _units(d: Description) -> list[str]:
    if d.units is None:
        return []
    u = d.units
    if u.problem:
        lines = [f"{u.n_units} units, spikes cannot be read"]
    else:
        silent = f"{u.n_silent} without spikes" if u.n_silent else ""
        lines = [
            _list(
                f"{u.n_units} unit{'s' * (u.n_units != 1)}",
                f"{u.n_spikes} spikes",
                silent,
                _span(u.start_s, u.stop_s),
            )
        ]
    lines += [f"{c.name}: {_counts(c.counts)}" for c in u.columns if c.counts]
    rest = [c.name for c in u.columns if not c.counts]
    return [*lines, f"other columns: {', '.join(rest)}"] if rest else lines


def _stimuli(d: Description) -> list[str]:
    if len(d.stimuli) > MOST:
        return _many_stimuli(d)
    lines = []
    for s in d.stimuli:
        frames = f"{s.n_frames} frame{'s' * (s.n_frames != 1)}" if s.n_frames else ""
        lines.append(
            f"{s.name}  "
            + _list(
                s.kind,
                f"{s.n_rows} row{'s' * (s.n_rows != 1)}",
                frames,
                f"shown {s.n_repeats} x",
                _span(s.start_s, s.stop_s),
                f"cannot be decoded: {s.reason}" if s.reason else "",
            )
        )
    return lines


def _many_stimuli(d: Description) -> list[str]:
    """One line a source, for tables of hundreds of clips."""
    lines = []
    for path in dict.fromkeys(s.path for s in d.stimuli):
        own = [s for s in d.stimuli if s.path == path]
        usable = sum(not s.reason for s in own)
        first = ", ".join(s.name for s in own[:3])
        repeats = sorted(s.n_repeats for s in own)
        often = f"{repeats[0]}" if repeats[0] == repeats[-1] else f"{repeats[0]} to {repeats[-1]}"
        lines.append(
            f"{path}  {len(own)} stimuli ({first}, ...), shown {often} x, {usable} can be decoded"
        )
    return lines


def _behavior(d: Description) -> list[str]:
    lines = []
    for b in d.behavior:
        shape = " x ".join(str(n) for n in b.shape)
        if b.problem:
            why = "no finite value" if b.problem.endswith("no finite value.") else "cannot be read"
            lines.append(f"{b.path}  {shape}, {why}")
            continue
        rate = "" if b.rate_hz is None else f"{b.rate_hz:.4g} Hz"
        share = "" if b.share is None else f"covers {b.share:.0%} of the activity"
        kind = "circular" if b.circular else b.kind
        unit = f"unit '{b.unit}'" if b.unit else ""
        lines.append(
            f"{b.path}  " + _list(shape, rate, kind, unit, _span(b.start_s, b.stop_s), share)
        )
    return lines


def _intervals(d: Description) -> list[str]:
    lines = []
    for t in d.intervals:
        columns = f"columns {', '.join(t.columns)}" if t.columns else ""
        rows = f"{t.n_rows} row{'s' * (t.n_rows != 1)}"
        lines.append(f"{t.path}  " + _list(rows, _span(t.start_s, t.stop_s), columns))
        lines += [f"  {c}: {_counts(v)}" for c, v in t.values]
    return lines
