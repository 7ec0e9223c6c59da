"""Names and texts use plain words: the words below have a plain one that says the same.

A line that must hold an old word for programs that read it ends in `# until 0.3: …`.
"""

import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDERS = ("components", "pipelines", "tfx_ranking", "tests", "benchmarks", "docs", "notebooks")
KINDS = (".py", ".md", ".jinja", ".ipynb", ".sh", ".toml", ".yaml")
FILES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.suffix in KINDS and not file.is_symlink() and not {"museum", "typings", "__pycache__"} & {*file.parts}
)
FILES += [ROOT / name for name in ("README.md", "Makefile", "setup.sh", "pyproject.toml", "Dockerfile", ".ci/run")]

# A name that could mean anything names nothing; write message, summary, properties, matches, query, received, …
NAMES = {"said", "told", "found", "held", "asked", "came", "unsaid"}
# Phrase: what to write instead.
PHRASES = {
    r"(?:un)?said": "is printed, is recorded, the message",
    r"told": "is given, gets, its parameters",
    r"tells? of": "reports, lists",
    r"(?:came|comes?) of": "results of, outputs of",
    r"what (?:it|they|he|she) (?:is|are) told": "its parameters",
    r"of any more": "say it in two sentences",
    r"anew": "again",
    r"asked for": "requested",
    r"what is what": "the terms",
    r"whatever came": "say what came",
    r"that there is (?:no|none)": "unknown, missing",
}
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)
TEXTS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # from Python 3.12 on
THIS = pathlib.Path(__file__).resolve()


def _dialect(text: str, suffix: str) -> Iterator[tuple[int, str]]:
    """(line, word) of each refused word in a file's text."""
    if suffix == ".md":
        text = re.sub(r"`\w+`", "", text)  # the name of a key
    lines = text.split("\n")
    if suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and NAMES & {*token.string.lower().strip("_").split("_")}:
                yield token.start[0], token.string
            elif token.type in TEXTS:
                for number, line in enumerate(token.string.split("\n"), token.start[0]):
                    if "# until 0.3:" not in lines[number - 1]:
                        yield from ((number, each[0]) for each in PHRASE.finditer(line))
    else:
        yield from ((number, each[0]) for number, line in enumerate(lines, 1) for each in PHRASE.finditer(line))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_word_of_the_old_dialect(file):
    if file == THIS:
        pytest.skip("this file lists the words")
    assert [
        f"{file.relative_to(ROOT)}:{line}: {word!r}" for line, word in _dialect(file.read_text(), file.suffix)
    ] == []


def test_a_word_is_seen_wherever_it_stands():
    source = 'found = 1  # what came of it\ndef tell(asked): return "nothing is said"\n'
    assert [word for _, word in _dialect(source, ".py")] == ["found", "came of", "asked", "said"]
    assert [*_dialect("x\nIt tells of a run.", ".md")] == [(2, "tells of")]
    assert [*_dialect('key = "said"  # until 0.3: 0.1\'s name\n', ".py")] == []
