"""What a model no longer has is told of the versions that had it."""

from tests.service.api import Api
from tests.service.own_models import db


def test_dropped_columns_are_told_of_versions_that_had_them(own_api: Api) -> None:
    links = own_api.post("/records/account", {"label": "first", "pin": "1", "pass_phrase": "x"})["links"]
    for label in ("second", "third"):
        own_api.patch(links["record"], {"label": label})
    with db.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE account_history SET branch = 'Lyon', opened_on = '2020-02-29' WHERE version = 0"
        )
    key, path = int(links["record"].rpartition("/")[2]), links["history"]
    had = {"id": key, "label": "first", "branch": "Lyon", "opened_on": "2020-02-29"}
    assert own_api.get(f"{path}/versions/0")["state"] == had
    states = [version["state"] for version in own_api.get(path)["versions"]]
    assert states == [had, {"id": key, "label": "second"}]
    assert own_api.get(f"{path}/versions/2")["state"] == {"id": key, "label": "third"}
    # Nobody has changed them.
    diff = own_api.get(f"{path}/diff?from=0")
    assert diff["changes"] == {"label": {"from": "first", "to": "third"}}
    assert set(own_api.get(f"{path}/blame")["columns"]) == {"label", "pin", "pass_phrase"}
    patch = own_api.call("GET", f"{path}/diff?from=0", headers={"Accept": "application/json-patch+json"}).json
    assert {"op": "remove", "path": "/branch"} in patch
