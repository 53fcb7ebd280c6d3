"""Names and shapes of the arrays of a file, without the numbers."""

from __future__ import annotations

from pathlib import Path

from ..regular import size_of
from .arrays import npz_shapes

__all__ = ["array_shapes"]


def array_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that lie side by side in a file, by name.

    Parameters
    ----------
    path : str or Path
        An .npz, a .mat or an HDF5 file; HDF5 is told by its content, the others by their suffix.

    Returns
    -------
    dict of str to tuple of int
        Of HDF5, the datasets of the top level; links are not followed, they may leave the file. Of
        Matlab before 7.3, all but cell arrays. Empty where the file cannot be read, which
        `load_data` then says, and for formats that hold one array.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "session.npz"
    >>> np.savez(file, spikes=np.zeros((5, 2)), position=np.zeros(5))
    >>> array_shapes(file)
    {'spikes': (5, 2), 'position': (5,)}
    """
    try:
        return _shapes(Path(path))
    except Exception:  # the readers answer damage with every kind of error
        return {}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    import h5py

    size_of(path, "a data file")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return npz_shapes(path)
    if suffix == ".mat" and not h5py.is_hdf5(path):
        from scipy.io import whosmat

        return {name: tuple(shape) for name, shape, kind in whosmat(path) if kind != "cell"}
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            own = [k for k in file if isinstance(file.get(k, getlink=True), h5py.HardLink)]
            return {k: file[k].shape for k in own if isinstance(file[k], h5py.Dataset)}
    return {}
