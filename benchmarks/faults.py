"""Commands killed at random instants and begun again, until they end as if nothing had happened.

A program of its own: it loads everything once and forks, so that an instant costs no import.
`make faults` kills each command many times, tests/test_interrupted.py a few times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import torch

import grevy.estimator
import grevy.grid.search
import grevy.pipeline  # noqa: F401  (loaded before any fork)
from grevy.cli import main
from grevy.nwb import write_openscope
from grevy.synthetic import openscope

STEPS = {"fit": 150, "search": 30, "run": 30}
NAMES = (*STEPS, "export")


@dataclass(frozen=True)
class Command:
    """Words of a command that takes --out, which of the files that it leaves must be equal, and
    the command that comes before it."""

    words: tuple[str, ...]
    out: str
    equal: tuple[str, ...]
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a command that was killed again and again."""

    command: str
    kills: int
    ends: int  # of the same command, begun again until it ended by itself
    compared_bytes: int  # after kills and ends, with those of the command left alone
    lost_bytes: int  # that were not equal
    whole_s: float  # that the command takes when left alone


def commands(folder: Path) -> dict[str, Command]:
    """Small ones, each with a checkpoint at every chance."""
    rng = np.random.default_rng(0)
    angle = np.cumsum(rng.normal(0.1, 0.1, 900))
    cells = np.cos(angle[:, None] - np.linspace(0, 6, 10)) + rng.normal(0, 0.3, (900, 10))
    np.savez(folder / "d.npz", x=cells.astype(np.float32), angle=np.sin(angle))
    write_openscope(folder / "s.nwb", openscope(movies=2, n_repeats=5, n_frames=40, n_cells=8))
    always = ("--checkpoint-s", "0", "--quiet")
    small = ("--steps", "10", "--search-steps", "5", "--folds", "2", "--temperature", "1",
             "--latents", "3", "--nulls", "0", "--device", "cpu", *always)  # fmt: skip
    return {
        "fit": Command(
            ("fit", "d.npz", "--labels", "angle", "--steps", str(STEPS["fit"]), "--hidden", "8",
             "--latents", "3", "--batch-size", "64", "--device", "cpu", *always),
            "m.safetensors", (),
        ),
        "search": Command(
            ("search", "d.npz", "--grid", "latents=2,3", "learning_rate=1e-2,1e-3", "hidden=8",
             f"steps={STEPS['search']}", "batch_size=64", "device=cpu", *always),
            "models", ("grid.json", "*.pt"),
        ),
        "run": Command(
            ("run", "s.nwb", "--steps", str(STEPS["run"]), "--search-steps", "10", "--folds", "3",
             "--temperature", "1", "0.3", "--latents", "3", "--nulls", "19", "--early-stop",
             "--device", "cpu", *always),
            "out", ("*.csv", "run.toml", "results.json", "model.safetensors", "embedding.npz",
                    "models/*", "figures/*"),
        ),
        "export": Command(
            ("export", "done", "--quiet"), "e.nwb", (), ("run", "s.nwb", "--out", "done", *small)
        ),
    }  # fmt: skip


