"""Whether the hub of timm's weights can be reached, answered at once."""

from __future__ import annotations

from mixbench.errors import reason

FILES = ("model.safetensors", "pytorch_model.bin")  # either holds a model's weights
SECONDS = 3.0


def reach_hub(repository: str | None) -> None:
    """ConnectionError where the hub cannot be reached and nothing of the repository is cached.

    Its download would retry both files for a minute. None is a model without a repository.
    """
    import huggingface_hub as hub
    from huggingface_hub.utils import HfHubHTTPError

    repository, _, revision = (repository or "").partition("@")
    if not repository or any(
        isinstance(hub.try_to_load_from_cache(repository, file, revision=revision or None), str)
        for file in FILES
    ):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "config.json"), timeout=SECONDS)
    except HfHubHTTPError:  # it answers: the download says what is wrong
        return
    except Exception as error:  # of whichever library the hub's client speaks HTTP with
        raise ConnectionError(
            f"{hub.constants.ENDPOINT} is out of reach: {reason(error)}"
        ) from None
