"""Turn a set of LLMBar, and one evaluator's published results on it, into labels.jsonl and verdicts.jsonl.

python examples/llmbar.py dataset.json result.json --out llmbar
nashbench audit recorded --labels llmbar/labels.jsonl --verdicts llmbar/verdicts.jsonl

The files are those of https://github.com/princeton-nlp/LLMBar (arXiv 2310.07641): `dataset.json`, and the `result.json`
of an evaluator that was asked in both orders. Of several attempts at a question the last is its verdict, as in the
published statistics; a winner is already named as in the data set, whatever the order. An attempt without a winner is a
failed question. Ids are row numbers.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ORDERS = {"original": "swap = False", "swapped": "swap = True"}
LABELS = {"1": "first", "2": "second"}
PREFERENCES = {"1": 1.0, "2": 0.0, "tie": 0.5}


def labels(dataset: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line of labels.jsonl for each pair."""
    return [
        {
            "id": number,
            "prompt": item["input"],
            "first": item["output_1"],
            "second": item["output_2"],
            "label": LABELS[str(item["label"])],
        }
        for number, item in enumerate(dataset)
    ]


def verdicts(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line of verdicts.jsonl for each pair and order."""
    found = []
    for number, item in enumerate(results):
        for order, name in ORDERS.items():
            if name in item["results"][-1]:
                preference = PREFERENCES.get(str(item["results"][-1][name]["winner"]).lower())
                status = "no-verdict" if preference is None else "ok"
                found.append({"id": number, "order": order, "preference": preference, "status": status})
    return found


def convert(dataset: Path, result: Path, out: Path) -> None:
    """Write the two files. Raises ValueError where the results are on other pairs than the data set's."""
    pairs, results = (json.loads(path.read_text(encoding="utf-8")) for path in (dataset, result))
    texts = ("input", "output_1", "output_2")
    if [[item[key] for key in texts] for item in pairs] != [[item[key] for key in texts] for item in results]:
        raise ValueError(f"{result} is on other pairs than {dataset}; take both from one folder of LLMBar")
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("labels", labels(pairs)), ("verdicts", verdicts(results))):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--out", type=Path, default=Path("llmbar"))
    given = parser.parse_args()
    try:
        convert(given.dataset, given.result, given.out)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
