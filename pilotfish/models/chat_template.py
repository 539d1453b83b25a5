"""A request's messages as the text that a local model was trained on.

A GGUF file carries its chat template as Jinja text. It is rendered in Jinja's immutable sandbox, with
the names that ``transformers`` gives to templates, rather than by ``llama_chat_apply_template``: that
function recognises a fixed list of formats by keywords and leaves out what the template itself adds
(Qwen's default system message). A model without a template gets the messages' plain text.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pilotfish.errors import RequestRefused


def render(
    template: str | None, messages: Sequence[Mapping[str, Any]], *, bos: str = "", eos: str = ""
) -> str:
    """The prompt up to where the assistant's answer begins.

    Args:
        template: Jinja text, or None for a base model.
        messages: Chat messages with text content (text parts are joined).
        bos: The beginning-of-sequence token as text; templates may write it.
        eos: The end-of-sequence token as text.

    Raises:
        RequestRefused: A message has no role or holds something else than text, or the template
            refuses the messages.

    >>> render(None, [{"role": "user", "content": "Once upon"}])
    'Once upon'
    """
    plain = [{**message, "content": text_of(message)} for message in messages]
    if template is None:
        return "\n\n".join(message["content"] for message in plain)
    import jinja2

    try:
        return str(
            _compiled(template).render(
                messages=plain, add_generation_prompt=True, bos_token=bos, eos_token=eos
            )
        )
    except jinja2.TemplateError as error:
        raise RequestRefused(
            f"The model's chat template refuses these messages: {error}.",
            remedy="Check the order of the roles; some models take no system message.",
        ) from error


def after_answer(template: str, *, bos: str = "", eos: str = "") -> str:
    """What the template writes after an assistant's answer: it begins with the end of the turn.

    Templates know this better than the file's token numbers: SmolLM2's file calls the end of the text
    the end of a turn. "" when the template refuses a plain exchange.
    """
    import jinja2

    answer = "0ANSWER0"
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": answer}]
    names = {"messages": messages, "bos_token": bos, "eos_token": eos}
    try:
        text = str(_compiled(template).render(add_generation_prompt=False, **names))
    except jinja2.TemplateError:
        return ""
    return text.partition(answer)[2]


def text_of(message: Mapping[str, Any]) -> str:
    """A message's content, its text parts joined.

    Raises:
        RequestRefused: It has no role, or holds something else than text.
    """
    if not isinstance(message.get("role"), str):
        raise RequestRefused(f"Got a message without a role: {dict(message)!r:.200}.")
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = [
        part.get("text") if isinstance(part, Mapping) else None
        for part in (content if isinstance(content, list | tuple) else [None])
    ]
    if not all(isinstance(part, str) for part in parts):
        raise RequestRefused("Got message content that is no text, but this model reads text only.")
    return "".join(str(part) for part in parts)


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)


def _refuse(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
