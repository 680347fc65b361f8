"""The paper's ablations by name: configs/ablations.py:NAME[:SCALE].

A row has a name, its base, and the keys that it changes. Rows based on a task's config are trained;
rows based on another row are sampled with that row's weights, from its default workdir.
`launch/ablations.sh` trains and scores them all.
"""

import difflib
import importlib

TASKS = ('v2a', 'a2v', 'joint')
PAPER_BLOCKS = 24  # of a tower
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96, 0.98, 1.0)  # 0.96: V2A's own
TUNED = {'fusion.finetune': True}
UNIFORM = {'flow.condition_law': 'uniform'}
CAVP, CLIP = ({'towers.video.features': width} for width in (512, 768))

GROUPS = {
    'table2': {  # in the paper's order
        'uniform_time': ('v2a', UNIFORM),
        'ours': ('v2a', {}),
        'cavp': ('v2a', CAVP),
        'cavp_finetuned': ('v2a', CAVP | TUNED),
        'clip': ('v2a', CLIP),
        'after_1': ('v2a', {'fusion.placement': 'after:1'}),  # of 24 blocks, see `placement`
        'after_11': ('v2a', {'fusion.placement': 'after:11'}),
        'after_22': ('v2a', {'fusion.placement': 'after:22'}),
        'text_finetuned': ('v2a', {'fusion.injection': 'text'} | TUNED),
        'direct': ('v2a', {'fusion.injection': 'add'}),
        'direct_finetuned': ('v2a', {'fusion.injection': 'add'} | TUNED),
        'no_reinjection': ('v2a', {'fusion.reinject': False}),
        'cross_attention': ('v2a', {'fusion.injection': 'cross'}),
    },
    'joint': {  # separate against shared Fusion Blocks (Tables 1 and 3)
        'ours_a2v': ('a2v', {}),
        'ours_joint': ('joint', {}),
        'joint_v2a': ('ours_joint', {'sample.direction': 'audio'}),  # guided as `ours` is
        'joint_a2v': ('ours_joint', {'sample.direction': 'video'}),
    },
    'fig3': {  # a model trained with uniform conditioning times, sampled at each
        'uniform_time_a2v': ('a2v', UNIFORM),
        **{f'time_{t:g}': ('uniform_time', {'flow.condition_time.video': t}) for t in TIMES},
        **{f'time_{t:g}_a2v': ('uniform_time_a2v', {'flow.condition_time.audio': t})
           for t in TIMES},
    },
    'fig6': {f'location_{x:g}': ('v2a', {'flow.location.audio': x})
             for x in (0.0, -1.0, -2.5, -4.0)},
    'guidance': {f'guidance_{w:g}': ('ours', {'sample.guidance': w, 'sample.guidance_to': 1.0})
                 for w in (1.0, 2.0, 3.0, 5.0, 7.0)},
    'steps': {f'steps_{n}': ('ours', {'sample.steps': n}) for n in (4, 8, 16, 32, 64, 128)},
}
ROWS = {name: line for group in GROUPS.values() for name, line in group.items()}


def get_config(arg='ours'):
  """Config of 'NAME' at paper scale, or of 'NAME:SCALE'. Raises ValueError: unknown name."""
  name, _, scale = arg.partition(':')
  if name not in ROWS:
    near = difflib.get_close_matches(name, ROWS, 5, 0) if name else []
    raise ValueError(f'unknown ablation {name!r}: did you mean {", ".join(near or ["ours"])}? '
                     '(all of them: configs/ablations.py)')
  base, changes = ROWS[name]
  if base in TASKS:
    c = importlib.import_module(f'avlink_jax.configs.{base}').get_config(scale or 'paper')
    c.name = name  # of the weights: the trained row's
    if c.scale == 'paper':  # Sec. 4.2
      c.train.batch_size, c.train.learning_rate = 128, 1e-4
  else:
    c = get_config(f'{base}:{scale or "paper"}')
  if name == 'joint_v2a':
    separate = get_config(f'ours:{c.scale}').sample
    c.sample.guidance, c.sample.guidance_to = separate.guidance, separate.guidance_to
  c.update_from_flattened_dict(changes)
  c.sample.upsample = False  # the base models' video is compared
  c.sample.preset = 'paper'
  c.fusion.placement = placement(c.fusion.placement, c.towers.audio.depth)
  return c


def placement(setting, depth):
  """Scales 'after:K' from the paper's 24 blocks to `depth`; never after the last block, since
  reinjection needs a block that follows."""
  kind, _, k = setting.partition(':')
  if kind != 'after':
    return setting
  return f'after:{max(1, min(depth - 1, round(int(k) * depth / PAPER_BLOCKS)))}'


def trained(name):
  """Row whose training gives the weights of `name`: itself, if it is trained."""
  base, _ = ROWS[name]
  return name if base in TASKS else base
