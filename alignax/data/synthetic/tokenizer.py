"""The world's tokenizer: one token a word, and a chat template of two.

<|user|>reverse cat dog<|end|><|assistant|>dog cat<|end|>

Tools are listed and speak in system turns; a call is words in brackets.
"""

from alignax.data.synthetic import words as w
from alignax.data.synthetic.tasks import FAMILIES, FOLLOW_UPS
from alignax.data.synthetic.text import LAYOUTS, SIGNS, SYMBOLS

PAD, UNKNOWN, END = '<pad>', '<unk>', '<|end|>'
ROLES = ('<|system|>', '<|user|>', '<|assistant|>')
CHAT_TEMPLATE = (
  "{% if tools %}{{ '<|system|>' + tools | map(attribute='function.name')"
  " | join(' ') + '<|end|>' }}{% endif %}"
  '{% for message in messages %}'
  "{% set role = 'system' if message['role'] == 'tool' else message['role'] %}"
  "{{ '<|' + role + '|>' + message['content'] }}"
  "{% for call in message['tool_calls'] or [] %}"
  "{{ '[ ' + call['function']['name'] + ' ' + call['function']['arguments']"
  ".values() | join(' ') + ' ]' }}{% endfor %}"
  "{{ '<|end|>' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def vocabulary() -> list[str]:
  """All words of the world, special tokens first, in a fixed order."""
  texts = [
    *w.REFUSALS,
    *w.WRAPPINGS,
    *w.REFUSAL_WRAPPINGS,
    *w.CHATTER,
    *w.LINKS,
    *FILLINGS,
  ]
  for family in FAMILIES.values():
    texts += [*family.phrasings, family.statement]
  for wordings in [*w.CONSTRAINTS.values(), *FOLLOW_UPS.values()]:
    texts += wordings
  words = {x for text in texts for x in text.split() if '{' not in x}
  words |= {*w.NOUNS, *w.NUMBERS, *w.DAYS, *w.FORBIDDEN, *w.NEAR_MISSES}
  words |= {*w.CATEGORIES, *w.PLURALS.values(), *w.FORMAT_WORDS}
  return [PAD, UNKNOWN, END, *ROLES, *sorted(words)]


# Words of layouts and answers, and of probes to come.
FILLINGS = (
  *(' '.join(layout) for layout in LAYOUTS),
  *SIGNS,
  *SYMBOLS,
  'yes no',
  '. i think it is',
  'my friend says',
  'am sure wrong right because so',
)


def make_tokenizer():
  """A `PreTrainedTokenizerFast`, with its template; nothing is downloaded."""
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  ids = {word: i for i, word in enumerate(vocabulary())}
  tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    pad_token=PAD,
    unk_token=UNKNOWN,
    eos_token=END,
    additional_special_tokens=list(ROLES),
    chat_template=CHAT_TEMPLATE,
    clean_up_tokenization_spaces=False,
    model_max_length=64,
  )
