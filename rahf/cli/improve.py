"""`rahf improve ...`: better pictures by feedback. Further tools add their command to `improve` below."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from foundation.commands.errors import user_errors
from foundation.commands.options import LazyGroup, Names, limited
from rahf.cli.options import Device, Weights
from rahf.limits import IMPROVE

if TYPE_CHECKING:
    from torch import Tensor

    from rahf.feedback import Feedback


class Tools(LazyGroup):
    """The commands below, and those whose options are a configuration."""

    stages: ClassVar = {"tune": "rahf.improve.tune:tune"}
    option_names: ClassVar[Names] = {"out": ("--out", "-o"), "warmup_steps": ("--warmup", "--warmup-steps")}


improve = typer.Typer(
    name="improve",
    cls=Tools,
    help="Better pictures by feedback: repair, selection, fine-tuning, guidance.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the picture is to show.")]
GeneratorName = Annotated[
    str,
    typer.Option(
        "--generator",
        "-g",
        help="embedded, a folder of diffusers, or owner/repo[@revision][/subfolder] on the Hub.",
        envvar="IMPROVE_WEIGHTS",
    ),
]
Lora = Annotated[Path | None, typer.Option(help="Folder of an adapter to draw with (OUT/lora of `tune`).")]
Steps = Annotated[int | None, limited("Of the sampler; the generator's own by default", IMPROVE["steps"])]
Guidance = Annotated[
    float | None, limited("How closely the prompt is followed; the generator's own by default", IMPROVE["guidance"])
]
Seed = Annotated[int, limited("Of the noise", IMPROVE["seed"])]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; what is there is replaced.")]


@improve.command()
@user_errors
def repair(
    picture: Annotated[Path, typer.Argument(help="The picture.")],
    prompt: Prompt,
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the mended picture, .png.")],
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the same size, light where to draw anew, instead of the feedback's.")
    ] = None,
    what: Annotated[str, typer.Option(help="faults that are marked, or words that are not shown.")] = "faults",
    candidates: Annotated[int, limited("Pictures a round", IMPROVE["count"])] = 4,
    rounds: Annotated[int, limited("At most", IMPROVE["rounds"])] = 3,
    threshold: Annotated[float, limited("Part of the heatmap's highest value", IMPROVE["threshold"])] = 0.25,
    floor: Annotated[float, limited("Value that has to be reached besides", IMPROVE["floor"])] = 0.16,
    dilation: Annotated[float, limited("How far the mask grows, of the longer side", IMPROVE["dilation"])] = 0.02,
    padding: Annotated[
        int | None, limited("Pixels shown around a small mask; all that can be by default", IMPROVE["padding"])
    ] = None,
    strength: Annotated[float, limited("How much is drawn anew", IMPROVE["strength"])] = 1.0,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    generator: GeneratorName = "embedded",
    lora: Lora = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Draw anew what the feedback marks, and keep the best.

    Pixels outside of the mask stay as they are, to the byte. It stops when nothing gets better, and says so.
    """
    from foundation.files import check_writable
    from foundation.pictures import KEPT_SIDE, load_photo
    from rahf.improve.generation.base import check_text
    from rahf.improve.repair import RepairOptions, mask_of
    from rahf.improve.repair import repair as mend

    check_text(prompt)
    check_png(out)
    check_writable(out)
    RepairOptions(what, threshold, floor, dilation, candidates, rounds)
    pixels = load_photo(picture, KEPT_SIDE)
    given = mask_of(mask, (pixels.shape[2], pixels.shape[1])) if mask is not None else None
    models = load(generator, weights, device, lora)
    setting = setting_of(models[0], steps, guidance, padding=padding, strength=strength)
    options = RepairOptions(what, threshold, floor, dilation, candidates, rounds, setting=setting)
    found = mend(pixels, prompt, *models, given, options, seed, shown())
    save_picture(out, found.picture)
    echo_scores(found.before, found.after)
    typer.echo(f"{found.stopped}; {len(found.rounds)} rounds, {found.seconds:.1f} s, {found.calls} calls")
    typer.echo(f"wrote {out}{'' if found.changed else ', unchanged'}")


