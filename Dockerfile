# The server as an image. With a model inside:
#   docker build -t iris --build-arg MODEL_DIR=models/iris --build-arg MODEL_NAME=iris .
#   docker run -p 50051:50051 iris
# MODEL_DIR is a directory in the build context, MODEL_NAME what callers call the model: `model` if it is not given.
# Without one, a model is mounted. Packages in other versions than it names are a warning; one that the image lacks
# refuses it, and the line says how to install it:
#   docker build -t mlflow-grpc .
#   docker run -p 50051:50051 -v "$PWD/models/iris:/opt/ml/model:ro" -e MLFLOW_GRPC_MODEL_NAME=iris mlflow-grpc

# With what fetches models from object stores (s3://, gs://, abfss:// and wasbs://):
#   docker build -t mlflow-grpc --build-arg EXTRAS=s3,gs,azure .

# For a base that never changes, give its digest: PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG MODEL_NAME=

# First of all, so that a wrong MODEL_DIR is told of in seconds.
FROM ${PYTHON_IMAGE} AS model
ARG MODEL_DIR=
WORKDIR /opt/ml/model
# COPY has no "if there is one": without MODEL_DIR it is given a file that is always there, which goes away again.
COPY ${MODEL_DIR:-LICENSE} ./
# The files may be readable by their owner alone, and the server runs as somebody else.
RUN if [ -z "$MODEL_DIR" ]; then rm LICENSE; \
    elif [ ! -f MLmodel ]; then echo "MODEL_DIR=$MODEL_DIR is no MLflow model: it has no MLmodel file" >&2; exit 1; \
    fi && chmod -R a+rX .

FROM ${PYTHON_IMAGE} AS build
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv

# The locked packages come before the code: they take the longest and change the least.
WORKDIR /src
ARG EXTRAS=
COPY requirements*.txt ./
RUN set -- -r requirements.txt; \
    for extra in $(echo "$EXTRAS" | tr , ' '); do \
        if [ ! -f "requirements-$extra.txt" ]; then echo "EXTRAS=$EXTRAS: there is no extra $extra" >&2; exit 1; fi; \
        set -- "$@" -r "requirements-$extra.txt"; \
    done; \
    pip install --require-hashes "$@"
COPY pyproject.toml README.md LICENSE ./
COPY mlflow_grpc ./mlflow_grpc
COPY client ./client
RUN pip wheel --no-deps --wheel-dir /wheels . ./client && pip install --no-deps /wheels/*.whl && pip check

# Paths in a model's requirements are relative to the model.
WORKDIR /opt/ml/model
COPY --from=model /opt/ml/model ./
# The server's wheels are resolved together with the model's requirements: what suits both is installed, which is
# what the lock has installed unless the model rules it out. If nothing does (the model pins an MLflow that the
# server does not work with), the build ends with pip's words on who wants what.
RUN if [ -f requirements.txt ]; then pip install -r requirements.txt /wheels/*.whl && pip check; fi

# Of no other stage's business: `make image-sbom` has what is in /opt/venv listed, by a tool in an environment of its own.
FROM build AS inventory
RUN python -m venv /opt/sbom
COPY sbom-requirements.txt /src/
RUN /opt/sbom/bin/pip install --require-hashes -r /src/sbom-requirements.txt
RUN mkdir /sbom && /opt/sbom/bin/cyclonedx-py environment --pyproject /src/pyproject.toml --mc-type application \
    --output-reproducible --output-file /sbom/sbom.cdx.json /opt/venv/bin/python
FROM scratch AS sbom
COPY --from=inventory /sbom /

FROM ${PYTHON_IMAGE}
# Any other uid does as well: nothing needs this one's name, and no file is its own.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin --no-log-init mlflow
COPY --from=build /opt/venv /opt/venv
COPY --from=model /opt/ml /opt/ml

# The root filesystem can be read-only but for /tmp: that is HOME, for the caches of the model's libraries, and the
# working directory, for what MLflow puts there. Without PYTHONDONTWRITEBYTECODE a mounted model would be written to;
# without PYTHONUNBUFFERED the last words that a model prints would be lost when it is killed. MLflow would report to its
# makers which of its functions are used, unless MLFLOW_DISABLE_TELEMETRY is true.
ARG MODEL_NAME
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MODEL_PATH=/opt/ml/model \
    MLFLOW_GRPC_MODEL_NAME=$MODEL_NAME \
    HOST=0.0.0.0 \
    PORT=50051
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051

# What differs from build to build is given with it: docker build --label org.opencontainers.image.revision=...
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="mlflow-grpc" \
    org.opencontainers.image.description="Serves an MLflow model over gRPC" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# In the shell's form for the sake of PORT. A server with TLS needs a check of its own: docker run --health-cmd.
HEALTHCHECK --start-period=5m --interval=10s --timeout=10s --retries=3 \
    CMD mlflow-grpc-predict --health --address "localhost:$PORT" --timeout 5

# In the exec form, so that SIGTERM reaches the server, which drains after 7 s, for up to 30 s: docker run --stop-timeout 42.
ENTRYPOINT ["mlflow-grpc"]
CMD ["serve"]
