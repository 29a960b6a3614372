"""Tokenizers small enough to read, made on the spot."""

CORPUS = [
  'Name three colours. Red, green and blue are three colours.',
  'user assistant system tool <|x|> Human: Assistant: Instruction Response',
  'What is two plus two? It is four, of course. Hello there, how are you?',
  'below is an instruction that describes a task\n\n###\n',
]

QWEN = (
  "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are "
  "helpful.<|im_end|>\\n' }}{% endif %}"
  '{% for message in messages %}'
  "{% if message['role'] == 'tool' %}"
  "{{ '<|im_start|>user\\n<tool_response>\\n' + message['content'] + "
  "'\\n</tool_response><|im_end|>\\n' }}"
  '{% else %}'
  "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
  "{% for call in message['tool_calls'] or [] %}"
  "{{ '\\n<tool_call>\\n' + (call['function'] | tojson) + '\\n</tool_call>' }}"
  '{% endfor %}'
  "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
  '{{ bos_token }}{% for message in messages %}'
  "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
  "(message['content'] | trim) + '<|eot_id|>' }}{% endfor %}"
  '{% if add_generation_prompt %}'
  "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
# Like Qwen 3: the thinking of a turn goes once a user's turn follows it.
THINKING = (
  '{% for message in messages %}'
  "{{ '<|im_start|>' + message['role'] + '\\n' }}"
  "{% if message['role'] == 'assistant' and loop.last %}"
  "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
  "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GENERATION = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
  "{% if message['role'] == 'assistant' %}"
  "{% generation %}{{ message['content'] }}{% endgeneration %}"
  "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\\n' }}"
  '{% endfor %}'
)


def make_tokenizer(
  template=None,
  *,
  special=(),
  control=('<|im_start|>', '<|im_end|>'),
  bos=None,
  eos='<|im_end|>',
):
  """A byte-level BPE that knows a few merges and some control tokens."""
  from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
  )
  from transformers import PreTrainedTokenizerFast

  control = list(dict.fromkeys([*control, '<pad>', *special]))
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=control,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(CORPUS, trainer)
  tokenizer.add_tokens(['<think>', '</think>'])
  if bos:
    bos_id = tokenizer.token_to_id(bos)
    tokenizer.post_processor = processors.TemplateProcessing(
      single=f'{bos} $A', special_tokens=[(bos, bos_id)]
    )
  names = {'bos_token': bos} if bos else {}
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token=eos,
    pad_token='<pad>',
    chat_template=template,
    **names,
  )
