"""Grids of CEBRA models.

::

    search.py   GridSearch, which users know as `grevy.grid_search.GridSearch`
    jobs.py     what there is to train            index.py   the folder, and what belongs to it
"""
