"""Names the files of an exported model and computes the model's digest from them.

Input: a model's directory.  Output: digests, and whether the directory can be loaded.  The digest identifies a model
by its bytes, wherever it is copied to.  Nothing here imports TensorFlow or TFX.
"""

import hashlib
import pathlib
from typing import NamedTuple

from tfx_ranking.components import storage
from tfx_ranking.components.storage import PathLike

FORMAT_SERVING = "Format-Serving"  # TFX's name for the SavedModel's directory in a Model artifact
CONFIG_IN_MODEL = "assets.extra/tfx_ranking/config.json"  # the config that the model was exported with
WEIGHTS_IN_MODEL = "assets.extra/tfx_ranking/weights.npz"  # the layers' weights, from which a new ranker can start
CONTRACT_IN_MODEL = "assets.extra/tfx_ranking/contract.json"
LINEAGE_IN_MODEL = "assets.extra/tfx_ranking/lineage.json"
SAMPLES_IN_MODEL = "assets.extra/tfx_ranking/samples"  # see sample_file
GRAPHS = ("saved_model.pb", "saved_model.cpb")  # a directory with one of these is a SavedModel


class FileDigest(NamedTuple):
    """Size and digest of one file."""

    size: int  # bytes
    digest: str  # BLAKE2b, hexadecimal


def sample_file(model: pathlib.Path, signature: str) -> pathlib.Path:
    """The file with a signature's sample request and its answer as JSON; the `.pb` beside it has the request's bytes.

    >>> sample_file(pathlib.Path("model"), "tensorflow/serving/predict").name
    'tensorflow_serving_predict.json'
    """
    return model / SAMPLES_IN_MODEL / f"{signature.replace('/', '_')}.json"


def digest(directory: PathLike) -> str:
    """A model's identity: BLAKE2b (256 bits, hexadecimal) over the sorted relative paths and bytes of its files.

    Empty directories, modes and times do not count; a linked file counts as the file.  The digest of a directory
    without files is the digest of no bytes.  Raises FileNotFoundError when there is no such directory.
    """
    return combine(file_digests(directory))


def combine(files: dict[str, FileDigest]) -> str:
    """The digest of a directory with these files.  files: relative path, with `/`, to the file's digest."""
    total = hashlib.blake2b(digest_size=32)
    for path in sorted(files):
        total.update(f"{path}\0{files[path].size}\0{files[path].digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def file_digests(directory: PathLike) -> dict[str, FileDigest]:
    """The digest of every file under a directory, by its relative path."""
    return {path: file_digest(file) for path, file in storage.files_in(storage.to_path(directory)).items()}


def file_digest(path: PathLike) -> FileDigest:
    """Size and BLAKE2b of one file."""
    content = hashlib.blake2b(digest_size=32)
    size = 0
    with storage.to_path(path).open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
            size += len(block)
    return FileDigest(size, content.hexdigest())


def is_loadable(directory: PathLike) -> bool:
    """Whether a directory looks like a SavedModel: it has a graph and variables.

    TensorFlow Serving loads a version without `variables/` and fails at request time, so that version is not live.
    """
    root = storage.to_path(directory)
    return any((root / name).is_file() for name in GRAPHS) and (root / "variables" / "variables.index").is_file()
