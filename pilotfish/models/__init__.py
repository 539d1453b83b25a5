"""What answers: protocols, backends, and the names of composites.

A backend is one module and one line of :data:`BACKENDS`; its library is imported when the backend is
first used. A composite is a model made of models; its line in :data:`COMPOSITES` points upwards, to the
room that the technique belongs to, and imports nothing. :func:`pilotfish.models.load.load_model` turns a
spec such as ``openai:gpt-4.1-mini``, a name from pilotfish.toml or a catalogue name into a model.
"""

from __future__ import annotations

from pilotfish.registry import Registry

BACKENDS = Registry(
    "backend",
    {
        "openai": "pilotfish.models.openai:OpenAIModel",
        "litellm": "pilotfish.models.litellm:LiteLLMModel",
        "llama.cpp": "pilotfish.models.llamacpp:LlamaModel",
        "transformers": "pilotfish.models.transformers:TransformersModel",
        "replay": "pilotfish.models.replay:ReplayModel",
        "fake": "pilotfish.models.fake:FakeModel",
        "artifact": "pilotfish.loop.artifact:OffloadedModel",
    },
    extras={"litellm": "litellm", "transformers": "torch"},
)

COMPOSITES = Registry(
    "kind of composite",
    {
        "cascade": "pilotfish.infer.cascade:Cascade",
        "fallback": "pilotfish.infer.fallback:Fallback",
        "router": "pilotfish.infer.router:Router",
        "policy": "pilotfish.infer.policy_model:PolicyModel",
        "learned": "pilotfish.loop.learned:LearnedModel",
        "fuse": "pilotfish.infer.fuse:Fuse",
        "narrow": "pilotfish.infer.narrow:Narrow",
        "speculative": "pilotfish.infer.speculate.speculative:Speculative",
        "contrast": "pilotfish.reason.kinds:Contrast",
        "proxy-tuned": "pilotfish.reason.kinds:ProxyTuned",
        "mixed": "pilotfish.reason.kinds:Mixed",
        "weak-to-strong-search": "pilotfish.reason.weak_to_strong:WeakToStrongSearch",
    },
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

TAGGERS = Registry(
    "tagger", {"onnx": "pilotfish.models.onnx_tagger:OnnxTagger"}, extras={"onnx": "onnx"}
)

CLASSIFIERS = Registry("classifier", {"artifact": "pilotfish.loop.classifier:StudentClassifier"})

LEARNERS = Registry(
    "text learner",
    {"transformer": "pilotfish.distill.regressor:FineTunedEncoder"},
    extras={"transformer": "torch"},
)
"""What is fitted to texts and numbers: :class:`pilotfish.infer.predictors.transformer.TextLearner`."""
