"""Mixtures of domains: policies say which share of a batch each domain has, quotas make whole samples of shares."""

from clbench.mixtures.adaptive import Feedback, SkillIt, TopicPerplexity
from clbench.mixtures.fixed import Curriculum, FixedReplay, NewOnly, PretrainLike, TiC
from clbench.mixtures.policy import Policy, Reading, guarded
from clbench.mixtures.pools import BatchQuota, pool_counts
from clbench.mixtures.quotas import Quotas

__all__ = [
    "BatchQuota",
    "Curriculum",
    "Feedback",
    "FixedReplay",
    "NewOnly",
    "Policy",
    "PretrainLike",
    "Quotas",
    "Reading",
    "SkillIt",
    "TiC",
    "TopicPerplexity",
    "guarded",
    "pool_counts",
]
