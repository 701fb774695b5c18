"""What a GPU gives, in one command and at most 8 minutes: `python -m speed.gpu [--tiny] [--device NAME] [--minutes 8]`.

Images a second, and the share of the matrix products' measured peak, of training (CLIP ViT-B/16 and TCL, 448 px, batch
32 and the largest that fits, with and without `compile`), pruning (224 px, with mirror images), tagging, segmenting
into the 20 classes of VOC by two protocols, and the loader: how many processes keep training busy. Weights are random
and images noise, which changes no time. All in bfloat16; floating point operations are those that torch counts
(`FlopCounterMode`; on a processor without attention's), once, without `compile`. What does not fit into the minutes is
named.

`--tiny`: the same on models of a few layers, for a test on any processor; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from speed.loader import COUNT, write_shard
from speed.pooled_pruning import tcl
from speed.tag_throughput import CAPTIONS, vit_b16
from speed.training_step import objective_and_batch
from tests.tiny_models import tiny_clip, tiny_tcl
from ttd.data.score_jobs import ScoreJob
from ttd.data.sources import PairSource
from ttd.encoders import Encoder
from ttd.errors import OutOfMemory, is_out_of_memory
from ttd.inference.device import find_device
from ttd.inference.options import Options
from ttd.inference.protocols import options
from ttd.model import TTD
from ttd.training.config import read_config
from ttd.training.dataset import Steps
from ttd.training.distributed import compile_blocks

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse",
    "motorbike", "person", "plant", "sheep", "sofa", "train", "monitor",
)  # fmt: skip


@dataclass
class Bench:
    """One run of all measurements.

    Attributes:
        device: where.
        tiny: whether models and images are small.
        end: when it must be over, by `time.monotonic`.
        seconds: of each measurement, after one run that warms up.
        peak: operations a second of a large matrix product.
        rows: what was measured: name, images a second, operations of an image (0: not counted).
        left_out: what did not fit, and why.
    """

    device: torch.device
    tiny: bool
    end: float
    seconds: float
    peak: float = 0.0
    rows: list[tuple[str, float, float]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, run: Callable[[], object]) -> float:
        """Runs a second, after one that warms up."""
        run()
        self.wait()
        count, start = 0, time.perf_counter()
        while count < 2 or time.perf_counter() - start < self.seconds:
            run()
            self.wait()
            count += 1
        return count / (time.perf_counter() - start)

    def measure(self, name: str, images: int, run: Callable[[], object], count: Callable[[], object] | None) -> None:
        """A row; `count` is run once under torch's counter, None: not counted."""
        run()  # what is done once, as encoding the classes, does not count
        flops = 0
        if count is not None:
            with FlopCounterMode(display=False) as counter:
                count()
            flops = counter.get_total_flops()
        self.rows.append((name, images * self.rate(run), flops / images))
        print(self.line(*self.rows[-1]), flush=True)

    def line(self, name: str, rate: float, flops: float) -> str:
        share = f"{flops * rate / self.peak:6.1%} of peak, {flops / 1e9:8,.1f} GFLOP each" if flops else ""
        return f"  {name:52} {rate:9,.1f} images/s  {share}"

    @contextmanager
    def part(self, name: str) -> Iterator[bool]:
        """Whether there is time for a measurement; memory that is too small leaves it out."""
        if time.monotonic() > self.end:
            self.left_out.append(f"{name}: no time left")
            yield False
            return
        try:
            yield True
        except (OutOfMemory, RuntimeError) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
            self.left_out.append(f"{name}: not enough memory")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def matmul_peak(bench: Bench) -> float:
    """Operations a second of a square product in bfloat16."""
    side = 256 if bench.tiny else 8192 if bench.device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 * bench.rate(lambda: a @ b)


def models(bench: Bench) -> dict[str, Callable[[], Encoder]]:
    return {"CLIP ViT-B/16": tiny_clip, "TCL": tiny_tcl} if bench.tiny else {"CLIP ViT-B/16": vit_b16, "TCL": tcl}


def training(bench: Bench) -> None:
    side, usual = (64, 2) if bench.tiny else (448, 32)
    for name, make in models(bench).items():
        for count, compiled in ((usual, False), (usual, True), (0, False)):
            what = f"training {name}, {side} px, batch {count or 'largest'}{', compiled' if compiled else ''}"
            if compiled and (bench.tiny or bench.device.type != "cuda"):
                continue  # compiling for a processor takes minutes and is not what is asked
            with bench.part(what) as there:
                if there:
                    _train(bench, make, what, count or _largest(bench, make, side, usual), side, compiled)


def _train(bench: Bench, make: Callable[[], Encoder], what: str, count: int, side: int, compiled: bool) -> None:
    step = _step(make().to(bench.device), count, side)
    counted = step
    if compiled:
        counted = None  # type: ignore[assignment]
        step = _step(make().to(bench.device), count, side, compiled=True)
    bench.measure(what.replace("largest", f"{count} (largest)"), count, step, counted)


