"""Files: what is written comes back bit for bit; what is broken or hostile is refused and named."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import twins
from grevy import CEBRA, room
from grevy.atomic import write_atomic
from grevy.config import Adam, TrainConfig, run_hash
from grevy.encoders import EncoderSpec, module_spec
from grevy.errors import FormatError, LimitError
from grevy.masks import Mask
from grevy.model import Run, embed
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
)
from grevy.recording import Label, Recording
from grevy.store import FORMAT_VERSION, load, read_notes, save
from grevy.training import resume, train
from grevy.windows import ReceptiveField


@pytest.fixture(scope="module")
def run() -> Run:
    config = TrainConfig(
        encoder=EncoderSpec("offset5-model", 6, 2),
        batch_size=8,
        n_negatives=8,
        n_steps=3,
        temperature=1,
        scale="zscore",
        train_on=((0, 40), (40, 90)),
    )
    return train([twins.noise(100, 4)], [config], device="cpu")[0]


def header_of(blob: bytes) -> dict[str, Any]:
    size = int.from_bytes(blob[:8], "little")
    header: dict[str, Any] = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["grevy"])
    return header


def rewrite(
    path: Path,
    *,
    header: Callable[[dict[str, Any]], object] = id,
    tensors: Callable[[dict[str, torch.Tensor]], object] = id,
) -> None:
    """A well-formed file with its contents changed in place by two functions."""
    blob = path.read_bytes()
    parts, head = load_tensors(blob), header_of(blob)
    tensors(parts)
    header(head)
    path.write_bytes(save_tensors(parts, metadata={"grevy": json.dumps(head)}))


def test_round_trip_is_bit_equal(run: Run, tmp_path: Path) -> None:
    path = save(run, tmp_path / "model.pt")
    found = load(path)
    assert found.config == run.config
    assert run_hash(found.config, "", "cpu") == run_hash(run.config, "", "cpu")
    assert found.recording_hash == run.recording_hash
    for a, b in zip(found.sessions[0].weights, run.sessions[0].weights, strict=True):
        assert torch.equal(a, b)
    assert found.digest == run.digest  # of weights, means and sds
    assert np.array_equal(found.losses, run.losses)
    assert np.array_equal(found.temperatures, run.temperatures)
    assert found.state is not None
    assert run.state is not None
    for name in ("momentum", "square", "largest", "sharpness"):
        assert torch.equal(getattr(found.state, name), getattr(run.state, name))
    assert (found.n_negatives, found.parent) == (run.n_negatives, run.parent)
    assert found.history.dtype == np.float32
    rec = twins.noise(50, 4, seed=1)
    assert np.array_equal(embed(found, rec).values, embed(run, rec).values)
    again = save(found, tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "pairs",
    [
        TimePairs((1, 5)),
        DeltaPairs(("a", "b"), lag=3),
        NearPairs(("a",), sd=2),
        ClassPairs("c", balanced=True),
        HybridPairs(NearPairs(("a",), sd=0.5), TimePairs((2,)), behavior_latents=1),
        HybridPairs(ClassPairs("c"), TimePairs((2,)), behavior_latents=2),
    ],
    ids=str,
)
def test_every_kind_of_pairs_comes_back(run: Run, pairs: Pairs, tmp_path: Path) -> None:
    config = replace(run.config, pairs=pairs, seed=2**63 + 5, learning_rate=1 / 3)
    assert load(save(replace(run, config=config), tmp_path / "m")).config == config


def test_numpy_numbers_in_a_config_can_be_saved(run: Run, tmp_path: Path) -> None:
    encoder = EncoderSpec("offset5-model", np.int64(6), np.int32(2))  # type: ignore[arg-type]
    config = replace(run.config, encoder=encoder, pairs=TimePairs((np.int64(2),)))  # type: ignore[arg-type]
    assert load(save(replace(run, config=config), tmp_path / "m")).config == config


def test_the_file_is_safetensors_and_says_what_it_is(run: Run, tmp_path: Path) -> None:
    header = header_of(save(run, tmp_path / "m").read_bytes())
    assert header["format"] == "grevy-run"
    assert header["format_version"] == FORMAT_VERSION
    assert set(header["versions"]) == {"grevy", "torch", "numpy"}


BROKEN_HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer": (lambda h: h.update(format_version=99), "format version 99.*Upgrade"),
    "old": (lambda h: h.update(format_version=0), "version"),
    "word for a version": (lambda h: h.update(format_version="1"), "not a model"),
    "another format": (lambda h: h.update(format="other"), "not a model"),
    "no config": (lambda h: h.pop("config"), "config"),
    "config of the wrong sort": (lambda h: h.update(config=[1]), "whole model"),
    "unknown setting": (lambda h: h["config"].update(speed=3), "whole model"),
    "unknown encoder setting": (lambda h: h["config"]["encoder"].update(depth=3), "whole model"),
    "unknown pair setting": (lambda h: h["config"]["pairs"].update(sd=3), "whole model"),
    "unknown kind": (lambda h: h["config"]["pairs"].update(kind="magic"), "whole model"),
    "no such architecture": (
        lambda h: h["config"]["encoder"].update(architecture="os.system"),
        "whole model",
    ),
    "other width": (lambda h: h["config"]["encoder"].update(hidden=7), "shapes"),
    "huge width": (lambda h: h["config"]["encoder"].update(hidden=10**12), "shapes"),
    "negative width": (lambda h: h["config"]["encoder"].update(hidden=-4), "whole model"),
    "other architecture": (
        lambda h: h["config"]["encoder"].update(architecture="offset10-model"),
        "shapes",
    ),
    "NaN": (lambda h: h["config"].update(temperature=float("nan")), "whole model"),
    "word for a number": (lambda h: h["config"].update(batch_size="many"), "whole model"),
    "truth for a version": (lambda h: h.update(format_version=True), "not a model"),
    "temperature beyond numbers": (lambda h: h.update(temperature=10**400), "whole model"),
    "endless temperature": (lambda h: h.update(temperature=float("inf")), "temperature"),
    "endless negatives": (lambda h: h.update(n_negatives=float("inf")), "count must be"),
    "negatives beyond numbers": (lambda h: h.update(n_negatives=10**30), "count must be"),
    "fewer negatives than none": (lambda h: h.update(n_negatives=-1), "count must be"),
}


@pytest.mark.parametrize("what", BROKEN_HEADERS)
def test_a_changed_header_is_refused(run: Run, what: str, tmp_path: Path) -> None:
    change, sentence = BROKEN_HEADERS[what]
    path = save(run, tmp_path / "m")
    rewrite(path, header=change)
    with pytest.raises(FormatError, match=sentence) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def estimators(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of an estimator of one recording, and of one of two."""
    folder = tmp_path_factory.mktemp("estimators")
    x = np.random.default_rng(0).normal(size=(60, 4))
    made = []
    for name, data, y in (("one", x, None), ("two", [x, x[:, :3]], [x[:, 0], x[:, 1]])):
        model = CEBRA(max_iterations=1, batch_size=8, output_dimension=2, random_state=0)
        model.fit(data, y) if y else model.fit(data)
        made.append(folder / name)
        model.save(made[-1])
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_sessions", "x"), ("num_sessions", 3), ("num_sessions", True),
        ("n_features", {"a": 1}), ("n_features", 5), ("n_features", "x"), ("n_features", [4, 4]),
        ("random_state", float("inf")), ("random_state", 10**400), ("random_state", "x"),
        ("feature_names", "abcd"), ("feature_names", ["a"]), ("feature_names", [[]] * 4),
        ("label_types", [["f8", [float("inf")]] * 2] * 3 + [3]),
    ],
)  # fmt: skip
def test_notes_that_fit_no_run_are_refused(
    estimators: list[Path], name: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    for source in estimators:
        CEBRA.load(source)
        path.write_bytes(source.read_bytes())
        rewrite(path, header=lambda h: h["notes"].update({name: value}))
        with pytest.raises(FormatError, match=r"notes do not describe an estimator|whole model"):
            CEBRA.load(path)


def put(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], object]:
    return lambda t: t.update({name: make(t[name]).contiguous()})


