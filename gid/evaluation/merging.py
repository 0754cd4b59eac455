"""Several evaluation reports in one table: the rows of an ablation come from runs with other weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from gid.evaluation.report import Report, Row


def read_report(path: str | Path) -> Report:
    """A report from the report.json it was written to, or from its folder.

    Raises:
        ValueError: no such file, or not a report.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Row(row["name"], _numbers(row["scores"]), _numbers(row["correlation_by_scene"])) for row in content["rows"]
        ]
        return Report(
            rows, content["bands"], content["frequencies"], content["settings"], _numbers(content["rendering"])
        )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no evaluation report ({error}); make one with `gid evaluate`") from error


def merged(report: Report, others: Sequence[Report]) -> Report:
    """A report with the model rows (the first) of others put after its own; the rest is its own.

    Raises:
        ValueError: a report on other clips, or a second row of one name.
    """
    rows, bands = list(report.rows), dict(report.bands)
    place = 1
    for other in others:
        if other.settings.get("clips") != report.settings.get("clips"):
            raise ValueError(
                f"{other.rows[0].name} was evaluated on {other.settings.get('clips')}, not on "
                f"{report.settings.get('clips')}; evaluate it on the same clips"
            )
        row = other.rows[0]
        if any(row.name == own.name for own in rows):
            raise ValueError(f"there are two rows {row.name!r}; give one another --name")
        rows.insert(place, row)
        bands = {row.name: other.bands[row.name], **bands}
        place += 1
    return Report(rows, bands, report.frequencies, report.settings, report.rendering)


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else float(value) for key, value in values.items()}
