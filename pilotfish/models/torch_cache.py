"""Sequences of a network of the ``transformers`` library, each with its keys and values.

A session's keys and values are never written in place: appending makes new tensors, forgetting makes
shorter views. So a fork shares them with the session it came from, and one that was interrupted is as
it was. Several sessions are fed in one call by padding: what they hold on the left, what is new on the
right, with a mask over both and each token's own position. A tree of tokens is fed in one call by a mask
under which a token sees its session and the tokens that lead to it, and no others (Miao et al. 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pilotfish.errors import RequestRefused
from pilotfish.models.batching import check_rewind
from pilotfish.models.protocols import Floats

if TYPE_CHECKING:
    from pilotfish.models.transformers import TransformersModel

_AT_ONCE = 1024  # new tokens, padding included, of one forward pass over several sessions


class TransformersSession:
    """One sequence of tokens; see :class:`pilotfish.models.protocols.Session`."""

    def __init__(self, model: TransformersModel, tokens: list[int], cache: DynamicCache) -> None:
        self._model = model
        self._tokens = tokens
        self._cache = cache
        self._tree: list[int] = []  # the nodes whose keys and values follow those of the tokens

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens fed so far."""
        return self._tokens

    @property
    def room(self) -> int:
        """How many further tokens fit the context."""
        return self._model.context - len(self._tokens)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append tokens; raw logits after each of them, or of the ``last``, ``[n, vocab]``, float32.

        Raises:
            RequestRefused: They do not fit; the session is as it was before.
        """
        model = self._model
        self._check_room(len(tokens))
        wanted = len(tokens) if last is None else min(last, len(tokens))
        if not len(tokens):
            return np.zeros((0, model.vocab), np.float32)
        cache = _sharing(self._cache)
        with torch.inference_mode():
            out = model.network(
                input_ids=torch.tensor([list(tokens)], device=model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=max(wanted, 1),
            )
            rows = out.logits[0].float().cpu().numpy()
        self._cache = cache
        self._tokens.extend(int(token) for token in tokens)
        return np.asarray(rows[len(rows) - wanted :], np.float32)

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens.

        Raises:
            RequestRefused: There are fewer.
        """
        check_rewind(length, len(self._tokens))
        if self._tree:
            self.keep([])
        extra = len(self._tokens) - length
        if not length:
            self._cache = DynamicCache()
        elif extra:
            self._cache.crop(-extra)
        del self._tokens[length:]

    def fork(self) -> TransformersSession:
        """A second session with the same past; the cache is shared until one of them grows."""
        return TransformersSession(self._model, list(self._tokens), _sharing(self._cache))

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> Floats:
        """Raw logits after each token of a tree; see :class:`pilotfish.models.protocols.TreeSession`.

        Raises:
            RequestRefused: It does not fit.
        """
        model, n, past = self._model, len(tokens), len(self._tokens)
        self._check_room(n)
        seen = np.zeros((n, past + n), dtype=bool)
        depth = np.zeros(n, dtype=np.int64)
        for i, parent in enumerate(parents):
            seen[i, :past] = True
            if parent >= 0:
                seen[i], depth[i] = seen[parent], depth[parent] + 1
            seen[i, past + i] = True
        cache = _sharing(self._cache)
        with torch.inference_mode():
            out = model.network(
                input_ids=torch.tensor([list(tokens)], device=model.device),
                attention_mask=self._masks(seen, past + depth),
                position_ids=torch.from_numpy(past + depth)[None].to(model.device),
                past_key_values=cache,
                use_cache=True,
            )
            rows = out.logits[0].float().cpu().numpy()
        self._cache, self._tree = cache, [int(token) for token in tokens]
        return np.asarray(rows, np.float32)

    def keep(self, path: Sequence[int]) -> None:
        """Append one path of the tree that was read, and forget the rest."""
        past, n = len(self._tokens), len(path)
        if list(path) == list(range(n)):
            if n < len(self._tree):
                self._cache.crop(n - len(self._tree))
        else:
            places = [*range(past), *(past + node for node in path)]
            index = torch.tensor(places, device=self._model.device)
            pairs = [
                (layer.keys.index_select(2, index), layer.values.index_select(2, index))
                for layer in self._cache.layers
            ]
            self._cache = _holding(pairs)
        self._tokens.extend(self._tree[node] for node in path)
        self._tree = []

    def _masks(self, seen: NDArray[np.bool_], position: NDArray[np.int64]) -> Any:
        """What the network takes as a mask of its own: added to the scores, ``[1, 1, n, past + n]``."""
        config, dtype = self._model.network.config.get_text_config(), self._model.network.dtype

        def added(visible: NDArray[np.bool_]) -> torch.Tensor:
            mask = torch.zeros(visible.shape, dtype=dtype)
            mask.masked_fill_(~torch.from_numpy(visible), torch.finfo(dtype).min)
            return mask[None, None].to(self._model.device)

        kinds = set(getattr(config, "layer_types", None) or ())
        if kinds <= {"full_attention"}:
            return added(seen)
        past = seen.shape[1] - seen.shape[0]
        place = np.concatenate([np.arange(past), position])
        near = position[:, None] - place[None] < config.sliding_window
        return {"full_attention": added(seen), "sliding_attention": added(seen & near)}

    def _check_room(self, n: int) -> None:
        if n > self.room:
            raise RequestRefused(
                f"The context of {self._model.context} tokens is full.",
                remedy="Shorten the input, or set a longer context.",
            )


