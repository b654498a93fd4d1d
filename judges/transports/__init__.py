"""How a language model is reached: an endpoint, a checkpoint here, vLLM; pace, budget, prices and kept replies."""
