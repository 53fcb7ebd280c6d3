from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import grevy
from grevy.aliases import MODULES

NAMES = [(module, name) for module, names in MODULES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_both_ways_lead_to_grevys_own(module: str, name: str) -> None:
    home, _, other = MODULES[module][name].partition(":")
    own = getattr(import_module(f"grevy.{home}"), other or name)
    by_attribute: object = grevy
    for part in [*module.split("."), name]:
        by_attribute = getattr(by_attribute, part)
    scope: dict[str, object] = {}
    exec(f"from grevy.{module} import {name} as found", scope)
    assert by_attribute is own
    assert scope["found"] is own


@pytest.mark.parametrize("module", sorted(MODULES))
def test_unknown_names_are_unknown(module: str) -> None:
    assert not hasattr(import_module(f"grevy.{module}"), "no_such_name")
    with pytest.raises(ImportError):
        exec(f"from grevy.{module} import no_such_name", {})
    with pytest.raises(ImportError):
        import_module(f"grevy.{module}.no_such_module")


def test_grevy_and_its_aliases_are_light() -> None:
    code = (
        "import sys, grevy, grevy.sklearn, grevy.data.helper; assert not hasattr(grevy, 'nope'); "
        "print(sorted({'torch', 'pynwb', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