@improve.command()
@user_errors
def select(
    prompts: Annotated[Path, typer.Argument(help="Text file, one prompt a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures; goes on from what is there.")],
    count: Annotated[int, limited("Pictures a prompt", IMPROVE["count"])] = 8,
    by: Annotated[
        str, typer.Option(help="Score that decides: plausibility, alignment, aesthetics, overall, mean.")
    ] = "overall",
    keep: Annotated[float, limited("What the best one has to reach", IMPROVE["keep"])] = 0.8,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    generator: GeneratorName = "embedded",
    lora: Lora = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Draw several pictures a prompt, keep the best if it is good.

    The folder can be gone on with after an interruption, shared by `accelerate launch`, and learned from by
    `rahf improve tune`.
    """
    from foundation.folders import Processes
    from rahf.improve.select import KEPT, SelectOptions, read_prompt_list, select_folder

    SelectOptions(count, by, keep)
    texts = read_prompt_list(prompts)
    processes = Processes(device)
    models = load(generator, weights, processes.device(device), lora)
    options = SelectOptions(count, by, keep, setting_of(models[0], steps, guidance))
    done = select_folder(texts, out, *models, options, seed, processes, shown())
    if processes.first:
        typer.echo(f"{out}: {done}; what was kept is in {KEPT}")
        for line in done.details():
            typer.echo(line, err=True)
    if done.failures:
        raise typer.Exit(1)


@improve.command()
@user_errors
def guide(
    prompt: Prompt,
    out: Out,
    score: Annotated[str, typer.Option(help="That leads: overall, aesthetics, plausibility or alignment.")] = "overall",
    count: Annotated[int, limited("Of pictures", IMPROVE["count"])] = 1,
    forward: Annotated[float, limited("Length of the gradient, as part of the noise's", IMPROVE["forward"])] = 0.3,
    backward_steps: Annotated[int, limited("Of ascent on the expected picture", IMPROVE["backward_steps"])] = 0,
    recurrence: Annotated[int, limited("How often a guided step is taken", IMPROVE["recurrence"])] = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    generator: GeneratorName = "embedded",
    lora: Lora = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Let a score lead while a picture is drawn (experimental).

    The same pictures are drawn without, too, for comparison.
    """
    from foundation.files import replacing_files, write_text
    from rahf.improve.generation.base import check_text
    from rahf.improve.guidance import GuidanceOptions
    from rahf.improve.guidance import guide as lead

    check_text(prompt)
    ready(out)
    GuidanceOptions(score, forward, backward_steps, recurrence=recurrence)
    models = load(generator, weights, device, lora)
    setting = setting_of(models[0], steps, guidance)
    options = GuidanceOptions(score, forward, backward_steps, recurrence=recurrence, setting=setting)
    found = lead(prompt, *models, count, options, seed, shown())
    with replacing_files(out) as partial:
        rows = []
        for index, (plain, led) in enumerate(zip(found.plain, found.pictures, strict=True)):
            save_picture(partial / f"plain-{index + 1}.png", plain)
            save_picture(partial / f"guided-{index + 1}.png", led)
            rows.append(
                {"seed": seed + index, "plain": found.before[index].scores, "guided": found.after[index].scores}
            )
        write_text(partial / "guidance.json", json.dumps(rows, indent=1) + "\n")
    for before, after in zip(found.before, found.after, strict=True):
        echo_scores(before, after)
    typer.echo(f"{found.stopped}; {found.seconds:.1f} s, {found.calls} calls; wrote {out}")


@improve.command()
@user_errors
def compare(
    prompt: Prompt,
    out: Out,
    tools: Annotated[
        str, typer.Option(help="Some of plain, best, repair, words, guide, sgool, doodl, tuned, with commas between.")
    ] = "plain,best,repair,words,guide,sgool",
    count: Annotated[int, limited("Pictures that selection and a round of repair draw", IMPROVE["count"])] = 4,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    generator: GeneratorName = "embedded",
    lora: Annotated[Path | None, typer.Option(help="Folder of the adapter for `tuned`.")] = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """What each tool makes of one prompt and one seed.

    A sheet of pictures with scores, seconds and cost under each is written, and the same as JSON.
    """
    from foundation.files import replacing_files, write_text
    from rahf.improve.compare import TOOLS, CompareOptions
    from rahf.improve.compare import compare as side_by_side
    from rahf.improve.generation.base import check_text

    check_text(prompt)
    ready(out)
    wanted = [name.strip() for name in tools.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in TOOLS]:
        raise ValueError(f"no tool is called {', '.join(unknown)}; choose some of {', '.join(TOOLS)}")
    models = load(generator, weights, device)
    options = CompareOptions(count, setting_of(models[0], steps, guidance), lora)
    found = side_by_side(prompt, *models, wanted, options, seed, shown())
    with replacing_files(out) as partial:
        for entry in found.entries:
            if entry.picture is not None:
                save_picture(partial / f"{entry.tool}.png", entry.picture)
        found.sheet().save(partial / "sheet.png")
        write_text(partial / "comparison.json", json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    for entry in found.entries:
        scores = "failed" if entry.after is None else " ".join(f"{v:.2f}" for v in entry.after.scores.values())
        typer.echo(f"{entry.tool:8} {scores}  {entry.seconds:6.1f} s {entry.calls:6d} calls  {entry.stopped}")
    typer.echo(f"wrote {out}")


# What the commands share; those of other tools may use it too.


def load(generator: str, weights: str, device: str, lora: Path | None = None) -> tuple[Any, Any]:
    """Generator and predictor."""
    from rahf.improve.generator import load_generator
    from rahf.predictor import Predictor

    return load_generator(generator, device, lora=lora), Predictor.from_pretrained(weights, device, "auto")


def setting_of(generator: Any, steps: int | None, guidance: float | None, **others: Any) -> Any:
    """The generator's own setting with what was asked for."""
    from dataclasses import replace

    asked = {"steps": steps, "guidance": guidance, **others}
    return replace(generator.setting, **{name: value for name, value in asked.items() if value is not None})


def shown() -> Any:
    """Progress as a bar on a terminal."""
    from tqdm.auto import tqdm

    bar = tqdm(total=1.0, bar_format="{percentage:3.0f}% {bar} {desc}", disable=None, leave=False)

    def told(share: float, what: str) -> None:
        bar.set_description_str(what, refresh=False)
        bar.update(max(share - bar.n, 0.0))

    return told


def ready(out: Path) -> None:
    """Find out before the work whether a folder can be written, and make those above it."""
    from foundation.files import check_folder

    check_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def check_png(path: Path) -> None:
    """Raises ValueError for another format, which would change pixels or is not written."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} does not end in .png; only PNG keeps every pixel as it is")


def save_picture(path: Path, picture: "Tensor") -> None:
    """A picture (3,H,W) in [0, 1] as PNG."""
    from PIL import Image

    from foundation.files import replacing
    from foundation.pictures import to_uint8

    with replacing(path) as partial:
        Image.fromarray(to_uint8(picture[None])[0]).save(partial)


def echo_scores(before: "Feedback", after: "Feedback") -> None:
    """A line for each score."""
    for name, value in after.scores.items():
        typer.echo(f"{name:13} {before.scores[name]:.3f} -> {value:.3f}")
    for when, feedback in (("before", before), ("after", after)):
        if missing := [word.text for word in feedback.misaligned()]:
            typer.echo(f"not shown {when}: {', '.join(missing)}")
