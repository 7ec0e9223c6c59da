"""Every key of `ranking.yaml`: its JSON schema, and the reference page docs/config.md.

Enters: the config's dataclasses, and the sentence that stands under each of their fields.  Leaves: the schema, the page
as text.  The one idea: the sentences are read from the source, and only when somebody asks for them: pydantic's own
`use_attribute_docstrings` reads them at import, which nearly doubles its time.

    python -m tfx_ranking.components.config.reference > docs/config.md
"""

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pydantic

from tfx_ranking.components import config
from tfx_ranking.components.config import (
    data_section,
    feature_sections,
    kubeflow_section,
    ranking_config,
    serving_sections,
    training_sections,
)
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

Made by `python -m tfx_ranking.components.config.reference > docs/config.md`. A small config, whole:

```yaml
{EXAMPLE}```

Relative paths are taken from the file's folder. A key that is not known is refused. `tfx-ranking config-schema` prints
the same as a JSON schema, by which editors complete, explain and check the file.
"""


def json_schema() -> dict[str, Any]:
    """The config's JSON schema, by which editors complete, explain and check `ranking.yaml`."""
    schema = pydantic.TypeAdapter(config.RankingConfig).json_schema()
    told = sentences(
        data_section, feature_sections, kubeflow_section, serving_sections, training_sections, ranking_config
    )
    choices = fields_with_choices(config.RankingConfig)
    for name, part in {**schema["$defs"], config.RankingConfig.__name__: schema}.items():
        for key, sentence in told[name].items():
            table = choices[name, key].sentences() if (name, key) in choices else {}
            lines = [sentence, *(f"{shown}: {meaning}" for shown, meaning in table.items())]
            part["properties"][key]["description"] = "\n".join(lines)
    return schema


def fields_with_choices(root: type) -> dict[tuple[str, str], Choices]:
    """(dataclass, field) → the table that the field's values are chosen from, for all dataclasses below `root`."""
    choices: dict[tuple[str, str], Choices] = {}
    seen: set[type] = set()

    def walk(of: Any, owner: tuple[str, str]) -> None:
        for each in getattr(of, "__metadata__", ()):
            if isinstance(each, Choices):
                choices[owner] = each
        for each in get_args(of):
            walk(each, owner)
        if dataclasses.is_dataclass(of) and isinstance(of, type) and of not in seen:
            seen.add(of)
            for name, hint in get_type_hints(of, include_extras=True).items():
                walk(hint, (of.__name__, name))

    walk(root, ("", ""))
    return choices


def sentences(*modules: ModuleType) -> dict[str, dict[str, str]]:
    """Class → field → the docstring below it, on one line; a class has those of the bases that came before, too."""
    told: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.ClassDef):
                continue
            told[node.name] = {}
            for base in node.bases:
                told[node.name] |= told.get(ast.unparse(base), {})
            for field, below in zip(node.body, node.body[1:]):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    told[node.name][ast.unparse(field.target)] = " ".join(str(ast.literal_eval(below.value)).split())
    return told


def page() -> str:
    """docs/config.md."""
    schema = json_schema()
    choices = fields_with_choices(config.RankingConfig)
    parts = [HEAD]
    for title, part in _sections(schema):
        rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, of in part["properties"].items():
            meaning = of["description"].partition("\n")[0].replace("|", "\\|")
            if (part["title"], key) in choices:
                section = choices[part["title"], key].title
                meaning += f" See [{section}](#{section.lower().replace(' ', '-')})."
            cells = f"`{key}`", _type(of), _default(key, of, part), meaning
            rows.append(f"| {' | '.join(cells)} |")
        parts.append(f"## {title}\n\n{' '.join(part['description'].split())}\n\n" + "\n".join(rows) + "\n")
    for section, table in {each.title: each.sentences() for each in choices.values()}.items():
        rows = ["| name | meaning |", "| --- | --- |", *(f"| `{shown}` | {table[shown]} |" for shown in table)]
        parts.append(f"## {section}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each dataclass once, under the paths of its keys, those within it behind it."""
    paths: dict[str, list[str]] = {}

    def walk(part: dict[str, Any], path: str) -> None:
        for key, of in part["properties"].items():
            for name, below in _dataclasses(of):
                first = name not in paths
                here = f"{path}.{key}{below}".lstrip(".")
                paths.setdefault(name, []).append(here)
                if first:
                    walk(schema["$defs"][name], here)

    walk(schema, "")
    yield "The file", schema
    for name, where in paths.items():
        yield ", ".join(f"`{path}`" for path in where), schema["$defs"][name]


def _dataclasses(of: dict[str, Any], below: str = "") -> Iterator[tuple[str, str]]:
    """(dataclass, what stands between the key and its keys) of each that a key may hold."""
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
