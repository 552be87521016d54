"""Changes of relationships: whichever side they are made from, the owner of the foreign key gets the row."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from tests.library.oracle import Ident
from tests.library.pending import Set
from tests.library.player import Player
from tests.library.shapes import FAMILY, Item, Owner, Part


class Relate(NamedTuple):
    """A change of a relationship.

    :ivar what: the name of a method of `Relating`
    :ivar owner: which owner, by its place
    :ivar member: which item or part, by its place
    """

    what: str
    owner: int
    member: int


@dataclass
class Relating:
    """What is changed in one flush, and who belongs to whom then."""

    player: Player
    owners: dict[Any, Any] = field(default_factory=dict)
    keepers: dict[Any, Any] = field(default_factory=dict)
    set_by_key: set[Any] = field(default_factory=set)
    set_by_object: set[Any] = field(default_factory=set)
    added: list[Any] = field(default_factory=list)
    deleted: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        of_key = {}
        for shape in FAMILY:
            for ident, record in self.player.view.live(shape):
                obj = of_key[ident] = self.player.find(ident)
                owner = record.current.get("owner_id")
                keeper = record.current.get("keeper_id")
                if shape != "owner":
                    self.owners[obj] = of_key.get(Ident("owner", (owner,)))
                if shape == "item":
                    self.keepers[obj] = of_key.get(Ident("owner", (keeper,)))
        self.known = of_key
        self.kept = {*self.keepers.values()}
        self.receiving: set[Any] = set()
        self.given: set[Any] = set()
        self.let_go: set[Any] = set()

    def do(self, what: Relate) -> None:
        owner = self._pick(Owner, what.owner)
        member = self._pick(Part if "part" in what.what else Item, what.member)
        getattr(self, what.what)(owner, member)

    def _pick(self, model: type, slot: int) -> Any:
        objs = [obj for ident, obj in sorted(self.known.items()) if type(obj) is model and obj not in self.deleted]
        return objs[slot % len(objs)] if objs else None

    def _related(self, item: Any) -> bool:
        """May the item be given to an owner by object?"""
        if item in self.set_by_key:
            return False
        self.set_by_object.add(item)
        return True

    def give_item(self, owner: Any, item: Any) -> None:
        if item is not None and self._related(item):
            self.owners[item] = item.owner = owner
            self.receiving.add(owner)
            self.given.add(item)

    def free_item(self, owner: Any, item: Any) -> None:
        self.give_item(None, item)

    def append_item(self, owner: Any, item: Any) -> None:
        if owner is not None and item is not None and self.owners[item] is not owner and self._related(item):
            owner.items.append(item)
            self.owners[item] = owner
            self.receiving.add(owner)

    def remove_item(self, owner: Any, item: Any) -> None:
        # The ORM takes an item that was given to the owner it had, and then removed, for one that nothing happened to.
        if item is not None and item not in self.given and self.owners[item] is not None and self._related(item):
            self.owners[item].items.remove(item)
            self.owners[item] = None

    def give_item_by_key(self, owner: Any, item: Any) -> None:
        if item is not None and item not in self.set_by_object | self.let_go and owner is not None:
            self.set_by_key.add(item)
            item.owner_id = owner.id
            self.owners[item] = owner

    def keep_item(self, owner: Any, item: Any) -> None:
        if item is not None:
            self.keepers[item] = item.keeper = owner
            self.kept.add(owner)

    def unkeep_item(self, owner: Any, item: Any) -> None:
        self.keep_item(None, item)

    def new_item(self, owner: Any, _: Any) -> None:
        if owner is not None:
            item = Item(title="new")
            owner.items.append(item)
            self.owners[item], self.keepers[item] = owner, None
            self.added.append(item)

    def new_owner(self, _: Any, item: Any) -> None:
        if item is not None and self._related(item):
            owner = Owner(name="new")
            self.owners[item] = item.owner = owner
            self.added.append(owner)

    def new_part(self, owner: Any, _: Any) -> None:
        if owner is not None:
            part = Part(label="new")
            owner.parts.append(part)
            self.owners[part] = owner
            self.added.append(part)

    def move_part(self, owner: Any, part: Any) -> None:
        if part is not None and owner is not None and self.owners[part] is not owner:
            self.owners[part].parts.remove(part)
            owner.parts.append(part)
            self.owners[part] = owner

    def remove_part(self, _: Any, part: Any) -> None:
        if part is not None:
            self.owners.pop(part).parts.remove(part)
            self.deleted.append(part)

    def delete_owner(self, owner: Any, _: Any) -> None:
        belonging = [member for member, of in self.owners.items() if of is owner]
        # The ORM does not know of an owner that was set by its key, nor takes a new member from one that it deletes:
        # an item that was given to it in the same flush would go on referring to it.
        unknown = self.set_by_key.union(self.added)
        if owner is None or owner in self.kept | self.receiving or not unknown.isdisjoint(belonging):
            return
        self.player.session.delete(owner)
        self.deleted.append(owner)
        for member in belonging:
            if type(member) is Part:
                del self.owners[member]
                self.deleted.append(member)
            else:
                # The ORM takes the key away, also one that is set in the same flush.
                self.owners[member] = None
                self.let_go.add(member)

    def tell(self, extra: dict[str, str]) -> None:
        """Tell the oracle, after the flush."""
        player, idents = self.player, {obj: ident for ident, obj in self.known.items()}
        for obj in self.added:
            # A part that was removed again, or whose owner was deleted, was never there.
            if obj in self.deleted or not sa.inspect(obj).persistent:
                continue
            ident = idents[obj] = player.ident(obj)
            player.held[ident] = obj
            values = (
                {"name": "new"} if type(obj) is Owner else {"label": "new"} if type(obj) is Part else {"title": "new"}
            )
            player.view.insert(ident, values | self._foreign(obj), extra)
        for obj, ident in idents.items():
            if obj in self.added:
                continue
            own = player.reasons(ident)
            if obj in self.deleted:
                player.view.delete(ident, own)
            elif not player.view.update(ident, self._foreign(obj), own):
                continue
            player.marks.pop(ident, None)

    def _foreign(self, obj: Any) -> dict[str, Any]:
        foreign = {}
        if obj in self.owners:
            foreign["owner_id"] = _id(self.owners[obj])
        if obj in self.keepers:
            foreign["keeper_id"] = _id(self.keepers[obj])
        return foreign


def relate(player: Player, what: Iterable[Relate], sets: Iterable[Set]) -> None:
    """Change relationships, and plain attributes of other objects, in one flush."""
    player.make_way(["family"])
    if not player.flush():
        return
    # A collection that is loaded may lack what another session has added since.
    for ident, obj in player.persistent().items():
        if ident.shape in FAMILY:
            player.session.expire(obj)
    player.sync()
    relating = Relating(player)
    for one in what:
        relating.do(one)
    player.sync()
    player.change(one for one in sets if one.target.shape not in FAMILY)
    player.locked.add("family")
    if player.flush():
        relating.tell(player.extra())
        for ident in relating.known.keys() | {player.ident(obj) for obj in relating.added}:
            player.known.pop(ident, None)
        player.sync()


def _id(owner: Any) -> int | None:
    return None if owner is None else sa.inspect(owner).identity[0]
