"""The part of a model that training changes: a LoRA adapter on the encoder's own targets, saved in PEFT's format."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttd.encoders.base import Encoder
from ttd.encoders.calibration import Calibration
from ttd.encoders.loading.adapters import with_layers
from ttd.encoders.loading.catalogue import find_entry
from ttd.encoders.loading.checkpoints import write_tensors
from ttd.encoders.loading.formats import ADAPTER_WEIGHTS, CARD, Card, write_card
from ttd.encoders.methods import DEFAULT
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.training.config import Loss, Model

log = logging.getLogger(__name__)


class LearnedCalibration(nn.Module):
    """`p = sigmoid(w (cos - c))` with w and c in training: as log w, so that w stays above 0, and c.

    Args:
        start: where both begin.
    """

    def __init__(self, start: Calibration) -> None:
        super().__init__()
        self.log_w = nn.Parameter(torch.tensor(math.log(start.w)))
        self.c = nn.Parameter(torch.tensor(float(start.c)))

    def forward(self, sim: Tensor) -> Tensor:
        """Cosines of any shape -> p of the same shape."""
        return ((sim - self.c) * self.log_w.exp()).sigmoid()

    @property
    def now(self) -> Calibration:
        """The current values of both numbers."""
        return Calibration(math.exp(self.log_w.item()), self.c.item())


def trained_calibration(encoder: Encoder, loss: Loss) -> Calibration | LearnedCalibration | None:
    """What turns cosines into the similarity that is trained; None where that is the cosine itself.

    TCL's is its learned one alone, without PAMR and without its frozen branch.
    """
    if loss.similarity == "raw":
        return None
    start = Calibration(loss.w, loss.c) if loss.w else encoder.calibration
    return LearnedCalibration(start).to(encoder.device) if loss.learned else start


class Adapter:
    """LoRA layers inside `encoder.backbone`, with the calibration that is learned the only parameters in training.

    Args:
        encoder: its backbone gets the layers in place.
        options: rank, scale, towers.
        seed: of the layers' random start.
        loss: says on which similarity it is trained; None: on raw cosines.

    Attributes:
        fingerprint: of the base, taken before anything was attached.
        calibration: with which it is trained, for its card too; None: on raw cosines.
    """

    def __init__(self, encoder: Encoder, options: Model, seed: int, loss: Loss | None = None) -> None:
        self.encoder, self.options = encoder, options
        self.calibration = None if loss is None else trained_calibration(encoder, loss)
        self.fingerprint = encoder.fingerprint()
        encoder.requires_grad_(False)
        torch.manual_seed(seed)
        self._peft = with_layers(encoder.backbone, lora_config(encoder, options))
        for name, parameter in self.named_parameters():
            log.debug("trains %s %s", name, list(parameter.shape))

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What is trained, by its name in the backbone, sorted; then what is learned of the calibration."""
        found = [(name, p) for name, p in self.encoder.backbone.named_parameters() if p.requires_grad]
        return sorted(found, key=lambda pair: pair[0]) + self.calibration_parameters()

    def calibration_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What is learned of the calibration, by name; usually nothing."""
        learned = self.calibration
        return list(learned.named_parameters("calibration")) if isinstance(learned, LearnedCalibration) else []

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside the block the encoder is the frozen base."""
        with self._peft.disable_adapter():
            yield

    def state(self) -> dict[str, Tensor]:
        """The trained parameters, detached copies on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over parameters from `state`."""
        mine = dict(self.named_parameters())
        if set(mine) != set(state):
            raise InputError("the checkpoint trains other layers than this run: start again in another folder")
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state[name])

    def save(self, folder: Path) -> None:
        """Write `adapter_config.json`, `adapter_model.safetensors` and `ttd.json`, each whole or not at all."""
        from peft.utils.save_and_load import get_peft_model_state_dict

        trained = self.calibration
        tensors = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        config = self._peft.peft_config["default"].to_dict()
        config["inference_mode"] = True
        config["lora_alpha"] *= self.options.kept  # what was trained stays as it is: a run may go on
        with whole_file(folder / "adapter_config.json") as part:
            part.write_text(json.dumps(_plain(config), indent=1, sort_keys=True) + "\n", encoding="utf-8")
            write_tensors(tensors, folder / ADAPTER_WEIGHTS[0])
        write_card(
            folder,
            Card(
                kind=self.encoder.kind,
                method=self.encoder.method_name,
                calibration=trained.now if isinstance(trained, LearnedCalibration) else trained,
                fingerprint=self.fingerprint,
                base=self.options.name,
            ),
        )


def lora_config(encoder: Encoder, options: Model) -> Any:
    """PEFT's `LoraConfig` of a run: the encoder's own targets in the towers that are adapted."""
    from peft import LoraConfig

    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha or options.rank,
        lora_dropout=options.dropout,
        target_modules=[name for name in encoder.lora_targets() if _in_tower(name, encoder.text_tower, options.towers)],
        base_model_name_or_path=hub_name(options.name),
    )


def parameter_counts(encoder: Encoder) -> tuple[int, int]:
    """Parameters of an encoder without and in its low-rank layers."""
    sizes = [("lora_" in name, p.numel()) for name, p in encoder.named_parameters()]
    return sum(size for lora, size in sizes if not lora), sum(size for lora, size in sizes if lora)


def log_method(encoder: Encoder, options: Model) -> None:
    """Log which last block is trained, as a warning if it comes from the model's own card."""
    name = encoder.method_name
    if name is None:
        return
    if options.method or name == DEFAULT or find_entry(options.name) is not None:
        log.info("the last block that is trained is %s", name)
        return
    log.warning(
        'the last block that is trained is "%s", which %s of %s names, not the paper\'s "%s": --method %s trains that',
        name, CARD, options.name, DEFAULT, DEFAULT,
    )  # fmt: skip


def _in_tower(name: str, text_tower: str, towers: str) -> bool:
    return towers == "both" or (text_tower in name) == (towers == "text")


def hub_name(name: str) -> str:
    """What PEFT's own users load as the base: the hub id behind a short name, else the name itself."""
    entry = find_entry(name)
    return (entry.hub_id if entry is not None else None) or name


def _plain(value: Any) -> Any:
    """PEFT's config as JSON values, sets in a fixed order."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
