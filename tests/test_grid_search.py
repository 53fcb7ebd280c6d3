"""Grids: their names, what they train and keep, and how they choose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from grevy.grid_search import GridSearch
from scipy import stats
from sklearn.model_selection import ParameterGrid
from torch import nn

import grevy.grid.jobs as module
from grevy.errors import ConfigError, DataError, DivergedError, FormatError, LockedError
from grevy.estimator import CEBRA
from grevy.locks import hold_folder
from grevy.model import held_out_bits
from grevy.training import train
from grevy.windows import ReceptiveField

TINY: dict[str, Any] = {"max_iterations": 3, "batch_size": 32, "device": "cpu"}


def array(seed: int, n: int = 240, channels: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, channels))


def equal_weights(a: CEBRA, b: CEBRA) -> bool:
    return all(
        torch.equal(u, v)
        for s, t in zip(a.run_.sessions, b.run_.sessions, strict=True)
        for u, v in zip(s.weights, t.weights, strict=True)
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of runs in each call of the trainer."""
    sizes: list[int] = []

    def counted(recordings: Any, configs: Any, **kw: Any) -> Any:
        sizes.append(len(configs))
        return train(recordings, configs, **kw)

    monkeypatch.setattr(module, "train", counted)
    return sizes


# Names


def test_names_and_order_are_those_of_sklearns_grid() -> None:
    swept = {"time_offsets": [1, 5], "output_dimension": [3, 4], "learning_rate": [0.01, 0.001]}
    models, grid = GridSearch().generate_models(
        {**swept, "temperature": 1, "num_hidden_units": [8]}
    )
    assert grid == list(ParameterGrid(swept))
    names = ["_".join(f"{k}_{v}" for k, v in point.items()) for point in grid]
    assert list(models) == names
    assert names[0] == "learning_rate_0.01_output_dimension_3_time_offsets_1"
    for model, point in zip(models.values(), grid, strict=True):
        assert {k: getattr(model, k) for k in point} == point
        assert (model.temperature, model.num_hidden_units) == (1, 8)


def test_names_are_those_of_cebra() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cebra = pytest.importorskip("cebra")
        from cebra.grid_search import GridSearch as Theirs
    assert cebra
    params = {"learning_rate": [0.001, 0.01], "num_hidden_units": [8, 16], "time_offsets": [10]}
    theirs, their_grid = Theirs().generate_models(params)
    ours, our_grid = GridSearch().generate_models(params)
    assert list(ours) == list(theirs)
    assert our_grid == their_grid
    assert [m.num_hidden_units for m in ours.values()] == [
        m.num_hidden_units for m in theirs.values()
    ]


def test_one_element_lists_and_tuples_are_fixed_and_strings_are_swept() -> None:
    models, grid = GridSearch().generate_models(
        {
            "time_offsets": [(1, 5)],
            "optimizer_kwargs": (("eps", 1e-7),),
            "model_architecture": ["offset1-model", "offset10-model"],
            "distance": ["cosine", "euclidean"],
        }
    )
    assert len(grid) == 4
    assert "distance_euclidean_model_architecture_offset10-model" in models
    for model in models.values():
        assert model.time_offsets == (1, 5)
        assert model.optimizer_kwargs == (("eps", 1e-7),)


def test_without_a_sweep_the_name_is_empty() -> None:
    models, grid = GridSearch().generate_models({"output_dimension": 3})
    assert list(models) == [""]
    assert grid == [{}]


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.num_output = 3

    def get_offset(self) -> ReceptiveField:
        return ReceptiveField(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x[:, :, 0])))


def test_values_that_no_file_can_be_named_by_get_safe_names(tmp_path: Path) -> None:
    params = {**TINY, "model_architecture": [Net(4), Net(5)], "random_state": 0}
    data = {"rat/1": array(0), "rat-1": array(1)}
    search = GridSearch().fit_models(data, params, tmp_path)
    assert len(search.models_names) == 4
    assert len(list(tmp_path.glob("*.pt"))) == 4
    assert not any("/" in name or "(" in name for name in search.models_names)
    assert set(search.get_df_results()["dataset_name"]) == {"rat/1", "rat-1"}
    _, name = search.get_best_model(dataset_name="rat/1")
    assert name.startswith("model_architecture_Net-")
    again = GridSearch().fit_models(data, params, tmp_path)
    assert all(equal_weights(again.models[n], search.models[n]) for n in search.models_names)


