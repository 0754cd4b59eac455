"""Time and memory of rahf: `python benchmarks/rahf_cost.py public|growth|small|auc`.

public: the released size with random weights, whole and scores alone, in float32 and bfloat16, beside a straightforward
float32 forward of the described model (`rahf_peer.py`), in one run, with the share of the matrix peak that is measured
in between; on two quiet cores about three minutes and 5 GB. growth: the embedded size by images at once. small: image
to full feedback. auc: the rank-based AUC-Judd against the usual loop over fixations. Times are least wall-clock times;
`processor` ones, of all threads, say more on a busy machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Panel, Timing, logger, measure, parser, peak_of, save, start, table
from common import plot as plot_panels
from rahf_peer import PlainRAHF
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rahf.evaluation.metrics import auc_judd
from rahf.model.config import HEATMAPS, SCORES, RAHFConfig, preset
from rahf.model.precision import has_fast_bf16
from rahf.model.rahf import RAHF, TextTokens
from rahf.predictor import Predictor

WORDS = 32  # tokens of the prompt
PROMPT = "two red cats to the left of a blue dog and a sign that says hello, highly detailed"
# What is asked for: times faster than the peer, and largest difference from it; and of the scores' part of the whole.
WANTED = {"bfloat16": (2, 2e-2), "float32, scores": (3, 1e-4), "bfloat16, scores": (5, 2e-2)}
LARGEST_PART = 0.4


def peak_memory(work: Callable[[], Any]) -> float | None:
    """GiB that the process held at most while `work` ran; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        work()
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    except OSError:
        return None


def matrix_peak(kind: torch.dtype, side: int = 1536) -> float:
    """GFLOP a second of a square matrix product, the best of several."""
    a, b = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)
    return 2 * side**3 / measure(lambda: a @ b, 8).wall_ms / 1e6


