"""Bulk statements on models whose columns set themselves, whose names are odd, or which are elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session

from chrononaut import UncapturedWriteError, Versioned, VersionedSQLAlchemy
from tests.library.exact import exactly_captured
from tests.library.models import define
from tests.library.rows import changes, history_rows

OpenDatabase = Callable[..., Session]
Build = Callable[[], dict[str, Any]]


class Document(sa.types.TypeDecorator[Any]):
    """A type of an application's own, over JSON."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return {"value": value}


def _opened(open_database: OpenDatabase, *rows: dict[str, Any], **attributes: Any) -> tuple[Session, Any]:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "Thing",
        Versioned,
        **{"__tablename__": "thing", "id": sa.Column(sa.Integer, primary_key=True), "name": sa.Column(sa.String)}
        | attributes,
    )
    session = open_database(database)
    session.add_all(model(**row) for row in rows)
    session.commit()
    return session, model


ROWS: Any = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
UPDATES: dict[str, Callable[[Session, Any], Any]] = {
    "orm": lambda s, m: s.execute(sa.update(m).values(name="b")),
    "core": lambda s, m: s.execute(m.__table__.update().values(name="b")),
    "given": lambda s, m: s.execute(m.__table__.update(), {"name": "b"}),
    "many": lambda s, m: s.execute(sa.update(m), [{"id": 1, "name": "b"}, {"id": 2, "name": "b"}]),
    "returning": lambda s, m: s.scalars(sa.update(m).values(name="b").returning(m)).all(),
    "fetched": lambda s, m: s.execute(
        sa.update(m).values(name="b"), execution_options={"synchronize_session": "fetch"}
    ),
}
_ticks = iter(range(1, 1000000))
STAMPS: dict[str, Build] = {
    "python": lambda: {"stamp": sa.Column(sa.Integer, default=0, onupdate=lambda: next(_ticks))},
    "sql": lambda: {"stamp": sa.Column(sa.Integer, default=0, onupdate=sa.text("coalesce(stamp, 0) + 1"))},
    "of_the_row": lambda: {
        "stamp": sa.Column(sa.Integer, default=0, onupdate=lambda context: len(context.get_current_parameters()) + 5)
    },
    "hidden": lambda: {
        "stamp": sa.Column(sa.Integer, default=0, onupdate=lambda: next(_ticks)),
        "__chrononaut_hidden__": ["stamp"],
    },
}


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_column_that_each_update_sets_makes_a_version_of_each_row(
    open_database: OpenDatabase, stamp: Build, subtests: pytest.Subtests
) -> None:
    session, thing = _opened(open_database, *ROWS, clicks=sa.Column(sa.Integer), **stamp())
    for name, update in UPDATES.items():
        with subtests.test(name):
            with exactly_captured(session, thing) as happened:
                update(session, thing)
            assert happened.keys == [1, 2]
        session.rollback()


def test_untracked_column_that_each_update_sets_makes_no_version(
    open_database: OpenDatabase, subtests: pytest.Subtests
) -> None:
    session, thing = _opened(
        open_database,
        *ROWS,
        stamp=sa.Column(sa.Integer, onupdate=lambda: next(_ticks)),
        __chrononaut_untracked__=["stamp"],
    )
    for name, update in UPDATES.items():
        with subtests.test(name):
            with exactly_captured(session, thing) as happened:
                update(session, thing)
            assert happened.keys == [1]
            assert all(session.scalars(sa.select(thing.stamp)))
        session.rollback()


def test_stamp_that_was_empty_is_not_named_by_a_delete(open_database: OpenDatabase) -> None:
    session, thing = _opened(
        open_database,
        *ROWS,
        stamp=sa.Column(sa.Integer, onupdate=lambda: next(_ticks)),
        __chrononaut_hidden__=["stamp"],
    )
    with exactly_captured(session, thing) as happened:
        session.execute(sa.delete(thing))
    assert happened.keys == [1, 2]


