# showface on an NVIDIA GPU by ONNX Runtime. Unverified: neither built nor run on a GPU yet.
#   docker build -f docker/cuda.Dockerfile -t showface:cuda . && docker run --gpus all -p 127.0.0.1:8080:8080 showface:cuda
FROM python:3.12-slim

# OpenCV's wheel with a window system is what the base install names.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The extra brings CUDA's and cuDNN's libraries as wheels: the image needs none of NVIDIA's own.
RUN pip install --no-cache-dir -c constraints.txt '.[cuda,serve]' && rm -rf /src

RUN useradd --create-home --uid 10001 showface
USER showface
WORKDIR /home/showface
ENV ORT_DISABLE_TELEMETRY=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
ENTRYPOINT ["showface"]
# cuda:0, not auto: a container without its GPU ends with a sentence instead of running on the CPU.
CMD ["serve", "--host", "0.0.0.0", "--device", "cuda:0"]
