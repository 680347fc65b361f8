# An image for NVIDIA GPUs.
#
#   docker build -f launch/gpu.Dockerfile -t avlink_jax:gpu .
#   docker run --gpus=all -v "$PWD/runs:/app/runs" avlink_jax:gpu --config=configs/v2a.py:nano
#
# Everything from requirements.txt, in one resolution with this hardware's jax. IMAGE= of
# gke_jobset.sh takes the TPU one.
FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt 'jax[cuda12]' gcsfs
COPY . .
RUN pip install --no-cache-dir --no-deps .
ENTRYPOINT ["python", "-m", "avlink_jax.main"]