def test_a_long_name_still_makes_a_file(tmp_path: Path) -> None:
    name = "a" * 300
    GridSearch().fit_models({name: array(0)}, {**TINY, "output_dimension": [2, 3]}, tmp_path)
    models, _ = GridSearch.load(tmp_path)
    assert list(models) == [f"output_dimension_{d}_{name}" for d in (2, 3)]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"output_dimension": []}, "at least one value"),
        ({"output_dimension": np.array([2, 3])}, "must come as a list"),
        ({"outputs": [2, 3]}, "parameters of CEBRA; found outputs"),
        ({"output_dimension": [2, 2]}, "name of its own"),
        ([1], "dict of parameters"),
    ],
)
def test_wrong_parameters_are_refused(params: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GridSearch().generate_models(params)


# What is trained


def test_every_model_is_the_one_that_fit_makes(tmp_path: Path, calls: list[int]) -> None:
    X, label = array(0), np.random.default_rng(1).normal(size=(240, 2))
    params = {**TINY, "learning_rate": [0.01, 0.001], "output_dimension": [2, 3], "random_state": 7}
    data = {"time": X, "behavior": (X, label), "sessions": ([X, array(2)], [label, label])}
    search = GridSearch().fit_models(data, params, tmp_path)
    assert calls == [8] * 6  # of one recording and encoder: two learning rates, each with folds
    for name, (x, *y) in {
        "time": (X,),
        "behavior": data["behavior"],
        "sessions": data["sessions"],
    }.items():
        for rate in (0.01, 0.001):
            for dim in (2, 3):
                alone = CEBRA(**TINY, learning_rate=rate, output_dimension=dim, random_state=7)
                alone.fit(x, *y)
                full = f"learning_rate_{rate}_output_dimension_{dim}_{name}"
                assert equal_weights(search.models[full], alone)
                assert equal_weights(CEBRA.load(tmp_path / f"{full}.pt"), alone)
                assert search.models[full].get_params() == alone.get_params()
    frame = search.get_df_results()
    assert list(frame.columns) == [
        "learning_rate",
        "output_dimension",
        *TINY,
        "random_state",
        "loss",
        "bits",
        "bits_sd",
        "bits_low",
        "bits_high",
        "dataset_name",
        "task",
    ]
    for (_, row), model in zip(frame.iterrows(), search.models.values(), strict=True):
        assert row["loss"] == pytest.approx(float(model.state_dict_["loss"][-1]))


def test_bits_are_those_of_models_that_saw_two_thirds() -> None:
    X = array(3, n=300)
    params = {**TINY, "model_architecture": "offset5-model", "time_offsets": 4, "random_state": 1}
    row = GridSearch().fit_models({"d": X}, params, None).get_df_results().iloc[0]
    model = CEBRA(**params).fit(X)
    found = []
    guard = 5 + 4
    for a, b in ((0, 100), (100, 200), (200, 300)):
        learn = [(s, t) for s, t in ((0, a - guard), (b + guard, 300)) if s < t]
        fold = model._sessions(X, None, (), None, reset=False).recordings
        (run,) = train(fold, [replace(model.run_.config, train_on=tuple(learn))], device="cpu")
        found.append(held_out_bits(run, fold[0], np.array([[a, b]]), device="cpu"))
    assert row["bits"] == pytest.approx(np.mean(found))
    assert row["bits_sd"] == pytest.approx(np.std(found, ddof=1))
    within = stats.t.interval(0.95, len(found) - 1, np.mean(found), stats.sem(found))
    assert (row["bits_low"], row["bits_high"]) == pytest.approx(within)


def test_labels_never_leak_into_the_next_dataset() -> None:
    X, label = array(0), np.arange(240) / 240
    data = {"with": (X, label), "bare": (X,), "plain": X}
    search = GridSearch().fit_models(data, {**TINY, "random_state": 0}, None)
    alone = CEBRA(**TINY, random_state=0).fit(X)
    assert equal_weights(search.models["_bare"], alone)
    assert equal_weights(search.models["_plain"], alone)
    assert not equal_weights(search.models["_with"], alone)
    assert search.models["_bare"].label_types_ == []


def test_models_beyond_one_call_are_the_same(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {**TINY, "learning_rate": [0.1, 0.01, 0.001], "random_state": 0}
    whole = GridSearch().fit_models({"d": array(0)}, params, None).get_df_results()
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    apart = GridSearch().fit_models({"d": array(0)}, params, None).get_df_results()
    assert calls == [12, 8, 4]
    assert apart.equals(whole)


def test_a_generator_is_asked_for_one_seed() -> None:
    params = {**TINY, "output_dimension": [2, 3], "random_state": np.random.RandomState(5)}
    models = GridSearch().fit_models({"d": array(0), "e": array(1)}, params, None).models
    assert {m.random_state_ for m in models.values()} == {
        int(np.random.RandomState(5).randint(2**31 - 1))
    }


def test_data_frames_hybrid_pairs_and_classes(tmp_path: Path) -> None:
    frame = pd.DataFrame(array(0), columns=[f"cell {i}" for i in range(6)])
    classes, speed = np.arange(240) // 20 % 3, np.sin(np.arange(240) / 9)
    data = {"both": (frame, classes, speed), "discrete": (frame, classes)}
    params = {**TINY, "hybrid": [True, False], "random_state": 3, "output_dimension": [4, 5]}
    search = GridSearch().fit_models(data, params, tmp_path)
    assert search.get_df_results()["bits"].notna().all()
    for name, model in GridSearch.load(tmp_path)[0].items():
        assert list(model.feature_names_in_) == list(frame.columns)
        point = {k: getattr(model, k) for k in ("hybrid", "output_dimension")}
        alone = CEBRA(**TINY, **point, random_state=3)
        assert equal_weights(alone.fit(*data[name.rsplit("_", 1)[1]]), model)


@pytest.mark.parametrize("wrong", ["text", 3, None, {"a": 1}, (), [], (5, 6), np.array(1.0)])
def test_a_dataset_of_another_type_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset 'wrong' must be"):
        GridSearch().fit_models({"wrong": wrong}, TINY, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_nothing_is_trained_where_one_combination_is_impossible(calls: list[int]) -> None:
    with pytest.raises(ConfigError, match="needs labels"):
        GridSearch().fit_models(
            {"d": array(0)}, {**TINY, "conditional": ["time", "time_delta"]}, None
        )
    assert calls == []


def test_a_model_that_diverges_is_left_out_and_said() -> None:
    with pytest.warns(UserWarning, match=r"learning_rate_1e\+30_d is left out"):
        search = GridSearch().fit_models(
            {"d": array(0)},
            {**TINY, "learning_rate": [1e30, 0.01], "distance": "euclidean", "random_state": 0},
            None,
        )
    assert search.models_names == ["learning_rate_0.01_d"]
    with pytest.warns(UserWarning, match="1 of 2 models of this grid are not there"):
        assert len(search.get_df_results()) == 1
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(DivergedError, match="every model"),
    ):
        GridSearch().fit_models(
            {"d": array(0)}, {**TINY, "learning_rate": 1e30, "distance": "euclidean"}, None
        )


def test_of_models_that_train_together_one_that_diverges_ends_no_other(
    tmp_path: Path, calls: list[int]
) -> None:
    params = {**TINY, "learning_rate": [0.01, 1e30, 0.02], "distance": "euclidean"}
    params["random_state"] = 0
    with pytest.warns(UserWarning, match=r"learning_rate_1e\+30_d is left out: .* of 12 did not"):
        found = GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    assert calls == [12]  # three models and their folds, trained once
    assert found.models_names == ["learning_rate_0.01_d", "learning_rate_0.02_d"]
    good = {**params, "learning_rate": [0.01, 0.02]}
    alone = GridSearch().fit_models({"d": array(0)}, good, None)
    for name in alone.models_names:
        assert equal_weights(found.models[name], alone.models[name])


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path, calls: list[int]) -> None:
    params = {**TINY, "output_dimension": [2, 3]}
    with (
        hold_folder(tmp_path / "m"),
        pytest.raises(LockedError, match=rf"m is in use by .*:{os.getpid()}; wait for it"),
    ):
        GridSearch().fit_models({"d": array(0)}, params, tmp_path / "m")
    assert calls == []
    GridSearch().fit_models({"d": array(0)}, params, tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "grid.json", "output_dimension_2_d.pt", "output_dimension_3_d.pt"
    }  # fmt: skip


def test_a_folder_of_somebody_else_is_refused_untouched(tmp_path: Path, calls: list[int]) -> None:
    there = [tmp_path / "output_dimension_2_d.pt", tmp_path / ".notes.tmp"]
    for path in there:
        path.write_text("mine")
    with pytest.raises(ConfigError, match=r"found '\.notes\.tmp' and no grid\.json"):
        GridSearch().fit_models({"d": array(0)}, TINY, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(there)
    assert {path.read_text() for path in there} == {"mine"}
    assert calls == []


def test_the_seed_of_whoever_made_the_folder_meanwhile_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = GridSearch().fit_models({"d": array(0)}, TINY, tmp_path / "first")

    @contextlib.contextmanager
    def made_meanwhile(folder: Path, **_: Any) -> Iterator[None]:
        shutil.copytree(tmp_path / "first", folder)
        yield

    monkeypatch.setattr("grevy.grid.search.hold_folder", made_meanwhile)
    second = GridSearch().fit_models({"d": array(0)}, TINY, tmp_path / "second")
    (name,) = first.models_names
    assert equal_weights(first.models[name], second.models[name])


def test_the_table_depends_on_neither_order_nor_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grevy.training.idle_processors", lambda: 2)
    params = {**TINY, "num_hidden_units": 8, "random_state": 0}
    swept = {"output_dimension": [2, 3], "learning_rate": [0.03]}
    data = {"a": array(0), "b": array(1)}
    plain = GridSearch().fit_models(data, {**params, **swept}, tmp_path / "plain")
    turned = {name: values[::-1] for name, values in swept.items()}
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    try:
        torch.set_num_threads(2)
        other = GridSearch().fit_models(
            dict(reversed(data.items())), {**params, **turned}, tmp_path / "other"
        )
    finally:
        torch.set_num_threads(1)

    def table(search: GridSearch) -> pd.DataFrame:
        rows = search.get_df_results().sort_values(["dataset_name", *swept])
        return rows.reset_index(drop=True)

    pd.testing.assert_frame_equal(table(plain), table(other), check_exact=True)
    for name in plain.models_names:
        pair = [(tmp_path / d / f"{name}.pt").read_bytes() for d in ("plain", "other")]
        assert pair[0] == pair[1]


def test_a_recording_too_short_for_folds_has_no_bits() -> None:
    params = {**TINY, "model_architecture": "offset10-model", "random_state": [0, 1]}
    with pytest.warns(UserWarning, match="3 of 3 folds of dataset 'd' cannot be judged"):
        search = GridSearch().fit_models({"d": array(0, n=28)}, params, None)
    assert search.get_df_results()["bits"].isna().all()
    with pytest.raises(ConfigError, match="infonce_loss"):
        search.get_best_model()
    search.get_best_model(scoring="infonce_loss")


def test_one_bar_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    GridSearch().fit_models(
        {"d": array(0)}, {**TINY, "output_dimension": [2, 3], "verbose": True}, None
    )
    assert "24/24" in capsys.readouterr().err


# What is kept


def test_a_second_call_trains_only_the_rest(tmp_path: Path, calls: list[int]) -> None:
    folder = tmp_path / "a" / "b"
    params = {**TINY, "learning_rate": [0.01, 0.001]}
    first = GridSearch().fit_models({"d": array(0)}, params, folder)
    frame = first.get_df_results()
    again = GridSearch().fit_models({"d": array(0)}, params, folder)
    assert calls == [8]
    assert again.get_df_results().equals(frame)
    assert (
        again.models["learning_rate_0.01_d"].random_state_
        == first.models["learning_rate_0.01_d"].random_state_
    )
    more = {**params, "learning_rate": [0.01, 0.001, 0.1]}
    wider = GridSearch().fit_models({"d": array(0)}, more, folder)
    assert calls == [8, 4]
    assert equal_weights(wider.models["learning_rate_0.01_d"], first.models["learning_rate_0.01_d"])
    assert len(wider.get_df_results()) == 3
    # Other data or other settings under the same names: all anew.
    GridSearch().fit_models({"d": array(1)}, more, folder)
    GridSearch().fit_models({"d": array(1)}, {**more, "max_iterations": 2}, folder)
    assert calls == [8, 4, 12, 12]
    # What training does not depend on is changed without it.
    last = {**more, "max_iterations": 2, "pad_before_transform": False}
    quick = GridSearch().fit_models({"d": array(1)}, last, folder)
    assert len(calls) == 4
    assert not quick.get_df_results()["pad_before_transform"].any()
    assert not any(m.pad_before_transform for m in GridSearch.load(folder)[0].values())


def test_an_interrupted_grid_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {**TINY, "output_dimension": [2, 3, 4]}
    count = 0

    def killed(recordings: Any, configs: Any, **kw: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return train(recordings, configs, **kw)

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 models .* output_dimension_4_d"):
        half = GridSearch().get_df_results(tmp_path)
    assert list(half["output_dimension"]) == [2, 3]
    whole = GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    assert count == 4
    assert whole.get_df_results().iloc[:2].equals(half)
    seeds = {m.random_state_ for m in whole.models.values()}
    assert len(seeds) == 1
    alone = CEBRA(**TINY, output_dimension=4, random_state=seeds.pop()).fit(array(0))
    assert equal_weights(whole.models["output_dimension_4_d"], alone)


def test_models_of_other_data_are_forgotten_even_if_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GridSearch().fit_models({"d": array(0)}, {**TINY, "output_dimension": [2, 3]}, tmp_path)

    def killed(*_: Any, **kw: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        GridSearch().fit_models({"d": array(1)}, {**TINY, "output_dimension": [2, 3]}, tmp_path)
    with pytest.warns(UserWarning, match="2 of 2 models"):
        assert len(GridSearch().get_df_results(tmp_path)) == 0
    with (
        pytest.warns(UserWarning, match="2 of 2 models"),
        pytest.raises(ConfigError, match="no trained model"),
    ):
        GridSearch().get_best_model(models_dir=tmp_path)


def test_a_damaged_or_exchanged_file_is_noticed(tmp_path: Path, calls: list[int]) -> None:
    params = {**TINY, "output_dimension": [2, 3], "random_state": 0}
    GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    CEBRA(**TINY, output_dimension=2).fit(array(5)).save(tmp_path / "output_dimension_2_d.pt")
    (tmp_path / "output_dimension_3_d.pt").write_bytes(b"cut")
    with pytest.raises(FormatError, match="other weights"):
        GridSearch.load(tmp_path)
    GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    assert calls == [4, 4, 4, 4]
    GridSearch.load(tmp_path)


def test_other_grids_and_files_in_the_folder_never_mix_in(tmp_path: Path, calls: list[int]) -> None:
    first = {**TINY, "output_dimension": [2, 3], "random_state": 0}
    GridSearch().fit_models({"d": array(0)}, first, tmp_path)
    (tmp_path / "stale.pt").write_bytes(b"not a model")
    GridSearch().fit_models({"e": array(0)}, {**TINY, "learning_rate": [0.1, 0.2]}, tmp_path)
    models, grid = GridSearch.load(tmp_path)
    assert list(models) == ["learning_rate_0.1_e", "learning_rate_0.2_e"]
    assert grid == [{"learning_rate": 0.1}, {"learning_rate": 0.2}]
    n = len(calls)
    GridSearch().fit_models({"d": array(0)}, first, tmp_path)  # back again: still there
    assert len(calls) == n


def test_no_pickles(tmp_path: Path) -> None:
    GridSearch().fit_models({"d": array(0)}, {**TINY, "output_dimension": [2, 3]}, tmp_path)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["grid.json", "output_dimension_2_d.pt", "output_dimension_3_d.pt"]
    json.loads((tmp_path / "grid.json").read_text())
    for path in tmp_path.glob("*.pt"):
        blob = path.read_bytes()
        size = int.from_bytes(blob[:8], "little")
        assert 8 + size < len(blob)
        assert not blob.startswith(b"PK")
        json.loads(blob[8 : 8 + size])  # safetensors: a length, JSON, then numbers


@pytest.mark.parametrize("text", ["", "[]", '{"seed": 1, "format": "other"}'])
def test_a_folder_that_holds_no_grid(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError, match=r"grid\.json"):
        GridSearch.load(tmp_path)
    (tmp_path / "grid.json").write_text(text)
    with pytest.raises(FormatError, match=r"grid\.json"):
        GridSearch().get_df_results(tmp_path)


def test_results_need_a_folder_or_a_fit() -> None:
    with pytest.raises(ConfigError, match="models_dir"):
        GridSearch().get_df_results()


# Choosing


def test_best_by_bits_and_by_loss(tmp_path: Path) -> None:
    params = {**TINY, "max_iterations": [3, 4, 5], "learning_rate": [0.1, 1e-5], "random_state": 0}
    search = GridSearch().fit_models({"d": array(0)}, params, tmp_path)
    frame = search.get_df_results()
    assert frame["task"].nunique() == 1
    names = search.models_names
    model, name = search.get_best_model()
    assert name == names[int(frame["bits"].argmax())]
    assert model is search.models[name]
    _, name = GridSearch().get_best_model(scoring="infonce_loss", models_dir=tmp_path)
    assert name == names[int(frame["loss"].argmin())]
    with pytest.raises(ConfigError, match="scoring"):
        search.get_best_model(scoring="r2")


def test_bits_choose_within_the_first_task_and_say_so() -> None:
    params = {**TINY, "time_offsets": [10, 20], "output_dimension": [2, 3], "random_state": 0}
    search = GridSearch().fit_models({"d": array(0)}, params, None)
    frame = search.get_df_results()
    with pytest.warns(UserWarning, match=r"found 2 \('d': time \+ 10;.*'d': time \+ 20"):
        _, name = search.get_best_model()
    some = frame[frame["time_offsets"] == 10]
    best = some.loc[some["bits"].idxmax()]
    assert name == f"output_dimension_{best['output_dimension']}_time_offsets_10_d"
    with pytest.warns(UserWarning, match="need not be the best"):
        search.get_best_model(scoring="infonce_loss")


@pytest.mark.parametrize(
    "swept",
    [
        {"temperature": [0.5, 1.0]},
        {"distance": ["cosine", "euclidean"]},
        {"model_architecture": ["offset1-model", "offset5-model"]},
        {"temperature_mode": ["auto", "constant"]},
    ],
)
def test_what_makes_another_task(swept: dict[str, Any]) -> None:
    search = GridSearch().fit_models({"d": array(0)}, {**TINY, **swept}, None)
    assert search.get_df_results()["task"].nunique() == 2
    with pytest.warns(UserWarning, match="one dataset and task only"):
        search.get_best_model()


def test_batches_and_negatives_leave_the_task_as_it_is() -> None:
    params = {
        **TINY,
        "batch_size": [16, 32],
        "num_negatives": [24, 48],
        "num_hidden_units": [8, 16],
    }
    search = GridSearch().fit_models({"d": array(0)}, params, None)
    search.get_best_model()  # without a warning
    with pytest.warns(UserWarning, match="number of negatives"):
        search.get_best_model(scoring="infonce_loss")


def test_dataset_names_are_exact(tmp_path: Path) -> None:
    data = {"with_lab": array(0), "no_lab": array(1), "lab": array(2)}
    search = GridSearch().fit_models(data, {**TINY, "output_dimension": [2, 3]}, tmp_path)
    assert list(search.get_df_results()["dataset_name"]) == [n for n in data for _ in range(2)]
    for name in data:
        _, best = search.get_best_model(dataset_name=name)
        assert best in {f"output_dimension_{d}_{name}" for d in (2, 3)}
    with pytest.raises(ConfigError, match="with_lab"):
        search.get_best_model(dataset_name="la")
    with pytest.warns(UserWarning, match="'with_lab'"):
        search.get_best_model()


def test_a_folder_given_is_read_even_after_a_fit(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    search = GridSearch().fit_models({"d": array(0)}, {**TINY, "output_dimension": [2, 3]}, one)
    GridSearch().fit_models({"d": array(1)}, {**TINY, "output_dimension": [2, 3, 4]}, two)
    assert len(search.get_df_results()) == 2
    assert len(search.get_df_results(two)) == 3
    assert len(search.get_df_results()) == 3  # the one used last
    model, name = search.get_best_model(models_dir=two)
    assert equal_weights(model, CEBRA.load(two / f"{name}.pt"))


# Drawing


def test_losses_and_embeddings_are_drawn(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    X, label = array(0), np.arange(240) / 240
    data = {"d": X, "two": ([X, X], [label, label])}
    search = GridSearch().fit_models(data, {**TINY, "output_dimension": [2, 3]}, tmp_path)
    ax = search.plot_loss_comparison()
    assert [line.get_label() for line in ax.get_lines()] == search.models_names
    figure = search.plot_transform(markersize=1)
    assert len(figure.axes) == 6
    assert [hasattr(a, "get_zlim") for a in figure.axes] == [False, True, False, False, True, True]
    fresh = GridSearch()
    with pytest.raises(ConfigError, match="Give datasets"):
        fresh.plot_transform(models_dir=tmp_path)
    fresh.plot_transform(data, tmp_path)
    plt.close("all")


# The notebook


def test_the_cell_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    import grevy as cebra

    monkeypatch.chdir(tmp_path)
    params_grid = dict(  # noqa: C408
        output_dimension=[2, 3],
        learning_rate=[0.001, 0.01],
        time_offsets=[10, 20],
        model_architecture="offset10-model",
        batch_size=32,
        temperature_mode="constant",
        max_iterations=[3],
        distance="cosine",
        conditional="time",
        device="cuda_if_available",
        num_hidden_units=[4, 8],
        temperature=1,
        verbose=True,
    )
    grid_search = cebra.grid_search.GridSearch()
    grid_search.fit_models(
        datasets={"dataset1": array(0, n=300)}, params=params_grid, models_dir="saved_models"
    )
    df_results = grid_search.get_df_results(models_dir="saved_models")
    assert len(df_results) == 16
    with pytest.warns(UserWarning, match="bits compare"):
        best_model, best_model_name = grid_search.get_best_model(
            dataset_name="dataset1", models_dir="saved_models"
        )
    assert best_model_name == (
        f"learning_rate_{best_model.learning_rate}_num_hidden_units_{best_model.num_hidden_units}"
        f"_output_dimension_{best_model.output_dimension}_time_offsets_10_dataset1"
    )
    assert best_model.max_iterations == 3
    frame = grid_search.get_df_results()
    columns = ["learning_rate", "num_hidden_units", "output_dimension", "time_offsets"]
    frame["params"] = frame[columns].astype(str).agg("_".join, axis=1)
    ax = frame.sort_values(by="loss", ascending=False).plot.barh(x="params", y="loss")
    plt.close(ax.figure)