def feed_all(
    model: TransformersModel,
    sessions: Sequence[TransformersSession],
    tokens: Sequence[Sequence[int]],
    last: int | None,
) -> list[Floats]:
    """See :meth:`pilotfish.models.protocols.BatchedTokenModel.feed_all`.

    Sessions of similar length go together, so that little is padded; groups that were done stay done when
    a later one is interrupted.
    """
    for session, new in zip(sessions, tokens, strict=True):
        session._check_room(len(new))
    found: list[Floats] = [np.zeros((0, model.vocab), np.float32)] * len(sessions)
    order = sorted((len(new), i) for i, new in enumerate(tokens) if len(new))
    while order:
        longest = order[-1][0]
        fit = max(1, _AT_ONCE // longest)
        group = [i for _, i in order[-fit:]]
        del order[-fit:]
        if len(group) == 1:
            found[group[0]] = sessions[group[0]].feed(tokens[group[0]], last=last)
            continue
        rows = _feed_group(model, [sessions[i] for i in group], [tokens[i] for i in group], last)
        for i, row in zip(group, rows, strict=True):
            found[i] = row
    return found


def _feed_group(
    model: TransformersModel,
    sessions: Sequence[TransformersSession],
    tokens: Sequence[Sequence[int]],
    last: int | None,
) -> list[Floats]:
    """One forward pass; each session gets at least one token."""
    past = [len(session.tokens) for session in sessions]
    new = [len(some) for some in tokens]
    before, width = max(past), max(new)
    ids = np.zeros((len(sessions), width), np.int64)
    mask = np.zeros((len(sessions), before + width), np.int64)
    for i, some in enumerate(tokens):
        ids[i, : new[i]] = some
        mask[i, before - past[i] : before + new[i]] = 1
    positions = np.minimum(
        np.asarray(past)[:, None] + np.arange(width), np.asarray(past)[:, None] + np.c_[new] - 1
    )
    wanted = [n if last is None else min(last, n) for n in new]
    places = sorted({at for n, w in zip(new, wanted, strict=True) for at in range(n - w, n)})
    cache = _padded([session._cache for session in sessions], past)
    with torch.inference_mode():
        out = model.network(
            input_ids=torch.from_numpy(ids).to(model.device),
            attention_mask=torch.from_numpy(mask).to(model.device),
            position_ids=torch.from_numpy(positions).to(model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(places or [0], device=model.device),
        )
        logits = out.logits.float().cpu().numpy()
    found = []
    for i, session in enumerate(sessions):
        part = slice(before - past[i], before + new[i])
        session._cache = _cut(cache, i, part)
        session._tokens.extend(int(token) for token in tokens[i])
        rows = np.searchsorted(places, np.arange(new[i] - wanted[i], new[i]))
        found.append(np.asarray(logits[i, rows], np.float32))
    return found


def _sharing(cache: DynamicCache) -> DynamicCache:
    """Another cache of the same tensors."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def _holding(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache of these keys and values, a pair for each layer."""
    cache = DynamicCache()
    for keys, values in pairs:
        layer = DynamicLayer()
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


def _padded(caches: Sequence[DynamicCache], past: Sequence[int]) -> DynamicCache:
    """One cache with a row for each of these, filled up with zeros on the left."""
    longest = max(past)
    if not longest:
        return DynamicCache()
    full = caches[int(np.argmax(past))]

    def together(at: int, name: str) -> torch.Tensor:
        like = getattr(full.layers[at], name)
        rows = like.new_zeros((len(caches), *like.shape[1:]))
        for i, (cache, length) in enumerate(zip(caches, past, strict=True)):
            if length:
                rows[i, :, longest - length :] = getattr(cache.layers[at], name)[0]
        return rows

    return _holding([(together(i, "keys"), together(i, "values")) for i in range(len(full.layers))])


def _cut(cache: DynamicCache, row: int, part: slice) -> DynamicCache:
    """One row of a padded cache, without what filled it up; views, no copies."""
    one = slice(row, row + 1)
    return _holding(
        [(layer.keys[one, :, part], layer.values[one, :, part]) for layer in cache.layers]
    )
