"""The commands fit, embed, decode, search and convert, as a user types them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from grevy import CEBRA, load_data
from grevy.cli import main
from grevy.locks import hold_folder

SMALL = ["--steps", "30", "--hidden", "8", "--latents", "3", "--batch-size", "64", "--quiet"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    t = np.linspace(0, 40, 1200)
    pos = np.sin(t)
    x = np.stack([np.roll(pos, 5 * i) for i in range(12)], 1) + 0.1 * rng.normal(size=(1200, 12))
    np.savez("data.npz", x=x.astype(np.float32), pos=pos, kind=(pos > 0).astype(int))
    return tmp_path / "data.npz"


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = 0
    try:
        main([str(w) for w in words])
    except SystemExit as left:
        code = int(left.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_fit_and_embed_are_the_estimator(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "fit", data, "--labels", "pos", *SMALL, "--seed", "3")
    assert (code, out.strip()) == (0, "data.safetensors")
    arrays = np.load(data)
    twin = CEBRA(
        model_architecture="offset10-model", max_iterations=30, num_hidden_units=8,
        output_dimension=3, batch_size=64, random_state=3, time_offsets=10,
    ).fit(arrays["x"], arrays["pos"])  # fmt: skip
    expected = twin.transform(arrays["x"])
    for name in ("z.npy", "z.npz", "z.csv"):
        code, out, _ = _run(capsys, "embed", "data.safetensors", data, "--out", name)
        assert (code, out.strip()) == (0, name)
        np.testing.assert_allclose(load_data(name), expected, atol=1e-6)
    assert _run(capsys, "embed", "data.safetensors", data)[1].strip() == "data-embedding.npy"


def test_of_two_fits_to_one_file_one_wins(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", data, *SMALL, "--out", "m.safetensors"]
    with hold_folder(Path("m.safetensors.unfinished")):
        code, _, said = _run(capsys, *fit)
    assert code == 3
    assert f"is in use by {platform.node()}:{os.getpid()}" in said
    assert not Path("m.safetensors").exists()
    assert _run(capsys, *fit)[0] == 0
    assert {p.name for p in data.parent.iterdir()} == {"data.npz", "m.safetensors"}


def test_what_is_there_is_never_overwritten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", data, *SMALL]
    assert _run(capsys, *fit)[0] == 0
    assert _run(capsys, "embed", "data.safetensors", data)[0] == 0
    model, label = Path("data.safetensors"), Path("label.npy")
    np.save(label, np.arange(1200.0))
    Path("b").mkdir()
    Path("b/data.npz").write_bytes(data.read_bytes())
    before = {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}
    for words, there in [
        (fit, model),
        (["fit", "b/data.npz", *SMALL, "--seed", 1], model),  # of another folder, the same name
        ([*fit, "--out", data], data),
        ([*fit, "--label-file", label, "--out", label], label),
        (["embed", model, data], "data-embedding.npy"),
        (["embed", model, "data-embedding.npy", "--out", "data-embedding.npy"], "embedding.npy"),
    ]:
        code, _, said = _run(capsys, *words)
        assert code == 2, words
        assert f"{there} exists and is never overwritten" in said
    assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before


def test_a_fit_that_was_killed_after_its_last_step_ends_but_overwrites_no_other_model(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", data, *SMALL, "--out", "m.safetensors"]
    assert _run(capsys, *fit)[0] == 0
    whole, folder = Path("m.safetensors").read_bytes(), Path("m.safetensors.unfinished")
    for more, ends in (([], 0), (["--seed", 1], 2)):
        folder.mkdir()
        (folder / ".lock").write_text("zebra:42")
        code, _, said = _run(capsys, *fit, *more)
        assert code == ends, said
        assert Path("m.safetensors").read_bytes() == whole
    assert "never overwritten" in said


def test_a_model_tells_its_activity_from_a_label_table(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(data))
    arrays["pos"] = np.column_stack([arrays["pos"], -arrays["pos"]])
    np.savez("two.npz", **arrays)
    assert _run(capsys, "fit", "two.npz", "--labels", "pos", *SMALL)[0] == 0
    assert _run(capsys, "embed", "two.safetensors", "two.npz")[0] == 0
    code, _, said = _run(
        capsys, "embed", "two.safetensors", "two.npz", "--session", 3, "--out", "z.npy"
    )
    assert code == 2
    assert "sessions" in said


def test_decode_says_what_the_encoder_saw(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = dict(np.load(data))
    _run(capsys, "fit", data, *SMALL, "--out", "m.safetensors")
    code, out, _ = _run(
        capsys, "decode", "m.safetensors", data, "--labels", "pos", "kind", "--nulls", "19"
    )
    assert code == 0
    for name, better in (("pos  median error", -1), ("kind  accuracy", 1)):
        at = next(i for i, row in enumerate(out.splitlines()) if row.startswith(name))
        cells = out.splitlines()[at + 1].split()
        assert cells[0] == "all"
        decoded, chance = float(cells[1]), float(cells[5])
        assert better * decoded > better * chance * (0.5 if better < 0 else 1.5)
    assert out.startswith("!! Not held out: The encoder was trained on samples that are decoded")
    assert "100% of those" in out
    part = {k: v[len(v) // 3 :] for k, v in arrays.items()}
    np.savez("part.npz", **part)
    _, out, _ = _run(capsys, "decode", "m.safetensors", "part.npz", "--labels", "pos")
    assert out.startswith("!! Not held out")  # cut out, and without one of the labels
    arrays["x"] = arrays["x"] + np.float32(0.1)
    np.savez("other.npz", **arrays)
    _, out, _ = _run(capsys, "decode", "m.safetensors", "other.npz", "--labels", "pos")
    assert "trained on none of the samples" in out


def test_labels_that_an_encoder_learnt_are_not_decoded_where_it_learnt_them(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(capsys, "fit", data, "--labels", "pos", *SMALL, "--out", "m.safetensors")
    words = ["decode", "m.safetensors", data, "--labels", "kind"]
    code, out, said = _run(capsys, *words)
    assert code == 2
    assert "pure noise decodes well that way" in said
    assert "median error" not in out
    code, out, _ = _run(capsys, *words, "--force")
    assert code == 0
    assert out.startswith("!! Not held out")
    assert "Not tested. The encoder learnt from" in out


def test_search_ranks_and_keeps_what_is_there(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", data, "--grid", "latents=2,3", "steps=20", "hidden=8", "batch_size=64"]
    code, out, _ = _run(capsys, *words, "--quiet")
    assert code == 0
    assert "bits" in out
    assert "best: output_dimension_" in out
    files = {p.name: p.stat().st_mtime_ns for p in Path("saved_models").glob("*.pt")}
    assert files
    again = _run(capsys, *words, "--quiet")
    assert again[1] == out
    kept = {p.name: p.stat().st_mtime_ns for p in Path("saved_models").glob("*.pt")}
    assert kept == files


@pytest.mark.parametrize("kind", [".npy", ".csv", ".h5", ".mat"])
def test_every_format_is_fitted_and_embedded(
    data: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py
    import scipy.io

    arrays, path = dict(np.load(data)), data.with_suffix(kind)
    labels = ["--labels", "pos"]
    if kind == ".npy":
        np.save(path, arrays["x"])
        np.save("pos.npy", arrays["pos"])
        labels += ["--label-file", "pos.npy"]
    elif kind == ".csv":
        table = np.column_stack([arrays["x"], arrays["pos"]])
        header = ",".join([*(f"c{i}" for i in range(12)), "pos"])
        np.savetxt(path, table, delimiter=",", header=header, comments="")
    elif kind == ".h5":
        with h5py.File(path, "w") as file:
            file.update(arrays)
    else:
        scipy.io.savemat(path, arrays)
    assert _run(capsys, "fit", path, *labels, *SMALL)[0] == 0
    assert _run(capsys, "embed", "data.safetensors", path, *labels[: 2 * (kind == ".csv")])[0] == 0
    expected = CEBRA.load("data.safetensors").transform(arrays["x"])
    np.testing.assert_allclose(np.load("data-embedding.npy"), expected, atol=1e-5)


def test_a_simulated_recording_is_fitted_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(capsys, "simulate", "s.nwb", "--cells", 10, "--movies", 2)[0] == 0
    assert _run(capsys, "fit", "s.nwb", *SMALL)[0] == 0
    assert _run(capsys, "embed", "s.safetensors", "s.nwb")[0] == 0


def test_errors_are_sentences(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(capsys, "fit", data, *SMALL)
    model = "data.safetensors"
    for name, x in [
        ("six", np.ones((90, 6))), ("none", np.ones((0, 12))), ("short", np.ones((3, 12))),
        ("turned", np.ones((12, 90))), ("complex", np.ones((90, 12), complex)),
    ]:  # fmt: skip
        np.save(f"{name}.npy", x)
    for words, says in [
        (["fit", data, "--labels", "absent", *SMALL, "--out", "n.safetensors"], "absent"),
        (["fit", data, *SMALL, "--out", "no/such/m.safetensors"], "no folder"),
        (["embed", model, data, "--out", "z.txt"], ".npy, .npz or .csv"),
        (["embed", data, data], "data.npz"),
        (["decode", model, data, "--labels", "pos", "--folds", "1"], "between 2 and"),
        (["decode", model, data, "--labels", "pos", "--guard", "2000"], "smaller guard"),
        (["search", data, "--grid", "latents"], "NAME=VALUE"),
        (["search", data, "--grid", "label_periods=3", "--labels", "pos"], "must be a dict of"),
        (["fit", data, "--latents", 10**9, "--out", "n.safetensors", "--quiet"], "would take"),
        (["embed", model, "six.npy"], "the 12 channels that the model was fitted to; found 6 in"),
        (["embed", model, "turned.npy"], "Its axes may be the other way round"),
        (["embed", model, "none.npy"], "found (0, 12) in none.npy"),
        (["embed", model, "complex.npy"], "real numbers; found complex128 in complex.npy"),
        (["embed", model, "short.npy"], "minimum of 10 is required"),
        (["convert", model, model], "never overwritten"),
    ]:
        code, _, said = _run(capsys, *words)
        assert code == 2, words
        assert says in said
        assert "Traceback" not in said


def test_convert_keeps_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cebra = pytest.importorskip("cebra")
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    torch.manual_seed(0)
    old = cebra.CEBRA(model_architecture="offset5-model", max_iterations=3, batch_size=32).fit(x)
    old.save(str(tmp_path / "old.pt"))
    code, out, _ = _run(capsys, "convert", tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert code == 0
    assert "offset5-model" in out
    found = CEBRA.load(tmp_path / "new.safetensors").transform(x)
    np.testing.assert_allclose(found, old.transform(x), atol=1e-5)
