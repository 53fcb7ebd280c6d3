"""Whole runs, small: what is written, that it is repeatable, resumable, and never overwritten."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsRegressor

from grevy import pipeline, store
from grevy.atomic import short_name
from grevy.cli import _summary, main
from grevy.errors import ConfigError, DivergedError, LockedError
from grevy.nwb import write_openscope
from grevy.recording import Label, make_recording
from grevy.report import page, saved
from grevy.settings import load_toml, read_config
from grevy.synthetic import as_recording, openscope

QUICK = {
    "steps": 40, "search_steps": 20, "folds": 3, "latents": [3], "batch_size": 64, "seeds": 1,
    "surrogates": 0, "nulls": 99,
}  # fmt: skip
WHOLE = {**QUICK, "seeds": 2, "surrogates": 1}
WRITTEN = (
    "report.html", "run.toml", "scores.csv", "results.json", "embedding.npz", "model.safetensors",
    "log.jsonl", "behaviour.csv", "clocks.csv", "drift.csv", "samples.csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def movies():  # type: ignore[no-untyped-def]
    return as_recording(openscope(movies=3, n_repeats=6, n_frames=60, n_cells=12))


@pytest.fixture(scope="module")
def finished(movies, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("run") / "out"
    pipeline.run_recording(movies, read_config({"file": "m.nwb", **WHOLE}), out, quiet=True)
    return out


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, which take half of the time of so small a run."""

    def write(out: Path, *_: object) -> Path:
        (out / "report.html").write_text("")
        return out / "report.html"

    monkeypatch.setattr(pipeline, "write_report", write)


def _rows(out: Path) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written(finished: Path) -> None:
    for name in WRITTEN:
        assert (finished / name).stat().st_size > 0, name
    assert list((finished / "figures").glob("*.png"))
    assert not (finished / ".lock").exists()
    assert not list(finished.rglob("*.tmp"))
    rows = _rows(finished)
    assert {"stimulus", "method", "metric", "value", "chance", "n_repeats"} <= set(rows[0])
    assert {r["method"] for r in rows} == {"embedding", "raw kNN", "PCA kNN", "linear", "constant"}
    assert {r["n_repeats"] for r in rows} == {"4"}
    model = store.load(finished / "model.safetensors")
    assert model.config.n_steps == 40
    with np.load(finished / "embedding.npz", allow_pickle=False) as arrays:
        assert arrays["values"].shape[1] == 3
    results, embedding = saved.load_results(finished)
    assert len(results.candidates) == 3
    assert sum(c.chosen for c in results.candidates) == 1
    assert embedding is not None
    for line in (finished / "log.jsonl").read_text().splitlines():
        assert "event" in json.loads(line)


