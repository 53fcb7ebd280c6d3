"""class CEBRA as scikit-learn and notebooks meet it: every mode, every call, every refusal."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import grevy.stack as stack
from grevy.errors import ConfigError, DataError, DivergedError, FormatError
from grevy.estimator import CEBRA
from grevy.masks import Mask
from grevy.windows import ReceptiveField

RNG = np.random.default_rng()
T, C = 200, 6


def tiny(**parameters: Any) -> CEBRA:
    return CEBRA(
        **{
            "max_iterations": 3,
            "max_adapt_iterations": 3,
            "batch_size": 24,
            "output_dimension": 3,
            "num_hidden_units": 8,
            "device": "cpu",
            "random_state": 0,
            **parameters,
        }
    )


def data(n: int = T, channels: int = C) -> np.ndarray:
    return RNG.normal(size=(n, channels))


def numbers(n: int = T, width: int = 2) -> np.ndarray:
    return RNG.normal(size=(n, width)).cumsum(axis=0)


def classes(n: int = T) -> np.ndarray:
    return RNG.permutation(np.arange(n) % 3)


LABELS: dict[str, tuple[Callable[[], np.ndarray], ...]] = {
    "none": (),
    "continuous": (numbers,),
    "discrete": (classes,),
    "mixed": (numbers, classes),
}


def weights(model: CEBRA) -> list[torch.Tensor]:
    return [w for session in model.run_.sessions for w in session.weights]


def same(a: CEBRA, b: CEBRA) -> bool:
    return all(torch.equal(u, v) for u, v in zip(weights(a), weights(b), strict=True))


def state(model: CEBRA) -> dict[str, Any]:
    return dict(vars(model))


# --- scikit-learn -------------------------------------------------------------------------------


def test_sklearn_checks_find_no_failure() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            CEBRA(max_iterations=3, batch_size=8, output_dimension=2, device="cpu"), on_fail=None
        )
    failed = {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"}
    assert failed == {}
    assert sum(r["status"] == "passed" for r in results) > 30


def test_a_pipeline_scales_embeds_and_decodes() -> None:
    x, y = data(), numbers()[:, 0]
    decoder = make_pipeline(StandardScaler(), tiny(), LinearRegression())
    assert decoder.fit(x, y).predict(x).shape == (T,)
    assert make_pipeline(StandardScaler(), tiny()).fit_transform(x, y=None).shape == (T, 3)


def test_a_clone_is_unfitted_and_trains_to_the_same_weights() -> None:
    x, y = data(), numbers()
    model = tiny(conditional="delta_normal", delta=0.5).fit(x, y)
    other = clone(model)
    assert not hasattr(other, "run_")
    assert same(other.fit(x, y), model)
    assert same(pickle.loads(pickle.dumps(model)), model)
    np.testing.assert_array_equal(copy.deepcopy(model).transform(x), model.transform(x))


def test_sklearns_grid_search_judges_by_the_score_of_the_estimator() -> None:
    x, y = data(), numbers()
    grid = GridSearchCV(tiny(), {"output_dimension": [2, 4]}, cv=KFold(2))
    grid.fit(x, y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert grid.best_estimator_.transform(x).shape[1] == grid.best_params_["output_dimension"]


def test_output_can_be_a_data_frame_with_names() -> None:
    frame = pd.DataFrame(data(), columns=[f"cell {i}" for i in range(C)])
    model = tiny().set_output(transform="pandas").fit(frame)
    assert list(model.get_feature_names_out()) == ["cebra0", "cebra1", "cebra2"]
    assert list(model.feature_names_in_) == list(frame.columns)
    out = model.transform(frame)
    assert list(out.columns) == ["cebra0", "cebra1", "cebra2"]
    assert list(out.index) == list(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[frame.columns[::-1]])


# --- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [24, None])
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("n_sessions", [1, 2])
def test_every_mode_trains_or_says_why_not(
    n_sessions: int, kind: str, hybrid: bool, batch: int | None
) -> None:
    model = tiny(hybrid=hybrid, batch_size=batch, model_architecture="offset5-model")
    lengths = [150, 170][:n_sessions]
    xs = [data(n, C + s) for s, n in enumerate(lengths)]
    ys = [[make(n) for n in lengths] for make in LABELS[kind]]
    several = n_sessions > 1
    args = (xs, *ys) if several else (xs[0], *(y[0] for y in ys))
    if kind == "none" and (hybrid or several):
        with pytest.raises(ConfigError, match=r"needs? .*label"):
            model.fit(*args)
        assert not hasattr(model, "run_")
        return
    if kind == "mixed" and batch is None:  # its classes are drawn evenly, so never all at once
        with pytest.raises(ConfigError, match=r"all samples at once.*give a batch_size"):
            model.fit(*args)
        return
    model.fit(*args)
    shape = "multi" if several else "single"
    assert model.solver_name_ == (
        f"{shape}-session{'-hybrid' if hybrid else ''}{'-full' if batch is None else ''}"
    )
    assert model.num_sessions_ == model.num_sessions == (2 if several else None)
    assert model.n_features_ == ([C, C + 1] if several else C) == model.n_features_in_
    for s, x in enumerate(xs):
        z = model.transform(x, session_id=s if several else None)
        assert z.shape == (len(x), 3)
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.isfinite(model.score(*args))
    logged = model.state_dict_
    assert set(logged) == {
        *("model", "optimizer", "loss", "decode", "criterion", "version", "log", "n_features"),
        *(["num_sessions"] if several else []),
    }
    assert len(logged["loss"]) == 3
    assert all(len(values) == 3 for values in logged["log"].values())
    total = np.asarray(logged["log"]["total"])
    np.testing.assert_allclose(total, logged["loss"], rtol=1e-5)
    parts = np.asarray(logged["log"]["pos"]) + np.asarray(logged["log"]["neg"])
    np.testing.assert_allclose(parts, total, rtol=1e-5)
    assert ("behavior_total" in logged["log"]) == hybrid


def test_defaults_take_integer_labels() -> None:
    x, y = data(40), classes(40)
    model = CEBRA(max_iterations=2).fit(x, y)
    assert model.transform(x).shape == (40, 8)
    assert CEBRA().batch_size == 512


def test_booleans_are_discrete_labels() -> None:
    x, y = data(), RNG.random(T) < 0.5
    assert same(tiny().fit(x, y), tiny().fit(x, y.astype(int)))
    assert not same(tiny().fit(x, y), tiny().fit(x))


def test_several_continuous_labels_are_one_label_of_more_columns() -> None:
    x, y = data(), numbers(width=3)
    assert same(tiny().fit(x, y[:, :1], y[:, 1:]), tiny().fit(x, y))


def test_fitted_attributes() -> None:
    x, y, k = data(), numbers().astype("float32"), classes()
    model = tiny(model_architecture="offset10-model").fit(x, y, k)
    assert (model.offset_.left, model.offset_.right) == (5, 5)
    assert model.label_types_ == [(np.dtype("float32"), (T, 2)), (k.dtype, (T,))]
    assert model.device_ == "cpu"
    assert isinstance(model.model_, nn.Module)
    assert model.random_state_ == 0
    several = tiny().fit([x, x], [y, y])
    assert several.label_types_ == [[(np.dtype("float32"), (T, 2))] * 2]
    assert isinstance(several.model_, nn.ModuleList)
    with torch.no_grad():
        model.model_.get_parameter("net.0.weight").zero_()
    assert weights(model)[0].abs().max() > 0


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.transform(data()),
        lambda m: m.score(data()),
        lambda m: m.save("never"),
        lambda m: m.to("cpu"),
        lambda m: m.fit(data(), adapt=True),
        lambda m: m.state_dict_,
    ],
)
def test_an_unfitted_model_says_so(use: Callable[[CEBRA], Any]) -> None:
    with pytest.raises(NotFittedError, match="fit"):
        use(tiny())


# --- parameters ---------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"model_architecture": "offset10-modle"}, "offset10-model"),
    ({"model_architecture": 10}, "10"),
    ({"device": "gpu"}, "gpu"),
    ({"criterion": "infonse"}, "infonse"),
    ({"distance": "cosin"}, "cosin"),
    ({"conditional": "time-delta"}, "time-delta"),
    ({"conditional": "delta_normal"}, "delta.*None"),
    ({"conditional": "delta"}, "delta.*None"),
    ({"conditional": "delta_normal", "delta": -1.0}, "-1.0"),
    ({"temperature": 0.0}, "temperature.*0.0"),
    ({"temperature": "1"}, "temperature.*'1'"),
    ({"temperature_mode": "learned"}, "learned"),
    ({"min_temperature": -0.1}, "-0.1"),
    ({"time_offsets": 2.5}, "2.5"),
    ({"time_offsets": 0}, "found 0"),
    ({"time_offsets": ()}, r"found \(\)"),
    ({"time_offsets": (1, 2)}, r"\(1, 2\)"),
    ({"max_iterations": 0}, "max_iterations.*0"),
    ({"max_iterations": 2.5}, "max_iterations.*2.5"),
    ({"max_adapt_iterations": -3}, "max_adapt_iterations.*-3"),
    ({"batch_size": 0}, "batch_size.*0"),
    ({"batch_size": 3.5}, "batch_size.*3.5"),
    ({"learning_rate": -1e-3}, "learning_rate.*-0.001"),
    ({"learning_rate": float("nan")}, "learning_rate.*nan"),
    ({"optimizer": "sgd"}, "sgd"),
    ({"output_dimension": 0}, "output_dimension.*0"),
    ({"num_hidden_units": -8}, "num_hidden_units.*-8"),
    ({"hybrid": True, "conditional": "time"}, "time"),
    ({"optimizer_kwargs": (("momentum", 0.9),)}, "momentum"),
    ({"optimizer_kwargs": (("betas", 0.9),)}, "betas.*0.9"),
    ({"optimizer_kwargs": (("eps", "small"),)}, "eps.*small"),
    ({"optimizer_kwargs": 3}, "optimizer_kwargs.*3"),
    ({"hybrid": "yes"}, "hybrid.*yes"),
    ({"pad_before_transform": "no"}, "pad_before_transform.*no"),
    ({"masking_kwargs": 3}, "masking_kwargs.*3"),
    ({"masking_kwargs": ("RandomNeuronMask", 0.5)}, "masking_kwargs.*RandomNeuronMask"),
    ({"masking_kwargs": (("RandomNeuronMask", ["few"]),)}, "RandomNeuronMask.*few"),
    ({"masking_kwargs": (("NeuronBlockMask", (0.1, 0.5, 0)),)}, "NeuronBlockMask.*0.5, 0"),
    ({"masking_kwargs": (("TimeBlockMask", (0.2, "x")),)}, "TimeBlockMask.*x"),
    ({"masking_kwargs": (("RandomNeuronMask", 0.5),), "batch_size": None}, "masks"),
    ({"masking_kwargs": (("RandomNeuroneMask", 0.2),)}, "RandomNeuroneMask"),
    ({"masking_kwargs": (("RandomNeuronMask", 1.5),)}, "1.5"),
    ({"masking_kwargs": (("TimeBlockMask", 0.2),)}, "TimeBlockMask.*0.2"),
    ({"random_state": "seed"}, "seed"),
    ({"precision": "float16"}, "float16"),
    ({"sampling": "random"}, "random"),
    ({"sampling": 0}, "found 0"),
    ({"num_negatives": 0}, "num_negatives.*0"),
    ({"preset": "sturdy"}, "preset.*robust.*sturdy"),
    ({"label_periods": {5: 360.0}}, "5"),
    ({"label_periods": {0: -1.0}}, "-1"),
]


@pytest.mark.parametrize(("parameters", "says"), BAD, ids=lambda v: str(v)[:40])
def test_a_wrong_value_is_refused_by_name(parameters: dict[str, Any], says: str) -> None:
    model = tiny(**parameters)  # never in the constructor
    before = state(model)
    with pytest.raises((ConfigError, DataError), match=says):
        model.fit(data(), numbers())
    assert state(model) == before


OTHER: list[dict[str, Any]] = [
    {"model_architecture": "offset10-model"},
    {"distance": "euclidean"},
    {"conditional": "time"},
    {"conditional": "delta_normal", "delta": 0.3},
    {"temperature": 0.5},
    {"temperature_mode": "auto", "temperature": 1.5},
    {"temperature_mode": "auto", "min_temperature": 1.2},
    {"time_offsets": 9},
    {"max_iterations": 4},
    {"batch_size": 25},
    {"batch_size": None},
    {"learning_rate": 1e-2},
    {"output_dimension": 4},
    {"num_hidden_units": 10},
    {"hybrid": True},
    {"optimizer_kwargs": (("betas", (0.5, 0.9)),)},
    {"optimizer_kwargs": (("eps", 1e-2),)},
    {"optimizer_kwargs": (("weight_decay", 0.5),)},
    {"masking_kwargs": (("RandomNeuronMask", 0.5),)},
    {"masking_kwargs": (("RandomTimestepMask", [0.4, 0.6]),)},
    {"masking_kwargs": (("NeuronBlockMask", (0.3, 0.6, 0.1)),)},
    {"masking_kwargs": {"RandomNeuronMask": 0.5}},
    {"random_state": 1},
    {"sampling": "blocks"},
    {"sampling": 5},
    {"num_negatives": 7},
    {"label_periods": {0: 1.0}},
]


@pytest.mark.parametrize("parameters", OTHER, ids=lambda v: str(v)[:40])
def test_a_parameter_has_an_effect(parameters: dict[str, Any]) -> None:
    x, y = data(), numbers()
    plain, other = tiny().fit(x, y), tiny(**parameters).fit(x, y)
    shapes = [w.shape for w in weights(plain)], [w.shape for w in weights(other)]
    assert shapes[0] != shapes[1] or not same(plain, other)


def test_a_preset_leaves_what_is_given_and_says_what_it_cannot_do() -> None:
    x = data()
    config = tiny(preset="robust", temperature=0.3).fit(x).run_.config
    assert (config.temperature, config.smoothing) == (0.3, 4.0)
    assert config.masks == (Mask("neurons", (0.1,)),)
    mine = (("RandomTimestepMask", 0.2),)
    config = tiny(preset="robust", masking_kwargs=mine).fit(x).run_.config
    assert config.masks == (Mask("timesteps", (0.2,)),)
    assert config.temperature == 0.5
    with pytest.raises(ConfigError, match=r"preset 'robust' drops channels.*batch_size"):
        tiny(preset="robust", batch_size=None).fit(x)


def test_the_robust_preset_smooths_what_is_embedded_and_is_kept(tmp_path: Path) -> None:
    x, y = data(), numbers()
    plain, robust = tiny(preset="plain").fit(x, y), tiny(preset="robust").fit(x, y)
    written_out = tiny(temperature=0.5, masking_kwargs=(("RandomNeuronMask", 0.1),)).fit(x, y)
    assert same(written_out, robust)  # in their weights
    assert not same(plain, robust)
    rough, soft = written_out.transform(x), robust.transform(x)
    roughness = [np.abs(np.diff(z, axis=0)).mean() for z in (rough, soft)]
    assert roughness[1] < roughness[0] / 2
    np.testing.assert_allclose(np.linalg.norm(soft, axis=1), 1, atol=1e-5)
    robust.save(tmp_path / "model")
    loaded = CEBRA.load(tmp_path / "model")
    assert loaded.preset == "robust"
    np.testing.assert_array_equal(loaded.transform(x), soft)


def test_amsgrad_and_time_blocks_have_an_effect() -> None:
    x, y = data(), numbers()
    kw: dict[str, Any] = {"max_iterations": 60, "learning_rate": 0.05}
    amsgrad = tiny(optimizer_kwargs=(("amsgrad", True),), **kw).fit(x, y)
    assert not same(tiny(**kw).fit(x, y), amsgrad)
    kw = {"model_architecture": "offset10-model"}
    blocks = tiny(masking_kwargs=(("TimeBlockMask", (0.3, 3)),), **kw).fit(x, y)
    assert not same(tiny(**kw).fit(x, y), blocks)


def test_several_time_offsets_are_drawn_from() -> None:
    x = data()
    models = [tiny(time_offsets=o).fit(x) for o in (1, 4, (1, 4), [1, 4], np.array([1, 4]))]
    assert same(models[2], models[3])
    assert same(models[2], models[4])
    assert not same(models[0], models[2])
    assert not same(models[1], models[2])


def test_the_first_latents_of_a_hybrid_are_all_where_there_are_fewer_than_three() -> None:
    model = tiny(hybrid=True, output_dimension=2).fit(data(), numbers())
    assert model.transform(data()).shape == (T, 2)


def test_learned_temperature_moves_and_keeps_above_its_floor() -> None:
    kw: dict[str, Any] = {"temperature_mode": "auto", "learning_rate": 0.1, "max_iterations": 30}
    free = tiny(min_temperature=None, **kw).fit(data(), numbers())
    log = free.state_dict_["log"]["temperature"]
    assert len(set(log)) > 10
    low = tiny(temperature=0.2, min_temperature=0.7, **kw).fit(data(), numbers())
    assert min(low.state_dict_["log"]["temperature"]) >= 0.7 - 1e-6
    assert low.run_.temperature >= 0.7 - 1e-6


@pytest.mark.parametrize(
    ("parameters", "kind", "says"),
    [
        ({"delta": 0.1}, "continuous", "delta"),
        ({"delta": 0.1}, "none", "delta"),
        ({"conditional": "delta_normal", "delta": 0.1, "time_offsets": 3}, "continuous", "offsets"),
        ({"conditional": "time_delta"}, "discrete", "conditional"),
        ({"time_offsets": 5}, "discrete", "time_offsets"),
        ({"min_temperature": 0.5}, "continuous", "min_temperature"),
    ],
)
def test_a_parameter_without_effect_is_said_aloud(
    parameters: dict[str, Any], kind: str, says: str
) -> None:
    with pytest.warns(UserWarning, match=rf"{says}.*no effect"):
        tiny(**parameters).fit(data(), *(make() for make in LABELS[kind]))


def test_padding_and_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    x = data()
    model = tiny(model_architecture="offset10-model", verbose=True).fit(x)
    bar = capsys.readouterr().err
    assert "pos:" in bar
    assert "temperature:" in bar
    tiny().fit(x)
    assert capsys.readouterr().err == ""
    padded = model.transform(x)
    bare = model.set_params(pad_before_transform=False).transform(x)
    assert bare.shape == (T - 9, 3)
    np.testing.assert_array_equal(bare, padded[5:-4])


def test_min_samples_and_learning_time_are_those_of_adaptation() -> None:
    x = data()
    model = tiny(max_adapt_iterations=5).fit(x)
    assert len(model.fit(x, adapt=True).run_.losses) == 5


# --- reproducing --------------------------------------------------------------------------------


def test_equal_seeds_give_equal_models_and_none_keeps_the_one_it_drew() -> None:
    x, y = data(), numbers()
    assert same(tiny(random_state=5).fit(x, y), tiny(random_state=5).fit(x, y))
    first, second = (tiny(random_state=None).fit(x, y) for _ in range(2))
    assert first.random_state_ != second.random_state_
    assert not same(first, second)
    assert same(tiny(random_state=first.random_state_).fit(x, y), first)
    state_a, state_b = (tiny(random_state=np.random.RandomState(3)).fit(x, y) for _ in range(2))
    assert same(state_a, state_b)


def test_fitting_again_starts_anew() -> None:
    x, y = data(), numbers()
    model = tiny().fit(data(90, 4))
    model.partial_fit(data(90, 4))
    assert same(model.fit(x, y), tiny().fit(x, y))
    assert model.n_features_ == C
    assert len(model.run_.losses) == 3


def test_global_random_numbers_are_neither_used_nor_moved() -> None:
    x = data()
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    tiny().fit(x)
    drawn = np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    assert drawn == (np.random.rand(), float(torch.rand(())))  # noqa: NPY002


# --- going on -----------------------------------------------------------------------------------


def test_partial_fit_twice_is_one_fit_of_twice_the_steps() -> None:
    x, y = data(), numbers()
    model = tiny().partial_fit(x, y).partial_fit(x, y)
    assert same(model, tiny(max_iterations=6).fit(x, y))
    assert len(model.state_dict_["loss"]) == 6


def test_partial_fit_learns_from_the_new_data_alone() -> None:
    x, y, new_x, new_y = data(), numbers(), data(150), numbers(150)
    a, b = (tiny().fit(x, y) for _ in range(2))
    parent = a.run_.digest
    a.partial_fit(new_x, new_y)
    b.partial_fit(x, y)
    assert not same(a, b)
    assert a.run_.parent == parent
    first = tiny().fit(data(), y).set_params(max_iterations=1)
    first.run_ = tiny().fit(x, y).run_
    assert same(
        first.partial_fit(new_x, new_y),
        tiny().fit(x, y).set_params(max_iterations=1).partial_fit(new_x, new_y),
    )


def test_a_loaded_model_goes_on_as_the_saved_one_would(tmp_path: Path) -> None:
    x, y = data(), numbers()
    kw: dict[str, Any] = {"temperature_mode": "auto", "hybrid": True}
    model = tiny(**kw).fit(x, y)
    model.save(tmp_path / "m")
    loaded = CEBRA.load(tmp_path / "m")
    assert same(loaded.partial_fit(x, y), model.partial_fit(x, y))
    assert loaded.run_.temperature == model.run_.temperature


def test_partial_fit_refuses_another_task() -> None:
    x, y = data(), numbers()
    model = tiny().fit(x, y)
    before = state(model)
    with pytest.raises(DataError, match=r"continuous.*2.*discrete"):
        model.partial_fit(x, classes())
    with pytest.raises(ValueError, match=r"4 features.*6"):
        model.partial_fit(data(T, 4), y)
    with pytest.raises(ConfigError, match=r"terms of the loss.*hybrid pairs after delta"):
        model.set_params(hybrid=True).partial_fit(x, y)
    model.set_params(hybrid=False)
    assert state(model) == {**before, "hybrid": False}
    several = tiny().fit([x, x], [y, y])
    with pytest.raises(DataError, match=r"\[6, 6\].*\[6, 5\]"):
        several.partial_fit([x, data(T, 5)], [y, y])


@pytest.mark.parametrize("n_before", [1, 2])
@pytest.mark.parametrize("n_after", [1, 2])
def test_adapting_fits_a_first_layer_to_other_neurons(n_before: int, n_after: int) -> None:
    def fit(model: CEBRA, n: int, channels: int, **kw: Any) -> CEBRA:
        xs = [data(T, channels + s) for s in range(n)]
        ys = [numbers() for _ in range(n)]
        return model.fit(xs, ys, **kw) if n > 1 else model.fit(xs[0], ys[0], **kw)

    old = fit(tiny(model_architecture="offset5-model"), n_before, C)
    held, digest = old.run_, old.run_.digest
    new = copy.deepcopy(old)
    fit(new, n_after, 11, adapt=True)
    for s, session in enumerate(new.run_.sessions):
        source = held.sessions[s if n_before == n_after else 0]
        assert session.n_channels == 11 + s
        for kept, was in zip(session.weights[2:], source.weights[2:], strict=True):
            assert torch.equal(kept, was)
    assert new.n_features_ == (11 if n_after == 1 else [11, 12])
    assert old.run_ is held
    assert held.digest == digest
    assert new.run_.parent == digest
    fit(new, n_after, 11)  # a later fit starts anew, on the new data
    assert held.digest == digest


def test_what_was_one_recording_stays_one() -> None:
    frame, y = pd.DataFrame(data(), columns=list("abcdef")), numbers()
    single, several = tiny().fit(frame, y), tiny().fit([data()] * 2, [y, y])
    with pytest.raises(DataError, match=r"one recording; found a list of 1"):
        single.partial_fit([data()], [y])
    with pytest.raises(DataError, match=r"2 sessions; found one recording"):
        several.partial_fit(data(), y)
    single.fit([data()] * 2, [y, y])
    assert not hasattr(single, "feature_names_in_")


def test_adapting_with_a_callback_adapts_no_more_than_without() -> None:
    x, y, z = data(), numbers(), data(T, 9)
    plain = tiny(max_adapt_iterations=7).fit(x, y)
    seen, watched = [], copy.deepcopy(plain)
    plain.fit(z, y, adapt=True)
    watched.fit(z, y, adapt=True, callback=lambda i, _: seen.append(i), callback_frequency=2)
    assert seen == [0, 2, 4, 6]
    assert same(plain, watched)
    assert plain.run_.parent == watched.run_.parent


def test_an_adapted_model_goes_on_with_its_first_layer_alone() -> None:
    x, y, z = data(), numbers(), data(T, 9)
    model = tiny().fit(x, y).fit(z, y, adapt=True)
    twice = tiny(max_adapt_iterations=6).fit(x, y).fit(z, y, adapt=True)
    before = [w.clone() for w in weights(model)]
    model.partial_fit(z, y)
    changed = [not torch.equal(a, b) for a, b in zip(before, weights(model), strict=True)]
    assert changed == [True, True] + [False] * (len(before) - 2)
    assert same(model, twice)


# --- callbacks, and errors half-way -------------------------------------------------------------


@pytest.mark.parametrize("frequency", [1, 2, 3, 10])
def test_callbacks_come_in_order_and_change_nothing(frequency: int) -> None:
    x, y, seen = data(), numbers(), []

    def callback(step: int, solver: Any) -> None:
        assert isinstance(solver.model, nn.Module)
        assert len(solver.history) == len(solver.log["total"]) == step + 1
        seen.append(step)

    model = tiny(max_iterations=7).fit(x, y, callback=callback, callback_frequency=frequency)
    assert seen == [i for i in range(7) if i % frequency == 0]
    plain = tiny(max_iterations=7).fit(x, y)
    assert same(model, plain)
    np.testing.assert_array_equal(model.run_.losses, plain.run_.losses)
    assert model.run_.parent == plain.run_.parent == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"callback": print}, "callback_frequency"),
        ({"callback_frequency": 2}, "callback"),
        ({"callback": print, "callback_frequency": 0}, "callback_frequency.*0"),
        ({"callback": print, "callback_frequency": -1}, "callback_frequency.*-1"),
    ],
)
def test_a_callback_needs_its_frequency(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tiny().fit(data(), **arguments)


def _stop(step: int, solver: Any) -> None:
    if step:
        raise KeyError("mine")


HALF_WAY: list[tuple[type[BaseException], Callable[[CEBRA], Any]]] = [
    (KeyError, lambda m: m.fit(data(90, 4), callback=_stop, callback_frequency=1)),
    (KeyError, lambda m: m.partial_fit(data(), numbers(), callback=_stop, callback_frequency=1)),
    (KeyError, lambda m: m.fit(data(90, 4), adapt=True, callback=_stop, callback_frequency=1)),
    (DataError, lambda m: m.fit(np.full((90, 4), np.nan))),
    (DataError, lambda m: m.fit(pd.DataFrame(data(90, 4), columns=list("abcd")), numbers(80))),
    (DataError, lambda m: m.fit([data(90, 4), data(90, 5)], [numbers(90), numbers(80)])),
    (ConfigError, lambda m: m.fit([data(90, 4), data(90, 5)])),
]


@pytest.mark.parametrize("case", range(len(HALF_WAY)))
@pytest.mark.parametrize("fitted", [False, True])
def test_an_error_leaves_the_estimator_as_it_was(case: int, fitted: bool) -> None:
    kind, act = HALF_WAY[case]
    model = tiny().fit(data(), numbers()) if fitted else tiny()
    if not fitted and case == 2:
        kind = NotFittedError
    before = state(model)
    with pytest.raises(kind):
        act(model)
    assert state(model).keys() == before.keys()
    assert all(state(model)[name] is before[name] for name in before)


def test_divergence_leaves_the_estimator_as_it_was() -> None:
    model = tiny().fit(data())
    before = state(model)
    wild = {"learning_rate": 1e37, "distance": "euclidean", "max_iterations": 50}
    model.set_params(**wild)
    with pytest.raises(DivergedError, match="step"):
        model.fit(data(), numbers())
    assert state(model) == {**before, **wild}


def test_an_interrupt_leaves_the_estimator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny().fit(data())
    before = state(model)

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data(50, 3))
    assert state(model) == before


# --- embedding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["offset1-model", "offset10-model", "offset36-model"])
@pytest.mark.parametrize("pad", [True, False])
def test_transform_gives_one_row_a_sample_or_a_window(architecture: str, pad: bool) -> None:
    x = data(90)
    model = tiny(model_architecture=architecture, pad_before_transform=pad).fit(x)
    whole = model.transform(x)
    window = len(model.offset_)
    assert whole.shape == (90 if pad else 90 - window + 1, 3)
    for size in (1, 7, 90, 1000):
        np.testing.assert_allclose(model.transform(x, batch_size=size), whole, atol=1e-5)
    with torch.no_grad():  # the slow twin: every window by itself through the module
        padded = np.concatenate(
            [
                np.repeat(x[:1], model.offset_.left * pad, axis=0),
                x,
                np.repeat(x[-1:], (model.offset_.right - 1) * pad, axis=0),
            ]
        ).astype("float32")
        for row in RNG.integers(0, len(whole), 5):
            one = torch.from_numpy(padded[row : row + window].T[None].copy())
            np.testing.assert_allclose(model.model_(one).reshape(3), whole[row], atol=1e-5)


def test_resampling_architectures_give_a_row_every_few_samples() -> None:
    names = ["offset4-model-2x-subsample", "offset20-model-4x-subsample"]
    for name, factor in zip(names, (2, 4), strict=True):
        model = tiny(model_architecture=name).fit(data())
        z = model.transform(data())
        assert abs(len(z) - T / factor) <= 2
        assert len(model.transform(data(), batch_size=16)) == len(z)


def test_sessions_are_embedded_by_their_number() -> None:
    xs, ys = [data(T, 4), data(T, 7)], [numbers(), numbers()]
    model = tiny().fit(xs, ys)
    assert model.transform(xs[1], session_id=1).shape == (T, 3)
    for wrong, says in (
        ({}, "session_id, 0 to 1"),
        ({"session_id": 2}, "0 to 1; found 2"),
        ({"session_id": -1}, "found -1"),
    ):
        with pytest.raises(ConfigError, match=says):
            model.transform(xs[0], **wrong)
    with pytest.raises(DataError, match=r"session 1 has 7 channels.*found 4"):
        model.transform(xs[0], session_id=1)
    with pytest.raises(ConfigError, match=r"list of 2 sessions.*session_id"):
        tiny().fit_transform(xs, ys)
    single = tiny().fit(xs[0])
    np.testing.assert_array_equal(single.transform(xs[0], session_id=0), single.transform(xs[0]))
    with pytest.raises(ConfigError, match="found 1"):
        single.transform(xs[0], session_id=1)
    assert model.score(xs[0], ys[0], session_id=0) != model.score(xs[0] * 2, ys[0], session_id=0)


@pytest.mark.parametrize("size", [0, -4, 2.5])
def test_transform_refuses_no_samples_at_once(size: Any) -> None:
    with pytest.raises(ConfigError, match=rf"batch_size.*{size}"):
        tiny().fit(data()).transform(data(), batch_size=size)


def test_the_score_tells_structure_from_noise() -> None:
    turns = np.linspace(0, 30, 600)
    y = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    x = y @ RNG.normal(size=(2, C)) + 0.1 * RNG.normal(size=(600, C))
    model = tiny(max_iterations=150, learning_rate=3e-3, batch_size=64, temperature=0.3)
    assert model.fit(x[:400], y[:400]).score(x[400:], y[400:]) > 0.5
    assert model.score(RNG.permutation(x[400:]), y[400:]) < 0.3
    with pytest.raises(DataError, match=r"continuous.*found"):
        model.score(x)


# --- files --------------------------------------------------------------------------------------


class Small(nn.Module):
    """Somebody's own encoder."""

    num_output = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * channels, 2))

    def get_offset(self) -> ReceptiveField:
        return ReceptiveField(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.body(x), dim=1)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("n_sessions", [1, 2])
