"""Files from the Hub into its ordinary cache: resumable, checked against their digests, trusted only when whole.

huggingface_hub lists, authenticates and keeps the cache; what is added here is that a download goes on where a killed
process stopped (recent versions start such a file anew), and that a file enters the cache only after its content has
the digest the Hub names it by. A file is fetched over plain HTTP, never through Xet, which knows no resuming.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from foundation.files import write_text
from foundation.weights.checks import digest_of

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # file, bytes so far, bytes in all
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
# What the library's HTTP client raises, whichever client its version uses.
NETWORK_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)
TRANSIENT = {408, 429, 500, 502, 503, 504}
PAUSE = 1.0  # seconds before the second try, twice that before the third
SPARE = 50_000_000  # bytes to leave free on the disk


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path, length in bytes and digest (sha256 if large, git blob id if small)."""

    path: str
    size: int
    digest: str


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

    def storage(self, repo: str) -> Path:
        """The cache's folder of one repository: blobs, snapshots and refs."""
        return self.cache_folder / repo_folder_name(repo_id=repo, repo_type="model")

    def snapshot(self, repo: str, commit: str) -> Path:
        """Where the files of a commit lie."""
        return self.storage(repo) / "snapshots" / commit

    def listing(self, repo: str, revision: str | None, attempts: int = 3) -> Listing:
        """The commit a revision stands for, and its files. Raises what huggingface_hub raises.

        A fault of the server or of the line is tried ``attempts`` times.
        """
        api = HfApi(endpoint=self.address, token=self.token)
        for attempt in range(1, attempts + 1):
            try:
                timeout = float(constants.HF_HUB_ETAG_TIMEOUT)
                info = api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
                break
            except NETWORK_ERRORS as error:
                if attempt == attempts or not _is_transient(error):
                    raise
                logger.warning("%s did not answer (%s); trying again", self.host, type(error).__name__)
                time.sleep(PAUSE * attempt)
        if not COMMIT.fullmatch(info.sha or ""):
            raise ValueError(f"{self.host} names no commit of {repo}; it is no Hub, check HF_ENDPOINT")
        files = {}
        for item in info.siblings or []:
            digest = item.lfs.sha256 if item.lfs is not None else item.blob_id
            files[item.rfilename] = RemoteFile(item.rfilename, int(item.size or 0), str(digest or ""))
        return Listing(str(info.sha), files)

    def commit_in_cache(self, repo: str, revision: str | None) -> str | None:
        """The commit that a revision stood for when it was last fetched whole."""
        if COMMIT.fullmatch(revision or ""):
            return revision
        ref = self.storage(repo) / "refs" / (revision or constants.DEFAULT_REVISION)
        return ref.read_text().strip() if ref.is_file() else None

    def remember(self, repo: str, revision: str | None, commit: str) -> None:
        """Note which commit a revision stands for; done last, so that it never names a snapshot in parts."""
        if revision == commit:
            return
        ref = self.storage(repo) / "refs" / (revision or constants.DEFAULT_REVISION)
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, commit)

    def fetch(self, repo: str, commit: str, file: RemoteFile, progress: Progress | None = None) -> Path:
        """One file of a commit, from the cache if it is whole there. Its digest is compared either way.

        Raises ValueError if it arrives damaged, and what huggingface_hub raises.
        """
        pointer = self.snapshot(repo, commit) / file.path
        if pointer.is_file() and is_whole(pointer, file):
            if progress is not None:
                progress(file.path, file.size, file.size)
            return pointer
        if DIGEST.fullmatch(file.digest):
            lock = self.cache_folder / ".locks" / self.storage(repo).name / f"{file.digest}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if pointer.is_file() and not pointer.is_symlink():
                    pointer.unlink()  # a damaged copy, where the file system has no links
                self._ensure_blob(repo, commit, file, progress)
        # The blob is there: this only looks up the file once more and links it into the snapshot.
        found = hf_hub_download(
            repo, file.path, revision=commit, cache_dir=self.cache_folder, endpoint=self.address, token=self.token
        )
        if not is_whole(Path(found), file):
            raise ValueError(f"{file.path} of {repo} arrived damaged; start again, and if it stays so tell its owner")
        return Path(found)

    def _ensure_blob(self, repo: str, commit: str, file: RemoteFile, progress: Progress | None) -> None:
        """Make sure that the cache holds the file's content, going on where an earlier try stopped."""
        blob = self.storage(repo) / "blobs" / file.digest
        if blob.is_file():
            if is_whole(blob, file):
                return
            logger.warning("%s in the cache is damaged; it is fetched again", file.path)
            blob.unlink()
        blob.parent.mkdir(parents=True, exist_ok=True)
        partial = blob.with_name(f"{blob.name}.incomplete")
        for _ in range(2):  # what an earlier try left may be damaged: once more, from the start
            self._stream_whole(repo, commit, file, partial, progress)
            if is_whole(partial, file):
                os.replace(partial, blob)
                return
            partial.unlink()
            logger.warning("%s of %s arrived damaged", file.path, repo)
        raise ValueError(
            f"{file.path} of {repo} arrived damaged twice (its digest is not {file.digest[:12]}…); "
            "check the mirror or proxy in between, or try again later"
        )

    def _stream_whole(self, repo: str, commit: str, file: RemoteFile, partial: Path, progress: Progress | None) -> None:
        """Stream a file to its end, taken up again as long as each try brings something."""
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            try:
                return self._stream(repo, commit, file, partial, progress)
            except NETWORK_ERRORS as error:
                brought = (partial.stat().st_size if partial.exists() else 0) - before
                if brought <= 0 or status_of(error) is not None or getattr(error, "errno", None) is not None:
                    raise
                logger.warning("%s broke off after %d bytes; going on", file.path, brought)
                time.sleep(PAUSE)

    def _stream(self, repo: str, commit: str, file: RemoteFile, partial: Path, progress: Progress | None) -> None:
        """Append what is missing of a file to ``partial``, and see it onto the disk."""
        have = partial.stat().st_size if partial.exists() else 0
        if have > file.size:
            partial.unlink()
            have = 0
        free = shutil.disk_usage(partial.parent).free
        if file.size - have > free - SPARE:
            raise ValueError(
                f"{file.path} of {repo} needs {file.size - have} bytes more and {partial.parent} has {free} free; "
                "free some space or set HF_HOME to a larger disk"
            )
        url = hf_hub_url(repo, file.path, revision=commit, endpoint=self.address)
        headers = {**build_hf_headers(token=self.token), "Accept-Encoding": "identity"}
        with open(partial, "ab") as target:
            counted: Any = _Counted(target, file, progress)
            http_get(
                url,
                counted,
                resume_size=have,
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.path,
            )
            target.flush()
            os.fsync(target.fileno())


class _Counted:
    """A file that tells how far it has got."""

    def __init__(self, target: BinaryIO, file: RemoteFile, progress: Progress | None) -> None:
        self._target, self._file, self._progress = target, file, progress
        self.seek, self.tell, self.truncate = target.seek, target.tell, target.truncate

    def write(self, block: bytes) -> int:
        written = self._target.write(block)
        self._target.flush()  # what has arrived outlives the process
        if self._progress is not None:
            self._progress(self._file.path, min(self._target.tell(), self._file.size), self._file.size)
        return written


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the length and the digest it should; the length alone where the Hub names no digest."""
    if path.stat().st_size != file.size:
        return False
    return digest_of(path, file.digest) in (None, file.digest)


def status_of(error: BaseException) -> int | None:
    """The HTTP status an error stands for, if any."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_transient(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = status_of(error)
    return status in TRANSIENT if status is not None else True
