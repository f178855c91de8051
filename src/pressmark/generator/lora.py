"""LoRA through peft: small matrices beside a backbone's frozen ones, and new token rows that train whole.

`modules_to_save` of the embedding would train a copy that T5's encoder and decoder do not look at, since each
keeps an embedding module of its own under one weight. `trainable_token_indices` follows such ties.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from pressmark.generator.config import LoraConfig

ADAPTER = "adapter_model.safetensors"


def with_lora(model: Any, config: LoraConfig, new_rows: list[int]) -> Any:
    """A `PeftModel` around a backbone: LoRA everywhere, `new_rows` of its vocabulary trained whole."""
    import peft

    rows = {_name(model, model.get_input_embeddings()): new_rows}
    if not is_tied(model):
        rows[_name(model, model.get_output_embeddings())] = new_rows
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules="all-linear",
        trainable_token_indices=rows,
        task_type="SEQ_2_SEQ_LM",
    )
    with _ties_shown(model):
        return peft.get_peft_model(model, settings)


def with_adapter(model: Any, folder: Path) -> Any:
    """A backbone with a saved adapter merged into it.

    Raises:
        ValueError: If the adapter does not fit.
    """
    from peft import PeftModel

    if not (folder / ADAPTER).is_file():
        raise ValueError(f"{folder / ADAPTER} is missing: the adapter was not saved whole. Train it again.")
    try:
        with _ties_shown(model):
            adapted: Any = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{folder}: the adapter does not fit its base ({error}). Train it again.") from error
    return adapted.merge_and_unload()


def merged(model: nn.Module) -> Any:
    """The backbone with what LoRA learnt in its own weights, as a copy; a model without LoRA as it is."""
    if not hasattr(model, "merge_and_unload"):
        return model
    copied: Any = copy.deepcopy(model)
    return copied.merge_and_unload()


def is_tied(model: Any) -> bool:
    """Whether the output head is the embedding, by the weights: transformers 5 calls every T5 tied."""
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def _name(model: Any, module: nn.Module) -> str:
    return next(name for name, one in model.named_modules() if one is module)


@contextlib.contextmanager
def _ties_shown(model: Any) -> Iterator[None]:
    """Has peft see which modules share the embedding, the encoder's and the decoder's among them.

    It asks the configuration, which knows one answer for those and for the head.
    """
    tied, head = is_tied(model), _name(model, model.get_output_embeddings())
    before = model.config.tie_word_embeddings
    model.config.tie_word_embeddings = True
    if not tied:
        keys = model._tied_weights_keys
        model._tied_weights_keys = {at: of for at, of in keys.items() if not at.startswith(f"{head}.")}
    try:
        with warnings.catch_warnings():
            # peft asks for a name that transformers has changed.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        model.config.tie_word_embeddings = before
