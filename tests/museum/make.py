"""Makes the files of a release that the tests of later releases read: what it leaves on a user's disk.

    python tests/museum/make.py            # writes tests/museum/<version>/, with the tfx-ranking of this Python

Run it once for each release, before the next one begins.  It uses the commands alone, so it works with any release.
Output: `shop.tar.gz` (ranking.yaml, logs, artifacts, two pushed versions, the schedule's folder), `metadata.sql` (ML
Metadata's store as text), `answers.json` (the documents of `--json`) and `pipeline.yaml` (compiled for Kubeflow).
`@ROOT@` stands for the folder in text files.  `imports.txt` is written by hand: each `module:name` that the
documentation of the release showed.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from typing import Any

ROOT = b"@ROOT@"
CLI = (sys.executable, "-m", "tfx_ranking.pipelines.cli")
CONFIG = {
    "name": "shop",
    "data": {
        "input": "logs/*.csv",
        "format": "csv",
        "group_id": "query_id",
        "item_id": "sku",
        "label": "clicked",
        "splits": {"validation": 0.2, "test": 0.2},
    },
    "context": {"country": {"dtype": "string", "vocabulary": {}, "embedding": 2}},
    "items": {"price": {"transform": ["log1p", "z_score"]}, "match": {"transform": ["z_score"]}},
    "model": {"scorer": "dnn", "hidden": [4]},
    "training": {"epochs": 2, "batch_lists": 16, "seed": 1},
    "serving": {"signatures": ["list_example", "predict"], "default": "predict", "parity_lists": 8},
    "evaluation": {"metrics": ["ndcg@5", "mrr"], "bless": {"metric": "ndcg@5", "min_improvement": -1.0}},
    "push": {"base": "serving/shop", "version": "next"},
}
COMPILE = ("--image", "registry.example.com/ranking:1", "--root", "s3://ranking/shop", "--metadata",
           '{"mysql": {"host": "mlmd", "database": "mlmd", "user": "tfx"}}')  # fmt: skip


QUESTIONS = (
    "runs",
    "models serving/shop",
    "versions serving/shop",
    "impact --file logs/day.csv",
    "served serving/shop --at now",
    "diff serving/shop/1 serving/shop/2",
    "lineage serving/shop/2",
    "lineage --down artifact:2",
    "schedule status ranking.yaml",
    "retrain ranking.yaml --dry-run",
)


def main() -> None:
    version = importlib.metadata.version("tfx-ranking")
    target = pathlib.Path(__file__).resolve().parent / version
    target.mkdir(exist_ok=True)
    folder = pathlib.Path("/tmp/shop")  # always the same: models and protos hold the paths of their inputs
    folder.mkdir()
    try:
        write_logs(folder / "logs" / "day.csv")
        config = folder / "ranking.yaml"
        config.write_text(json.dumps(CONFIG, indent=2))
        run(folder, "run", config)
        config.write_text(json.dumps({**CONFIG, "training": {**CONFIG["training"], "epochs": 3}}, indent=2))
        run(folder, "run", config)
        schedule(folder, config)
        run(folder, "compile", config, *COMPILE, "--input", "s3://ranking/logs/*.csv", "--push-base",
            "s3://ranking/serving", "-o", target / "pipeline.yaml")  # fmt: skip
        answers = {question: ask(folder, question) for question in QUESTIONS}
        (target / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
        with contextlib.closing(sqlite3.connect(folder / "metadata.sqlite")) as store:
            dump = "\n".join(store.iterdump()) + "\n"
        (folder / "metadata.sqlite").unlink()
        (target / "metadata.sql").write_bytes(dump.encode().replace(bytes(folder), ROOT))
        pack(folder, target / "shop.tar.gz")
    finally:
        shutil.rmtree(folder)
    print(f"{target}: made by tfx-ranking {version}")


def run(folder: pathlib.Path, *arguments: object) -> None:
    subprocess.run([*CLI, *map(str, arguments)], cwd=folder, check=True)


def ask(folder: pathlib.Path, question: str) -> Any:
    """A command's JSON document."""
    command = [*CLI, *question.split(), "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.replace(str(folder), ROOT.decode()))


def write_logs(file: pathlib.Path) -> None:
    """120 queries of 5 items each; cheap items that match are clicked."""
    draw = random.Random(1)
    lines = ["query_id,sku,country,price,match,clicked"]
    for query in range(120):
        country = draw.choice(("de", "fr", "pl"))
        for item in range(5):
            price, match = round(draw.uniform(1, 50), 2), round(draw.random(), 3)
            clicked = int(match - price / 100 + draw.uniform(-0.2, 0.2) > 0.4)
            lines.append(f"q{query},s{query}-{item},{country},{price},{match},{clicked}")
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines) + "\n")


def schedule(folder: pathlib.Path, config: pathlib.Path) -> None:
    """Lets the schedule's service start, make one attempt and end."""
    history = folder / "artifacts" / "shop" / "schedule" / "history.jsonl"
    service = subprocess.Popen([*CLI, "schedule", str(config), "--every", "1d", "--timezone", "UTC"], cwd=folder)
    try:
        end = time.monotonic() + 300
        while not (history.exists() and '"exit_code": 10' in history.read_text()) and time.monotonic() < end:
            time.sleep(0.5)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def pack(folder: pathlib.Path, archive: pathlib.Path) -> None:
    """A tar file of the folder, without owners and times; `@ROOT@` in place of its path, but for artifacts and models,
    which are known by their bytes."""
    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.suffix in (".lock", ".log"):
                continue
            content = path.read_bytes()
            if path.suffix in (".jsonl", ".yaml"):
                content = content.replace(bytes(folder), ROOT)
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size, entry.mode = len(content), 0o755 if os.access(path, os.X_OK) else 0o644
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
