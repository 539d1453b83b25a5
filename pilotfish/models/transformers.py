"""Token models run by the ``transformers`` library on torch, on a CPU or a GPU.

For weights that llama.cpp cannot read, for float32, and for machines where reading many tokens at once
costs hardly more than one. A model is a folder as ``save_pretrained`` writes it, or a GGUF file, whose
weights are dequantised. Nothing is downloaded and no code from a folder is run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models import chat_template
from pilotfish.models.batching import distinct
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.guidance import Guide
from pilotfish.models.held import Held, HeldSource
from pilotfish.models.identity import file_identity
from pilotfish.models.logit_lens import layer_logits
from pilotfish.models.protocols import Floats, Grammar
from pilotfish.models.settings import read_settings
from pilotfish.models.torch_cache import TransformersSession, feed_all
from pilotfish.models.trimmed_head import trim_head
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Chunk, Completion, Request

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TransformersSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of the ``transformers`` backend.

    Attributes:
        name: The name that answers carry; default: the folder's or file's.
        device: ``"cpu"``, ``"cuda"``, ...; default: a GPU where there is one.
        dtype: Of the weights while they compute; logits are always float32.
        threads: Of torch, for the whole process; default: torch's own.
        context: Tokens at most; default: what the model was trained on.
    """

    name: str = ""
    device: str = ""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    context: Annotated[int, msgspec.Meta(ge=16)] | None = None


class TransformersModel:
    """A causal language model of the ``transformers`` library.

    Args:
        path: A folder, or a GGUF file.
        settings: See :class:`TransformersSettings`.
        price: What its tokens cost; default: nothing, the machine is there anyway.

    Attributes:
        name: The name that answers carry.
        vocab: Rows of the output layer, those that only pad it included.
        identity: What its speed depends on: the file, its size and date, the device, dtype and threads.
        at_once: How many tokens are best scored in one call.

    Raises:
        ConfigError: The library cannot load it.
    """

    at_once = 1024

    def __init__(
        self,
        path: str | Path,
        settings: TransformersSettings | None = None,
        *,
        price: Price | None = None,
    ) -> None:
        settings = settings or TransformersSettings()
        path = Path(path)
        self.path = path
        self.name = settings.name or path.stem
        self.price = price or Price(0.0, 0.0)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        where: dict[str, Any] = {"local_files_only": True}
        folder = path
        if path.suffix == ".gguf":
            folder, where["gguf_file"] = path.parent, path.name
        with _quietly(path):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **where)
            network = AutoModelForCausalLM.from_pretrained(
                folder, dtype=_DTYPES[settings.dtype], **where
            )
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.vocab = int(self.network.get_output_embeddings().weight.shape[0])
        trim_head(self.network, path)
        trained = int(getattr(self.network.config, "max_position_embeddings", 4096))
        self.context = min(settings.context or trained, trained)
        where_it_runs = (str(self.device), settings.dtype, torch.get_num_threads())
        self.identity = file_identity(path, *where_it_runs)
        self._bytes = _token_bytes(self.tokenizer, self.vocab)
        self._ends = _ends(self.tokenizer, self.network)
        self._worker = Worker(self.name)
        self._held: Held | None = None

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> TransformersModel:
        """Build from a folder, a ``.gguf`` file, or a name of the catalogue.

        Raises:
            UnknownName: It is none of these.
            MissingModel: It is in the catalogue, but was not pulled.
        """
        checked = read_settings("transformers", TransformersSettings, settings)
        path = Path(rest).expanduser()
        name = checked.name or path.stem
        if not path.exists():
            from pilotfish.models.catalogue import locate

            path, name = locate(rest, config), checked.name or rest
        checked = msgspec.structs.replace(checked, name=name)
        return cls(path, checked, price=config.prices.get(name))

    def close(self) -> None:
        """End the thread, after what is under way."""
        self._worker.close()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; ``special`` also reads control tokens such as ``<|im_end|>``."""
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)
        return [int(token) for token in found["input_ids"]]

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for (b"" for control tokens and padding)."""
        if not 0 <= token < self.vocab:
            raise RequestRefused(f"Got token {token}, but expected one in [0, {self.vocab}).")
        return self._bytes[token]

    def ends(self, token: int) -> bool:
        """Whether this token ends an answer or the text."""
        return token in self._ends

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as the model reads it, up to where its answer begins."""
        bos, eos = (self.tokenizer.bos_token or "", self.tokenizer.eos_token or "")
        template = self.tokenizer.chat_template
        text = chat_template.render(template, request.messages, bos=bos, eos=eos)
        tokens, opening = self.tokenize(text, special=template is not None), self.opening
        if tokens[: len(opening)] != opening:
            tokens = opening + tokens
        if not tokens:
            raise RequestRefused("Got an empty prompt, but expected some text.")
        return tokens

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF)."""
        return self._guide.grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema, by llguidance."""
        return self._guide.json_grammar(schema)

    @functools.cached_property
    def _guide(self) -> Guide:
        return Guide(self._bytes, self._ends, self.tokenize)

    @property
    def opening(self) -> list[int]:
        """What every text begins with, as the model was trained: ``<bos>``, or nothing."""
        ids = self.tokenizer("")["input_ids"]
        return [int(token) for token in ids if token == self.tokenizer.bos_token_id]

    def session(self) -> TransformersSession:
        """Start an empty sequence, with a cache of its own."""
        return TransformersSession(self, [], DynamicCache())

    def feed_all(
        self,
        sessions: Sequence[TransformersSession],
        tokens: Sequence[Sequence[int]],
        *,
        last: int | None = None,
    ) -> list[Floats]:
        """Feed several of this model's sessions in one pass; see :class:`BatchedTokenModel`."""
        distinct(sessions)
        return feed_all(self, sessions, tokens, last)

    def layer_logits(self, tokens: Sequence[int], of: Sequence[int], *, last: int = 1) -> Floats:
        """What every layer would say; see :func:`pilotfish.models.logit_lens.layer_logits`."""
        return layer_logits(self, tokens, of, last)

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            RequestRefused: A parameter or message cannot be used, or it does not fit the context.
        """
        return await self._worker.run(lambda check: self._write(request, check, NOTHING))

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece; the last chunk carries the whole completion."""
        return self._worker.stream(lambda check, emit: self._write(request, check, emit))

    def _write(self, request: Request, check: Check, emit: Emit) -> Completion:
        self._held = self._held or Held(self)
        return write(self, HeldSource(self._held), request, check, emit)


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[None]:
    shown, bar = logging.is_progress_bar_enabled(), modeling_gguf_pytorch_utils.tqdm
    logging.disable_progress_bar()  # else a bar for each model, terminal or not
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors  # one that asks nobody
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise ConfigError(
            f"transformers cannot load {path}: {type(error).__name__}: {error}"
        ) from error
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
        if shown:
            logging.enable_progress_bar()


