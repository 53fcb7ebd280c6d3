from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import grevy
from grevy import cli
from grevy.errors import ConfigError
from grevy.masks import Mask
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, TimePairs
from grevy.recording import Label, make_recording
from grevy.settings import (
    RunConfig,
    changed,
    grid,
    load_toml,
    read_config,
    resolve,
    settle,
    to_toml,
)


def test_toml_gives_back_the_settings(tmp_path: Path) -> None:
    config = read_config(
        {
            "file": 'a "strange"\\name\n\x7f\N{ZEBRA FACE}.nwb', "labels": ["x", "y"], "bin_s": 0.1,
            "latents": [3, 4], "seed": 7, "pairs": "hybrid",
        }
    )  # fmt: skip
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config, {"window": '5 samples "quoted"'}), encoding="utf-8")
    assert read_config(load_toml(path)) == config
    assert changed(config, read_config({**load_toml(path), "seed": 8})) == ["seed"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"file": "x", "step": 3}, "setting 'step'.*Did you mean 'steps'.*Settings are: file"),
        ({"file": "x", "learning_rates": [1]}, "Did you mean 'learning_rate'"),
        ({"file": "x", "__class__": "os.system"}, r"setting '__class__': [^?]*Settings are"),
        ({"file": "x", "steps": "many"}, "setting 'steps'"),
        ({"file": "x", "pairs": "space"}, "setting 'pairs'"),
        ({}, "setting 'file'"),
        ({"file": "x", "window_s": 0}, "window_s must be positive"),
        ({"file": "x", "decay_s": -1}, "decay_s must not be negative"),
        ({"file": "x", "pairs": "behavior"}, "behavior pairs need a label"),
        ({"file": "x", "folds": 1}, "folds must be at least 2"),
        ({"file": "x", "architecture": "offset11-model"}, "architecture must be one of"),
        ({"file": "x", "latents": []}, "latents"),
        ({"file": "bad\udcff.nwb"}, r"'file' must be text .* found 'bad\\udcff\.nwb'\. Rename"),
        ({"file": "x", "labels": ["\udcff"]}, "'labels' must be text that a file in UTF-8"),
        ({"file": "x", "seeds": 0}, "seeds must be at least 1"),
        ({"file": "x", "surrogates": -1}, "surrogates at least 0; found 3 and -1"),
        ({"file": "x", "labels": ["x"], "behaviour": ["y", "x"]}, "found 'x' as both"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_config(values)


HOSTILE = (
    "!!python/object/apply:os.system ['touch marker']",
    "file = '{{ cycler.__init__.__globals__.os.system(\"touch marker\") }}'\nsteps = 'x'",
    "file = 'x'\narchitecture = '__import__(\"os\").system(\"touch marker\")'",
    "file = 'x'\narchitecture = 'os.system'",
    "file = 'x'\nseed = '__import__(\"os\").system(\"touch marker\")'",
    "file = 'x'\ndevice = '$(touch marker)'\nsteps = 0",
    "file = 'x.nwb; touch marker'",
    "file = '|touch marker'",
    "file = 'x'\n[__init__.__globals__]\nos = 'touch marker'",
    "file = 'x'\nunits = '__import__(\"os\").system(\"touch marker\") == 1'\nfolds = -1",
    "file = " + "[" * 3000 + "]" * 3000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_settings_run_nothing(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "--config", "run.toml", "--out", "out"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("grevy: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


def test_the_hostile_settings_do_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    eval(HOSTILE[2].split("architecture = ")[1].strip("'"))
    assert (tmp_path / "marker").exists()


FORBIDDEN = {"eval", "exec", "compile", "__import__", "input", "system", "popen", "Popen"}
UNSAFE = {("pickle", "load"), ("pickle", "loads"), ("torch", "load"), ("joblib", "load"),
          ("yaml", "load"), ("marshal", "loads"), ("pd", "read_pickle")}  # fmt: skip


def unsafe_calls(text: str) -> list[str]:
    """Calls that run text, start programs or unpickle."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN:
                found.append(f"{name} in line {node.lineno}")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=of), attr=name)) if (
                of,
                name,
            ) in UNSAFE or (of in ("os", "subprocess") and name in FORBIDDEN):
                found.append(f"{of}.{name} in line {node.lineno}")
            case ast.Import(names=[ast.alias(name=name), *_]) if name in ("yaml", "dill", "shelve"):
                found.append(f"{name} in line {node.lineno}")
            case _:
                pass
    return found


def test_no_module_runs_text_or_unpickles() -> None:
    for line in ("eval(x)", "pickle.loads(x)", "import yaml", "os.system(x)", "torch.load(f)"):
        assert unsafe_calls(line)
    source = Path(grevy.__file__).parent
    found = {str(p): calls for p in source.rglob("*.py") if (calls := unsafe_calls(p.read_text()))}
    assert not found


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(path)
    path.write_text("= 3")
    with pytest.raises(ConfigError, match="not TOML"):
        load_toml(path)
    path.write_text("seed = " + 5000 * "9")
    with pytest.raises(ConfigError, match="not TOML: Exceeds the limit"):
        load_toml(path)


@pytest.mark.parametrize(
    ("rate", "name", "offset"),
    [(30.0, "offset10-model", 10), (16.0, "offset5-model", 5), (3.0, "offset1-model", 1)],
)
def test_seconds_become_samples(rate: float, name: str, offset: int) -> None:
    recording = make_recording(np.zeros((50, 2)), rate_hz=rate)
    base, resolved = resolve(recording, RunConfig(file="x"))
    assert base.encoder.architecture == name
    assert base.pairs == TimePairs((offset,))
    assert f"{offset} samples" in resolved["offset"]


def test_a_preset_leaves_the_grid_its_temperatures() -> None:
    recording = make_recording(np.zeros((50, 2)), rate_hz=30.0)
    for temperatures in ((1.0, 0.3), (0.2,)):
        config = RunConfig(file="x", preset="robust", temperature=temperatures)
        base = resolve(recording, config)[0]
        assert (base.temperature, base.smoothing) == (temperatures[0], 4.0)
        assert base.masks == (Mask("neurons", (0.1,)),)
        assert grid(config)["temperature"] == temperatures
    assert resolve(recording, RunConfig(file="x"))[0].masks == ()


def test_labels_become_pairs_of_their_kind() -> None:
    labels = {
        "x": Label(np.zeros(50), "continuous"),
        "side": Label(np.zeros(50, dtype=np.int64), "discrete"),
    }
    recording = make_recording(np.zeros((50, 2)), rate_hz=30.0, labels=labels)

    def pairs(**values: object) -> object:
        return resolve(recording, read_config({"file": "f", **values}))[0].pairs

    assert pairs(pairs="behavior", labels=["x"]) == DeltaPairs(("x",), 10)
    assert pairs(pairs="behavior", labels=["side"]) == ClassPairs("side")
    assert pairs(pairs="hybrid", labels=["x"]) == HybridPairs(
        DeltaPairs(("x",), 10), TimePairs((10,))
    )
    with pytest.raises(ConfigError, match="one discrete label or from continuous ones"):
        pairs(pairs="behavior", labels=["x", "side"])
    with pytest.raises(ConfigError, match="label 'z' is not in the recording; it has: x, side"):
        pairs(pairs="behavior", labels=["z"])


def test_what_the_recording_decides_is_written_down() -> None:
    spikes = make_recording(np.zeros((50, 2)), rate_hz=20.0, activity_unit="spikes/bin")
    config = settle(spikes, RunConfig(file="x"))
    assert (config.bin_s, config.architecture) == (0.05, "offset5-model")
    assert settle(spikes, config) == config
    assert (
        settle(make_recording(np.zeros((50, 2)), rate_hz=20.0), RunConfig(file="x")).bin_s is None
    )
