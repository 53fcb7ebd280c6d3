"""The OpenScope notebook, cell by cell and unchanged, with grevy in CEBRA's place.

The notebook's text is not part of this project: the test reads it where it lies beside the real
recordings, runs its cells on a simulated session in the same layout, and skips where it is absent.
Only counts are made smaller: iterations, and values of the grid.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import grevy
from grevy.nwb import write_openscope
from grevy.synthetic import openscope

CELLS = [
    ("def stim_obj_to_table(nwb):", "stim_table = stim_obj_to_table(nwb)"),
    ('dff = nwb.processing["ophys"]["DfOverF"]', "print(dff_timestamps.shape)"),
    ("# retrieve intervals of time associated with each frame", "print(len(frame_list))"),
    ("# matches each timestamp from 'dff_timestamps'", "        j += 1"),
    ("# number of dff_timestamps that occur before the first", '", len(sliced_dff_trace))'),
    ("timestamp_frames = np.asarray(timestamp_frames)", "= np.asarray(timestamp_stimulus)"),
    (
        "# First you define the parameter to explore.",
        'params=params_grid, models_dir="saved_models")',
    ),
    (
        "df_results = grid_search.get_df_results(",
        'dataset_name="dataset1", models_dir="saved_models")',
    ),
    ("# Get all the final losses", "plt.gca().legend_.remove()"),
    ("# alter the number of max_iterations", 'cebra_time_model.save("cebra_time_model.pt")'),
    (
        "# this plots the loss from the model",
        'cebra.plot_loss(cebra_time_model, color = "tab:blue")',
    ),
    ("### inputs fluorescence traces for each repeat", "    return plt.show()"),
    ("import sklearn", "            store_scores[stim_name] = average_test_score"),
    ("# Extract keys and values from the dictionary", 'plt.ylabel("R^2 score from KNN cluster")'),
]
"""First line of each cell, and the end of its last."""

SMALLER = {
    "max_iterations=[1000],": "max_iterations=[8],",
    "max_iterations = 20000": "max_iterations = 60",
    "output_dimension = [16, 32, 64, 128]": "output_dimension = [3, 5]",
    "learning_rate = [0.001, 0.01, 0.0003]": "learning_rate = [0.001, 0.01]",
    "num_hidden_units = [32, 64, 128]": "num_hidden_units = [8, 16]",
    "num_hidden_units=128": "num_hidden_units=16",
    "verbose = True": "verbose = False",
    "verbose=True": "verbose=False",
}


@pytest.fixture
def text(data_dir: Path) -> str:
    path = data_dir.parent / "seed" / "openscope-cebra-time.txt"
    if not path.exists():
        pytest.skip("the text of the OpenScope notebook does not lie beside the recordings")
    return path.read_text("utf-8")


def cells(text: str) -> list[str]:
    found = []
    position = 0
    for first, last in CELLS:
        begin = text.index(first, position)
        end = text.index(last, begin) + len(last)
        found.append(text[begin:end])
        position = end
    return found


def test_the_notebook_runs_with_grevy_in_its_place(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pynwb import NWBHDF5IO

    session = openscope(1, movies=3, n_repeats=10, n_frames=90, n_cells=24, noise=1.0)
    path = write_openscope(tmp_path / "session.nwb", session)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names = {"pd": pd, "np": np, "plt": plt, "cebra": grevy, "CEBRA": grevy.CEBRA}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynwb's about the simulated file, the notebook's own
        np.random.seed(0)  # noqa: NPY002 - the notebook draws its folds from numpy's global state
        with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
            names["nwb"] = io.read()
            for cell in cells(text):
                code = cell
                for long, short in SMALLER.items():
                    code = code.replace(long, short)
                exec(compile(code, "notebook", "exec"), names)
    plt.close("all")
    assert "torch" in sys.modules
    said = capsys.readouterr().out
    assert "Averaged R2 test score" in said
    table = names["pd_loss"]
    assert len(table) == 2 * 2 * 2 * 2  # latents, learning rates, hidden units, offsets
    assert {"loss", "bits", "bits_sd", "dataset_name"} <= set(table.columns)
    assert isinstance(names["best_model"], grevy.CEBRA)
    assert names["best_model_name"].startswith("learning_rate_")
    assert names["best_model_name"].endswith("_dataset1")
    scores = names["store_scores"]
    movies = {s for s in scores if s.startswith("movie")} or set(scores)
    assert len(movies) >= 2
    assert all(np.isfinite(value) for value in scores.values())
    loss = names["cebra_time_model"].state_dict_["loss"]
    assert isinstance(loss, torch.Tensor)
    assert loss.shape == (60,)
    assert float(loss[-10:].mean()) < float(loss[:5].mean())
    assert not any(b"pickle" in f.read_bytes()[:200] for f in (tmp_path / "saved_models").iterdir())
