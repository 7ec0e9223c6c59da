"""An object store for tests, `bucket://<folder>`: local files by fsspec, of which nothing is renamed.

As in the real ones, an object appears when all of it has arrived.  `import buckets` registers it, in whichever process.
"""

import os
import shutil
import tempfile

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

    def _open(self, path, mode="rb", **options):
        return super()._open(path, mode, **options) if "w" not in mode else Upload(path)

    def cp_file(self, path1, path2, **_):
        self.makedirs(self._parent(path2), exist_ok=True)
        with open(path1, "rb") as source, Upload(path2) as target:
            shutil.copyfileobj(source, target)

    def mv(self, *_, **__):
        raise NotImplementedError("an object store renames nothing")

    mv_file = rename = move = mv


class Upload:
    """A file for writing that is there once it is closed."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.path, (descriptor, self.arriving) = path, tempfile.mkstemp(prefix="bucket-upload-")
        self.file = os.fdopen(descriptor, "wb")
        self.write, self.flush = self.file.write, self.file.flush

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if not self.file.closed:
            self.file.close()
            os.replace(self.arriving, self.path)


class BucketPath(upath.UPath):
    __slots__ = ()


fsspec.register_implementation("bucket", Bucket, clobber=True)
upath.registry.register_implementation("bucket", BucketPath, clobber=True)
