"""Returns and V-trace as the explicit sums of their definitions, without recursion."""

import math

import numpy as np


def _successors(mask, values, ends):
    """By row: the unmasked steps, the value after each of them, and whether its episode ends."""
    terminations, truncations, final_values, bootstrap_values = ends
    for b, row in enumerate(mask):
        steps = [t for t, real in enumerate(row) if real]
        after, over = [], []
        for place, t in enumerate(steps):
            if terminations[b][t]:
                after.append(0.0)
            elif truncations[b][t]:
                after.append(final_values[b][t])
            elif place + 1 < len(steps):
                after.append(values[b][steps[place + 1]])
            else:
                after.append(bootstrap_values[b])
            over.append(bool(terminations[b][t] or truncations[b][t] or place + 1 == len(steps)))
        yield b, steps, after, over


def n_step_returns(rewards, values, mask, ends, gamma: float, n: int) -> np.ndarray:
    """Sutton and Barto 2018, Eq. 7.1: G_t = r_t + ... + gamma^(m-1) r_{t+m-1} + gamma^m V."""
    returns = np.zeros(np.shape(mask))
    for b, steps, after, over in _successors(mask, values, ends):
        for place, t in enumerate(steps):
            last = place
            while last - place + 1 < n and not over[last]:
                last += 1
            terms = [gamma ** (i - place) * rewards[b][steps[i]] for i in range(place, last + 1)]
            returns[b, t] = math.fsum([*terms, gamma ** (last - place + 1) * after[last]])
    return returns


def discounted_returns(rewards, mask, ends, gamma: float) -> np.ndarray:
    """Sutton and Barto 2018, Eq. 3.9: more steps than there are."""
    return n_step_returns(rewards, np.zeros(np.shape(mask)), mask, ends, gamma, 10**6)


def lambda_returns(rewards, values, mask, ends, gamma: float, trace_lambda: float) -> np.ndarray:
    """Sutton and Barto 2018, Eq. 12.3: (1 - lambda) sum_n lambda^(n-1) G^n, the rest on the last.

    Returns of more steps than the episode has equal the last one, which takes their weight.
    """
    longest = np.shape(mask)[1]
    total = np.zeros(np.shape(mask))
    for n in range(1, longest):
        weight = (1 - trace_lambda) * trace_lambda ** (n - 1)
        total += weight * n_step_returns(rewards, values, mask, ends, gamma, n)
    rest = trace_lambda ** (longest - 1)
    return total + rest * n_step_returns(rewards, values, mask, ends, gamma, longest)


def vtrace(log_ratios, rewards, values, mask, ends, gamma, trace_lambda, rho_clip, c_clip):
    """Espeholt et al. 2018, Eq. 1 (with Remark 2), and the advantage of their sec. 4.2."""
    shape = np.shape(mask)
    targets, advantages = np.zeros(shape), np.zeros(shape)
    for b, steps, after, over in _successors(mask, values, ends):
        ratios = [math.exp(log_ratios[b][t]) for t in steps]
        rho = [min(rho_clip, ratio) for ratio in ratios]
        c = [trace_lambda * min(c_clip, ratio) for ratio in ratios]
        deltas = [
            rho[i] * (rewards[b][t] + gamma * after[i] - values[b][t]) for i, t in enumerate(steps)
        ]
        for place, t in enumerate(steps):
            total, trace = 0.0, 1.0
            for i in range(place, len(steps)):
                total += trace * deltas[i]
                trace *= gamma * c[i]
                if over[i]:
                    break
            targets[b, t] = values[b][t] + total
        for place, t in enumerate(steps):
            following = after[place]
            if not over[place]:
                target = targets[b, steps[place + 1]]
                following = trace_lambda * target + (1 - trace_lambda) * following
            advantages[b, t] = rho[place] * (rewards[b][t] + gamma * following - values[b][t])
    return advantages, targets
