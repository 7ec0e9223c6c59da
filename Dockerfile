# The image that `tfx-ranking compile --image` names: Debian 13, Python 3.13, TFX 1.21, pinned by requirements/py313.txt.
#   docker build --tag registry.example.com/ranking:1 .
FROM debian:13-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates g++ python3 python3-dev python3-venv
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet uv
WORKDIR /build
# To install more packages into it: docker build --build-arg PACKAGES="gcsfs tensorflow[and-cuda]" ...
ARG PACKAGES=""
COPY LICENSE README.md pyproject.toml ./
COPY components components
COPY pipelines pipelines
COPY tfx_ranking tfx_ranking
COPY requirements/py313.txt pins.txt
# A wheel, as anybody would install it; the pins are limits, so what only development needs stays out.  Compiled here: who
# runs it may not write there, and each container would compile TensorFlow again.
RUN /opt/uv/bin/uv build --quiet --wheel --out-dir wheels \
 && /opt/uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/ranking \
 && /opt/uv/bin/uv pip install --quiet --compile-bytecode --python /opt/ranking/bin/python --constraint pins.txt \
      "$(echo wheels/tfx_ranking-*.whl)[kubeflow,s3]" $PACKAGES

FROM debian:13-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home ranking
COPY --from=build /opt/ranking /opt/ranking
ENV PATH=/opt/ranking/bin:/usr/bin:/bin
# A number, because Kubernetes cannot check that a name is not root's.
USER 10001
WORKDIR /home/ranking
# Your own modules (a preprocessing_fn, a scorer) belong on PYTHONPATH: COPY them here and ENV PYTHONPATH=/home/ranking.
ENTRYPOINT ["tfx-ranking"]
