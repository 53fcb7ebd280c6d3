"""Reading and writing NWB files: the only place that knows pynwb, hdmf and h5py.

::

    describe(path) -> Description      what is in a file, what is remarkable, which command fits
    describe_apart(path)               the same, in a process that may hang or die
    read(path, ...) -> Recording       activity, clock, labels and stimuli of one session
    export_results(path, source, ...)  a new file: a recording, and what a run found in it
    write_openscope(path, session)     a simulated session in the layout of DANDI 000036

Reading walks the HDF5 tree by `neurodata_type` with h5py rather than through pynwb's objects.
pynwb builds every object of a file before it hands over one: it needs the namespaces of every
extension, checks shapes with warnings that differ between versions, follows links out of the file,
and makes none of the checks that matter here (NaN, the order of timestamps). What NWB promises
about the few types that are read (TimeSeries, DynamicTable, Units, TimeIntervals) has not changed
since NWB 2.0.

::

    zarr.py       folders of Zarr, as h5py           codecs.py     what their chunks hold
    files.py      open, refuse, walk, load                  clock.py     axes and timestamps
    tables.py     DynamicTable: columns, intervals          activity.py  traces, (T, C)
    units.py      filter units, bin spikes                  stimuli.py   what was shown
    behavior.py   labels at the samples                     read.py      all of it together
    facts.py      what is found, for JSON                   suggest.py   the command that fits
    describe.py, describe_text.py                           apart.py     what may hang or die
    write.py                                                export.py    results in a new file
"""

from __future__ import annotations

from .apart import describe_apart, refuse_hanging
from .describe import describe
from .describe_text import describe_text
from .export import export_results, refuse_existing
from .facts import Description, to_json
from .read import read
from .units import DEFAULT_BIN_S
from .write import write_openscope

__all__ = [
    "DEFAULT_BIN_S",
    "Description",
    "describe",
    "describe_apart",
    "describe_text",
    "export_results",
    "read",
    "refuse_existing",
    "refuse_hanging",
    "to_json",
    "write_openscope",
]