def test_a_file_brings_every_model_back(
    tmp_path: Path, n_sessions: int, kind: str, hybrid: bool
) -> None:
    if kind == "none" and (hybrid or n_sessions > 1):
        return
    several = n_sessions > 1
    xs, ys = [data()] * n_sessions, [make() for make in LABELS[kind]]
    args = (xs, *([y] * n_sessions for y in ys)) if several else (xs[0], *ys)
    model = tiny(
        hybrid=hybrid,
        masking_kwargs=(
            ("RandomNeuronMask", [0.1, 0.2, 0.3]),
            ("RandomTimestepMask", (0.1, 0.3, 0.1)),
        ),
        label_periods={0: 9.0} if kind in ("continuous", "mixed") else None,
    ).fit(*args)
    before = {n: v for n, v in state(model).items() if n != "run_"}
    model.save(tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").read_bytes().startswith(b"PK")
    loaded = CEBRA.load(tmp_path / "model.pt")
    assert {n: v for n, v in state(loaded).items() if n != "run_"} == before
    assert same(model, loaded)
    assert loaded.score(*args) == model.score(*args)
    ids = range(n_sessions) if several else [None]
    for x, i in zip(xs, ids, strict=True):
        np.testing.assert_array_equal(
            loaded.transform(x, session_id=i), model.transform(x, session_id=i)
        )
    assert loaded.state_dict_["log"] == model.state_dict_["log"]


def test_a_file_keeps_feature_names_and_a_drawn_seed(tmp_path: Path) -> None:
    frame = pd.DataFrame(data(), columns=[f"cell {i}" for i in range(C)])
    model = tiny(random_state=np.random.RandomState(2), time_offsets=np.array([1, 3])).fit(frame)
    model.save(str(tmp_path / "model"))
    loaded = CEBRA.load(str(tmp_path / "model"))
    assert list(loaded.feature_names_in_) == list(frame.columns)
    assert loaded.random_state_ == model.random_state_ == loaded.random_state
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[frame.columns[::-1]])