def described(scale: int) -> RAHFConfig:
    """The released configuration; with `scale` > 1 narrower and shallower, to try this script out."""
    config = preset("public")
    if scale == 1:
        return config
    return config.changed(
        vit_width=1024 // scale,
        vit_layers=24 // scale,
        vit_mlp=4096 // scale,
        text_width=768 // scale,
        text_mlp=3072 // scale,
        text_layers=12 // scale,
        text_decoder_layers=12 // scale,
        heatmap_stem=tuple(width // scale for width in config.heatmap_stem),
        heatmap_stages=tuple(width // scale for width in config.heatmap_stages),
        score_channels=tuple(width // scale for width in config.score_channels),
    )


def spread_outputs(model: RAHF) -> None:
    """Give the last layers weights that let the outputs use their range, so that a difference would show: as drawn, all
    of them are near one half, where bfloat16 has no chance to be wrong."""
    for head in (*model.heatmap_predictor.values(), *model.score_predictor.values()):
        last = [getattr(head, name) for name in ("last_conv1", "last_conv2") if hasattr(head, name)]
        for layer in last or [layer for layer in head.modules() if isinstance(layer, nn.Linear)]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def flops(config: RAHFConfig) -> dict[str, float]:
    """Floating-point operations of one whole forward, and of the scores alone."""
    with torch.device("meta"):
        model = RAHF(config).eval()
        image, ids = torch.empty(1, 3, config.image_size, config.image_size), torch.zeros(1, WORDS, dtype=torch.long)
        text = TextTokens(ids, torch.ones_like(ids, dtype=torch.bool))

        def count(**asked: Any) -> float:
            with FlopCounterMode(display=False) as counter:
                visual = model.vit(pixel_values=image).last_hidden_state
                visual = model.visual_token_projection(visual)
                hidden = model.t5.encoder(
                    inputs_embeds=torch.cat([visual, model.t5.shared(text.ids)], dim=1)
                ).last_hidden_state
                features = hidden[:, 1 : config.grid**2 + 1].transpose(1, 2)
                features = features.reshape(1, config.text_width, config.grid, config.grid)
                for name in asked["heads"]:
                    model.head(name)(features)
                if asked["words"]:
                    written = model.t5.decoder(ids, encoder_hidden_states=hidden[:, config.grid**2 + 1 :])
                    model.t5.lm_head(written.last_hidden_state)
            return float(counter.get_total_flops())

        return {
            "whole": count(heads=HEATMAPS + SCORES, words=True),
            "scores": count(heads=SCORES, words=False),
        }


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The largest and the root-mean-square difference of heatmaps and scores."""
    names = [name for name in found if name != "words"]
    apart = torch.cat([(found[name].float() - expected[name].float()).flatten() for name in names])
    return {"largest difference": float(apart.abs().max()), "rms difference": float(apart.square().mean().sqrt())}


def public(repeats: int, scale: int) -> dict[str, Any]:
    """Whole and scores alone, in both number formats, beside the peer."""
    torch.manual_seed(0)
    config = described(scale)
    model = RAHF(config).eval()
    spread_outputs(model)
    ids = torch.randint(3, 32000, (1, WORDS))
    image, text = smooth_image(config.image_size), TextTokens(ids, torch.ones_like(ids, dtype=torch.bool))
    operations = flops(config)
    kept: dict[str, dict[str, Tensor]] = {}
    timings: dict[str, Timing] = {}

    def ours(whole: bool) -> dict[str, Tensor]:
        with torch.inference_mode():
            output = model(image, text, heatmaps=HEATMAPS if whole else (), targets=ids if whole else None)
        words = {"words": output.word_logits} if output.word_logits is not None else {}
        return {**output.heatmaps, **output.scores, **words}

    def measured(name: str, work: Callable[[], dict[str, Tensor]], kind: torch.dtype, part: str) -> dict[str, Any]:
        def run() -> None:
            kept[name] = work()

        memory = peak_memory(run)  # warms up, too
        timings[name] = timing = measure(run, repeats, warm=False)
        speed, peak = operations[part] / timing.wall_ms / 1e6, matrix_peak(kind)
        return {
            "what": name,
            "seconds": timing.wall_ms / 1000,
            "processor seconds": timing.processor_ms / 1000,
            "peak GiB": memory,
            "GFLOP/s": speed,
            "matrix peak GFLOP/s": peak,
            "share of the matrix peak": speed / peak,
            "times faster": timings["peer"].over(timing),
            "times faster, processor": timings["peer"].processor_ms / timing.processor_ms,
        }

    peer = partial(PlainRAHF(model).eval(), image, ids, ids)
    rows = {"peer": measured("peer", peer, torch.float32, "whole") | differences(kept["peer"], kept["peer"])}
    del peer  # it holds the float32 weights
    kinds = ["float32", *(["bfloat16"] if has_fast_bf16() else [])]
    for kind in kinds:
        model.to(getattr(torch, kind))
        for part, whole in (("whole", True), ("scores", False)):
            name = kind if whole else f"{kind}, scores"
            row = measured(name, lambda whole=whole: ours(whole), getattr(torch, kind), part)  # type: ignore[misc]
            rows[name] = row | differences(kept[name], kept["peer"])
    wanted = []
    for name, (times, most) in WANTED.items():
        if name in rows:
            row = rows[name]
            wanted.append({"what": name, "wanted": f"{times} times as fast", "reached": row["times faster"] >= times})
            for kind in ("largest difference", "rms difference"):
                wanted.append({"what": name, "wanted": f"{kind} {most:g}", "reached": row[kind] <= most})
    for kind in kinds:
        part_of = rows[f"{kind}, scores"]["seconds"] / rows[kind]["seconds"]
        what = f"{kind}: scores are {part_of:.0%} of the whole"
        wanted.append({"what": what, "wanted": f"at most {LARGEST_PART:.0%}", "reached": part_of <= LARGEST_PART})
    spread = {name: float(kept["peer"][name].std()) for name in HEATMAPS}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "TFLOP whole": operations["whole"] / 1e12,
        "TFLOP scores": operations["scores"] / 1e12,
        "spread of the heatmaps": spread,
        "rows": list(rows.values()),
        "wanted": wanted,
    }


def smooth_image(side: int) -> Tensor:
    """(1,3,S,S) in [0, 1]: coloured clouds, the same each time."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def some_images(count: int) -> list[np.ndarray]:
    """Pictures of noise, 512 pixels wide and high."""
    return [np.random.default_rng(seed).integers(0, 256, (512, 512, 3), dtype=np.uint8) for seed in range(count)]


def one_batch(count: int) -> None:
    """Whole feedback on so many pictures at once, for the peak of memory."""
    Predictor(RAHF(preset("small"))).predict_batch(some_images(count), [PROMPT] * count)


def growth(repeats: int) -> dict[str, Any]:
    """Milliseconds for 1 to 8 images at once with the embedded size, whole and scores alone, and the peak of memory."""
    torch.manual_seed(0)
    predictor = Predictor(RAHF(preset("small")))
    rows = []
    for count in (1, 2, 4, 8):

        def run(only: bool, images: list[np.ndarray]) -> None:
            predictor.predict_batch(images, [PROMPT] * len(images), scores_only=only)

        row: dict[str, float] = {"images": count, "peak_mb": peak_of(one_batch, count)[1]}
        for name, only in (("whole", False), ("scores only", True)):
            timing = measure(partial(run, only, some_images(count)), repeats)
            row |= {f"{name} ms": timing.wall_ms, f"{name} processor ms": timing.processor_ms}
        rows.append(row)
    return {"rows": rows}


def small(repeats: int) -> dict[str, Any]:
    """Image to full feedback with the embedded size."""
    torch.manual_seed(0)
    predictor = Predictor(RAHF(preset("small")))
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    rows = []
    for name, only in (("whole", False), ("scores only", True)):
        timing = measure(partial(predictor.predict, image, PROMPT, scores_only=only), repeats)
        rows.append({"what": name, "ms": timing.wall_ms, "processor ms": timing.processor_ms})
    return {"rows": rows}


def judd_loop(predicted: np.ndarray, actual: np.ndarray) -> float:
    """One threshold a fixation, each counted over all pixels."""
    saliency, fixated = predicted.ravel(), actual.ravel() > 0
    thresholds = np.sort(saliency[fixated])[::-1]
    hits, alarms = [0.0], [0.0]
    for place, threshold in enumerate(thresholds):
        above = int((saliency >= threshold).sum())
        hits.append((place + 1) / len(thresholds))
        alarms.append((above - place - 1) / (saliency.size - len(thresholds)))
    return float(np.trapezoid([*hits, 1.0], [*alarms, 1.0]))


def auc(repeats: int, side: int = 512) -> dict[str, Any]:
    """The rank-based AUC-Judd beside the loop."""
    generator = np.random.default_rng(0)
    predicted, actual = generator.random((side, side)), np.zeros((side, side))
    actual[50:120, 60:130] = 1
    if abs(auc_judd(predicted, actual) - judd_loop(predicted, actual)) > 1e-12:
        raise RuntimeError("the two forms of AUC-Judd differ")
    ours = measure(lambda: auc_judd(predicted, actual), repeats)
    loop = measure(lambda: judd_loop(predicted, actual), 1, warm=False)
    row = {"side": side, "fixations": int(actual.sum()), "ms": ours.wall_ms, "loop ms": loop.wall_ms}
    return {"rows": [row | {"times faster": loop.over(ours)}]}


def plot_public(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds for one image as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    bars = axes.barh(
        [row["what"] for row in rows],
        [row["seconds"] for row in rows],
        color=["#8a8f98" if row["what"] == "peer" else "#4078c0" for row in rows],
    )
    axes.bar_label(bars, [f"{row['seconds']:.1f} s, {row['times faster']:.1f}x" for row in rows], padding=4)
    axes.invert_yaxis()
    axes.set(xlabel="seconds for one image", title="RAHF, released size", xlim=(0, 1.25 * axes.get_xlim()[1]))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("what", choices=["public", "growth", "small", "auc"])
    arguments.add_argument("--repeats", type=int, default=2, help="the least time of these counts")
    arguments.add_argument("--scale", type=int, default=1, help="public: divide widths and depths, to try this out")
    options = arguments.parse_args()
    start(options)
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "public": lambda: public(options.repeats, options.scale),
        "growth": lambda: growth(options.repeats),
        "small": lambda: small(options.repeats),
        "auc": lambda: auc(options.repeats),
    }
    found = works[options.what]()
    name = f"rahf_{options.what}"
    logger.info(table(found["rows"]))
    if "wanted" in found:
        logger.info("\n" + table(found["wanted"]))
    save(options, name, found)
    if options.what == "public":
        plot_public(found["rows"], options.out / f"{name}.png")
    if options.what == "growth":
        kinds = {
            kind: [(row["images"], row[f"{kind} ms"]) for row in found["rows"]] for kind in ("whole", "scores only")
        }
        plot_panels(options, name, [Panel("RAHF, embedded size", "images at once", "ms", kinds, line=True)])


if __name__ == "__main__":
    main()
