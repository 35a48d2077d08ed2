"""One frozen settings object, read once at a process's entry and passed on; nothing else reads the environment.

Every field is set by `TOOLWEAVER_<NAME>` or by a line in `.env`; `toolweaver config` prints each value and its origin.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

KIB, MIB = 1 << 10, 1 << 20


class Settings(BaseSettings):
    """What can be set, with its default and unit."""

    model_config = SettingsConfigDict(
        env_prefix="TOOLWEAVER_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True, arbitrary_types_allowed=True
    )

    home: Path = Field(default=Path("~/.toolweaver"), description="state folder: embedded server, logs, pid files, results")
    url: str | None = Field(default=None, description="address of the API for clients; default: the running local platform")
    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_REDIS_URL", "REDIS_URL"),
        description="store and broker; default: the embedded server",
    )
    broker_url: str | None = Field(
        default=None, description="Celery broker: `redis://`, `rediss://`, `amqp://` or `amqps://`; default: `redis_url`"
    )
    api_key: SecretStr | None = Field(default=None, description="key that clients send to `url`")
    api_ca: Path | None = Field(default=None, description="PEM file of authorities that clients trust beside the system's")
    api_host: str = Field(default="127.0.0.1", description="address that the API listens on; beyond loopback keys are required")
    api_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="names by which others reach the API, comma-separated; naming one makes keys required"
    )
    api_in_container: bool = Field(
        default=False,
        description="any `api_host` counts as loopback: for a container whose port the host publishes on its own loopback only",
    )
    api_port: int = Field(default=8400, description="first port tried; a busy one moves on and is printed")
    api_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="addresses or networks of reverse proxies whose X-Forwarded-* is believed; makes keys required"
    )
    api_tls_cert: Path | None = Field(default=None, description="PEM file with the API's certificate and its chain; makes it https")
    api_tls_key: Path | None = Field(default=None, description="PEM file with the private key of `api_tls_cert`")
    audit_file: Path | None = Field(default=None, description="file to which the audit log is appended as JSON lines")
    audit_max: int = Field(default=100_000, ge=100, description="entries of the audit log kept per tenant, about")
    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="whether requests need a key; `auto`: once there is one, and always beyond loopback; `off`: loopback only",
    )
    limit_requests: int = Field(default=6_000, ge=-1, description="requests a minute per tenant; -1: no limit (so for all limits)")
    limit_jobs: int = Field(default=10_000, ge=-1, description="jobs of a tenant that have not ended")
    limit_streams: int = Field(default=100, ge=-1, description="open streams of events per tenant, in each process of the API")
    flower_port: int = Field(default=5555, description="first port tried for Flower")
    tools: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="modules or .py files with tools of yours, comma-separated"
    )
    concurrency: int = Field(default=2, ge=1, description="processes of a prefork pool")
    async_concurrency: int = Field(default=100, ge=1, description="calls that an async pool runs at once in its one process")
    drain_s: float = Field(default=10.0, ge=0, description="how long a worker that is stopped lets running calls go on")
    file_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="folders beneath which `file:` inputs may lie, comma-separated; default: none beyond the bundled data",
    )
    fetch_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="hosts that http(s) inputs may name although their address is private, comma-separated"
    )
    blobs: str | None = Field(
        default=None,
        description="where files and large values lie: a folder, an fsspec URL such as `s3://bucket/prefix`, or the API's address",
    )
    blob_bytes: int = Field(default=MIB, ge=1, description="larger values are kept in the blob store, not in Redis")
    file_max_bytes: int = Field(default=1024 * MIB, ge=1, description="largest file that can be uploaded or made by a tool")
    tenant_blob_bytes: int | None = Field(
        default=None, ge=-1, description="bytes of files and large values that one tenant may keep; default: no limit"
    )
    upload_retention_s: int = Field(default=86_400, ge=60, description="how long a file is kept that no job names")
    kept_bytes: int = Field(
        default=64 * MIB, ge=0, description="large values that a process keeps for its next calls, as JSON text"
    )
    fetch_max_bytes: int = Field(default=20 * MIB, description="largest file that a tool fetches or reads")
    ocr_engines: Annotated[tuple[Literal["rapidocr", "tesseract", "azure"], ...], NoDecode] = Field(
        default=("rapidocr", "tesseract"),
        description="what reads pictures, comma-separated: the next when one cannot; `azure` sends them to Microsoft",
    )
    ocr_deadline_s: float = Field(default=90.0, gt=0, description="seconds that the text of a picture or document may take")
    ocr_pages: int = Field(default=20, ge=1, description="pages of a document that are read; the others are named in a note")
    azure_vision_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_VISION_ENDPOINT", "VISION_ENDPOINT", "AZURE_COMPUTER_VISION_ENDPOINT"),
        description="address of the Azure Computer Vision resource",
    )
    azure_vision_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_VISION_KEY", "VISION_KEY", "AZURE_COMPUTER_VISION_KEY"),
        description="key of the Azure Computer Vision resource",
    )
    docker_host: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_DOCKER_HOST", "DOCKER_HOST"),
        description="address of the container engine that programs run in; default: Docker's usual socket",
    )
    index_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="addresses of the index service's replicas, comma-separated; default: those that announce themselves",
    )
    index_host: str = Field(
        default="127.0.0.1", description="address that the index service listens on; beyond loopback needs a key"
    )
    index_port: int = Field(default=8500, description="first port tried for the index service; a busy one moves on")
    index_key: SecretStr | None = Field(default=None, description="key that the index service asks for, and its clients send")
    index_in_container: bool = Field(
        default=False, description="any `index_host` counts as loopback: for a container whose network only the platform shares"
    )
    index_address: str | None = Field(
        default=None, description="address that a replica of the index service announces; default: where it listens"
    )
    index_deadline_ms: int = Field(
        default=200, ge=0, description="how long a search waits for the encoder, before it answers by words alone"
    )
    embed_url: str | None = Field(
        default=None, description="address of an index service whose `/embed` makes the vectors; default: this process does"
    )
    search_share: float = Field(
        default=0.1, gt=0, le=1, description="a planner searches when its tools fill more than this part of the model's window"
    )
    search_threshold: int | None = Field(
        default=None, ge=0, description="a planner searches when there are more tools than this, whatever their tokens"
    )
    search_lexical_weight: float | None = Field(
        default=None, ge=0, le=10, description="weight of the words beside the meaning; `toolweaver search lab` fits it"
    )
    servers_file: Path | None = Field(
        default=None, description="JSON file that names MCP servers and OpenAPI documents; default: `mcp.json` in `home`"
    )
    server_connect_s: float = Field(default=20.0, gt=0, description="how long a server may take to start and to list its tools")
    discovery_ttl_s: int = Field(default=86_400, ge=0, description="how long `discover_all` answers from its file")
    breaker_failures: int = Field(default=5, ge=1, description="failures in a row after which a server or tool is not called")
    breaker_open_s: float = Field(default=60.0, gt=0, description="seconds after which one call probes it again")
    sandbox_image: str = Field(default="toolweaver-sandbox:latest", description="image that programs run in")
    sandbox_base: str = Field(default="python:3.11-slim", description="image that `toolweaver sandbox build` starts from")
    sandbox_warm_max: int = Field(default=6, ge=1, le=64, description="containers kept ready at most, before anybody asks")
    sandbox_concurrency: int = Field(default=16, ge=1, description="programs that a worker of the pool `code` runs at once")
    sandbox_lease_s: float = Field(
        default=8.0, ge=1, description="a container that heard nothing from its worker for this long ends itself"
    )
    sandbox_max_age_s: float = Field(default=600.0, ge=1, description="a container that waited this long unused is replaced")
    sandbox_dir: Path | None = Field(
        default=None,
        description="folder of the containers' sockets, which the engine must see under the same path; default: in the temp folder",
    )
    shards: int = Field(default=1, ge=1, le=1024, description="parts of the ledger; never change it while jobs run")
    window: float = Field(default=4.0, ge=1, description="published calls per job and queue, as a multiple of its pool's slots")
    tenant_window: float = Field(
        default=4.0, ge=2, description="published calls per tenant and queue, as a multiple of its pool's slots"
    )
    window_least: int = Field(default=8, ge=2, description="both windows are at least so many calls")
    age_s: float = Field(default=5.0, gt=0, description="a queued call that better ones overtook for so long goes to the front")
    lease_s: float = Field(default=3.0, gt=0, description="a running call without a beat for this long is lost")
    grace_s: float = Field(default=2.0, gt=0, description="a queued call overtaken for this long is published again")
    reconcile_s: float = Field(default=0.5, gt=0, description="seconds between two looks of the reconciler")
    once_fsync: bool = Field(
        default=False, description="a tool of effect `once` starts when its claim is on the store's disk (Redis 7.2, Valkey)"
    )
    once_replicas: int = Field(default=0, ge=0, description="and on the disks of so many replicas")
    max_lost: int = Field(default=5, ge=1, description="lost attempts after which a call counts as poison and fails")
    retention_s: int = Field(default=86_400, ge=1, description="how long a finished job is kept")
    idempotency_s: int = Field(default=86_400, ge=60, description="how long an idempotency key is remembered")
    inline_bytes: int = Field(default=32 * KIB, description="larger values are kept beside the job, not in it")
    result_max_bytes: int = Field(default=64 * MIB, description="largest result of one call")
    events_max: int = Field(default=10_000, description="events kept per job, about")
    planner_provider: (
        Literal[
            "openai",
            "azure-openai",
            "anthropic",
            "gemini",
            "openai-compatible",
            "ollama",
            "azure-foundry",
            "transformers",
            "scripted",
        ]
        | None
    ) = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_PLANNER_PROVIDER", "PLANNER_PROVIDER"),
        description="whose model makes plans; default: none, so that only requests that fit a plan template can be planned",
    )
    planner_model: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_PLANNER_MODEL", "PLANNER_MODEL"),
        description="model that makes plans; default: a current one of the provider",
    )
    planner_url: str | None = Field(default=None, description="address of the provider's server; default: the vendor's own")
    planner_key: SecretStr | None = Field(default=None, description="key for `planner_url`; default: the vendor's variable below")
    planner_api: Literal["responses", "chat"] = Field(
        default="responses", description="which of its two protocols OpenAI and Azure OpenAI are spoken to in"
    )
    planner_window: int | None = Field(
        default=None, ge=1_000, description="tokens of the model's context; default: what is known of the model"
    )
    planner_max_tokens: int = Field(default=8_192, ge=256, description="tokens that one answer of the planner's model may have")
    planner_timeout_s: float = Field(default=120.0, gt=0, description="how long one request to the planner's model may take")
    planner_retries: int = Field(default=3, ge=0, le=20, description="further tries of a request that failed and may succeed later")
    planner_repairs: int = Field(
        default=2, ge=0, le=10, description="how often the model may mend a plan that does not pass the check"
    )
    planner_replans: int = Field(default=1, ge=0, le=10, description="how often a request is planned anew after steps of it failed")
    planner_concurrency: int = Field(default=8, ge=1, le=256, description="requests that one planner process plans at once")
    planner_script: Path | None = Field(default=None, description="JSON file with the answers of the provider `scripted`, in turn")
    prices_file: Path | None = Field(
        default=None, description="YAML or JSON file with prices of models, before those of genai-prices (docs/models.md)"
    )
    synthesis: Literal["template", "model"] = Field(
        default="template", description="who words the answer of a planned request; `model` costs a further call"
    )
    openai_api_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("TOOLWEAVER_OPENAI_API_KEY", "OPENAI_API_KEY"), description="key of OpenAI"
    )
    anthropic_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        description="key of Anthropic",
    )
    gemini_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_GEMINI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"),
        description="key of Gemini",
    )
    azure_openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"),
        description="key of Azure OpenAI",
    )
    azure_openai_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_ENDPOINT"),
        description="address of the resource, such as `https://your-resource.openai.azure.com/`",
    )
    azure_openai_use_ad: bool = Field(
        default=False,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_OPENAI_USE_AD", "AZURE_OPENAI_USE_AD"),
        description="sign in to Azure OpenAI by Entra ID (`az login`, managed identity) instead of a key",
    )
    azure_openai_api_version: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION"),
        description="version of Azure's API; default: its version 1 API, which needs none",
    )
    azure_foundry_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_FOUNDRY_ENDPOINT", "AZURE_SMALL_MODEL_ENDPOINT"),
        description="address of a model that Azure AI Foundry serves, such as `https://name.region.inference.ml.azure.com/score`",
    )
    azure_foundry_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("TOOLWEAVER_AZURE_FOUNDRY_KEY", "AZURE_SMALL_MODEL_KEY"),
        description="key of `azure_foundry_endpoint`",
    )
    provider_requests_per_minute: int | None = Field(
        default=None, ge=1, description="requests a minute to one provider, of all processes together; default: no limit of ours"
    )
    provider_tokens_per_minute: int | None = Field(
        default=None, ge=1, description="tokens a minute of one provider, of all processes together; default: no limit of ours"
    )
    provider_limits: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="requests/tokens a minute by provider in place of these two, such as `openai=500/200000,anthropic=50/-`",
    )
    rate_user_per_hour: int = Field(
        default=100, ge=-1, description="jobs and programs that one caller with a key may start an hour; -1: no limit"
    )
    rate_tenant_per_hour: int = Field(default=1_000, ge=-1, description="the same for all callers of a tenant together")
    rate_global_per_hour: int = Field(default=10_000, ge=-1, description="the same for all tenants together")
    use_small_model: bool = Field(
        default=False,
        validation_alias=AliasChoices("TOOLWEAVER_USE_SMALL_MODEL", "USE_SMALL_MODEL"),
        description="receipt tools ask the small model; what it cannot do is done without it, and the result says so",
    )
    small_model_backend: Literal["openai-compatible", "ollama", "azure", "transformers"] = Field(
        default="openai-compatible",
        validation_alias=AliasChoices("TOOLWEAVER_SMALL_MODEL_BACKEND", "SMALL_MODEL_BACKEND"),
        description="what serves the small model; `azure`: `azure_foundry_endpoint`, `transformers`: this process itself",
    )
    small_model_url: str | None = Field(
        default=None, description="address of an OpenAI-compatible server, such as `http://host:8000/v1`"
    )
    small_model_key: SecretStr | None = Field(default=None, description="key that is sent to `small_model_url`")
    small_model_timeout_s: float = Field(default=30.0, gt=0, description="how long one request may take, with its retries")
    worker_model: str = Field(
        default="phi3",
        validation_alias=AliasChoices("TOOLWEAVER_WORKER_MODEL", "WORKER_MODEL"),
        description="name of the small model",
    )
    categorizer: Literal["auto", "prototypes", "rules", "model"] = Field(
        default="auto", description="how items get categories; `auto`: `model` with `use_small_model`, else `prototypes`"
    )
    categories_file: Path | None = Field(
        default=None, description="YAML or JSON file with categories of yours and their examples, in place of the bundled ones"
    )
    program_limits_file: Path | None = Field(
        default=None, description="YAML or JSON file with the limits of programs, by tool and tenant (docs/programs.md)"
    )
    task_events: bool = Field(default=True, description="workers send Celery events, which Flower shows")
    log_level: str = Field(default="INFO", description="least level that logs show: DEBUG, INFO, WARNING or ERROR")

    @field_validator(
        "tools",
        "ocr_engines",
        "file_roots",
        "fetch_hosts",
        "api_hosts",
        "api_proxies",
        "index_urls",
        "provider_limits",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("index_key", mode="after")
    @classmethod
    def _none_if_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value() else None

    @field_validator("home", mode="after")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def categorizer_used(self) -> Literal["prototypes", "rules", "model"]:
        """How items get categories."""
        if self.categorizer != "auto":
            return self.categorizer
        return "model" if self.use_small_model else "prototypes"

    @property
    def store_url(self) -> str:
        """The Redis URL, of the embedded server when none is set."""
        return self.redis_url or f"unix://{self.home}/redis.sock?db=0"

    @property
    def sandbox_folder(self) -> Path:
        """Where the containers' sockets lie; a socket's path must be short."""
        return (self.sandbox_dir or Path(tempfile.gettempdir()) / f"tw-sandbox-{os.getuid()}").expanduser().absolute()

    @property
    def servers_path(self) -> Path:
        """Where MCP servers and OpenAPI documents are named."""
        return (self.servers_file or self.home / "mcp.json").expanduser().absolute()

    @property
    def blob_url(self) -> str:
        """Where the bytes of files and large values lie."""
        return self.blobs or str(self.home / "blobs")

    @property
    def celery_url(self) -> str:
        """The broker URL in the spelling that kombu expects; kombu checks no certificate unless it is told to."""
        url = self.broker_url or self.store_url
        if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
            url += f"{'&' if '?' in url else '?'}ssl_cert_reqs=required"
        return url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=") if url.startswith("unix://") else url

    @property
    def on_rabbitmq(self) -> bool:
        """Whether the broker is RabbitMQ."""
        return self.celery_url.startswith(("amqp://", "amqps://", "pyamqp://"))

    @property
    def direct(self) -> bool:
        """Whether the broker is the store's own Redis, so that the ledger's scripts push messages themselves."""
        return self.broker_url in (None, self.redis_url)


def load_settings(**overrides: object) -> Settings:
    """The settings of this process: environment, then `.env`, then defaults; `overrides` win."""
    return Settings(**overrides)  # type: ignore[arg-type]
