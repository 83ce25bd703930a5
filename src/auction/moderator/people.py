"""The personal fields of a market while it runs: by digest, and the map from names and numbers to the market's own ids.

They are no part of the fold: the journal has their digests alone. What is erased is gone here too.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.bid import ShownRating
from auction.model.person import Person, Personal, referenced
from auction.model.rating import Opinion


class People:
    """Written by the moderator alone, beside the fold."""

    def __init__(self) -> None:
        self.loaded_to = 0  # the entry up to which the stored fields were read
        self.of_digest: dict[str, Person] = {}
        self.named: dict[str, str] = {}  # name or number -> the party's id

    def add(self, rows: Iterable[Personal]) -> None:
        for row in rows:
            person = self.of_digest[row.digest] = row.person
            for name in (person.name, person.number):
                if name:
                    self.named[name] = person.about

    def drop(self, digests: Iterable[str]) -> None:
        for digest in digests:
            person = self.of_digest.pop(digest, None)
            if person is not None:
                self.named.pop(person.name, None)
                self.named.pop(person.number, None)

    def remark(self, text: str) -> str:
        """The remark that stands for this text: itself, or what it refers to; empty for one that was erased."""
        digest = referenced(text)
        if not digest:
            return text
        person = self.of_digest.get(digest)
        return person.remark if person is not None else ""

    def rating(self, rating: ShownRating) -> ShownRating:
        """The rating with its remarks as they were said."""
        if not rating.remarks:
            return rating
        remarks = tuple(said for said in map(self.remark, rating.remarks) if said)
        return msgspec.structs.replace(rating, remarks=remarks)

    def opinion(self, opinion: Opinion | None) -> Opinion | None:
        if opinion is None or not opinion.remark:
            return opinion
        return msgspec.structs.replace(opinion, remark=self.remark(opinion.remark))
