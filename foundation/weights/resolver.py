"""Weights by name: inside the package, in a folder, or in a repository on the Hub. One resolver for both libraries.

A name is one of:

- ``embedded``: the weights inside the package;
- a folder; one that exists wins over a repository of the same name;
- ``owner/repo[@revision][/subfolder]`` on the Hub. The revision (branch, tag or commit) ends at the next slash, so a
  slash inside it is written ``%2F``; the Hub's own ``refs/pr/N`` and ``refs/convert/NAME`` may stay as they are.

huggingface_hub's settings hold: HF_TOKEN (or `hf auth login`), HF_ENDPOINT (a mirror), HF_HOME (the cache),
HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT. Only JSON, safetensors and tokenizer vocabularies are fetched.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from foundation.weights.checks import (
    Layout,
    WeightsKind,
    check_folder,
    digest_of,
    layout_of,
    missing_files,
    missing_marker,
    read_json,
)
from foundation.weights.known import KNOWN, KnownWeights

if TYPE_CHECKING:
    from foundation.weights.hub import Hub, Listing, Progress

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
_HUB_NAME = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/@\s]+|[^/@\s]+))?(?:/(?P<subfolder>[^@]+))?"
)


@dataclass(frozen=True)
class HubName:
    """``owner/repo[@revision][/subfolder]`` in its parts; no revision is the repository's main branch."""

    repo: str
    revision: str | None = None
    subfolder: str = ""

    @classmethod
    def parse(cls, name: str) -> HubName | None:
        """The parts of a name, or None if it is not of this form."""
        match = _HUB_NAME.fullmatch(name.rstrip("/"))
        if match is None:
            return None
        revision = unquote(match["revision"]) if match["revision"] else None
        subfolder = match["subfolder"] or ""
        parts = [*match["repo"].split("/"), *subfolder.split("/"), *(revision or "").split("/")]
        # Dots alone climb out of a folder, here and in the cache; the Hub knows no such name.
        if any(set(part) == {"."} or part.startswith("~") for part in parts) or "\\" in name or "//" in name:
            return None
        if revision is not None and not all(revision.split("/")):
            return None
        return cls(match["repo"], revision, subfolder)

    def __str__(self) -> str:
        revision = ""
        if self.revision is not None:
            plain = re.fullmatch(r"refs/(pr|convert)/[^/]+", self.revision) or "/" not in self.revision
            revision = "@" + (self.revision if plain else self.revision.replace("/", "%2F"))
        return f"{self.repo}{revision}" + (f"/{self.subfolder}" if self.subfolder else "")


def resolve(
    name: str | Path | None,
    kind: WeightsKind,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    known: Iterable[KnownWeights] = KNOWN,
    headers: bool = True,
) -> Path:
    """The folder of weights that a name stands for, checked to be whole and of this kind; downloads what is missing.

    Args:
        name: see the module; None reads the kind's environment variable, else ``embedded``.
        kind: which library's weights.
        token, endpoint, cache: instead of HF_TOKEN, HF_ENDPOINT and HF_HOME.
        progress: called with (file, bytes so far, bytes in all); progress bars are shown in a terminal either way.
        known: weights whose revision is pinned and whose sha256 are known.
        headers: read each safetensors header; not needed where the weights are loaded next, which reads it.

    Raises:
        ValueError: in one sentence with the remedy, if nothing is there, it cannot be fetched, or it is another kind.
    """
    text = str(name) if name is not None else os.environ.get(kind.variable, "").strip() or EMBEDDED
    if text == EMBEDDED:
        if not (kind.embedded / kind.marker).is_file():
            raise ValueError(
                f"this copy of {kind.library} holds no embedded weights; name a folder made by {kind.made_by}, or "
                "owner/repo on the Hub"
            )
        check_folder(kind.embedded, kind, headers=headers)
        return kind.embedded
    folder = Path(text).expanduser()
    if text and folder.is_dir():  # Path("") is the current folder
        check_folder(folder, kind, headers=headers)
        return folder
    hub_name = HubName.parse(text)
    if hub_name is None:
        raise ValueError(
            f"weights {text!r} are unknown: neither a folder nor a Hub repository; use 'embedded', a folder, or "
            "owner/repo[@revision][/subfolder]"
        )
    from foundation.weights.hub import Hub  # huggingface_hub is only imported when it is needed

    hub = Hub(endpoint, token, Path(cache) if cache is not None else None)
    return _Fetching(hub_name, kind, hub, progress, known, headers).run()


