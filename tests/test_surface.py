from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import grevy
from grevy.cli import app, main

ROOT = Path(__file__).parent.parent


def test_public_names_are_sorted_and_all_there() -> None:
    assert grevy.__all__ == sorted(grevy.__all__)
    assert set(grevy.__all__) == set(grevy._HOME)
    for name in grevy.__all__:
        assert getattr(grevy, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'zebra'"):
        _ = grevy.zebra
    assert not hasattr(grevy, "zebra")


@pytest.mark.parametrize("code", ["import grevy", "import grevy.cli; grevy.cli.main(['--help'])"])
def test_import_and_help_are_light(code: str) -> None:
    check = (
        "import sys\ntry:\n    exec(sys.argv[1])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pynwb', 'sklearn', 'matplotlib', 'scipy', 'h5py'} & set(sys.modules)\n"
        "raise SystemExit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check, code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_bad_recording_is_refused_before_what_decodes_and_draws_is_loaded(
    tmp_path: Path,
) -> None:
    """Those imports take seconds, the sentence shall not."""
    check = (
        "import sys, grevy.cli\ntry:\n    grevy.cli.main(['run', 'bad.nwb'])\n"
        "except SystemExit as left:\n    code = left.code\n"
        "heavy = {'pynwb', 'sklearn', 'matplotlib', 'scipy.stats'} & set(sys.modules)\n"
        "raise SystemExit(f'loaded: {heavy}' if heavy else code)"
    )
    (tmp_path / "bad.nwb").write_text("no recording")
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("grevy: the recording must be an NWB file")
    assert done.stderr.count("\n") == 1


def test_the_reference_of_commands_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["grevy"])  # the usage lines name the program
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written.strip() == app.generate_docs().strip(), "run scripts/write-cli-reference"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--foo"], "--foo"),
        (["run"], "name the recording"),
        (["run", "x.nwb", "--steps", "many"], "steps"),
        (["run", "x.nwb", "--pairs", "space"], "pairs"),
        (["run", "x.nwb", "--folds", "1"], "folds must be at least 2"),
        (["inspect", "no-such-file.nwb"], "no-such-file.nwb"),
        (["run", "no-such-file.nwb", "--out", "never"], "no-such-file.nwb"),
        (["run", "--config", "no-such.toml"], "no-such.toml"),
        (["report", "no-such-folder"], "no-such-folder"),
        (["fly"], "fly"),
    ],
)
def test_a_users_error_is_one_sentence_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(words)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("grevy: ")
    assert says in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_no_public_name_is_also_a_module() -> None:
    files = [
        *(ROOT / "src" / "grevy").glob("*.py"),
        *(ROOT / "src" / "grevy").glob("*/__init__.py"),
    ]
    modules = {p.parent.stem if p.stem == "__init__" else p.stem for p in files}
    assert not modules & set(grevy.__all__), "importing the module would hide the name"


def test_a_simulated_session_is_inspected_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.nwb"
    words = ["simulate", str(file), "--movies", "2", "--repeats", "3", "--frames", "30"]
    main([*words, "--cells", "5"])
    capsys.readouterr()
    main(["inspect", str(file), "--json"])
    seen = json.loads(capsys.readouterr().out)
    assert seen["suggestion"].startswith("grevy run ")
    assert seen["activity"][0]["shape"][0] == 5
    main(["inspect", str(file)])
    assert "Remarkable" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "not written over" in capsys.readouterr().err
