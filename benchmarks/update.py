"""One epoch of preference optimisation on 512 pairs, by our optimiser step and by TRL's trainer; our phases beside DPO.

`python -m benchmarks.update --side ours|theirs --case sigmoid|ipo|hinge` prints seconds, losses and memory of one run;
`--side ours --case phases` the time of each phase of ONPO and INPO over that of DPO.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks.tiny import PROMPT, RESPONSE, build_model, build_pairs, build_tokenizer, resident_mib, tell, use_threads

if TYPE_CHECKING:
    from trainers.algorithm import Algorithm
    from trainers.optimise import Optimiser
    from trainers.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM

PAIRS, BATCH, RATE, STRENGTH = 512, 32, 1e-4, 0.1
LOSSES = ("sigmoid", "ipo", "hinge")
ROUNDS, STEPS = 9, 3
"""Of the case of phases: how often each is timed, and over how many steps."""


def algorithm_of(loss: str) -> Algorithm:
    """Ours of the same loss; TRL's IPO takes means over tokens."""
    from trainers import DPO, IPO, SLiC

    ipo = IPO(tau=STRENGTH, log_prob="mean", regime="iterative")
    return {"sigmoid": DPO(beta=STRENGTH), "ipo": ipo, "hinge": SLiC(beta=STRENGTH)}[loss]


def our_policy() -> tuple[CausalLM, Pairs]:
    import numpy as np

    from trainers.pairs import Pairs
    from trainers.policies.causal_lm import CausalLM

    pairs = Pairs(**build_pairs(PAIRS), preference=np.ones(PAIRS))
    return CausalLM(build_model().eval(), build_tokenizer()), pairs


def our_optimiser(policy: CausalLM) -> Optimiser:
    from trainers.optimise import Optimiser
    from trainers.options import Training

    training = Training(lr=RATE, schedule="constant", warmup=0.0, batch_size=BATCH, precision="fp32")
    return Optimiser(policy, training, PAIRS // BATCH)


def ours(loss: str) -> dict[str, Any]:
    """Frozen scores, then an epoch in the order of the pairs (`fit` would shuffle)."""
    from trainers.pairs import score

    algorithm, (policy, pairs) = algorithm_of(loss), our_policy()
    (name,) = algorithm.phases[0].frozen
    imported, started = resident_mib(), time.perf_counter()
    scores = score(policy, pairs, BATCH)
    scored, busy = time.perf_counter(), time.process_time()
    optimiser, losses = our_optimiser(policy), []
    for start in range(0, PAIRS, BATCH):
        rows = list(range(start, start + BATCH))
        losses.append(optimiser.step(policy, algorithm, pairs.select(rows), {name: scores[rows]})["loss"])
    return {
        "seconds": time.perf_counter() - scored,
        "core_seconds": time.process_time() - busy,
        "scoring_seconds": scored - started,
        "losses": losses,
        "peak_mib": resident_mib() - imported,
    }


def theirs(loss: str) -> dict[str, Any]:
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
            return SequentialSampler(self.train_dataset)

        def _precompute_ref_logps(self, *arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            scored = super()._precompute_ref_logps(*arguments, **options)
            self.scoring_seconds = time.perf_counter() - started
            return scored

    model, data, tokenizer = build_model(), build_pairs(PAIRS), build_tokenizer()
    rows = Dataset.from_dict({name.rstrip("s") + "_ids": values for name, values in data.items()})
    imported = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            loss_type=[loss],
            beta=STRENGTH,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=BATCH,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            max_length=PROMPT + RESPONSE,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
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
        started, busy = time.perf_counter(), time.process_time()
        trainer.train()
    return {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - busy,
        "scoring_seconds": trainer.scoring_seconds,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_mib": resident_mib() - imported,
    }


def phases() -> dict[str, Any]:
    """Seconds of a few steps of each phase over those of DPO: medians of rounds in which all take their turn."""
    import numpy as np

    from trainers import DPO, INPO, ONPO

    policy, pairs = our_policy()
    scores = np.random.default_rng(0).normal(-220, 1, (PAIRS, 2)).astype(np.float32)
    tasks = {f"{a.name} {n}": (a, phase.frozen) for a in (DPO(), INPO(), ONPO()) for n, phase in enumerate(a.phases, 1)}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    optimiser = our_optimiser(policy)
    for turn in range(ROUNDS + 1):
        for name, (algorithm, frozen) in tasks.items():
            started = time.perf_counter()
            for at in range(STEPS):
                rows = list(range(at * BATCH, (at + 1) * BATCH))
                optimiser.step(policy, algorithm, pairs.select(rows), {name: scores[rows] for name in frozen})
            if turn > 0:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    anchor = seconds.pop("dpo 1")
    return {name: statistics.median(np.divide(anchor, taken)) for name, taken in seconds.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("ours", "theirs"), required=True)
    parser.add_argument("--case", choices=(*LOSSES, "phases"), required=True)
    asked = parser.parse_args()
    use_threads()
    if asked.case == "phases":
        tell(phases())
    else:
        tell({"ours": ours, "theirs": theirs}[asked.side](asked.case))
