"""An object store for tests, `bucket://<folder>`: local files by fsspec, which no rename moves.

`import buckets` registers it, in whichever process.
"""

import fsspec
import upath.registry
from fsspec.implementations.local import LocalFileSystem


class Bucket(LocalFileSystem):
    """Like an object store: a name is its path, nothing is renamed."""

    protocol = "bucket"

    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "auto_mkdir": True})

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("bucket://", "", 1))

    def unstrip_protocol(self, name):
        return f"bucket://{self._strip_protocol(name)}"

    def mv(self, *_, **__):
        raise NotImplementedError("an object store renames nothing")

    mv_file = rename = move = mv


class BucketPath(upath.UPath):
    __slots__ = ()


fsspec.register_implementation("bucket", Bucket, clobber=True)
upath.registry.register_implementation("bucket", BucketPath, clobber=True)
