"""Two models share a vocabulary where their tokenizers make the same ids of every text."""

import dataclasses
import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, processors

from jaxalign.data.same_tokenizer import difference
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.iterations import check_same_vocabulary
from jaxalign.recipes.text_models import TextModel
from tests.tiny_models import tiny_policy

ONE = train_bpe(["the film is good, the film is good"], 275)


def changed(change, **fields):
    """The tokenizer with its JSON changed, or some of its fields."""
    written = json.loads(ONE.backend.to_str())
    change(written)
    return dataclasses.replace(ONE, backend=Backend.from_str(json.dumps(written)), **fields)


def swap_merges(written):
    merges = written["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


def swap_ids(written):
    vocab = written["model"]["vocab"]
    names = list(vocab)
    vocab[names[5]], vocab[names[6]] = vocab[names[6]], vocab[names[5]]


def lower_case(written):
    parts = [written["normalizer"], {"type": "Lowercase"}]
    written["normalizer"] = {"type": "Sequence", "normalizers": parts}


def other_pieces(written):
    written["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+|\S+"


def plain_added(written):
    written["added_tokens"].append(
        {
            "id": len(written["model"]["vocab"]),
            "content": "<think>",
            "special": False,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
    )


def other_model(written):
    written["model"]["ignore_merges"] = True


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (changed(swap_merges), "merges"),
        (changed(swap_ids), "tokens: '"),
        (changed(lower_case), "normalizer: "),
        (changed(other_pieces), "pre_tokenizer: "),
        (changed(plain_added), "tokens: '<think>' is none and "),
        (changed(other_model), "model: 'ignore_merges' is False and True"),
        (changed(lambda written: written.update(normalizer=None)), "normalizer: {"),
        (dataclasses.replace(ONE, eos_id=0), "EOS: 2 and 0"),
        (dataclasses.replace(ONE, bos_id=None), "BOS: 1 and None"),
    ],
)
def test_what_makes_other_ids_is_named(other, named):
    assert difference(ONE, other).startswith(named)
    policy, teacher = (dataclasses.replace(tiny_policy(16), tokenizer=x) for x in (ONE, other))
    with pytest.raises(UserError, match="different vocabularies") as error:
        check_same_vocabulary(policy, teacher, "teacher")
    assert "\n" not in str(error.value)


def test_what_makes_no_other_ids_does_not_matter():
    written = Backend.from_str(ONE.backend.to_str())
    written.post_processor = processors.ByteLevel()
    written.decoder = decoders.Fuse()
    written.enable_padding()
    written.enable_truncation(8)
    other = dataclasses.replace(
        ONE, backend=written, pad_id=2, chat_template="x", also_stop=(9,), generation={"top_k": 1}
    )
    assert difference(ONE, other) == "" == difference(ONE, ONE)
    again = dataclasses.replace(ONE, backend=Backend.from_str(ONE.backend.to_str(pretty=True)))
    assert difference(ONE, again) == ""


def test_special_tokens_that_only_the_larger_model_has_room_for_do_not_matter():
    """As <image_soft_token> of Gemma 3, and padding of the logits."""
    size = ONE.vocab_size
    large = Backend.from_str(ONE.backend.to_str())
    large.add_special_tokens(["<image>"])

    def model(tokenizer, vocab_size) -> TextModel:
        given = tiny_policy(16)
        config = dataclasses.replace(given.model.config, vocab_size=vocab_size)
        cloned = given.model.clone(config=config)
        return dataclasses.replace(given, model=cloned, tokenizer=tokenizer)

    teacher = model(dataclasses.replace(ONE, backend=large), size + 1)
    check_same_vocabulary(model(ONE, size), teacher, "teacher")
    check_same_vocabulary(model(ONE, size), model(ONE, size + 64), "reward")
    # the other way round, a sampled <image> would be no row of the reward model
    with pytest.raises(UserError, match="tokens: '<image>' is "):
        check_same_vocabulary(teacher, model(ONE, size), "reward")
    # and where the policy has room but no such token, the ids mean other things
    with pytest.raises(UserError, match="tokens: '<image>' is none and "):
        check_same_vocabulary(model(ONE, size + 64), teacher, "reward")