def test_a_custom_module_trains_and_comes_back_with_the_module(tmp_path: Path) -> None:
    x, module = data(), Small(C)
    model = tiny(model_architecture=module).fit(x)
    assert model.transform(x).shape == (T, 2)
    model.save(tmp_path / "own")
    with pytest.raises(FormatError, match="Small"):
        CEBRA.load(tmp_path / "own")
    loaded = CEBRA.load(tmp_path / "own", model_architecture=Small(C))
    np.testing.assert_array_equal(loaded.transform(x), model.transform(x))
    assert same(loaded.partial_fit(x), model.partial_fit(x))
    with pytest.raises(ConfigError, match="custom module"):
        model.fit(data(T, 4), adapt=True)
    assert clone(model).fit(x).transform(x).shape == (T, 2)


def test_a_model_of_an_absent_device_loads(tmp_path: Path) -> None:
    model = tiny().fit(data())
    for device in ("cuda:7", "mps"):
        model.device = device
        model.save(tmp_path / "far")
        assert CEBRA.load(tmp_path / "far").transform(data()).shape == (T, 3)
        assert CEBRA.load(tmp_path / "far", map_location=torch.device("cpu")).device == "cpu"


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("weights_only", [None, True, False])
def test_a_file_that_asks_to_run_code_is_refused(tmp_path: Path, weights_only: bool | None) -> None:
    mark = tmp_path / "exploded"
    torch.save({"args": _Bomb(mark), "state": {}}, tmp_path / "bad.pt")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(_Bomb(mark)))
    for name in ("bad.pt", "bad.pkl"):
        with pytest.raises(OSError, match="bad"):
            CEBRA.load(tmp_path / name, weights_only=weights_only)
    assert not mark.exists()


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")
    torch.save({"a": 1}, tmp_path / "other.pt")
    for name in ("text", "other.pt", "absent", "."):
        with pytest.raises(FormatError, match=r"\w+"):
            CEBRA.load(tmp_path / name)
    with pytest.raises(ConfigError, match="torch"):
        tiny().fit(data()).save(tmp_path / "x", backend="torch")


