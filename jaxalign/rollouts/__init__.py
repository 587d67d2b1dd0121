"""From a policy to experience: episodes of control tasks, responses, groups, pairs."""