class _Fetching:
    """One repository's way into the cache."""

    def __init__(
        self,
        name: HubName,
        kind: WeightsKind,
        hub: Hub,
        progress: Progress | None,
        known: Iterable[KnownWeights],
        headers: bool,
    ) -> None:
        self.hub, self.headers = hub, headers
        self.kind = kind
        self.progress = progress
        self.known = next((k for k in known if k.repo == name.repo and name.revision in (None, k.revision)), None)
        pinned = self.known.revision if self.known is not None and name.revision is None else name.revision
        self.name = HubName(name.repo, pinned or None, name.subfolder)

    def run(self) -> Path:
        """The snapshot's folder, whole and checked. Raises ValueError."""
        from huggingface_hub.errors import HFValidationError

        from foundation.weights.hub import COMMIT, NETWORK_ERRORS

        if COMMIT.fullmatch(self.name.revision or "") and (cached := self._cached()) is not None:
            return cached  # a commit never changes: nothing to ask
        try:
            listing = self.hub.listing(self.name.repo, self.name.revision)
        except HFValidationError as error:
            raise ValueError(f"{self.name} is no name of a Hub repository ({_line(error)}); check it") from error
        except ValueError as error:
            raise ValueError(
                f"{self.hub.host} does not answer like a Hub ({_line(error)}); check HF_ENDPOINT"
            ) from error
        except NETWORK_ERRORS as error:
            cached = None if _is_refused(error) else self._cached()
            if cached is None:
                raise explain(error, self.name, self.hub) from error
            logger.warning("%s cannot be asked (%s); using the cached copy", self.hub.host, type(error).__name__)
            return cached
        try:
            return self._fetch(listing)
        except NETWORK_ERRORS as error:
            raise explain(error, self.name, self.hub) from error

    def _fetch(self, listing: Listing) -> Path:
        """Download what is missing of a commit, the marker first: it says whether the rest is wanted."""
        inside = {self._inside(path): file for path, file in listing.files.items() if self._inside(path) is not None}

        def fetch(path: str) -> Path:
            return self.hub.fetch(self.name.repo, listing.commit, inside[path], self.progress)

        def read(path: str) -> dict[str, Any]:
            return read_json(fetch(path))

        if self.kind.marker not in inside:
            other = next((name for name in ("model_index.json", "config.json") if name in inside), None)
            raise ValueError(missing_marker(str(self.name), self.kind, read(other) if other else None))
        layout = layout_of(read(self.kind.marker), str(self.name), self.kind)
        if lacking := missing_files(layout, inside.__contains__, read):
            raise ValueError(f"{self.name} is incomplete: it lacks {lacking[0]}; ask its owner, or name other weights")
        folder = fetch(self.kind.marker).parent
        for path in sorted(path for path in inside if path is not None and layout.holds(path)):
            fetch(path)
        self._verify(folder, {path: file.digest for path, file in inside.items() if path and len(file.digest) == 64})
        self.hub.remember(self.name.repo, self.name.revision, listing.commit)
        return folder

    def _verify(self, folder: Path, hashed: Mapping[str, str]) -> None:
        check_folder(folder, self.kind, hashed, self.headers)
        for path, sha256 in (self.known.files if self.known is not None else {}).items():
            file = folder / path
            if not file.is_file() or (hashed.get(path) or digest_of(file, sha256)) != sha256:
                raise ValueError(
                    f"{path} of {self.name} is not the file that weights.md lists (its sha256 differs); pin the listed "
                    f"revision, {self.known.revision if self.known else ''}"
                )

    def _cached(self) -> Path | None:
        """The cached snapshot if it is whole and undamaged, else None."""
        inside = PurePosixPath(self.name.subfolder) / self.kind.marker
        marker = self.hub.cached(self.name.repo, str(inside), self.name.revision)
        if marker is None:
            return None
        try:
            layout = layout_of(read_json(marker), str(self.name), self.kind)
            self._verify(marker.parent, _check_links(marker.parent, layout))
        except ValueError as error:
            logger.warning("the cached copy of %s is not used: %s", self.name, error)
            return None
        return marker.parent

    def _inside(self, path: str) -> str | None:
        """A repository's path relative to the subfolder, or None if it lies elsewhere."""
        if not self.name.subfolder:
            return path
        prefix = self.name.subfolder + "/"
        return path.removeprefix(prefix) if path.startswith(prefix) else None