# --- inputs -------------------------------------------------------------------------------------


class Frame:
    """What a time series of pynapple looks like from outside."""

    def __init__(self, values: np.ndarray, t: np.ndarray, support: np.ndarray) -> None:
        self.values, self.t, self.shape, self.ndim = values, t, values.shape, values.ndim
        self.time_support = type("Support", (), {"values": support})()

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)


def test_every_kind_of_array_trains_the_same_model() -> None:
    x, y, k = data().astype("float32"), numbers().astype("float32"), classes()
    wanted = tiny().fit(x, y, k)
    frozen = x.copy()
    frozen.flags.writeable = False
    times, support = np.arange(T) / 30, np.array([[0, T / 30]])
    for given in (
        (torch.from_numpy(x).requires_grad_(), torch.from_numpy(y), torch.from_numpy(k)),
        (x.astype("float64"), y.astype("float64"), k.astype("uint8")),
        (frozen, y, pd.Series(k)),
        (x.tolist(), y.tolist(), k.tolist()),
        (Frame(x, times, support), Frame(y, times, support), k),
        (np.asfortranarray(x), pd.DataFrame(y), k[:, None]),
    ):
        model = tiny().fit(*given)
        assert same(model, wanted), [type(g) for g in given]
        np.testing.assert_array_equal(model.transform(given[0]), wanted.transform(x))
    frame = pd.DataFrame(x, columns=[str(i) for i in range(C)])
    assert same(tiny().fit(frame, y, k), wanted)
    a, b = tiny().fit([x, x], [y, y]), tiny().fit((torch.from_numpy(x), frame), [y, y])
    assert same(a, b)
    assert same(tiny().fit((x * 10).astype(int)), tiny().fit(np.trunc(x * 10)))


