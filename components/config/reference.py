"""Describes every key of `ranking.yaml`: as a JSON schema, and as the page docs/config.md.

Input: the config's dataclasses, the sentence under each of their fields, and the tables of `choices`.  Output: the
schema, or the page as text.  The sentences are read from the source, and only when a schema or a page is made: pydantic
can read them at import (`use_attribute_docstrings`), but that nearly doubles the time of the import.

    python -m tfx_ranking.components.config.reference > docs/config.md
"""

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_type_hints

import pydantic

from tfx_ranking.components import config
from tfx_ranking.components.config.choice_fields import Choices

EXAMPLE = """\
name: shop-search
data:
  input: logs/*.csv
  format: csv
  group_id: query_id           # the rows of one query_id are one list
  label: clicked
context:
  country: {dtype: string, vocabulary: {}}
items:
  price: {transform: [log1p, z_score]}
  brand: {dtype: string, vocabulary: {num_oov_buckets: 8}, embedding: 8}
  image: {shape: [128]}
training: {epochs: 10}
evaluation: {metrics: [ndcg@10, mrr], slices: [country]}
push: {base: serving/shop-search}
"""
HEAD = f"""\
# The keys of ranking.yaml

Made by `python -m tfx_ranking.components.config.reference > docs/config.md`. A complete small config:

```yaml
{EXAMPLE}```

Relative paths start at the folder of ranking.yaml. An unknown key is an error. `tfx-ranking config-schema` prints the
same reference as a JSON schema, with which editors complete, explain and check the file.
"""


class _Field(NamedTuple):
    sentence: str
    choices: Choices | None  # the table that the field's values come from


def json_schema() -> dict[str, Any]:
    """The config's JSON schema, with which editors complete, explain and check `ranking.yaml`."""
    schema = pydantic.TypeAdapter(config.RankingConfig).json_schema()
    parts = {config.RankingConfig.__name__: schema, **schema["$defs"]}
    for (name, key), field in _fields(config.RankingConfig).items():
        table = field.choices.sentences() if field.choices else {}
        lines = [field.sentence, *(f"{shown}: {meaning}" for shown, meaning in table.items())]
        parts[name]["properties"][key]["description"] = "\n".join(lines)
    return schema


def page() -> str:
    """The text of docs/config.md."""
    schema = pydantic.TypeAdapter(config.RankingConfig).json_schema()
    fields = _fields(config.RankingConfig)
    parts = [HEAD]
    for title, part in _sections(schema):
        rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, of in part["properties"].items():
            sentence, choices = fields[part["title"], key]
            see = f" See [{choices.title}](#{choices.title.lower().replace(' ', '-')})." if choices else ""
            cells = f"`{key}`", _type(of), _default(key, of, part), _cell(sentence) + see
            rows.append(f"| {' | '.join(cells)} |")
        parts.append(f"## {title}\n\n{' '.join(part['description'].split())}\n\n" + "\n".join(rows) + "\n")
    for choices in {field.choices.title: field.choices for field in fields.values() if field.choices}.values():
        rows = [f"| `{shown}` | {_cell(meaning)} |" for shown, meaning in choices.sentences().items()]
        parts.append(f"## {choices.title}\n\n" + "\n".join(["| name | meaning |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _fields(root: type) -> dict[tuple[str, str], _Field]:
    """Every field of `root` and of the dataclasses below it, by the dataclass's name and the field's."""
    fields: dict[tuple[str, str], _Field] = {}
    seen: set[type] = set()

    def add(dataclass: type) -> None:
        if dataclass in seen:
            return
        seen.add(dataclass)
        sentences = _sentences(dataclass)
        for name, hint in get_type_hints(dataclass, include_extras=True).items():
            below = list(_parts(hint))
            choices = next((part for part in below if isinstance(part, Choices)), None)
            fields[dataclass.__name__, name] = _Field(sentences[name], choices)
            for part in below:
                if isinstance(part, type) and dataclasses.is_dataclass(part):
                    add(part)

    add(root)
    return fields


def _parts(hint: Any) -> Iterator[Any]:
    """A type hint, its arguments and what stands beside them in `Annotated`."""
    metadata = getattr(hint, "__metadata__", ())
    if metadata:  # the type that is annotated is described by the metadata
        yield from metadata
        return
    yield hint
    for each in get_args(hint):
        yield from _parts(each)


def _sentences(dataclass: type) -> dict[str, str]:
    """Field → the docstring below it, on one line; fields of base classes included."""
    sentences = {}
    for each in reversed(dataclass.__mro__):
        if not dataclasses.is_dataclass(each):
            continue
        [node] = ast.parse(inspect.getsource(each)).body
        assert isinstance(node, ast.ClassDef)
        for field, below in zip(node.body, node.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                sentences[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(below.value)).split())
    return sentences


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(title, schema) of each dataclass once, titled by the paths of its keys; a nested one follows its parent."""
    paths: dict[str, list[str]] = {}

    def walk(part: dict[str, Any], path: str) -> None:
        for key, of in part["properties"].items():
            for name, below in _dataclasses(of):
                first = name not in paths
                where = f"{path}.{key}{below}".lstrip(".")
                paths.setdefault(name, []).append(where)
                if first:
                    walk(schema["$defs"][name], where)

    walk(schema, "")
    yield "The file", schema
    for name, titles in paths.items():
        yield ", ".join(f"`{title}`" for title in titles), schema["$defs"][name]


def _dataclasses(of: dict[str, Any], below: str = "") -> Iterator[tuple[str, str]]:
    """(dataclass, text between the key and the dataclass's own keys) of each dataclass that a key may hold."""
    if "$ref" in of:
        yield of["$ref"].rpartition("/")[2], below
    for branch in of.get("anyOf", ()):
        yield from _dataclasses(branch, below)
    if isinstance(of.get("additionalProperties"), dict):
        yield from _dataclasses(of["additionalProperties"], f"{below}.<name>")
    if isinstance(of.get("items"), dict):
        yield from ((name, f"{below}: {name.lower()}") for name, _ in _dataclasses(of["items"]))


def _type(of: dict[str, Any]) -> str:
    if "$ref" in of:
        return "mapping"
    if "anyOf" in of:
        return " or ".join(dict.fromkeys(_type(each) for each in of["anyOf"] if each != {"type": "null"}))
    if "enum" in of or "const" in of:
        return ", ".join(f"`{each}`" for each in of.get("enum", (of.get("const"),)))
    if "prefixItems" in of:
        return f"list of {len(of['prefixItems'])} {_plural(_type(of['prefixItems'][0]))}"
    if "items" in of:
        return f"list of {_plural(_type(of['items']))}"
    if isinstance(of.get("additionalProperties"), dict):
        return f"mapping of names to {_plural(_type(of['additionalProperties']))}"
    return {"string": "text", "boolean": "true or false", "object": "mapping"}.get(of["type"], of["type"])


def _plural(kind: str) -> str:
    return re.sub(r"^(text|number|integer|mapping)\b", r"\1s", kind)


def _default(key: str, of: dict[str, Any], part: dict[str, Any]) -> str:
    if key in part.get("required", ()):
        return "required"
    default = of.get("default")
    if default is None or (isinstance(default, dict) and default):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    print(page(), end="")
