"""Measure the service under gunicorn, against views that do less, with load from another process.

::

    __main__.py   the command line: what to run, what to print, with which status to end
    filling.py    the records that are read and written
    floors.py     the service with the floors beside it: views that do no more than they must
    workloads.py  what is requested, and how much of the floors' speed the service must have
    load.py       the load, by wrk
    load.lua      what wrk sends, and what it says in the end
    measuring.py  the service and its floors in turn; how long the service takes to start
    report.py     tables for the terminal and for the file of results
"""
