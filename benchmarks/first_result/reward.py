"""The reward function of the GRPO job, as TRL and jaxalign both call it."""


def plain_words(prompts, completions, **columns) -> list[float]:
    """Share of short words in a response, minus what it lacks to twenty words."""
    scores = []
    for completion in completions:
        words = completion[0]["content"].split()
        short = sum(len(word) <= 5 for word in words)
        scores.append(short / max(len(words), 1) - max(0, 20 - len(words)) / 20)
    return scores