def _check_links(folder: Path, layout: Layout) -> dict[str, str]:
    """Compare cached files with the digest in the name of the blob they link to; the sha256 digests, by path.

    Raises ValueError if one differs.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not layout.holds(name) or not path.is_symlink():
            continue
        expected = Path(os.readlink(path)).name
        digest = digest_of(path, expected) if path.is_file() else ""
        if digest not in (None, expected):
            raise ValueError(f"{path} is damaged (its digest differs); connect so that it is fetched again")
        if len(expected) == 64 and digest:
            digests[name] = digest
    return digests


def explain(error: BaseException, name: HubName, hub: Hub) -> ValueError:
    """A fault of the Hub, the line or the disk as one sentence with the remedy."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    from foundation.weights.hub import cause_of, status_of

    error = cause_of(error)
    status = status_of(error)
    elsewhere = "name a folder, or use 'embedded'"
    if isinstance(error, OfflineModeIsEnabled):
        why = (
            "could not be fetched: HF_HUB_OFFLINE is set and the cache holds no whole copy; unset it once, or run "
            f"`hf download {name.repo}` elsewhere and name its folder"
        )
    elif isinstance(error, GatedRepoError):
        why = (
            f"is gated; accept its terms on {hub.address}/{name.repo} and log in with that account (`hf auth login`, "
            "or HF_TOKEN)"
        )
    elif isinstance(error, RevisionNotFoundError):
        why = f"does not exist: {name.repo} has no revision {name.revision or 'main'!r}; name a branch, tag or commit"
    elif isinstance(error, EntryNotFoundError):
        why = f"is incomplete on {hub.host} (a listed file is missing there); try again later, or {elsewhere}"
    elif status in (401, 404):
        why = (
            f"is neither a folder here nor on {hub.host}, or it is private and the token does not open it; check the "
            "name, log in with `hf auth login`, or set HF_TOKEN"
        )
    elif status == 403:
        why = f"may not be read with this token; give HF_TOKEN the permission to read {name.repo}"
    elif status == 429:
        why = f"could not be fetched: {hub.host} asks to wait; try again in some minutes, or {elsewhere}"
    elif status is not None:
        why = f"could not be fetched: {hub.host} answers with fault {status}; try again later, or {elsewhere}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = f"could not be written: no space left in {hub.cache_folder}; free some or set HF_HOME to a larger disk"
    elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = f"could not be written to {hub.cache_folder} ({error.strerror}); set HF_HOME to a folder that can be"
    else:
        why = (
            f"could not be fetched: {hub.host} cannot be reached or broke off ({_line(error)}); check the connection "
            f"and start again, files that have arrived whole are kept; or {elsewhere}"
        )
    return ValueError(f"{name} {why}")


def _is_refused(error: BaseException) -> bool:
    """Whether the Hub says that there is no such revision: then a cached copy would be another one."""
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error, RevisionNotFoundError)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
