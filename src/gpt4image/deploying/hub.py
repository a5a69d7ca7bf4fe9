"""Repositories of the Hugging Face hub: where an exported model can be put."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Generator, Mapping
from pathlib import Path

from gpt4image.base.errors import ExportError, first_line


def require_login() -> None:
    """Check that there is a token and that the hub accepts it. Raises ExportError."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ExportError(
            "--push-to-hub needs a token of the Hugging Face hub that may write: set HF_TOKEN, or give `hf auth login`."
        )
    with _explained("--push-to-hub: check HF_TOKEN or `hf auth login`, and the network"):
        HfApi().whoami()


def push(repository: str, files: Mapping[str, Path], *, message: str, out: Path) -> str:
    """Put files into a model repository as one commit, and return its address. Raises ExportError.

    Args:
        repository: USER/NAME; one that does not exist is made, and is private.
        files: where each file is, by its path in the repository.
        message: of the commit.
        out: where the export is, for the error.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="gpt4image")
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    places = [[str(out)]] if out.is_dir() else [[str(path), name] for name, path in files.items()]
    again = " && ".join(shlex.join(["hf", "upload", "--private", repository, *place]) for place in places)
    with _explained(f"The export is complete on this machine, but not at {repository}: try `{again}`"):
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.create_commit(repository, operations, commit_message=message)
    return str(url)


@contextlib.contextmanager
def _explained(what: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (those of the client and of its HTTP library have no common class)
        raise ExportError(f"{what}. The Hugging Face hub does not answer as it should: {first_line(error)}") from None
