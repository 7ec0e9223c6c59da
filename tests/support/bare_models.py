"""Directories with the file names of a SavedModel, for tests that load no TensorFlow."""


def make_model(directory, content=b"graph"):
    """Writes the files into a new directory and returns it."""
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(content)
    (directory / "variables" / "variables.index").write_bytes(b"index")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights")
    (directory / "assets").mkdir()
    return directory
