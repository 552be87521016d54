"""Random sequences of what an application does, in two sessions, held against a history kept in plain Python."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from chrononaut import extra_change_info, rationale
from tests.library import bulk_writing
from tests.library.asking import WHAT, Asking, Which
from tests.library.bulk_writing import Where
from tests.library.comparing import check_answers, check_tables, check_transactions
from tests.library.conftest import opened
from tests.library.oracle import World
from tests.library.pending import Set, Target
from tests.library.player import Player
from tests.library.rekeying import rekey
from tests.library.relating import Relate, Relating, relate
from tests.library.reviving import Old, pick, restore, revert
from tests.library.shapes import FAMILY, FIXED, KEYS, SHAPES, db

SOAK = int(os.environ.get("CHRONONAUT_SOAK_SEQUENCES", "5000"))
"""Sequences of the long form, on each database."""

PLACES = {**{shape: len(keys) for shape, keys in KEYS.items()}, **dict.fromkeys(FAMILY, 2)}
CHOICES = ["none", "one", "two", "same", "plus", "grow"]

GROUPS: list[tuple[str, ...]] = [("gauge",), ("price",), ("paper",), FAMILY, ("vehicle", "truck"), ("animal", "dog")]
"""Each sequence is about one or two of them: what is done to a record is to have to do with what was done before."""

PLACED = {name: [Target(name, slot) for slot in range(number)] for name, number in PLACES.items()}
SET = {
    name: [
        Set(place, attribute, choice)
        for place in PLACED[name]
        for attribute in shape.attributes
        if attribute not in FIXED
        for choice in CHOICES
    ]
    for name, shape in SHAPES.items()
}


def _of_sequence(of_shape: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    """Something of the shapes that the sequence is about."""
    return st.runner().flatmap(
        lambda machine: st.sampled_from([one for shape in machine.shapes for one in of_shape[shape]])
    )


sessions = st.integers(0, 1)
places: st.SearchStrategy[Target] = _of_sequence(PLACED)
sets: st.SearchStrategy[Set] = _of_sequence(SET)
relates = st.builds(
    Relate,
    st.sampled_from([name for name in vars(Relating) if "_item" in name or "_owner" in name or "_part" in name]),
    st.integers(0, 2),
    st.integers(0, 2),
)
wheres = st.builds(Where, st.sampled_from(["all", "none", "one", "two", "key"]), st.integers(0, 3))
whiches = st.builds(Which, st.sampled_from(WHAT), st.integers(0, 5))
olds = st.builds(Old, st.integers(0, 6), st.booleans(), st.booleans(), st.booleans())
extras = st.dictionaries(st.sampled_from(["who", "why"]), st.sampled_from(["a", "b"]), min_size=1)


@dataclass
class Database:
    """The database that all sequences use one after the other.

    :ivar alone: must one session end its transaction before another begins?
    """

    alone: bool
    sequences: int = 0
    began: float = field(default_factory=time.monotonic)
    steps: int = 0

    def empty(self) -> None:
        tables = [table.name for table in reversed(db.metadata.sorted_tables)]
        with db.engine.begin() as connection:
            if self.alone:
                for table in tables:
                    connection.exec_driver_sql(f"DELETE FROM {table}")
            else:
                connection.exec_driver_sql(";".join(f"DELETE FROM {table}" for table in tables))
        self.sequences += 1


class Sessions(RuleBasedStateMachine):
    """Two sessions, and what the application does in them."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        database.empty()
        self.database = database
        self.world = World(SHAPES)
        self.shapes: list[str] = []
        self.scopes: list[tuple[AbstractContextManager[None], dict[str, str]]] = []
        factory = db._make_scoped_session({}).session_factory
        fresh = count(10)
        self.players = [Player(factory(), self.world.view(), self.extra, fresh) for _ in range(2)]
        self.players[0].other, self.players[1].other = self.players[1], self.players[0]

    def extra(self) -> dict[str, str]:
        extra: dict[str, str] = {}
        for _, values in self.scopes:
            extra |= values
        return extra

    def player(self, session: int) -> Player:
        player = self.players[session]
        if self.database.alone and player.other.session.in_transaction():
            player.other.commit(expire=False)
        return player

    @initialize(groups=st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True), there=st.integers(0, 4))
    def begin(self, groups: list[tuple[str, ...]], there: int) -> None:
        """Say what the sequence is about, and let some of it be there."""
        self.shapes = [shape for group in groups for shape in group]
        for place in [place for shape in self.shapes for place in PLACED[shape] if shape != "part"][:there]:
            self.players[0].add(place, "one", "none" if place.slot else "two")
        self.players[0].commit()

    @rule(session=sessions, place=places, choice=st.sampled_from(CHOICES[:3]), hidden=st.sampled_from(CHOICES[:3]))
    def add(self, session: int, place: Target, choice: str, hidden: str) -> None:
        if place.shape != "part":
            self.player(session).add(place, choice, hidden)

    @rule(session=sessions, sets=st.lists(sets, min_size=1, max_size=4), flush=st.booleans())
    def change(self, session: int, sets: list[Set], flush: bool) -> None:
        player = self.player(session)
        player.change(sets)
        if flush and player.flush():
            player.check()

    @rule(session=sessions, place=places, flush=st.booleans())
    def delete(self, session: int, place: Target, flush: bool) -> None:
        player = self.player(session)
        player.delete(place)
        if flush and player.flush():
            player.check()

    @rule(session=sessions, place=places, hidden=st.sampled_from(CHOICES[:3]))
    def replace(self, session: int, place: Target, hidden: str) -> None:
        """Delete a record and add another with its key; if both are flushed at once, it is an update."""
        if place.shape in KEYS:
            player = self.player(session)
            player.delete(place)
            player.add(place, "two", hidden)

    @rule(session=sessions, set_=sets, name=st.sampled_from(CHOICES[:4]))
    def merge(self, session: int, set_: Set, name: str) -> None:
        """Merge what was made outside: one attribute, and the first one as well."""
        first = next(name for name in SHAPES[set_.target.shape].attributes if name not in FIXED)
        self.player(session).merge(set_.target, {first: name, set_.attribute: set_.choice})

    @rule(session=sessions, one=sets, delete=st.booleans(), late=st.none() | sets | olds)
    def overtake(self, session: int, one: Set, delete: bool, late: Set | Old | None) -> None:
        """Let the other session commit a change of a record that this one has loaded."""
        player = self.player(session)
        ident = player.resolve(one.target)
        if ident is None or player.find(ident) is None or not player.commit(expire=False):
            return
        other = self.player(1 - session)
        if delete:
            other.delete(one.target)
        else:
            other.set(ident, one.attribute, "fresh")
        other.commit(expire=False)
        if isinstance(late, Old):
            player = self.player(session)
            revert(player, ident, late, None)
            player.flush()
        elif late is not None:
            player = self.player(session)
            player.set(ident, late.attribute if late.target.shape == ident.shape else one.attribute, "fresh")
            player.flush()

    @rule(session=sessions, place=places, old=olds, given=st.none() | sets, flush=st.booleans())
    def revert(self, session: int, place: Target, old: Old, given: Set | None, flush: bool) -> None:
        player = self.player(session)
        ident = pick(player, place, live=True)
        if ident is not None:
            revert(player, ident, old, given)
        if flush and player.flush():
            player.check()

    @rule(
        session=sessions,
        place=places,
        delete=st.booleans(),
        old=olds,
        last=st.booleans(),
        given=st.none() | sets,
        flush=st.booleans(),
    )
    def restore(
        self, session: int, place: Target, delete: bool, old: Old, last: bool, given: Set | None, flush: bool
    ) -> None:
        """Make a record anew that was deleted, perhaps just now."""
        player = self.player(session)
        if delete:
            player.delete(place)
            player.flush()
        ident = pick(player, place, live=False)
        if ident is not None:
            restore(player, ident, old, last, given)
        if flush and player.flush():
            player.check()

    @rule(session=sessions, set_=sets)
    def detach_and_merge(self, session: int, set_: Set) -> None:
        self.player(session).detach_and_merge(*set_)

    @precondition(lambda self: "item" in self.shapes)
    @rule(session=sessions, what=st.lists(relates, min_size=1, max_size=3), sets=st.lists(sets, max_size=2))
    def relate(self, session: int, what: list[Relate], sets: list[Set]) -> None:
        player = self.player(session)
        relate(player, what, sets)
        player.check()

    @rule(session=sessions, place=places, slot=st.integers(0, 2), set_=sets)
    def rekey(self, session: int, place: Target, slot: int, set_: Set) -> None:
        player = self.player(session)
        rekey(player, place, slot, set_.attribute)
        player.check()

    @rule(
        session=sessions,
        sets=st.lists(sets, min_size=1, max_size=3),
        where=wheres,
        form=st.sampled_from(bulk_writing.UPDATES),
        expire=st.booleans(),
    )
    def bulk_update(self, session: int, sets: list[Set], where: Where, form: str, expire: bool) -> None:
        player = self.player(session)
        bulk_writing.update(player, sets, where, form)
        self.after_bulk(player, expire)

    @rule(
        session=sessions,
        sets=st.lists(sets, min_size=1, max_size=4),
        form=st.sampled_from(bulk_writing.KEYED),
        expire=st.booleans(),
    )
    def bulk_update_by_key(self, session: int, sets: list[Set], form: str, expire: bool) -> None:
        player = self.player(session)
        bulk_writing.update_by_key(player, sets, form)
        self.after_bulk(player, expire)

    @rule(
        session=sessions, place=places, where=wheres, form=st.sampled_from(bulk_writing.DELETES), expire=st.booleans()
    )
    def bulk_delete(self, session: int, place: Target, where: Where, form: str, expire: bool) -> None:
        player = self.player(session)
        bulk_writing.delete(player, place.shape, where, form)
        self.after_bulk(player, expire)

    @rule(
        session=sessions,
        places=st.lists(places, min_size=1, max_size=4),
        choice=st.sampled_from(CHOICES[:3]),
        hidden=st.sampled_from(CHOICES[:3]),
        form=st.sampled_from(bulk_writing.INSERTS),
    )
    def bulk_insert(self, session: int, places: list[Target], choice: str, hidden: str, form: str) -> None:
        player = self.player(session)
        bulk_writing.insert(player, places, choice, hidden, form)
        self.after_bulk(player, expire=False)

    def after_bulk(self, player: Player, expire: bool) -> None:
        """Go on with the objects that are in the session, or load them anew."""
        player.check()
        if expire:
            player.expire(None)

    @rule(session=sessions, place=places, values=extras, what_for=st.none() | sets)
    def mark(self, session: int, place: Target, values: dict[str, str], what_for: Set | None) -> None:
        """Say why an object is changed, and perhaps change it."""
        player = self.player(session)
        player.mark(place, values)
        if what_for is not None:
            player.change([what_for._replace(target=place)] if what_for.target.shape == place.shape else [what_for])

    @rule(session=sessions, one=sets, values=extras, savepoint=st.booleans(), flush=st.booleans())
    def regret(self, session: int, one: Set, values: dict[str, str], savepoint: bool, flush: bool) -> None:
        """Say why an object is changed, roll that back, and change it for no reason."""
        player = self.player(session)
        if savepoint:
            player.begin_savepoint()
        player.mark(one.target, values)
        player.change([one])
        if flush and not player.flush():
            return
        if savepoint:
            player.roll_savepoint_back()
        else:
            player.rollback()
        player.change([one._replace(choice="fresh")])
        if player.flush():
            player.check()

    @rule(session=sessions, place=places, everything=st.booleans())
    def expire(self, session: int, place: Target, everything: bool) -> None:
        self.player(session).expire(None if everything else place)

    @rule(session=sessions, how=st.sampled_from(["flush", "query"]))
    def flush(self, session: int, how: str) -> None:
        player = self.player(session)
        if player.flush(how):
            player.check()

    @rule(session=sessions, expire=st.booleans())
    def commit(self, session: int, expire: bool) -> None:
        self.player(session).commit(expire)
        self.check_committed()

    @rule(session=sessions)
    def rollback(self, session: int) -> None:
        self.player(session).rollback()
        self.check_committed()

    @rule(session=sessions)
    def begin_savepoint(self, session: int) -> None:
        self.player(session).begin_savepoint()

    @rule(session=sessions)
    def release_savepoint(self, session: int) -> None:
        self.player(session).release_savepoint()

    @rule(session=sessions)
    def roll_savepoint_back(self, session: int) -> None:
        player = self.player(session)
        player.roll_savepoint_back()
        player.check()

    @rule(values=extras)
    def enter_scope(self, values: dict[str, str]) -> None:
        scope = extra_change_info(**values)
        if values == {"why": "a"}:
            scope, values = rationale("a"), {"rationale": "a"}
        scope.__enter__()
        self.scopes.append((scope, values))

    @rule()
    def leave_scope(self) -> None:
        if self.scopes:
            scope, _ = self.scopes.pop()
            scope.__exit__(None, None, None)

    @rule(session=sessions, place=places)
    def ask(self, session: int, place: Target) -> None:
        """Ask in the middle of a transaction."""
        player = self.player(session)
        ident = player.resolve(place)
        if ident is None or not player.flush():
            return
        player.expire(None)
        check_answers(player.session, ident, player.view.record(ident))
        player.sync()

    @rule(session=sessions, place=places, which=whiches, limit=st.integers(1, 3))
    def ask_of_table(self, session: int, place: Target, which: Which, limit: int) -> None:
        """Ask of all records of a model, in the middle of a transaction."""
        player = self.player(session)
        if player.flush():
            asking = Asking.of(player.session, player.view.records())
            asking.check_feed(place.shape, which, limit)
            asking.check_as_of(place.shape)

    def check_committed(self) -> None:
        with Session(db.engine) as observer:
            check_tables(observer, self.world.records, self.shapes)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.check()
        finally:
            while self.scopes:
                self.leave_scope()
            for player in self.players:
                player.session.close()

    def check(self) -> None:
        for player in self.players:
            player.finish()
        self.check_committed()
        asker: Session = db.session()
        try:
            check_transactions(asker, self.world.records, self.world.transactions)
            for ident, record in self.world.records.items():
                check_answers(asker, ident, record)
            asking = Asking.of(asker, self.world.records)
            for shape in self.shapes:
                asking.check_feed(shape, Which("all", 0), limit=2)
                asking.check_as_of(shape)
            asking.check_transactions()
        finally:
            db.session.remove()


@pytest.fixture
def database(database_kind: str, database_url: str) -> Iterator[Database]:
    # A session that waits for the other one's lock would wait for ever.
    options = {} if database_kind == "sqlite" else {"connect_args": {"options": "-c lock_timeout=3000"}}
    with opened(db, database_url, SQLALCHEMY_ENGINE_OPTIONS=options):
        yield Database(alone=database_kind == "sqlite")


def run(machine: Callable[[], RuleBasedStateMachine], **options: Any) -> None:
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]
        settings=settings(deadline=None, stateful_step_count=30, suppress_health_check=list(HealthCheck), **options),
    )


def test_history_is_what_the_oracle_says(database: Database) -> None:
    run(lambda: Sessions(database), max_examples=60, derandomize=True)


@pytest.mark.soak
def test_history_is_what_the_oracle_says_for_long(database: Database, database_kind: str) -> None:
    def machine() -> Sessions:
        if database.sequences % 250 == 0 and database.sequences:
            rate = database.sequences / (time.monotonic() - database.began)
            print(f"{database_kind}: {database.sequences} sequences, {rate:.1f} a second", flush=True)  # noqa: T201
        return Sessions(database)

    run(machine, max_examples=SOAK, print_blob=True)
