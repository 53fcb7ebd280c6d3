"""The CEBRA library beside grevy: its files are read, and where it errs, the error is shown.

Every test of the second half has two parts: what CEBRA does, and what grevy does instead. If CEBRA
mends something, its part fails, and docs/differences.md has a row too many.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from grevy.drawing import centres_of, draw
from grevy.errors import FormatError, GrevyError
from grevy.estimator import CEBRA
from grevy.metrics import goodness_of_fit_history, goodness_of_fit_score
from grevy.pairs import ClassPairs, DeltaPairs, MixedPairs, NearPairs, Pairs, TimePairs, prepare
from grevy.recording import Label, make_recording
from grevy.windows import ReceptiveField

RNG = np.random.default_rng()
T, C = 300, 6
POINT = ReceptiveField(0, 1)


@pytest.fixture
def cebra() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("cebra")

        yield module


def settings(**parameters: Any) -> dict[str, Any]:
    return {
        "max_iterations": 4,
        "batch_size": 32,
        "output_dimension": 3,
        "num_hidden_units": 8,
        "device": "cpu",
        **parameters,
    }


def data(n: int = T, channels: int = C) -> np.ndarray:
    return RNG.normal(size=(n, channels)).astype("float32")


def numbers(n: int = T) -> np.ndarray:
    return RNG.normal(size=(n, 2)).cumsum(axis=0).astype("float32")


def drawn(
    pairs: Pairs,
    n: int,
    batch: int | None,
    *,
    field: ReceptiveField = POINT,
    epochs: Any = None,
    block: int = 1,
    **labels: Label,
) -> tuple[np.ndarray, np.ndarray]:
    """References and positives, as samples, that grevy draws in one step."""
    recording = make_recording(np.zeros((n, 1)), rate_hz=1.0, labels=labels, epochs=epochs)
    table = prepare(recording, pairs, field, recording.epochs)
    triplets = draw(table, int(RNG.integers(2**31)), torch.tensor([0]), batch=batch, block=block)
    reference = centres_of(triplets.groups, triplets.reference)[0]
    positive = centres_of(triplets.groups, triplets.positives[0])[0]
    return reference.numpy(), positive.numpy()


# --- files of CEBRA -----------------------------------------------------------------------------

FILES: dict[str, dict[str, Any]] = {
    "time": {"labels": ""},
    "full batch": {"labels": "", "batch_size": None},
    "behavior": {"labels": "c", "model_architecture": "offset10-model"},
    "delta": {"labels": "c", "conditional": "delta_normal", "delta": 0.3},
    "discrete": {"labels": "d", "model_architecture": "offset5-model"},
    "mixed": {"labels": "cd", "temperature_mode": "auto"},
    "hybrid": {"labels": "c", "hybrid": True, "model_architecture": "offset10-model"},
    "hybrid, learned": {"labels": "c", "hybrid": True, "temperature_mode": "auto"},
    "euclidean": {
        "labels": "c",
        "distance": "euclidean",
        "model_architecture": "offset1-model-mse",
    },
    "bare": {"labels": "c", "pad_before_transform": False, "model_architecture": "offset36-model"},
    "subsampled": {"labels": "", "model_architecture": "offset40-model-4x-subsample"},
    "several": {"labels": "c", "sessions": 2, "model_architecture": "offset10-model"},
    "several, discrete": {"labels": "d", "sessions": 3},
}


@pytest.mark.parametrize("name", FILES)
def test_its_files_give_its_embeddings(cebra: Any, tmp_path: Path, name: str) -> None:
    told = dict(FILES[name])
    kinds, n = told.pop("labels"), told.pop("sessions", None)
    xs = [data(T, C + s) for s in range(n or 1)]
    make = {"c": lambda: numbers(), "d": lambda: RNG.permutation(np.arange(T) % 3)}
    ys = [[make[k]() for _ in xs] for k in kinds]
    args = (xs, *ys) if n else (xs[0], *(y[0] for y in ys))
    theirs = cebra.CEBRA(**settings(**told)).fit(*args)
    theirs.save(tmp_path / "theirs.pt")
    ours = CEBRA.load(tmp_path / "theirs.pt")
    for s, x in enumerate(xs):
        which = s if n else None
        np.testing.assert_allclose(
            ours.transform(x, session_id=which), theirs.transform(x, session_id=which), atol=1e-5
        )
    for attribute in ("n_features_", "num_sessions_", "label_types_", "solver_name_", "device_"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert (ours.offset_.left, ours.offset_.right) == (theirs.offset_.left, theirs.offset_.right)
    np.testing.assert_allclose(ours.state_dict_["loss"], theirs.state_dict_["loss"], rtol=1e-5)
    if not told.get("hybrid"):  # of which CEBRA keeps no log
        for part in ("pos", "neg", "total", "temperature"):
            np.testing.assert_allclose(
                ours.state_dict_["log"][part], theirs.state_dict_["log"][part], rtol=1e-4, atol=1e-6
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of parameters without effect
        assert np.isfinite(ours.score(*args))
        ours.save(tmp_path / "ours.pt")
        again = CEBRA.load(tmp_path / "ours.pt")
        assert len(again.partial_fit(*args).state_dict_["loss"]) == 8
    moved = [
        float((a - b).abs().max())
        for s, t in zip(ours.run_.sessions, again.run_.sessions, strict=True)
        for a, b in zip(s.weights, t.weights, strict=True)
    ]
    assert 0 < max(moved) < 10 * 3e-4  # it goes on from there, by steps of the usual size


def test_a_learned_temperature_comes_with_the_file(cebra: Any, tmp_path: Path) -> None:
    kw = settings(temperature_mode="auto", learning_rate=0.02, max_iterations=20, temperature=0.8)
    theirs = cebra.CEBRA(**kw).fit(data(), numbers())
    theirs.save(tmp_path / "theirs.pt")
    ours = CEBRA.load(tmp_path / "theirs.pt")
    assert ours.run_.temperature == pytest.approx(theirs.state_dict_["log"]["temperature"][-1])
    assert abs(ours.run_.temperature - 0.8) > 1e-6  # it moved; how far is up to unseeded draws


# --- where CEBRA is wrong -----------------------------------------------------------------------


def test_tied_labels_keep_all_their_samples(cebra: Any) -> None:
    """Of samples with one label CEBRA's positives are always the first."""
    y = np.repeat(np.arange(5.0), 100)[RNG.permutation(500)]
    rule = cebra.distributions.TimedeltaDistribution(torch.from_numpy(y[:, None]).float())
    positives = rule.sample_conditional(torch.from_numpy(RNG.integers(0, 500, 4000)))
    assert len(np.unique(positives)) <= 5
    _, ours = drawn(DeltaPairs(("y",)), 500, 4000, y=Label(y, "continuous"))
    assert len(np.unique(ours)) > 450


