"""A folder of weights to a repository on the Hub: planned first, then published in one commit, whole or not at all."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.weights.checks import (
    CHECKSUMS,
    WeightsKind,
    check_folder,
    checksums,
    describe,
    layout_of,
    read_json,
    tensor_shapes,
)
from foundation.weights.resolver import HubName, explain

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from foundation.weights.hub import Hub, Listing

logger = logging.getLogger(__name__)

CARD = "README.md"
NOT_OURS = {".gitattributes", ".gitignore", CARD}  # what a repository may hold beside weights


@dataclass(frozen=True)
class Plan:
    """What would be published.

    Attributes:
        repo: ``owner/name``.
        files: what goes up, by path in the repository; the folder's files, checksums.json and the card.
        left_out: files of the folder that stay here.
    """

    repo: str
    kind: WeightsKind
    files: dict[str, Path | bytes]
    left_out: tuple[str, ...]

    @property
    def card(self) -> str:
        """The text of the model card."""
        card = self.files[CARD]
        return card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")

    def describe(self) -> str:
        """The plan in words: every file with its size, what stays, and the card."""
        sizes = {
            path: len(what) if isinstance(what, bytes) else what.stat().st_size for path, what in self.files.items()
        }
        lines = [f"To {self.repo}, in one commit:", ""]
        lines += [f"  {size:>13,} bytes  {path}" for path, size in sizes.items()]
        lines.append(f"  {sum(sizes.values()):>13,} bytes  in all")
        if self.left_out:
            lines += ["", "Left out, being no part of the weights: " + ", ".join(self.left_out)]
        return "\n".join([*lines, "", f"--- {CARD} ---", self.card.rstrip(), "--- end ---"])


def plan(folder: Path, kind: WeightsKind, repo: str, card: str) -> Plan:
    """What publishing a folder would upload; nothing is sent.

    Raises ValueError if the folder holds no whole weights of this kind, or ``repo`` is no repository's name.
    """
    check_name(repo)
    layout = check_folder(folder, kind)
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in every}
    weights = {name: path for name, path in names.items() if layout.holds(name) and name != CHECKSUMS}
    sums = json.dumps(checksums(weights.items()), indent=1) + "\n"
    files: dict[str, Path | bytes] = {CARD: card.encode(), CHECKSUMS: sums.encode(), **weights}
    return Plan(repo, kind, files, tuple(name for name in names if name not in files))


def check_name(repo: str) -> None:
    """Raises ValueError unless ``repo`` is ``owner/name`` and nothing more."""
    name = HubName.parse(repo)
    if name is None or str(name) != name.repo:
        raise ValueError(f"{repo!r} is no name to publish under; write owner/name, your own or your organisation's")


def parameters_of(folder: Path) -> int:
    """How many numbers the weights of a folder are."""
    return sum(math.prod(shape) for path in folder.rglob("*.safetensors") for shape in tensor_shapes(path).values())


def push(
    planned: Plan,
    *,
    private: bool = False,
    message: str = "Weights and model card",
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Publish what was planned, in one commit; the repository is made if it does not exist.

    Files that the repository has already are not sent again; weights of an earlier version that this one does not have
    are removed in the same commit.

    Returns the commit. Raises ValueError, in one sentence with the remedy, if it may not be written, holds something
    else, or the line breaks: then nothing has changed for those who load it.
    """
    from foundation.weights.hub import NETWORK_ERRORS, Hub

    hub = Hub(endpoint, token)
    faults: tuple[type[BaseException], ...] = (*NETWORK_ERRORS, RuntimeError)  # the second: a file's upload failed
    try:
        return _publish(planned, hub, private, message)
    except faults as error:
        raise _explain_push(error, planned.repo, hub) from error


def _publish(planned: Plan, hub: Hub, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(endpoint=hub.address, token=hub.token)
    listing = _existing(hub, planned.repo)
    stale: list[str] = []
    if listing is None:
        api.create_repo(planned.repo, private=private)
        parent = None
    else:
        stale = _stale(planned, hub, listing, api)
        parent = listing.commit
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=what) for path, what in planned.files.items()]
    deletions = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]
    try:
        done = api.create_commit(
            planned.repo, [*operations, *deletions], commit_message=message, parent_commit=parent, num_threads=2
        )
    except ValueError as error:  # the card or an object is refused, in several lines
        raise ValueError(f"{hub.host} refuses {planned.repo}: {' '.join(str(error).split())}") from error
    return str(done.oid)


def _existing(hub: Hub, repo: str) -> Listing | None:
    """What the repository holds now; None if there is none that this token can see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return hub.listing(repo, None)
    except RepositoryNotFoundError:
        return None


def _stale(planned: Plan, hub: Hub, listing: Listing, api: HfApi) -> list[str]:
    """Files of an earlier version to remove. Raises ValueError if the repository holds something else than weights."""
    others = sorted(set(listing.files) - NOT_OURS)
    if not others:
        return []
    marker = planned.kind.marker
    if marker not in listing.files:
        raise ValueError(
            f"{planned.repo} holds other things ({', '.join(others[:3])}) and no weights of {planned.kind.library}; "
            "name another repository"
        )
    config = read_json(hub.fetch(planned.repo, listing.commit, listing.files[marker]))
    try:
        layout = layout_of(config, planned.repo, planned.kind)
    except ValueError as error:
        raise ValueError(f"{planned.repo} holds {describe(config)}; name another repository") from error
    return [path for path in others if layout.holds(path) and path not in planned.files]


def _explain_push(error: BaseException, repo: str, hub: Hub) -> ValueError:
    """A refusal or a broken line while publishing, as one sentence with the remedy."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    from foundation.weights.hub import status_of

    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    status = status_of(cause)
    if isinstance(cause, OfflineModeIsEnabled):
        return ValueError(f"{repo} cannot be published while HF_HUB_OFFLINE is set; unset it")
    if status == 401:
        return ValueError(f"{repo} cannot be published without logging in; run `hf auth login`, or set HF_TOKEN")
    if status == 403:
        return ValueError(f"{repo} may not be written with this token; use one with write permission for its owner")
    if status in (409, 412):
        return ValueError(f"{repo} was changed by somebody else meanwhile; look at it and publish again")
    if status is not None and status < 500:
        return ValueError(f"{hub.host} refuses {repo}: {_first_line(cause)}; nothing was published")
    if isinstance(error, RuntimeError) and cause is error:
        raise error
    explanation = str(explain(cause, HubName(repo), hub))
    if status is not None:
        return ValueError(f"{explanation}; nothing was published")
    return ValueError(
        f"{repo} was not published: {hub.host} cannot be reached or broke off ({_first_line(cause)}); run it again, "
        "what has arrived is not sent again"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