def start(words: Sequence[str]) -> int:
    """A command in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            main(list(words))
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def ended(child: int, until: float | None = None) -> int | None:
    """How a process ended; None if it runs still at some time."""
    while True:
        found, status = os.waitpid(child, 0 if until is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() > until:
            return None
        time.sleep(0.001)


def contents(out: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """Files by name."""
    if not out.is_dir():
        said = said_by if out.suffix == ".nwb" else Path.read_bytes
        return {"": said(out)} if out.exists() else {}
    found = sorted(p for pattern in patterns for p in out.glob(pattern))
    return {str(p.relative_to(out)): timeless(p) for p in found}


def timeless(file: Path) -> bytes:
    """A file as it is, but for the seconds that its making took."""
    if file.name != "results.json":
        return file.read_bytes()
    told = json.loads(file.read_bytes())
    told["results"].pop("seconds")
    return json.dumps(told, sort_keys=True).encode()


def said_by(file: Path) -> bytes:
    """All that an NWB file holds, but for the ids that every object of a new file is given."""
    parts = []
    with h5py.File(file) as nwb:

        def known(value: object) -> object:
            if isinstance(value, h5py.Reference):
                return nwb[value].name
            if isinstance(value, np.ndarray) and value.dtype == object:
                return [known(one) for one in value.flatten()]
            return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            own = {k: known(v) for k, v in sorted(item.attrs.items()) if k != "object_id"}
            held = known(item[()]) if isinstance(item, h5py.Dataset) else None
            parts.append(repr((name, own, held)))

        visit("/", nwb)
        nwb.visititems(visit)
    return "\n".join(parts).encode()


def is_finished(out: Path) -> bool:
    """Whether the same command would refuse to write over what there is: it was killed too late."""
    if out.is_dir():
        return (out / "report.html").exists()  # the last thing that a run writes
    lock = out.with_name(f"{out.name}.unfinished") / ".lock"  # of a fit; it is gone at the end
    return out.exists() and not lock.exists()


def remove(out: Path) -> None:
    """What a command left, and what it keeps while it is unfinished."""
    for path in (out, out.with_name(f"{out.name}.unfinished")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def differing(a: bytes, b: bytes) -> int:
    """How many bytes of two files are not equal."""
    shorter = min(len(a), len(b))
    x, y = (np.frombuffer(each, np.uint8, shorter) for each in (a, b))
    return int((x != y).sum()) + max(len(a), len(b)) - shorter


def torment(name: str, command: Command, kills: int, rng: np.random.Generator) -> Outcome:
    """Kill a command so many times and count; AssertionError where it does not go on at all."""
    out = Path(command.out)
    words = [*command.words, "--out", command.out]
    if command.before:
        assert ended(start(command.before)) == 0, f"what comes before {name} fails"
    begin = time.monotonic()
    assert ended(start(words)) == 0, f"{name} does not even end by itself"
    took = time.monotonic() - begin
    whole = contents(out, command.equal)
    assert whole, f"{name} left nothing"
    remove(out)
    killed = finished = compared = lost = 0
    pending = True
    while killed < kills or pending:
        again = killed < kills
        until = time.monotonic() + rng.uniform(0, took) if again else None
        child = start(words)
        code = ended(child, until)
        if code is None:
            os.kill(child, signal.SIGKILL)
            code = ended(child)
        if code == -signal.SIGKILL:
            killed, pending = killed + 1, True
            for file, blob in contents(out, command.equal).items():
                if file != "grid.json":  # an index that grows
                    compared += len(blob)
                    lost += differing(whole.get(file, b""), blob)
            if not is_finished(out):
                continue
        else:
            assert code == 0, f"{name} left with {code} after {killed} kills"
        found = contents(out, command.equal)
        for file in {*whole, *found}:
            compared += len(whole.get(file, b""))
            wrong = differing(whole.get(file, b""), found.get(file, b""))
            if wrong:
                print(f"{name}: {file} differs after {killed} kills", flush=True)
            lost += wrong
        left = [p for p in Path().rglob("*") if p.suffix == ".tmp" or "unfinished" in p.name]
        assert code or not left, f"{name} left {left} behind"
        finished, pending = finished + 1, False
        remove(out)
    return Outcome(name, killed, finished, compared, lost, round(took, 2))


def program(argv: Sequence[str] | None = None) -> None:
    """What `make faults` runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--commands", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    rng = np.random.default_rng(given.seed)
    print(f"seed {given.seed}", flush=True)
    home, outcomes = Path.cwd(), []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, command in commands(Path(folder)).items():
            if name in given.commands:
                outcomes.append(torment(name, command, given.kills, rng))
                print(outcomes[-1], flush=True)
        os.chdir(home)
    if given.json:
        told = {"date": datetime.now(UTC).date().isoformat(), "seed": given.seed}
        rows = [asdict(outcome) for outcome in outcomes]
        given.json.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
    raise SystemExit(any(outcome.lost_bytes for outcome in outcomes))


if __name__ == "__main__":
    program()
