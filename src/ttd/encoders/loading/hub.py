"""Models and adapters from a hub, into local folders that `folders` can read.

Files are asked for one by one and the weights last, when everything else is known to be right and there is room for
them: a snapshot with weights is a complete one, and is used without any request.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ttd.encoders.families import Format, families
from ttd.encoders.loading.catalogue import ModelEntry
from ttd.encoders.loading.downloads import (
    NEEDS_NONE,
    cache_folder,
    check_hash,
    check_space,
    disk_errors,
    human_size,
)
from ttd.encoders.loading.files import PROCESSOR_FILES, check_unquantised, model_type, read_json
from ttd.encoders.loading.formats import ADAPTER_WEIGHTS, CARD
from ttd.encoders.loading.tokenizers import TOKENIZER_FILES, load_tokenizer
from ttd.encoders.loading.weights import WEIGHT_SUFFIXES, index_shards
from ttd.errors import ModelError, TTDError

log = logging.getLogger(__name__)

SMALL_FILES = (CARD, *PROCESSOR_FILES, *TOKENIZER_FILES)


def by_hand_folder(repo_id: str) -> Path:
    """Where a person may put the files of a hub's repository that this machine cannot download."""
    return cache_folder() / repo_id.replace("/", "--")


def hub_model(repo_id: str, entry: ModelEntry | None = None, formats: Sequence[Format] = ()) -> Path:
    """The local folder of a hub's model (`org/name`), downloaded when it is not there yet.

    A folder filled by hand comes first, then the cache (without any request), then the hub at $HF_ENDPOINT.
    Weights are taken as safetensors where the repository has them.

    Args:
        repo_id: `org/name`.
        entry: the catalogue's row, for the size, revision and hash.
        formats: those that will do; empty: every family's.

    Raises:
        ModelError: the repository is unknown, holds another kind of model, cannot be reached, or sends a file
            whose hash is wrong.
    """
    if (folder := model_on_disk(repo_id, entry, formats)) is not None:
        return folder
    formats = formats or _every_format()
    remote = _remote(repo_id, entry)
    files = _model_files(remote, formats, entry.weights if entry else None)
    if not files:
        kinds = " or ".join(format.model_type for format in formats if format.model_type)
        needed = [f"config.json ({kinds})", *(format.config for format in formats if format.config)]
        raise ModelError(remote.lacks_everything(" or ".join(needed)))
    remote.check(files[1:], entry.sha256 if entry else None)
    return files[0].parent


def model_on_disk(repo_id: str, entry: ModelEntry | None = None, formats: Sequence[Format] = ()) -> Path | None:
    """Where `hub_model` finds a model without any request; None where it would download it."""
    by_hand = by_hand_folder(repo_id)
    if by_hand.is_dir():
        return by_hand
    revision, weights = (entry.revision, entry.weights) if entry else (None, None)
    cached = _model_files(_Repository(repo_id, revision, local=True), formats or _every_format(), weights)
    return cached[0].parent if cached else None


def _every_format() -> list[Format]:
    return [format for family in families() for format in family.formats]


def _remote(repo_id: str, entry: ModelEntry | None) -> _Repository:
    return _Repository(repo_id, entry.revision if entry else None, local=False, size=entry.size if entry else None)


def hub_adapter(repo_id: str) -> Path:
    """The local folder of a hub's PEFT adapter, found or downloaded like `hub_model`."""
    by_hand = by_hand_folder(repo_id)
    if by_hand.is_dir():
        return by_hand
    cached = _adapter_files(_Repository(repo_id, None, local=True))
    if cached:
        return cached[0].parent
    remote = _Repository(repo_id, None, local=False)
    files = _adapter_files(remote)
    if not files:
        raise ModelError(remote.lacks_everything("adapter_config.json with adapter_model.safetensors"))
    remote.check(files[1:], None)
    return files[0].parent


def _model_files(repository: _Repository, formats: Sequence[Format], weights: str | None = None) -> list[Path]:
    """The configuration and the weights files of a model; [] where either is missing.

    Args:
        repository: of the model.
        formats: that will do.
        weights: the one file of weights that will do, whatever else the repository holds.
    """
    config = repository.get("config.json")
    kind = model_type(config) if config else None
    described = [(f, config) for f in formats if kind is not None and f.model_type == kind]
    for format in formats:  # asked for only where config.json does not decide
        if format.config is not None and (weights in format.weights or not described):
            described.append((format, repository.get(format.config)))
    for format, path in described:
        names = tuple(name for name in format.weights if weights in (None, name))
        if path is None or not names:
            continue
        small = {name: repository.get(name) for name in dict.fromkeys((*SMALL_FILES, *format.needs))}
        if repository.local and format.needs and not any(small[name] for name in format.needs):
            continue
        if not repository.local and format.model_type is not None:
            check_unquantised(read_json(path), path)
            load_tokenizer(path.parent)  # what is wrong with it is said before the weights are fetched
        if files := _with_weights(repository, path, names):
            return files
    return []


