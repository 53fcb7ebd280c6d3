from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from grevy.errors import DataError, GrevyError
from grevy.sources import read_source

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
POS = X[:, 0].astype(np.float64)
KIND = np.arange(60) // 20


def _write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    arrays = {"activity": X, "pos": POS, "kind": KIND}
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file.update(arrays)
    elif kind == "mat":
        scipy.io.savemat(path, arrays)
    else:
        rows = [
            [*map(repr, x.tolist()), repr(p), str(k)]
            for x, p, k in zip(X, POS.tolist(), KIND.tolist(), strict=True)
        ]
        path.write_text("\n".join(map(",".join, [["a", "b", "c", "d", "pos", "kind"], *rows])))
    return path


@pytest.mark.parametrize("kind", ["npz", "h5", "mat", "csv"])
def test_names_find_the_same_data_in_every_format(tmp_path: Path, kind: str) -> None:
    source = read_source(_write(tmp_path, kind), labels=["pos", "kind"])
    np.testing.assert_allclose(source.activity, X, rtol=1e-6)
    np.testing.assert_allclose(source.labels[0], POS, rtol=1e-12)
    np.testing.assert_array_equal(source.labels[1], KIND)
    assert [v.dtype.kind for v in source.labels] == ["f", "i"]
    assert source.names == ("pos", "kind")
    with pytest.raises(DataError, match="absent"):
        read_source(tmp_path / f"data.{kind}", labels=["absent"])


def test_a_label_of_its_own_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", KIND)
    path = tmp_path / "x.npy"
    assert read_source(path, label_file=tmp_path / "y.npy").names == ("y.npy",)
    named = read_source(path, labels=["kind"], label_file=tmp_path / "y.npy")
    assert named.names == ("kind",)
    np.testing.assert_array_equal(named.labels[0], KIND)
    two = read_source(path, labels=["pos", "kind"], label_file=_write(tmp_path, "csv"))
    assert [v.shape for v in two.labels] == [(60,), (60,)]
    with pytest.raises(DataError, match="one label at a time"):
        read_source(path, labels=["a", "b"], label_file=tmp_path / "y.npy")


def test_whole_numbers_written_as_floats_stay_continuous(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b,y\n" + "0.5,1.5,2.0\n0.1,0.2,3.0\n")
    assert read_source(tmp_path / "x.csv", labels=["y"]).labels[0].dtype == np.float64


def test_several_candidates_are_listed_and_damage_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", one=X, two=X)
    with pytest.raises(DataError, match="one, two"):
        read_source(tmp_path / "two.npz")
    assert read_source(tmp_path / "two.npz", activity="two").activity.shape == X.shape
    (tmp_path / "bad.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(GrevyError):
        read_source(tmp_path / "bad.npz")
    with pytest.raises(DataError, match="units and bins"):
        read_source(tmp_path / "two.npz", bin_s=0.1)


def test_a_file_cut_short_anywhere_is_said(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "whole.mat", {"activity": X[:3], "pos": POS[:3]})
    blob = (tmp_path / "whole.mat").read_bytes()
    for size in range(0, len(blob) - 60, 37):  # beyond, the first array is whole
        (tmp_path / "cut.mat").write_bytes(blob[:size])
        with pytest.raises(GrevyError, match=r"cut\.mat"):
            read_source(tmp_path / "cut.mat", labels=["pos"])