def test_a_time_series_brings_its_own_epochs() -> None:
    x, t = data(), np.r_[np.arange(80), np.arange(120) + 500] / 30
    support = np.array([[0, 79 / 30], [500 / 30, 620 / 30]])
    kw: dict[str, Any] = {"model_architecture": "offset10-model"}
    own = tiny(**kw).fit(Frame(x, t, support))
    assert same(own, tiny(**kw).fit(x, epochs=[[0, 80], [80, 200]]))
    assert not same(own, tiny(**kw).fit(x))


@pytest.mark.parametrize("labelled", [False, True])
def test_nothing_crosses_the_border_of_an_epoch(labelled: bool) -> None:
    """What lies between epochs cannot be felt: there anything may stand."""
    x, y = data(), numbers()
    epochs = [[0, 70], [90, 140], [140, 200]]
    kw: dict[str, Any] = {"model_architecture": "offset10-model", "time_offsets": 4}
    wanted = tiny(**kw).fit(x, *([y] if labelled else []), epochs=epochs)
    wild_x, wild_y = x.copy(), y.copy()
    wild_x[70:90], wild_y[70:90] = 1e6, -1e6
    assert same(wanted, tiny(**kw).fit(wild_x, *([wild_y] if labelled else []), epochs=epochs))
    several = tiny(**kw).fit([x, x], [y, y], epochs=[epochs, epochs])
    assert same(several, tiny(**kw).fit([x, wild_x], [y, wild_y], epochs=[epochs, epochs]))


