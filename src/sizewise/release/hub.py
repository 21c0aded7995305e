"""Upload to the hub, with care for what is private."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sizewise.errors import ModelError


def push(folder: Path, repo_id: str, private: bool = True, api: Any = None) -> str:
    """Upload an export to ``owner/name`` (``repo_id``) and return its address.

    Private weights are never pushed into an existing public repository. ``api`` is a
    ``huggingface_hub.HfApi`` (default: one with the stored login).

    Raises:
        ModelError: nobody is logged in, the hub is out of reach, or the repository is public.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = api or HfApi()
    try:
        api.whoami()
        try:
            exists, public = True, not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            exists, public = False, False
        if private and exists and public:
            raise ModelError(
                f"push_to={repo_id} is an existing public repository and private=true. "
                "Name another repository, or say private=false to publish."
            )
        if not exists:
            api.create_repo(repo_id, private=private, repo_type="model")
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"push_to={repo_id} failed ({type(error).__name__}: {error}). Log in with "
            f"`hf auth login` and check the network; the export itself is in {folder}."
        ) from error
