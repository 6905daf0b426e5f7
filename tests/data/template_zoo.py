"""Chat templates in the styles of the families that people fine-tune, and tokenizers to run them with.

What a family makes of an answer is written here by hand, apart from any rendering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ftkit.data.sample import Content, Sample, Turn
from tests.tiny import CORPUS

FOLDER = Path(__file__).with_name("templates")
CONTROL = [
    "<|endoftext|>", "<s>", "</s>", "<bos>", "<eos>", "<unk>",
    "<|im_start|>", "<|im_end|>", "<|im_sep|>",
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
    "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>",
    "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<|start|>", "<|channel|>", "<|message|>", "<|return|>",
]  # fmt: skip
# Tokens of their own that a model is meant to write.
ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A template, and what is known of it.

    Attributes:
        name: Of its file.
        eos: The tokenizer's own end token.
        stop: What ends an answer.
        says: The text between a server's prompt and the stop, of the content and the thought of a last answer.
        bos: None where the tokenizer has none.
        head: Written in front of the template's text.
        system: Whether a system turn is allowed.
        thinks: Whether answers may have ``reasoning_content``.
        calls: Whether tools may be given and called.
        each: Whether a conversation of several answers becomes one sequence an answer.
    """

    name: str
    eos: str
    stop: str
    says: Callable[[str, str], str] = lambda content, thought: content
    bos: str | None = None
    head: str = ""
    system: bool = True
    thinks: bool = False
    calls: bool = False
    each: bool = False

    @property
    def template(self) -> str:
        return self.head + template(self.name)

    def tokenizer(self) -> Any:
        return zoo_tokenizer(self.template, eos=self.eos, bos=self.bos)


def template(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def _strip(content: str, thought: str) -> str:
    return content.strip()


def _strip_lines(content: str, thought: str) -> str:
    return content.lstrip("\n")


def _qwen3(content: str, thought: str) -> str:
    newline = "\n"
    return f"<think>\n{thought.strip(newline)}\n</think>\n\n{content.lstrip(newline)}"


def _harmony(content: str, thought: str) -> str:
    final = f"<|channel|>final<|message|>{content}"
    return f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant{final}" if thought else final


QUIET = "{%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %}\n"
IM_END, WIDE_EOS = "<|im_end|>", "<｜end▁of▁sentence｜>"
CHATBOT_END = "<|END_OF_TURN_TOKEN|>"
FAMILIES = {
    family.name + ("_quiet" if family.head else ""): family
    for family in [
        Family(name="chatml", eos=IM_END, stop=IM_END),
        Family(name="llama3", eos="<|eot_id|>", stop="<|eot_id|>", bos="<|begin_of_text|>", says=_strip, calls=True),
        Family(name="gemma", eos="<eos>", stop="<end_of_turn>", bos="<bos>", says=_strip, system=False),
        Family(name="mistral", eos="</s>", stop="</s>", bos="<s>", says=lambda content, thought: " " + content),
        Family(name="qwen3", eos=IM_END, stop=IM_END, says=_qwen3, thinks=True, calls=True, each=True),
        Family(name="qwen3", head=QUIET, eos=IM_END, stop=IM_END, says=_strip_lines, each=True),
        Family(name="phi3", eos="<|endoftext|>", stop="<|end|>"),
        Family(name="phi4", eos=IM_END, stop=IM_END),
        Family(name="zephyr", eos="</s>", stop="</s>"),
        Family(name="deepseek_r1", eos=WIDE_EOS, stop=WIDE_EOS, bos="<｜begin▁of▁sentence｜>"),
        Family(name="command_r", eos=CHATBOT_END, stop=CHATBOT_END, bos="<s>", says=_strip),
        Family(name="harmony", eos="<|return|>", stop="<|return|>", says=_harmony, thinks=True, each=True),
        Family(name="marked", eos=IM_END, stop=IM_END),
        Family(name="bad_marks_without_stop", eos=IM_END, stop=IM_END),
        Family(name="bad_shouts", eos=IM_END, stop=IM_END),
        Family(name="bad_strips_answers", eos=IM_END, stop=IM_END, says=_strip),
    ]
}


@cache
def _byte_level() -> str:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=440, special_tokens=CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return str(raw.to_str())


def zoo_tokenizer(text: str | dict[str, str] | None, *, eos: str = "<|im_end|>", bos: str | None = None) -> Any:
    """A byte-level BPE that has every family's control tokens."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_byte_level()), eos_token=eos, bos_token=bos, pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = text
    return tokenizer


@cache
def _raw_of(kind: str) -> str:
    """Tokenizers of other kinds, with the tokens of ChatML and Llama 2."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted({*"".join(CORPUS), "\n", "▁", *"[]/<|>_-'ABCDEFGHIJKLMNOPQRSTUVWXYZ"} - {" "})
    if kind == "wordpiece":
        raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
        raw.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
        )
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "unigram":
        raw = Tokenizer(models.Unigram())
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        raw.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet
        )
    elif kind == "byte_level_prefix_space":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    else:
        raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        if kind == "llama2":  # as the converter of SentencePiece models wrote it
            raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        elif kind == "gemma":
            raw.normalizer = normalizers.Replace(" ", "▁")
            raw.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        else:
            raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        raw.decoder = decoders.Replace("▁", " ")
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(CORPUS, trainer)
    return str(raw.to_str())


KINDS = ["wordpiece", "unigram", "byte_level_prefix_space", "llama2", "gemma", "metaspace_first"]


def tokenizer_of(kind: str, text: str | None = None, *, strips_behind: bool = False) -> Any:
    """A tokenizer of another kind; `strips_behind`: its <|im_start|> takes the white space behind it, as in Phi-3."""
    raw = Tokenizer.from_str(_raw_of(kind))
    if strips_behind:
        raw.add_special_tokens([AddedToken("<|im_start|>", special=True, normalized=False, rstrip=True)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", bos_token="<s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.chat_template = text
    return tokenizer


# Conversations

PIECES = [
    "yo",
    " ",
    "\n",
    "\n\n",
    "how?",
    "🙂",
    "漢字",
    "é",
    "us",
    "er",
    "assistant",
    "<",
    "|>",
    "12",
    "{",
    '"',
    "\t",
    "a b",
]
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
).filter(lambda text: text.strip() and not any(token in text for token in [*CONTROL, *ADDED]))
TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Find an order <b>by number</b>.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
}
CALL = {"tool_calls": [{"type": "function", "function": {"name": "find_order", "arguments": {"number": "L1"}}}]}


@st.composite
def conversations(draw: st.DrawFn, family: Family) -> Sample:
    """A valid conversation for a family: perhaps a system turn, questions and answers, thoughts, a call."""
    turns = [Turn(role="system", content=draw(texts))] if family.system and draw(st.booleans()) else []
    tools = (TOOL,) if family.calls and draw(st.booleans()) else ()
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Turn(role="user", content=draw(texts)))
        if tools and draw(st.booleans()):
            turns.append(Turn(role="assistant", content="", fields=CALL))
            turns.append(Turn(role="tool", content=draw(texts), fields={"name": "find_order"}))
        thought = draw(texts) if family.thinks and draw(st.booleans()) else ""
        fields = {"reasoning_content": thought} if thought else {}
        turns.append(Turn(role="assistant", content=draw(texts), fields=fields))
    return Sample(content=Content(turns=tuple(turns), tools=tools), kind="chat", place="rows.jsonl:1")