@pytest.mark.usefixtures("bare")
def test_the_same_run_gives_the_same_numbers(movies, finished: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = read_config(load_toml(finished / "run.toml"))
    pipeline.run_recording(movies, config, tmp_path / "again", quiet=True)
    for name in ("scores.csv", "model.safetensors", "run.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes(), name
    for name in ("drift.csv", "clocks.csv", "behaviour.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes(), name
    again, first = (saved.load_results(p)[0] for p in (tmp_path / "again", finished))
    assert repr(again.quality) == repr(first.quality)
    other = read_config({"file": "m.nwb", **QUICK, "seed": 1})
    pipeline.run_recording(movies, other, tmp_path / "other", quiet=True)
    assert _rows(tmp_path / "other") != _rows(finished)


def test_controls_and_quality_are_part_of_a_run(movies, finished: Path) -> None:  # type: ignore[no-untyped-def]
    results, _ = saved.load_results(finished)
    controls, quality = results.controls, results.quality
    assert [b.scores[0].target for b in controls.behaviour] == ["frame", "stimulus"]
    assert {b.labels for b in controls.behaviour} == {("running",)}
    assert len(controls.clocks) == len(controls.drifts) == 3
    assert {d.n_nulls for d in controls.drifts} == {99}
    assert [r.series for r in controls.sizes] == ["embedding", "frame", "stimulus"]
    (folds,) = results.folds
    assert (folds.what, folds.n_folds, folds.shared_samples) == ("repeats", 3, 0)
    assert folds.set_aside
    assert quality.bits is not None
    assert quality.consistency is not None
    assert (len(quality.bits.runs), len(quality.bits.surrogates)) == (2, 1)
    assert (quality.null, quality.consistency.n_nulls) == ("surrogates", 1)
    assert quality.ring is None
    # The first fold's run is the first seed: trained are 6 candidates, the final model, 3 folds,
    # another seed, and 2 of the surrogate.
    assert len(list((finished / "models").iterdir())) == 13
    with open(finished / "drift.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == sum(len(d.by_distance) for d in controls.drifts)
    text = (finished / "report.html").read_text()
    for line in ("Controls: could something else", "Quality of the embedding", "NERVE-ML"):
        assert line in text
    text = " ".join(results.methods)
    for words in ("behaviour alone (running)", "clock since the onset", "Mantel", "surrogate"):
        assert words in text


def test_a_finished_run_is_never_overwritten(movies, finished: Path) -> None:  # type: ignore[no-untyped-def]
    before = (finished / "report.html").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="holds a finished run"):
        pipeline.run_recording(movies, read_config({"file": "m.nwb", **QUICK}), finished)
    assert (finished / "report.html").stat().st_mtime_ns == before


def test_a_folder_of_somebody_else_is_refused_untouched(
    movies, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = ("s.nwb", ".notes.tmp", "src/.draft.tex.tmp", "behaviour.csv", "model.safetensors")
    (tmp_path / "src").mkdir()
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit):  # before the recording, which is none, is looked at
        main(["run", "s.nwb", "--out", "."])
    assert "must be new or empty, or hold a run.toml from before" in capsys.readouterr().err
    config = read_config({"file": "m.nwb", **QUICK})
    with pytest.raises(ConfigError, match=r"found '\.notes\.tmp' and no run\.toml"):
        pipeline.run_recording(movies, config, tmp_path)
    (tmp_path / "run.toml").write_text('file = "x"\nspeed = 3')  # of another program
    with pytest.raises(ConfigError, match=r"run\.toml must be that of an unfinished run.*'speed'"):
        pipeline.run_recording(movies, config, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*names, "src", "run.toml"} - {names[2]}
    assert {(tmp_path / name).read_text() for name in names} == {"mine"}
    with pytest.raises(ConfigError, match="finished"), pipeline._folder(finished, config, {}):
        pass  # it was finished while we waited for it


@pytest.mark.usefixtures("bare")
def test_an_unfinished_run_goes_on_and_only_with_its_settings(movies, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = read_config({"file": "m.nwb", **QUICK})
    out = tmp_path / "out"
    pipeline.run_recording(movies, config, out, quiet=True)
    whole = (out / "scores.csv").read_bytes()
    trained = {p: p.stat().st_mtime_ns for p in (out / "models").iterdir()}
    (out / "report.html").unlink()
    lost, changed, other = sorted(trained)[:3]
    lost.unlink()
    changed.write_bytes(other.read_bytes())  # whole, but not what its name says
    with (out / "log.jsonl").open("a") as log:
        log.write('{"torn')  # by a kill
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        pipeline.run_recording(movies, read_config({"file": "m.nwb", **QUICK, "seed": 5}), out)
    pipeline.run_recording(movies, config, out, quiet=True)
    assert (out / "scores.csv").read_bytes() == whole
    for path, stamp in trained.items():
        assert (path.stat().st_mtime_ns == stamp) == (path not in (lost, changed))
    told = [line for line in (out / "log.jsonl").read_text().splitlines() if line != '{"torn']
    said = [json.loads(line) for line in told]
    damaged = [line["reason"] for line in said if line["event"].startswith("model file damaged")]
    assert len(damaged) == 1
    assert f"{changed.name} must hold the run that its name stands for" in damaged[0]


def test_a_folder_in_use_says_by_whom(movies, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    out.mkdir()
    with open(out / ".lock", "w") as file:
        file.write("zebra:42")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="zebra:42"):
            pipeline.run_recording(movies, read_config({"file": "m.nwb", **QUICK}), out)


@pytest.mark.usefixtures("bare")
def test_labels_are_decoded_in_blocks_and_noise_stays_at_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    angle = np.mod(np.cumsum(rng.normal(0.1, 0.1, 4000)), 2 * np.pi)
    cells = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    counts = rng.poisson(np.exp(1.5 * np.cos(angle[:, None] - cells)))
    labels = {
        "angle": Label(angle, "continuous", "rad", 2 * np.pi),
        "coin": Label(np.repeat(rng.integers(0, 2, 40), 100), "discrete"),
    }
    recording = make_recording(counts, rate_hz=20, labels=labels)
    config = read_config({"file": "x", **QUICK, "steps": 200, "labels": ["angle", "coin"]})
    out = tmp_path / "out"
    pipeline.run_recording(recording, config, out, quiet=True)
    results, _ = saved.load_results(out)
    found = {(s.target, s.metric): s for s in results.scores if s.method == "embedding"}
    assert found["angle", "median error"].value < 0.5 < found["angle", "median error"].chance
    assert "r2" not in {metric for target, metric in found if target == "angle"}
    coin = found["coin", "accuracy"]
    assert coin.low < max(coin.chance, 0.5) + 0.1
    assert [t.name for t in results.traces] == ["angle", "coin"]


def test_without_stimulus_or_label_there_is_an_embedding_and_a_sentence(tmp_path: Path) -> None:
    recording = make_recording(np.random.default_rng(0).standard_normal((400, 4)), rate_hz=20)
    path = pipeline.run_recording(recording, read_config({"file": "x", **QUICK}), tmp_path / "o")
    results, embedding = saved.load_results(path.parent)
    assert results.scores == ()
    assert "No sample was held out" in results.quality.unchecked[0]
    assert any("Nothing was decoded" in w for w in results.warnings)
    assert embedding is not None
    assert embedding.values.shape == (400, 3)


def test_too_short_for_a_window_is_explained(tmp_path: Path) -> None:
    from grevy.errors import DataError

    recording = make_recording(np.random.default_rng(0).standard_normal((8, 4)), rate_hz=30)
    with pytest.raises(DataError, match="training needs stretches of at least 20 samples"):
        pipeline.run_recording(recording, read_config({"file": "x", **QUICK}), tmp_path / "o")


@pytest.mark.usefixtures("bare")
def test_interrupted_at_any_time_it_ends_as_if_it_had_not_been(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("cases", 2)
    file = tmp_path / "s.nwb"
    write_openscope(file, openscope(movies=2, n_repeats=5, n_frames=60, n_cells=8))
    words = ["run", str(file), "--steps", "60", "--search-steps", "30", "--folds", "3", "-q"]
    words += ["--seeds", "1", "--surrogates", "0", "--nulls", "19", "--temperature", "1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*words, "--out", str(whole)])
    for how, seen in ((signal.SIGINT, "choosing"), (signal.SIGKILL, "folds over")):
        child = subprocess.Popen(
            [sys.executable, "-m", "grevy", *words, "--out", str(broken)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        log = broken / "log.jsonl"
        for _ in range(1200):
            if log.exists() and seen in log.read_text():
                break
            time.sleep(0.05)
        child.send_signal(how)
        said = child.communicate()[1].decode()
        assert "Traceback" not in said
        assert child.returncode in ((130,) if how == signal.SIGINT else (-9,))
        assert not (broken / "report.html").exists()
    left = broken / "models" / f"{short_name(Path('a.safetensors'))}.ab_12345.tmp"
    left.write_text("by a run that was killed while writing")
    main([*words, "--out", str(broken)])
    assert (broken / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert not list(broken.rglob("*.tmp"))


@pytest.mark.usefixtures("bare")
def test_candidates_that_diverge_are_not_chosen_and_end_no_run(movies, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    more = {"learning_rate": [1e39, 1e6, 3e-3], "temperature": [1.0], "nulls": 0}
    out = tmp_path / "out"
    pipeline.run_recording(movies, read_config({"file": "m.nwb", **QUICK, **more}), out, quiet=True)
    results, _ = saved.load_results(out)
    rates = {c.settings["learning_rate"]: c for c in results.candidates}
    assert [rates[r].chosen for r in (1e39, 1e6, 3e-3)] == [False, False, True]
    assert np.isnan([rates[1e39].score, rates[1e6].bits]).all()
    assert any("2 of 3 candidates diverged" in w for w in results.warnings)
    all_of_them = read_config({"file": "m.nwb", **QUICK, **more, "learning_rate": [1e38, 1e39]})
    with pytest.raises(DivergedError, match=r"run \d of \d+ did not at step"):
        pipeline.run_recording(movies, all_of_them, tmp_path / "none", quiet=True)


@pytest.mark.usefixtures("bare")
def test_behavior_pairs_find_nothing_in_noise(movies, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Fitted with the test repeats inside, this configuration decodes noise with R2 near one."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(movies.activity.shape)
    for i in range(1, len(noise)):
        noise[i] += 0.9 * noise[i - 1]
    recording = replace(movies, activity=noise.astype(np.float32))
    more = {"pairs": "behavior", "labels": ["frame"], "steps": 300, "temperature": [1.0]}
    out = tmp_path / "out"
    pipeline.run_recording(recording, read_config({"file": "x", **QUICK, **more}), out, quiet=True)
    results, embedding = saved.load_results(out)
    rows = [s for s in results.scores if s.method == "embedding" and s.metric == "r2"]
    assert len(rows) == 3
    assert max(row.value for row in rows) < 0.3
    # The model that is shown did see every repeat: it memorises, and no score may come from it.
    assert embedding is not None
    angle = embedding.values[embedding.index == 0]
    frame = embedding.frame[embedding.index == 0]
    repeat = embedding.repeat[embedding.index == 0]
    near = KNeighborsRegressor(5, metric="cosine").fit(angle[repeat < 4], frame[repeat < 4])
    assert near.score(angle[repeat >= 4], frame[repeat >= 4]) > max(row.value for row in rows)


def test_shuffled_folds_are_refused_and_when_forced_said_in_every_output(
    movies, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="cannot be shuffled into folds"):
        read_config({"file": "m.nwb", "split": "shuffled"})
    out = tmp_path / "out"
    forced = {**QUICK, "split": "shuffled", "force": True}
    pipeline.run_recording(movies, read_config({"file": "m.nwb", **forced}), out, quiet=True)
    results, _ = saved.load_results(out)
    assert "Not held out" in results.flags[0]
    assert not results.claims
    assert not results.candidates  # nothing could be chosen honestly
    assert results.folds[0].shared_samples > 0
    assert "Shuffled folds leak" in results.controls.unchecked[0]
    assert {r["flag"] for r in _rows(out)} == {"leaks"}
    assert {d.flag for d in results.differences} == {"leaks"}
    text = (out / "report.html").read_text()
    assert 'class="leaks"' in text
    assert "The scores are not of held-out samples" in text
    assert _summary(out).startswith("!! Not held out")
    judged = [p for p in (out / "figures").glob("*.png") if p.name.startswith("decoding")]
    for picture in judged:
        with Image.open(picture) as image:
            assert image.convert("RGB").getpixel((1, 1)) == (180, 35, 24)
    best = {r.stimulus: r.value for r in results.scores if r.method == "raw kNN"}
    assert best  # and they are far too good: a neighbour in time gives the frame away


@pytest.mark.usefixtures("bare")
def test_folds_may_leave_pairs_out_and_choose_for_themselves(movies, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    more = {
        "leave_out": 2, "choice": "nested", "early_stop": True, "nulls": 0,
        "temperature": [1.0, 0.3],
    }  # fmt: skip
    out = tmp_path / "out"
    pipeline.run_recording(movies, read_config({"file": "m.nwb", **QUICK, **more}), out, quiet=True)
    results, _ = saved.load_results(out)
    assert {r["n_repeats"] for r in _rows(out)} <= {"4", "5", "6"}  # those that 3 pairs cover
    assert sum(c.times for c in results.candidates) == 3
    text = " ".join(results.methods)
    assert "inside each fold" in text
    assert "2 repeats left out in each" in text
    assert "The number of steps was chosen too" in text
    assert store.load(out / "model.safetensors").config.n_steps <= 40


@pytest.mark.usefixtures("bare")
def test_encoders_that_learn_the_label_are_tested_with_encoders_that_learn_shuffled_ones(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    n = 900
    angle = np.cumsum(rng.normal(0, 0.5, n))
    cells = np.exp(2 * np.cos(angle[:, None] - np.linspace(0, 2 * np.pi, 12, endpoint=False)))
    labels = {
        "angle": Label(np.mod(angle, 2 * np.pi), "continuous", "rad", 2 * np.pi),
        "coin": Label(rng.standard_normal(n), "continuous"),
    }
    recording = make_recording(
        cells + 0.5 * rng.standard_normal((n, 12)), rate_hz=20.0, labels=labels
    )
    more = {
        "pairs": "behavior", "labels": ["angle"], "temperature": [1.0], "decay_s": 0.0,
        "steps": 60, "nulls": 39, "folds": 4,
    }  # fmt: skip
    untested = tmp_path / "untested"
    config = read_config({"file": "x", **QUICK, **more})
    pipeline.run_recording(recording, config, untested, quiet=True)
    results, _ = saved.load_results(untested)
    (claim,) = results.claims
    assert claim.claim == "label"
    assert "--refit-nulls" in claim.refused
    assert any("cannot be tested" in line for line in results.headline)
    tested = tmp_path / "tested"
    pipeline.run_recording(recording, replace(config, refit_nulls=19), tested, quiet=True)
    results, _ = saved.load_results(tested)
    (claim,) = results.claims
    assert (claim.refused, claim.refit, claim.n_nulls, claim.p) == ("", True, 19, 0.05)
    assert claim.observed < claim.null_low
    assert "trained anew" in " ".join(results.methods)
    assert "encoders are trained anew" in page._page(results, None, [])
    # Time pairs never see the label: decoders alone are fitted anew.
    plain = replace(config, pairs="time", labels=("angle", "coin"))
    pipeline.run_recording(recording, plain, tmp_path / "plain", quiet=True)
    results, _ = saved.load_results(tmp_path / "plain")
    by = {c.stimulus: c for c in results.claims}
    assert by["angle"].p == 1 / 40
    assert by["coin"].p > 0.05
    assert not by["angle"].refit