@pytest.mark.parametrize("shift", [1e5, 1e7])
def test_labels_far_from_zero_keep_their_digits(cebra: Any, shift: float) -> None:
    """Timestamps, frame numbers, absolute coordinates."""
    y = RNG.uniform(0, 100, 1000) + shift
    reference = RNG.integers(0, 1000, 2000)
    rule = cebra.distributions.DeltaNormalDistribution(
        torch.from_numpy(y[:, None]).float(), delta=0.01
    )
    positive = rule.sample_conditional(torch.from_numpy(reference)).numpy()
    assert np.median(np.abs(y[positive] - y[reference])) > 1
    reference, positive = drawn(NearPairs(("y",), sd=0.01), 1000, 2000, y=Label(y, "continuous"))
    assert np.median(np.abs(y[positive] - y[reference])) < 0.05


def test_classes_that_do_not_exist_draw_nothing(cebra: Any) -> None:
    """Labels 3 and 7: CEBRA gives the mass of 4, 5 and 6 to single samples."""
    k = RNG.permutation(np.repeat([3, 7], 250))
    y = RNG.normal(size=500)
    uniform = cebra.distributions.DiscreteUniform(torch.from_numpy(k))
    mixed = cebra.distributions.MixedTimeDeltaDistribution(
        torch.from_numpy(k), torch.from_numpy(y[:, None]).float()
    )
    for prior in (uniform, mixed):
        counts = np.bincount(np.asarray(prior.sample_prior(4000)), minlength=500)
        assert np.sort(counts)[-2:].sum() > 0.6 * 4000
    labels = {"k": Label(k, "discrete"), "y": Label(y, "continuous")}
    for pairs in (ClassPairs("k", balanced=True), MixedPairs(DeltaPairs(("y",)), "k")):
        reference, positive = drawn(pairs, 500, 4000, **labels)
        assert np.bincount(reference, minlength=500).max() < 40
        assert abs((k[reference] == 3).mean() - 0.5) < 0.05
        np.testing.assert_array_equal(k[reference], k[positive])


