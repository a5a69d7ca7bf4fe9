"""Repositories of the Hugging Face hub: where an exported model can be put."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpt4image.errors import ExportError
from gpt4image.hugging_face import first_line


def require_login() -> None:
    """Check that there is a token and that the hub accepts it. Raises ExportError."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise ExportError(
            "--push-to-hub needs a token of the Hugging Face hub that may write: set HF_TOKEN, or give `hf auth login`."
        )
    try:
        HfApi().whoami()
    except (HfHubHTTPError, OSError) as error:
        raise ExportError(
            f"--push-to-hub: the Hugging Face hub does not accept the token, or does not answer ({first_line(error)}); "
            "check HF_TOKEN or `hf auth login`, and the network."
        ) from None


def push(repository: str, files: Mapping[str, Path], *, message: str) -> str:
    """Put files into a model repository as one commit, and return its address.

    Args:
        repository: USER/NAME; one that does not exist is made, and is private.
        files: where each file is, by its path in the repository.
        message: of the commit.

    Raises:
        ExportError: the hub refuses or does not answer.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="gpt4image")
    try:
        url = api.create_repo(repository, private=True, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
        api.create_commit(repository, operations, commit_message=message)
    except (HfHubHTTPError, OSError) as error:
        raise ExportError(
            f"--push-to-hub {repository}: the Hugging Face hub does not take it ({first_line(error)}). The export is "
            f"complete on this machine; try again with `hf upload {repository}`."
        ) from None
    return str(url)
