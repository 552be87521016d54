"""Where the database takes two texts for the same key, answers name the record by its own."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from app import create_app
from app.auth.grants import Grants
from app.auth.tables import metadata as token_metadata
from app.auth.tokens import create_token
from app.cli import create_tables
from chrononaut import VersionedSQLAlchemy
from tests.library.models import define
from tests.service.api import Api
from tests.service.conftest import SECRET_KEY


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)

# On SQLite capitals are as good as small letters, and on PostgreSQL blanks at the end count for nothing.
CODE = sa.String(4, collation="NOCASE").with_variant(sa.CHAR(4), "postgresql")
Shelf = define(
    db,
    "Shelf",
    __tablename__="shelf",
    code=sa.orm.mapped_column(CODE, primary_key=True),
    name=sa.orm.mapped_column(sa.String),
)


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    database = {"DATABASE_URL": database_url, "CHRONONAUT_DB": f"{__name__}:db"}
    app = create_app({"SECRET_KEY": SECRET_KEY, "CHRONONAUT_MODELS": __name__, **database})
    with app.app_context():
        create_tables(db)
        with db.engine.begin() as connection:
            for table in (*db.metadata.sorted_tables, *token_metadata.sorted_tables):
                connection.execute(sa.delete(table))
        token = create_token(db, "writer@example.com", Grants.parse(["write"]))
    yield Api(app.test_client(), token)
    with app.app_context():
        # Other tests of the service have a table of this name too, in the same database.
        db.session.remove()
        db.drop_all()
        db.engine.dispose()


def test_record_as_of_an_instant_is_named_as_the_record_is_now(api: Api, database_kind: str) -> None:
    api.post("/records/shelf", {"code": "ab", "name": "a"})
    path = f"/records/shelf/{'AB' if database_kind == 'sqlite' else 'ab'}"
    now = api.get(path)
    past = api.get(f"{path}?as_of={now['valid_from']}")
    assert (past["key"], past["links"]) == (now["key"], now["links"])
    assert not path.endswith(f"/{now['key']}")