def test_no_pair_crosses_a_border(cebra: Any) -> None:
    trial = np.arange(500) // 50
    rule = cebra.distributions.TimeContrastive(time_offset=10, num_samples=500)
    reference = rule.sample_prior(2000)
    positive = rule.sample_conditional(reference)
    assert (trial[reference] != trial[positive]).mean() > 0.1
    epochs = np.stack([np.arange(0, 500, 50), np.arange(50, 501, 50)], axis=1)
    reference, positive = drawn(TimePairs((10,)), 500, 2000, epochs=epochs, block=32)
    np.testing.assert_array_equal(positive, reference + 10)
    np.testing.assert_array_equal(trial[reference], trial[positive])


def test_positives_of_the_full_batch_do_not_wrap(cebra: Any) -> None:
    """CEBRA takes a positive before the first whole window from the end of the recording."""
    from cebra.data import Batch, Offset
    from cebra.solver.single_session import BatchSingleSessionSolver

    n, field = 60, ReceptiveField(5, 5)
    solver = BatchSingleSessionSolver.__new__(BatchSingleSessionSolver)
    solver.offset, solver.neural = Offset(5, 5), None
    solver.get_embedding = lambda _: torch.arange(5, n - 4).float()  # the centre of each window
    one = torch.tensor([20])
    assert solver._inference(Batch(one, torch.tensor([30]), one)).positive.item() == 30
    assert solver._inference(Batch(one, torch.tensor([2]), one)).positive.item() > 50

    y = RNG.normal(size=n)
    reference, positive = drawn(
        DeltaPairs(("y",)), n, None, field=field, block=32, y=Label(y, "continuous")
    )
    np.testing.assert_array_equal(np.sort(reference), np.arange(5, n - 4))  # all whole windows
    assert 5 <= positive.min() <= positive.max() < n - 4


def test_boolean_labels_are_not_dropped(cebra: Any) -> None:
    x, y = data(), np.arange(T) % 2 == 0
    loaders = [
        type(cebra.CEBRA(**settings()).partial_fit(x, label).state_[2]).__name__
        for label in (y, y.astype(int))
    ]
    assert loaders == ["ContinuousDataLoader", "DiscreteDataLoader"]
    assert isinstance(CEBRA(**settings()).fit(x, y).run_.config.pairs, ClassPairs)


def test_a_pipeline_works(cebra: Any) -> None:
    with pytest.raises(TypeError, match="NoneType"):
        make_pipeline(StandardScaler(), cebra.CEBRA(**settings())).fit(data())
    assert make_pipeline(StandardScaler(), CEBRA(**settings())).fit_transform(data()).shape == (
        T,
        3,
    )


def test_partial_fit_uses_its_data(cebra: Any) -> None:
    x, new = data(), data()
    theirs = cebra.CEBRA(**settings()).partial_fit(x).partial_fit(new)
    np.testing.assert_array_equal(theirs.state_[2].dataset.neural, x)
    a, b = (CEBRA(**settings(random_state=0)).partial_fit(x) for _ in range(2))
    assert a.partial_fit(x).run_.digest != b.partial_fit(new).run_.digest


