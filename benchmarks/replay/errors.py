"""What can go wrong in a replay::

ReplayError               the run ends; the text is the one line that the user sees
├── UnusableError         it could not begin: a bad argument, a URL or a token that does not work
└── GaveUpError           the service stopped answering on the way
RecordError               one record went wrong; the run goes on with the others
NoAnswerError             a request got no answer: it may have been carried out, or not
StoppedError              the run is over for another reason: end quietly
"""

from __future__ import annotations


class ReplayError(Exception):
    """The run cannot go on.

    :cvar exit_status: with what status the command ends
    """

    exit_status = 1


class UnusableError(ReplayError):
    """An argument, the file, the URL or the token is of no use."""

    exit_status = 2


class GaveUpError(ReplayError):
    """The service did not answer, after a bounded number of tries."""


class RecordError(Exception):
    """The service refused something about one record, or answered what cannot be."""


class NoAnswerError(Exception):
    """A request got no answer, so that nobody knows whether it was carried out."""


class StoppedError(Exception):
    """The run was told to end while something was waiting."""
