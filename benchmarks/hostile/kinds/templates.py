"""Chat templates: escapes from the sandbox, loops and texts without end, odd shapes."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import Fault, either, refused
from benchmarks.hostile.probes import copied, measured
from benchmarks.hostile.trial import Room, Trial

KIND = "templates"
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>{% endfor %}"
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'].system('touch marker') }}",
    "import": "{{ cycler.__init__.__globals__.os.popen('touch marker').read() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': messages}) }}",
    "attr": "{{ messages|attr('__class__')|attr('__mro__') }}",
    "lipsum": "{{ lipsum.__globals__['os'].system('touch marker') }}",
    "self": "{{ self.__init__.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import_file": "{% import '/etc/passwd' as p %}{{ p }}",
    "extends": "{% extends '/etc/passwd' %}",
    "strftime": "{{ strftime_now.__globals__ }}",
    "namespace": "{% set n = namespace(a=1) %}{{ n.__class__.__init__.__globals__ }}",
    "map_attribute": "{{ [messages]|map(attribute='__class__')|list }}",
    "append": "{{ messages.append(1) }}" + TURNS,
    "clear": "{{ messages.clear() }}" + TURNS,
    "change": "{% for m in messages %}{{ m.update({'content': 'x'}) }}{% endfor %}" + TURNS,
}
BOMBS = {
    "nested_loops": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}"
                    "{% endfor %}",
    "silent_loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
                    "{% endfor %}",
    "set_loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% set k = i * j %}"
                 "{% endfor %}{% endfor %}",
    "power": "{{ 10**(10**8) }}",
    "power_hidden": "{% set a = 9**9**9 %}" + TURNS,
    "tower": "{{ 9**9**9**9 }}",
    "shift": "{{ (2**100000)**1000 }}",
    "doubled_text": "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(40) %}"
                    "{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "doubled_plus": "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(40) %}"
                    "{% set n.s = n.s + n.s %}{% endfor %}" + TURNS,
    "doubled_list": "{% set n = namespace(s=[1]) %}{% for i in range(40) %}"
                    "{% set n.s = n.s + n.s %}{% endfor %}" + TURNS,
    "repeated": "{{ 'x' * 10**10 }}",
    "repeated_list": "{% set a = [1] * 10**10 %}" + TURNS,
    "center": "{{ 'x'.center(10**10) }}",
    "ljust": "{{ 'x'.ljust(10**10) }}",
    "zfill": "{{ 'x'.zfill(10**10) }}",
    "indent": "{{ 'x'|indent(10**10, true) }}",
    "filter_center": "{{ 'x'|center(10**10) }}",
    "format_width": "{{ '%10000000000d' % 3 }}",
    "format_filter": "{{ '%10000000000d'|format(3) }}",
    "str_format": "{{ '{:10000000000}'.format(3) }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "replace": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "join": "{{ (['x' * 100000] * 100000)|join('y' * 1000) }}",
    "batch": "{{ messages|batch(10**9, 'x')|list }}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "recursion_tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}x"
                      "{% endmacro %}{{ f(60) }}",
    "deep": "{% if true %}" * 3000 + TURNS + "{% endif %}" * 3000,
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long": "{# " + "x" * 10**7 + " #}" + TURNS,
    "range_list": "{{ range(10**9)|list|length }}",
    "sum": "{{ range(99999)|sum * range(99999)|list|length }}" * 200,
    "sort": "{{ (range(99999)|list * 500)|sort|length }}",
    "tojson": "{{ (['x' * 1000] * 10**7)|tojson|length }}",
    "split": "{{ ('x ' * 10**8).split()|length }}",
    "wordwrap": "{{ ('x' * 10**6)|wordwrap(1)|length }}",
    "upper_loop": "{% for i in range(99999) %}{% set x = ('y' * 99999)|upper %}{% endfor %}",
    "dict": "{% set d = dict(a=range(10**8)|list) %}" + TURNS,
}  # fmt: skip
ODD = {
    "empty": "",
    "nothing": "{# nothing #}",
    "constant": "hello",
    "no_content": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "first_only": "{{ messages[0].content }}",
    "reversed": "{% for m in messages|reverse %}{{ m.content }}{% endfor %}",
    "upper": "{% for m in messages %}{{ m.content|upper }}{% endfor %}",
    "half": "{% for m in messages %}{{ m.content[:2] }}{% endfor %}",
    "syntax": "{% for m in messages",
    "unknown_filter": "{{ messages|no_such_filter }}",
    "unknown_tag": "{% no_such_tag %}",
    "undefined": "{{ no_such.name.here }}",
    "division": "{{ 1 // 0 }}",
    "key": "{{ messages[99].content }}",
    "refuses": "{{ raise_exception('no\nthank you') }}",
    "refuses_long": "{{ raise_exception('x' * 99999) }}",
    "refuses_number": "{{ raise_exception(3) }}",
    "strftime_bad": "{{ strftime_now(3) }}" + TURNS,
    "twice": TURNS + TURNS,
}
# What Jinja renders without complaint, and transformers does too.
PLAIN = {
    "strftime_percent": "{{ strftime_now('%') }}" + TURNS,
    "zero_character": "\0" + TURNS,
    "unknown_token": TURNS + "{{ no_such_token }}",
    "comment": TURNS + "{# nothing #}",
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Escapes, bombs and odd ones on conversations."""
    for name, template in ESCAPES.items():
        yield _trial(f"escape_{name}", template, escape)
    for name, template in BOMBS.items():
        yield _trial(f"bomb_{name}", template, bomb)
        if name in ("nested_loops", "doubled_text", "power", "repeated", "long"):
            yield _trial(f"bomb_behind_{name}", TURNS + template, bomb)
    for name, template in ODD.items():
        yield _trial(f"odd_{name}", template, odd)
    for name, template in PLAIN.items():
        yield _trial(f"plain_{name}", template, bomb)


def _trial(name: str, template: str, act: Callable[..., str]) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, template=template))


def used(room: Room, template: str) -> Any:
    """What `evaluate` does with conversations and that template."""
    folder = copied(room, room.base.published("llama"))
    room.write("model/chat_template.jinja", template)
    rows = [{"messages": [{"role": "user", "content": "a fine"},
                          {"role": "assistant", "content": "film"}]}] * 3  # fmt: skip
    return measured(room, folder, data=room.write("chats.jsonl", rows))


def no_marker(room: Room) -> None:
    """No code was run.

    Raises:
      Fault: it was.
    """
    if (room.path / "marker").exists():
        raise Fault("silent", "the template ran a command")


def escape(room: Room, *, template: str) -> str:
    """Stopped, or rendered without what it reaches for."""
    done = either(used(room, template), lambda: None, "template")
    no_marker(room)
    return done


def bomb(room: Room, *, template: str) -> str:
    """Refused, or done within bounds."""
    return either(used(room, template), lambda: None, "template", "chats.jsonl")


def odd(room: Room, *, template: str) -> str:
    """What leaves out, repeats or changes what people say is refused; all in a line."""
    return refused(used(room, template), "template", "chats.jsonl")
