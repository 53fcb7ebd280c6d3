"""The doctor says what is there, passes where grevy works, and fails where it does not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from grevy import doctor
from grevy.cli import main


def test_it_passes_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "grevy" / "dandi").mkdir(parents=True)
    (tmp_path / "grevy" / "dandi" / "x.nwb").write_bytes(bytes(2_000_000))
    begin = time.monotonic()
    main(["doctor", "--json"])
    assert time.monotonic() - begin < 20
    facts = json.loads(capsys.readouterr().out)
    assert facts["self-test"] == "passed"
    assert {"grevy", "torch", "pynwb", "processors", "device", "memory"} <= set(facts)
    assert facts["cache of recordings"] == f"{tmp_path / 'grevy'}, 2 MB in 1 files"
    assert any(name.startswith("extra") for name in facts)
    assert "GB free" in facts["temporary files"]


def test_without_a_home_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found = doctor._folders()
    for name in ("cache of recordings", "cache of kernels"):
        assert found[name] == "nowhere: there is no home folder to keep it in"


def test_extras_are_those_that_the_package_states(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = [
        "numpy>=1.26", "no-such-package>=0.5; extra == 'umap'", "pytest>=8; extra == 'dev'",
        "h5py>=3; extra == 'two'", 'other-one>=2; (python_version > "3") and extra == "two"',
    ]  # fmt: skip
    monkeypatch.setattr(doctor, "requires", lambda name: stated)
    assert doctor._extras() == {
        "extra umap": "no-such-package not installed",
        "extra two": f"h5py {h5py.__version__}, other-one not installed",
    }


def noise(train: Any) -> Any:
    """A trainer whose runs know nothing: it is given samples in another order."""
    rng = np.random.default_rng(0)

    def other(recordings: Any, configs: Any, **how: Any) -> Any:
        mixed = [replace(r, activity=rng.permutation(r.activity)) for r in recordings]
        return train(mixed, configs, **how)

    return other


@pytest.mark.parametrize(
    ("name", "broken", "says"),
    [
        ("train", noise(doctor.train), "two equal runs differ"),
        ("held_out_bits", lambda *a, **k: float("nan"), "nan bits"),
        ("neighbours", lambda a, b, k, **_: np.zeros((len(b), k), np.int64), "angle is decoded"),
        ("embed", lambda *a, **k: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_fails_is_said_and_is_no_success(
    name: str,
    broken: Any,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, name, broken)
    with pytest.raises(SystemExit) as left:
        main(["doctor"])
    assert left.value.code == 3
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("self-test  "))
    assert "failed on cpu: " in line
    assert says in line