def _step(encoder: Encoder, count: int, side: int, *, compiled: bool = False) -> Callable[[], float]:
    objective, batch = objective_and_batch(encoder, count, side, "bfloat16")
    if compiled:
        compile_blocks(encoder.backbone)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)

    def run() -> float:
        optimiser.zero_grad()
        loss = objective(batch).loss / count
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return run


def _largest(bench: Bench, make: Callable[[], Encoder], side: int, usual: int) -> int:
    """The largest power of two times the usual batch that fits, up to 16 times; on a processor the double."""
    if bench.device.type != "cuda":
        return 2 * usual
    fits = usual
    for factor in (2, 4, 8, 16):
        try:
            _step(make().to(bench.device), factor * usual, side)()
        except (OutOfMemory, RuntimeError) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
            break
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        fits = factor * usual
    return fits


def pruning(bench: Bench) -> None:
    side, count = (64, 4) if bench.tiny else (224, 256)
    pixels = list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    captions = [(CAPTIONS[n % len(CAPTIONS)],) for n in range(count)]
    for name, make in models(bench).items():
        with bench.part(f"pruning {name}") as there:
            if there:
                job = ScoreJob(make().to(bench.device, torch.bfloat16).eval(), size=side, flip=True)
                what = f"pruning {name}, {side} px, mirrored too, batch {count}"
                bench.measure(what, count, *[lambda job=job: job.score(pixels, captions)] * 2)


def questions(bench: Bench) -> None:
    """Tagging, and segmenting by two protocols."""
    side, count = (64, 2) if bench.tiny else (448, 32)
    shape = (48, 64) if bench.tiny else (375, 500)
    noise = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in noise]
    captions = [CAPTIONS[n % len(CAPTIONS)] for n in range(count)]
    for name, make in models(bench).items():
        model = TTD(make().to(bench.device, torch.bfloat16))
        with bench.part(f"tagging {name}") as there:
            if there:
                how = Options(size=side)

                def tag(model: TTD = model, how: Options = how) -> None:
                    for found in model.tag_many(images, captions, options=how, batch_size=count):
                        assert not isinstance(found, Exception), found

                bench.measure(f"tagging {name}, {side} px, files left out", count, tag, tag)
        for protocol in ("default", "paper"):
            few = images[: 1 if bench.tiny else 4]
            with bench.part(f"segmenting {name}, {protocol}") as there:
                if there:
                    # DenseCRF, which the paper's protocol takes for CLIP, runs on the processor and is an extra.
                    changes = {"refine": "none"} if model.encoder.kind == "clip" else {}
                    if bench.tiny:
                        changes |= {"size": side, "window": side, "stride": side // 2}
                    how = options(protocol, "masks", **changes)

                    def segment(model: TTD = model, how: Options = how, few: list[Image.Image] = few) -> None:
                        for found in model.segment_many(few, VOC, how, batch_size=4):
                            assert not isinstance(found, Exception), found

                    bench.measure(
                        f"segmenting {name}, VOC's classes, protocol {protocol}, no DenseCRF",
                        len(few),
                        segment,
                        segment,
                    )


def loader(bench: Bench) -> None:
    """Training's loader in one process, and how many of them keep the fastest training of the above busy."""
    with bench.part("loader") as there, tempfile.TemporaryDirectory() as folder:
        if not there:
            return
        write_shard(Path(folder) / "shard.tar")
        config = read_config(None, ["optimiser.batch=32", "data.workers=0", 'data.sources=["shard"]'])
        steps = Steps(PairSource(Path(folder) / "shard.tar"), config)
        bench.measure("loader, JPEGs of 640 x 480, one process", COUNT, lambda: [steps[0], steps[1]], None)
        each = bench.rows[-1][1]
        fastest = max((rate for name, rate, _ in bench.rows if name.startswith("training")), default=0.0)
        print(f"  {fastest / each:.1f} processes that read keep the fastest training above busy")


def main(arguments: list[str] | None = None) -> Bench:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--minutes", type=float, default=8.0)
    given = parser.parse_args([] if __name__ != "__main__" and arguments is None else arguments)
    device = find_device(given.device)
    # The last part begins before the end and may compile: a sixth of the time is kept for it.
    end = time.monotonic() + 60 * given.minutes * 5 / 6
    bench = Bench(device, given.tiny, end, seconds=0.0 if given.tiny else 4.0)
    if device.type == "cpu" and not given.tiny:
        print("gpu: there is no GPU here, so nothing is measured (--tiny runs it all on small models)")
        return bench
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    bench.peak = matmul_peak(bench)
    print(f"{named}, torch {torch.__version__}: matrix products {bench.peak / 1e12:,.2f} TFLOP/s in bfloat16")
    for part in (training, pruning, questions, loader):
        part(bench)
    for what in bench.left_out:
        print(f"  left out: {what}")
    return bench


if __name__ == "__main__":
    main(sys.argv[1:])
