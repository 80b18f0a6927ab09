"""One part of a map, saved and opened again."""

from vpr.maps.folder import MANIFEST, PartWriter, begin_revision, commit, open_part, read_manifest


def saved_part(folder, name, save):
    """Save a part with ``save(writer)``, behind what the map has of it already, and open it."""
    after = read_manifest(folder) if (folder / MANIFEST).exists() else None
    revision = begin_revision(folder) if after is None else after.revision
    with PartWriter(folder, revision, name) as writer:
        digest = save(writer)
    commit(folder, revision, [digest], "net@1", after)
    return open_part(folder, name)


def changed_part(folder, name, save, table, change):
    """As ``saved_part``, but ``change(arrays)`` alters what is written to one table."""

    class Changed(PartWriter):
        def append(self, where, arrays):
            arrays = {column: rows.copy() for column, rows in arrays.items()}
            if where == table:
                change(arrays)
            super().append(where, arrays)

    revision = begin_revision(folder)
    with Changed(folder, revision, name) as writer:
        digest = save(writer)
    commit(folder, revision, [digest], "net@1")
    return open_part(folder, name)
