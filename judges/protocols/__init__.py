"""How a language model is asked for a verdict, and how its reply is read: prompt and parser in one object."""
