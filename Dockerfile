# gpt4image in a container, for CPU or GPU, as a user without rights. See docs/install.md.
#
#   docker build -t gpt4image .
#   docker build -t gpt4image:gpu --build-arg TORCH_INDEX=https://pypi.org/simple .
ARG PYTHON=3.12.12-slim-bookworm

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}
# Where torch comes from: the CPU builds by default; those of PyPI bring CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=demo,hf,api,clip,onnx
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.13" "torchvision>=0.28"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(ls /wheels/gpt4image-*.whl)[${EXTRAS}]"

# Models, data sets and digests that are fetched or remembered, for whichever user the container runs as.
ENV HOME=/cache
RUN useradd --uid 1000 --home-dir /cache --no-create-home gpt4image \
    && mkdir --mode 1777 /cache /work
VOLUME /cache
WORKDIR /work
USER gpt4image
ENTRYPOINT ["gpt4image"]
CMD ["--help"]
