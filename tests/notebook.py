# %% [markdown]
# # Sound for a video, from Python
# Each `# %%` begins a cell: editors with notebooks (VS Code, PyCharm, Jupyter with jupytext) show
# this file as one. As it stands it takes a minute or two on two CPU cores, and downloads nothing.

# %%
import pathlib
import tempfile

import avlink_jax
from avlink_jax.data.impacts import Impacts

folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# A model by its name: TASK:SCALE (the weights of scale nano are in the package), the workdir of a
# run, or a hub name. `config` changes what you could change by flags.

# %%
model = avlink_jax.load('v2a:nano', config={'sample.steps': 8})

# %% [markdown]
# Something to try it with: a film of the procedural world that these weights know, 31 frames at 6 a
# second. A path works as well, and a list of either.

# %%
film = Impacts('test').load(3)
print(film.video_caption, film.frames.shape)

# %% [markdown]
# One call, and nothing is written. Progress comes as (steps done, steps in all).

# %%
clip, = model(video=film.frames, fps=6.0, prompt=film.audio_caption,
              on_step=lambda done, count: print(f'{done}/{count}', end=' '))
print(clip.audio.shape, clip.sample_rate, clip.frames.shape, clip.fps)

# %% [markdown]
# Several takes, to choose from; AV-Align says how well sound and picture move together. Another
# seed gives others. What should not be heard goes into the negative prompt.

# %%
takes = model(video=film.frames, fps=6.0, prompt=film.audio_caption,
              negative_prompt='water, wet plops', takes=3, seed=1)
for take in takes:
  print(take.id, take.av_align)
best = max(takes, key=lambda take: take.av_align or 0.0)

# %% [markdown]
# As files. A video that was given as a file is kept as it is, and gets the sound.

# %%
path = best.save(folder / 'best.mp4')
again, = model(video=path, prompt='a hammer strikes metal')
print(again.save(folder / 'again.mp4'), again.save(folder / 'again.wav'))
