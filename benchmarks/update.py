"""One epoch of preference optimisation over pairs whose frozen log-probabilities are known: ours, and TRL's.

`python -m benchmarks.update --side ours|theirs --case sigmoid|ipo|hinge` prints seconds, losses and memory of one run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

from benchmarks.tiny import PROMPT, RESPONSE, build_model, build_pairs, build_tokenizer, resident_mib, tell, use_threads

PAIRS, BATCH, RATE, STRENGTH = 512, 32, 1e-4, 0.1
CASES = ("sigmoid", "ipo", "ipo-sum", "hinge")


def ours(case: str) -> dict[str, Any]:
    """Our fit, frozen scores included in `scoring_s`."""
    import numpy as np

    from trainers import DPO, IPO, SLiC
    from trainers.optimise import Optimiser
    from trainers.options import Training
    from trainers.pairs import Pairs, score
    from trainers.policies.causal_lm import CausalLM

    algorithm = {
        "sigmoid": DPO(beta=STRENGTH),
        "ipo": IPO(tau=STRENGTH, log_prob="mean", regime="iterative"),
        "ipo-sum": IPO(tau=STRENGTH, regime="iterative"),
        "hinge": SLiC(beta=STRENGTH),
    }[case]
    training = Training(lr=RATE, schedule="constant", warmup=0.0, batch_size=BATCH, precision="fp32")
    model, data = build_model(), build_pairs(PAIRS)
    imported = resident_mib()
    policy, pairs = CausalLM(model.eval(), build_tokenizer()), Pairs(**data, preference=np.ones(PAIRS))
    started = time.perf_counter()
    scores = score(policy, pairs, BATCH)
    scored = time.perf_counter()
    optimiser, losses = Optimiser(policy, training, PAIRS // BATCH), []
    name = algorithm.phases[0].frozen[0]
    for start in range(0, PAIRS, BATCH):  # in order: `fit` would shuffle
        rows = list(range(start, start + BATCH))
        losses.append(optimiser.step(policy, algorithm, pairs.select(rows), {name: scores[rows]})["loss"])
    ended = time.perf_counter()
    return {
        "seconds": ended - scored,
        "scoring_s": scored - started,
        "losses": losses,
        "peak_mib": resident_mib() - imported,
    }


def theirs(case: str) -> dict[str, Any]:
    """TRL's DPOTrainer with precomputed reference log-probabilities, on rows that are tokens already."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    class Trainer(DPOTrainer):
        """The rows as they are, in order."""

        def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *arguments: Any, **options: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    model, data = build_model(), build_pairs(PAIRS)
    rows = {"prompt_ids": data["prompts"], "chosen_ids": data["chosen"], "rejected_ids": data["rejected"]}
    imported = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            loss_type=[case],
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
        started = time.perf_counter()
        trainer = Trainer(
            model=model, args=config, train_dataset=Dataset.from_dict(rows), processing_class=build_tokenizer()
        )
        scored = time.perf_counter()
        trainer.train()
        ended = time.perf_counter()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "seconds": ended - scored,
        "scoring_s": scored - started,
        "losses": losses,
        "peak_mib": resident_mib() - imported,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("ours", "theirs"), required=True)
    parser.add_argument("--case", choices=CASES, required=True)
    chosen = parser.parse_args()
    use_threads()
    tell({"ours": ours, "theirs": theirs}[chosen.side](chosen.case))


if __name__ == "__main__":
    main()
