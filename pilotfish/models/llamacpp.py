"""GGUF models in this process, through llama.cpp: they answer, stream, score labels and give raw logits.

One :class:`LlamaModel` is a model, a streaming model, a label scorer and a token model. Computing happens
in one worker thread per model, since a context is not thread safe; a cancelled call stops between tokens
(and between batches of 512 while it reads a prompt). Temperature 0 is the default, so that the same
question gets the same answer.

Labels are scored by likelihood in the assistant's turn. ``params["blanks"]`` of a request, a list of
prompts with content-free inputs in place of the real one ("N/A", ""), turns on contextual calibration
(Zhao et al. 2021, in the form of domain-conditional PMI, Holtzman et al. 2021): the label's mean
log-likelihood under the blanks is subtracted. docs/papers.md has the
measurements.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pilotfish.config import Config, Price
from pilotfish.errors import RequestRefused
from pilotfish.models import chat_template, llama_labels
from pilotfish.models.batching import distinct
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.identity import file_identity
from pilotfish.models.llama_cache import Cache, HeldPrompt
from pilotfish.models.llama_runtime import Context, Floats, Grammar, Weights
from pilotfish.models.llama_session import LlamaSession
from pilotfish.models.llama_threads import ThreadChoice
from pilotfish.models.sampling import log_softmax
from pilotfish.models.settings import read_settings
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Chunk, Completion, Request


class LlamaSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of the ``llama.cpp`` backend.

    Attributes:
        name: The name that answers and cache keys carry; default: the file's or catalogue's.
        context: Cells of the cache, shared by the prompt, sessions and label batches; default: what
            the model was trained on, at most 4096. At least 256: one cell for each sequence number.
        threads: Default: cores - 1 for one token; for batches what is faster, that or all cores.
        tolerance: Labels whose likelihoods add up to at most this share of the computed ones are left
            at an upper bound; 0 computes all exactly.
    """

    name: str = ""
    context: Annotated[int, msgspec.Meta(ge=256)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05


class LlamaModel:
    """A GGUF file as a model.

    Args:
        path: The file.
        settings: See :class:`LlamaSettings`.
        price: What its tokens cost; default: nothing, the machine is there anyway.

    Attributes:
        name: The name that answers carry.
        vocab: Number of tokens in the vocabulary.
        identity: What its speed depends on: the file, its size and date, the threads.

    Raises:
        ConfigError: The file cannot be loaded, the context is too large for this machine, or the
            installed library is another build.
    """

    def __init__(
        self,
        path: str | Path,
        settings: LlamaSettings | None = None,
        *,
        price: Price | None = None,
    ) -> None:
        settings = settings or LlamaSettings()
        self.price = price or Price(0.0, 0.0)
        path = Path(path)
        self.name = settings.name or path.stem
        self.tolerance = settings.tolerance
        self.weights = Weights(path)
        self.vocab = self.weights.vocab
        self.identity = file_identity(path, settings.threads)
        threads = ThreadChoice(settings.threads)
        n_ctx = settings.context or min(max(self.weights.trained_context, 256), 4096)
        self._cache = Cache(Context(self.weights, n_ctx, threads))
        self._worker = Worker(self.name, self._cache.lock)
        self._priors: dict[Any, llama_labels.Scores] = {}
        self._end = self._end_of_answer()

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> LlamaModel:
        """Build from a path to a ``.gguf`` file or a name of the catalogue.

        Raises:
            UnknownName: It is neither.
            MissingModel: It is in the catalogue, but was not pulled.
        """
        checked = read_settings("llama.cpp", LlamaSettings, settings)
        if rest.endswith(".gguf") or os.sep in rest:
            path = Path(rest).expanduser()
            name = checked.name or path.stem
        else:
            from pilotfish.models.catalogue import locate

            path, name = locate(rest, config), checked.name or rest
        checked = msgspec.structs.replace(checked, name=name)
        return cls(path, checked, price=config.prices.get(name))

    def _end_of_answer(self) -> int:
        """The token that ends a label."""
        w = self.weights
        if w.chat_template is None:
            # A base model ends a short answer with a new line; it hardly ever ends the text.
            newline = w.tokenize("\n")
            return newline[0] if len(newline) == 1 else w.eos
        text = chat_template.after_answer(
            w.chat_template, bos=w.token_text(w.bos), eos=w.token_text(w.eos)
        )
        return next((t for t in w.tokenize(text, special=True) if w.ends(t)), w.eos)

    def close(self) -> None:
        """Free the memory, after what is under way."""
        self._worker.close()
        self._cache.context.close()
        self.weights.close()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; ``special`` also reads control tokens such as ``<|im_end|>``."""
        return self.weights.tokenize(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for (b"" for control tokens)."""
        return self.weights.token_bytes(token)

    def ends(self, token: int) -> bool:
        """Whether this token ends an answer or the text."""
        return self.weights.ends(token)

    @property
    def opening(self) -> list[int]:
        """What every text begins with, as the model was trained: ``<bos>``, or nothing."""
        return [self.weights.bos] if self.weights.adds_bos else []

    @property
    def context(self) -> int:
        """Tokens that its cache holds, over all sequences."""
        return self._cache.context.n_ctx

    def session(self) -> LlamaSession:
        """Start an empty sequence; all sessions share the context's cells."""
        return self._cache.session()

    def feed_all(
        self,
        sessions: Sequence[LlamaSession],
        tokens: Sequence[Sequence[int]],
        *,
        last: int | None = None,
    ) -> list[Floats]:
        """Feed several of this model's sessions in one batch; see :class:`BatchedTokenModel`."""
        distinct(sessions)
        return self._cache.feed_all(sessions, tokens, last)

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as the model reads it, up to where its answer begins."""
        w = self.weights
        text = chat_template.render(
            w.chat_template, request.messages, bos=w.token_text(w.bos), eos=w.token_text(w.eos)
        )
        tokens = w.tokenize(text, special=w.chat_template is not None)
        if w.adds_bos and tokens[:1] != [w.bos]:
            tokens.insert(0, w.bos)
        if not tokens:
            raise RequestRefused("Got an empty prompt, but expected some text.")
        return tokens

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF)."""
        return self.weights.grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema, by the library's llguidance."""
        return self.weights.json_grammar(schema)

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
        return write(
            self, HeldPrompt(self._cache, self.prompt_tokens, self.price), request, check, emit
        )

    async def score_labels(self, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
        """Log-probability of each label as the answer: ``[n, labels]``, float32, rows normalised.

        The labels are compared by the likelihood of their tokens and the end of the turn after them.
        Labels that together hold at most ``tolerance`` of the mass may carry an upper bound; every
        other probability is exact up to that share.

        Raises:
            RequestRefused: A prompt does not fit the context, or there are no labels.
        """
        if not labels or not all(labels):
            raise RequestRefused(f"Got labels {list(labels)!r:.200}, but expected non-empty texts.")
        return await self._worker.run(
            lambda check: self._score(list(requests), list(labels), check)
        )

    def _score(
        self, requests: list[Request], labels: list[str], check: Callable[[], None]
    ) -> Floats:
        space = " " if self.weights.chat_template is None else ""
        paths = [self.weights.tokenize(space + label) for label in labels]
        if max(map(len, paths)) > self._cache.context.batch // 2:
            raise RequestRefused("A label is longer than half a batch; expected short labels.")
        scores = np.zeros((len(requests), len(labels)), dtype=np.float64)
        for blanks, rows in _by_blanks(requests).items():
            prompts = [self.prompt_tokens(requests[row]) for row in rows]
            prior = self._prior(requests[rows[0]], blanks, labels, paths, check)
            scores[rows] = llama_labels.score(
                self._cache,
                prompts,
                paths,
                self._end,
                prior=prior,
                tolerance=self.tolerance,
                check=check,
            )
        return log_softmax(scores.astype(np.float32))

    def _prior(
        self,
        request: Request,
        blanks: tuple[str, ...],
        labels: Sequence[str],
        paths: Sequence[Sequence[int]],
        check: Callable[[], None],
    ) -> llama_labels.Scores:
        """Mean log-likelihood of each label under the content-free prompts; zeros without any."""
        zeros = np.zeros(len(labels))
        if not blanks:
            return zeros
        key = (blanks, tuple(labels), _system(request))
        if key not in self._priors:
            prompts = [self.prompt_tokens(_with_prompt(request, blank)) for blank in blanks]
            raw = llama_labels.score(
                self._cache, prompts, paths, self._end, prior=zeros, tolerance=0, check=check
            )
            if len(self._priors) >= 64:
                self._priors.clear()
            self._priors[key] = raw.mean(axis=0)
        return self._priors[key]


def _by_blanks(requests: Sequence[Request]) -> dict[tuple[str, ...], list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, request in enumerate(requests):
        groups.setdefault(tuple(request.params.get("blanks") or ()), []).append(row)
    return groups


def _system(request: Request) -> str:
    return json.dumps([m for m in request.messages if m.get("role") != "user"], sort_keys=True)


def _with_prompt(request: Request, prompt: str) -> Request:
    """The request with another text in its last user message."""
    last = max(i for i, m in enumerate(request.messages) if m.get("role") == "user")
    messages = [
        {**m, "content": prompt} if i == last else m for i, m in enumerate(request.messages)
    ]
    return Request(messages=tuple(messages))
