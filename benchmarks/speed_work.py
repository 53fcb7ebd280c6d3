"""The work of the rows of speed.py, and what CEBRA's own fits reach on it, seed by seed.

    python benchmarks/speed_work.py --device cpu|cuda [--only NAME ...] [--jobs N]

A timed run of ours counts only if it learns what CEBRA learns: its held-out bits are judged beside
those of five fits of CEBRA, of as many steps on the same samples. Those fits are computed once, by
this script, and kept with seeds and versions in results/speed-reference.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec, from_cebra
from grevy.model import Run, SessionEncoder, held_out_bits
from grevy.pairs import DeltaPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.synthetic import as_recording, openscope

KEPT = Path(__file__).parent / "results" / "speed-reference.json"
GAP = 40
"""Samples between those trained on and those judged on."""


@cache
def reference() -> tuple[Recording, int]:
    """The simulated session of 127,177 samples x 41 cells, and where its held-out fifth begins."""
    recording = as_recording(openscope(seed=0))
    return recording, int(0.8 * recording.n_samples)


@cache
def labelled(repeats: int, columns: int) -> Recording:
    """A simulated session of so many repeats, labelled with its first true latents."""
    session = openscope(seed=0, n_repeats=repeats)
    label = Label(session.latents[:, :columns].astype(np.float64), "continuous")
    # As one stretch: CEBRA knows no epochs.
    return make_recording(session.activity, rate_hz=30.0, labels={"latents": label})


def config(steps: int, *, hidden: int = 128, seed: int = 0, **more: Any) -> TrainConfig:
    """The reference fit."""
    latents, offset = more.pop("latents", 16), more.pop("offset", 10)
    return TrainConfig(
        TimePairs((offset,)),
        EncoderSpec("offset10-model", hidden, latents),
        learning_rate=more.pop("rate", 1e-2),
        n_steps=steps,
        seed=seed,
        train_on=((0, reference()[1]),),
        **more,
    )


def grid(steps: int, *, small: bool = False) -> list[TrainConfig]:
    """The reference grid of 72, or 12 of its points."""
    points = product(
        (16, 32) if small else (16, 32, 64, 128),
        (1e-3,) if small else (1e-3, 1e-2, 3e-4),
        (10, 20),
        (32, 64, 128),
    )
    return [config(steps, hidden=h, latents=d, rate=r, offset=o) for d, r, o, h in points]


@dataclass(frozen=True, eq=False)
class Work:
    """What is fitted: a recording, the samples trained on (the first so many), the settings."""

    recording: Recording
    cut: int
    config: TrainConfig

    @property
    def y(self) -> Any:
        """The label of the samples trained on, (cut, d) float32, or None for time pairs."""
        if isinstance(self.config.pairs, TimePairs):
            return None
        return self.recording.labels["latents"].values[: self.cut].astype(np.float32)

    def bits(self, run: Run) -> float:
        """Of a run on the samples behind those it trained on."""
        spans = np.array([[self.cut + GAP, self.recording.n_samples]])
        return held_out_bits(run, self.recording, spans)


def _timed(steps: int, **more: Any) -> Work:
    return Work(*reference(), config(steps, **more))


def _labelled(repeats: int, columns: int, cut: int, steps: int) -> Work:
    like = TrainConfig(
        DeltaPairs(("latents",), 10), EncoderSpec("offset10-model", 128, 16), learning_rate=1e-3,
        n_steps=steps, train_on=((0, cut),),
    )  # fmt: skip
    return Work(labelled(repeats, columns), cut, like)


WORKS: dict[str, tuple[str, Callable[[], Work]]] = {
    # name: the device whose rows it is for, the work
    "fit_cpu": ("cpu", lambda: _timed(300)),
    "grid_cpu, 32 units": ("cpu", lambda: _timed(100, hidden=32, rate=1e-3)),
    "grid_cpu, 64 units": ("cpu", lambda: _timed(100, hidden=64, rate=1e-3)),
    "grid_cpu, 128 units": ("cpu", lambda: _timed(100, hidden=128, rate=1e-3)),
    "behavior_cpu_1e5": ("cpu", lambda: _labelled(10, 3, 100_000, 150)),
    "behavior_cpu_1e6": ("cpu", lambda: _labelled(100, 3, 1_000_000, 50)),
    "fit_cuda": ("cuda", lambda: _timed(20_000)),
    "grid_cuda, 32 units": ("cuda", lambda: _timed(1000, hidden=32, rate=1e-3)),
    "grid_cuda, 64 units": ("cuda", lambda: _timed(1000, hidden=64, rate=1e-3)),
    "grid_cuda, 128 units": ("cuda", lambda: _timed(1000, hidden=128, rate=1e-3)),
    "behavior_cuda": ("cuda", lambda: _labelled(13, 1, 126_758, 2000)),
}


def cebra(work: Work, device: str) -> Any:
    """CEBRA's own estimator with the settings of some work."""
    from cebra import CEBRA

    like = work.config
    offset = like.pairs.offsets[0] if isinstance(like.pairs, TimePairs) else like.pairs.lag
    return CEBRA(
        model_architecture=like.encoder.architecture, num_hidden_units=like.encoder.hidden,
        output_dimension=like.encoder.latents, batch_size=like.batch_size,
        learning_rate=like.learning_rate, temperature=1.0, distance="cosine", time_offsets=offset,
        max_iterations=like.n_steps, device=device,
        conditional="time" if work.y is None else "time_delta",
    )  # fmt: skip