def _ends(tokenizer: Any, network: Any) -> frozenset[int]:
    """Tokens that end an answer: the files' own, and what the template writes after a turn."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    configured = network.generation_config.eos_token_id
    ends |= set(configured if isinstance(configured, list) else [configured])
    if tokenizer.chat_template:
        after = chat_template.after_answer(
            tokenizer.chat_template, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token or ""
        )
        special = set(tokenizer.all_special_ids)
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        ends |= {token for token in first if token in special}
    return frozenset(int(token) for token in ends if token is not None)


def _token_bytes(tokenizer: Any, vocab: int) -> list[bytes]:
    """What each token stands for; the vocabulary writes bytes in one of two alphabets."""
    special = set(tokenizer.all_special_ids) | {
        token for token, added in tokenizer.added_tokens_decoder.items() if added.special
    }
    names = tokenizer.convert_ids_to_tokens(list(range(min(vocab, len(tokenizer)))))
    letters = _byte_letters() if _is_byte_level(tokenizer) else None
    found = []
    for token, name in enumerate(names):
        if token in special or name is None:
            found.append(b"")
        elif letters is not None:
            whole = all(letter in letters for letter in name)
            found.append(bytes(letters[c] for c in name) if whole else name.encode())
        elif len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            found.append(bytes([int(name[3:5], 16)]))
        else:
            found.append(name.replace("\u2581", " ").encode())
    return found + [b""] * (vocab - len(found))


def _is_byte_level(tokenizer: Any) -> bool:
    import json

    decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder") or {}
    kinds = {decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", []))}
    return "ByteLevel" in kinds


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter of each byte (Radford et al. 2019), read backwards."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): b for i, b in enumerate(hidden)}
