"""Floating-point operations of a traced program, from the shapes of its matrix products and
convolutions.

A multiply-add counts as two. A scan's body counts as often as it runs, a Pallas kernel's for each
grid cell, a `shard_map`'s on every device, and of branches the most expensive one. Recomputation by
rematerialisation is included, as part of the program. XLA's own count (`cost_analysis`) counts a
loop's body once and ignores kernels.
"""

import functools
import math

import jax
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr


def of(function, *args):
  """Counts the FLOPs of one call, on all devices. `args` may be shapes; nothing is computed."""
  return count(jax.make_jaxpr(function)(*args))


def count(closed):
  """Counts the FLOPs of a ClosedJaxpr, without dead code, as in XLA.

  Raises ValueError: matrix products in a loop of unknown length, or an opaque kernel.
  """
  return _count(dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0])


def _count(jaxpr):
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation):
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _dot(equation)
  if name == 'conv_general_dilated':
    return _convolution(equation)
  if name in ('ffi_call', 'dot_product_attention_fwd', 'dot_product_attention_bwd'):
    raise ValueError(f'{name}: a kernel that cannot be looked into; trace another implementation')
  inner = [_count(jaxpr) for jaxpr in jaxprs_in_params(params)]
  if name == 'cond':
    return max(inner)
  if name == 'while' and any(inner):
    raise ValueError('matrix products in a while loop: how often they run is not known')
  return sum(inner) * _times(name, params)


def _times(name, params):
  """Number of times that an equation's inner program runs."""
  if name == 'scan':
    return params['length']
  if name == 'pallas_call':
    return math.prod(params['grid_mapping'].grid)
  if name == 'shard_map':  # the parameter's name depends on JAX's version
    axes = params.get('newly_manual_axes', params.get('manual_axes'))
    return math.prod(params['mesh'].shape[axis] for axis in axes)
  return 1


def _dot(equation):
  """FLOPs of a matrix product: 2 · outputs · length of the contraction."""
  (contracted, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _convolution(equation):
  """FLOPs of a convolution: 2 · outputs · channels · taps, without taps on padding or on the zeros
  that dilation inserts between inputs."""
  left, right = (x.aval.shape for x in equation.invars)
  out, params = equation.outvars[0].aval.shape, equation.params
  of_left, of_right, of_out = params['dimension_numbers']
  taps = 1
  for axis, (low, _) in enumerate(params['padding']):
    taps *= _taps(left[of_left[2 + axis]], right[of_right[2 + axis]], out[of_out[2 + axis]], low,
                  params['window_strides'][axis], params['lhs_dilation'][axis],
                  params['rhs_dilation'][axis])
  return 2 * out[of_out[0]] * out[of_out[1]] * right[of_right[1]] * taps


@functools.cache
def _taps(inputs, kernel, outputs, low, stride, input_dilation, dilation):
  """Number of pairs (output, kernel tap) along one axis that meet an input."""
  if kernel > outputs:  # a gradient's kernel; the count is symmetric in both
    kernel, outputs, stride, dilation = outputs, kernel, dilation, stride
  last = (inputs - 1) * input_dilation
  return sum(1 for tap in range(kernel) for output in range(outputs)
             if 0 <= (at := output * stride + tap * dilation - low) <= last
             and at % input_dilation == 0)
