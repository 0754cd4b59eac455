"""One Hub: its address, its cache, and files of it. huggingface_hub downloads, caches and resumes; digests are ours."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm

from foundation.files import write_text
from foundation.weights.checks import digest_of

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # file, bytes so far, bytes in all
COMMIT = re.compile(r"[0-9a-f]{40}")
# What the library's HTTP client raises, whichever client its version uses.
NETWORK_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path, length in bytes and digest (sha256 if large, git blob id if small)."""

    path: str
    size: int
    digest: str

    def is_whole(self, path: Path) -> bool:
        """Whether a copy has the right length and digest; the length alone where the Hub names no digest."""
        return path.stat().st_size == self.size and digest_of(path, self.digest) in (None, self.digest)


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class Hub:
    """Which Hub, as whom, and where its cache is; None takes HF_ENDPOINT, HF_TOKEN and HF_HOME or their defaults."""

    endpoint: str | None = None
    token: str | None = None
    cache: Path | None = None

    @property
    def address(self) -> str:
        """The Hub's address without a slash at the end."""
        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def host(self) -> str:
        """The Hub's name, for messages."""
        return urlsplit(self.address).netloc

    @property
    def cache_folder(self) -> Path:
        """The cache that huggingface_hub keeps."""
        return Path(self.cache or constants.HF_HUB_CACHE).expanduser()

    def listing(self, repo: str, revision: str | None) -> Listing:
        """The commit a revision stands for, and its files. Raises what huggingface_hub raises."""
        api = HfApi(endpoint=self.address, token=self.token)
        timeout = float(constants.HF_HUB_ETAG_TIMEOUT)
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
        if not COMMIT.fullmatch(info.sha or ""):
            raise ValueError(f"{self.host} names no commit of {repo}; it is no Hub, check HF_ENDPOINT")
        files = {}
        for item in info.siblings or []:
            digest = item.lfs.sha256 if item.lfs is not None else item.blob_id
            files[item.rfilename] = RemoteFile(item.rfilename, int(item.size or 0), str(digest or ""))
        return Listing(str(info.sha), files)

    def cached(self, repo: str, path: str, revision: str | None) -> Path | None:
        """A file in the cache, of the commit that a revision stood for when it was last fetched whole."""
        copy = try_to_load_from_cache(repo, path, self.cache_folder, revision)
        return Path(copy) if isinstance(copy, str) else None

    def remember(self, repo: str, revision: str | None, commit: str) -> None:
        """Note which commit a revision stands for; done last, so that it never names a snapshot in parts."""
        if revision != commit:
            folder = self.cache_folder / repo_folder_name(repo_id=repo, repo_type="model")
            ref = folder / "refs" / (revision or constants.DEFAULT_REVISION)
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, commit)

    def fetch(self, repo: str, commit: str, file: RemoteFile, progress: Progress | None = None) -> Path:
        """One file of a commit, from the cache if it is there; its digest is compared either way.

        Raises ValueError if it arrives damaged, and what huggingface_hub raises.
        """
        settings: dict[str, Any] = {"cache_dir": self.cache_folder, "endpoint": self.address, "token": self.token}
        for _ in range(2):
            copy = Path(hf_hub_download(repo, file.path, revision=commit, **settings, **_reporting(file, progress)))
            if file.is_whole(copy):
                if progress is not None:
                    progress(file.path, file.size, file.size)
                return copy
            logger.warning("%s of %s is damaged; it is fetched again", file.path, repo)
            copy.resolve().unlink(missing_ok=True)
            copy.unlink(missing_ok=True)  # the link to it
        raise ValueError(
            f"{file.path} of {repo} arrived damaged twice (its digest is not {file.digest[:12]}…); "
            "check the mirror or proxy in between, or try again later"
        )


def status_of(error: BaseException) -> int | None:
    """The HTTP status an error stands for, if any."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def cause_of(error: BaseException) -> BaseException:
    """What is behind an error that only says that a file is neither in the cache nor to be had."""
    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _reporting(file: RemoteFile, progress: Progress | None) -> dict[str, Any]:
    """Let the library's progress bar tell how far it has got."""
    # Versions before 1.0 have no such argument; then a file is told of when it is whole.
    if progress is None or "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        return {}
    report = progress

    class Reporting(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            report(file.path, min(int(self.n), file.size), file.size)
            return shown

    return {"tqdm_class": Reporting}
