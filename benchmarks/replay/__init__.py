"""Send a stream of changes to a running service as its users would, or import it, and read the history back.

::

    __main__.py   the command line: what to do, what to print, with which status to end
    asking.py     how far the service has come with each record
    sending.py    each change as one request, each record's changes in order
    importing.py  instead: write it all into the service's database, with its own times
    verifying.py  read every history and hold it against the file
    comparing.py  pure: one record's expected history and the answers about it in, differences out
    service.py    HTTP: one request, a patient read, pages
    wire.py       pure: how a key is spelled in a URL and a rationale in a header
    workers.py    threads, the progress bar, and how they end
    errors.py     what can go wrong, with exit statuses
"""
