"""A look at media files before anything is trained on them: `python -m avlink_jax.data.doctor`."""