def hole(w: torch.Tensor) -> torch.Tensor:
    w = w.clone()
    w.view(-1)[0] = float("nan")
    return w


BROKEN_TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "NaN weight": (put("session.000.weights.02", hole), "finite"),
    "infinite mean": (put("session.000.mean", lambda w: w / 0), "finite"),
    "no spread": (put("session.000.sd", torch.zeros_like), "sd"),
    "negative spread": (put("session.000.sd", lambda w: -w), "sd"),
    "float64": (put("session.000.weights.00", lambda w: w.double()), "float32"),
    "bfloat16": (put("session.000.weights.00", lambda w: w.bfloat16()), "float32"),
    "transposed": (put("session.000.weights.00", lambda w: w.permute(2, 1, 0)), "shapes"),
    "one weight less": (lambda t: t.pop("session.000.weights.04"), "shapes"),
    "one weight more": (lambda t: t.update({"session.000.weights.99": torch.zeros(1)}), "shapes"),
    "no mean": (lambda t: t.pop("session.000.mean"), "encoder"),
    "mean of another length": (put("session.000.mean", lambda w: w[:-1]), "shapes"),
    "mean without an axis": (put("session.000.mean", lambda w: w[0]), "shapes"),
    "no channels": (put("session.000.mean", lambda w: w[:0]), "shapes"),
    "sd of another length": (put("session.000.sd", lambda w: w[:-1]), "shapes"),
    "losses of another shape": (put("losses", lambda w: w[:, :, :1]), "losses"),
    "losses in bfloat16": (put("losses", lambda w: w.bfloat16()), "whole model"),
    "losses of integers": (put("losses", lambda w: w.long()), "losses"),
    "no losses": (lambda t: t.pop("losses"), "losses"),
    "fewer temperatures": (put("temperatures", lambda w: w[1:]), "temperature"),
    "momentum of another shape": (put("state.momentum", lambda w: w[1:]), "optimiser"),
}


