"""Commands and recipes hold no formula: that stands beside its paper, and they call it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxalign

PACKAGE = Path(jaxalign.__file__).parent
ARRAYS = ("np", "numpy", "jnp", "jax", "math")
REDUCTIONS = {"sum", "mean", "std", "var", "prod", "dot", "cumsum", "argmax", "argmin"}
ARITHMETIC = REDUCTIONS | {
    *("log", "log1p", "log2", "log10", "exp", "expm1", "sqrt", "square", "power", "sign", "abs"),
    *("where", "maximum", "minimum", "clip", "nanmean", "nansum", "nanstd", "median", "average"),
    *("quantile", "percentile", "logaddexp", "logsumexp", "matmul", "einsum", "nan_to_num"),
    *("softmax", "log_softmax", "sigmoid", "log_sigmoid", "softplus", "relu", "one_hot", "tanh"),
}
# file: what it counts there, and why that is no formula of a paper
IN_COMMANDS = {
    "rlhf/comparison.py": "means over prompts and the median score, for tables of the main job",
    "rlhf/job.py": "which of the measured settings is the best",
    "rlhf/samples.py": "means over the samples of a method, for tables of the main job",
}
IN_RECIPES = {
    "accuracy.py": "which side of a label counts, and lengths of responses",
    "control.py": "means of episodes that ended, for metrics",
    "distillation.py": "counts of tokens, and the mean over batches, for metrics",
    "images.py": "shares of right answers among test images, and means over seeds, for tables",
    "online.py": "means over prompts of a step, for metrics",
    "packed_step.py": "outputs of packed texts in the places of tokens, 0 on padding",
    "preferences.py": "how many tokens responses have",
    "process_reward.py": "the chance that a logit stands for",
    "rankings.py": "Kendall's tau of shares, and where a ranking ends",
    "reward.py": "scores standardised over texts",
    "reward_sources.py": "what is beyond the largest score; shares of unjudged responses",
    "scoring.py": "how many tokens were counted",
    "sample_evaluation.py": "sums over the tokens of an answer: its log-ratio and its length",
    "sample_metrics.py": "means over the tokens of a response, and over responses, for metrics",
    "sample_records.py": "lengths of responses in tokens",
    "seeds.py": "means over seeds and episodes, for tables",
    "text_batches.py": "shares of padding and tokens of a batch",
    "user_data.py": "lengths of texts and numbers of rows, as a run tells them",
}


def arithmetic(tree: ast.AST) -> Iterator[str]:
    """`np.log` and its like, and `.mean()` of anything."""
    for node in ast.walk(tree):
        named = isinstance(node, ast.Attribute) and node.attr in ARITHMETIC
        if named and ast.unparse(node).split(".")[0] in ARRAYS:
            yield ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_array = ast.unparse(node.func).split(".")[0] in ARRAYS
            if node.func.attr in REDUCTIONS and not of_array:
                yield f".{node.func.attr}()"


def with_arithmetic(part: str) -> dict[str, set[str]]:
    files = {path.relative_to(PACKAGE / part): path for path in (PACKAGE / part).rglob("*.py")}
    found = {
        str(name): set(arithmetic(ast.parse(path.read_text()))) for name, path in files.items()
    }
    return {name: calls for name, calls in found.items() if calls}


@pytest.mark.parametrize(("part", "named"), [("commands", IN_COMMANDS), ("recipes", IN_RECIPES)])
def test_formulas_stand_beside_their_papers(part, named):
    found = with_arithmetic(part)
    assert found.keys() == named.keys(), f"{found}: call a formula, or say here why it is none"
    assert all(len(reason) > 20 for reason in named.values())


@pytest.mark.parametrize(
    "code", ["np.log(x)", "jnp.where(a, b, c)", "x.mean()", "jax.nn.softmax(x)"]
)
def test_arithmetic_is_found(code):
    assert list(arithmetic(ast.parse(code)))
    assert not list(arithmetic(ast.parse("np.concatenate(x); f(x); np.asarray(x)")))
