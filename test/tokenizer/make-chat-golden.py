"""Makes golden/chat.json: templates of our own that hold what real ones do, rendered by transformers' own environment.

    python test/tokenizer/make-chat-golden.py
"""

import copy
import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

NOW = datetime.datetime(2025, 1, 2, 15, 4, 5)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | string + '<|im_end|>' + '\n' }}{% endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n",
    "llama2 system": "{% if messages and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}{{ bos_token }}{% for m in loop_messages %}{% if loop.index0 == 0 and system != false %}{{ '<<SYS>>' + system + '<</SYS>>' }}{% endif %}{{ m.content | trim }}{% endfor %}",
    "truth": "{{ '' == false }}{{ '' != false }}{{ 0 == false }}{{ 1 == true }}{{ none == false }}{{ [] == [] }}{{ {} == {} }}{{ {'a': [1]} == {'a': [1.0]} }}{{ '1' == 1 }}{{ nothing == none }}{{ nothing is defined }}",
    "printing": "{{ none }}|{{ true }}|{{ 1.0 }}|{{ 5 if false else 0.5 }}|{{ (1, 'x') }}|{{ (1,2) == [1,2] }}|{{ nothing }}|{{ [1, 'a\\'b', none, {'k': \"it's\"}] }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 7 / 2 }}|{{ 4 / 2 }}|{{ 2 ** 3 }}|{{ 'a' ~ 1 ~ none ~ true }}",
    "strip": "{{ 'xxabxx'.strip('x') }}|{{ '\\n\\nab\\n'.lstrip('\\n') }}|{{ ' ab '.rstrip() }}|{{ 'abcabc'.rstrip('cb') }}|{{ '  x ' | trim }}|{{ none | trim }}|{{ '--x-' | trim('-') }}",
    "scopes": "{% set x = 'out' %}{% for i in [1, 2, 3] %}{% if i == 1 %}{% set x = 'in' %}{% endif %}{{ x }}{% endfor %}{{ x }}{% set ns = namespace(x=0, y='a') %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}",
    "break": "{% for i in [1, 2, 3] %}a{{ i }}{% if i == 2 %}{% break %}{% endif %}b{% else %}none{% endfor %}{% for i in [1, 2, 3] %}c{% if i == 2 %}{% continue %}{% endif %}d{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}",
    "loop": "{% for m in ['a', 'b', 'c'] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }};{% endfor %}{% for i in range(6) if i is odd %}{{ i }}{{ loop.last }}{% endfor %}{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% for c in 'hé🦊' %}{{ c }},{% endfor %}{% for x in nothing %}{% endfor %}",
    "members": "{% set d = {'items': 1, 'get': 2, 'x': 3} %}{{ d['items'] }}{{ d.x }}{{ d.items() | list | length }}{{ d.get('x') }}{{ d.get('y') }}{{ d.get('y', 'z') }}{{ d.y is defined }}{{ 'items' in d }}{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ '🦊bc'[1:] }}{{ [1, 2, 3][::-1] }}{{ 'abcdef'[4:1:-2] }}{{ [1, 2][5] is defined }}{{ messages[0].nothing is none }}",
    "filters": "{{ [3, 1, 2] | sort | join(',') }}{{ ['b', 'A', 'a'] | sort | join }}{{ [{'n': 'x'}, {'n': 'y'}] | map(attribute='n') | join('-') }}{{ ['a', 'b'] | map('upper') | list }}{{ [1, 2, 3] | select('odd') | list }}{{ [1, 2, 3] | reject('equalto', 2) | list }}{{ [{'r': 'u'}, {'r': 's'}, {}] | selectattr('r', 'equalto', 'u') | list }}{{ [{'r': 1}, {}] | selectattr('r', 'defined') | list | length }}{{ [{'r': none}, {'r': 1}] | rejectattr('r') | list }}{{ 'ab cd-ef' | title }}{{ 'hELLO wORLD' | capitalize }}{{ 'x' | default('d') }}{{ nothing | default('d') }}{{ '' | d('d', true) }}{{ '🦊é' | length }}{{ {'b': 1, 'a': 2} | dictsort }}{{ 'a\nb\n\nc' | indent(2) }}{{ 'a\nb' | indent(2, true) }}{{ '12' | int + 1 }}{{ 'x' | int(-1) }}{{ '1.5' | float }}{{ -3 | abs }}{{ [1, 1, 2] | unique | list }}{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'aXbX' | replace('X', '-') }}{{ 'abc' | reverse }}{{ 2.5 | round }}{{ [1, 2] | sum }}{{ ['b', 'c', 'a'] | max }}{{ '<a&b>' | e }}",
    "methods": "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'aBC'.capitalize() }}{{ \"they're bill's\".title() }}{{ 'ab'.upper() }}{{ 'x-y'.replace('-', '+') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ 'a\nb\r\nc'.splitlines() }}{{ ', '.join(['a', 'b']) }}{{ 'abcb'.find('b') }}{{ 'abcb'.count('b') }}{{ '12'.isdigit() }}{{ 'pre-x'.removeprefix('pre-') }}",
    "tojson": "{{ messages | tojson }}\n{{ {'b': [1, 2.5, true, none, '<é🦊>&\\'\"\\n\\u2028'], 'a': {}} | tojson(indent=2) }}\n{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}\n{{ [1, {'a': []}] | tojson(separators=(',', ':')) }}",
    "macros": "{% macro field(name, value='none', sep=': ') %}{{ name }}{{ sep }}{{ value }};{% endmacro %}{{ field('a') }}{{ field('b', 1) }}{{ field(sep='=', name='c', value=[2]) }}{% macro list(items) %}{% for i in items %}{% if i is string %}{{ i }}{% else %}({{ list(i) }}){% endif %}{% endfor %}{% endmacro %}{{ list(['a', ['b', ['c']], 'd']) }}{% macro wrap() %}[{{ caller() }}]{% endmacro %}{% call wrap() %}in{% endcall %}{% set t %}block {{ 1 + 1 }}{% endset %}{{ t | upper }}{% filter upper %}abc{% endfilter %}",
    "whitespace": "  {% if true %}\n    line\n  {% endif %}\n{#- comment -#}\n  {{- ' x ' -}}  \n\n{% for i in [1] -%}\n   y\n{%- endfor %}\r\nend\n\n",
    "tests": "{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}{{ 'a' is iterable }}{{ 'a' is sequence }}{{ none is none }}{{ nothing is undefined }}{{ 2 is even }}{{ range is callable }}{{ not 1 is number }}{{ 'A' is upper }}{{ none in [none] }}{{ 'a' in 'cat' }}{{ 'x' not in ['a'] }}{{ 'a' in nothing }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "date": "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %I%p %y') }}",
    "tools": "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{% if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}{% for n, p in t.function.parameters.properties.items() %}{{ n }}: {{ p.type }}{% endfor %}{% endfor %}{% else %}no tools{% endif %}",
    "raises": "{% if messages | length > 1 and messages[1].role != 'assistant' %}{{ raise_exception('Roles must alternate: ' ~ messages[1].role) }}{% endif %}ok",
    "undefined member": "{{ messages[0].a.b }}",
    "adds None": "{{ 'a' + none }}",
}

CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "Hi \"<b>\" & 'you'\n"}]},
    {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": " Hé 🦊 "}, {"role": "assistant", "content": "  Yes. "}]},
    {"messages": [{"role": "user", "content": "w"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5]}}}]}],
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}}}}]},
]


def main():
    cases = []
    for name, source in TEMPLATES.items():
        template = chat_template_utils._compile_jinja_template(source)
        for conversation in CONVERSATIONS:
            case = {"name": name, "template": source, **conversation}
            try:
                case["text"] = template.render(**{"tools": None, **copy.deepcopy(conversation)}, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
            except Exception as error:
                case["error"] = str(error)
            cases.append(case)
    path = Path(__file__).parent / "golden" / "chat.json"
    path.write_text(json.dumps(cases, indent=1) + "\n")


main()
