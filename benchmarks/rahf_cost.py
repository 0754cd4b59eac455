"""Time and memory of rahf: `python benchmarks/rahf_cost.py auc|small|public`.

auc: the rank-based AUC-Judd against the usual loop over fixations. small: image to full feedback with the small preset.
public: one full forward of the released size with random weights, and the part of it that scores alone cost.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from rahf.config import preset
from rahf.metrics import auc_judd
from rahf.model import RAHF, TextTokens
from rahf.predictor import Predictor


def seconds(work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The median time of `work`, after one call to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        start = clock()
        work()
        taken.append(clock() - start)
    return float(np.median(taken))


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


def auc(side: int = 512) -> dict[str, float]:
    generator = np.random.default_rng(0)
    predicted, actual = generator.random((side, side)), np.zeros((side, side))
    actual[50:120, 60:130] = 1
    assert abs(auc_judd(predicted, actual) - judd_loop(predicted, actual)) < 1e-12
    ours = seconds(lambda: auc_judd(predicted, actual), 9, time.process_time)
    loop = seconds(lambda: judd_loop(predicted, actual), 1, time.process_time)
    return {
        "side": side,
        "fixations": float(actual.sum()),
        "seconds": ours,
        "loop seconds": loop,
        "times faster": loop / ours,
    }


def small() -> dict[str, float]:
    torch.manual_seed(0)
    predictor = Predictor(RAHF(preset("small")))
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    prompt = "two red cats to the left of a blue dog and a sign that says hello, highly detailed"
    return {
        "threads": torch.get_num_threads(),
        "full seconds": seconds(lambda: predictor.predict(image, prompt), 5),
        "scores only seconds": seconds(lambda: predictor.predict(image, prompt, scores_only=True), 5),
    }


@torch.no_grad()
def public(dtype: str) -> dict[str, float | str]:
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    with torch.device("meta"):
        model = RAHF(preset("public")).to(kind)
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.02)
    image, targets = torch.rand(1, 3, 384, 384), torch.randint(3, 32000, (1, 32))
    text = TextTokens(targets, torch.ones_like(targets, dtype=torch.bool))
    start = time.perf_counter()
    model(image, text, targets=targets)
    full = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    model(image, text, heatmaps=())
    scores = time.perf_counter() - start
    return {
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "full seconds": full,
        "peak GiB": peak,
        "scores only seconds": scores,
        "scores only part": scores / full,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["auc", "small", "public"])
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    found = {"auc": auc, "small": small, "public": lambda: public(options.dtype)}[options.what]()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