@pytest.mark.parametrize("what", BROKEN_TENSORS)
def test_changed_tensors_are_refused(run: Run, what: str, tmp_path: Path) -> None:
    change, sentence = BROKEN_TENSORS[what]
    path = save(run, tmp_path / "m")
    rewrite(path, tensors=change)
    with pytest.raises(FormatError, match=sentence) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_file_cut_short_anywhere_is_refused(
    run: Run, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = save(run, tmp_path / "m")
    blob = path.read_bytes()
    sizes = [0, 1, 7, 8, 9, 100, *range(200, len(blob), 97), len(blob) - 1]
    record_property("cases", len(sizes) + 1)
    for size in sizes:
        path.write_bytes(blob[:size])
        with pytest.raises(FormatError, match="m"):
            load(path)
    path.write_bytes(blob + b"more")
    with pytest.raises(FormatError):
        load(path)


def test_a_file_costs_under_50_milliseconds(run: Run, tmp_path: Path) -> None:
    took = []
    for _ in range(10):
        begin = time.perf_counter()
        load(save(run, tmp_path / "m"))
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.05


@given(st.data())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_change_of_a_byte_raises_anything_else(
    run: Run, tmp_path: Path, data: st.DataObject
) -> None:
    blob = bytearray(save(run, tmp_path / "m").read_bytes())
    head = 8 + int.from_bytes(blob[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, min(head + 8, len(blob)) - 1))
        blob[where] = data.draw(st.integers(0, 255))
    (tmp_path / "m").write_bytes(blob)
    try:
        found = load(tmp_path / "m")
    except FormatError:
        return
    assert all(bool(torch.isfinite(w).all()) for w in found.sessions[0].weights)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.path),))


@pytest.mark.parametrize("name", ["m.pt", "m.pkl", "m.safetensors", "m"])
def test_nothing_in_a_file_is_ever_executed(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / name
    path.write_bytes(pickle.dumps(Bomb(str(mark))))
    with pytest.raises(FormatError, match="not a safetensors file"):
        load(path)
    torch.save({"state": Bomb(str(mark))}, path)
    with pytest.raises(FormatError, match="safetensors"):
        load(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(str(mark))))
    assert mark.exists()  # the bomb was live


def test_other_files_are_refused_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing-here.*No such file"):
        load(tmp_path / "nothing-here")
    with pytest.raises(FormatError, match="readable"):
        load(tmp_path)
    path = tmp_path / "other"
    path.write_bytes(save_tensors({"a": torch.zeros(3)}))
    with pytest.raises(FormatError, match="not a model saved by grevy"):
        load(path)
    for text in ("[1]", "{", "null", "[" * 100_000):
        path.write_bytes(save_tensors({"a": torch.zeros(3)}, metadata={"grevy": text}))
        with pytest.raises(FormatError, match="other"):
            load(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match="cut short"):
        load(path)


