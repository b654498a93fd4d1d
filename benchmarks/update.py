"""One epoch of preference optimisation on 512 pairs, by our optimiser step and by TRL's trainer; our phases beside DPO.

`python -m benchmarks.update --side ours|theirs --case sigmoid|ipo|ipo-sum|hinge` prints seconds, losses and memory;
`--side ours --case phases` the time of each phase of ONPO and INPO over that of DPO.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.tiny import PROMPT, RESPONSE, build_model, build_pairs, build_tokenizer, resident_mib, tell, use_threads

if TYPE_CHECKING:
    from trainers.algorithm import Algorithm
    from trainers.fitting.optimise import Optimiser
    from trainers.fitting.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM

PAIRS, STEPS, RATE, STRENGTH, SUM_TAU = 512, 16, 1e-4, 0.1, 0.01
ROUNDS, TURN = 9, 3
"""Of the case of phases: how often each is timed, and over how many steps."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """TRL's name of a loss, its beta, the norm gradients are clipped to, and how many times TRL's the loss of ours is.

    TRL's IPO takes means over tokens. With responses of one length n, the sums' loss at tau is n^2 times the means' at
    n tau; where both gradients are clipped at every step, both take the same steps.
    """

    loss: str
    beta: float = STRENGTH
    clip: float = 1.0
    times: float = 1.0


CASES = {
    "sigmoid": Case(loss="sigmoid"),
    "ipo": Case(loss="ipo"),
    "ipo-sum": Case(loss="ipo", beta=RESPONSE * SUM_TAU, clip=0.05, times=RESPONSE**2),
    "hinge": Case(loss="hinge"),
}


def our_algorithm(case: str) -> Algorithm:
    from trainers import DPO, IPO, SLiC

    return {
        "sigmoid": DPO(beta=STRENGTH),
        "ipo": IPO(tau=STRENGTH, regime="iterative", log_prob="mean"),
        "ipo-sum": IPO(tau=SUM_TAU, regime="iterative"),
        "hinge": SLiC(beta=STRENGTH),
    }[case]


def our_policy(count: int) -> tuple[CausalLM, Pairs]:
    import numpy as np

    from trainers.fitting.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM

    data = build_pairs(count)
    pairs = Pairs(data["prompts"], data["chosen"], data["rejected"], np.ones(count))
    return CausalLM(build_model().eval(), build_tokenizer()), pairs


def our_optimiser(policy: CausalLM, clip: float, batch: int) -> Optimiser:
    from trainers.fitting.optimise import Optimiser
    from trainers.options import Training

    training = Training(
        lr=RATE, schedule="constant", warmup=0.0, batch_size=batch, precision="fp32", max_grad_norm=clip
    )
    return Optimiser(policy, training, STEPS)


def ours(case: str, count: int) -> dict[str, Any]:
    """Frozen scores, then an epoch in the order of the pairs (`fit` would shuffle)."""
    from trainers.fitting.pairs import score

    algorithm, (policy, pairs), batch = our_algorithm(case), our_policy(count), count // STEPS
    (name,) = algorithm.phases[0].frozen
    imported, started = resident_mib(), time.perf_counter()
    scores = score(policy, pairs, batch)
    scored = time.perf_counter()
    optimiser, losses = our_optimiser(policy, CASES[case].clip, batch), []
    for start in range(0, count, batch):
        rows = list(range(start, start + batch))
        losses.append(optimiser.step(policy, algorithm, pairs.select(rows), {name: scores[rows]})["loss"])
    return {
        "seconds": time.perf_counter() - scored,
        "scoring_seconds": scored - started,
        "losses": [loss / CASES[case].times for loss in losses],
        "peak_mib": resident_mib() - imported,
    }


def theirs(case: str, count: int) -> dict[str, Any]:
    """TRL's DPOTrainer with precomputed reference log-probabilities, on rows that are tokens already."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    class Trainer(DPOTrainer):
        """The rows as they are, in order; the scores' time is taken."""

        scoring_seconds = 0.0

        def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *arguments: Any, **options: Any) -> Any:
            return SequentialSampler(rows)

        def _precompute_ref_logps(self, *arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            scored = super()._precompute_ref_logps(*arguments, **options)
            self.scoring_seconds = time.perf_counter() - started
            return scored

    model, data, tokenizer = build_model(), build_pairs(count), build_tokenizer()
    rows = Dataset.from_dict({name.rstrip("s") + "_ids": values for name, values in data.items()})
    imported = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            loss_type=[CASES[case].loss],
            beta=CASES[case].beta,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=count // STEPS,
            per_device_train_batch_size=count // STEPS,
            num_train_epochs=1,
            max_length=PROMPT + RESPONSE,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=CASES[case].clip,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        started = time.perf_counter()
        trainer.train()
    return {
        "seconds": time.perf_counter() - started,
        "scoring_seconds": trainer.scoring_seconds,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_mib": resident_mib() - imported,
    }


def phases() -> dict[str, Any]:
    """Speed of each phase over that of DPO by the clock: medians of rounds in which all take their turn."""
    import numpy as np

    from trainers import DPO, INPO, ONPO

    (policy, pairs), batch = our_policy(PAIRS), PAIRS // STEPS
    scores = np.random.default_rng(0).normal(-220, 1, (PAIRS, 2)).astype(np.float32)
    tasks = {f"{a.name} {n}": (a, phase.frozen) for a in (DPO(), INPO(), ONPO()) for n, phase in enumerate(a.phases, 1)}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    optimiser = our_optimiser(policy, 1.0, batch)
    for turn in range(ROUNDS + 1):
        for name, (algorithm, frozen) in tasks.items():
            started = time.perf_counter()
            for start in range(0, TURN * batch, batch):
                rows = list(range(start, start + batch))
                optimiser.step(policy, algorithm, pairs.select(rows), dict.fromkeys(frozen, scores[rows]))
            if turn > 0:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    anchor = seconds.pop("dpo 1")
    return {name: statistics.median(np.divide(anchor, taken)) for name, taken in seconds.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("ours", "theirs"), required=True)
    parser.add_argument("--case", choices=(*CASES, "phases"), required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"a multiple of {STEPS}, the steps")
    asked = parser.parse_args()
    use_threads()
    if asked.case == "phases":
        tell(phases())
    else:
        tell({"ours": ours, "theirs": theirs}[asked.side](asked.case, asked.pairs))