def _adapter_files(repository: _Repository) -> list[Path]:
    config = repository.get("adapter_config.json")
    if config is None:
        return []
    repository.get(CARD)
    return _with_weights(repository, config, ADAPTER_WEIGHTS)


def _with_weights(repository: _Repository, config: Path, candidates: tuple[str, ...]) -> list[Path]:
    for name in candidates:
        found = repository.get(name)
        if found is None:
            continue
        if not name.endswith(".index.json"):
            return [config, found]
        shards = [repository.get(shard) for shard in index_shards(found)]
        present = [shard for shard in shards if shard is not None]
        if len(present) == len(shards):
            return [config, *present]
    return []


class _Repository:
    """One repository of a hub, at one commit. With `local`, only what is in the cache counts."""

    def __init__(self, repo_id: str, revision: str | None, *, local: bool, size: int | None = None) -> None:
        self.repo_id, self.revision, self.local, self.size = repo_id, revision, local, size
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        # With no TTD_CACHE, models are shared with everything else that uses the hub's own cache.
        self.cache = cache_folder() / "hub" if os.environ.get("TTD_CACHE") else None
        self.fresh: set[Path] = set()
        self.reached = False

    def get(self, name: str) -> Path | None:
        """The local path of a file, None where the repository has no such file."""
        path = self._find(name, local=True)
        if path is None and not self.local:
            path = self._find(name, local=False)
            if path is not None:
                self.fresh.add(path)
        if path is not None and path.parent.parent.name == "snapshots":
            self.revision = path.parent.name  # the rest comes from the same commit
        return path

    def _find(self, name: str, *, local: bool) -> Path | None:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

        try:
            large = name.endswith(WEIGHT_SUFFIXES)
            if not local and (large or not self.reached):
                # The client asks an unreachable hub again and again; this asks once.
                url = hf_hub_url(self.repo_id, name, revision=self.revision, endpoint=self.endpoint)
                size = get_hf_file_metadata(url).size
                self.reached = True
                if large and size is not None:
                    check_space(self._place(), size, f"{self.repo_id}/{name}")
            with disk_errors(self._place()):
                return Path(
                    hf_hub_download(
                        self.repo_id,
                        name,
                        revision=self.revision,
                        cache_dir=self.cache,
                        endpoint=self.endpoint,
                        local_files_only=local,
                    )
                )
        except errors.GatedRepoError as error:
            raise ModelError(
                f"{self.repo_id} asks for its terms to be accepted: do so at {self.endpoint}/{self.repo_id}, "
                "then log in with `hf auth login`"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            if local:
                return None
            raise self._unreachable(error) from error
        except errors.EntryNotFoundError:
            return None
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, ValueError) as error:
            raise ModelError(
                f'{self.endpoint} has no model "{self.repo_id}" that may be read: check its spelling, or log '
                "in with `hf auth login` if it is private"
            ) from error
        except TTDError:
            raise
        except Exception as error:  # the HTTP library below the hub's client changes with its version
            raise self._unreachable(error) from error

    def _place(self) -> Path:
        from huggingface_hub import constants

        return self.cache or Path(constants.HF_HUB_CACHE)

    def check(self, weights: list[Path], expected: str | None) -> None:
        """Hash fresh weights: against the catalogue, else against the name that the hub gives large files."""
        for path in self.fresh.intersection(weights):
            blob = path.resolve().name
            sha256 = expected or (blob if re.fullmatch("[0-9a-f]{64}", blob) else None)
            if sha256:
                check_hash(path, sha256)

    def lacks_everything(self, needed: str) -> str:
        return (
            f"{self.repo_id} at {self.endpoint} holds nothing that can be read here: it needs {needed} "
            "and the weights to it"
        )

    def _unreachable(self, error: Exception) -> ModelError:
        log.debug("download of %s failed", self.repo_id, exc_info=error)
        return ModelError(
            f"{self.repo_id} ({human_size(self.size)}) is not on this machine and could not be downloaded "
            f"from {self.endpoint} ({type(error).__name__}): try again online, or put its files into "
            f"{by_hand_folder(self.repo_id)} by hand; {NEEDS_NONE}"
        )
