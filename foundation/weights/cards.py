"""Model cards: what weights are, how and on what they were trained, on what terms, how good, and how to use them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from foundation.weights.known import KnownWeights, Metric

NOT_STATED = "not stated"
# Licences the Hub knows by these identifiers and that need no further name; others go under `other`.
LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "openrail", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "unlicense"),
}


@dataclass(frozen=True)
class Library:
    """What every card of one library says.

    Attributes:
        name: as the code imports it, and the Hub's ``library_name``.
        task: the Hub's ``pipeline_tag``.
        tags: further tags.
        what: one paragraph: what goes in and what comes out.
        usage: three lines of Python; ``{repo}`` stands for the repository.
        paper: title and address of the paper it implements.
    """

    name: str
    task: str
    tags: tuple[str, ...]
    what: str
    usage: tuple[str, str, str]
    paper: tuple[str, str]


@dataclass(frozen=True)
class About:
    """What one set of weights is; empty where nobody said.

    Attributes:
        title: its name.
        licence: identifier as on the Hub, or words.
        data: what it was trained on.
        training: how.
        limits: what it is not good for.
        metrics: measured numbers.
        test_data: what they were measured on.
        parameters: numbers in all files.
        notice: what has to stand beside results, such as another author's terms.
    """

    title: str
    licence: str = ""
    data: str = ""
    training: str = ""
    limits: str = ""
    metrics: tuple[Metric, ...] = ()
    test_data: str = ""
    parameters: int | None = None
    notice: str = ""


def about_known(known: KnownWeights, parameters: int | None = None) -> About:
    """What the table of known weights says of one set."""
    return About(
        title=known.name,
        licence=known.licence or "",
        data=known.data or "",
        training=known.training,
        limits=known.limits,
        metrics=known.metrics,
        test_data=known.test_data,
        parameters=parameters or known.parameters,
    )


def model_card(library: Library, about: About, repo: str) -> str:
    """The README.md of a repository: the Hub's metadata, with `eval_results`, and the text.

    Raises ValueError for metrics without the data they were measured on, which the Hub refuses.
    """
    from huggingface_hub import EvalResult, ModelCardData

    if about.metrics and not about.test_data:
        raise ValueError("the report's numbers need the data they were measured on; name it with --test-data")
    results = [
        EvalResult(
            task_type=library.task,
            dataset_type="held-out",
            dataset_name=about.test_data,
            metric_type=metric.key,
            metric_name=metric.name,
            metric_value=metric.value,
        )
        for metric in about.metrics
    ]
    known = about.licence.lower() in LICENCES
    data = ModelCardData(
        license=about.licence.lower() if known else "other" if about.licence else None,
        license_name=None if known or not about.licence else about.licence,
        library_name=library.name,
        pipeline_tag=library.task,
        tags=[library.name, *library.tags],
        model_name=about.title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(library, about, repo)}"


def _text(library: Library, about: About, repo: str) -> str:
    title, address = library.paper
    parts = [
        f"# {about.title}",
        library.what,
        f"An independent implementation of [{title}]({address}), read by the library `{library.name}`.",
        "## How to use",
        "```python\n" + "\n".join(line.replace("{repo}", repo) for line in library.usage) + "\n```",
        f"The same name goes to `--weights`, or to {library.name.upper()}_WEIGHTS for the app. Add `@` and a commit to "
        "pin it. Files are compared with `checksums.json` when they are loaded.",
        "## Training",
        f"- **How**: {about.training or NOT_STATED}\n- **Data**: {about.data or NOT_STATED}"
        + (f"\n- **Parameters**: {about.parameters:,}" if about.parameters else ""),
        "## How good it is",
        _metrics(about),
        "## Licence",
        f"{about.licence or NOT_STATED}{_noncommercial(about.licence)}"
        + (f"\n\n{about.notice}" if about.notice else ""),
    ]
    if about.limits:
        parts[8:8] = ["## What it is good for", about.limits]
    return "\n\n".join(parts) + "\n"


def _metrics(about: About) -> str:
    if not about.metrics:
        return "Not measured."
    rows = ["| measure | value |", "|---|---:|", *(f"| {m.name} | {m.value:g} |" for m in about.metrics)]
    return f"Measured on {about.test_data}:\n\n" + "\n".join(rows)


def _noncommercial(licence: str) -> str:
    return ": for non-commercial use only" if "nc" in licence.lower().replace("-", " ").split() else ""


def read_report(path: Path) -> tuple[Metric, ...]:
    """The model's numbers from `report.json` of `gid evaluate` or `metrics.json` of `rahf evaluate`.

    Of several columns the first is taken, which is the model; numbers that do not apply are left out.
    Raises ValueError if the file is neither.
    """
    wrong = f"{path} is neither report.json of `gid evaluate` nor metrics.json of `rahf evaluate`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        first = content["rows"][0]["scores"] if "rows" in content else next(iter(content.values()))
        measured = [
            Metric(key.replace(" ", "_"), key.replace("_", " "), round(float(number), 6))
            for key, value in first.items()
            if (number := value.get("value") if isinstance(value, dict) else value) is not None
        ]
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not a file; name the report that `evaluate` wrote") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration) as error:
        raise ValueError(wrong) from error
    if not measured or not all(math.isfinite(metric.value) for metric in measured):
        raise ValueError(wrong)
    return tuple(measured)
