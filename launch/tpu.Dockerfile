# An image for Cloud TPU hosts.
#
#   docker build -f launch/tpu.Dockerfile -t avlink_jax:tpu .
#   docker run --privileged --net=host -v "$PWD/runs:/app/runs" avlink_jax:tpu --config=configs/v2a.py:nano
#
# Everything from requirements.txt, in one resolution with this hardware's jax. IMAGE= of
# gke_jobset.sh takes the TPU one.
FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt 'jax[tpu]' gcsfs
COPY . .
RUN pip install --no-cache-dir --no-deps .
ENTRYPOINT ["python", "-m", "avlink_jax.main"]
