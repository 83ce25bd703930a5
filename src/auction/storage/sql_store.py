"""The store on SQLite or PostgreSQL, through SQLAlchemy Core: the journal, its fold and the postings.

It reads and writes rows in transactions and has no market rule. Only the moderator writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sql

from auction.model.errors import BadValue, Conflict, JournalBroken, RowsRefused, StoreFailed, Unknown
from auction.model.person import Personal
from auction.storage.journal import Entry
from auction.storage.migrations import Tables, migrate, tables
from auction.storage.store import Part, Write

_HALF: Final = 2**32  # 64-bit amounts are summed in two halves, so that no sum overflows


def open_engine(url: str) -> sql.Engine:
    """Opens an engine for the store: SQLite in write-ahead mode, synced to disk at every commit (`synchronous=FULL`),
    with one writer at a time; other databases with SQLAlchemy's defaults. Raises BadValue if the URL is invalid or its
    driver is not installed."""
    try:
        engine = sql.create_engine(url)
    except (sql.exc.ArgumentError, ImportError) as reason:
        raise BadValue(f"cannot open the database {url!r}: {reason}") from None
    if engine.dialect.name == "sqlite":

        @sql.event.listens_for(engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin transactions by itself
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "secure_delete=FAST"):
                connection.execute(f"PRAGMA {pragma}")

        @sql.event.listens_for(engine, "begin")
        def _begun(connection: sql.Connection) -> None:
            # A reader must not keep the writer from its lock.
            writes = connection.get_execution_options().get("auction_writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


class SqlStore:
    """The journal, its fold and the postings in SQL tables.

    `engine` is a URL or the host's own engine; `schema` the host's schema for the tables (PostgreSQL). Missing tables
    are created, older ones migrated. Without `create`, missing tables raise Unknown."""

    keeps_records = True

    def __init__(self, engine: sql.Engine | str, schema: str | None = None, *, create: bool = True) -> None:
        self._owns_engine = isinstance(engine, str)
        self.engine = open_engine(engine) if isinstance(engine, str) else engine
        self.tables: Tables = tables(schema)
        if not create and not self._is_there():
            raise Unknown(f"there is no market in {self.engine.url.render_as_string()}")
        self._make_private()
        self._bring_up_to_date()
        self._statements = _Statements(self.engine.dialect, self.tables)
        self._writer: sql.PoolProxiedConnection | None = None
        self._unchanged_since: int | None = None  # SQLite's counter of others' writes when nothing was new

    def _bring_up_to_date(self) -> None:
        try:
            with self._connect() as connection, connection.begin():
                if self.engine.dialect.name == "postgresql":
                    connection.execute(sql.text("SELECT pg_advisory_xact_lock(7233128)"))  # two hosts migrating at once
                migrate(connection, self.tables)
        except sql.exc.SQLAlchemyError as reason:
            raise StoreFailed(f"cannot create a market's tables here: {_words(reason)}") from reason

    def _make_private(self) -> None:
        """Creates a new database file as readable by its owner alone; SQLite gives the files beside it the same
        rights."""
        name = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and name and name != ":memory:" and not name.startswith("file:"):
            with suppress(FileExistsError, OSError):  # connecting reports what is wrong with the path
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def _is_there(self) -> bool:
        url = self.engine.url
        if self.engine.dialect.name == "sqlite" and not Path(url.database or "").is_file():
            return False  # connecting would create the file
        with self._connect(writes=False) as connection:
            return sql.inspect(connection).has_table(self.tables.journal.name, self.tables.journal.schema)

    def close(self) -> None:
        self._drop_writer()
        if self._owns_engine:
            self.engine.dispose()

    def entries(self, after: int = 0) -> Iterator[Entry]:
        with self.snapshot() as stored:
            yield from stored.entries(after)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A consistent snapshot, to read while others keep writing."""
        with self._connect(writes=False) as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield Snapshot(connection, self.tables)

    def has_more(self, after: int) -> bool:
        """Whether entries after this one are stored. Only for the writing thread, because it uses the same connection.
        Raises StoreFailed."""
        driver: Any = self.engine.dialect.dbapi
        try:
            cursor: Any = self._writing().cursor()
            version = None
            if self.engine.dialect.name == "sqlite":
                cursor.execute("PRAGMA data_version")
                version = cursor.fetchone()[0]
                if version == self._unchanged_since:
                    return False
            cursor.execute(self._statements.newest)
            newest: int = cursor.fetchone()[0] or 0
            cursor.close()
            if version is None:
                self._writing().rollback()  # the driver began a transaction for the read
            self._unchanged_since = None if newest > after else version
            return newest > after
        except (sql.exc.SQLAlchemyError, driver.Error) as reason:
            self._drop_writer()
            raise StoreFailed(f"the database could not be read: {_words(reason)}") from reason

    def _writing(self) -> sql.PoolProxiedConnection:
        """The connection for writing, used directly through the driver: taking one from the pool and SQLAlchemy's
        transaction around three statements took half as long as the commit."""
        if self._writer is None:
            self._writer = self.engine.raw_connection()
        return self._writer

    def append(self, writes: list[Write]) -> None:
        """Writes all in one transaction. Raises Conflict if another moderator was first, StoreFailed if the database is
        away, RowsRefused if it rejects the rows. In each case nothing was written (or everything, if only the commit's
        answer was lost; loading shows which)."""
        last: dict[tuple[str, str], tuple[str, str, int, str]] = {}
        gone: dict[tuple[str, str], None] = {}
        for write in writes:
            for row in write.records:
                last[row[0], row[1]] = row
                gone.pop((row[0], row[1]), None)
            for name in write.gone:
                last.pop(name, None)
                gone[name] = None
        driver: Any = self.engine.dialect.dbapi
        try:
            writer = self._writing()
            cursor = writer.cursor()
            if self.engine.dialect.name == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")  # for other databases the driver begins it
            # All in one round trip, if the driver can.
            pipeline = getattr(writer.driver_connection, "pipeline", nullcontext)
            with pipeline():
                self._statements.write(cursor, writes, list(last.values()), list(gone))
                writer.commit()
        except (sql.exc.IntegrityError, driver.IntegrityError) as reason:
            self._drop_writer()
            raise Conflict(f"another moderator wrote to this journal: {reason}") from reason
        except (sql.exc.SQLAlchemyError, driver.OperationalError, driver.InterfaceError) as reason:
            self._drop_writer()
            raise StoreFailed(f"the database did not store the command: {_words(reason)}") from reason
        except Exception as reason:  # drivers raise various errors for a value that they or a column cannot store
            self._drop_writer()
            raise RowsRefused(f"the database rejects the rows: {_words(reason)}") from reason

    def save(self, sequence: int, parts: Iterable[Part]) -> None:
        """Saves a state in place of the previous one. Raises StoreFailed."""
        saved = self.tables.saved
        rows = [{"sequence": sequence, "part": i, "name": one.name, "body": one.body} for i, one in enumerate(parts)]
        try:
            with self._connect() as connection, connection.begin():
                connection.execute(saved.delete())
                connection.execute(saved.insert(), rows)
        except sql.exc.SQLAlchemyError as reason:
            raise StoreFailed(f"the state could not be saved: {_words(reason)}") from reason

    def saved(self) -> list[Part]:
        """The parts of the last saved state; empty if there is none."""
        with self.snapshot() as stored:
            return stored.saved()

    def personal(self, after: int = 0) -> list[Personal]:
        """The personal fields that were stored after an entry."""
        with self.snapshot() as stored:
            return stored.personal(after)

    def wipe(self) -> None:
        """Makes deleted personal fields unreadable: nothing of them is left in free pages or in the write-ahead log.
        For the thread that writes. Raises StoreFailed; call it again then."""
        driver: Any = self.engine.dialect.dbapi
        try:
            if self.engine.dialect.name == "sqlite":
                cursor: Any = self._writing().cursor()
                cursor.execute("VACUUM")
                is_busy = bool(cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
                cursor.close()
                if is_busy:
                    raise StoreFailed("another process reads the database, so its log still has what was erased")
            elif self.engine.dialect.name == "postgresql":
                table = self.engine.dialect.identifier_preparer.format_table(self.tables.personal)
                with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(sql.text(f"VACUUM FULL {table}"))
        except (sql.exc.SQLAlchemyError, driver.Error) as reason:
            self._drop_writer()
            raise StoreFailed(f"what was erased may still be readable: {_words(reason)}") from reason

    def _connect(self, writes: bool = True) -> sql.Connection:
        try:
            return self.engine.connect().execution_options(auction_writes=writes)
        except sql.exc.SQLAlchemyError as reason:
            raise StoreFailed(f"the database cannot be reached: {_words(reason)}") from reason

    def _drop_writer(self) -> None:
        """Drops the connection after a failure; the next write opens another."""
        connection, self._writer = self._writer, None
        self._unchanged_since = None
        if connection is not None:
            with suppress(Exception):  # a broken connection may raise anything
                connection.rollback()
            connection.invalidate()
            connection.close()


class Snapshot:
    """A consistent view of what is stored. Raises StoreFailed if it cannot be read."""

    def __init__(self, connection: sql.Connection, of: Tables) -> None:
        self._connection = connection
        self._tables = of

    def entries(self, after: int = 0) -> Iterator[Entry]:
        journal = self._tables.journal
        for row in self._rows(sql.select(journal).where(journal.c.sequence > after).order_by(journal.c.sequence)):
            numbers = (int(row.sequence), int(row.at_ms))
            try:
                blobs = (bytes(row.request), bytes(row.body), bytes(row.answer), bytes(row.hash))
            except TypeError:
                raise JournalBroken(f"entry {row.sequence} has a value that no moderator writes") from None
            yield Entry(*numbers, row.command, row.key, *blobs)

    def saved(self) -> list[Part]:
        """The parts of the saved state."""
        saved = self._tables.saved
        rows = self._rows(sql.select(saved.c.name, saved.c.body).order_by(saved.c.sequence, saved.c.part))
        return [Part(row.name, bytes(row.body)) for row in rows]

    def personal(self, after: int = 0) -> list[Personal]:
        """The personal fields that were stored after an entry."""
        kept = self._tables.personal
        rows = self._rows(sql.select(kept).where(kept.c.sequence > after).order_by(kept.c.sequence, kept.c.digest))
        return [Personal(row.digest, int(row.sequence), bytes(row.salt), row.body) for row in rows]

    def records(self) -> dict[tuple[str, str], str]:
        """Every record as (kind, id) -> JSON."""
        record = self._tables.record
        rows = self._rows(sql.select(record.c.kind, record.c.id, record.c.body))
        return {(row.kind, row.id): row.body for row in rows}

    def balances(self) -> dict[str, int]:
        """The sum of the postings of each account. It may exceed the database's integers for outside accounts."""
        account, amount = self._tables.posting.c.account, self._tables.posting.c.amount
        low = amount % _HALF
        halves = sql.func.sum((amount - low) // _HALF), sql.func.sum(low)
        rows = self._rows(sql.select(account, *halves).group_by(account))
        return {name: int(high) * _HALF + int(low) for name, high, low in rows}

    def _rows(self, query: Any) -> Iterator[Any]:
        try:
            yield from self._connection.execution_options(yield_per=1000).execute(query)
        except sql.exc.SQLAlchemyError as reason:
            raise StoreFailed(f"the database could not be read: {_words(reason)}") from reason


def _words(reason: BaseException) -> str:
    """The driver's message, in one line."""
    return " ".join(str(getattr(reason, "orig", None) or reason).split())


class _Statements:
    """The statements of a commit, compiled once for the dialect and given to the driver with plain rows: SQLAlchemy's
    handling of statements and parameters took longer than SQLite took to write the rows."""

    def __init__(self, dialect: sql.Dialect, of: Tables) -> None:
        mark = {"qmark": "?"}.get(dialect.paramstyle, "%s")

        def insert(table: sql.Table) -> str:
            columns = ", ".join(column.name for column in table.columns)
            marks = ", ".join(mark for _ in table.columns)
            return f"INSERT INTO {dialect.identifier_preparer.format_table(table)} ({columns}) VALUES ({marks})"

        replaced = ", ".join(f"{column} = excluded.{column}" for column in ("sequence", "body"))
        self._entry = insert(of.journal)
        self._record = f"{insert(of.record)} ON CONFLICT (kind, id) DO UPDATE SET {replaced}"
        self._posting = insert(of.posting)
        self.newest = f"SELECT max(sequence) FROM {dialect.identifier_preparer.format_table(of.journal)}"
        table = dialect.identifier_preparer.format_table(of.record)
        self._personal = insert(of.personal)
        self._erased = f"DELETE FROM {dialect.identifier_preparer.format_table(of.personal)} WHERE digest = {mark}"
        self._gone = f"DELETE FROM {table} WHERE kind = {mark} AND id = {mark}"

    def write(
        self,
        cursor: Any,
        writes: list[Write],
        records: list[tuple[str, str, int, str]],
        gone: list[tuple[str, str]],
    ) -> None:
        """Runs them on the driver's cursor, within its transaction."""
        cursor.executemany(self._entry, [write.entry for write in writes])
        if records:
            cursor.executemany(self._record, records)
        if gone:
            cursor.executemany(self._gone, gone)
        postings = [row for write in writes for row in write.postings]
        if postings:
            cursor.executemany(self._posting, postings)
        personal = [row for write in writes for row in write.personal]
        if personal:
            cursor.executemany(self._personal, personal)
        erased = [(digest,) for write in writes for digest in write.erased]
        if erased:
            cursor.executemany(self._erased, erased)
        cursor.close()
