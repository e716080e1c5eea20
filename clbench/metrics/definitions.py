"""What every metric key means: version, formula, sign, when it is null, and what others mean by the word.

R[t][j] is the score on task j's sets after task t of T (t = -1: before training), oriented so that higher is
better: s * value with s = -1 for losses. a_n(E) is the score of set E in a trace row at step n.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BETTER = "higher is better"
WORSE = "positive = worse"
GAIN = "positive = better"
COUNT = "a count"


@dataclass(frozen=True)
class Definition:
    """One key of the metrics object. `others`: library -> its definition of the same word."""

    key: str
    meaning: str
    formula: str
    sign: str
    null_when: str
    version: int = 1
    others: dict[str, str] = field(default_factory=dict)


_AVERAGES = {
    "Mammoth": "mean over seen tasks after the last one, as here",
    "Renate": "the same as average_accuracy; micro_average_accuracy weights by samples",
    "PILOT, PyCIL": '"Average Accuracy" is the mean over time of the sample-weighted accuracy, rounded first',
    "Avalanche": "Top1_Acc_Stream weights by samples over everything evaluated, unseen tasks among it",
    "Continuum": "accuracy weights by samples; accuracy_A is the mean of the lower triangle of R",
    "FACIL": "mean over seen tasks, printed after each task",
    "FoMo": "knowledge accumulation mixes 40 accuracies and one recall@5 with fixed counts",
}
_FORGETTING = {
    "Avalanche": "R[j][j] - R[T-1][j]: the negative of backward_transfer",
    "Mammoth, FoMo, PILOT, PyCIL": "the last row, and zeros for unseen tasks, are in the max: never negative",
    "FACIL": "as here; rows before the task was learned count as 0",
    "Continuum": "as here (older versions skip the last-but-one task)",
    "Renate": "the max also takes rows before the task was trained: zero-shot scores count as learned",
    "LibContinual": "R[j][j] - R[T-1][j] without the last-but-one task, still divided by T-1",
}
_BACKWARD = {
    "Mammoth, FoMo, Renate, Avalanche": "as here",
    "Continuum": "mean over all pairs t > j of R[t][j] - R[j][j]",
    "LibContinual": "Continuum's sum without the pairs j = t-1, divided by the number of all pairs",
    "TRACE": "the sum also has the last task's 0 and is divided by T instead of T-1",
}
_FORWARD = {
    "Renate": "as here",
    "Avalanche": "as here, if an evaluation before training was asked for",
    "Mammoth": "against a random model; about 0 where the head hides unseen classes",
    "FoMo": "against a random model's scores",
    "Continuum": "no baseline is subtracted, so chance level counts as transfer",
}
_CONTINUAL = {"ContinualEvaluation": "evaluation samples are drawn anew each time, so sampling noise counts as a drop"}
_LEARNING_CURVE = {"LCA (Chaudhry et al. 2019)": "mean over the first 10 batches of the current task, in evaluations"}
_WINDOWS = {
    "ContinualEvaluation": "windows count evaluations, not steps; rises are searched only from points higher "
    "than all before them in the window, which misses some"
}

_QUANTITIES = (
    (
        "knowledge_accumulation",
        "mean score of all sets the stream adapts to, those of later tasks as well",
        "KA",
        "no set has the role adaptation",
    ),
    (
        "zero_shot_retention",
        "mean score of the held-out sets, what is left of what was known before",
        "ZS",
        "no set has the role held-out",
    ),
    (
        "geometric_mean",
        "accumulation and retention in one number, 0 where either is lost",
        "GM",
        "no set has the role adaptation or held-out, or scores are negative (losses)",
    ),
)
_SYMBOLS = {
    "KA": "KA(t) = mean over adaptation sets of their score after t tasks",
    "ZS": "ZS(t) = mean over held-out sets of their score after t tasks",
    "GM": "GM(t) = sqrt(KA(t) ZS(t))",
}
_BY_ROLE = {
    "knowledge_accumulation": {"FoMo": "as here, over 40 accuracies and one recall@5"},
    "zero_shot_retention": {"FoMo": "as here, over 20 accuracies and two recall@5"},
    "geometric_mean": {"FoMo": "as here"},
}
"""FoMo-in-Flux, arXiv 2408.14471: the names are its own."""

_ALL = (
    Definition(
        "average",
        "score after the last task, every task counting the same (last accuracy, ACC)",
        "mean_{j<T} R[T-1][j]",
        BETTER,
        "a set of a learned task was not scored after the last task",
        others=_AVERAGES,
    ),
    Definition(
        "average_micro",
        "score after the last task, every sample counting the same",
        "sum_j n_j R[T-1][j] / sum_j n_j over the tasks' sets",
        BETTER,
        "n is unknown for one of the sets",
        others=_AVERAGES,
    ),
    Definition(
        "average_incremental",
        "score on the tasks seen so far, averaged over the task ends (AIA)",
        "mean_t mean_{j<=t} R[t][j]",
        BETTER,
        "a learned set was not scored at a task end",
        others=_AVERAGES,
    ),
    Definition(
        "learning",
        "score on each task just after it was learned (learning accuracy, plasticity)",
        "mean_j R[j][j]",
        BETTER,
        "a set was not scored at the end of its own task",
    ),
    Definition(
        "forgetting",
        "best earlier score on a task minus its last one (Chaudhry et al. 2018, eq. 3)",
        "mean_{j<T-1} ( max_{j<=t<T-1} R[t][j] - R[T-1][j] ), the last row not in the max",
        WORSE + "; negative = the last model is the best so far",
        "fewer than two tasks are finished",
        others=_FORGETTING,
    ),
    Definition(
        "backward_transfer",
        "what later tasks did to the score on a task since it was learned (Lopez-Paz & Ranzato 2017)",
        "mean_{j<T-1} ( R[T-1][j] - R[j][j] )",
        GAIN,
        "fewer than two tasks are finished",
        others=_BACKWARD,
    ),
    Definition(
        "forward_transfer",
        "what earlier tasks did to the score on a task before it is trained, against the untrained model",
        "mean_{1<=j<T} ( R[j-1][j] - R[-1][j] )",
        GAIN,
        "fewer than two tasks, no row before training, or a head that cannot score unseen classes",
        others=_FORWARD,
    ),
    Definition(
        "transfer",
        "score on tasks not trained yet (MTIL Transfer, zero-shot)",
        "mean_{1<=j<T} mean_{t<j} R[t][j]",
        BETTER,
        "fewer than two tasks are finished, or unseen sets were not scored",
    ),
    Definition(
        "average_over_time",
        "score on all tasks at all task ends (MTIL Average)",
        "mean_t mean_j R[t][j] over all T x T",
        BETTER,
        "unseen sets were not scored",
    ),
    Definition(
        "retention",
        "final score on the held-out sets (what the model knew before)",
        "mean over held-out sets of the score after the last task",
        BETTER,
        "no set is held out",
    ),
    Definition(
        "retention_change",
        "what the whole run did to the held-out sets",
        "mean over held-out sets of (final - initial)",
        GAIN,
        "no set is held out, or no row before training",
    ),
    Definition(
        "accumulation",
        "distance of the final model from joint training on all tasks",
        "mean_j ( R[T-1][j] - joint_j )",
        GAIN + " than joint training; usually negative",
        "no joint reference run is given",
        others={"FoMo": _AVERAGES["FoMo"] + "; no reference run is involved"},
    ),
    Definition(
        "intransigence",
        "how much less of each task was learned than by joint training (Chaudhry et al. 2018)",
        "mean_j ( joint_j - R[j][j] )",
        WORSE,
        "no joint reference run is given",
    ),
    Definition(
        "forgetting_signed",
        "score on a task when it was learned minus its last one: the negative of backward_transfer, task by task in "
        "by_task",
        "mean_{j<T-1} ( R[j][j] - R[T-1][j] ); of a loss: last minus learned, in nats (or bits per byte)",
        WORSE + "; negative = later tasks helped",
        "fewer than two tasks are finished",
        others=_FORGETTING,
    ),
    Definition(
        "forgetting_max",
        "best score on a task since it was learned minus its last one, the last row in the max: never negative",
        "mean_{j<T-1} ( max_{j<=t<=T-1} R[t][j] - R[T-1][j] )",
        WORSE,
        "fewer than two tasks are finished",
        others=_FORGETTING,
    ),
    Definition(
        "adaptation",
        "what its own task did to the score on a later domain: after it minus before it",
        "mean_{1<=j<T} ( R[j][j] - R[j-1][j] ); of a loss: the nats it fell by",
        GAIN,
        "fewer than two tasks are finished, or a set was not scored before its own task",
    ),
    Definition(
        "average_backward",
        "score on earlier tasks, over all pairs (TiC-LM: Backward; its in-distribution score is `learning`)",
        "mean over all pairs t > j of R[t][j]",
        BETTER,
        "fewer than two tasks are finished",
        others={"TiC-LM": "as here, of the loss minus an oracle's: regret_backward of `clbench references`"},
    ),
    Definition(
        "average_forward",
        "score on tasks not trained yet, over all pairs (TiC-LM: Forward); `transfer` weights tasks equally instead",
        "mean over all pairs t < j of R[t][j]",
        BETTER,
        "fewer than two tasks are finished, or unseen sets were not scored",
        others={"TiC-LM": "as here, of the loss minus an oracle's: regret_forward of `clbench references`"},
    ),
    *(
        Definition(key + ending, meaning + what, formula, sign, f"{none}{also}", others=_BY_ROLE.get(key + ending, {}))
        for key, meaning, symbol, none in _QUANTITIES
        for ending, what, formula, sign, also in (
            ("", ", after the last task", f"{symbol}(T), {_SYMBOLS[symbol]}", BETTER, ""),
            ("_over_stream", ", averaged over the task ends", f"mean_{{1<=t<=T}} {symbol}(t)", BETTER, ""),
            (
                "_change",
                ", after the last task minus before training",
                f"{symbol}(T) - {symbol}(0)",
                GAIN,
                ", or no row before training",
            ),
        )
    ),
    Definition(
        "zero_shot_retention_ratio",
        "share of what the model knew before that is left, 1 = nothing was lost: an addition of clbench's",
        "ZS(T) / ZS(0)",
        BETTER,
        "no set has the role held-out, no row before training, or a score of 0 there",
    ),
    Definition(
        "heldout_forgetting",
        "best earlier score on a held-out set, before training among them, minus its last one",
        "mean_{d held out} ( max_{0<=t<T} M_d(t) - M_d(T) ), M_d(0) before training, the last row not in the max",
        WORSE + "; negative = the last model is the best so far",
        "no set is held out, or no row before training",
    ),
    Definition(
        "min_acc",
        "lowest score of each old task at any time after it was learned (De Lange et al. 2023)",
        "mean_{j<T-1} min a_n(E_j) over trace rows with end of task j < n <= end of the last task",
        BETTER,
        "fewer than two tasks, or no trace rows",
        others=_CONTINUAL,
    ),
    Definition(
        "wc_acc",
        "worst case: the last task as it is, the old ones at their lowest (De Lange et al. 2023)",
        "(1/T) a_end(E_{T-1}) + (1 - 1/T) min_acc",
        BETTER,
        "min_acc is null, or the last task was not scored at its end",
        others=_CONTINUAL,
    ),
    *(
        Definition(
            f"{kind}_{window}",
            f"largest {word} of a set within {window} steps",
            f"mean_j max(0, max ({change})) over trace rows m < n with step_n - step_m < {window}",
            sign,
            f"a set has no two trace rows less than {window} steps apart; comparable on equal grids only",
            others=_WINDOWS,
        )
        for window in (10, 100)
        for kind, word, change, sign in (
            ("wf", "drop", "a_m - a_n", WORSE),
            ("wp", "rise", "a_n - a_m", GAIN),
        )
    ),
    Definition(
        "auc",
        "score on a task averaged over time, from the beginning of the task to the end of the run",
        "mean_j of the area (trapezoids) under a_n(E_j) from the first evaluation at or after the end of task j-1 to "
        "the last one, over the steps between them",
        BETTER,
        "no trace rows, a set was scored once only, or training diverged",
        others=_LEARNING_CURVE,
    ),
    Definition(
        "auc_own",
        "the same up to the end of the task itself: how fast it is learned",
        "mean_j of the area under a_n(E_j) during task j, over the steps from its first evaluation there to its last",
        BETTER,
        "no trace rows, a set was scored once only during its task, or training diverged",
        others=_LEARNING_CURVE,
    ),
    *(
        Definition(prefix + key, f"{meaning} ({whose})", formula, sign, f"no {whose} were traced{more}")
        for prefix, whose in (
            ("gap_", "sets of old tasks"),
            ("gap_heldout_", "held-out sets"),
            ("gap_new_", "the new task's sets, during that task"),
            ("gap_stream_", "held-out sets over the whole run, before training being the only switch"),
        )
        for key, meaning, formula, sign, more in (
            ("depth", "largest fall after a switch", "mean of depth", WORSE, ", or a pair diverged"),
            ("area", "fall times steps after a switch", "mean of area", WORSE, ", or a pair diverged"),
            ("mean", "average fall during the new task", "mean of mean_gap", WORSE, ", or a pair diverged"),
            (
                "transient",
                "part of the fall that came back",
                "mean of transient",
                WORSE,
                ", or a pair diverged",
            ),
            (
                "recovered_share",
                "share of (switch, set) pairs that recovered or never fell",
                "share of pairs whose status is neither not_recovered nor diverged",
                BETTER,
                "",
            ),
            ("diverged_share", "share of (switch, set) pairs with NaN or infinity", "as named", WORSE, ""),
            ("pairs", "number of (switch, set) pairs", "as named", COUNT, ""),
            ("left_out", "pairs that could not be measured and are in no mean", "as named", COUNT, ""),
        )
    ),
)

DEFINITIONS: dict[str, Definition] = {definition.key: definition for definition in _ALL}

ADDED = frozenset(
    key
    for key in DEFINITIONS
    if key.startswith(("gap_new_", "auc", "average_backward", "average_forward"))
    or key in ("forgetting_signed", "forgetting_max", "adaptation")
)
"""Keys that came later: records made before hold none of them, nor the parts in ADDED_PARTS."""
ADDED_PARTS = ("by_task", "gap_new")
ADDED_BY_ROLE = frozenset(
    key
    for key in DEFINITIONS
    if key.startswith(("gap_stream_", "knowledge_accumulation", "zero_shot_retention", "geometric_mean"))
    or key == "heldout_forgetting"
)
"""Keys that came after those: the same again."""
ADDED_BY_ROLE_PARTS = ("by_column", "over_stream", "gap_stream")
EDITIONS = ((ADDED, ADDED_PARTS), (ADDED_BY_ROLE, ADDED_BY_ROLE_PARTS))
ADDED_UNITS = ("depth_bits", "ppl_ratio")
"""Fields of a gap that came later still."""

_DELTA = "delta_i = s * (m0 - m_i) at trace rows of the new task, (0, 0) put before them"
_NO_GAP = "the reference m0 is missing or null, the set was not traced, or it diverged"
_NO_NATS = f"{_NO_GAP}; there is no such field where the primary metric is no loss in nats"

GAP_FIELDS: dict[str, Definition] = {
    name: Definition(name, meaning, formula, sign, null)
    for name, meaning, formula, sign, null in (
        (
            "depth",
            "largest fall below the score at the switch",
            f"max(0, max delta); {_DELTA}",
            WORSE,
            _NO_GAP,
        ),
        (
            "relative_depth",
            "depth as a share of what there was to lose",
            "depth / |m0 - base|",
            WORSE,
            "base is unknown or equal to m0",
        ),
        (
            "depth_bits",
            "depth of a loss in nats, in bits per token",
            "depth / ln 2",
            WORSE,
            _NO_NATS,
        ),
        (
            "ppl_ratio",
            "how many times larger the perplexity is at the deepest point than at the switch",
            "exp(depth), depth in nats",
            "1 or more; above 1 = worse",
            f"{_NO_NATS}; or the depth is 700 nats or more",
        ),
        (
            "trough_steps",
            "steps from the switch to the deepest point",
            "first maximum of delta",
            COUNT,
            _NO_GAP,
        ),
        ("final", "fall that is left at the end of the new task", "delta at the last row", WORSE, _NO_GAP),
        ("transient", "the part of the fall that came back", "depth - max(0, final)", WORSE, _NO_GAP),
        (
            "recovered_fraction",
            "share of the fall that came back",
            "transient / depth; 1 if depth is 0",
            BETTER,
            _NO_GAP,
        ),
        (
            "recovery_steps",
            "steps from the switch until two evaluations in a row are back within the tolerance",
            "smallest step after the trough with delta <= max(0.01, 2 se) there and at the next evaluation",
            WORSE,
            "it never recovers; censored_at says how long it was watched",
        ),
        (
            "recovery_interval",
            "recovery lies in (previous evaluation, this one]",
            "two step counts",
            COUNT,
            "it never fell, or never recovers",
        ),
        ("censored_at", "last evaluation, where it has not recovered", "a step count", COUNT, "it recovered"),
        ("area", "fall times steps", "trapezoids of max(0, delta), cut at zero crossings", WORSE, _NO_GAP),
        ("mean_gap", "average fall during the new task", "area / horizon", WORSE, _NO_GAP),
        (
            "status",
            "what happened",
            "never_dropped (depth within the tolerance), recovered, recovered_at_end (last evaluation only), "
            "not_recovered, too_short (fewer than 5 steps), diverged (NaN or infinity)",
            "a word",
            _NO_GAP,
        ),
    )
}


def base_key(key: str) -> str:
    """The plain key of `metric:key`, `key[weights]` or `metric:key[weights]`."""
    return key.rpartition(":")[2].partition("[")[0]
