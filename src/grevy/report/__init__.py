"""The report of a run: rows of `results` in, words, pictures, one page and files out.

::

    summary.py   what a run found, as rows        wording.py   what may be said of it, in words
    evidence.py  controls and quality in words    checklist.py what a careful reader asks
    figures.py   which figures, and captions      plots.py     rows and arrays in, Axes out
    page.py      report.html, of templates/       saved.py     results on disk, and back

The figures of a fitted model are in `plotting/`.
"""
