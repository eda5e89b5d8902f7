"""One real training step on each kind of config, as TRL takes it. Needs the group `train`."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from prequery import Magpie
from prequery.options import Options
from scripted_tgi import ScriptedTgi, recipe_text, words

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.train,
    # What these libraries warn of among themselves is not ours to mend.
    pytest.mark.filterwarnings("default"),
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def wordy(prompt: str, seed: int | None) -> str:
    return words(prompt, seed) + " Indeed." * ((seed or 0) % 3)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Build a recipe with these lines changed, and load it as a consumer does."""
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = tmp_path / "scripted.yaml"

    with ScriptedTgi(say=wordy).serving() as server:

        def build(**changed: str) -> Dataset:
            recipe.write_text(recipe_text(**changed))
            builder = Magpie(recipe, options=Options(endpoints=(server.url,)))
            builder.download_and_prepare(tmp_path / "out", file_format="parquet")
            cache = str(tmp_path / "cache")
            return load_dataset(str(tmp_path / "out"), "scripted", split="train", cache_dir=cache)

        yield build


def small_model(rows: Dataset) -> tuple[Any, Any]:
    """Return a model of one layer with random weights, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>"]
    texts = [*rows["instruction"], *rows["response"], "user assistant system"]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special))
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )
    config = transformers.LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=wrapped.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config), wrapped


def one_step(tmp_path: Path, kind: Any) -> Any:
    return kind(
        output_dir=str(tmp_path / "trained"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        max_length=256,
        bf16=False,
        activation_checkpointing=False,
    )


def test_the_sft_trainer_takes_messages_as_they_are(built: Any, tmp_path: Path) -> None:
    rows = built(turns="2", rows="8")
    model, tokenizer = small_model(rows)

    trainer = trl.SFTTrainer(
        model=model,
        args=one_step(tmp_path, trl.SFTConfig),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    result = trainer.train()

    trained = tokenizer.decode(trainer.train_dataset[0]["input_ids"])
    assert result.global_step == 1
    assert result.training_loss > 0
    assert trained.count("<|im_start|>") == 4


def test_the_dpo_trainer_takes_preferences_as_they_are(built: Any, tmp_path: Path) -> None:
    rows = built(
        rows="8",
        responses="{temperature: 0.8, max_new_tokens: 128}",
        preference="{responses: 4, score: response_words}",
    )
    model, tokenizer = small_model(rows)

    trainer = trl.DPOTrainer(
        model=model,
        ref_model=deepcopy(model),
        args=one_step(tmp_path, trl.DPOConfig),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    result = trainer.train()

    assert result.global_step == 1
    assert result.training_loss > 0
    assert len(trainer.train_dataset) == 8
