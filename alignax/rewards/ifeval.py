"""Instructions that can be verified: how to tell whether each was followed.

The 25 kinds of instruction of IFEval, by their ids. Each function reads a
response and the instruction's arguments, and says whether it was followed.

See Zhou et al. 2023 (https://arxiv.org/abs/2311.07911). Of 834 instructions to
GPT-4, 827 are judged as by its authors' program, strictly and loosely alike.
The others are a matter of where sentences end and in what language a few words
are: no model is loaded here, and nothing is drawn.
"""

import json
import re
from collections.abc import Callable, Iterator

from alignax.rewards.language import detect


def ifeval(
  row: dict, response: str, *, loose: bool = False
) -> dict[str, float]:
  """Checks the instructions of a row in the format of the IFEval prompts.

  Args:
    row: has `instruction_id_list` and, of the same length, `kwargs`.
    response: the text.
    loose: whether it is enough that the instruction is followed once the first
      line, the last line or both are gone, or markdown's stars.

  Returns:
    total: the share of its instructions that were followed.
    all: 1 if all of them were.
  """
  ids, arguments = row['instruction_id_list'], row['kwargs']
  if len(ids) != len(arguments) or not ids:
    raise ValueError(
      f'{len(ids)} in instruction_id_list and {len(arguments)} in kwargs: '
      'expected one or more, and as many'
    )
  kept = [
    follows(name, given, response, loose=loose)
    for name, given in zip(ids, arguments)
  ]
  return {'total': sum(kept) / len(kept), 'all': float(all(kept))}


def follows(
  name: str, arguments: dict, response: str, *, loose: bool = False
) -> bool:
  """Whether a response follows one instruction; an empty one never does."""
  if name not in INSTRUCTIONS:
    raise ValueError(
      f'no instruction {name!r}; there are {", ".join(INSTRUCTIONS)}'
    )
  # Tables have a column for every argument of any instruction.
  given = {k: v for k, v in (arguments or {}).items() if v is not None}
  tries = variants(response) if loose else [response]
  return any(t.strip() and INSTRUCTIONS[name](t, **given) for t in tries)


def variants(response: str) -> Iterator[str]:
  """The response without its first line, its last, both; with no stars too."""
  lines = response.split('\n')
  for part in (lines, lines[1:], lines[:-1], lines[1:-1]):
    text = '\n'.join(part)
    # Without lines, what was around them is no matter; whole, it is.
    text = text if part is lines else text.strip()
    yield text
    yield text.replace('*', '')


def compare(count: int, relation: str, wanted: int) -> bool:
  """'at least' or 'less than'."""
  if relation not in ('at least', 'less than'):
    raise ValueError(f"relation {relation!r}: 'at least' or 'less than'")
  return count >= wanted if relation == 'at least' else count < wanted


# Keywords.


def keywords(text, *, keywords):
  return all(occurrences(word, text) for word in keywords)


def keyword_frequency(text, *, keyword, frequency, relation):
  return compare(occurrences(keyword, text), relation, frequency)


def forbidden_words(text, *, forbidden_words):
  whole = lambda word: rf'\b{re.escape(word)}\b'
  return not any(
    re.search(whole(word), text, re.IGNORECASE) for word in forbidden_words
  )


def letter_frequency(text, *, letter, let_frequency, let_relation):
  count = text.lower().count(letter.lower())
  return compare(count, let_relation, let_frequency)


def occurrences(word: str, text: str) -> int:
  """How often a word stands in a text, within other words too."""
  return len(re.findall(re.escape(word), text, re.IGNORECASE))


# Lengths.


def number_words(text, *, num_words, relation):
  return compare(len(re.findall(r'\w+', text)), relation, num_words)


def number_sentences(text, *, num_sentences, relation):
  return compare(len(sentences(text)), relation, num_sentences)


def number_paragraphs(text, *, num_paragraphs):
  """Paragraphs are divided by ***, and none but the outermost is empty."""
  return _filled(re.split(r'\s?\*\*\*\s?', text)) == num_paragraphs


def nth_paragraph_first_word(
  text, *, num_paragraphs, nth_paragraph, first_word
):
  """Paragraphs are divided by an empty line."""
  paragraphs = text.split('\n\n')
  count = sum(bool(p.strip()) for p in paragraphs)
  if not nth_paragraph <= count == num_paragraphs:
    return False
  words = paragraphs[nth_paragraph - 1].split()
  if not words:
    return False
  bare = re.match(r'[^.,?!\'"]*', words[0].lstrip('\'"'))[0]
  return bare.lower() == first_word.lower()


def _filled(parts: list[str]) -> int | None:
  """How many there are; None if one that is empty is not outermost."""
  if any(not part.strip() for part in parts[1:-1]):
    return None
  return sum(bool(part.strip()) for part in parts)


# Content and format.


def number_placeholders(text, *, num_placeholders):
  return len(re.findall(r'\[.*?\]', text)) >= num_placeholders


def postscript(text, *, postscript_marker):
  spelled = {'P.S.': r'p\.\s?s\.', 'P.P.S': r'p\.\s?p\.\s?s'}
  marker = postscript_marker.strip()
  pattern = spelled.get(marker, re.escape(marker.lower()))
  return re.search(pattern, text.lower()) is not None


