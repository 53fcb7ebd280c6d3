"""Dotted names of the CEBRA library that notebooks use: one table, no second implementation.

`import grevy as cebra; cebra.sklearn.metrics.infonce_loss(...)` and `from
grevy.data.helper import ensemble_embeddings` both resolve here; each such module is made when it
is first asked for and hands out the names below from where they live.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "install"]

_METRICS = {
    "consistency_score": "consistency",
    "goodness_of_fit_history": "metrics",
    "goodness_of_fit_score": "metrics",
    "infonce_loss": "metrics",
    "infonce_to_goodness_of_fit": "metrics",
}
_HELPER = {
    "OrthogonalProcrustesAlignment": "procrustes",
    "align_embeddings": "consistency",
    "ensemble_embeddings": "procrustes",
}
_DECODERS = {"KNNDecoder": "decoders", "L1LinearRegressor": "decoders"}
_PLOTS = {
    "compare_models": "plotting.models",
    "plot": "plotting.models",
    "plot_consistency": "plotting.models",
    "plot_embedding": "plotting.models",
    "plot_loss": "plotting.models",
    "plot_overview": "plotting.models",
    "plot_temperature": "plotting.models",
}

MODULES: dict[str, dict[str, str]] = {
    "data": {},
    "data.helper": _HELPER,
    "data.load": {"load": "loading:load_data", "load_data": "loading"},
    "grid_search": {"GridSearch": "grid.search"},
    "integrations": {},
    "integrations.deeplabcut": {"load_deeplabcut": "loading"},
    "integrations.matplotlib": _PLOTS,
    "integrations.plotly": {"plot_embedding_interactive": "plotting.interactive"},
    "integrations.sklearn": {},
    "integrations.sklearn.cebra": {"CEBRA": "estimator"},
    "integrations.sklearn.decoder": _DECODERS,
    "integrations.sklearn.helpers": {"align_embeddings": "consistency"},
    "integrations.sklearn.metrics": _METRICS,
    "models": {"get_options": "architectures:get_options"},
    "sklearn": {"CEBRA": "estimator"},
    "sklearn.cebra": {"CEBRA": "estimator"},
    "sklearn.decoder": _DECODERS,
    "sklearn.helpers": {"align_embeddings": "consistency"},
    "sklearn.metrics": _METRICS,
}
"""Dotted name below `grevy`, and for each of its names the module, or module:name, it lives in."""


class _Aliases(MetaPathFinder, Loader):
    """Finds the modules of the table."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        own, _, rest = fullname.partition(".")
        if own != __package__ or rest not in MODULES:
            return None
        package = any(name.startswith(rest + ".") for name in MODULES)
        return ModuleSpec(fullname, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        rest = module.__name__.partition(".")[2]
        names = MODULES[rest]
        children = sorted(
            name[len(rest) + 1 :]
            for name in MODULES
            if name.startswith(rest + ".") and "." not in name[len(rest) + 1 :]
        )

        def find(name: str) -> Any:
            if name in names:
                home, _, other = names[name].partition(":")
                value = getattr(import_module(f".{home}", __package__), other or name)
            elif name in children:
                value = import_module(f"{module.__name__}.{name}")
            else:
                raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
            setattr(module, name, value)
            return value

        module.__doc__ = f"Names of CEBRA's `{rest}`, from where they live in grevy."
        module.__all__ = [*sorted(names), *children]  # type: ignore[attr-defined]
        module.__getattr__ = find  # type: ignore[method-assign]
        module.__dir__ = lambda: list(module.__all__)  # type: ignore[method-assign]


def install() -> None:
    """Make the names importable; called once, when grevy is imported."""
    if not any(isinstance(finder, _Aliases) for finder in sys.meta_path):
        sys.meta_path.append(_Aliases())
