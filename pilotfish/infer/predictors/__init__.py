"""How good each model's answer will be, before any is asked: the quality predictors of routing.

One technique a file; each is fitted on recorded outcomes and gives a mean and a standard deviation for
every model. :mod:`pilotfish.infer.predictors.predictor` says what one must bring.
"""

from __future__ import annotations

from pilotfish.registry import Registry

PREDICTORS = Registry(
    "quality predictor",
    {
        "stacked": "pilotfish.infer.predictors.stacked:Stacked",
        "average": "pilotfish.infer.predictors.average:Average",
        "knn": "pilotfish.infer.predictors.knn:Neighbours",
        "linear": "pilotfish.infer.predictors.linear:Linear",
        "logistic": "pilotfish.infer.predictors.logistic:Logistic",
        "kernel": "pilotfish.infer.predictors.kernel:Kernel",
        "forest": "pilotfish.infer.predictors.forest:Forest",
        "hybrid": "pilotfish.infer.predictors.hybrid:Hybrid",
        "matrix-factorization": "pilotfish.infer.predictors.matrix_factorization:MatrixFactorization",
        "bradley-terry": "pilotfish.infer.predictors.bradley_terry:BradleyTerry",
        "reward-distilled": "pilotfish.infer.predictors.reward_distilled:RewardDistilled",
        "expert-loss": "pilotfish.infer.predictors.expert_loss:ExpertLoss",
        "agreement": "pilotfish.infer.predictors.agreement:Agreement",
        "transformer": "pilotfish.infer.predictors.transformer:Transformer",
        "tags": "pilotfish.infer.predictors.tags:Tags",
        "self-knowledge": "pilotfish.infer.predictors.self_knowledge:SelfKnowledge",
        "svm": "pilotfish.infer.predictors.svm:SupportVectors",
        "mlp": "pilotfish.infer.predictors.mlp:Perceptron",
        "elo": "pilotfish.infer.predictors.elo:Elo",
        "contrastive": "pilotfish.infer.predictors.contrastive:Contrastive",
    },
)