def test_a_file_is_read_once_its_header_fits_and_there_is_room(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(run, tmp_path / "m")
    size = path.stat().st_size
    os.truncate(path, 3 << 30)  # without a byte on disk
    tracemalloc.start()
    for look in (load, read_notes, CEBRA.load):
        with pytest.raises(FormatError, match="cut short"):
            look(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    os.truncate(path, size)
    monkeypatch.setattr(room, "_ALWAYS", 0)
    monkeypatch.setattr(room, "free_bytes", lambda: size)
    with pytest.raises(LimitError, match=r"m must fit into half of .* GB"):
        load(path)
    assert read_notes(path) == {}
    torch.save(torch.ones(size), tmp_path / "m.pt")
    with pytest.raises(LimitError, match=r"m\.pt must fit into half of .* GB"):
        CEBRA.load(tmp_path / "m.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m")
    for look in (load, read_notes, CEBRA.load):
        with pytest.raises(FormatError, match="a model file must be a regular file"):
            look(tmp_path / "m")


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def half() -> None:
        with write_atomic(target) as file:
            file.write(b"half of the n")
            assert target.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with write_atomic(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failing_disk_leaves_the_old_file(
    run: Run, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(run, tmp_path / "m")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        save(replace(run, recording_hash="another"), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_saved_file_has_the_permissions_of_any_new_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = save(run, tmp_path / "m")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def noisy(seed: int, channels: int) -> Recording:
    rng = np.random.default_rng(seed)
    labels = {
        "a": Label(rng.normal(size=90), "continuous"),
        "c": Label(rng.integers(0, 2, 90), "discrete"),
    }
    return twins.noise(90, channels, labels=labels, seed=seed)


SEVERAL = TrainConfig(
    MixedPairs(DeltaPairs(("a",)), "c", shared_only=True),
    EncoderSpec("offset5-model", 6, 2),
    batch_size=8,
    n_steps=4,
    learn_temperature=True,
    min_temperature=0.25,
    distance="euclidean",
    adam=Adam(beta1=0.8, weight_decay=0.01, amsgrad=True),
    masks=(Mask("neurons", (0.2, 0.5)), Mask("time_block", (0.5,), span=2)),
    train_on=(((0, 80),), ((0, 30), (40, 90))),
)


def test_sessions_options_and_the_optimiser_come_back(tmp_path: Path) -> None:
    recordings = [noisy(0, 3), noisy(1, 5)]
    (run,) = train(recordings, [SEVERAL], device="cpu")
    found = load(save(run, tmp_path / "m", notes={"who": ["me", 1]}))
    assert found.config == replace(SEVERAL, precision="float32")
    assert read_notes(tmp_path / "m") == {"who": ["me", 1]}
    assert [s.n_channels for s in found.sessions] == [3, 5]
    for a, b in zip(found.sessions, run.sessions, strict=True):
        for x, y in zip((*a.weights, a.mean, a.sd), (*b.weights, b.mean, b.sd), strict=True):
            assert torch.equal(x, y)
    assert run.state is not None
    assert found.state is not None
    for name in ("momentum", "square", "largest", "sharpness", "steps"):
        assert torch.equal(getattr(found.state, name), getattr(run.state, name))
    assert np.array_equal(found.temperatures, run.temperatures)
    assert (found.temperature, found.n_negatives) == (run.temperature, 16)
    assert (found.recording_hash, found.parent) == (run.recording_hash, "")
    (whole,) = train(recordings, [replace(SEVERAL, n_steps=7)], device="cpu")
    more = load(save(resume(found, recordings, 3, device="cpu"), tmp_path / "more"))
    assert more.digest == whole.digest
    assert np.array_equal(more.losses, whole.losses)
    assert more.parent == run.digest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("steps", lambda t: t * 0),
        ("steps", lambda t: t.float()),
        ("steps", lambda t: torch.cat([t, t])),
        ("square", lambda t: t[1:]),
    ],
)
def test_a_state_that_does_not_hold_together_is_refused(
    run: Run, name: str, change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    path = save(run, tmp_path / "m")
    rewrite(path, tensors=put(f"state.{name}", change))
    with pytest.raises(FormatError, match="optimiser"):
        load(path)


class Line(torch.nn.Module):
    """One linear layer of one sample."""

    num_output = 2
    offset = ReceptiveField(0, 1)

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[..., 0])[:, :2]


def test_a_module_is_given_back_when_loading(run: Run, tmp_path: Path) -> None:
    rec = twins.noise(60, 4)
    spec = module_spec(Line())
    config = replace(run.config, encoder=spec, train_on=None)
    (own,) = train([rec], [config], device="cpu")
    path = save(own, tmp_path / "m")
    found = load(path, encoder=spec)
    assert found.config == replace(config, precision="float32")
    assert np.array_equal(embed(found, rec).values, embed(own, rec).values)
    other = load(path, encoder=module_spec(Line()))  # its own weights do not matter
    assert np.array_equal(embed(other, rec).values, embed(own, rec).values)
    with pytest.raises(FormatError, match=r"custom module '.*Line'.*found none"):
        load(path)
    with pytest.raises(FormatError, match=r"custom module '.*Line'.*found 'grevy_net"):
        load(path, encoder=module_spec(_elsewhere()))
    with pytest.raises(FormatError, match="shapes"):
        load(path, encoder=module_spec(Line(width=3)))


def _elsewhere() -> torch.nn.Module:
    class Other(Line):
        __module__ = "grevy_net"

    return Other()
