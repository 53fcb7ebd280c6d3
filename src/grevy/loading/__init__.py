"""Arrays from the files that people have; the format is found in the content, not in the name.

No file runs code: numpy reads without pickle, pickles, joblib and torch files go through
`grevy.restricted`, HDF5 through h5py alone. Declared sizes are compared with the size of the file
before memory is taken.

::

    read.py      one array of any file        opening.py      which format, and what went wrong
    arrays.py    numpy, pickles, torch, mat   hdf5.py         HDF5, Matlab 7.3, pandas
    tables.py    csv and Excel                deeplabcut.py   keypoints
    shapes.py    names and shapes alone       content.py      what is asked, in what is there
    apart.py     what may hang or die
"""

from __future__ import annotations

from .apart import refuse_hanging
from .deeplabcut import load_deeplabcut
from .read import load_data
from .shapes import array_shapes

__all__ = ["array_shapes", "load_data", "load_deeplabcut", "refuse_hanging"]
