"""Sampled experience of policies: control episodes, responses, groups, pairs."""
