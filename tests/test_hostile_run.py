"""One whole run whose names attack paths, pages, figures, sheets and terminals."""

from __future__ import annotations

import csv
import io
import os
import pickle
import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from grevy import cli, pipeline
from grevy.grid.index import file_of
from grevy.report import saved
from nwb_files import new, noise, series, table, traces
from test_report import Page, strangers

IMAGE = "<img src=x onerror=alert(1)>"
NAMES = (
    "../../x",
    f"/etc/{IMAGE}",
    "CON",
    "=cmd|' /C calc'!A0",
    "\x1b[2J\x1b]0;owned\x07\u202e$\\frac{ {0.__class__} %s %n",
    "a\x00b" + "y" * 5000,
)
"""Of stimuli. The zero inside one is what HDF5 keeps in strings of a fixed length."""

LABEL = f"\u0430\u202e{IMAGE}$\\frac{{"


def recording(path: Path) -> None:
    """Movies, a label, and an ROI table, all of them named by an enemy."""
    n, rate = 24 * 30, 10.0
    with new(path) as file:
        for name in ("identifier", "session_description"):
            del file[name]
            file[name] = f"{IMAGE}\x1b[2J=1+1$\\frac{{"
        file["general/subject/subject_id"] = "../../" + IMAGE
        traces(file, noise(n, 6), np.arange(n) / rate, rois=6, unit=f"{IMAGE}$\\frac{{")
        series(file, f"processing/behavior/{LABEL}", noise(n, 1)[:, 0], rate=rate, unit=IMAGE)
        starts = np.arange(24) * 3.0
        frames = np.tile(np.arange(20), 24)
        shown = table(file, f"intervals/{IMAGE}", {
            "start_time": np.repeat(starts, 20) + frames / rate,
            "stop_time": np.repeat(starts, 20) + (frames + 1) / rate,
            "frame": frames,
        })  # fmt: skip
        names = [NAMES[i % len(NAMES)].encode() for i in range(24)]
        shown["stimulus_name"] = np.repeat(np.array(names, "S6000"), 20)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The folder that must not be left, the one of the run, and what the terminal was told."""
    around = tmp_path_factory.mktemp("around")
    file = around / "inner" / f"{IMAGE.replace('/', '')}$\\frac{{.nwb"
    file.parent.mkdir()
    recording(file)
    words = "--steps 5 --search-steps 5 --folds 2 --latents 3 --temperature 1 --hidden 8 --nulls 0"
    out = around / "inner" / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(around / "inner")
        patch.setattr(pipeline, "write_report", partial(pipeline.write_report, dpi=40))
        told = _told(["run", str(file), "--out", str(out), *words.split(), "--label", LABEL])
    return around, out, told


def _told(words: list[str]) -> str:
    """All that a command writes to its terminal."""
    import contextlib

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        cli.main(words)
    return out.getvalue()


def test_nothing_is_written_outside_the_folder_of_the_run(ran: tuple[Path, Path, str]) -> None:
    around, out, _ = ran
    files = [p for p in around.rglob("*") if p.is_file() and p.suffix != ".nwb"]
    assert len(files) > 10
    assert all(p.resolve().is_relative_to(out) for p in files)
    assert all(
        re.fullmatch(r"[\w.-]{1,80}", part) for p in files for part in p.relative_to(out).parts
    )
    folded = [str(p).casefold() for p in files]
    assert len(set(folded)) == len(folded)


def pickles(name: str, blob: bytes) -> list[str]:
    """Parts of a file that are or ask for pickles."""
    if blob.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            return [p for part in archive.namelist() for p in pickles(part, archive.read(part))]
    if blob.startswith(b"\x93NUMPY"):
        header = blob[: 10 + int.from_bytes(blob[8:10], "little")]
        return [name] if b"O" in header.split(b"descr")[1].split(b"fortran")[0] else []
    return [name] if blob.startswith(b"\x80") or name.endswith((".pkl", ".joblib")) else []


def test_no_file_of_a_run_is_a_pickle(ran: tuple[Path, Path, str], tmp_path: Path) -> None:
    files = [p for p in ran[1].rglob("*") if p.is_file()]
    assert {".npz", ".safetensors", ".json"} <= {p.suffix for p in files}
    assert not [q for p in files for q in pickles(p.name, p.read_bytes())]
    np.savez(tmp_path / "bad.npz", x=np.array([None, {}], dtype=object))
    for bad in ((tmp_path / "bad.npz").read_bytes(), pickle.dumps({})):
        assert pickles("bad", bad)


def test_all_names_are_told_apart(ran: tuple[Path, Path, str]) -> None:
    results, arrays = saved.load_results(ran[1])
    assert arrays is not None
    assert len(set(arrays.names)) == len(NAMES)
    assert {s.name for s in results.stimuli} == set(arrays.names)


def test_the_report_holds_no_markup_of_the_file(ran: tuple[Path, Path, str]) -> None:
    text = (ran[1] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert strangers(page, scripts=3) == []
    assert any(str(m.get("content")).startswith("default-src 'none'") for m in page.named("meta"))
    assert IMAGE in page.text


def test_sheets_and_the_terminal_get_no_commands(ran: tuple[Path, Path, str]) -> None:
    _, out, told = ran
    for name in ("scores.csv", "claims.csv"):
        with open(out / name, encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    number = re.fullmatch(r"[-+]?[\d.e+-]+", cell)
                    assert number or not cell.lstrip().startswith(tuple("=+-@|%\t\r"))
                    assert cell.isprintable()
    bars = re.sub(r"\x1b\[A|\r", "", told)  # tqdm moves up to its own line
    assert "finished" in told
    assert all(c == "\n" or c.isprintable() for c in bars), re.findall(
        r".{20}[\x00-\x09\x0b-\x1f].{20}", bars
    )


def test_names_of_models_become_names_of_files(tmp_path: Path) -> None:
    names = [*NAMES, "..", ".", "a/b", "a\\b", "a:b", "nul", "Com1.x", "x" * 5000, "\u0430", "a"]
    files = [file_of(name) for name in names]
    assert len({f.casefold() for f in files}) == len(names)
    for file in files:
        (tmp_path / file).touch()
        assert (tmp_path / file).resolve().parent == tmp_path
        assert len(os.fsencode(file)) < 256
        assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", file)
