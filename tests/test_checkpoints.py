"""CEBRA's saved estimators: everything comes back, without CEBRA and without a GPU."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grevy.checkpoints import read_checkpoint
from grevy.errors import FormatError, GrevyError, UnsafeFileError
from grevy.restricted import Offset

RNG = np.random.default_rng()

ARGS: dict[str, Any] = {
    "model_architecture": "offset1-model",
    "device": "cuda_if_available",
    "criterion": "infonce",
    "distance": "cosine",
    "conditional": None,
    "temperature": 1.0,
    "temperature_mode": "constant",
    "min_temperature": 0.1,
    "time_offsets": 1,
    "delta": None,
    "max_iterations": 3,
    "max_adapt_iterations": 500,
    "batch_size": 32,
    "learning_rate": 3e-4,
    "optimizer": "adam",
    "output_dimension": 3,
    "verbose": False,
    "num_hidden_units": 4,
    "pad_before_transform": True,
    "hybrid": False,
    "optimizer_kwargs": (("betas", (0.9, 0.999)), ("eps", 1e-8)),
    "masking_kwargs": None,
}


def layers(channels: int) -> dict[str, torch.Tensor]:
    sizes = {"1": (4, channels), "3": (4, 4), "5": (2, 4), "7": (3, 2)}
    tensors = {}
    for layer, (outputs, inputs) in sizes.items():
        tensors[f"net.{layer}.weight"] = torch.randn(outputs, inputs)
        tensors[f"net.{layer}.bias"] = torch.randn(outputs)
    return tensors


def saved(sessions: int | None = None, *, hybrid: bool = False) -> tuple[dict[str, Any], list[Any]]:
    """What CEBRA hands to torch.save, and the encoders in it."""
    counts = [7, 5, 6][: sessions or 1]
    encoders = [layers(n) for n in counts]
    if sessions is None:
        prefix = "module." if hybrid else ""
        model = OrderedDict((prefix + k, v) for k, v in encoders[0].items())
    else:
        model = OrderedDict((f"{s}.{k}", v) for s, e in enumerate(encoders) for k, v in e.items())
    features = counts[0] if sessions is None else counts
    label = (np.dtype("uint8"), (300,))
    state_dict = {
        "model": model,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 3e-4}]},
        "loss": torch.randn(3),
        "decode": [],
        "criterion": OrderedDict(log_inverse_temperature=torch.tensor(0.1)),
        "version": "0.6.1",
        "log": {k: [] if hybrid else [1.0, 2.0, 3.0] for k in ("pos", "neg", "total")},
        "n_features": features,
    }
    whole = {
        "args": dict(ARGS, hybrid=hybrid),
        "state": {
            "label_types_": [label] if sessions is None else [[label] * sessions],
            "device_": "cuda:0",
            "n_features_": features,
            "n_features_in_": features,
            "num_sessions_": sessions,
            "offset_": Offset(0, 1),
            "solver_name_": "single-session",
        },
        "state_dict": state_dict,
        "metadata": {"backend": "sklearn", "cebra_version": "0.6.1", "torch_version": "2.9"},
    }
    return whole, encoders


def write(whole: Any, path: Path) -> Path:
    """torch.save, with the offset under the name that CEBRA gives it."""
    torch.save(whole, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(
                name,
                part.replace(
                    b"cgrevy.restricted.makers\nOffset\n", b"ccebra.data.datatypes\nOffset\n"
                ),
            )
    return path


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name].cpu()), name


@pytest.mark.parametrize(
    ("sessions", "hybrid"), [(None, False), (None, True), (1, False), (2, False), (3, False)]
)
def test_all_is_read(tmp_path: Path, sessions: int | None, hybrid: bool) -> None:
    whole, encoders = saved(sessions, hybrid=hybrid)
    found = read_checkpoint(write(whole, tmp_path / "any name"))
    assert found.args == whole["args"]
    assert found.label_types == whole["state"]["label_types_"]
    assert found.device == "cuda:0"
    assert found.n_features == whole["state"]["n_features_"]
    assert found.num_sessions == sessions
    assert found.offset == (0, 1)
    assert len(found.weights) == len(encoders)
    for a, b in zip(found.weights, encoders, strict=True):
        equal(a, b)
    np.testing.assert_array_equal(found.loss, whole["state_dict"]["loss"].numpy())
    assert {k: v.tolist() for k, v in found.log.items()} == whole["state_dict"]["log"]
    equal(found.criterion, whole["state_dict"]["criterion"])
    assert found.optimizer == whole["state_dict"]["optimizer"]
    assert found.versions == {"cebra": "0.6.1", "torch": "2.9"}


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("", "args"),
        ("", "state"),
        ("", "state_dict"),
        ("args", "temperature"),
        ("state", "offset_"),
        ("state", "n_features_"),
        ("state_dict", "model"),
        ("state_dict", "loss"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, where: str, key: str) -> None:
    whole, _ = saved()
    del (whole[where] if where else whole)[key]
    with pytest.raises(FormatError, match=f"lacks {where}\\.?{key}"):
        read_checkpoint(write(whole, tmp_path / "x"))


def test_an_optimizer_is_not_needed(tmp_path: Path) -> None:
    whole, _ = saved()
    del whole["state_dict"]["optimizer"], whole["metadata"]
    found = read_checkpoint(write(whole, tmp_path / "x"))
    assert found.optimizer is None
    assert found.versions == {"cebra": "0.6.1"}


@pytest.mark.parametrize("version", ["0.4.0", "0.5.0"])
def test_models_from_before_masks(tmp_path: Path, version: str) -> None:
    # CEBRA 0.6 added masking_kwargs, and reads the files of its forerunners.
    whole, encoders = saved()
    del whole["args"]["masking_kwargs"], whole["state_dict"]["n_features"]
    whole["metadata"]["cebra_version"] = version
    found = read_checkpoint(write(whole, tmp_path / "x"))
    assert found.args == whole["args"] | {"masking_kwargs": None}
    assert found.versions["cebra"] == version
    equal(found.weights[0], encoders[0])


def test_models_of_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    whole, encoders = saved(2)
    write(whole, tmp_path / "x")
    old, new = (b"X" + struct.pack("<I", len(n)) + n for n in (b"cpu", b"cuda:0"))
    with zipfile.ZipFile(tmp_path / "x") as a, zipfile.ZipFile(tmp_path / "y", "w") as b:
        for name in a.namelist():
            content = a.read(name)
            assert (old in content) == name.endswith("data.pkl")
            b.writestr(name, content.replace(old, new))
    found = read_checkpoint(tmp_path / "y")
    assert found.device == "cuda:0"
    for weights, encoder in zip(found.weights, encoders, strict=True):
        equal(weights, encoder)
        assert all(tensor.device.type == "cpu" for tensor in weights.values())


def test_a_hostile_model_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    whole, _ = saved()
    whole["metadata"]["torch_version"] = Runs()
    write(whole, tmp_path / "x")
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        read_checkpoint(tmp_path / "x")
    assert not marker.exists()
    del whole["state"]["offset_"]
    torch.save(whole, tmp_path / "y")
    torch.load(tmp_path / "y", weights_only=False)
    assert marker.exists()  # else the test above shows nothing


def test_wrong_kinds_are_refused(tmp_path: Path) -> None:
    def broken(where: str, key: str, value: Any) -> None:
        whole, _ = saved(2)
        whole[where][key] = value
        with pytest.raises(FormatError):
            read_checkpoint(write(whole, tmp_path / "x"))

    broken("state", "n_features_", [7])
    broken("state", "n_features_", [7, "5"])
    broken("state", "num_sessions_", None)
    broken("state", "num_sessions_", 3)
    broken("state", "num_sessions_", 2**40)
    broken("state", "solver_name_", 3)
    broken("state_dict", "model", {"net.0.weight": torch.ones(2)})
    broken("state_dict", "model", {"0.net.0.weight": torch.ones(2)})
    broken("state_dict", "model", {"0.a": torch.ones(2), "1.a": torch.full((2,), torch.nan)})
    broken("state_dict", "model", {"0.a": 1, "1.a": 2})
    broken("state_dict", "loss", "abc")
    broken("state_dict", "loss", torch.ones(2, 2))
    torch.save([1, 2], tmp_path / "y")
    with pytest.raises(FormatError, match="list"):
        read_checkpoint(tmp_path / "y")


def test_a_file_of_a_whole_object_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "x")
    with pytest.raises(UnsafeFileError, match="Linear"):
        read_checkpoint(tmp_path / "x")


def test_damage_gives_a_sentence(tmp_path: Path) -> None:
    whole, _ = saved(2)
    good = write(whole, tmp_path / "x").read_bytes()
    for cut in RNG.integers(0, len(good), 40):
        (tmp_path / "y").write_bytes(good[:cut])
        with pytest.raises(GrevyError):
            read_checkpoint(tmp_path / "y")


MODES: dict[str, dict[str, Any]] = {
    "time": {},
    "behaviour": {"y": ["f4"], "conditional": "time_delta", "model_architecture": "offset10-model"},
    "half": {"y": ["f2"]},
    "double": {"y": ["f8"], "conditional": "delta_normal", "delta": 0.1},
    "discrete": {"y": ["u1"]},
    "short": {"y": ["i2"]},
    "mixed": {"y": ["f4", "i8"]},
    "full": {"batch_size": None},
    "hybrid": {"y": ["f4"], "hybrid": True, "conditional": "time_delta"},
    "learned": {"temperature_mode": "auto", "masking_kwargs": (("RandomNeuronMask", 0.2),)},
    "sessions": {"y": ["f4"], "sessions": True},
    "discrete sessions": {"y": ["i8"], "sessions": True},
}


@pytest.mark.parametrize("mode", MODES)
def test_models_of_cebra(tmp_path: Path, mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cebra = pytest.importorskip("cebra")
        options = dict(MODES[mode])
        kinds, several = options.pop("y", []), options.pop("sessions", False)
        lengths, channels = ([120, 90], [7, 5]) if several else ([120], [7])
        data = [
            RNG.normal(size=(n, c)).astype("f4") for n, c in zip(lengths, channels, strict=True)
        ]
        labels = []
        for kind in kinds:
            whole = [
                RNG.normal(size=(n, 2)).astype(kind)
                if "f" in kind
                else (np.arange(n) % 3).astype(kind)
                for n in lengths
            ]
            labels.append(whole if several else whole[0])
        settings = {"batch_size": 16, "max_iterations": 3, "num_hidden_units": 4, "device": "cpu"}
        model = cebra.CEBRA(**settings | {"output_dimension": 3} | options)
        model.fit(data if several else data[0], *labels)
        model.save(tmp_path / "x")
    found = read_checkpoint(tmp_path / "x")
    modules = list(model.model_) if several else [model.model_]
    assert len(found.weights) == len(modules)
    for weights, module in zip(found.weights, modules, strict=True):
        state = {k.removeprefix("module."): v for k, v in module.state_dict().items()}
        equal(weights, state)
    assert found.args == model.get_params()
    assert found.label_types == model.label_types_
    assert found.offset == (model.offset_.left, model.offset_.right)
    assert (found.device, found.n_features) == (model.device_, model.n_features_)
    assert (found.num_sessions, found.solver_name) == (model.num_sessions_, model.solver_name_)
    np.testing.assert_array_equal(found.loss, model.state_dict_["loss"].numpy())
    assert {k: v.tolist() for k, v in found.log.items()} == model.state_dict_["log"]
    equal(found.criterion, dict(model.state_dict_["criterion"]))
    assert found.optimizer is not None
    steps = [s["step"].item() for s in found.optimizer["state"].values()]
    assert steps == [s["step"].item() for s in model.state_dict_["optimizer"]["state"].values()]
    assert found.versions["cebra"] == cebra.__version__
