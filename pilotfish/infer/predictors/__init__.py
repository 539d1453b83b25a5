"""How good each model's answer will be, before any is asked: the quality predictors of routing.

One technique a file; each is fitted on recorded outcomes and gives a mean and a standard deviation for
every model. :mod:`pilotfish.infer.predictors.predictor` says what one must bring.
"""

from __future__ import annotations

from pilotfish.registry import Registry

_ROOM = "pilotfish.infer.predictors"

PREDICTORS = Registry(
    "quality predictor",
    {
        "stacked": f"{_ROOM}.stacked:Stacked",
        "average": f"{_ROOM}.average:Average",
        "knn": f"{_ROOM}.knn:Neighbours",
        "linear": f"{_ROOM}.linear:Linear",
        "logistic": f"{_ROOM}.logistic:Logistic",
        "kernel": f"{_ROOM}.kernel:Kernel",
        "forest": f"{_ROOM}.forest:Forest",
        "hybrid": f"{_ROOM}.hybrid:Hybrid",
        "matrix-factorization": f"{_ROOM}.matrix_factorization:MatrixFactorization",
        "bradley-terry": f"{_ROOM}.bradley_terry:BradleyTerry",
        "reward-distilled": f"{_ROOM}.reward_distilled:RewardDistilled",
        "expert-loss": f"{_ROOM}.expert_loss:ExpertLoss",
        "agreement": f"{_ROOM}.agreement:Agreement",
        "tags": f"{_ROOM}.tags:Tags",
        "self-knowledge": f"{_ROOM}.self_knowledge:SelfKnowledge",
        "svm": f"{_ROOM}.svm:SupportVectors",
        "mlp": f"{_ROOM}.mlp:Perceptron",
        "elo": f"{_ROOM}.elo:Elo",
        "contrastive": f"{_ROOM}.contrastive:Contrastive",
    },
)
