"""What the webhook counts. Labels have few values, all named in the code: never a namespace, a pod or a registry.

The modules that own the reasons and causes make their labels known, so that each is there with 0 from the start.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ADMISSIONS = Counter("darner_webhook_admissions", "Questions of the API server, by what became of them", ["outcome"])
ADMISSION_SECONDS = Histogram(
    "darner_webhook_admission_duration_seconds",
    "From a question's first byte to its answer",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 3),
)
REWRITTEN_IMAGES = Counter("darner_webhook_rewritten_images", "Image names that were rewritten")
LEFT_ALONE = Counter("darner_webhook_left_alone", "Images, or whole pods, that were not rewritten, by reason", ["reason"])
CERTIFICATE_EXPIRY = Gauge("darner_webhook_certificate_expiry_timestamp_seconds", "When the serving certificate ends")
CERTIFICATE_FAILURES = Counter(
    "darner_webhook_certificate_failures", "Times that the certificate, or the trust in it, could not be kept"
)
LAST_ADMISSION = Gauge("darner_webhook_last_admission_timestamp_seconds", "When a question was last answered; 0: never")
AGENTS = Gauge(
    "darner_webhook_agents", "Nodes, by whether their agent can serve a pull now, and those that are to have none", ["state"]
)
AGENTS_VIEW_AGE = Gauge("darner_webhook_agents_view_age_seconds", "How long ago it was last certain which agents are ready")
DERIVED_WRITES = Counter("darner_webhook_derived_secrets", "Derived pull secrets that were written", ["how"])
DERIVED_FAILURES = Counter("darner_webhook_derived_secret_failures", "Pods whose pull secrets could not be derived", ["cause"])
OUT_OF_STEP = Gauge("darner_webhook_derived_secrets_out_of_step", "Derived pull secrets that could not be made to follow")
REVERTED_PODS = Counter(
    "darner_webhook_reverted_pods", "Pods that got original images back, by why the pull had failed", ["reason"]
)
REVERT_FAILURES = Counter("darner_webhook_revert_failures", "Times that a pod could not be given its original images at once")
PAUSED = Gauge("darner_webhook_paused", "Registries, repositories, and owners of pods, that are left alone now", ["kind"])
PAUSES = Counter("darner_webhook_pauses", "Times that a registry, repository or owner of pods began to be left alone", ["kind"])
STARTUP_TAINTS = Counter(
    "darner_webhook_startup_taints", "Nodes whose startup taint was taken away, because their agent is ready"
)
WARM_NAMES = Counter("darner_webhook_warm_names", "Images of admitted pods that were to be told to the supernodes", ["outcome"])
LEADING = Gauge("darner_webhook_leading", "Whether this replica is the one that acts")

for outcome in ("rewritten", "unchanged", "bad-request", "failed"):
    ADMISSIONS.labels(outcome)
for outcome in ("sent", "dropped"):
    WARM_NAMES.labels(outcome)
for kind in ("registry", "owner", "credential", "refused"):
    PAUSES.labels(kind)
