"""Models from a hub: a stand-in serves a tiny CLIP through huggingface_hub's own client."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.encoders.hub_stand_in import COMMIT, StandIn
from tests.tiny_models import small_tokenizer, tiny_clip_model, tiny_sam_model, tiny_siglip_model
from ttd.encoders.loading.catalogue import ModelEntry
from ttd.encoders.loading.hub import by_hand_folder, hub_adapter, hub_model
from ttd.encoders.registry import find_folder
from ttd.errors import ModelError

REPO = "someone/tiny-clip"
CLOSED = "http://127.0.0.1:9"


def publish(hub: StandIn, folder: Path, repo: str = REPO) -> None:
    for path in folder.iterdir():
        hub.files[f"{repo}/{path.name}"] = path.read_bytes()


@pytest.fixture
def published(hub: StandIn, clip_folder: Path) -> StandIn:
    publish(hub, clip_folder)
    return hub


def weights_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth")]


def test_downloads_once(
    published: StandIn, clip_folder: Path, ttd_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_model(REPO)
    assert folder.is_relative_to(ttd_cache / "hub")
    assert folder.name == COMMIT
    for path in clip_folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    asked = len(published.requests)
    assert hub_model(REPO) == folder
    assert len(published.requests) == asked
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert hub_model(REPO) == folder


def test_without_a_cache_of_its_own_it_shares_the_hubs(
    published: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TTD_CACHE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "shared"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert hub_model(REPO).is_relative_to(tmp_path / "shared")
    assert not (tmp_path / "home").exists()


def test_safetensors_before_pickles(published: StandIn) -> None:
    published.files[f"{REPO}/pytorch_model.bin"] = b"not even looked at"
    hub_model(REPO)
    assert not any(path.endswith(".bin") for _, path, _ in published.requests)


def test_pickles_where_there_is_nothing_else(published: StandIn, tmp_path: Path) -> None:
    del published.files[f"{REPO}/model.safetensors"]
    torch.save(tiny_clip_model().state_dict(), tmp_path / "m.bin")
    published.files[f"{REPO}/pytorch_model.bin"] = (tmp_path / "m.bin").read_bytes()
    assert (hub_model(REPO) / "pytorch_model.bin").is_file()


def test_a_refiner_by_hub_id_and_by_folder(hub: StandIn, tmp_path: Path) -> None:
    tiny_sam_model().save_pretrained(tmp_path / "sam")
    publish(hub, tmp_path / "sam", "someone/sam")
    found = find_folder("someone/sam", "refiner", ["sam_hq"])
    assert (found / "model.safetensors").read_bytes() == (tmp_path / "sam/model.safetensors").read_bytes()
    assert find_folder(str(tmp_path / "sam"), "refiner", ["sam_hq"]) == tmp_path / "sam"
    with pytest.raises(ModelError, match=r'unknown refiner "sam-h".*did you mean sam-hq'):
        find_folder("sam-h", "refiner", ["sam_hq"])


def test_shards(hub: StandIn, tmp_path: Path) -> None:
    tiny_clip_model().save_pretrained(tmp_path / "m", max_shard_size="1MB")
    publish(hub, tmp_path / "m")
    found = [sorted(path.name for path in weights_in(folder)) for folder in (hub_model(REPO), tmp_path / "m")]
    assert found[0] == found[1]
    assert len(found[0]) > 1


def test_open_clip_repository_beside_a_foreign_config(hub: StandIn, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "vit_base"}')
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    save_file({"x": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    publish(hub, tmp_path)
    assert (hub_model(REPO) / "open_clip_model.safetensors").is_file()


def test_siglip_in_the_cache_without_a_tokenizer_is_not_complete(hub: StandIn, tmp_path: Path) -> None:
    tiny_siglip_model().save_pretrained(tmp_path / "model")
    publish(hub, tmp_path / "model")
    hub_model(REPO)
    small_tokenizer().save_pretrained(tmp_path / "tokenizer")
    publish(hub, tmp_path / "tokenizer")
    assert (hub_model(REPO) / "tokenizer.json").is_file()


def test_adapter(hub: StandIn, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    publish(hub, tmp_path, "someone/lora")
    assert (hub_adapter("someone/lora") / "adapter_model.safetensors").is_file()
    hub.files["someone/empty/README.md"] = b""
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        hub_adapter("someone/empty")


class TestNotThere:
    def test_closed_port_says_what_to_do(self, ttd_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", CLOSED)
        entry = ModelEntry("clip-vit-b16", "clip", REPO, 599_000_000, "MIT")
        with pytest.raises(ModelError) as error:
            hub_model(REPO, entry)
        said = str(error.value)
        assert "\n" not in said
        for part in (
            REPO,
            "about 599 MB",
            CLOSED,
            str(ttd_cache / "someone--tiny-clip"),
            '"mini" needs no download',
        ):
            assert part in said

    def test_files_put_there_by_hand_are_used(
        self, ttd_cache: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", CLOSED)
        shutil.copytree(clip_folder, by_hand_folder(REPO))
        assert hub_model(REPO) == ttd_cache / "someone--tiny-clip"

    def test_unknown_private_and_gated(self, published: StandIn) -> None:
        for status in (404, 401):
            published.status["someone/secret"] = status
            with pytest.raises(ModelError, match=r"no model .*check its spelling, or log in"):
                hub_model("someone/secret")
        with pytest.raises(ModelError, match="no model"):
            hub_model("someone/--bad..name")

    def test_server_error(self, published: StandIn) -> None:
        published.status[REPO] = 500
        with pytest.raises(ModelError, match="could not be downloaded"):
            hub_model(REPO)

    def test_a_refiner_is_asked_for_once_and_its_size_is_named(
        self, ttd_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", CLOSED)
        folder = re.escape(str(ttd_cache / "syscv-community--sam-hq-vit-base"))
        with pytest.raises(ModelError, match=rf"\(about 379 MB\) is not on this machine .* into {folder}"):
            find_folder("sam-hq", "refiner", ["sam_hq"])
        assert "Retrying" not in caplog.text

    def test_repository_of_something_else(self, hub: StandIn) -> None:
        hub.files[f"{REPO}/config.json"] = b'{"model_type": "bert"}'
        hub.files[f"{REPO}/model.safetensors"] = b"large"
        with pytest.raises(ModelError, match="holds nothing that can be read here"):
            hub_model(REPO)
        with pytest.raises(ModelError, match=r"it needs config\.json \(sam_hq\)"):
            find_folder(REPO, "refiner", ["sam_hq"])
        assert not any(path.endswith("model.safetensors") for _, path, _ in hub.requests)


class TestDamage:
    def test_interrupted_download_is_no_model_and_is_completed(
        self, published: StandIn, ttd_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits before it tries again
        name = f"{REPO}/model.safetensors"
        published.cut[name] = [5000] * 100
        with pytest.raises(ModelError, match="could not be downloaded"):
            hub_model(REPO)
        assert weights_in(ttd_cache) == []
        del published.cut[name]
        assert (hub_model(REPO) / "model.safetensors").read_bytes() == published.files[name]

    def test_content_unlike_the_hubs_own_hash_is_deleted(self, published: StandIn, ttd_cache: Path) -> None:
        name = f"{REPO}/model.safetensors"
        truth, content = published.tag(name), published.files[name]
        published.hashes[name], published.files[name] = truth, content[:-1] + b"\x55"
        with pytest.raises(ModelError, match=r"model\.safetensors has the hash .*has been deleted"):
            hub_model(REPO)
        assert weights_in(ttd_cache) == []
        assert not any(path.stat().st_size == len(content) for path in ttd_cache.rglob("*") if path.is_file())
        published.files[name] = content
        assert (hub_model(REPO) / "model.safetensors").read_bytes() == content

    def test_content_unlike_the_catalogues_hash_is_deleted(self, published: StandIn, ttd_cache: Path) -> None:
        entry = ModelEntry("x", "clip", REPO, None, "MIT", sha256="0" * 64, revision=COMMIT)
        with pytest.raises(ModelError, match=r"where 000000000000\.\.\. was expected"):
            hub_model(REPO, entry)
        assert weights_in(ttd_cache) == []
