"""Version history for Flask-SQLAlchemy models: what a record was on a day, who changed it, and why."""

from chrononaut.change_info import append_change_info as append_change_info
from chrononaut.change_info import extra_change_info as extra_change_info
from chrononaut.change_info import rationale as rationale
from chrononaut.exceptions import ChangeInfoError as ChangeInfoError
from chrononaut.exceptions import ChangeInfoTypeError as ChangeInfoTypeError
from chrononaut.exceptions import ChrononautException as ChrononautException
from chrononaut.exceptions import ConcurrentChangeError as ConcurrentChangeError
from chrononaut.exceptions import DetachedError as DetachedError
from chrononaut.exceptions import DiffError as DiffError
from chrononaut.exceptions import HiddenAttributeError as HiddenAttributeError
from chrononaut.exceptions import HistoryImmutableError as HistoryImmutableError
from chrononaut.exceptions import MissingChangeInfoError as MissingChangeInfoError
from chrononaut.exceptions import OptionError as OptionError
from chrononaut.exceptions import PastError as PastError
from chrononaut.exceptions import UncapturedWriteError as UncapturedWriteError
from chrononaut.exceptions import UnsupportedMappingError as UnsupportedMappingError
from chrononaut.exceptions import UntrackedAttributeError as UntrackedAttributeError
from chrononaut.flask import VersionedSQLAlchemy as VersionedSQLAlchemy
from chrononaut.history import History as History
from chrononaut.history import history_model as history_model
from chrononaut.suppression import suppress_versioning as suppress_versioning
from chrononaut.timeline import Change as Change
from chrononaut.timeline import Timeline as Timeline
from chrononaut.versioned import RecordChanges as RecordChanges
from chrononaut.versioned import Versioned as Versioned
