"""An adapter onto a hub, as its ecosystem expects it: adapter, model card, and the base's fingerprint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ttd.encoders.folders import ADAPTER_WEIGHTS
from ttd.encoders.folders import CARD as BASE_CARD
from ttd.errors import InputError
from ttd.training.card import CARD, write_model_card

FILES = ("adapter_config.json", ADAPTER_WEIGHTS[0], BASE_CARD, CARD)


def check_hub(repo: str) -> None:
    """Make sure, before anything is trained, that `push_to_hub` will find a hub, a user, and a name that may be.

    The hub is $HF_ENDPOINT, the user's token $HF_TOKEN or what `hf auth login` saved.

    Raises:
        InputError: one of them is missing.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in its list

    try:
        validate_repo_id(repo)
    except errors.HFValidationError:
        raise InputError(f"{repo!r} is no name of a repository: write it as user/name") from None
    with _told(repo):
        _api().whoami()


def push_to_hub(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a finished adapter, whose card then names the repository; made where it is not there yet.

    Args:
        folder: of `ttd train`.
        repo: "user/name".
        private: of a repository that is made.

    Returns:
        the address of the upload.

    Raises:
        InputError: the folder holds no adapter, or the hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if missing := [name for name in FILES[:2] if not (folder / name).is_file()]:
        raise InputError(f"{folder} holds no finished adapter ({missing[0]} is missing): train it first")
    write_model_card(folder, repo)
    api = _api()
    with _told(repo, folder):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="Adapter trained with TTD"
        )
    return str(getattr(commit, "commit_url", None) or f"{api.endpoint}/{repo}")


def _api() -> Any:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise InputError("a hub's upload needs a user: log in with `hf auth login`, or set HF_TOKEN")
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, token=token)


@contextmanager
def _told(repo: str, folder: Path | None = None) -> Iterator[None]:
    """Errors of the hub as one sentence; what was trained is never lost by them."""
    from huggingface_hub import errors

    kept = f"; the adapter is in {folder}, and the same command tries again" if folder else ""
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        reason = "does not accept this token" if status in (401, 403) else f"answered {status}"
        raise InputError(f"the hub {reason} for {repo}: check its name and the token's rights{kept}") from error
    except InputError:
        raise
    except Exception as error:  # the HTTP library below the hub's client changes with its version
        raise InputError(
            f"the hub cannot be reached ({type(error).__name__}): go online, or leave --push-to-hub out{kept}"
        ) from error
