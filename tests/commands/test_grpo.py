"""What a run of `jaxalign grpo` writes of its method, in `results.json` and the report."""

import re

import pytest

from jaxalign.commands.grpo import description
from jaxalign.config.names import METHOD_PARTS
from jaxalign.losses import GROUP_LOSSES


def test_a_method_is_described_by_the_names_of_its_parts():
    assert description(GROUP_LOSSES["rloo"]) == (
        "The method, rloo: clip_range (0.2, 0.2), advantages leave_one_out, "
        "aggregation sequence_mean, drop_equal_groups False, entropy_coef 0.0, gamma 1.0, "
        "importance_cap None, importance_level token, importance_mode truncate, kl_coef 0.05, "
        "kl_estimator k1, kl_in reward, mask_truncated False, missing_eos_penalty 0.0, "
        "overlong_share 0.0, top_entropy None."
    )


@pytest.mark.parametrize("name", GROUP_LOSSES)
def test_every_part_is_found_under_the_name_that_describes_it(name):
    method = GROUP_LOSSES[name]
    fields = re.split(r", (?=[a-z])", description(method).partition(": ")[2].removesuffix("."))
    names = dict(field.split(" ", 1) for field in fields)
    for field, parts in METHOD_PARTS.items():
        assert parts[names[field]] is getattr(method, field)
