"""What answers: protocols and backends.

A backend is one module and one line of :data:`BACKENDS`; its library is imported when the backend is
first used. :func:`pilotfish.models.load.load` turns a spec such as ``openai:gpt-4.1-mini`` or a
catalogue name into a model.
"""

from __future__ import annotations

from pilotfish.registry import Registry

BACKENDS = Registry(
    "backend",
    {
        "openai": "pilotfish.models.openai:OpenAIModel",
        "litellm": "pilotfish.models.litellm:LiteLLMModel",
        "llama.cpp": "pilotfish.models.llamacpp:LlamaModel",
        "replay": "pilotfish.models.replay:ReplayModel",
        "fake": "pilotfish.models.fake:FakeModel",
        "artifact": "pilotfish.loop.artifact:OffloadedModel",
    },
    extras={"litellm": "litellm"},
)

ENCODERS = Registry(
    "encoder",
    {
        "static": "pilotfish.models.static:StaticEncoder",
        "onnx": "pilotfish.models.onnx:OnnxEncoder",
        "sentence-transformers": "pilotfish.models.sentence_transformers:SentenceTransformersEncoder",
    },
    extras={"onnx": "onnx", "sentence-transformers": "torch"},
)
