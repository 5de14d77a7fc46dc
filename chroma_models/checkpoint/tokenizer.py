"""A tokenizer made on the spot, with Qwen2.5-Omni's special tokens and a vocabulary one can read aloud."""

import json
from itertools import islice, product
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from chroma_models.errors import CheckpointError

# In Qwen2.5-Omni's order, so that every id sits as far from the first as it does there; then Chroma's own two.
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|text_start|>",
    "<|text_end|>",
)
BYTES = 256  # single-byte tokens, before all others

COMMON = """
a about after again air all also am an and animal answer any are around as ask at away back be because bed been
before began begin below best better big bird blue boat body book both boy bring but by call came can car change
city clear close cold come could cut day did do does done door down draw dry each early earth east eat end enough
even ever every eye face fall far fast feel few field find fire first fish five fly follow food foot for form
found four from full game gave get girl give go gold good got great green ground grow had half hand hard has have
he head hear help her here high him his hold home hot hour house how hundred idea if in inch into is island it
just keep kind king knew know land language large last late laugh lead learn leave left less let letter life
light like line list listen little live long look low made make man many map mark may me mean men might mile mind
miss money moon more morning most mother mountain move much music must my name near need never new next night no
north not note nothing now number of off often oh old on once one only open or order other our out over own page
paper part people perhaps picture piece place plain plan plant play point pull put question quick rain ran reach
read ready real red rest right river road rock room round rule run said same saw say school sea second see seem
sentence set seven she ship short should show side since sing sit six slow small snow so some song soon sound
south speak stand star start state stay step still stood stop story street such sun sure table take talk tell ten
than that the their them then there these they thing think this those thought three through time to today
together told too took top toward town travel tree true try turn two under until up us use very voice walk want
war warm was watch water way we week well went were west what when where which while white who whole why will
wind with wood word work world would write year yes you young your
"""
WORDS = COMMON.split()

CHAT_TEMPLATE = """\
{%- macro turn(role, content) -%}
<|im_start|>{{ role }}
{% if content is string %}{{ content }}{% else %}{% for part in content -%}
{%- if part.type == 'audio' or 'audio' in part or 'audio_url' in part -%}
<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif 'text' in part -%}
{{ part.text }}
{%- endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endmacro -%}
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' %}{{ turn('system', 'You are a helpful assistant.') }}{% endif -%}
{{ turn(message.role, message.content) }}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


def special_ids(base: int) -> dict[str, int]:
    """Ids of the special tokens where the first of them is base (151643 in the published model)."""
    return {token: base + i for i, token in enumerate(SPECIALS)}


def make_tokenizer(folder: Path, base: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja with base ordinary tokens.

    A word the vocabulary knows is one token, everything else its UTF-8 bytes: there are no merges.
    """
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(base), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "audio_token": "<|AUDIO|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _vocabulary(size: int) -> dict[str, int]:
    """All bytes, then words with a space before them, evenly chosen, then made-up words until the size is reached."""
    if size < BYTES:
        raise CheckpointError(f"A byte-level vocabulary has at least {BYTES} tokens, not {size}.")
    count = min(len(WORDS), size - BYTES)
    words = [f"Ġ{WORDS[i * len(WORDS) // count]}" for i in range(count)]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    seen = set(pieces)
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    made_up = (f"Ġ{''.join(word)}" for n in (2, 3) for word in product(syllables, repeat=n))
    pieces += islice((piece for piece in made_up if piece not in seen), size - len(pieces))
    return {piece: i for i, piece in enumerate(pieces)}