@pytest.mark.parametrize("untracked", [False, True])
def test_computed_column_makes_a_version_where_it_can_have_changed(
    open_database: OpenDatabase, untracked: bool
) -> None:
    session, thing = _opened(
        open_database, *ROWS, clicks=sa.Column(sa.Integer, default=1), seen=sa.Column(sa.Integer),
        double=sa.Column(sa.Integer, sa.Computed("clicks * 2")),
        **({"__chrononaut_untracked__": ["clicks"]} if untracked else {}),
    )  # fmt: skip
    for name, update in UPDATES.items():
        with exactly_captured(session, thing) as happened:
            update(session, thing)
        assert happened.keys == [1], name
        session.rollback()
    with exactly_captured(session, thing) as happened:
        session.execute(sa.update(thing).values(clicks=2))
    assert happened.keys == [1, 2]


def test_version_id_of_the_mapper_is_left_to_it(open_database: OpenDatabase) -> None:
    lock = sa.Column(sa.Integer, nullable=False)
    session, thing = _opened(open_database, *ROWS, lock=lock, __mapper_args__={"version_id_col": lock})
    one = session.get_one(thing, 1)
    assert one.name == "a"
    for update in (UPDATES["orm"], UPDATES["core"]):
        with exactly_captured(session, thing) as happened:
            update(session, thing)
        assert happened.keys == [1]
        one.name = "on"
        session.commit()
    with exactly_captured(session, thing) as happened:
        session.execute(sa.update(thing), [{"id": 1, "name": "c", "lock": session.get_one(thing, 1).lock}])
    assert happened.keys == [1]


def test_own_columns_of_other_names(open_database: OpenDatabase, subtests: pytest.Subtests) -> None:
    session, thing = _opened(
        open_database, *ROWS, version=sa.Column(sa.Integer, default=5), changed=sa.Column(sa.String),
        __chrononaut_rename__={"version": "row_version", "changed": "row_changed"},
    )  # fmt: skip
    for name, update in UPDATES.items():
        with subtests.test(name):
            update(session, thing)
            session.execute(sa.update(thing).values(version=7, changed="x"))
            rows = session.connection().execute(
                sa.text("SELECT row_version, version, changed, name FROM thing_history WHERE id = 1 ORDER BY 1")
            )
            assert [tuple(row) for row in rows] == [(-1, None, None, None), (0, 5, None, "a"), (1, 5, None, "b")]
            assert session.get_one(thing, 1).row_version == 2
            session.execute(sa.delete(thing))
            session.execute(sa.insert(thing), ROWS)
            assert session.get_one(thing, 1).row_version == 4
        session.rollback()


def test_many_hidden_columns_with_long_names(open_database: OpenDatabase) -> None:
    names = [f"{'long_' * 9}{number}" for number in range(5)]
    session, thing = _opened(
        open_database, *ROWS, __chrononaut_hidden__=names, **{name: sa.Column(sa.String) for name in names}
    )
    with exactly_captured(session, thing) as happened:
        session.execute(sa.update(thing).values({names[3]: "x", names[1]: sa.func.lower("Y")}))
    assert happened.keys == [1, 2]
    with exactly_captured(session, thing):
        session.execute(
            sa.update(thing).values({names[3]: "x", names[4]: sa.func.coalesce(getattr(thing, names[1]), "")})
        )
    with exactly_captured(session, thing):
        session.execute(sa.insert(thing), [{"id": 3, names[2]: "x", names[0]: None}])
    with exactly_captured(session, thing):
        session.execute(sa.delete(thing))


@pytest.mark.parametrize("name", ["order", 'Mixed "quo"te', "per%cent:ünïcode"])
def test_column_names_that_must_be_quoted(open_database: OpenDatabase, name: str) -> None:
    session, thing = _opened(
        open_database,
        *ROWS,
        odd=sa.Column(name, sa.String),
        secret=sa.Column(f"{name} 2", sa.String),
        __chrononaut_hidden__=["secret"],
    )
    table = thing.__table__
    writes: list[Callable[[], Any]] = [
        lambda: session.execute(sa.update(thing).values(odd="x", secret="s")),
        lambda: session.execute(sa.update(thing).values(odd=thing.name, secret=sa.func.lower(thing.odd))),
        lambda: session.execute(
            table.update().where(table.c.id == sa.bindparam("which")).values({name: "y"}), [{"which": 1}, {"which": 2}]
        ),
        lambda: session.execute(sa.update(thing), [{"id": 1, "odd": "z"}]),
    ]
    for write in writes:
        with exactly_captured(session, thing) as happened:
            write()
        assert 1 in happened.keys


