"""alignax: align language models, in JAX."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent

# What the losses need; everything else is for training.
CORE = ['jax>=0.10,<0.13', 'chex>=0.1.90,<0.2']
TRAINING = [
  'flax>=0.12,<0.13',
  'optax>=0.2.7,<0.3',
  'orbax-checkpoint>=0.12,<0.13',
  'ml-collections>=1.1,<2',
  'absl-py>=2,<3',
  'grain>=0.2.15,<0.3',
  'datasets>=5,<6',
  'transformers>=5.20,<6',
  'huggingface-hub>=1,<3',
  'tokenizers>=0.22,<0.24',
  'jinja2>=3.1,<4',
  'sentencepiece>=0.2,<0.3',
  'safetensors>=0.7,<0.9',
  'gguf>=0.19,<0.20',
  'matplotlib>=3.10,<4',
  'tensorboardX>=2.6,<3',
  'tqdm>=4.66,<5',
]
MATH = ['math-verify[antlr4_13_2]>=0.8,<1']
TEST = [
  *MATH,
  'pytest>=9,<10',
  'pytest-xdist>=3.8,<4',
  'ruff>=0.15,<0.18',
  'mkdocs>=1.6,<2',
]

setup(
  name='alignax',
  version='0.1.0',
  description='Align language models in JAX: SFT, reward models, PPO, DPO.',
  long_description=(HERE / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=['alignax', 'alignax.*', 'configs']),
  package_data={'alignax': ['**/*.html', '**/*.jinja']},
  install_requires=CORE,
  extras_require={
    'train': TRAINING,
    'test': TEST,
    'math': MATH,
    'ray': ['ray>=2.50,<3'],
  },
  entry_points={'console_scripts': ['alignax=alignax.cli:main']},
)
