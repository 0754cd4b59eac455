"""`gid push` and `rahf push`: what is known of a folder of weights becomes a card, and both go to the Hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from foundation.weights.cards import About, Library, about_known, model_card, read_report
from foundation.weights.checks import WeightsKind, read_json
from foundation.weights.known import KNOWN
from foundation.weights.push import check_name, parameters_of, plan, push
from foundation.weights.resolver import resolve

NO_LICENCE = {"", "none stated"}


@dataclass(frozen=True)
class Publication:
    """What the owner says on the command line; empty where nothing was said.

    Attributes:
        folder: a folder of weights, or ``embedded``.
        repo: ``owner/name``.
        private: whether a new repository is private.
        licence, title, data, training, report, test_data: for the model card, over what the folder says itself.
    """

    folder: str
    repo: str
    private: bool = False
    licence: str = ""
    title: str = ""
    data: str = ""
    training: str = ""
    report: Path | None = None
    test_data: str = ""


def publish(publication: Publication, kind: WeightsKind, library: Library, yes: bool) -> str:
    """Publish a folder, or only plan it unless ``yes``; returns what to tell the owner.

    Raises ValueError if the folder holds no whole weights, nobody has stated their licence, or the Hub refuses.
    """
    check_name(publication.repo)
    if publication.folder != "embedded" and not Path(publication.folder).expanduser().is_dir():
        raise ValueError(f"{publication.folder} is no folder; name one made by {kind.made_by}, or 'embedded'")
    folder = resolve(publication.folder, kind)
    about = about_folder(folder, publication, kind)
    planned = plan(folder, kind, publication.repo, model_card(library, about, publication.repo))
    if not yes:
        last = "Nothing was sent. To publish this, add --yes"
        missing = ", and state the licence of these weights with --license" if about.licence in NO_LICENCE else ""
        return f"{planned.describe()}\n\n{last}{missing}."
    if about.licence in NO_LICENCE:
        raise ValueError(
            "these weights state no licence, and without one nobody may use them; state it with --license if they are "
            "yours, and ask their author before you publish another's"
        )
    commit = push(planned, private=publication.private)
    repo = publication.repo
    return f"Published. Load it with --weights {repo}, or, to have always this version, {repo}@{commit}"


def about_folder(folder: Path, publication: Publication, kind: WeightsKind) -> About:
    """What is known of a folder: the table if it is the embedded one, its own configuration, and the owner."""
    parameters = parameters_of(folder)
    embedded = f"{kind.library}/weights"
    known = next((entry for entry in KNOWN if entry.embedded == embedded), None)
    if folder.resolve() == kind.embedded.resolve() and known is not None:
        about = about_known(known, parameters)
    else:
        config = read_json(folder / kind.marker)
        title = str(config.get("name") or publication.repo.split("/")[-1])
        licence, notice = (str(config.get(field) or "") for field in ("weights_license", "notice"))
        about = About(title, licence, parameters=parameters, notice=notice)
        source = str(config.get("weights_source") or "")
        if source:
            about = replace(about, training=f"Converted from {source}.")
    about = replace(
        about,
        title=publication.title or about.title,
        licence=publication.licence or about.licence,
        data=publication.data or about.data,
        training=publication.training or about.training,
        test_data=publication.test_data or about.test_data,
    )
    return replace(about, metrics=read_report(publication.report)) if publication.report is not None else about