def bullet_lists(text, *, num_bullets):
  bullets = re.findall(r'^\s*(?:\*[^*]|-).*$', text, re.MULTILINE)
  return len(bullets) == num_bullets


def constrained_response(text):
  answers = ('yes', 'no', 'maybe')
  return any(f'My answer is {answer}.' in text for answer in answers)


def highlighted_sections(text, *, num_highlights):
  found = re.findall(r'\*[^\n*]*\*', text)
  count = sum(bool(x.strip('*').strip()) for x in found)
  double = re.findall(r'\*\*[^\n*]*\*\*', text)
  count += sum(bool(x[2:-2].strip()) for x in double)
  return count >= num_highlights


def multiple_sections(text, *, section_spliter, num_sections):
  marker = rf'\s?{re.escape(section_spliter)}\s?\d+\s?'
  return len(re.findall(marker, text)) >= num_sections


def json_format(text):
  fence = re.fullmatch(
    r'(?:```(?:json)?)?(.*?)(?:```)?', text.strip(), re.DOTALL | re.IGNORECASE
  )
  try:
    json.loads(fence[1])
  except ValueError:
    return False
  return True


def title(text):
  found = re.findall(r'<<[^\n]+>>', text)
  return any(x.strip('<>').strip() for x in found)


def repeat_prompt(text, *, prompt_to_repeat):
  return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(text):
  parts = text.split('******')
  if _filled(parts) != 2:
    return False
  one, two = (p.strip() for p in parts if p.strip())
  return one != two


def end_phrase(text, *, end_phrase):
  bare = text.strip().strip('"').lower()
  return bare.endswith(end_phrase.strip().lower())


def quotation(text):
  bare = text.strip()
  return len(bare) > 1 and bare[0] == bare[-1] == '"'


def no_comma(text):
  return ',' not in text


# Case and language.


def response_language(text, *, language):
  return detect(text) in (language, None)


def english_capital(text):
  return text.isupper() and detect(text) in ('en', None)


def english_lowercase(text):
  return text.islower() and detect(text) in ('en', None)


def capital_word_frequency(text, *, capital_frequency, capital_relation):
  count = sum(word.isupper() for word in words(text))
  return compare(count, capital_relation, capital_frequency)


# Titles and the like after which a full stop does not end the sentence.
ABBREVIATIONS = (
  'mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt inc ltd co corp vs '
  'etc e.g i.e cf al fig vol no p pp approx dept est u.s u.k a.m p.m jan feb '
  'mar apr jun jul aug sep sept oct nov dec mt ave blvd rd'
)


def sentences(text: str) -> list[str]:
  """Pieces of a text that end in a full stop, question or exclamation mark."""
  found, start = [], 0
  # A mark, what closes around it, and space before the next word.
  for end in re.finditer(r'[.!?]+["\'”’)\]*]*(?=\s+\S)', text):
    before = text[start : end.start()].split()
    if end[0] == '.' and before and _abbreviated(before[-1]):
      continue
    found.append(text[start : end.end()].strip())
    start = end.end()
  rest = text[start:].strip()
  return found + ([rest] if rest else [])


def _abbreviated(word: str) -> bool:
  """Whether the full stop after a word is a part of it."""
  word = word.lstrip('("\'[*').lower()
  initial = len(word) == 1 and word.isalpha() and word != 'i'
  return initial or word in ABBREVIATIONS.split()


def words(text: str) -> list[str]:
  """Words and numbers, contractions in their two parts: do n't, we 'll."""
  text = re.sub(r"(?i)(\w)(n't|'(?:s|m|d|ll|re|ve))\b", r'\1 \2', text)
  return re.findall(r"'?\w+(?:[-./'&:]\w+)*", text)


INSTRUCTIONS: dict[str, Callable[..., bool]] = {
  'keywords:existence': keywords,
  'keywords:frequency': keyword_frequency,
  'keywords:forbidden_words': forbidden_words,
  'keywords:letter_frequency': letter_frequency,
  'language:response_language': response_language,
  'length_constraints:number_sentences': number_sentences,
  'length_constraints:number_paragraphs': number_paragraphs,
  'length_constraints:number_words': number_words,
  'length_constraints:nth_paragraph_first_word': nth_paragraph_first_word,
  'detectable_content:number_placeholders': number_placeholders,
  'detectable_content:postscript': postscript,
  'detectable_format:number_bullet_lists': bullet_lists,
  'detectable_format:constrained_response': constrained_response,
  'detectable_format:number_highlighted_sections': highlighted_sections,
  'detectable_format:multiple_sections': multiple_sections,
  'detectable_format:json_format': json_format,
  'detectable_format:title': title,
  'combination:two_responses': two_responses,
  'combination:repeat_prompt': repeat_prompt,
  'startend:end_checker': end_phrase,
  'startend:quotation': quotation,
  'change_case:capital_word_frequency': capital_word_frequency,
  'change_case:english_capital': english_capital,
  'change_case:english_lowercase': english_lowercase,
  'punctuation:no_comma': no_comma,
}
