"""Which language a text is in: by its script, then by its frequent words.

Enough to tell whether a paragraph is in the language that was asked for. It is
a table and a count, so the same text always gets the same answer.
"""

import collections
import re

# First and last character of a block -> its script, or its only language here.
BLOCKS = (
  (0x0041, 0x024F, 'latin'),
  (0x1E00, 0x1EFF, 'latin'),
  (0x0370, 0x03FF, 'el'),
  (0x0400, 0x052F, 'cyrillic'),
  (0x0590, 0x05FF, 'he'),
  (0x0600, 0x06FF, 'arabic'),
  (0x0900, 0x097F, 'devanagari'),
  (0x0980, 0x09FF, 'bn'),
  (0x0A00, 0x0A7F, 'pa'),
  (0x0A80, 0x0AFF, 'gu'),
  (0x0B80, 0x0BFF, 'ta'),
  (0x0C00, 0x0C7F, 'te'),
  (0x0C80, 0x0CFF, 'kn'),
  (0x0D00, 0x0D7F, 'ml'),
  (0x0E00, 0x0E7F, 'th'),
  (0x3040, 0x30FF, 'ja'),
  (0x4E00, 0x9FFF, 'han'),
  (0xAC00, 0xD7AF, 'ko'),
)
# Words that stand in most sentences of a language and in few of its neighbours.
# Of one that shares its script, a word with a letter of its own says the most.
FREQUENT = {
  'latin': {
    'en': 'the of and to in is that it for you with was on as are be this have '
    'not at from or by but we they his her an will can your my would there '
    'what all if their has which do so who i he she',
    'de': 'der die das und ist nicht ein eine zu den mit von im auf für sich '
    'dem es ich sie wir auch dass werden wird einen einer sind haben kann oder '
    'aber bei nach als durch über',
    'fr': 'le la les et est des une un que qui dans pour pas sur avec ce il '
    'elle nous vous sont au aux du de en par plus cette être ont je mais ou',
    'es': 'el la los las que y en un una es por con para no se del su al lo '
    'como más pero sus está son este esta muy fue ser también hay yo',
    'it': 'il di che la per un una è non con del della sono le dei gli nel '
    'alla più come anche ma si lo questo questa essere ho ha i delle al molto',
    'pt': 'o a os as que de e do da em um uma para com não por mais dos das se '
    'na no ao como mas foi são é você seu sua também muito está eu',
    'nl': 'de het een en van ik te dat die in is niet zijn op aan met voor er '
    'maar om hem dan zou wat mijn dit zo door over ze zich bij ook tot je',
    'fi': 'ja on ei että se hän oli ovat kuin mutta myös joka olla ole tai kun '
    'niin sen mitä voi vain minä sinä me he tämä siitä ovat jos nyt',
    'sv': 'och att det som en på är av för med till den inte har de ett om jag '
    'men var sig från vi så kan när han hon',
    'pl': 'i w na z się nie do to że jest o jak ale po co tak za od przez dla '
    'są być może czy tym jego jej ich oraz',
    'tr': 'bir ve bu için da de ile çok ne gibi daha olarak var ama o kadar '
    'olan sonra ben sen değil mi en her',
    'vi': 'và là của có không được cho một người trong những với các đã tôi '
    'này để khi đến từ bạn như chúng ta sẽ rất cũng về ra',
    'sw': 'na ya wa kwa ni katika za la kuwa hii cha hiyo yake kama lakini '
    'watu sana yangu wangu mimi wewe yeye sisi hizo huu pia zaidi ambao kila '
    'au kutoka',
    'id': 'yang dan di itu dengan untuk tidak ini dari dalam akan pada juga '
    'saya ke karena tersebut bisa ada mereka oleh kami kita adalah atau',
  },
  'cyrillic': {
    'ru': 'и в не на что он с как это по но они мы из у за был так от же вы '
    'бы я все она его для только еще были её или ы',
    'bg': 'и на да се от за не е по с че са в като до ще това или който към '
    'беше има към една един съм си при те тя той ъ',
    'uk': 'і в не на що він з як це до та але вони ми із у за був так від ви '
    'я все вона його для його її або є',
  },
  'arabic': {
    'ar': 'في من على أن إلى التي الذي هذا هذه عن مع كان لا ما أو كل قد بعد '
    'كما إن لم هو هي ذلك',
    'fa': 'و در به از که این را با است برای آن یک تا می بر های شود شد کرد هم '
    'خود ما شما من بود اگر',
    'ur': 'کے کی میں ہے کو سے اور کا نے پر ہیں یہ کہ ایک بھی تھا جو اس ہو گیا '
    'کر نہیں آپ ہم تو',
  },
  'devanagari': {
    'hi': 'के में की है को और से का कि यह पर हैं एक ने भी इस नहीं हो था कर '
    'लिए तो वह जो अपने गया',
    'mr': 'आहे आणि या आहेत हा ही हे तो ती ते मध्ये नाही एक होते करण्यात असे '
    'होता त्या त्यांच्या साठी मी तुम्ही पण की ची चा च्या',
    'ne': 'छ र को मा छन् भने यो पनि लागि गरेको एक हुन् गर्न थियो त्यो भएको '
    'हो तथा यस छैन म हामी तपाईं',
  },
}
FREQUENT = {
  script: {code: frozenset(text.split()) for code, text in table.items()}
  for script, table in FREQUENT.items()
}


def detect(text: str) -> str | None:
  """The ISO 639-1 code of a text's language; None where there is no telling."""
  scripts = collections.Counter(map(script_of, text))
  del scripts[None]
  if not scripts:
    return None
  script = scripts.most_common(1)[0][0]
  if script == 'han':
    return 'ja' if scripts['ja'] else 'zh'
  if script not in FREQUENT:
    return script
  counts = collections.Counter(re.findall(r"[^\W\d_][\w'’]*", text.lower()))
  if script in ('devanagari', 'arabic'):  # Vowel signs are no letters to `re`.
    counts = collections.Counter(re.split(r'[\s.,:;!?।،؟"()]+', text))
  hits = {
    code: sum(counts[word] for word in words)
    for code, words in FREQUENT[script].items()
  }
  best = max(hits, key=hits.get)
  return best if hits[best] else None


def script_of(char: str) -> str | None:
  """The script of a letter; None for anything else."""
  if not char.isalpha():
    return None
  code = ord(char)
  for first, last, script in BLOCKS:
    if first <= code <= last:
      return script
  return None