def as_run(model: Any, like: TrainConfig) -> Run:
    """CEBRA's encoder as a run of ours, to be judged as ours are."""
    state = {k: v.detach().cpu() for k, v in model.model_.state_dict().items()}
    weights = from_cebra(like.encoder, state)
    channels = weights[0].shape[1]
    session = SessionEncoder(tuple(weights), torch.zeros(channels), torch.ones(channels))
    return Run(
        like, (session,), np.zeros((1, 1, 2), np.float32), np.ones(1, np.float32), 1.0, None, 512,
        "", "",
    )  # fmt: skip


def reach(job: tuple[str, int], device: str) -> dict[str, Any]:
    """Bits of one fit of CEBRA, and how long it took beside the others."""
    from importlib.metadata import version

    name, seed = job
    torch.set_num_threads(1)
    work = WORKS[name][1]()
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    model = cebra(work, device)
    x = work.recording.activity[: work.cut]
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, *([] if work.y is None else [work.y]))
    return {
        "work": name, "seed": seed, "bits": round(work.bits(as_run(model, work.config)), 6),
        "steps": work.config.n_steps, "fit_s": round(time.perf_counter() - begin, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "made": f"cebra {version('cebra')}, torch {torch.__version__}, numpy {np.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def kept() -> list[dict[str, Any]]:
    """All fits of CEBRA that were judged."""
    return json.loads(KEPT.read_text()) if KEPT.exists() else []


def judged(name: str, run: Run) -> dict[str, Any]:
    """Our bits on some work beside CEBRA's, and whether they lie within its spread or above.

    Within: not below the mean of its seeds by more than two standard deviations of them.
    """
    theirs = [row["bits"] for row in kept() if row["work"] == name]
    bits = WORKS[name][1]().bits(run)
    found: dict[str, Any] = {"bits": bits, "bits_cebra": theirs}
    if len(theirs) > 1:
        floor = float(np.mean(theirs) - 2 * np.std(theirs, ddof=1))
        found |= {"bits_floor": floor, "quality": "held" if bits >= floor else "LOST"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kept", type=Path, default=KEPT, help="where the fits are kept")
    options = parser.parse_args()
    rows = json.loads(options.kept.read_text()) if options.kept.exists() else []
    have = {(r["work"], r["seed"]) for r in rows}
    names = [n for n, (device, _) in WORKS.items() if device == options.device]
    names = [n for n in names if options.only is None or n in options.only]
    jobs = [(n, s) for n, s in product(names, options.seeds) if (n, s) not in have]
    os.environ["OMP_NUM_THREADS"] = "1"  # seen by the workers, which start anew
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        running = [pool.submit(partial(reach, device=options.device), job) for job in jobs]
        for done in as_completed(running):  # each is kept as it comes
            row = done.result()
            rows.append(row)
            print(*row.values(), sep="  ", flush=True)
            options.kept.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
