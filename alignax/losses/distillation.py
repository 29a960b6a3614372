"""Losses that bring a student's distribution to a teacher's.

One entry for each position; `weights` of the mask of what is learned from says
how they are averaged. No gradient flows to the teacher.
"""

import math

import jax
import jax.numpy as jnp

from alignax.losses.divergences import kl_divergence
from alignax.numerics import as_integers, log1mexp, log_softmax, matched
from alignax.types import Array, Metrics


def forward_kl_loss(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  top_k: int | None = None,
) -> tuple[Array, Metrics]:
  """KL(teacher ‖ student): the student covers all that the teacher does.

    L = Σ_v t(v) (log t(v) - log s(v))

  Its gradient is that of cross-entropy with the teacher's soft targets. See
  Hinton et al., section 2 (https://arxiv.org/abs/1503.02531); there is no
  factor τ² here.

  Args and returns: as for `generalized_jsd_loss`.
  """
  return generalized_jsd_loss(
    student_logits,
    teacher_logits,
    beta=0.0,
    temperature=temperature,
    top_k=top_k,
  )


def reverse_kl_loss(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  top_k: int | None = None,
) -> tuple[Array, Metrics]:
  """KL(student ‖ teacher): the student keeps to what the teacher would say.

    L = Σ_v s(v) (log s(v) - log t(v))

  See Gu et al., eq. 1 (https://arxiv.org/abs/2306.08543).

  Args and returns: as for `generalized_jsd_loss`.
  """
  return generalized_jsd_loss(
    student_logits,
    teacher_logits,
    beta=1.0,
    temperature=temperature,
    top_k=top_k,
  )


def generalized_jsd_loss(
  student_logits: Array,
  teacher_logits: Array,
  *,
  beta: float = 0.5,
  temperature: float = 1.0,
  top_k: int | None = None,
) -> tuple[Array, Metrics]:
  """The generalised Jensen-Shannon divergence of GKD.

    L = β KL(t ‖ m) + (1 - β) KL(s ‖ m)   with   m = β t + (1 - β) s

  At β = 0 and β = 1, where this is 0, it stands for its limits when divided by
  β (1 - β): the forward KL(t ‖ s) and the reverse KL(s ‖ t).

  See Agarwal et al., eq. 1 (https://arxiv.org/abs/2306.13649).

  Args:
    student_logits: [..., V].
    teacher_logits: [..., V].
    beta: between forward (0) and reverse KL (1).
    temperature: divides the logits of both.
    top_k: if given, only the teacher's k likeliest tokens are told apart, and
      all others are one.

  Returns:
    The loss and the metrics of every position, all [...].
  """
  student, teacher = matched(
    student_logits=student_logits, teacher_logits=teacher_logits
  )
  student = log_softmax(student / temperature)
  teacher = log_softmax(jax.lax.stop_gradient(teacher) / temperature)
  if top_k is not None:
    top, ids = jax.lax.top_k(teacher, top_k)
    return _jsd(_with_rest(_pick(student, ids)), _with_rest(top), beta)
  return _jsd(student, teacher, beta)


def top_k_jsd_loss(
  student_logits: Array,
  teacher_logps: Array,
  teacher_ids: Array,
  *,
  beta: float = 0.5,
  temperature: float = 1.0,
) -> tuple[Array, Metrics]:
  """`generalized_jsd_loss(top_k=K)` from a teacher's stored log-probs.

    L = JSD_β(t̂ ‖ ŝ)   with   p̂ = (p(v_1), …, p(v_K), 1 - Σ_k p(v_k))

  v_1 to v_K are the teacher's likeliest tokens. K log-probs a position can be
  written to disk where V logits cannot.

  See Agarwal et al., eq. 1 (https://arxiv.org/abs/2306.13649) for the JSD.

  Args:
    student_logits: [..., V].
    teacher_logps: the teacher's K largest log-probs, at this temperature,
      [..., K].
    teacher_ids: their tokens, int [..., K].
    beta: as for `generalized_jsd_loss`.
    temperature: of the student.

  Returns:
    As `generalized_jsd_loss`.
  """
  _, teacher = matched(teacher_ids, teacher_logps=teacher_logps)
  (student,) = matched(student_logits=student_logits)
  student = log_softmax(student / temperature)
  student = _with_rest(_pick(student, as_integers('teacher_ids', teacher_ids)))
  return _jsd(student, _with_rest(jax.lax.stop_gradient(teacher)), beta)


def _pick(logps, ids):
  return jnp.take_along_axis(logps, ids, axis=-1)


def _with_rest(top):
  """Log-probs of k tokens, and of all others together. [..., K + 1]."""
  rest = log1mexp(jax.nn.logsumexp(top, axis=-1, keepdims=True))
  return jnp.concatenate([top, rest], axis=-1)


def _jsd(student, teacher, beta):
  forward = kl_divergence(teacher, student)
  reverse = kl_divergence(student, teacher)
  if beta == 0:
    loss = forward
  elif beta == 1:
    loss = reverse
  else:
    mixture = jnp.logaddexp(
      math.log1p(-beta) + student, math.log(beta) + teacher
    )
    loss = beta * kl_divergence(teacher, mixture)
    loss += (1 - beta) * kl_divergence(student, mixture)
  return loss, {'distill/forward_kl': forward, 'distill/reverse_kl': reverse}
