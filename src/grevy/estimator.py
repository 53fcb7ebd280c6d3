"""class CEBRA: the scikit-learn face. It translates names and arrays, and computes nothing.

Source: Schneider, Lee & Mathis 2023 (doi:10.1038/s41586-023-06031-6). Parameters, methods and
attributes are those of the CEBRA library 0.6.1; where it differs, docs/differences.md says why.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data
from torch import nn
from tqdm import tqdm

from . import __version__
from .architectures import ARCHITECTURES
from .config import TrainConfig
from .errors import ConfigError, DataError, FormatError
from .fitted import log_of, modules_of, notes_of, open_model, pieces, solver_of
from .inputs import Sessions, check_labels, checked, finite, is_sessions, plain_array, sessions_of
from .model import Run, choose_device, embed, held_out_bits
from .pairs import HybridPairs
from .parameters import encoder_of, seed_of, train_config, whole
from .recording import Recording
from .store import save as save_run
from .training import Progress, adapt, resume, train
from .unfinished import Checkpoint
from .windows import ReceptiveField

__all__ = ["CEBRA"]

_ADAM = (("betas", (0.9, 0.999)), ("eps", 1e-08), ("weight_decay", 0), ("amsgrad", False))


class CEBRA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Consistent embeddings of neural recordings, with CEBRA's own names.

    Without labels it is CEBRA-Time; with labels CEBRA-Behavior (floats are continuous, integers
    and booleans discrete, both together mixed); with `hybrid=True` both at once. Lists of arrays
    are sessions.

    Parameters
    ----------
    model_architecture : str or nn.Module
        One of `supported_model_architectures()`, or a module that maps (B, channels, window) to
        (B, latents), with `get_offset()` and `num_output`.
    device : {"cuda_if_available", "cpu", "cuda", "cuda:N"}
    criterion : {"infonce"}
    distance : {"cosine", "euclidean"}
    conditional : {None, "time", "time_delta", "delta_normal", "delta"}
        What makes a positive. None: "time" without labels, else "time_delta".
    temperature : float
        Of the loss; where it is learned, the first one.
    temperature_mode : {"constant", "auto"}
        "auto" learns it, never below `min_temperature`.
    min_temperature : float or None
    time_offsets : int or sequence of int
        Samples between a reference and its positive; of several, one is drawn.
    delta : float or None
        Standard deviation of the labels of positives for "delta_normal".
    max_iterations, max_adapt_iterations : int
        Steps of `fit`, and of `fit(adapt=True)`.
    batch_size : int or None
        References a step; None descends on all samples at once.
    learning_rate : float
    optimizer : {"adam"}
    output_dimension : int
        Latents.
    verbose : bool
        Show a progress bar.
    num_hidden_units : int
    pad_before_transform : bool
        One row for every sample, edges replicated; else only for whole windows.
    hybrid : bool
        Labels on the first three latents (all, if fewer), time on all of them.
    optimizer_kwargs : tuple of (name, value)
        betas, eps, weight_decay, amsgrad.
    masking_kwargs : tuple of (name, value) or None
        RandomNeuronMask, RandomTimestepMask, NeuronBlockMask, TimeBlockMask.
    random_state : int, RandomState or None
        Equal seeds give equal embeddings on one device. None draws one, kept in `random_state_`.
    precision : {"auto", "float32", "bfloat16"}
        Of the numbers that products take while training; "auto" takes bfloat16 where the processor
        multiplies it natively. Embedding is float32 always.
    sampling : {"independent", "blocks"} or int
        References drawn one by one, or in blocks of neighbours (32, or that many): up to three
        times the speed for time pairs, at some cost in quality (docs/log.md).
    num_negatives : int or None
        Negatives drawn a step. None: the other references of the step (with blocks, those of
        other blocks), which are as independent and cost nothing; with masks as many, drawn.
    label_periods : mapping of column to period, or None
        For circular columns of the continuous labels: {0: 360.0}.
    preset : {None, "plain", "robust"}
        "robust": temperature 0.5 and a tenth of the channels dropped from every window in
        training, unless these are given; embeddings are smoothed over time, by a Gaussian of 4
        samples within each epoch. docs/results.md says what that gains on which recordings, and a
        step takes about twice as long. None: "plain", as CEBRA's.

    Attributes
    ----------
    run_ : Run
        The trained model, as `grevy.train` returns it.
    n_features_, n_features_in_ : int, or list of int for several sessions
    num_sessions_ : int or None
    label_types_ : list of (dtype, shape)
    offset_ : ReceptiveField
        With `left` and `right`.
    device_, solver_name_ : str
    random_state_ : int
    model_ : nn.Module
        The encoder, or a list of one a session. A copy: changing it changes nothing here.
    state_dict_ : dict
        model, loss, log and more, as CEBRA's.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(300, 8))
    >>> model = CEBRA(batch_size=32, max_iterations=5, output_dimension=3, random_state=0)
    >>> model.fit(X).transform(X).shape
    (300, 3)
    """

    def __init__(
        self,
        model_architecture: str | nn.Module = "offset1-model",
        device: str = "cuda_if_available",
        criterion: str = "infonce",
        distance: str = "cosine",
        conditional: str | None = None,
        temperature: float = 1.0,
        temperature_mode: str = "constant",
        min_temperature: float | None = 0.1,
        time_offsets: int | tuple[int, ...] = 1,
        delta: float | None = None,
        max_iterations: int = 10000,
        max_adapt_iterations: int = 500,
        batch_size: int | None = 512,
        learning_rate: float = 3e-4,
        optimizer: str = "adam",
        output_dimension: int = 8,
        verbose: bool = False,
        num_hidden_units: int = 32,
        pad_before_transform: bool = True,
        hybrid: bool = False,
        optimizer_kwargs: tuple[tuple[str, Any], ...] = _ADAM,
        masking_kwargs: tuple[tuple[str, Any], ...] | None = None,
        *,
        random_state: Any = None,
        precision: str = "auto",
        sampling: str | int = "independent",
        num_negatives: int | None = None,
        label_periods: Mapping[int, float] | None = None,
        preset: str | None = None,
    ) -> None:
        self.model_architecture = model_architecture
        self.device = device
        self.criterion = criterion
        self.distance = distance
        self.conditional = conditional
        self.temperature = temperature
        self.temperature_mode = temperature_mode
        self.min_temperature = min_temperature
        self.time_offsets = time_offsets
        self.delta = delta
        self.max_iterations = max_iterations
        self.max_adapt_iterations = max_adapt_iterations
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.output_dimension = output_dimension
        self.verbose = verbose
        self.num_hidden_units = num_hidden_units
        self.pad_before_transform = pad_before_transform
        self.hybrid = hybrid
        self.optimizer_kwargs = optimizer_kwargs
        self.masking_kwargs = masking_kwargs
        self.random_state = random_state
        self.precision = precision
        self.sampling = sampling
        self.num_negatives = num_negatives
        self.label_periods = label_periods
        self.preset = preset

    # -- fitting

    def fit(
        self,
        X: Any,
        y: Any = None,
        *more_y: Any,
        adapt: bool = False,
        callback: Callable[[int, Any], None] | None = None,
        callback_frequency: int | None = None,
        epochs: Any = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train on one recording, or on a list of sessions.

        Parameters
        ----------
        X : array, shape (T, C), or list of such arrays
            Activity, time first.
        y, *more_y : arrays, shape (T,) or (T, d), or lists with one a session
            Labels: floats are continuous, integers and booleans discrete.
        adapt : bool
            Keep a fitted encoder but for its first layer, which is fitted to the neurons of X.
        callback : callable, optional
            Called as `callback(step, solver)` every `callback_frequency` steps, from step 0 on;
            `solver` has `model`, `history` and `log`.
        callback_frequency : int, optional
        epochs : array of int, shape (E, 2), or list of such arrays, optional
            [start, stop) rows of trials: windows and pairs cross no border.
        checkpoint : Checkpoint, optional
            Where the state of the training is kept by time, and from which the same call goes on;
            `clear` it once the model is saved. Give a `random_state`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If an array is not what is promised above.
        ConfigError
            If a parameter is outside its allowed values, or has no meaning for these labels.
        DivergedError
            If the loss does not stay finite. The estimator is left as it was; `run` of the error
            has the last good weights.
        """
        before = self._fitted() if adapt else None
        with self._all_or_nothing():
            sessions = self._sessions(X, y, more_y, epochs, reset=True)
            seed = seed_of(self.random_state)
            n_steps = self.max_adapt_iterations if adapt else self.max_iterations
            config = train_config(self, sessions, seed, n_steps)
            with self._progress(n_steps) as on_step:
                run = self._train(
                    sessions, config, before, callback, callback_frequency, on_step, checkpoint
                )
            return self._keep(run, sessions, seed)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *more_y: Any,
        callback: Callable[[int, Any], None] | None = None,
        callback_frequency: int | None = None,
        epochs: Any = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train a fitted (or loaded) model for `max_iterations` more steps, on these data only.

        The optimiser and the count of steps go on. Parameters and errors as in `fit`.
        """
        if not hasattr(self, "run_"):
            return self.fit(
                X,
                y,
                *more_y,
                callback=callback,
                callback_frequency=callback_frequency,
                epochs=epochs,
                checkpoint=checkpoint,
            )
        before, seed = self.run_, self.random_state_
        with self._all_or_nothing():
            sessions = self._sessions(X, y, more_y, epochs, reset=False)
            check_labels(self.label_types_, sessions, fitted_several=self.num_sessions_ is not None)
            config = train_config(self, sessions, seed, self.max_iterations)
            with self._progress(self.max_iterations) as on_step:
                run = self._train(
                    sessions, config, before, callback, callback_frequency, on_step, checkpoint,
                    onwards=True,
                )  # fmt: skip
            return self._keep(run, sessions, seed)

    def _train(
        self,
        sessions: Sessions,
        config: TrainConfig,
        before: Run | None,
        callback: Callable[[int, Any], None] | None,
        frequency: int | None,
        on_step: Callable[[Progress], None] | None,
        checkpoint: Checkpoint | None,
        *,
        onwards: bool = False,
    ) -> Run:
        """One call of the trainer, or with a callback one between any two calls of it."""
        recordings, where = sessions.recordings, self._where()
        run = before if onwards else None
        done = 0

        def report(p: Progress) -> None:
            if on_step is not None:
                on_step(p._replace(done=done + p.done, of=config.n_steps))

        if (callback is None) != (frequency is None):
            raise ConfigError(
                "callback and callback_frequency belong together; found only one of them."
            )
        if frequency is not None:
            whole("callback_frequency", frequency)
        for size in pieces(config.n_steps, frequency):
            how: dict[str, Any] = {"device": where, "on_step": report, "checkpoint": checkpoint}
            part = replace(config, n_steps=size)
            if run is not None:
                run = resume(run, recordings, size, config=config, **how)
            elif before is not None:
                run = adapt(before, recordings, part, **how)
            else:
                run = train(recordings, [part], **how)[0]
            done += size
            if callback is not None and (done - 1) % (frequency or 1) == 0:
                callback(done - 1, solver_of(run, several=sessions.several))
        assert run is not None  # there is at least one step
        return replace(run, parent="" if before is None else before.digest)

    def _sessions(
        self, X: Any, y: Any, more_y: tuple[Any, ...], epochs: Any, *, reset: bool
    ) -> Sessions:
        labels = [label for label in (y, *more_y) if label is not None]
        spec = encoder_of(self)
        least = max(2, len(spec.field))
        several = is_sessions(X)
        raw = list(X) if several else [X]
        if not reset and several != (self.num_sessions_ is not None):
            fitted = f"{self.num_sessions_} sessions" if self.num_sessions_ else "one recording"
            raise DataError(
                f"training goes on with what it began with, {fitted}; found "
                f"{f'a list of {len(raw)}' if several else 'one recording'}."
            )
        if several:
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit to one recording
            arrays = [checked(plain_array(x), least, f"session {s}") for s, x in enumerate(raw)]
            if not reset and [a.shape[1] for a in arrays] != self.n_features_:
                raise DataError(
                    f"sessions must have {self.n_features_} channels as when fitted; found "
                    f"{[a.shape[1] for a in arrays]}."
                )
        else:
            x = plain_array(X) if _is_foreign(X) else X
            valid = self._validated(x, least, reset=reset)
            arrays = [finite(valid, "X")]
        return sessions_of(
            arrays, raw, labels, several=several, epochs=epochs, periods=self.label_periods
        )

    def _validated(self, x: Any, least: int, *, reset: bool) -> NDArray[Any]:
        """One recording as scikit-learn wants it, and its refusal as ours."""
        try:
            valid: NDArray[Any] = validate_data(
                self,
                x,
                reset=reset,
                dtype=(np.float64, np.float32),
                ensure_all_finite=False,
                ensure_min_samples=least,
            )
        except ValueError as error:
            raise DataError(str(error)) from error
        return valid

    def _keep(self, run: Run, sessions: Sessions, seed: int) -> Self:
        """Everything that fitting learns, set at once and last."""
        counts = [r.n_channels for r in sessions.recordings]
        self.run_ = run
        self.random_state_ = seed
        self.label_types_ = sessions.label_types
        self.num_sessions_ = len(counts) if sessions.several else None
        self.n_features_: Any = counts if sessions.several else counts[0]
        return self._settled()

    def _settled(self) -> Self:
        """Attributes that follow from the others."""
        self.n_features_in_: Any = self.n_features_
        self.device_ = str(choose_device(self._where()))
        self.offset_: ReceptiveField = self.run_.config.encoder.field
        shape = "multi" if self.num_sessions_ is not None else "single"
        kind = "-hybrid" if isinstance(self.run_.config.pairs, HybridPairs) else ""
        full = "-full" if self.run_.config.batch_size is None else ""
        self.solver_name_ = f"{shape}-session{kind}{full}"
        return self

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """An error leaves the estimator as it was."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @contextlib.contextmanager
    def _progress(self, n_steps: int) -> Iterator[Callable[[Progress], None] | None]:
        if not self.verbose:
            yield None
            return
        with tqdm(total=n_steps) as bar:

            def show(p: Progress) -> None:
                bar.update(p.done - bar.n)
                bar.set_description(
                    f"pos: {p.positive: .4f} neg: {p.negative: .4f} total: {p.total: .4f} "
                    f"temperature: {p.temperature: .4f}"
                )

            yield show

    def _where(self) -> str:
        return "auto" if self.device == "cuda_if_available" else str(self.device)

    # -- using

    def transform(
        self, X: Any, batch_size: int | None = None, session_id: int | None = None
    ) -> NDArray[np.float32]:
        """Embed a recording.

        Parameters
        ----------
        X : array, shape (T, C)
            At least as many samples as the window is long.
        batch_size : int, optional
            Samples embedded at once; the result does not depend on it.
        session_id : int, optional
            Whose encoder, for a model of several sessions.

        Returns
        -------
        array of float32, shape (T, D)
            Without `pad_before_transform` only the T - W + 1 whole windows; resampling
            architectures give one row every few samples.

        Raises
        ------
        NotFittedError, DataError, ConfigError
        """
        run = self._fitted()
        if batch_size is not None:
            whole("batch_size", batch_size)
        session = self._session(session_id)
        recording = self._recording(X, session)
        embedding = embed(
            run,
            recording,
            session=session,
            pad=self.pad_before_transform,
            chunk=batch_size,
            device=self._where(),
        )
        return embedding.values

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *more_y: Any,
        adapt: bool = False,
        callback: Callable[[int, Any], None] | None = None,
        callback_frequency: int | None = None,
        epochs: Any = None,
    ) -> Any:
        """Fit, then embed the same recording. Parameters as in `fit`; one session only."""
        if is_sessions(X):
            raise ConfigError(
                f"fit_transform embeds one recording; found a list of {len(X)} sessions. Call fit, "
                f"then transform(X[i], session_id=i) for each."
            )
        self.fit(
            X,
            y,
            *more_y,
            adapt=adapt,
            callback=callback,
            callback_frequency=callback_frequency,
            epochs=epochs,
        )
        return self.transform(X)

    def score(
        self, X: Any, y: Any = None, *more_y: Any, session_id: int | None = None, epochs: Any = None
    ) -> float:
        """Goodness of fit on these data, in bits above chance, with the pairs of the training.

        Compares only models of one task: same data, labels, offsets, window and temperature.

        Parameters
        ----------
        X, y, *more_y, epochs
            As in `fit`.
        session_id : int, optional
            Whose encoder, where X is one recording and the model has several sessions.

        Returns
        -------
        float
        """
        run = self._fitted()
        sessions, which = self.judged(X, y, *more_y, session_id=session_id, epochs=epochs)
        spans = [r.epochs for r in sessions]
        return held_out_bits(run, sessions, spans, sessions=which, device=self._where())

    def judged(
        self, X: Any, y: Any = None, *more_y: Any, session_id: int | None = None, epochs: Any = None
    ) -> tuple[tuple[Recording, ...], list[int]]:
        """Data to judge the model on, checked against what it was fitted with, and its sessions.

        Raises
        ------
        DataError
            If the labels are not of the number, kind and width that the model was fitted with.
        """
        self._fitted()
        several = is_sessions(X)
        labels = [label for label in (y, *more_y) if label is not None]
        which = list(range(len(X))) if several else [self._session(session_id)]
        raw = list(X) if several else [X]
        if several and len(raw) != len(self.run_.sessions):
            raise DataError(
                f"the model has {len(self.run_.sessions)} sessions; found {len(raw)} arrays."
            )
        least = len(self.offset_)
        arrays = [
            self._recording(x, s, least=least).activity for x, s in zip(raw, which, strict=True)
        ]
        sessions = sessions_of(
            arrays, raw, labels, several=several, epochs=epochs, periods=self.label_periods
        )
        check_labels(self.label_types_, sessions, fitted_several=self.num_sessions_ is not None)
        return sessions.recordings, which

    def _session(self, session_id: int | None) -> int:
        n = len(self.run_.sessions)
        if session_id is None:
            if self.num_sessions_ is not None:
                raise ConfigError(
                    f"the model has {n} sessions, each with its own encoder; give session_id, "
                    f"0 to {n - 1}."
                )
            return 0
        if not isinstance(session_id, Integral) or not 0 <= session_id < n:
            raise ConfigError(f"session_id must lie in 0 to {n - 1}; found {session_id!r}.")
        return int(session_id)

    def _recording(self, X: Any, session: int, *, least: int | None = None) -> Recording:
        least = len(self.offset_) if least is None else least
        if self.num_sessions_ is None:
            x = plain_array(X) if _is_foreign(X) else X
            x = self._validated(x, least, reset=False)
            x = finite(x, "X")
        else:
            x = checked(plain_array(X), least, f"session {session}")
            if x.shape[1] != self.n_features_[session]:
                raise DataError(
                    f"session {session} has {self.n_features_[session]} channels in the model; "
                    f"found {x.shape[1]}."
                )
        return sessions_of([x], [X], [], several=False).recordings[0]

    def _fitted(self) -> Run:
        run = getattr(self, "run_", None)
        if not isinstance(run, Run):
            raise NotFittedError("this CEBRA instance is not fitted yet; call fit first.")
        return run

    @property
    def _n_features_out(self) -> int:
        return self._fitted().config.encoder.latents

    # -- what notebooks look at

    @property
    def num_sessions(self) -> int | None:
        """Sessions of the fitted model; None for a single recording."""
        self._fitted()
        return self.num_sessions_

    @property
    def model_(self) -> nn.Module:
        """The trained encoder as a torch module; for several sessions a list of them."""
        return modules_of(self._fitted(), several=self.num_sessions_ is not None)

    @property
    def solver_(self) -> Any:
        """The history of the training, as callbacks see it."""
        return solver_of(self._fitted(), several=self.num_sessions_ is not None)

    @property
    def state_dict_(self) -> dict[str, Any]:
        """Weights under CEBRA's names, the loss of every step, and its log."""
        run = self._fitted()
        state: dict[str, Any] = {
            "model": self.model_.state_dict(),
            "optimizer": None if run.state is None else vars(run.state),
            "loss": torch.from_numpy(run.losses.sum(axis=(1, 2))),
            "decode": [],
            "criterion": {"temperature": run.temperature},
            "version": __version__,
            "log": log_of(run),
            "n_features": self.n_features_,
        }
        if self.num_sessions_ is not None:
            state["num_sessions"] = self.num_sessions_
        return state

    @classmethod
    def supported_model_architectures(cls, pattern: str = "*") -> list[str]:
        """Names of architectures that match a shell pattern."""
        listed = [name for name, a in ARCHITECTURES.items() if a.listed]
        return fnmatch.filter(listed, pattern)

    def to(self, device: str | torch.device) -> Self:
        """Use another device from now on: "cpu", "cuda" or "cuda:N"."""
        self._fitted()
        self.device_ = str(choose_device(str(device)))
        self.device = self.device_
        return self

    def save(self, filename: str | os.PathLike[str], backend: str = "sklearn") -> None:
        """Write the model to one file that runs no code (safetensors), under any name."""
        if backend != "sklearn":
            raise ConfigError(f"a model is saved by backend 'sklearn'; found '{backend}'.")
        save_run(self._fitted(), Path(filename), notes=notes_of(self))

    @classmethod
    def load(
        cls,
        filename: str | os.PathLike[str],
        backend: str = "auto",
        weights_only: bool | None = None,
        *,
        model_architecture: nn.Module | None = None,
        map_location: Any = None,
    ) -> Self:
        """Read a model that `save` wrote, or that the CEBRA library wrote; runs no code.

        Parameters
        ----------
        filename : path
            The format is decided by content, not by name.
        backend, weights_only
            As in CEBRA, and of no effect: nothing but weights and settings is ever read.
        model_architecture : nn.Module, optional
            For a model of a custom module, that module.
        map_location : optional
            Device to use; the best there is where absent.

        Raises
        ------
        FormatError
            If the file cannot be read as either.
        UnsafeFileError
            If it asks to run code.
        """
        del backend, weights_only
        run, parameters, learned = open_model(Path(filename), model_architecture)
        try:
            model = cls(**parameters)
        except TypeError as error:
            raise FormatError(
                f"{filename} must hold parameters of CEBRA alone; found {sorted(parameters)}."
            ) from error
        if map_location is not None:
            model.device = str(map_location)
        try:
            choose_device(model._where())
        except ConfigError:
            if map_location is not None:
                raise
            model.device = "cuda_if_available"  # a model made on a GPU loads anywhere
        model.run_ = run
        for name, value in learned.items():
            setattr(model, name, value)
        return model._settled()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _is_foreign(x: Any) -> bool:
    """Whether scikit-learn would not know what this is: tensors, time series, nested lists."""
    return isinstance(x, list | tuple) or hasattr(x, "detach") or hasattr(x, "time_support")
