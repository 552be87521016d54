"""A changed primary key."""

import pytest

from chrononaut import ConcurrentChangeError
from tests.library.oracle import Ident
from tests.library.pending import Target
from tests.library.player import Player
from tests.library.shapes import HIERARCHIES, KEYS, SHAPES


def rekey(player: Player, target: Target, slot: int, name: str) -> None:
    """Give a record another key, where there is none of that key.

    :param name: an attribute that is changed with it; none if the model has no such
    """
    shape, keys = SHAPES[target.shape], KEYS.get(target.shape, [])
    if not keys or target.shape in HIERARCHIES or not player.flush():
        return
    ident, new = player.resolve(target), Ident(shape.name, keys[slot % len(keys)])
    player.make_way([ident, new])
    if ident is None or player.view.record(new).values is not None or new in player.persistent():
        return
    obj = player.find(ident)
    record = player.view.record(ident)
    if obj is None or (record.values is None and shape.key[0] not in obj.__dict__):
        return
    for attribute, part in zip(shape.key, new.key, strict=True):
        setattr(obj, attribute, part)
    values = {name: player.value(shape.name, name, "fresh", None)} if name in shape.attributes else {}
    for attribute, value in values.items():
        setattr(obj, attribute, value)
    # A key that has expired is loaded when it is set, and with it the version.
    player.sync()
    known = player.known.get(ident)
    if record.values is None or (known is not None and known.version != record.version):
        with pytest.raises(ConcurrentChangeError):
            player.session.flush()
        player.rollback()
        return
    player.session.flush()
    extra = player.reasons(ident)
    player.marks.pop(ident, None)
    player.view.move(ident, new, values, extra)
    player.known.pop(ident, None)
    player.known.pop(new, None)
    player.held[new] = obj
    player.locked |= {ident, new}
    if ident in player.vague:
        player.vague.add(new)
    player.sync()
