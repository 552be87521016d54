"""Measure that reading a history takes the same time however long the history is, and by which indexes it is read.

::

    __main__.py   the command line: what to run, what to print, with which status to end
    databases.py  a database of its own, for as long as the run lasts
    models.py     the versioned tables, and how large they are
    filling.py    histories of millions of rows, written by a few statements
    questions.py  what is asked, of a long history and of a short one, and what must be answered
    measuring.py  how long two questions take, asked in turn
    plans.py      by which indexes a database answers what it was really asked
    report.py     tables for the terminal and for the file of results
"""
