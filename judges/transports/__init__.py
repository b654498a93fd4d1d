"""How a language model is reached: an endpoint, a checkpoint here, vLLM; limits, budget, prices and cached replies."""
