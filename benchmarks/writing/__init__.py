"""Measure what writing history costs, against the same work without history and against other ways of keeping one.

::

    __main__.py    the command line: what to run, what to print, with which status to end
    models.py      the columns that the records of all have, and their values
    contestants/   those that are compared: the same model, and one way each of keeping its history
    history.py     the history table of those that write one by hand
    databases.py   a database for each contestant, for as long as the run lasts
    workloads.py   what is done with the records
    meters.py      time, statements, memory
    working.py     the process of a contestant
    measuring.py   rounds in which every contestant does the work once
    lookups.py     how long `version_at` takes in histories of some lengths
    targets.py     what the library may cost at the most
    report.py      tables for the terminal and for the file of results
    chart.py       the same to look at
"""