def test_seeds_repeat(cebra: Any) -> None:
    x, y = data(), numbers()

    def twice(make: Any) -> list[np.ndarray]:
        found = []
        for _ in range(2):
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)
            found.append(make().fit(x, y).transform(x))
        return found

    first, second = twice(lambda: cebra.CEBRA(**settings(max_iterations=30, learning_rate=1e-2)))
    assert np.abs(first - second).max() > 1e-3
    first, second = twice(lambda: CEBRA(**settings(max_iterations=30, random_state=0)))
    np.testing.assert_array_equal(first, second)


def test_a_vector_of_zeros_is_not_a_number_only_there(cebra: Any) -> None:
    x = data()
    theirs, ours = cebra.CEBRA(**settings()).fit(x), CEBRA(**settings()).fit(x)
    with torch.no_grad():
        for parameter in theirs.model_.parameters():
            parameter.zero_()
    assert np.isnan(theirs.transform(x)).all()
    nothing = [
        dataclasses.replace(s, weights=tuple(torch.zeros_like(w) for w in s.weights))
        for s in ours.run_.sessions
    ]
    ours.run_ = dataclasses.replace(ours.run_, sessions=tuple(nothing))
    assert np.isfinite(ours.transform(x)).all()


def test_noise_in_several_sessions_has_no_goodness_of_fit(cebra: Any) -> None:
    """A loss at chance: CEBRA credits it with log2 of the number of sessions."""
    xs, ys = [data(), data()], [numbers(), numbers()]
    kw = settings(temperature=1e6)  # nothing differs from anything
    one = {"session_id": 0, "num_batches": 5}
    theirs = cebra.CEBRA(**kw).fit(xs, ys)
    score = cebra.integrations.sklearn.metrics.goodness_of_fit_score
    assert score(theirs, xs[0], ys[0], **one) == pytest.approx(1.0, abs=1e-3)
    ours = CEBRA(**kw).fit(xs, ys)
    assert goodness_of_fit_score(ours, xs[0], ys[0], **one) == pytest.approx(0.0, abs=1e-3)
    assert goodness_of_fit_score(ours, xs, ys, num_batches=5) == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(goodness_of_fit_history(ours), 0.0, atol=1e-3)


def test_integer_labels_train_by_default(cebra: Any) -> None:
    x, k = data(60), np.arange(60) % 3
    with pytest.raises(NotImplementedError):
        cebra.CEBRA(max_iterations=2).fit(x, k)
    assert CEBRA(max_iterations=2).fit(x, k).transform(x).shape == (60, 8)


def test_a_file_with_code_runs_there_and_not_here(cebra: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"args": _Touch(mark)}, tmp_path / "bad.pt")
    with pytest.raises(GrevyError):
        CEBRA.load(tmp_path / "bad.pt")
    assert not mark.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - after the code has run, anything
        cebra.CEBRA.load(tmp_path / "bad.pt", weights_only=True)
    assert mark.exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f["state"].update(n_features_=9), "9 channels.*found 6"),
        (lambda f: f["args"].update(batch_size=-1), "batch_size.*-1"),
        (lambda f: f["args"].update(distance="far"), "distance.*far"),
        (lambda f: f["args"].update(min_temperature="low", temperature_mode="auto"), "low"),
        (lambda f: f["args"].update(time_offsets="soon"), "soon"),
        (lambda f: f["args"].update(more=1), "parameters of CEBRA alone.*more"),
        (lambda f: f["state_dict"]["model"].pop("net.3.bias"), "net.3.bias"),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused(
    cebra: Any, tmp_path: Path, change: Any, says: str
) -> None:
    cebra.CEBRA(**settings()).fit(data()).save(tmp_path / "m.pt")
    whole = torch.load(tmp_path / "m.pt", weights_only=False)
    change(whole)
    torch.save(whole, tmp_path / "m.pt")
    with pytest.raises(FormatError, match=says):
        CEBRA.load(tmp_path / "m.pt")
