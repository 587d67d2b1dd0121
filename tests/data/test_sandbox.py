"""Templates of strangers end soon and stay small, and others are rendered as Jinja renders them."""

import json
import math
import threading
import tracemalloc

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from jaxalign.data.sandbox import BoundedEnvironment, bounded_rendering
from tests.folders import FILES

TEMPLATES = FILES / "chat" / "templates"
MESSAGES = [
    {"role": "user", "content": " Why?\n"},
    {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nSo <é>."},
    {"role": "user", "content": "Sure?"},
]
OPTIONS = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
BOUNDED = BoundedEnvironment({"tojson": lambda x, indent=None: json.dumps(x)}, **OPTIONS)


def rendered(template, **variables):
    return bounded_rendering(BOUNDED.from_string(template), {"messages": MESSAGES, **variables})


def written(expression):
    return "{{ " + expression + " }}"


PLAIN = [path.name for path in TEMPLATES.iterdir() if "training" not in path.name]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("asked", [True, False])
def test_known_templates_write_what_jinja_writes(name, asked):
    source = (TEMPLATES / name).read_text("utf-8")
    peer = ImmutableSandboxedEnvironment(**OPTIONS)
    told = {"messages": MESSAGES, "add_generation_prompt": asked, "bos_token": "<s>"}
    told |= {"eos_token": "</s>", "tools": None}
    assert bounded_rendering(BOUNDED.from_string(source), told) == peer.from_string(source).render(
        told
    )


EXPRESSIONS = [
    "1 + 2 * 3 ** 2 // 4 % 5 - 6 / 7",
    "'a' ~ 1 ~ none ~ [1, 'b'] ~ {'c': (1, 2)}",
    "'%s has %05.2f%%' % ('x', 3.14159)",
    "'{:>5}|{a[b]!r}'.format('x', a={'b': 1})",
    "['b', 'a'] | sort | join(', ') | upper",
    "messages | map(attribute='role') | unique | list",
    "messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join | trim",
    "messages[::-1] | length, messages[0].content.strip().split('h'), 'abc'[1:]",
    "'a-b'.replace('-', '') * 3 + 'x'.center(5) | replace(' ', '.')",
    "{'b': 1, 'a': 2} | dictsort, {'k': 1}.items() | list, range(5) | batch(2) | list",
    "undefined_name | default('d'), ('' or 'x'), 3 in [1, 2, 3], 'b' is in 'abc'",
    "'a\\nb' | indent(2), 'word word' | capitalize, [3, 1] | sum, 2.567 | round(1)",
    "'x' if messages else 'y', not false, -3 | abs, '7' | int + 1, '<a>' | e",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_mean_what_they_mean_in_jinja(expression):
    source = written(expression)
    peer = ImmutableSandboxedEnvironment(**OPTIONS).from_string(source)
    assert rendered(source) == peer.render(messages=MESSAGES)


def test_loops_know_their_place():
    source = """{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}
    {{- loop.previtem.role if loop.previtem else '-' }}{% endfor %}
    {% for k, v in {'a': 1}.items() if v %}{{ k }}{{ v }}{% else %}none{% endfor %}
    {% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}
    {% macro f(x, y=2) %}{{ x }}{{ y }}{{ caller() if caller }}{% endmacro %}{{ f(1) }}
    {% call f(3) %}inner{% endcall %}{% set ns = namespace(n=0) %}
    {% for i in range(9) %}{% if i == 5 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}
    {% endfor %}{{ ns.n }}{% set x, y = 1, 2 %}{{ x + y }}{% filter upper %}a{% endfilter %}"""
    peer = ImmutableSandboxedEnvironment(**OPTIONS).from_string(source)
    assert rendered(source) == peer.render(messages=MESSAGES)


GROW = "{%% set ns = namespace(x=%s) %%}{%% for i in range(40) %%}%s{%% endfor %%}{{ ns.x%s }}"
LONG = "'a' * 4000000"
ENDLESS = {
    "two loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "two loops that work": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}"
        "{% endfor %}"
    ),
    "a power": "{{ 10 ** (10 ** 8) }}",
    "powers": "{{ (10 ** 300) ** (10 ** 8) }}",
    "a product": "{{ 2 ** 4000 * 2 ** 4000 }}",
    "doubled text": GROW % ("'ab'", "{% set ns.x = ns.x + ns.x %}", "|length"),
    "doubled by ~": GROW % ("'ab'", "{% set ns.x = ns.x ~ ns.x %}", "|length"),
    "doubled by a block": GROW
    % ("'ab'", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}", ""),
    "doubled by replace": GROW % ("'ab'", "{% set ns.x = ns.x|replace('', 'zz') %}", ""),
    "doubled by a method": GROW % ("'ab'", "{% set ns.x = ns.x.replace('a', 'aa') %}", ""),
    "doubled by join": GROW % ("'ab'", "{% set ns.x = [ns.x, ns.x]|join %}", ""),
    "doubled by %": GROW % ("'ab'", "{% set ns.x = '%s%s' % (ns.x, ns.x) %}", ""),
    "doubled by format": GROW % ("'ab'", "{% set ns.x = '{0}{0}'.format(ns.x) %}", ""),
    "a list of itself": GROW % ("[1]", "{% set ns.x = [ns.x, ns.x] %}", ""),
    "dictionaries": GROW % ("{}", "{% set ns.x = {1: ns.x, 2: ns.x} %}", "|tojson"),
    "tuples": GROW % ("(1,)", "{% set ns.x = (ns.x, ns.x) %}", " == 1"),
    "a growing list": GROW % ("[]", "{% set ns.x = ns.x + [" + LONG + "] %}", "|length"),
    "a macro": "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(45) }}",
    "a macro in itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a block": "{% block a %}{{ self.a() }}{% endblock %}",
    "a recursive loop": (
        "{% for i in range(99999) recursive %}{{ loop(range(99999)) if loop.depth0 < 9 }}"
        "{% endfor %}"
    ),
    "a long text often": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "long comparisons": "{% set x = " + LONG + " %}{% set y = " + LONG + " %}"
    "{% for i in range(99999) %}{{ x == y }}{% endfor %}",
    "long searches": "{% set x = " + LONG + " %}{% for i in range(99999) %}"
    "{{ 'ab' in x }}{% endfor %}",
    "a product of a text": "{{ 'a' * 10 ** 9 }}",
    "a product with a text": "{{ 10 ** 9 * 'a' }}",
    "a product of a list": "{{ [0] * 10 ** 9 }}",
    "a product of lists": "{{ [[0] * 99999] * 99999 }}",
    "a join": "{{ ('a' * 99999).join(range(99999)|map('string')|list) }}",
    "a join of letters": "{{ ('a' * 999999).join('b' * 999999) }}",
    "a joined range": "{{ range(99999)|join('a' * 99999) }}",
    "a range": "{{ range(10 ** 9)|list }}",
    "a sum of lists": "{{ ([[1]] * 9999)|sum(start=[]) }}",
    "tests": "{{ range(99999)|select('in', range(99999)|list)|list }}",
    "letters": written(f"({LONG})|list"),
    "words": "{{ ('a ' * 1999999).split() }}",
    "titles": "{{ ('a-' * 1999999)|title }}",
    "many formats": "{{ ('%s' * 1999999) % 1 }}",
    "a long sum": "{{ " + "~".join([f"({LONG})"] * 200) + " }}",
    "a long template": "x" * 10**6,
    "a width in %": "{{ '%1000000000d' % 1 }}",
    "a precision in %": "{{ '%.1000000000f' % 1.5 }}",
    "a star in %": "{{ '%*d' % (10 ** 9, 1) }}",
    "a key in %": "{{ '%((a))1000000000d' % {'(a)': 1} }}",
    "a filter of %": "{{ '%1000000000d'|format(1) }}",
    "a format": "{{ '{:>1000000000}'.format(1) }}",
    "a format in a format": "{{ '{:>{}}'.format(1, 10 ** 9) }}",
    "a format of a map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "an attribute": "{{ ('{:>1000000000}'|attr('format'))(1) }}",
    "mapped": "{{ messages|map(attribute='role')|map('center', 10 ** 9)|list }}",
    "a method's": "{{ [].copy.__self__ }}{{ (1).to_bytes(10 ** 9, 'big') }}",
    "a type's": "{{ dict.fromkeys(range(9)) }}",
    "a translation": "{{ 'aaa'.translate({97: 'b' * 99999}) }}",
    "equal hashes": "{{ range(0, (2**61 - 1) * 99999, 2**61 - 1)|unique|list }}",
    "equal hashes in a dictionary": (
        "{{ dict(range(0, (2**61 - 1) * 20000, 2**61 - 1)|batch(2)|list) }}"
    ),
    "many arguments": ("{% for i in range(99999) %}{{ loop.cycle(*range(99999)) }}{% endfor %}"),
    "random words": "{{ lipsum(10 ** 6) }}",
    **{
        f"a width of {call}": written(f"'a\t\n'{call}")
        for call in (
            *(".center(10**9)", ".ljust(10**9)", ".rjust(10**9)", ".zfill(10**9)"),
            *(".expandtabs(10**9)", "|center(10**9)", "|indent(10**9)", "|batch(10**9, 'x')|list"),
            *("|slice(10**9)|list", "|indent('x' * 10**6)", "|tojson(indent=10**9)"),
            *("|round(10**9)", "|truncate(10**9)"),
        )
    },
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_ends(name, monkeypatch):
    """By its steps and sizes, however fast the machine is: the clock never stops it."""
    monkeypatch.setattr("jaxalign.data.sandbox_budget.SECONDS", math.inf)
    wrong = (SecurityError, jinja2.UndefinedError, OverflowError)
    with pytest.raises(wrong):
        rendered(ENDLESS[name])


@pytest.mark.parametrize("name", ["doubled text", "a growing list", "long comparisons", "a join"])
def test_a_template_stays_small(name):
    tracemalloc.start()
    with pytest.raises(SecurityError):
        rendered(ENDLESS[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_namespaces_that_hold_one_another_are_not_written_out():
    nested = "{% set ns = namespace(x=1) %}{% for i in range(60) %}"
    nested += "{% set n = namespace(a=ns.x, b=ns.x) %}{% set ns.x = n %}{% endfor %}"
    for use in ("ns.x", "ns.x|string", "'%s' % ns.x", "'{}'.format(ns.x)", "1 ~ ns.x", "[ns.x]"):
        with pytest.raises(SecurityError, match="it uses a _BriefNamespace as a text"):
            rendered(nested + written(use))
    assert rendered(nested + "{{ messages[ns.x] }}") == ""


def test_the_clock_stops_a_template_in_any_thread_and_leaves_none(monkeypatch):
    monkeypatch.setattr("jaxalign.data.sandbox_budget.SECONDS", 0.05)
    monkeypatch.setattr("jaxalign.data.sandbox_budget.STEPS", 10**9)
    found, before = [], set(threading.enumerate())

    def work():
        with pytest.raises(SecurityError, match=r"more than 0\.05 seconds") as refusal:
            rendered(ENDLESS["two loops"])
        found.append(refusal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1 and not set(threading.enumerate()) - before


def test_a_long_conversation_is_within_the_bounds():
    messages = [{"role": "user", "content": "word " * 200}] * 1000
    source = (TEMPLATES / "qwen3.jinja").read_text("utf-8")
    assert len(rendered(source, messages=messages)) > 1_000_000
    source = (
        "{% set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x + m.content %}"
    )
    messages = [{"role": "user", "content": "word " * 100}] * 200
    assert len(rendered(source + "{% endfor %}{{ ns.x }}", messages=messages)) == 100_000
