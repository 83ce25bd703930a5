"""The tables of the store, and the migration steps for older databases.

Each step is a function that runs once, in the order of the list; the table `auction_schema` counts the steps that have
run. A released step never changes: a change is a new step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import sqlalchemy as sql

from auction.model.errors import TooNew


class Tables(NamedTuple):
    """The tables, in the host's schema if it named one."""

    metadata: sql.MetaData
    schema_steps: sql.Table
    journal: sql.Table
    record: sql.Table
    posting: sql.Table
    saved: sql.Table
    personal: sql.Table


def tables(schema: str | None = None) -> Tables:
    """Describes the tables; creates nothing."""
    metadata = sql.MetaData(schema=schema)
    return Tables(
        metadata,
        sql.Table("auction_schema", metadata, sql.Column("step", sql.Integer, primary_key=True)),
        sql.Table(
            "auction_journal",
            metadata,
            sql.Column("sequence", sql.BigInteger, primary_key=True, autoincrement=False),
            sql.Column("at_ms", sql.BigInteger, nullable=False),
            sql.Column("command", sql.Text, nullable=False),
            sql.Column("key", sql.Text, nullable=False),
            sql.Column("request", sql.LargeBinary, nullable=False),
            sql.Column("body", sql.LargeBinary, nullable=False),
            sql.Column("answer", sql.LargeBinary, nullable=False),
            sql.Column("hash", sql.LargeBinary, nullable=False),
        ),
        sql.Table(
            "auction_record",
            metadata,
            sql.Column("kind", sql.Text, primary_key=True),
            sql.Column("id", sql.Text, primary_key=True),
            sql.Column("sequence", sql.BigInteger, nullable=False),
            sql.Column("body", sql.Text, nullable=False),
        ),
        sql.Table(
            "auction_posting",
            metadata,
            sql.Column("sequence", sql.BigInteger, primary_key=True, autoincrement=False),
            sql.Column("line", sql.Integer, primary_key=True, autoincrement=False),
            sql.Column("account", sql.Text, nullable=False),
            sql.Column("amount", sql.BigInteger, nullable=False),
        ),
        sql.Table(
            "auction_saved",
            metadata,
            sql.Column("sequence", sql.BigInteger, primary_key=True, autoincrement=False),
            sql.Column("part", sql.Integer, primary_key=True, autoincrement=False),
            sql.Column("name", sql.Text, nullable=False),
            sql.Column("body", sql.LargeBinary, nullable=False),
        ),
        sql.Table(
            "auction_personal",
            metadata,
            sql.Column("digest", sql.Text, primary_key=True),
            sql.Column("sequence", sql.BigInteger, nullable=False),
            sql.Column("salt", sql.LargeBinary, nullable=False),
            sql.Column("body", sql.Text, nullable=False),
        ),
    )


def _first(connection: sql.Connection, wanted: Tables) -> None:
    """The journal, the records that are its fold, and the postings of the ledger."""
    wanted.metadata.create_all(connection, tables=[wanted.journal, wanted.record, wanted.posting])


def _account_index(connection: sql.Connection, wanted: Tables) -> None:
    """An index, because balances are queried by account."""
    _of_accounts(wanted).create(connection)


def _of_accounts(wanted: Tables) -> sql.Index:
    return sql.Index("auction_posting_account", wanted.posting.c.account)


def _saved_state(connection: sql.Connection, wanted: Tables) -> None:
    """The saved state, so that a start need not read the whole journal."""
    wanted.saved.create(connection)


def _personal_fields(connection: sql.Connection, wanted: Tables) -> None:
    """Names, numbers and remarks, which can be erased: the journal has their digests."""
    wanted.personal.create(connection)


def _no_account_index(connection: sql.Connection, wanted: Tables) -> None:
    """Without the index: balances are added up of all accounts in one pass, and keeping it took a third of a commit."""
    connection.execute(sql.schema.DropIndex(_of_accounts(wanted), if_exists=True))


STEPS: Final[tuple[Callable[[sql.Connection, Tables], None], ...]] = (
    _first,
    _account_index,
    _saved_state,
    _personal_fields,
    _no_account_index,
)


def migrate(connection: sql.Connection, wanted: Tables, steps: int = len(STEPS)) -> int:
    """Runs the steps that this database has not had, up to `steps` in all. Returns how many ran. Raises TooNew for a
    database that has had more steps than there are. The caller's transaction makes it all or nothing on databases with
    transactional data definition (SQLite and PostgreSQL have it)."""
    wanted.schema_steps.create(connection, checkfirst=True)
    done = connection.execute(sql.select(sql.func.max(wanted.schema_steps.c.step))).scalar_one() or 0
    if done > len(STEPS):
        raise TooNew(
            f"the database has had {done} migration steps, this version has {len(STEPS)}: a newer version has opened it"
        )
    for number in range(done, steps):
        STEPS[number](connection, wanted)
        connection.execute(wanted.schema_steps.insert().values(step=number + 1))
    return max(steps - done, 0)