@pytest.mark.parametrize(
    "database_kind",
    [
        "sqlite",
        "postgresql",
    ],
    indirect=True,
)
def test_type_of_an_applications_own_over_json(open_database: OpenDatabase) -> None:
    session, thing = _opened(open_database, *ROWS, document=sa.Column(Document))
    with exactly_captured(session, thing) as happened:
        session.execute(sa.update(thing).where(thing.id == 1).values(document=5))
    assert happened.keys == [1]
    with exactly_captured(session, thing) as happened:
        session.execute(sa.update(thing).values(document=5))
    assert happened.keys == [2]


def test_json_null_is_another_value_than_null(open_database: OpenDatabase) -> None:
    session, thing = _opened(open_database, *ROWS, document=sa.Column(sa.JSON))
    for value, versions in ((None, 1), (None, 1), (sa.null(), 2), (sa.null(), 2), (sa.JSON.NULL, 3)):
        session.execute(sa.update(thing).values(document=value))
        assert session.get_one(thing, 1).version == versions
    rows = session.connection().execute(
        sa.text("SELECT CAST(document AS TEXT) FROM thing_history WHERE id = 1 ORDER BY version")
    )
    assert rows.scalars().all() == [None, None, "null", None]


def test_several_databases_in_one_transaction(open_database: OpenDatabase, other_database_url: str) -> None:
    database = VersionedSQLAlchemy()
    models = [
        define(
            database, name, Versioned, id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String),
            **({"__bind_key__": "other"} if name == "There" else {}),
        )
        for name in ("Here", "There")
    ]  # fmt: skip
    session = open_database(database, {"other": other_database_url})
    for model in models:
        session.execute(sa.insert(model), ROWS)
        session.execute(sa.update(model).values(name="b"))
        session.execute(sa.delete(model).where(model.id == 2))
    session.commit()
    found = [
        history_rows(session, f"{name}_history", bind=database.engines[key], id=1)
        for name, key in (("here", None), ("there", "other"))
    ]
    assert [changes(rows) for rows in found] == [[(-1, "insert"), (0, "update")]] * 2
    assert len({row["transaction_id"] for rows in found for row in rows}) == 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "write",
    [
        "update",
        "delete",
        "insert",
        "insert_returning",
    ],
)
def test_schema_that_a_statement_is_translated_to_has_its_history_there(
    open_database: OpenDatabase, write: str
) -> None:
    """On PostgreSQL, whose schemas need no files."""
    session, thing = _opened(open_database, *ROWS)
    connection = session.connection()
    for statement in (
        "CREATE SCHEMA other",
        "CREATE TABLE other.thing (LIKE thing INCLUDING ALL)",
        "CREATE TABLE other.thing_history (LIKE thing_history INCLUDING ALL)",
        "INSERT INTO other.thing SELECT * FROM thing",
        "INSERT INTO other.thing_history SELECT * FROM thing_history",
    ):
        connection.execute(sa.text(statement))
    written: Any = {
        "update": sa.update(thing).values(name="x"),
        "delete": sa.delete(thing),
        "insert": sa.insert(thing).values(id=5),
        "insert_returning": sa.insert(thing).values(id=5).returning(thing.id),
    }[write]
    translated = {"schema_translate_map": {None: "other"}}
    before = history_rows(session, "thing_history")
    kept = history_rows(session, "other.thing_history")
    try:
        session.execute(written, execution_options=translated)
    except UncapturedWriteError:
        assert history_rows(session, "other.thing_history") == kept
    else:
        assert len(history_rows(session, "other.thing_history")) == len(kept) + (1 if "insert" in write else 2)
    assert history_rows(session, "thing_history") == before
