"""Figures of fitted models, under the names that CEBRA users know.

::

    models.py       loss, temperature, overview, several models
    embeddings.py   samples as points             interactive.py   the same, drawn by plotly
    consistency.py  scores as a matrix            canvas.py        where it is drawn, and colours

The figures of a run's report are in `report/`.
"""
