"""An old state of a record once more: what `revert_to` and `restore` set, and when they are refused."""

from copy import deepcopy
from typing import Any, NamedTuple

import pytest

from chrononaut import RestoreError, Timeline
from tests.library import oracle
from tests.library.oracle import Ident, Record, Values
from tests.library.pending import Pending, Plus, Set, Target
from tests.library.player import Player
from tests.library.shapes import BELOW, FAMILY, FOREIGN, MODELS, SHAPES

NO_VERSION = 99
ABOVE = {below: above for above, shapes in BELOW.items() for below in shapes}


class Old(NamedTuple):
    """Which old state of a record, and how it is asked for.

    :ivar slot: which of its versions; one may be the creation, which has no state, or `NO_VERSION`
    :ivar by_object: by its history object, where there is one
    :ivar by_root: from the model above, where there is one
    :ivar flush: what is pending is flushed first, as by a session that flushes by itself
    """

    slot: int
    by_object: bool
    by_root: bool
    flush: bool


def pick(player: Player, target: Target, live: bool) -> Ident | None:
    """A record of the target's shape that has prior versions, live or deleted; the target's own if there is none."""
    fit = [
        ident
        for ident, record in sorted(player.view.records().items())
        if ident.shape == target.shape and oracle.prior(record) and (record.values is not None) == live
    ]
    return fit[target.slot % len(fit)] if fit else player.resolve(target, dead=not live)


def revert(player: Player, ident: Ident, old: Old, given: Set | None) -> None:
    """Set a record's attributes to those of a version."""
    timeline = _timeline(player, ident, old)
    if timeline is None:
        return
    record, obj = player.view.record(ident), timeline.live
    if obj is None:
        with pytest.raises(RestoreError, match="is deleted" if record.rows else "there never was"):
            timeline.revert_to(0)
        return
    names = {*SHAPES[ident.shape].tracked, *([given.attribute] if given is not None else [])}
    if ident in player.vague or (record.values is None and not {*names, "version"} <= obj.__dict__.keys()):
        # Nobody knows what memory holds, or it cannot be loaded any more.
        return
    player.held[ident] = obj
    memory = _memory(player, ident, obj)
    number = _number(record, old)
    is_live = number == obj.version
    state = memory if is_live else _state(record, number)
    if state is None:
        with pytest.raises(RestoreError, match="has no version"):
            timeline.revert_to(number)
        return
    values = _given(player, ident, state, given)
    if values is None:
        return
    wanted = values if is_live else {name: state[name] for name in SHAPES[ident.shape].tracked} | values
    assert timeline.revert_to(_named(timeline, number, old), **deepcopy(values)) is obj
    pending = player.pending.get(ident, Pending("change", obj))
    for name, value in wanted.items():
        # Of an SQL expression nobody knows what it gives.
        if isinstance(memory[name], Plus) or memory[name] != value:
            pending.before.setdefault(name, memory[name])
            pending.values[name] = deepcopy(value)
            player.pending[ident] = pending
    _end(player, ident, obj, wanted)


def restore(player: Player, ident: Ident, old: Old, last: bool, given: Set | None) -> None:
    """Make a deleted record anew.

    :param last: with its last state, without saying which it is
    """
    timeline = _timeline(player, ident, old)
    if timeline is None:
        return
    if timeline.live is not None:
        with pytest.raises(RestoreError, match="is live"):
            timeline.restore()
        return
    record = player.view.record(ident)
    assert record.values is None
    prior = oracle.prior(record)
    number = prior[-1].version if prior and last else _number(record, old)
    state = _state(record, number)
    if state is None:
        with pytest.raises(RestoreError, match="has no"):
            timeline.restore(None if last else number)
        return
    values = _given(player, ident, state, given)
    if values is None:
        return
    obj = timeline.restore(None if last else _named(timeline, number, old), **deepcopy(values))
    assert type(obj) is MODELS[ident.shape]
    wanted = state | values
    player.pending[ident] = Pending("add", obj, dict.fromkeys(SHAPES[ident.shape].attributes) | deepcopy(wanted))
    player.marks.pop(ident, None)
    _end(player, ident, obj, wanted)


def _timeline(player: Player, ident: Ident, old: Old) -> Timeline | None:
    """The history of a record; ``None`` where what is pending was refused, or is no plain change."""
    pending = player.pending.get(ident)
    flush = old.flush or ident.shape in FAMILY
    if not flush and pending is not None and pending.kind != "change":
        return None
    if ident.shape in FAMILY:
        # The owners that are there now are there until the end.
        player.make_way(["family"])
    model = MODELS[ABOVE.get(ident.shape, ident.shape) if old.by_root else ident.shape]
    made: list[Timeline] = []

    def make() -> None:
        player.session.autoflush = flush
        try:
            made.append(Timeline(player.session, model, ident.key))
        finally:
            player.session.autoflush = False

    if not flush:
        make()
    elif not player.write(make):
        return None
    player.sync()
    return made[0]


def _memory(player: Player, ident: Ident, obj: Any) -> Values:
    """The attributes as the object has them, loaded if they were not."""
    pending = player.pending.get(ident, Pending("change", obj)).values
    memory: Values = {}
    for name in SHAPES[ident.shape].attributes:
        was_loaded = name in obj.__dict__
        memory[name] = pending[name] if name in pending else deepcopy(getattr(obj, name))
        if ident in player.known and not was_loaded:
            player.known[ident].values[name] = memory[name]
    player.sync()
    return memory


def _number(record: Record, old: Old) -> int:
    live = [] if record.values is None else [record.version]
    creation = [row.version for row in record.rows if row.operation == "insert"][-1:]
    numbers = [row.version for row in reversed(oracle.prior(record))] + live + creation + [NO_VERSION]
    return numbers[old.slot % len(numbers)]


def _state(record: Record, number: int) -> Values | None:
    return next((row.state for row in oracle.prior(record) if row.version == number), None)


def _given(player: Player, ident: Ident, state: Values, given: Set | None) -> Values | None:
    """What is given to go before the old state; ``None`` where there is no owner whom a record must have."""
    values: Values = {}
    if given is not None and given.attribute in SHAPES[ident.shape].attributes:
        value = player.value(ident.shape, given.attribute, given.choice, state.get(given.attribute))
        values[given.attribute] = None if isinstance(value, Plus) else value
    owners = [owner.key[0] for owner, _ in player.view.live("owner")]
    for name in FOREIGN:
        if state.get(name) is not None and state[name] not in owners:
            if ident.shape == "part" and not owners:
                return None
            values[name] = owners[0] if ident.shape == "part" else None
    return values


def _named(timeline: Timeline, number: int, old: Old) -> Any:
    return (timeline.version(number) if old.by_object else None) or number


def _end(player: Player, ident: Ident, obj: Any, wanted: Values) -> None:
    assert {name: getattr(obj, name) for name in wanted} == wanted
    if ident.shape in FAMILY:
        player.flush()