@pytest.mark.parametrize(
    "epochs",
    [
        [[0, 300]],
        [[50, 40]],
        [[0, 60], [50, 100]],
        [[50, 100], [0, 40]],
        [[-5, 40]],
        [[0.0, 40.0]],
        [],
        [0, 100],
    ],
)
def test_epochs_that_are_not_in_order_are_refused(epochs: Any) -> None:
    with pytest.raises(DataError, match=r"epochs must be.*200 samples; found"):
        tiny().fit(data(), epochs=epochs)
    with pytest.raises(DataError, match="2 sessions; found 1"):
        tiny().fit([data()] * 2, [numbers()] * 2, epochs=[[[0, 100]]])


# --- bad input: one sentence, with the numbers --------------------------------------------------


def _nan(x: np.ndarray, row: int, column: int, value: float = np.nan) -> np.ndarray:
    x = x.copy()
    x[row, column] = value
    return x


BAD_DATA: list[tuple[str, Callable[[], Any]]] = [
    (r"NaN.*row 17, column 3", lambda: tiny().fit(_nan(data(), 17, 3))),
    (r"inf.*row 5, column 0", lambda: tiny().fit(_nan(data(), 5, 0, np.inf))),
    (
        r"session 1 .*row 9, column 2",
        lambda: tiny().fit([data(), _nan(data(), 9, 2)], [numbers()] * 2),
    ),
    (r"row 17, column 3", lambda: tiny().fit(data()).transform(_nan(data(), 17, 3))),
    (r"label 0 .*row 11, column 1", lambda: tiny().fit(data(), _nan(numbers(), 11, 1))),
    (r"200 samples.*150", lambda: tiny().fit(data(), numbers(150))),
    (r"200 samples.*\(200, 0\)", lambda: tiny().fit(data(), numbers()[:, :0])),
    (
        r"label 0 of session 1.*200.*150",
        lambda: tiny().fit([data()] * 2, [numbers(), numbers(150)]),
    ),
    (r"2 sessions.*2 arrays.*found a ndarray", lambda: tiny().fit([data()] * 2, numbers())),
    (r"2 sessions.*found 1", lambda: tiny().fit([data()] * 2, [numbers()])),
    (r"one kind and width", lambda: tiny().fit([data()] * 2, [numbers(), numbers(width=3)])),
    (r"one kind and width", lambda: tiny().fit([data()] * 2, [numbers(), classes()])),
    (r"label.*2 sessions|several sessions need.*align 2", lambda: tiny().fit([data()] * 2)),
    (r"at most one.*found 2", lambda: tiny().fit(data(), classes(), classes())),
    (r"one column; found 2", lambda: tiny().fit(data(), np.stack([classes()] * 2, axis=1))),
    (r"floats.*integers.*<U", lambda: tiny().fit(data(), classes().astype(str))),
    (r"class 2 .*session 1", lambda: tiny().fit([data()] * 2, [classes(), classes() % 2])),
    (
        r"7 sample.*minimum of 10",
        lambda: tiny(model_architecture="offset10-model").fit(data(7)),
    ),
    (
        r"36 .*found 20|20 sample.*minimum of 36",
        lambda: tiny(model_architecture="offset36-model").fit(data()).transform(data(20)),
    ),
    (
        r"window 10, offset 50.*longest of 30",
        lambda: tiny(model_architecture="offset10-model", time_offsets=50).fit(
            data(), epochs=[[0, 30], [40, 60]]
        ),
    ),
    (r"offset1-model", lambda: tiny(model_architecture="ofset1-model").fit(data())),
    (r"features.*4.*6|4 features.*6", lambda: tiny().fit(data()).transform(data(T, 4))),
    (r"rows of one length", lambda: tiny().fit([data(), data()[:, 0]])),
    (r"rows of one length", lambda: tiny().fit(data(), [[1.0, 2.0], [3.0]])),
    (r"rows of one length", lambda: tiny().fit(data(), epochs=[[0, 10], [20]])),
    (r"0 to 0; found 0.5", lambda: tiny().fit(data()).transform(data(), session_id=0.5)),
    (r"0 to 0; found '0'", lambda: tiny().fit(data()).transform(data(), session_id="0")),
    (r"dim 3", lambda: tiny().fit(data().reshape(20, 10, C))),
    (r"[Ss]parse|dense", lambda: tiny().fit(__import__("scipy.sparse").sparse.csr_array(data()))),
    (r"label_periods.*\[4\].*2", lambda: tiny(label_periods={4: 1.0}).fit(data(), numbers())),
    (r"float32", lambda: tiny().fit(_nan(data(), 1, 1, 1e200))),
]


@pytest.mark.parametrize(("says", "act"), BAD_DATA, ids=[says[:30] for says, _ in BAD_DATA])
def test_bad_input_is_refused_with_the_numbers(says: str, act: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        act()
    assert "Traceback" not in str(caught.value)


def test_data_that_look_transposed_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"more channels than samples \(300 > 40\)"):
        tiny().fit(data(40, 300))


def test_negative_and_scattered_classes_are_classes() -> None:
    x, k = data(), classes()
    assert same(tiny().fit(x, k), tiny().fit(x, np.array([-40, 3, 7000])[k]))


def test_architectures_are_listed_by_pattern() -> None:
    names = CEBRA.supported_model_architectures("offset10-*")
    assert "offset10-model" in names
    assert all(name.startswith("offset10-") for name in names)
    assert len(CEBRA.supported_model_architectures()) == 139


def test_a_device_can_be_chosen_later() -> None:
    model = tiny().fit(data())
    assert model.to(torch.device("cpu")) is model
    assert model.device_ == model.device == "cpu"
    with pytest.raises(ConfigError, match="gpu"):
        model.to("gpu")
    assert model.device == "cpu"
